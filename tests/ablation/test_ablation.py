"""Ablations from the grid to the page: what is trained, what is read again, what is refused."""

import csv
import io
import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import random_images
from similitude import ablation, experiment, transfer
from similitude.ablation import ablate, findings, studies, work
from similitude.ablation.design import Design
from similitude.ablation.findings import CellFinding, RunFinding
from similitude.ablation.grid import folder_name, grid, parse_variations
from similitude.ablation.study import COLLAPSED, Cell, Study
from similitude.errors import UserError
from similitude.files.writing import write_text
from similitude.images import samples
from similitude.listener import Silent
from similitude.recipes import cifar10
from similitude.report import read_run, write_report
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.folder import holding

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

TINY = [
    "batch_size=16",
    "image_size=16",
    "backbone.base_width=4",
    "method.view.size=12",
    "method.projection_dim=12",
    "method.predictor_hidden=8",
    "precision=float32",
    "memory_format=contiguous",
]
VARY = ["stop_gradient=true,false"]


def run(folder, data=None, **options):
    """Two cells and one seed, two steps each, unless said otherwise."""
    given = {"vary": VARY, "seeds": 1, "epochs": 1, "overrides": TINY, **options}
    method = None if given.get("study") else "simsiam"
    return ablate(method, random_images(40) if data is None else data, out=folder, **given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The ablation that most tests need, trained once."""
    folder = tmp_path_factory.mktemp("ablation") / "a"
    assert run(folder) is not None
    return folder


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of a finished ablation."""
    return Path(shutil.copytree(trained, tmp_path / "a"))


def test_an_ablation_whose_views_stay_in_their_range_goes_on(tmp_path):
    options = {"overrides": [*TINY, "method.view.normalize=false"]}
    first = run(tmp_path / "a", **options)
    again = run(tmp_path / "a", **options)
    assert again.path == first.path


# --- the grid ----------------------------------------------------------------------------------


def test_values_are_yaml_and_lists_keep_their_commas():
    given = ["ema_decay=0,0.99", "stop_gradient=true,false", "view.crop_scale=[0.2,1],[0.5,1]"]
    parsed = parse_variations(given)
    assert [v.values for v in parsed] == [(0, 0.99), (True, False), ([0.2, 1], [0.5, 1])]
    mapping = {v.field: list(v.values) for v in parsed}
    assert parse_variations(mapping) == parsed


def test_the_grid_is_the_product_and_short_names_are_fields_of_the_method():
    variations = parse_variations(["predictor=mlp,none", "optimizer.base_lr=0.1,0.2", "epochs=1,2"])
    cells = grid(variations, cifar10.simsiam())
    assert len({cell.recipe.model_dump_json() for cell in cells}) == len(cells) == 8
    assert cells[1].name == "predictor=mlp,optimizer.base_lr=0.1,epochs=2"
    assert cells[-1].settings == {"predictor": "none", "optimizer.base_lr": 0.2, "epochs": 2}
    first = cells[0].recipe
    assert (first.method.predictor, first.optimizer.base_lr, first.epochs) == ("mlp", 0.1, 1)


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (["stop_gradient"], ["FIELD=A,B,C"]),
        (["=1,2"], ["FIELD=A,B,C"]),
        (["stop_gradient=true"], ["two or more", "true"]),
        (["stop_gradient="], ["two or more", "none"]),
        (["stop_gradient=true,true"], ["different"]),
        (["crop_scale=[0.2,1"], ["not valid YAML"]),
        (["seed=0,1"], ["--seeds"]),
        (["method.name=byol,simsiam"], ["one command for each method"]),
        (["predictor=mlp,none", "predictor=mlp,fixed"], ["twice"]),
    ],
)
def test_variations_that_make_no_sense_are_told(vary, words):
    with pytest.raises(UserError) as told:
        parse_variations(vary)
    assert all(word in str(told.value) for word in words)


def test_an_unknown_field_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean stop_gradient"):
        grid(parse_variations(["stop_gradent=true,false"]), cifar10.simsiam())


def test_folders_of_cells_are_plain_short_and_different():
    names = ["a=[0.2,1]", "a=0.2", "no stop-gradient", "x=" + "y" * 300, "x=" + "y" * 301, ".."]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert folders[:3] == ["a=0.2,1", "a=0.2", "no-stop-gradient"]
    assert all(len(folder) <= 100 and not set(folder) & set(" []/") for folder in folders)
    assert not any(folder.startswith(".") for folder in folders)


