"""Evolutions from the search to the recipe of the best: trained, read, resumed, refused."""

import csv
import errno
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from builders import random_images
from similitude import api, experiment
from similitude.errors import UserError
from similitude.evolution import evolve
from similitude.evolution.work import RESULT
from similitude.files.writing import writing_error
from similitude.listener import Silent
from similitude.recipes import load_recipe
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.folder import holding

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("evolution"),  # one evolution for many of them
    pytest.mark.usefixtures("unchecked_runs", "forked_processes"),
]

TINY = [
    "batch_size=16",
    "image_size=16",
    "backbone.base_width=4",
    "method.view.size=12",
    "method.projection_dim=12",
    "method.predictor_hidden=8",
    "precision=float32",
    "memory_format=contiguous",
    "epochs=30",
]
SEARCH = ["optimizer.base_lr=0.01..1:log", "optimizer.final_lr"]


def run(folder, data=None, **options):
    """Two generations of four individuals, four steps each, unless said otherwise."""
    given = {"search": SEARCH, "generations": 2, "population": 4, "epochs": 2, "clusters": 4}
    given |= {"overrides": TINY, "seed": 3, **options}
    return evolve(
        random_images(40) if data is None else data, method="simsiam", out=folder, **given
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The evolution that most tests need, trained once."""
    folder = tmp_path_factory.mktemp("evolution") / "e"
    assert run(folder) is not None
    return folder


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of a finished evolution."""
    return Path(shutil.copytree(trained, tmp_path / "e"))


@pytest.fixture
def trainings(monkeypatch):
    """The folders that are trained into."""
    folders = []
    train = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *a, **k: folders.append(a[3]) or train(*a, **k))
    return folders


def facts_of(folder):
    """What was found, without the time it took."""
    facts = json.loads((folder / "evolution.json").read_text())
    for one in facts["individuals"]:
        one.pop("seconds")
    return facts


def test_individuals_differ_in_what_is_searched_alone(trained):
    facts = facts_of(trained)
    assert [one["folder"] for one in facts["individuals"]] == [
        f"generation-{g}/individual-{i}" for g in (0, 1) for i in range(4)
    ]
    assert facts["individuals"][0]["settings"] == {
        "optimizer.base_lr": 0.1,
        "optimizer.final_lr": 0.5,
    }
    runs = [
        load_checkpoint(trained / one["folder"] / "checkpoints" / "last.ckpt")
        for one in facts["individuals"]
    ]
    for one, checkpoint in zip(facts["individuals"], runs, strict=True):
        recipe = checkpoint.recipe
        found = {f"optimizer.{n}": getattr(recipe.optimizer, n) for n in ("base_lr", "final_lr")}
        assert found == one["settings"]
        assert recipe.with_value("optimizer", runs[0].recipe.optimizer) == runs[0].recipe
    assert (runs[0].recipe.seed, runs[0].recipe.epochs) == (3, 2)
    assert {checkpoint.images.partition("-")[0] for checkpoint in runs} == {"32"}  # of 40


def test_the_best_is_a_recipe_and_a_line_of_options(trained, tmp_path):
    facts = facts_of(trained)
    best = min(
        (one for one in facts["individuals"] if one["sound"]),
        key=lambda one: one["values"]["fitness"],
    )
    assert facts["best"] == best["folder"]
    for path, value in best["settings"].items():
        assert f"--set {path}={value}" in facts["options"]
    recipe = load_recipe(trained / "best.yaml")
    assert recipe.epochs == 30
    assert recipe.optimizer.base_lr == best["settings"]["optimizer.base_lr"]
    assert "individuals" in recipe.reasons["optimizer.base_lr"]
    # by a run of one's own
    again = api.pretrain(random_images(40), recipe=recipe.changed(epochs=1), out=tmp_path / "run")
    assert again is not None


