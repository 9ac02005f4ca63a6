"""Blocks that run twice give the same bits as those that keep what they compute."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders import BACKBONE, START, TinyBackbone, random_batch, random_images, small_config
from similitude.api import pretrain
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.methods import build_method
from similitude.nets.blocks import blocks_of
from similitude.nets.precision import Arithmetic, GradientCache, computing
from similitude.recipes import parse_recipe
from similitude.text.networks import TextNetworkConfig

VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    options={
        "img_size": 12,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 3,
        "num_heads": 2,
        "drop_path_rate": 0.5,
        "proj_drop_rate": 0.3,
        "dynamic_img_size": True,
    },
)
NETWORKS = {"resnet": BACKBONE, "vit": VIT}


def a_step(
    name: str, network: str, dtype: torch.dtype, micro: int | None = None, **how: bool
) -> tuple[list[Tensor], int]:
    """Loss, features, gradients, buffers, the random state; and bytes kept for the backward pass.

    Of the second of two losses: running statistics of the first one are not those of the start.
    """
    torch.manual_seed(0)
    method = build_method(small_config(name), build_backbone(NETWORKS[network]))
    method.train()
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    cache = GradientCache(micro) if micro else None
    found = []
    for seed in range(2):
        kept = 0
        method.zero_grad()
        with (
            computing(method, Arithmetic(dtype, **how), cache),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            output = method.training_loss(random_batch(method, seed=seed), START)
            output.loss.backward()
            if cache is not None:
                cache.backward()
        found = [output.loss.detach(), output.features]
    found += [p.grad for p in method.parameters() if p.grad is not None]
    return [*found, *method.buffers(), torch.get_rng_state()], kept


@pytest.mark.parametrize("micro", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["simclr", "moco_v2", "dino"])  # moco_v2: BatchNorm in parts
def test_blocks_that_run_twice_give_the_same_bits(name, network, dtype, micro):
    once, kept_once = a_step(name, network, dtype, micro)
    twice, kept_twice = a_step(name, network, dtype, micro, activation_checkpointing=True)
    assert len(once) == len(twice)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert kept_twice < 0.6 * kept_once


def test_blocks_are_the_smallest_repeated_parts():
    assert [type(b).__name__ for b in blocks_of(build_backbone(VIT))] == ["Block"] * 3
    resnet: Any = build_backbone(BACKBONE)
    stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    assert blocks_of(resnet) == [block for stage in stages for block in stage]
    nested = nn.Sequential(resnet.layer1, resnet.layer2)
    assert blocks_of(nested) == [*resnet.layer1, *resnet.layer2]
    words: Any = TextNetworkConfig(name="transformer", blocks=2).build()
    assert blocks_of(words) == list(words.encoder.layers)
    assert blocks_of(TinyBackbone()) == []


def test_a_network_without_blocks_is_refused(tmp_path):
    with pytest.raises(UserError, match="'regnetx_002' has no list of blocks"):
        pretrain(
            random_images(32),
            backbone=BackboneConfig(name="regnetx_002"),
            activation_checkpointing=True,
            overrides=["image_size=32"],
            out=tmp_path / "run",
        )


def test_compiling_and_running_twice_are_refused_together():
    recipe = {
        "method": {"name": "simclr"},
        "data": {"image_size": 16},
        "optimizer": {"base_lr": 0.1},
        "epochs": 1,
        "batch_size": 8,
        "activation_checkpointing": True,
    }
    parse_recipe(recipe, "the recipe")
    with pytest.raises(UserError, match="does not take activation_checkpointing"):
        parse_recipe({**recipe, "compile": True}, "the recipe")
