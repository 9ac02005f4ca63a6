import json
import math

import numpy as np
import pytest

from similitude.report import curves, figures, read_run
from similitude.report.gallery import Gallery, build_gallery


def panels_of(run):
    panels, axis = curves.curve_panels([read_run(run)], ["run"])
    return {panel.key: panel for panel in panels}, axis


def test_the_loss_stands_beside_its_chance_level(make_run):
    panels, axis = panels_of(make_run(count=24))
    assert axis == "epoch"
    loss, chance = panels["curve-loss"].figure["data"]
    assert chance["line"]["dash"] == "dash"
    assert set(chance["y"]) == {6.2364}
    assert len(loss["y"]) == 60
    assert "chance" in panels["curve-loss"].caption


def test_a_loss_without_a_chance_level_does_not_speak_of_one(minimal_run):
    panels, _ = panels_of(minimal_run)
    assert set(panels) == {"curve-loss"}
    assert "chance" not in panels["curve-loss"].caption
    assert panels["curve-loss"].figure["data"][0]["y"] == [2.0, 1.9, None]


def test_the_spread_stands_against_one_over_root_d(make_run):
    panels, _ = panels_of(make_run(count=24))
    (line,) = panels["curve-feature_std"].figure["layout"]["shapes"]
    assert line["y0"] == line["y1"] == pytest.approx(1 / math.sqrt(32))


def test_accuracy_is_in_percent(make_run):
    panels, _ = panels_of(make_run(count=24))
    assert panels["curve-knn"].figure["data"][0]["y"][-1] == pytest.approx(80)
    assert panels["curve-knn"].value == "80"


def test_columns_of_the_method_itself_are_shown_too(make_run):
    run = read_run(make_run(count=24))
    extras = curves.extra_panels([run], [run.name])
    assert [panel.title for panel in extras] == ["queue age"]


def test_epochs_that_repeat_fall_back_to_steps(make_run):
    run = make_run(count=24)
    (run / "metrics.csv").write_text("step,epoch,loss\n0,0,3\n5,0,2\n10,1,1\n")
    panels, axis = panels_of(run)
    assert axis == "step"
    assert panels["curve-loss"].figure["data"][0]["x"] == [0, 5, 10]


@pytest.mark.slow
def test_long_runs_are_thinned_and_keep_their_ends(make_run):
    panels, _ = panels_of(make_run(count=24, rows=4000))
    x = panels["curve-loss"].figure["data"][0]["x"]
    assert len(x) == figures.MAX_POINTS
    assert (x[0], x[-1]) == (0.0025, 10)


def test_the_spectrum_is_relative_and_drops_what_is_rounding(make_run):
    run = read_run(make_run(count=24))
    assert run.embedding is not None
    run.embedding.spectrum[:] = np.geomspace(50, 50e-12, len(run.embedding.spectrum))
    figure = figures.spectrum_figure([("a", run.embedding)], 21.5)
    assert figure is not None
    y = figure["data"][0]["y"]
    assert y[0] == 1
    assert y[-1] is None
    assert min(v for v in y if v is not None) > 1e-7
    assert figure["layout"]["shapes"][0]["x0"] == 21.5


def test_a_spectrum_of_zeros_is_no_plot(make_run):
    run = read_run(make_run(count=24))
    assert run.embedding is not None
    run.embedding.spectrum[:] = 0
    assert figures.spectrum_figure([("a", run.embedding)]) is None


def test_few_labels_are_in_order_with_their_intervals(make_run):
    evaluation = read_run(make_run(count=24)).evaluation
    assert evaluation is not None
    figure = figures.labels_figure(evaluation)
    assert figure is not None
    ours = figure["data"][2]
    assert ours["x"] == ["1", "5", "10", "100", "all"]
    assert ours["y"] == [48, 67.4, 75, 85, 88]
    assert ours["error_y"]["array"] == pytest.approx([1, 1, 1, 1, 0])


def test_an_interval_that_reaches_zero_is_kept(make_run):
    run = make_run(count=24)
    loaded = json.loads((run / "evaluation.json").read_text())
    loaded["rows"][2]["scores"]["linear_1"] |= {"mean": 0.04, "low": 0.0, "high": 0.08}
    (run / "evaluation.json").write_text(json.dumps(loaded))
    evaluation = read_run(run).evaluation
    assert evaluation is not None
    figure = figures.labels_figure(evaluation)
    assert figure is not None
    assert figure["data"][2]["error_y"]["arrayminus"][0] == pytest.approx(4)


@pytest.mark.slow
def test_the_map_has_a_trace_for_each_class(make_run):
    embedding = read_run(make_run(count=60)).embedding
    assert embedding is not None
    gallery = build_gallery(embedding)
    assert isinstance(gallery, Gallery)
    figure = figures.map_figure(gallery)
    assert [trace["name"] for trace in figure["data"]] == [f"digit {d}" for d in range(10)]
    assert sorted(i for trace in figure["data"] for i in trace["customdata"]) == list(range(60))
    assert len({trace["marker"]["color"] for trace in figure["data"]}) == 10
    json.dumps(figure, allow_nan=False)
