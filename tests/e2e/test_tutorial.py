"""The tutorial runs from its first block to its last, and its notebook is the same."""

import shlex
from importlib.util import find_spec
from typing import Any

import pytest
from tools.make_notebook import NOTEBOOK, PAGE, blocks, notebook
from typer.testing import CliRunner

import similitude as sim
from builders import random_images
from similitude.cli import app
from similitude.images.opening import open_source

# What the blocks take on few and tiny images: other weights that are given as a file.
SHORTER = {"--minutes 4": "--epochs 2", "--minutes 2": "--minutes 0.01"}
PUBLISHED = ("efficientnet-lite0", "runs/first/backbone.safetensors")


def test_the_notebook_is_the_page():
    assert NOTEBOOK.read_text() == notebook(PAGE.read_text()), "run: make pictures"


def test_pictures_of_the_pages_are_small():
    pictures = [*PAGE.parent.glob("images/*")]
    assert pictures
    assert [p.name for p in pictures if p.stat().st_size > 150_000] == []


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = {"train": random_images(48, 20), "test": random_images(24, 20, seed=1)}

    def open_tiny(name: str, split: str) -> Any:
        assert name == "cifar10"
        return open_source(images[split])

    names: dict[str, Any] = {}
    for kind, content in blocks(PAGE.read_text()):
        if kind == "python":
            with monkeypatch.context() as patch:
                if "cifar10" in content:
                    patch.setattr(sim.data, "open_source", open_tiny)
                exec(compile(content, str(PAGE), "exec"), names)
        elif kind == "sh":
            for line in content.split("\n"):
                if "--to onnx" in line and not find_spec("onnxruntime"):
                    continue
                for before, after in [*SHORTER.items(), PUBLISHED]:
                    line = line.replace(before, after)
                done = CliRunner().invoke(app, shlex.split(line)[1:])
                assert done.exit_code == 0, f"{line}\n{done.output}"
    written = {path.name for path in tmp_path.iterdir()}
    assert {"views.png", "alike.csv", "alike.html", "label-these.csv"} <= written
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert (tmp_path / "decision" / "decision.html").exists()