# --- runs and scores ---------------------------------------------------------------------------


def test_every_cell_is_a_scored_run_folder_and_the_files_agree(tmp_path):
    found = run(tmp_path / "a", seeds=2)
    assert found is not None
    facts = json.loads((tmp_path / "a" / "ablation.json").read_text())
    assert facts == json.loads(json.dumps(found.to_json()))
    assert [cell["name"] for cell in facts["cells"]] == [
        "stop_gradient=true",
        "stop_gradient=false",
    ]
    assert facts["cells"][1]["settings"] == {"stop_gradient": False}
    for cell in facts["cells"]:
        assert [one["seed"] for one in cell["runs"]] == [0, 1]
        assert [one["folder"] for one in cell["runs"]] == [
            f"{cell['name']}/seed-{seed}" for seed in (0, 1)
        ]
        assert cell["means"]["knn"]["draws"] == 2
        values = [one["values"]["knn"] for one in cell["runs"]]
        assert cell["means"]["knn"]["mean"] == pytest.approx(sum(values) / 2)
        for one in cell["runs"]:
            summary = read_run(tmp_path / "a" / one["folder"])
            assert summary.evaluation is not None
            row = summary.evaluation.rows["pretrained backbone"]
            assert row["linear"].mean == one["values"]["linear"]
            assert {"raw pixels", "random backbone"} <= set(summary.evaluation.rows)
            assert summary.recipe["seed"] == one["seed"]
            assert summary.recipe["method"]["stop_gradient"] is cell["settings"]["stop_gradient"]
    with (tmp_path / "a" / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["cell"], row["seed"], row["stop_gradient"]) for row in rows] == [
        (f"stop_gradient={value}", seed, value) for value in ("true", "false") for seed in "01"
    ]
    assert float(rows[0]["knn"]) == pytest.approx(facts["cells"][0]["runs"][0]["values"]["knn"])
    assert "stop_gradient=false" in (tmp_path / "a" / "ablation.html").read_text()
    assert write_report([tmp_path / "a" / "stop_gradient=true" / "seed-0"]).exists()


def test_a_run_that_fails_does_not_end_the_others_and_is_tried_again(tmp_path, monkeypatch):
    real = experiment.train

    def failing(images, data, recipe, out, **options):
        if out.parent.name == "stop_gradient=true" or out.parent.parent.name == "b":
            raise RuntimeError("out of memory")
        return real(images, data, recipe, out, **options)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", failing)
        found = run(tmp_path / "a")
        with pytest.raises(UserError, match="every run failed; stop_gradient=true, seed 0"):
            run(tmp_path / "b")
    assert found is not None
    assert found.failed == 1
    assert found.cells[0].verdict == "failed"
    assert "knn" in found.cells[1].runs[0].values
    assert "stop_gradient=true, seed 0, failed: RuntimeError: out of memory" in found.notes
    assert "failed" in (tmp_path / "a" / "ablation.html").read_text()
    again = run(tmp_path / "a")
    assert again is not None
    assert again.failed == 0
    assert "knn" in again.cells[0].runs[0].values


def test_a_test_part_is_scored_and_baselines_are_measured_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    parts = {}
    for split, n in (("train", 40), ("test", 24)):
        parts[f"y_{split}"] = y = np.arange(n) % 2
        noise = rng.integers(0, 60, (n, 16, 16, 3))
        parts[f"x_{split}"] = (noise + 150 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "set.npz", **parts)
    measured = []
    evaluate = experiment.evaluate_entrants
    monkeypatch.setattr(
        experiment,
        "evaluate_entrants",
        lambda *a, **k: measured.append(k["pixels"] is not None) or evaluate(*a, **k),
    )
    found = ablate(
        "simsiam", str(tmp_path / "set.npz"), vary=VARY, seeds=2, epochs=1, overrides=TINY,
        out=tmp_path / "a",
    )  # fmt: skip
    assert found is not None
    assert measured == [True, False, False, False]
    assert "Scored on 24 test images." in found.notes
    assert set(found.baselines) == {"raw pixels", "random backbone"}
    assert found.baselines["raw pixels"]["knn"].mean == 1.0  # the classes are shades


def test_images_without_labels_are_compared_without_scores(tmp_path):
    bare = replace(random_images(40), labels=None, class_names=None)
    found = run(tmp_path / "a", bare)
    assert found is not None
    assert "They have no labels, so nothing is scored." in found.notes
    assert found.baselines == {}
    assert found.cells[0].mean("knn") is None
    assert found.cells[0].mean("effective_rank") is not None
    assert "kNN, %" not in (tmp_path / "a" / "ablation.html").read_text().partition("plotly.js")[0]


