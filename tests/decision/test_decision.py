"""A whole decision: from images to the page, stopped and gone on with, asked for something else."""

import csv
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from builders import Ears
from similitude import decision, starts
from similitude.cli import app
from similitude.decision import decide
from similitude.decision.plan import OWN, RANDOM, SUPERVISED
from similitude.decision.work import Work
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig
from similitude.images.image_set import ImageSet
from similitude.nets.start import Start
from similitude.runs.run import Run
from similitude.transfer import Classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("decision"),  # one training for most of them
    pytest.mark.usefixtures("unchecked_runs", "forked_exports"),
]
MINUTES = 0.03  # a few steps of each training


def striped(n=120, classes=4, size=16, noise=0.4, seed=0):
    """Noise with a darker stripe, whose height is the class; some have another one's."""
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)
    y = torch.arange(n) % classes
    shown = torch.where(torch.rand(n, generator=g) < noise, (y + 1) % classes, y)
    for i, height in enumerate(shown.tolist()):
        pixels[i, :, 4 * height : 4 * height + 4] //= 3
    names = [f"{i:04d}" for i in range(n)]
    return ImageSet(pixels, torch.ones(n), names, y, [f"class {i}" for i in range(classes)])


def published(seed=0):
    """Weights of a tiny network that somebody has published."""
    config = BackboneConfig(name="resnet18", stem="small", base_width=4)
    torch.manual_seed(seed)
    mean, std = (0.5,) * 3, (0.25,) * 3
    state = config.build().state_dict()
    return Start(f"net {seed}", "weights of a test", config, state, 16, mean, std, ["Loaded."])


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Trainings of a few steps are not left out for it."""
    monkeypatch.setattr(decision.plan, "TOO_FEW", 0.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A decision with one published model."""
    folder = tmp_path_factory.mktemp("decision") / "d"
    ears = Ears()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision.plan, "TOO_FEW", 0.0)
        found = decide(striped(), against=[published()], minutes=MINUTES, out=folder, listener=ears)
    return found, ears


def test_what_each_way_says_of_each_test_sample_stands_in_a_file(finished):
    found, _ = finished
    with (found.path / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len({line["name"] for line in lines}) == len(lines) == sum(map(sum, found.confusion))
    for way in found.ways:
        right = np.mean([line[way.title] == line["class"] for line in lines])
        assert right == pytest.approx(way.score.mean)


def test_every_way_is_trained_scored_and_shown_the_cheap_ones_first(finished):
    found, ears = finished
    titles = ["raw pixels", RANDOM, "net 0", SUPERVISED, "net 0 fine-tuned", "net 0 adapted", OWN]
    titles += ["net 0 adapted and fine-tuned", f"{OWN} and fine-tuned"]
    told = [s.partition(": ")[0] for s in ears.sentences if s.partition(": ")[0] in titles]
    assert told == titles
    assert sorted(way.title for way in found.ways) == sorted(titles)
    assert found.is_complete
    assert {*found.table.columns} == {
        "knn",
        "linear",
        "linear_1",
        "linear_5",
        "linear_10",
        "finetuned",
    }
    assert found.table.num_test == 24


def test_what_was_trained_can_be_used(finished):
    found, _ = finished
    assert Run(found.path / "own-from-scratch").verdict.state in ("healthy", "doubtful")
    assert Run(found.path / "net-0-adapted").start is not None
    classifier = Classifier(found.path / "net-0-fine-tuned")
    assert classifier.class_names == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize(
    ("folder", "rows"),
    [
        ("own-from-scratch", {RANDOM: RANDOM, "pretrained backbone": OWN}),
        ("net-0-adapted", {"pretrained backbone": "net 0 adapted"}),
    ],
)
def test_evaluate_gives_the_same_numbers_for_a_run_of_it(finished, folder, rows):
    """The same features, held-out samples, draws of labels and probes."""
    found, _ = finished
    run = Run(found.path / folder)
    table = run.evaluate(striped(), against=[published()])
    assert (table.num_train, table.num_test) == (found.table.num_train, found.table.num_test)
    for ours, theirs in (rows | {"raw pixels": "raw pixels", "net 0": "net 0"}).items():
        decided = found.table.rows[theirs]
        scores = {column: score.mean for column, score in table.rows[ours].items()}
        assert scores == pytest.approx({c: decided[c].mean for c in scores}), ours


def test_the_page_shows_the_sentence_the_curve_the_confusions_and_the_mistakes(finished):
    found, _ = finished
    page = (found.path / "decision.html").read_text()
    assert found.sentence.split(":")[0].replace("'", "&#39;") in page
    for section in ("ways", "scores", "labels", "confusions", "mistakes"):
        assert f'id="{section}"' in page
    assert "taken for class" in page
    stored = json.loads((found.path / "decision.json").read_text())
    assert stored["sentence"] == found.sentence
    assert sum(map(sum, stored["confusion"])) == 24


def test_the_same_call_reads_what_is_there_and_trains_nothing(finished, monkeypatch):
    found, _ = finished
    for task in ("_plain", "_frozen", "_pretrained", "_tuned"):
        monkeypatch.setattr(Work, task, None)
    again = decide(striped(), against=[published()], minutes=MINUTES, out=found.path, resume=True)
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"minutes": 2}, "other minutes"),
        ({"seed": 1}, "other seed"),
        ({"against": [published(1)]}, "other against"),
        ({"data": striped(seed=1, n=121)}, "other samples"),
    ],
)
def test_another_question_needs_another_folder(finished, change, told):
    found, _ = finished
    asked = {"data": striped(), "against": [published()], "minutes": MINUTES, "out": found.path}
    with pytest.raises(UserError, match=told):
        decide(**(asked | change))


