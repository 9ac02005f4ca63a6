import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from plotly.offline import get_plotlyjs

from similitude.errors import UserError
from similitude.report import read, read_run, write_report
from similitude.report.gallery import Gallery, build_gallery
from similitude.report.read import flatten


def test_a_full_run_is_read_completely(make_run):
    run = read_run(make_run(count=24))
    assert run.name == "full"
    assert run.setting("method.projector.width") == 128
    assert run.setting("method.no_such") is None
    assert "reasons" not in run.recipe
    assert run.reasons["backbone.stem"].startswith("images of 32 pixels")
    assert run.health is not None
    assert run.health.readings == {"feature_std": 0.11, "effective_rank": 21.5, "loss": None}
    assert run.evaluation is not None
    assert run.evaluation.rows["raw pixels"]["linear_5"].low == pytest.approx(0.597)
    assert run.embedding is not None
    assert run.embedding.features.shape == (24, 32)
    assert run.unreadable == 2
    assert run.views is not None


def test_empty_cells_are_not_measured_and_nan_is(minimal_run):
    metrics = read_run(minimal_run).metrics
    steps, losses = metrics.curve("loss")
    assert steps == [0, 10, 20]
    assert losses[:2] == [2.0, 1.9]
    assert math.isnan(losses[2])
    assert metrics.curve("knn") == ([], [])
    # The last row is short: its step counts, its missing cells do not.
    assert metrics.curve("mystery")[1] == [5, 7]
    assert metrics.last("mystery") == 7
    assert metrics.last("no such column") is None


def test_only_the_recipe_is_necessary(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text("epochs: 3\n")
    run = read_run(tmp_path)
    assert run.metrics.columns == []
    assert run.health is run.evaluation is run.embedding is run.views is None


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_is_no_run_names_the_command(tmp_path: Path, exists: bool):
    folder = tmp_path / "photos"
    if exists:
        folder.mkdir()
    with pytest.raises(UserError, match="similitude pretrain") as caught:
        read_run(folder)
    assert str(folder) in str(caught.value)
    assert ("recipe.yaml" in str(caught.value)) == exists


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("recipe.yaml", "a: [1"),
        ("recipe.yaml", "- a list"),
        ("environment.json", "{"),
        ("health.json", '{"state": "splendid"}'),
        ("health.json", '{"state": "healthy", "reasons": 5}'),
        ("health.json", '{"state": "healthy", "readings": [1]}'),
        ("metrics.csv", "step,loss\n0,2.5\n1,low\n"),
        ("environment.json", "[" * 100_000),
        ("environment.json", '{"seconds": ' + "9" * 99 + "}"),
        ("evaluation.json", '{"rows": [], "columns": [], "num_test": "many"}'),
        ("recipe.yaml", "a: &a [1]\nb: *a"),
        ("evaluation.json", '{"rows": [{"name": "raw pixels"}], "columns": []}'),
        ("embedding.npz", "not an archive"),
    ],
)
def test_a_damaged_file_is_named(make_run, file: str, content: str):
    run = make_run(count=24)
    (run / file).write_text(content)
    with pytest.raises(UserError, match=file.replace(".", r"\.")) as caught:
        read_run(run)
    assert "\n" not in str(caught.value)


def test_arrays_of_different_length_are_refused(make_run):
    run = make_run(count=24)
    arrays = dict(np.load(run / "embedding.npz"))
    arrays["names"] = arrays["names"][:-1]
    np.savez(run / "embedding.npz", **arrays)
    with pytest.raises(UserError, match="differ in number"):
        read_run(run)


def test_pickled_arrays_are_refused(make_run):
    run = make_run(count=24)
    arrays = dict(np.load(run / "embedding.npz"))
    arrays["names"] = arrays["names"].astype(object)
    np.savez(run / "embedding.npz", **arrays)
    with pytest.raises(UserError, match=r"embedding\.npz"):
        read_run(run)


def test_a_missing_spectrum_is_named(make_run):
    run = make_run(count=24)
    arrays = dict(np.load(run / "embedding.npz"))
    del arrays["spectrum"]
    np.savez(run / "embedding.npz", **arrays)
    with pytest.raises(UserError, match=r"embedding\.npz: 'spectrum'"):
        read_run(run)


def test_more_images_than_a_page_can_hold_are_cut(make_run, monkeypatch):
    assert read.MAX_IMAGES == 2000
    monkeypatch.setattr(read, "MAX_IMAGES", 25)
    embedding = read_run(make_run(count=40)).embedding
    assert embedding is not None
    gallery = build_gallery(embedding)
    assert isinstance(gallery, Gallery)
    assert len(gallery.names) == len(gallery.coordinates) == 25
    assert gallery.classes == [f"digit {label}" for label in embedding.labels]


def test_scores_that_are_not_finite_are_not_scores(make_run):
    run = make_run(count=24)
    loaded = json.loads((run / "evaluation.json").read_text())
    loaded["rows"][0]["scores"]["knn"]["mean"] = float("nan")
    loaded["notes"] = ["A note."]
    (run / "evaluation.json").write_text(json.dumps(loaded))
    evaluation = read_run(run).evaluation
    assert evaluation is not None
    assert "knn" not in evaluation.rows["raw pixels"]
    assert "linear" in evaluation.rows["raw pixels"]
    assert evaluation.notes == ["A note."]


def test_flatten_keeps_order_and_empty_groups():
    assert flatten({"b": {"x": 1, "a": {"y": 2}}, "a": {}}) == [("b.x", 1), ("b.a.y", 2), ("a", {})]


@pytest.mark.slow
def test_numbers_that_are_none_and_classes_without_a_name_are_no_obstacle(make_run):
    run = make_run(count=24)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "seconds": math.nan}))
    arrays = dict(np.load(run / "embedding.npz"))
    arrays["labels"] = np.array([300_000_000, -1] * 12)
    np.savez(run / "embedding.npz", **arrays)
    (run / "metrics.csv").write_bytes(b"\xef\xbb\xbf" + (run / "metrics.csv").read_bytes())
    summary = read_run(run)
    assert "seconds" not in summary.environment
    assert summary.metrics.last("step") is not None
    page = write_report([run]).read_text(encoding="utf-8")
    assert "class 300000000" in page


@pytest.mark.slow
def test_text_that_controls_is_written_out(make_run):
    run = make_run(count=24)
    evil, shown = "x\x1b[2J\u202egpj\n", r"x\x1b[2J\u202egpj\n"
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["reasons"] = {"epochs": evil}
    recipe["backbone"]["name"] = evil
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "data": evil, evil: 1}))
    arrays = dict(np.load(run / "embedding.npz"))
    arrays["names"] = np.array([evil + str(i) for i in range(24)])
    np.savez(run / "embedding.npz", **arrays)
    summary = read_run(run)
    assert summary.reasons["epochs"] == summary.environment["data"] == shown
    assert summary.embedding.names[3] == f"{shown}3"
    page = write_report([run])
    for text in (page.read_text("utf-8"), page.with_suffix(".json").read_text("utf-8")):
        own = text.replace(get_plotlyjs(), "")
        assert shown.replace("\\", "\\\\") in own or shown in own
        assert not any(control in own for control in ("\x1b", "\u202e", r"\u001b"))
