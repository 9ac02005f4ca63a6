"""A graph is pretrained, scored, reported and resumed by the commands that take images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import similitude as sim
from similitude.modalities import modality_of

CLASSES, EACH = 4, 30


@pytest.fixture
def file(tmp_path):
    """Classes that features hardly tell and edges do."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), EACH)
    x = rng.random((len(y), 24)) + 0.2 * np.eye(CLASSES).repeat(6, axis=1)[y]
    a, b = rng.integers(0, len(y), (2, 3000))
    kept = (y[a] == y[b]) | (rng.random(3000) < 0.05)
    path = tmp_path / "g.npz"
    np.savez(path, x=x.astype(np.float32), edge_index=np.stack([a[kept], b[kept]]), y=y)
    return path


def bits(run):
    return run.checkpoint.method


@pytest.mark.slow
@pytest.mark.parametrize("method", ["barlow_twins", "byol", "simclr", "moco_v2"])
def test_a_method_of_images_trains_on_a_graph_as_it_is(file, tmp_path, method):
    run = sim.pretrain(file, method=method, out=tmp_path / "r", epochs=6, report=False)
    assert run.recipe.data.num_features == run.recipe.backbone.in_features == 24
    assert run.recipe.batch_size == CLASSES * EACH
    assert run.embed(file).x.shape == (CLASSES * EACH, 256)
    again = sim.pretrain(file, recipe=run.recipe, out=tmp_path / "s", report=False)
    assert all(torch.equal(bits(again)[key], value) for key, value in bits(run).items())


@pytest.mark.slow
def test_it_is_scored_beside_what_needs_no_learning(file, tmp_path):
    run = sim.pretrain(file, out=tmp_path / "r", epochs=30)
    table = run.evaluate(file, protocols=["knn", "linear"])
    assert list(table.rows) == [
        *("raw features", "1 step of propagation", "2 steps of propagation"),
        *("random backbone", "pretrained backbone"),
    ]
    assert table.rows["raw features"]["knn"].mean < table.rows["2 steps of propagation"]["knn"].mean
    assert "2 steps of propagation" in run.report().read_text()
    assert (run.path / "views.png").stat().st_size > 0


class StopsAt:
    def __init__(self, step):
        self.step = step

    def say(self, sentence):
        pass

    def progress(self, what, done, total, note=""):
        if what == "training" and done == self.step:
            import signal

            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_bits(file, tmp_path):
    options = {"epochs": 10, "report": False}
    whole = sim.pretrain(file, out=tmp_path / "whole", **options)
    assert sim.pretrain(file, out=tmp_path / "r", listener=StopsAt(5), **options) is None
    resumed = sim.pretrain(file, out=tmp_path / "r", resume=True, report=False)
    assert all(torch.equal(bits(resumed)[key], value) for key, value in bits(whole).items())


def test_an_object_of_torch_geometric_is_a_graph_and_a_folder_of_photos_is_none(tmp_path):
    data = SimpleNamespace(x=torch.rand(8, 3), edge_index=torch.tensor([[0, 1], [1, 2]]), y=None)
    assert modality_of(data).kind == "graph"
    assert len(modality_of(data).open_training(data, None)) == 8
    assert modality_of(tmp_path).kind == modality_of(torch.rand(4, 8, 8)).kind == "image"


def test_what_a_graph_has_not_is_one_sentence(file, tmp_path):
    for options, words in (
        ({"init": "timm:resnet18"}, "no published weights"),
        ({"micro_batch_size": 16}, "not cut into micro-batches"),
        ({"backbone": "resnet18"}, "there is gcn"),
    ):
        with pytest.raises(sim.UserError, match=words):
            sim.pretrain(file, out=tmp_path / "r", epochs=1, **options)