def test_all_cells_start_from_one_choice_of_settings(tmp_path):
    """What is chosen from images and machine is chosen once, or cells would differ in it too."""
    overrides = [text for text in TINY if not text.startswith(("precision", "memory"))]
    found = run(tmp_path / "a", overrides=overrides)
    assert found is not None
    one, other = (read_run(cell.runs[0].path).recipe for cell in found.cells)
    assert one["precision"] != "auto"
    one["method"].pop("stop_gradient"), other["method"].pop("stop_gradient")
    assert one == other


def test_only_so_many_images_are_taken_and_always_the_same(tmp_path):
    found = run(tmp_path / "b", random_images(80), images=32)
    assert found is not None
    one, other = (
        load_checkpoint(cell.runs[0].path / "checkpoints" / "last.ckpt").images
        for cell in found.cells
    )
    assert one == other
    assert one.startswith("32-")


# --- going on ----------------------------------------------------------------------------------


def no_training(*args, **kwargs):
    raise AssertionError("a finished run was trained again")


def test_what_is_finished_is_read_and_not_trained_again(finished, monkeypatch):
    first = json.loads((finished / "ablation.json").read_text())
    (finished / "ablation.json").unlink()
    monkeypatch.setattr(experiment, "train", no_training)
    monkeypatch.setattr(experiment, "evaluate_entrants", no_training)
    second = run(finished)
    assert second is not None
    assert json.loads(json.dumps(second.to_json())) == first
    assert json.loads((finished / "ablation.json").read_text()) == first


def test_seeds_and_values_may_be_added(finished, monkeypatch):
    """The third value is the same setting in other words, which is another cell."""
    trained = []
    train = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *a, **k: trained.append(a[3]) or train(*a, **k))
    assert run(finished, vary=["stop_gradient=true,false,1"]) is not None
    assert run(finished, seeds=2) is not None
    assert [path.relative_to(finished).as_posix() for path in trained] == [
        "stop_gradient=1/seed-0",
        "stop_gradient=true/seed-1",
        "stop_gradient=false/seed-1",
    ]


class CtrlC(Silent):
    """Presses Ctrl-C when a step of a run is reported."""

    def __init__(self, run_number: int, step: int) -> None:
        self.prefix, self.step = f"{run_number}/", step
        self.sentences: list[str] = []

    def say(self, sentence):
        self.sentences.append(sentence)

    def progress(self, what, done, total, note=""):
        if what.startswith(self.prefix) and done == self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_stopped_ablation_goes_on_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole", epochs=2)
    ears = CtrlC(2, 1)
    assert run(tmp_path / "parts", epochs=2, listener=ears) is None
    assert "goes on" in ears.sentences[-1]
    assert not (tmp_path / "parts" / "ablation.json").exists()
    halfway = tmp_path / "parts" / "stop_gradient=false" / "seed-0" / "checkpoints" / "last.ckpt"
    assert 0 < load_checkpoint(halfway).step < 4
    parts = run(tmp_path / "parts", epochs=2)
    assert whole is not None
    assert parts is not None
    for one, other in zip(whole.cells, parts.cells, strict=True):
        a, b = (load_checkpoint(c.runs[0].path / "checkpoints" / "last.ckpt") for c in (one, other))
        assert all(torch.equal(a.method[name], b.method[name]) for name in a.method)
        assert one.values("knn") == other.values("knn")


def test_ctrl_c_outside_of_training_ends_cleanly_too(finished, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    ears = CtrlC(0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "evaluate_entrants", interrupted)
        scores = finished / "stop_gradient=false" / "seed-0" / "scores.json"
        scores.unlink()
        assert run(finished, listener=ears) is None
    assert "goes on" in ears.sentences[-1]
    assert run(finished) is not None
    assert scores.exists()


def test_a_stop_between_the_two_files_of_scores_loses_neither(finished, monkeypatch):
    def stopped(place, text):
        write_text(place, text)
        raise KeyboardInterrupt

    places = [finished / "stop_gradient=false/seed-0" / n for n in ("scores", "evaluation")]
    places = [place.with_suffix(".json") for place in places]
    for place in places:
        place.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(work, "write_text", stopped)
        assert run(finished) is None
    assert [place.exists() for place in places].count(True) == 1
    assert run(finished) is not None
    assert all(place.exists() for place in places)


def test_two_at_once_in_one_folder_are_refused(finished):
    with holding(finished), pytest.raises(UserError, match="another process trains into"):
        run(finished)
    assert run(finished) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 2}, ["differs in epochs"]),
        ({"overrides": [*TINY, "optimizer.base_lr=0.3"]}, ["differs in settings"]),
        ({"vary": ["predictor=mlp,none"]}, ["differs in fields"]),
        ({"images": 32}, ["differs in images"]),
    ],
)
def test_a_folder_made_with_other_settings_is_refused(finished, change, words):
    with pytest.raises(UserError) as told:
        run(finished, **change)
    assert all(word in str(told.value) for word in [*words, "give another --out"])