def test_files_and_page_say_the_same(trained):
    facts = facts_of(trained)
    with (trained / "evolution.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, one in zip(rows, facts["individuals"], strict=True):
        assert float(row["optimizer.base_lr"]) == one["settings"]["optimizer.base_lr"]
        assert float(row["fitness"]) == pytest.approx(one["values"]["fitness"])
        assert row["verdict"] == one["state"]
        assert {"knn", "linear", "effective_rank"} <= one["values"].keys()
    assert set(facts["baselines"]) == {"random backbone", "raw pixels"}
    assert {"fitness", "knn"} <= facts["baselines"]["random backbone"].keys()
    assert any("Scored on the labels of 8 images" in note for note in facts["notes"])
    assert facts["options"] in (trained / "evolution.html").read_text()


def test_what_is_finished_is_read_and_generations_may_be_added(finished, trainings):
    before = facts_of(finished)
    assert run(finished) is not None
    assert facts_of(finished) == before
    assert trainings == []
    longer = run(finished, generations=3)
    assert longer is not None
    assert [path.parent.name for path in trainings] == ["generation-2"] * 4


class CtrlC(Silent):
    """Presses Ctrl-C when a step of an individual is reported."""

    def __init__(self, individual, step):
        self.at = (individual, step)
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)

    def progress(self, what, done, total, note=""):
        if (what, done) == self.at:
            self.at = None
            signal.raise_signal(signal.SIGINT)


def test_a_stopped_evolution_goes_on_bit_for_bit(trained, tmp_path):
    ears = CtrlC("generation 1, individual 2", 2)
    assert run(tmp_path / "e", listener=ears) is None
    assert "goes on" in ears.sentences[-1]
    half = Path("generation-1", "individual-2", "checkpoints", "last.ckpt")
    assert 0 < load_checkpoint(tmp_path / "e" / half).step < 4
    assert not (tmp_path / "e" / "evolution.json").exists()
    assert run(tmp_path / "e") is not None
    assert facts_of(tmp_path / "e") == facts_of(trained)
    one, other = (load_checkpoint(folder / half).method for folder in (tmp_path / "e", trained))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_several_processes_find_the_same(trained, tmp_path):
    assert run(tmp_path / "e", processes=2) is not None
    assert facts_of(tmp_path / "e") == facts_of(trained)


def test_one_that_fails_is_worse_than_all_and_is_not_tried_again(tmp_path, monkeypatch, trainings):
    train = experiment.train

    def failing(images, data, recipe, out, **options):
        if out.parts[-2:] == ("generation-0", "individual-1"):
            raise RuntimeError("out of memory")
        return train(images, data, recipe, out, **options)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", failing)
        found = run(tmp_path / "e")
    assert found is not None
    failed = found.individuals[1]
    assert (failed.state, failed.is_sound) == ("failed", False)
    assert failed.reason == "RuntimeError: out of memory"
    assert found.best is not failed
    trainings.clear()
    assert run(tmp_path / "e") is not None
    assert trainings == []


def test_two_at_once_in_one_folder_are_refused(trained):
    with holding(trained), pytest.raises(UserError, match="another process trains into"):
        run(trained)
    assert run(trained) is not None


def test_a_full_disk_ends_it_and_the_individual_is_tried_again(tmp_path, monkeypatch, trained):
    train = experiment.train

    def failing(images, data, recipe, out, **options):
        if out.parts[-2:] == ("generation-0", "individual-1"):
            raise writing_error(out, OSError(errno.ENOSPC, "No space left on device"))
        return train(images, data, recipe, out, **options)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", failing)
        with pytest.raises(UserError, match=r"the disk is full: cannot write .*individual-1"):
            run(tmp_path / "e")
    found, known = run(tmp_path / "e"), run(trained)
    assert found is not None
    assert known is not None
    assert [i.values for i in found.individuals] == [i.values for i in known.individuals]


def test_where_all_fail_the_reason_is_told_and_nothing_is_kept(tmp_path, monkeypatch):
    def failing(*args, **options):
        raise UserError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", failing)
        with pytest.raises(UserError, match="every individual of generation 0 failed; the disk"):
            run(tmp_path / "e")
    assert not list(tmp_path.rglob(RESULT))
    assert run(tmp_path / "e", generations=1) is not None


WEIGHTED = '''
"""Two losses, whose weights nobody knows."""

from typing import ClassVar

import similitude as sim
from similitude.method import Method, MethodConfig, StepOutput


class WeightedConfig(MethodConfig):
    name: str = "weighted"
    view: sim.views.ImageViewConfig = sim.views.ImageViewConfig(blur=0.0)
    weights: dict[str, float] = {"cosine": 1.0, "square": 1.0}
    searched: ClassVar[tuple[str, ...]] = ("weights",)


class Weighted(Method):
    def __init__(self, backbone, config: WeightedConfig):
        super().__init__()
        self.backbone, self.config = backbone, config

    def views(self, facts):
        view = self.config.view.on(facts)
        return sim.views.MultiView(view, view)

    def training_loss(self, batch, progress):
        h1, h2 = (self.backbone(view) for view in batch.views)
        loss = self.config.weights["cosine"] * sim.losses.negative_cosine(h1, h2.detach())
        loss = loss + self.config.weights["square"] * (h1 - h2).square().mean()
        return StepOutput(loss, h1.detach(), {})
'''


