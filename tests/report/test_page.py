import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from similitude.errors import UserError
from similitude.report import write_report


class Page(HTMLParser):
    """Ids, text and resources of a page; scripts and styles are not text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.data: dict[str, str] = {}
        self.text = ""
        self._inside: tuple[str, str] | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if attributes.get("id"):
            self.ids.append(attributes["id"])
        self.links += [attributes[k] for k in ("src", "href") if attributes.get(k)]
        if tag in ("script", "style"):
            self._inside = (tag, attributes.get("id") or "")

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[0]:
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text += data
        elif self._inside[1]:
            self.data[self._inside[1]] = self.data.get(self._inside[1], "") + data


@pytest.mark.slow
def test_a_full_run_has_every_section_and_no_link_outside(make_run):
    run = make_run(count=40)
    target = write_report([run])
    assert target == run / "report.html"
    page = Page(target)
    wanted = {"verdict", "scores", "curves", "spectrum", "map", "neighbors", "views", "recipe"}
    assert wanted | {"environment"} <= set(page.ids)
    assert all(link.startswith(("#", "data:")) for link in page.links), page.links
    assert len(page.ids) == len(set(page.ids))
    assert page.source.count("plotly.js v") == 1
    assert page.text.index("Healthy") < page.text.index("Is it better")
    assert "images of 32 pixels: a stride of 4 would leave 8" in page.text
    assert set(json.loads(page.data["figures"])) >= {"labels", "spectrum", "map", "curve-loss"}
    assert "No " not in page.text.split("Do it again")[0].replace("No sign", "")


@pytest.mark.slow
def test_the_best_score_is_bold_and_raw_pixels_may_win(make_run):
    page = Page(write_report([make_run(count=24)]))
    assert "The pretrained backbone is below raw pixels in kNN -2.1." in page.text
    assert "How far the pretrained backbone is above each row" not in page.text
    assert len(re.findall(r'<td class="best">', page.source)) == 6


@pytest.mark.slow
def test_every_row_is_shown_with_its_differences(make_run):
    """Published weights have names of their own, which nothing here knows."""
    names = ("raw pixels", "random backbone", "before training", "timm:<b>", "pretrained backbone")
    means = {name: (0.5 + 0.05 * i,) * 6 for i, name in enumerate(names)}
    measured = {"knn": {"mean": 0.1, "low": 0.05, "high": 0.15}}
    differences = dict.fromkeys(names[:-1], measured)
    run = make_run(count=24, means=means, differences=differences)
    page = Page(write_report([run]))
    rows = re.findall(r'<th scope="row">([^<]*)</th>', page.source)
    shown = [name.replace("<", "&lt;").replace(">", "&gt;") for name in names]
    assert rows[:5] == shown
    assert rows[5:9] == [shown[2], shown[0], shown[3], shown[1]]
    assert page.text.count("+10.0 \N{PLUS-MINUS SIGN} 5.0") == 4
    assert "5.0 to 10.0 points above timm:<b>" in page.text  # the verdict names it too
    drawn = json.loads(page.data["figures"])["labels"]["data"]
    assert [trace["name"] for trace in drawn] == list(names)
    assert len({trace["line"]["color"] for trace in drawn}) == 5
    legend = re.findall(r'<i class="swatch ([^"]*)" style="background: ([^"]*)"></i>', page.source)
    looks = [(trace["marker"]["symbol"], trace["marker"]["color"]) for trace in drawn]
    assert legend[:5] == looks
    facts = json.loads((run / "report.json").read_text())["evaluation"]
    assert facts["differences"]["timm:<b>"]["knn"] == measured["knn"]


def test_numbers_without_labels_stand_below_the_scores(make_run):
    run = make_run("a")
    place = run / "evaluation.json"
    evaluation = json.loads(place.read_text())
    page = Page(write_report([run]))
    assert "Numbers that need no label" not in page.text
    evaluation["label_free"] = {"pretrained backbone": {"effective_rank": 41.26}}
    place.write_text(json.dumps(evaluation))
    page = Page(write_report([run]))
    assert "Numbers that need no label" in page.text
    assert "41.3" in page.text
    assert (
        json.loads((run / "report.json").read_text())["evaluation"]["label_free"]
        == (evaluation["label_free"])
    )


def test_missing_parts_are_sentences_with_the_command(minimal_run):
    page = Page(write_report([minimal_run]))
    assert page.text.count(f"similitude evaluate {minimal_run} DATA") == 2
    assert {"map", "spectrum", "neighbors", "views", "environment"}.isdisjoint(page.ids)
    assert set(json.loads(page.data["figures"])) == {"curve-loss", "curve-mystery"}
    assert "NaN" not in page.data["figures"]


def test_a_run_without_any_row_of_metrics_has_no_plot(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text("method: {name: byol}\n")
    page = Page(write_report([tmp_path]))
    assert "No curves" in page.text
    assert "figures" not in page.data
    assert len(page.source) < 100_000  # nothing to draw, so nothing to draw it with


@pytest.mark.slow
def test_a_folder_without_labels_has_a_map_without_classes(make_run):
    run = make_run(count=40, labeled=False)
    (run / "evaluation.json").unlink()
    page = Page(write_report([run]))
    assert {"map", "neighbors"} <= set(page.ids)
    assert "same class" not in page.text
    assert len(json.loads(page.data["figures"])["map"]["data"]) == 1
    assert json.loads(page.data["points"])["classes"] is None


@pytest.mark.slow
def test_a_collapsed_run_says_why_and_what_to_try(make_run):
    run = make_run(count=40, state="collapsed")
    arrays = dict(np.load(run / "embedding.npz"))
    arrays["features"] = np.ones_like(arrays["features"])
    arrays["spectrum"] = np.zeros_like(arrays["spectrum"])
    np.savez(run / "embedding.npz", **arrays)
    page = Page(write_report([run]))
    for text in ("Collapsed", "feature std 0.11 of 0.177", "--set method.temperature=0.2"):
        assert text in page.text
    assert "Every image has the same embedding" in page.text
    assert {"map", "spectrum"}.isdisjoint(json.loads(page.data["figures"]))


@pytest.mark.slow
def test_names_from_outside_never_become_markup(make_run):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    run = make_run("a<b>&", count=40)
    arrays = dict(np.load(run / "embedding.npz"))
    arrays["names"] = np.array([evil] * 40)
    arrays["class_names"] = np.array([evil] * 10)
    np.savez(run / "embedding.npz", **arrays)
    for file in ("health.json", "environment.json", "evaluation.json"):
        loaded = json.loads((run / file).read_text())
        loaded |= {"reasons": [evil], "data": evil, "processor": evil, "notes": [evil]}
        (run / file).write_text(json.dumps(loaded))
    (run / "recipe.yaml").write_text(json.dumps({"method": {"name": evil}, "reasons": {"x": evil}}))
    (run / "metrics.csv").write_text(f"step,epoch,loss,{evil}\n0,1,2,3\n1,2,3,4\n")
    plain, other = make_run("plain", count=24), make_run("other", count=24)
    for runs in ([run], [run, other]):
        page = Page(write_report(runs))
        clean = Page(write_report([plain, other][: len(runs)])).tags
        assert "alert(1)" in page.source
        assert evil not in page.source
        assert "onerror=alert(2)>" not in re.sub(r"&lt;.*?&gt;", "", page.source)
        assert page.tags.count("script") == clean.count("script")
        assert page.tags.count("img") <= clean.count("img")


@pytest.mark.slow
def test_the_facts_beside_the_page_are_strict_json(make_run):
    run = make_run(count=24)
    write_report([run])
    facts = json.loads((run / "report.json").read_text(), parse_constant=pytest.fail)
    assert facts["verdict"]["state"] == "healthy"
    assert facts["verdict"]["learned"] == "yes"
    assert facts["evaluation"]["scores"]["pretrained backbone"]["knn"]["mean"] == 0.838
    assert facts["effective_rank"] == 21.5
    assert facts["last"]["chance_loss"] == 6.2364
    assert facts["missing"] == []


def test_the_facts_of_a_broken_run_have_null_for_nan(minimal_run):
    write_report([minimal_run])
    facts = json.loads((minimal_run / "report.json").read_text(), parse_constant=pytest.fail)
    assert facts["last"]["loss"] is None
    assert facts["missing"] == ["health", "evaluation", "embedding", "views"]


@pytest.mark.slow
def test_a_comparison_lays_runs_side_by_side(make_run):
    first = make_run("first", count=24)
    second = make_run("second", count=24, state="doubtful", recipe={"batch_size": 512})
    target = write_report([first, second])
    assert target == first.parent / "report-comparison.html"
    page = Page(target)
    assert {"verdicts", "scores", "curves", "spectrum", "recipe"} <= set(page.ids)
    assert page.text.index("Healthy") < page.text.index("Doubtful") < page.text.rindex("Scores")
    recipe = page.text[page.text.index("only the fields that differ") :]
    assert "batch_size" in recipe
    assert "512" in recipe
    assert "temperature" not in recipe
    drawn = json.loads(page.data["figures"])
    assert [trace["name"] for trace in drawn["spectrum"]["data"]] == ["first", "second"]
    colors = [trace["line"]["color"] for trace in drawn["curve-knn"]["data"]]
    assert colors == ["var(--c0)", "var(--c1)"]
    rows = re.findall(r'<th scope="row">([^<]*)</th>', page.source)
    assert rows[:3] == ["raw pixels", "first", "second"]
    facts = json.loads(target.with_suffix(".json").read_text())
    assert [run["label"] for run in facts["runs"]] == ["first", "second"]


def test_a_comparison_takes_a_run_without_scores(make_run, minimal_run):
    full = make_run("full", count=24)
    page = Page(write_report([minimal_run, full]))
    assert "minimal has no scores yet" in page.text
    assert "minimal has no embedding yet" in page.text
    (trace,) = json.loads(page.data["figures"])["spectrum"]["data"]
    assert trace["line"]["color"] == "var(--c1)"  # the color that the legend gives to `full`


@pytest.mark.slow
def test_scores_on_different_data_are_not_to_be_compared(make_run):
    runs = [make_run("a", count=24), make_run("b", count=24)]
    loaded = json.loads((runs[1] / "evaluation.json").read_text())
    loaded["data"] = "cifar10"
    (runs[1] / "evaluation.json").write_text(json.dumps(loaded))
    assert "do not compare them" in Page(write_report(runs)).text


@pytest.mark.slow
def test_runs_of_the_same_name_keep_apart(make_run):
    runs = [make_run("x/last", count=24), make_run("y/last", count=24)]
    page = Page(write_report(runs))
    assert "x/last" in page.text
    assert "y/last" in page.text


@pytest.mark.slow
def test_the_page_goes_where_it_is_told(make_run, tmp_path: Path):
    target = write_report([make_run(count=24)], tmp_path / "new" / "page.html")
    assert target == tmp_path / "new" / "page.html"
    assert sorted(p.name for p in target.parent.iterdir()) == ["page.html", "page.json"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o400


def test_an_old_page_survives_a_failure(make_run, monkeypatch):
    run = make_run(count=24)
    (run / "report.html").write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match="disk is full"):
        write_report([run])
    assert (run / "report.html").read_text() == "old"
    assert not [p.name for p in run.iterdir() if ".tmp" in p.name]


@pytest.mark.slow
@pytest.mark.parametrize("out", ["page.json", "runs", "runs/full/health.html"])
def test_a_target_that_would_do_harm_is_refused(make_run, tmp_path: Path, out: str):
    run = make_run(count=24)
    health = (run / "health.json").read_text()
    with pytest.raises(UserError):
        write_report([run], tmp_path / out)
    assert (run / "health.json").read_text() == health


def test_no_run_and_the_same_run_twice_are_refused(make_run):
    with pytest.raises(UserError, match="no run folder"):
        write_report([])
    run = make_run(count=24)
    with pytest.raises(UserError, match="twice"):
        write_report([run, run.parent / "." / run.name])


def test_only_the_report_files_are_written(make_run):
    run = make_run(count=24)
    before = {p: p.read_bytes() for p in run.iterdir()}
    write_report([run])
    after = {p: p.read_bytes() for p in run.iterdir()}
    assert set(after) - set(before) == {run / "report.html", run / "report.json"}
    assert {p: after[p] for p in before} == before


@pytest.mark.slow
def test_two_thousand_colored_thumbnails_stay_below_eight_megabytes(make_run, monkeypatch):
    run = make_run(count=40)
    rng = np.random.default_rng(0)
    # Noise is the worst that JPEG can meet; the map itself is not what is measured here.
    arrays = dict(np.load(run / "embedding.npz"))
    arrays |= {
        "features": rng.normal(size=(2000, 8)).astype(np.float32),
        "thumbnails": rng.integers(0, 256, (2000, 56, 56, 3), dtype=np.uint8) // 4 + 90,
        "names": np.array([f"train/{i:05d}.jpeg" for i in range(2000)]),
        "labels": rng.integers(0, 10, 2000),
    }
    np.savez(run / "embedding.npz", **arrays)
    monkeypatch.setattr("similitude.report.gallery.project", lambda x: (x[:, :2], "PCA"))
    assert write_report([run]).stat().st_size < 8_000_000