def test_ctrl_c_keeps_what_there_is_and_the_same_call_goes_on(tmp_path, monkeypatch):
    def stopped(self, planned):
        raise KeyboardInterrupt

    ears = Ears()
    with monkeypatch.context() as patch:
        patch.setattr(Work, "_tuned", stopped)
        assert (
            decide(striped(), against=(), minutes=MINUTES, out=tmp_path / "d", listener=ears)
            is None
        )
    assert "the same command goes on" in ears.sentences[-1]
    stored = json.loads((tmp_path / "d" / "decision.json").read_text())
    assert not stored["is_complete"]
    assert stored["sentence"].startswith("So far: ")
    assert (tmp_path / "d" / "decision.html").exists()
    whole = decide(striped(), against=(), minutes=MINUTES, out=tmp_path / "d")
    straight = decide(striped(), against=(), minutes=MINUTES, out=tmp_path / "e")
    assert [w.score for w in whole.ways] == [w.score for w in straight.ways]


def test_a_photo_that_is_in_both_parts_is_named_and_does_not_test(tmp_path):
    train, test = striped(seed=0), striped(n=40, seed=1)
    test.pixels[5] = train.pixels[17]
    test.names[:] = [f"test/{name}" for name in test.names]
    found = decide((train, test), against=(), minutes=MINUTES, out=tmp_path / "d")
    assert found.copies == [("test/0005", "0017")]
    assert found.table.num_test == 39
    assert any("1 test images are nearly training images" in note for note in found.table.notes)


def test_a_training_that_fails_says_nothing_of_the_other_rows(tmp_path, monkeypatch):
    def failed(self, planned):
        raise UserError("the disk is full")

    monkeypatch.setattr(Work, "_pretrained", failed)
    found = decide(striped(), against=(), minutes=MINUTES, out=tmp_path / "d")
    assert found.left_out[OWN] == "the disk is full"
    assert found.left_out[f"{OWN} and fine-tuned"] == "the disk is full"
    assert SUPERVISED in [way.title for way in found.ways]


def test_minutes_that_are_too_few_for_a_training_leave_it_out(tmp_path, monkeypatch):
    monkeypatch.setattr(decision.plan, "TOO_FEW", 0.25)
    found = decide(striped(), against=(), minutes=MINUTES, out=tmp_path / "d")
    assert "of the 1,500 steps that it takes" in found.left_out[OWN]


def test_without_a_package_photos_are_decided_without_published_weights(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise UserError("efficientnet-lite0 needs a package that is not installed")

    monkeypatch.setattr(starts, "open_start", missing)
    monkeypatch.setattr(Work, "_tuned", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    ears = Ears()
    decide(striped(), minutes=MINUTES, out=tmp_path / "d", listener=ears)
    assert ears.sentences[0].startswith("no published model is compared: efficientnet-lite0 needs")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"minutes": 0}, "give a number above 0"),
        ({"resume": True}, "no decision in"),
        ({"group": "slide"}, "give --labels"),
        ({"against": [published(), published()]}, "two rows of the table"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, options, told):
    asked = {"against": (), "out": tmp_path / "d", **options}
    with pytest.raises(UserError, match=told):
        decide(striped(), **asked)
    assert not (tmp_path / "d" / "rows").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and no decision"):
        decide(striped(), against=(), out=tmp_path)


def test_a_graph_is_decided_on_by_the_same_rows(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    likely = np.where(y[:, None] == np.arange(12) % 2, 0.4, 0.3)
    x = (rng.random((200, 12)) < likely).astype("f4")
    edges = rng.integers(0, 200, (2, 400))
    np.savez(tmp_path / "g.npz", x=x, edge_index=edges, y=y)
    found = decide(tmp_path / "g.npz", minutes=MINUTES, out=tmp_path / "d")
    titles = {way.title for way in found.ways}
    assert {"raw features", "2 steps of propagation", SUPERVISED, OWN} <= titles
    with pytest.raises(UserError, match="no published models for nodes"):
        decide(tmp_path / "g.npz", against=["timm:resnet18"], out=tmp_path / "e")


def test_the_command_prints_the_table_and_the_sentence(tmp_path, monkeypatch):
    data = striped(n=40)
    np.savez(tmp_path / "x.npz", x=data.pixels.permute(0, 2, 3, 1).numpy(), y=data.labels.numpy())
    monkeypatch.chdir(tmp_path)
    out = CliRunner().invoke(app, ["decide", "x.npz", "--minutes", "0.01"])
    assert out.exit_code == 0, out.output
    assert "raw pixels" in out.output
    assert "page: decisions/x/decision.html" in out.output
    assert "so few as 8 test images" in " ".join(out.output.split())