def test_the_weights_of_ones_own_method_are_searched_from_equal_ones_on(tmp_path, monkeypatch):
    (tmp_path / "weighted_losses.py").write_text(WEIGHTED)
    monkeypatch.syspath_prepend(tmp_path)
    overrides = [text for text in TINY if not text.startswith("method.pr")]
    found = evolve(
        random_images(40), method="weighted_losses:Weighted", generations=1, population=4, epochs=1,
        clusters=4, overrides=overrides, out=tmp_path / "e",
    )  # fmt: skip
    assert found is not None
    names = ["method.weights.cosine", "method.weights.square"]
    assert found.fields == names
    assert found.individuals[0].settings == dict.fromkeys(names, 0.5)
    for one in found.individuals:
        run = load_checkpoint(tmp_path / "e" / one.folder / "checkpoints" / "last.ckpt").recipe
        assert list(run.method.weights.values()) == list(one.settings.values())  # type: ignore[attr-defined]


def test_of_a_graph_all_nodes_take_part_and_the_held_out_ones_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (rng.normal(size=(60, 8)) + y[:, None]).astype(np.float32)
    masks = {"train_mask": np.arange(60) < 10, "test_mask": np.arange(60) >= 40}
    edges = rng.integers(0, 60, (2, 200))
    np.savez(tmp_path / "graph.npz", x=x, edge_index=edges, y=y, **masks)
    found = evolve(
        tmp_path / "graph.npz", method="barlow_twins", search=SEARCH[:1], generations=1,
        population=4, epochs=1, clusters=4, out=tmp_path / "e",
    )  # fmt: skip
    assert found is not None
    assert found.notes[0] == "48 nodes trained on for 1 epoch."
    assert found.notes[-1] == "Scored on the labels of 12 nodes not trained on."


def test_labels_change_nothing_but_what_is_scored(trained, tmp_path):
    bare = replace(random_images(40), labels=None, class_names=None)
    found = run(tmp_path / "e", bare)
    assert found is not None
    for one, other in zip(found.individuals, facts_of(trained)["individuals"], strict=True):
        assert one.settings == other["settings"]
        assert one.values["fitness"] == other["values"]["fitness"]
        assert set(one.values) == {"fitness", "distance", "effective_rank"}
    assert set(found.baselines) == {"random backbone"}
    assert any("no labels" in note for note in found.notes)
    page = (tmp_path / "e" / "evolution.html").read_text()
    assert "Linear probe" not in page.partition("<noscript")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 3}, "differs in epochs"),
        ({"search": SEARCH[:1]}, "differs in search"),
        ({"population": 5}, "differs in population"),
        ({"seed": 4}, "differs in seed"),
        ({"clusters": 5}, "differs in clusters"),
        ({"data": random_images(48)}, "on other images"),
    ],
)
def test_another_plan_in_the_same_folder_is_refused(finished, trainings, change, words):
    with pytest.raises(UserError, match=f"{words}.*give another --out"):
        run(finished, **change)
    assert trainings == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"search": []}, "simsiam does not say what to search"),
        ({"population": 3}, "population of at least 4, not 3"),
        ({"processes": 0}, "processes of at least 1, not 0"),
        ({"clusters": 10}, "8 held-out images are fewer than 10 clusters"),
        ({"overrides": [*TINY, "seed=1"]}, "--seed"),
        ({"overrides": [*TINY, "batch_size=39"]}, "32 samples in .* fewer than one batch of 39"),
        ({"search": ["batch_size=16..33"]}, "fewer than one batch of 33"),
        ({"recipe": "cifar10.simclr"}, "contradict"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(tmp_path, trainings, options, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path / "e", **options)
    assert trainings == []
    assert not (tmp_path / "e").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, finished):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already and no evolution"):
        run(tmp_path)
    plan = yaml.safe_load((finished / "evolution.yaml").read_text())
    plan.pop("images")
    (finished / "evolution.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match="is damaged"):
        run(finished)