def test_other_images_other_recipes_and_other_folders_are_refused(finished, tmp_path):
    with pytest.raises(UserError, match="on other images"):
        run(finished, random_images(48))
    recipe = finished / "stop_gradient=false" / "seed-0" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("base_lr: 0.4", "base_lr: 0.5"))
    with pytest.raises(UserError, match="is a run with other settings"):
        run(finished)
    (finished / "ablation.yaml").write_text("{")
    with pytest.raises(UserError, match=r"ablation\.yaml is not valid YAML"):
        run(finished)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no ablation"):
        run(tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vary": []}, ["nothing varies"]),
        ({"vary": ["stop_gradent=1,2"]}, ["did you mean stop_gradient"]),
        ({"vary": ["temperature=1,2"]}, ["temperature"]),
        ({"vary": ["predictor=mlp,huge"]}, ["--vary method.predictor", "huge"]),
        ({"vary": ["batch_size=16,64"]}, ["40 images", "64"]),
        ({"overrides": ["seed=3"]}, ["--set seed"]),
        ({"seeds": 0}, ["at least one seed"]),
        ({"study": "simsiam_stop_gradient"}, ["leave out", "--vary"]),
        ({"study": "simsiam", "vary": []}, ["simsiam_targets"]),
        ({"recipe": "cifar10.byol"}, ["simsiam", "byol"]),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(experiment, "train", no_training)
    with pytest.raises(UserError) as told:
        run(tmp_path / "a", **options)
    assert all(word in str(told.value) for word in words)
    assert not (tmp_path / "a").exists()


def test_data_is_needed_and_methods_do_not_go_with_studies(tmp_path):
    with pytest.raises(UserError, match="METHOD and DATA"):
        ablate("simsiam", vary=VARY, out=tmp_path / "a")
    with pytest.raises(UserError, match="leave out METHOD"):
        ablate("simsiam", random_images(40), study="simsiam_stop_gradient", out=tmp_path / "a")


# --- studies -----------------------------------------------------------------------------------

SMALL_STUDY = Study(
    title="A small study",
    question="Does it run?",
    recipe="cifar10.simsiam",
    changes={"SimSiam": (), "no stop-gradient": ("method.stop_gradient=false",)},
    others=(Cell("another method", "cifar10.simclr", ("method.view.size=12",)),),
    published={
        "SimSiam: collapsed below 0.5": "67.7 (the paper)",
        "another method: knn above 200": "",
        "SimSiam: entropy_of_nothing above 0": "",
    },
    settings=("batch_size=16", "image_size=16", "backbone.base_width=4", "method.view.size=12"),
    images=32,
    epochs=1,
    seeds=2,
)


@pytest.fixture
def small_study(monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "small", SMALL_STUDY)


def test_a_study_compares_recipes_and_judges_what_was_published(tmp_path, small_study):
    found = run(tmp_path / "a", study="small", vary=(), seeds=None, epochs=None, overrides=())
    assert found is not None
    recipes = [read_run(cell.runs[0].path).recipe for cell in found.cells]
    assert [recipe["method"]["name"] for recipe in recipes] == ["simsiam", "simsiam", "simclr"]
    assert len({(recipe["precision"], recipe["memory_format"]) for recipe in recipes}) == 1
    assert [len(cell.runs) for cell in found.cells] == [2, 2, 2]
    assert "32 training images" in found.notes[0]
    assert [judgement.shows for judgement in found.judgements] == [True, False, None]
    lines = [judgement.line for judgement in found.judgements]
    assert lines[0].startswith("shows: SimSiam does not collapse (0 of 2 runs collapsed).")
    assert "Published: 67.7 (the paper)" in lines[0]
    assert lines[1].startswith("does not show at this size: another method: kNN above 200")
    assert lines[2].startswith("not measured")
    page = (tmp_path / "a" / "ablation.html").read_text()
    assert "not at this size" in page
    assert "67.7 (the paper)" in page


def test_a_study_takes_as_many_steps_on_fewer_images(tmp_path, small_study, monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "small", replace(SMALL_STUDY, images=64, epochs=3))
    found = run(
        tmp_path / "a", random_images(24), study="small", vary=(), seeds=1, epochs=None,
        overrides=(),
    )  # fmt: skip
    assert found is not None
    assert read_run(found.cells[0].runs[0].path).recipe["epochs"] == 8  # 3 * 64 / 24


def test_a_study_may_fine_tune_every_run_too(tmp_path, monkeypatch):
    study = replace(
        SMALL_STUDY,
        others=(),
        published={"SimSiam: finetuned above no stop-gradient by -101": ""},
        images=64,
        seeds=1,
        label_fraction=0.5,
    )
    monkeypatch.setitem(studies.STUDIES, "small", study)

    def short(*args, **how):
        return transfer.finetune(*args, **({} if how.get("resume") else {"epochs": 2}), **how)

    monkeypatch.setattr(work, "finetune", short)
    options = {"study": "small", "vary": (), "seeds": None, "epochs": None, "overrides": ()}
    found = run(tmp_path / "a", random_images(64), **options)
    assert found is not None
    assert found.judgements[0].shows is True
    assert "Fine-tuned on 50 % of the labels." in found.notes
    accuracies = []
    for cell in found.cells:
        classifier = transfer.Classifier(cell.runs[0].path.with_name("seed-0-finetuned"))
        accuracies.append(cell.runs[0].values["finetuned"])
        assert accuracies[-1] == classifier.test_accuracy
        assert classifier.transfer.label_fraction == 0.5
        assert classifier.transfer.from_layer == 0
    page = (tmp_path / "a" / "ablation.html").read_text()
    assert "Fine-tuned, %" in page
    again = run(tmp_path / "a", random_images(64), **options)
    assert [cell.runs[0].values["finetuned"] for cell in again.cells] == accuracies


def test_without_data_a_study_takes_cifar10_or_says_that_it_takes_digits(monkeypatch):
    opened = samples.open_source

    def absent(data, **options):
        if data == "cifar10":
            raise UserError("cifar10 is not on this machine")
        return opened(data, **options)

    monkeypatch.setattr(samples, "open_source", absent)
    ears = CtrlC(0, 0)
    design = Design(None, None, "simsiam", [], None, (), None, None, samples.MODALITY)
    source, test = ablation._open(design, None, ears)
    assert source.name == "digits train"
    assert test is not None
    assert test.name == "digits test"
    assert "cifar10 is not on this machine" in ears.sentences[0]
    assert "digits" in ears.sentences[0]


# --- the table ---------------------------------------------------------------------------------


def finding(state="healthy", early=False, **values):
    return RunFinding(0, Path("a/seed-0"), state, early, 60.0, values)


def test_means_leave_out_what_is_not_a_number():
    cell = CellFinding("a", {}, [finding(loss=1.0), finding(loss=3.0), finding(loss=math.nan)])
    mean = cell.mean("loss")
    assert mean is not None
    assert (mean.mean, mean.draws) == (2.0, 2)
    assert cell.mean("knn") is None
    assert cell.values(COLLAPSED) == [0.0, 0.0, 0.0]


def test_verdicts_are_counted():
    runs = [finding(state) for state in ("collapsed", "healthy", "healthy")]
    cell = CellFinding("a", {}, runs)
    assert cell.verdict == "2 healthy, 1 collapsed"
    assert cell.values(COLLAPSED) == [1.0, 0.0, 0.0]
    assert CellFinding("a", {}, runs[1:]).verdict == "healthy"


def test_the_table_fits_into_80_columns(tmp_path):
    from rich.console import Console

    values = {"effective_rank": 123.4, "relative_std": 0.98, "loss": -12.34}
    runs = [finding("collapsed", True, knn=k, linear=k, **values) for k in (0.123, 0.345)]
    cell = CellFinding("stop_gradient=false,predictor=none", {}, runs)
    found = findings.Ablation(tmp_path, "t", "", ["stop_gradient"], [], {}, [cell], [])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(found.render())
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("23.4±141.0" in line and "collapsed" in line for line in lines)
