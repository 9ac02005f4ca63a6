"""A checkpoint is loaded whole or not at all, and runs no code."""

import pickle

import pytest
import torch
from torch import nn

from builders import TinyBackbone, small_config, small_recipe
from similitude.backbones import build_backbone
from similitude.checkpoints import (
    fresh_backbone,
    load_backbone,
    load_checkpoint,
    load_strictly,
    save_checkpoint,
)
from similitude.errors import UserError
from similitude.methods import METHODS, build_method


def network(features: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, features), nn.BatchNorm1d(features))


@pytest.mark.parametrize("change", ["missing", "left over", "shape"])
def test_weights_are_loaded_whole_or_not_at_all(change):
    target, state = network(), {k: v + 1 for k, v in network().state_dict().items()}
    if change == "missing":
        del state["1.running_mean"]
    elif change == "left over":
        state["2.weight"] = torch.ones(1)
    else:
        state["0.weight"] = torch.ones(4, 2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(UserError, match="another network than my network: 1 entries"):
        load_strictly(target, state, "my network")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def save(path, method, recipe):
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    save_checkpoint(
        path,
        recipe=recipe,
        step=7,
        method=method,
        optimizer=optimizer,
        seconds=1.5,
        images="64-00000000",
    )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_is_kept_comes_back_for_every_method(name, tmp_path):
    recipe = small_recipe(name)
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    for value in method.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    save(tmp_path / "last.ckpt", method, recipe)
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.step == 7
    assert checkpoint.recipe == recipe
    images = torch.rand(2, 3, 16, 16)
    kept = method.kept_backbone.eval()(images)
    assert torch.equal(load_backbone(checkpoint.recipe, checkpoint.backbone)(images), kept)
    assert not torch.equal(fresh_backbone(recipe).eval()(images), kept)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in a checkpoint was run",))

    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")
    torch.save({"format": 1, "recipe": Trap()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_the_state_of_a_method_holds_its_memory():
    """Queue, cursor, bank, constants and centre: what peers have lost on resuming."""
    wanted = {
        "moco_v1": {"queue.keys", "queue.cursor"},
        "inst_disc": {"bank.features", "normalizer"},
        "cmc": {"banks.0.features", "banks.1.features", "normalizers"},
        "swav": {"queue_rows"},
        "dino": {"center.value"},
    }
    for name, keys in wanted.items():
        method = build_method(small_config(name), TinyBackbone())
        assert keys <= set(method.state_dict()), name


@pytest.mark.parametrize("recipe", [None, [], {"method": None}, {"method": "simclr"}])
def test_a_recipe_that_is_none_is_told(tmp_path, recipe):
    path = tmp_path / "last.ckpt"
    torch.save({"format": 1, "recipe": recipe}, path)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        load_checkpoint(path, own_methods=False)


def test_an_old_run_whose_options_named_weights_still_loads(tmp_path):
    """They are in the checkpoint; to build the network needs neither file nor connection."""
    path, recipe = tmp_path / "last.ckpt", small_recipe("simclr")
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    save(path, method, recipe)
    content = torch.load(path, weights_only=True)
    options = content["recipe"]["backbone"]["options"]
    options |= {"pretrained": True, "checkpoint_path": "gone.pth"}
    torch.save(content, path)
    checkpoint = load_checkpoint(path)
    kept = load_backbone(checkpoint.recipe, checkpoint.backbone).state_dict()
    assert all(torch.equal(kept[n], v) for n, v in method.backbone.state_dict().items())
