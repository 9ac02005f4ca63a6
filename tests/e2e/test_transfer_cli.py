"""Three commands from photos to a student: what a user types and sees."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from builders import write_photos
from similitude import cli

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs", "forked_exports")]

PRETRAIN = ["--method", "simclr_v2", "--epochs", "1", "--batch-size", "16"]
PRETRAIN += ["--set", "precision=float32", "--set", "memory_format=contiguous"]
PRETRAIN += ["--set", "backbone.base_width=4", "--set", "image_size=16"]
FAST = ["--epochs", "2", "--batch-size", "8"]


def command(*arguments) -> int:
    before, sys.argv = sys.argv, ["similitude", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with photos, a run and a classifier."""
    folder = tmp_path_factory.mktemp("made")
    photos = write_photos(folder / "photos", 48)
    assert command("pretrain", photos, "--out", folder / "run", *PRETRAIN) == 0
    options = ["--out", folder / "classifier", *FAST]
    assert command("finetune", folder / "run", photos, *options) == 0
    return folder


@pytest.fixture
def similitude(monkeypatch, capsys, tmp_path, made):
    """Run a command line in a folder with copies of what was made; code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("photos", "run", "classifier"):
        shutil.copytree(made / name, tmp_path / name)
    for name in ("run", "classifier"):
        shutil.copytree(made / name, tmp_path / f"other_{name}")

    def run(*arguments) -> tuple[int, str, str]:
        code = command(*arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_three_commands_lead_from_photos_to_a_student(similitude):
    code, out, err = similitude(
        *["finetune", "run", "photos", "--label-fraction", "0.5", "--from-layer", "1"],
        *["--from-scratch", "--out", "tuned", *FAST],
    )
    assert code == 0, err
    assert "19 labeled images" not in out
    assert "of 2 classes to learn from" in out
    assert "fine-tuned" in out
    assert "from scratch on the same labels" in out
    code, out, err = similitude(
        *["distill", "tuned", "photos", "--temperature", "0.5", "--backbone", "resnet10t"],
        *["--out", "student", *FAST],
    )
    assert code == 0, err
    assert "of the student" in out
    for folder in (Path("tuned"), Path("tuned/from_scratch"), Path("student")):
        names = {path.name for path in folder.iterdir()}
        wanted = {"recipe.yaml", "metrics.csv", "log.txt", "checkpoints", "backbone.safetensors"}
        assert wanted <= names
        assert not [name for name in names if ".tmp" in name]


def test_a_classifier_is_embedded_evaluated_and_exported(similitude):
    assert similitude("embed", "classifier", "photos", "-o", "out.npz")[0] == 0
    assert np.load("out.npz")["embeddings"].shape == (48, 32)
    code, out, err = similitude("evaluate", "classifier", "photos", "--protocol", "knn")
    assert code == 0, err
    assert "pretrained backbone" in out
    assert "report:" not in out
    assert similitude("export", "classifier", "-o", "weights.safetensors")[0] == 0


def test_labels_may_come_from_a_csv(similitude, tmp_path):
    flat = write_photos(tmp_path / "flat", 40, classes=0)
    rows = [f"{p.name},{'even' if i % 2 else 'odd'}" for i, p in enumerate(sorted(flat.iterdir()))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    code, out, err = similitude(
        "finetune", "run", flat, "--labels", "labels.csv", "--out", "c", *FAST
    )
    assert code == 0, err
    assert "32 labeled samples of 2 classes to learn from, 8 to test on (a fifth, held out)" in out


def test_a_flat_folder_is_enough_to_distil(similitude, tmp_path):
    flat = write_photos(tmp_path / "flat", 40, classes=0)
    code, out, err = similitude("distill", "classifier", flat, "--out", "student", *FAST)
    assert code == 0, err
    assert "40 images to learn from without labels, none with labels to test" in out
    assert "test accuracy" not in out


def test_a_data_set_with_a_test_part_is_tested_on_it(similitude, tmp_path):
    write_photos(tmp_path / "both" / "train", 32)
    write_photos(tmp_path / "both" / "test", 12)
    code, out, err = similitude("finetune", "run", "both", "--out", "c", *FAST)
    assert code == 0, err
    assert "32 labeled samples of 2 classes to learn from, 12 to test on\n" in out


def test_ctrl_c_ends_cleanly_and_resume_goes_on(similitude, monkeypatch):
    import signal

    from similitude.cli.console import Console

    shown = Console.progress

    def press(self, what, done, total, note=""):
        shown(self, what, done, total, note)
        if what == "training" and done == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Console, "progress", press)
    code, out, err = similitude("finetune", "run", "photos", "--out", "c", *FAST)
    assert code == 130
    assert "--resume" in out
    assert not list(Path("c").rglob("*.tmp*"))
    monkeypatch.setattr(Console, "progress", shown)
    code, out, err = similitude("finetune", "run", "photos", "--out", "c", "--resume")
    assert code == 0, err
    assert "test accuracy" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["finetune", "nowhere", "photos"], ["no such run", "nowhere"]),
        (["finetune", "run", "nowhere"], ["nowhere"]),
        (["finetune", "run", "flat"], ["labels", "--labels"]),
        (
            ["finetune", "run", "photos", "--label-fraction", "0.001"],
            ["0.001", "2 classes", "0.05"],
        ),
        (["finetune", "run", "photos", "--label-fraction", "1.5"], ["1.5"]),
        (["finetune", "run", "photos", "--label-fraction", "0"], ["0", "(0, 1]"]),
        (["finetune", "run", "photos", "--from-layer", "7"], ["7", "3 layers"]),
        (["finetune", "run", "photos", "--from-layer", "-1"], ["-1", "3 layers"]),
        (["finetune", "run", "photos", "--optimizer", "adamm"], ["adamm", "sgd", "lars"]),
        (["finetune", "run", "photos", "--lr", "-1"], ["base_lr", "greater than 0"]),
        (["finetune", "run", "photos", "--batch-size", "64"], ["38", "64"]),
        (["finetune", "run", "photos", "--out", "photos"], ["photos", "not empty"]),
        (["finetune", "run", "photos", "--resume"], ["--out"]),
        (["finetune", "run", "photos", "--resume", "--out", "other_run"], ["other_run", "not a"]),
        (["finetune", "classifier", "photos"], ["classifier already", "run"]),
        (["distill", "run", "photos"], ["run", "not a classifier", "similitude finetune"]),
        (["distill", "nowhere", "photos"], ["no such run", "nowhere"]),
        (["distill", "classifier", "photos", "--backbone", "resnet81"], ["resnet81", "resnet18"]),
        (["distill", "classifier", "photos", "--temperature", "0"], ["temperature", "0"]),
        (
            ["distill", "classifier", "photos", "--resume", "--out", "other_classifier"],
            ["other_classifier", "similitude finetune"],
        ),
        (["finetune", "run", "photos", "--overwrite", "--out", "run"], ["run", "another --out"]),
        (["report", "classifier"], ["classifier", "metrics.csv"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value else None,
)
def test_every_mistake_is_one_sentence_and_exit_code_2(similitude, tmp_path, arguments, words):
    write_photos(tmp_path / "flat", 20, classes=0)
    code, out, err = similitude(*arguments)
    assert code == 2, (out, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1, "one sentence"
    for word in words:
        assert word in err, err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_recipe_is_told(similitude):
    Path("classifier/recipe.yaml").write_text("stage: finetune\nepochs: many\n")
    code, _, err = similitude("distill", "classifier", "photos", *FAST)
    assert code == 2
    assert "classifier/recipe.yaml: source: Field required" in err
