"""A run of ours is a start of the next."""

import pytest
import torch

from builders import small_config, small_recipe
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.methods import build_method
from similitude.runs.checkpoint import save_checkpoint
from similitude.runs.starts import open_start


def run_of(name, folder, **changes):
    """The folder of a run and its method, every weight of which has moved by itself."""
    recipe = small_recipe(name, **changes)
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    for tensor in method.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
    save_checkpoint(
        folder / "checkpoints" / "last.ckpt",
        recipe=recipe,
        step=7,
        method=method.state_dict(),
        optimizer=torch.optim.SGD(method.parameters(), lr=0.1).state_dict(),
        seconds=1.5,
        images="64-00000000",
    )
    return method


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "moco_v2", "dino"])
def test_a_run_gives_what_its_method_kept(name, tmp_path):
    method = run_of(name, tmp_path / "first", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    start = open_start(tmp_path / "first")
    assert start.name == "first"
    assert start.title == f"a run of {name}"
    assert start.backbone == small_recipe(name).backbone
    assert start.image_size == 16
    stays = name == "simclr"  # whose views are not normalized
    assert start.mean == ((0.0, 0.0, 0.0) if stays else (0.1, 0.2, 0.3))
    assert start.std == ((1.0, 1.0, 1.0) if stays else (0.4, 0.5, 0.6))
    for key, tensor in method.kept_backbone.state_dict().items():
        assert torch.equal(start.state[key], tensor), key
    assert any("7 steps" in sentence for sentence in start.report)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = method.kept_backbone.eval()(images)
        assert torch.equal(start.build()(images), expected)


def test_the_path_of_its_checkpoint_means_the_run(tmp_path, monkeypatch):
    run_of("simsiam", tmp_path / "first")
    monkeypatch.chdir(tmp_path / "first" / "checkpoints")
    assert open_start("..").name == "first"
    assert open_start(tmp_path / "first" / "checkpoints" / "last.ckpt").name == "first"


@pytest.mark.parametrize("name", ["cpc_v1", "cpc_v2", "cmc"])
def test_a_wrapped_backbone_is_told(name, tmp_path):
    run_of(name, tmp_path / "first", method=small_config(name))
    with pytest.raises(UserError, match=f"as {name} wraps it.*another method"):
        open_start(tmp_path / "first")


def test_another_network_than_the_run_has_is_told(tmp_path):
    run_of("simsiam", tmp_path / "first")
    with pytest.raises(UserError, match=r"the run .*first does not hold the backbone 'resnet18'"):
        open_start(tmp_path / "first", backbone=BackboneConfig())


def test_a_damaged_run_is_told(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged"):
        open_start(tmp_path)
