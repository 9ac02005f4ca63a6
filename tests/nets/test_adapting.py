"""What starts from published weights stays near them: frozen depths, rates, the mean with them."""

import pytest
import torch

from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.methods import build_method
from similitude.nets.adapting import (
    averaged,
    freeze_,
    keep_statistics_,
    layer_scales,
    parameters_by_depth,
    split_by_scale,
)
from similitude.recipes import RECIPES

NARROW = BackboneConfig(base_width=8)
VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    options={"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2},
)


@pytest.mark.parametrize(
    "config", [NARROW, VIT, BackboneConfig(name="tf_efficientnet_lite0")], ids=lambda c: c.name
)
def test_depths_hold_every_parameter_once_from_the_input_on(config):
    backbone = build_backbone(config)
    depths = parameters_by_depth(backbone)
    names = [name for depth in depths for name in depth]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())
    assert len(depths) >= 5
    first = {"conv1.weight", "patch_embed.proj.weight", "conv_stem.weight"}
    assert first & set(depths[0])


@pytest.mark.parametrize("name", ["simclr", "byol", "dino"])
def test_frozen_layers_neither_learn_nor_watch_in_any_copy(name):
    torch.manual_seed(0)
    recipe = RECIPES[f"small.{name}"]()
    method = build_method(recipe.method, build_backbone(NARROW))
    copies = [m for n, m in method.named_children() if n.endswith("backbone")]
    for backbone in copies:
        freeze_(backbone, 0.6)  # stem, layer1 and layer2 of five
        assert not backbone.layer1[0].bn1.training  # new networks are in training mode
    method.train()
    for backbone in copies:
        before = {n: b.clone() for n, b in backbone.named_buffers()}
        backbone(torch.randn(4, 3, 32, 32))
        moved = {n for n, b in backbone.named_buffers() if not torch.equal(b, before[n])}
        assert not any(n.startswith(("bn1", "layer1", "layer2")) for n in moved)
        assert any(n.startswith("layer4") for n in moved)
    learning = {n for n, p in method.backbone.named_parameters() if p.requires_grad}
    assert learning
    assert all(n.startswith(("layer3", "layer4")) for n in learning)
    assert method.eval().backbone.layer4.training is False


def test_batchnorm_that_holds_its_activation_is_frozen_too():
    backbone = build_backbone(BackboneConfig(name="mobilenetv3_small_050"))
    freeze_(backbone, 0.6)
    before = {n: b.clone() for n, b in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 32, 32))
    moved = {n for n, b in backbone.named_buffers() if not torch.equal(b, before[n])}
    learning = [n for n, p in backbone.named_parameters() if p.requires_grad]
    assert {n.rpartition(".")[0] for n in moved} <= {n.rpartition(".")[0] for n in learning}
    assert moved


def test_kept_statistics_stay_and_scales_learn():
    backbone = build_backbone(BackboneConfig(name="mobilenetv3_small_050"))
    keep_statistics_(backbone)
    x = torch.randn(2, 3, 32, 32)
    for dropout in (m for m in backbone.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.eval()
    found = backbone(x)
    found.sum().backward()
    assert backbone.bn1.weight.grad is not None
    torch.testing.assert_close(found, backbone.eval()(x))


def test_nothing_is_frozen_at_zero_and_everything_at_one():
    backbone = build_backbone(NARROW)
    freeze_(backbone, 0.0)
    assert all(p.requires_grad for p in backbone.parameters())
    freeze_(backbone, 1.0)
    assert not any(p.requires_grad for p in backbone.parameters())


def test_rates_fall_by_the_same_factor_at_every_depth_and_heads_keep_theirs():
    backbone = build_backbone(NARROW)
    scales = layer_scales(backbone, 0.5)
    assert scales[backbone.conv1.weight] == 0.5**4
    assert scales[backbone.layer4[0].conv1.weight] == 1.0
    head = torch.zeros(3, requires_grad=True)
    groups = [
        {"params": [backbone.conv1.weight, backbone.layer4[0].conv1.weight], "lr_scale": 2.0},
        {"params": [head], "weight_decay": 0.0},
    ]
    split = split_by_scale(groups, scales)
    assert [group["lr_scale"] for group in split] == [2 * 0.5**4, 2.0, 1.0]
    assert [group.get("weight_decay") for group in split] == [None, None, 0.0]
    assert sum(len(group["params"]) for group in split) == 3


def test_the_mean_is_that_of_weights_and_statistics_and_counts_stay():
    trained = {"w": torch.tensor([1.0, 3.0]), "count": torch.tensor(7)}
    start = {"w": torch.tensor([3.0, 3.0]), "count": torch.tensor(1)}
    mean = averaged(trained, start, 0.25)
    assert mean["w"].tolist() == [1.5, 3.0]
    assert mean["count"] == 7
    assert averaged(trained, start, 1.0)["w"].tolist() == [3.0, 3.0]
