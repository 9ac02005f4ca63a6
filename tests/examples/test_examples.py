"""Every program in examples/ runs, and prints what it promises."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import write_photos

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs", "forked_exports")]

EXAMPLES = Path(__file__).parents[2] / "examples"
COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


@pytest.fixture
def printed(monkeypatch, capsys):
    """What a program prints; in this process, since a new one loads for longer than it works."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(word) for word in (EXAMPLES / name, *arguments)])
        monkeypatch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 60)


def test_there_is_a_test_of_each():
    tested = {Path(__file__).with_name("test_lightning_module.py"), Path(__file__)}
    text = "".join(file.read_text() for file in tested)
    assert [file.name for file in EXAMPLES.glob("*.py") if file.name not in text] == []


def test_a_run_is_trained_judged_scored_and_exported(printed, photos, tmp_path):
    out = tmp_path / "run"
    text = printed("pretrain_and_evaluate.py", photos, photos, "--minutes", 0.01, "--out", out)
    assert "raw pixels" in text
    assert "timm.create_model" in text
    assert (out / "report.html").exists()
    assert (out / "backbone.safetensors").exists()


def test_a_decision_is_a_sentence(printed, photos, tmp_path):
    text = printed("decide.py", photos, photos, "--minutes", 0.02, "--out", tmp_path / "d")
    assert "raw pixels" in text
    assert (tmp_path / "d" / "decision.html").exists()


def test_an_own_method_with_an_own_view_trains(printed, photos, tmp_path):
    out = tmp_path / "run"
    text = printed("own_method.py", photos, "--minutes", 0.01, "--out", out)
    assert "steps" in text
    assert "own_method:Uncover" in (out / "recipe.yaml").read_text()


def test_an_own_backbone_is_loaded_again(printed, photos, tmp_path):
    options = ["--minutes", 0.01, "--width", 4, "--out", tmp_path / "run"]
    assert printed("own_backbone.py", photos, *options).startswith("Plain ")


def test_scikit_learn_classifies_embeddings(printed, photos, tmp_path):
    out = tmp_path / "run"
    printed("own_method.py", photos, "--minutes", 0.01, "--out", out)
    weights = out / "backbone.safetensors"
    text = printed("scikit_learn.py", weights, photos, "--folds", 2)
    assert "% in 2 folds" in text
    assert "of class class0" in text


def test_sounds_are_scored_beside_spectrograms(printed, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="needs: pip install 'similitude[audio]'")
    time = np.arange(3200) / 8000
    for part, count in (("train", 16), ("test", 4)):
        for pitch in (300, 2000):
            folder = tmp_path / "clips" / part / str(pitch)
            folder.mkdir(parents=True)
            for i in range(count):
                wave = 0.4 * np.sin(2 * np.pi * (pitch + 9 * i) * time)
                soundfile.write(folder / f"{i}.wav", wave.astype(np.float32), 8000)
    options = ["--minutes", 0.01, "--out", tmp_path / "run"]
    text = printed("sounds.py", tmp_path / "clips", *options)
    assert "log-mel" in text


def test_a_graph_is_scored_beside_its_neighbors_mean(printed, tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 40)
    edges = rng.integers(0, 80, (2, 600))
    kept = y[edges[0]] == y[edges[1]]
    x = rng.random((80, 8), dtype=np.float32)
    np.savez(tmp_path / "g.npz", x=x, edge_index=edges[:, kept], y=y)
    options = ["--epochs", 2, "--out", tmp_path / "run"]
    assert "a node is" in printed("graph.py", tmp_path / "g.npz", *options)


def test_a_text_finds_photos(printed, tmp_path):
    pytest.importorskip("tokenizers", reason="needs: pip install 'similitude[text]'")
    rows = ["photo,text,split"]
    for i in range(40):
        name, color = list(COLORS.items())[i % 2]
        Image.new("RGB", (20, 20), tuple(c + i % 7 for c in color)).save(tmp_path / f"{i}.png")
        part = "test" if i % 5 == 0 else "train"
        rows.append(f"{i}.png,a {name} thing number {i},{part}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    options = ["--epochs", 2, "--batch-size", 8, "--out", tmp_path / "run"]
    assert "features of photos" in printed("image_text.py", tmp_path / "pairs.csv", *options)
