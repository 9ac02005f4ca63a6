"""Runs that keep more than one network for whole images: trained, loaded, embedded, exported."""

import pytest
import torch

import similitude as sim
from builders import write_photos

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

FAST = ["backbone.base_width=4", "precision=float32", "memory_format=contiguous"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 48)


@pytest.fixture(scope="module", params=["cpc_v1", "cpc_v2", "cmc"])
def run(request, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    name = request.param
    return sim.pretrain(photos, method=name, out=out, epochs=2, batch_size=12, overrides=FAST)


def test_a_run_keeps_and_gives_back_the_wrapped_backbone(run, photos):
    kinds = {"cpc_v1": "PatchBackbone", "cpc_v2": "PatchBackbone", "cmc": "ColorSplit"}
    loaded = sim.load(run.path)
    assert type(loaded.backbone).__name__ == kinds[loaded.recipe.method.name]
    width = 64 if loaded.recipe.method.name == "cmc" else 32
    embedded = loaded.embed(photos)
    assert embedded.x.shape == (48, width)
    assert len(embedded.x.unique(dim=0)) > 40
    images = torch.rand(2, 3, 20, 20)
    with torch.no_grad():
        assert loaded.backbone(images).shape == (2, width)


def test_the_exported_python_loads_the_backbone_through_similitude(run, tmp_path):
    snippet = run.export(tmp_path / "backbone.safetensors")
    assert (tmp_path / "backbone.safetensors").exists()
    assert "[1, 3, 20, 20]" in snippet
    names: dict = {}
    exec(snippet, names)
    images = torch.rand(2, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(names["backbone"](images), run.backbone(images))


def test_the_run_is_measured_and_reported(run):
    assert run.verdict.state in ("healthy", "doubtful", "collapsed")
    assert (run.path / "report.html").exists()
    assert (run.path / "views.png").exists()
    rows = (run.path / "metrics.csv").read_text()
    assert "alignment" in rows


def test_scores_beside_random_weights(run, photos):
    rows = run.evaluate(photos, protocols="knn").to_json()["rows"]
    assert [row["name"] for row in rows] == ["raw pixels", "random backbone", "pretrained backbone"]


def test_views_of_patches_are_drawn(photos, tmp_path):
    sim.draw_views(photos, tmp_path / "views.png", method="cpc_v1")
    assert (tmp_path / "views.png").stat().st_size > 1000
