"""Backbones: timm's, with stems and widths for small images."""

import pytest
import torch
from torch import nn

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone, check_input
from similitude.images.config import ImageData
from similitude.images.views import ImageFacts
from similitude.recipes import RECIPES, parse_recipe
from similitude.runs.checkpoint import export_backbone

SMALL = BackboneConfig(name="resnet18", stem="small", base_width=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "features"),
    [
        (SMALL, 64),
        (BackboneConfig(name="resnet18", base_width=4), 32),
        (BackboneConfig(name="resnet18", stem="small"), 512),
        (
            BackboneConfig(
                name="vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8, "depth": 2}
            ),
            192,
        ),
    ],
)
def test_features_have_the_promised_width(config, features):
    backbone = build_backbone(config)
    assert backbone.num_features == features
    assert backbone.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, features)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "ghostnet_050", "vgg11", "hgnet_tiny"])
def test_a_layer_behind_the_pooling_counts(name):
    """timm's num_features is the width before that layer."""
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(name=name))
        features = backbone.eval()(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, backbone.num_features)


def test_a_network_that_gives_maps_is_refused_before_training():
    with torch.device("meta"):
        config = BackboneConfig(name="resnet18", options={"global_pool": ""})
        with pytest.raises(UserError, match="one row of features"):
            check_input(build_backbone(config), config, 32, 32)


def test_the_small_stem_keeps_the_resolution_of_small_images():
    backbone = build_backbone(SMALL)
    maps = backbone.forward_features(torch.zeros(1, 3, 32, 32))
    assert maps.shape == (1, 64, 4, 4)  # three halvings, as in the papers' CIFAR networks


def test_the_last_norm_of_every_block_starts_at_zero():
    blocks = [m for m in build_backbone(SMALL).modules() if hasattr(m, "bn2")]
    assert len(blocks) == 8
    assert all(not block.bn2.weight.any() for block in blocks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BackboneConfig(name="resnet81"), "resnet18"),
        (BackboneConfig(name="vit_tiny_patch16_224", stem="small"), "small-image stem"),
        (BackboneConfig(name="resnet50", base_width=16), "base_width"),
        (BackboneConfig(name="vit_tiny_patch16_224", base_width=16), "has no base_width"),
        (BackboneConfig(name="resnet18", options={"color": 3}), "color"),
        (BackboneConfig(name="hf-hub:timm/resnet18"), "unknown backbone"),
        (BackboneConfig(name="local-dir:there"), "unknown backbone"),
        (BackboneConfig(name="resnet18.a1_in1k"), "unknown backbone .* did you mean resnet18"),
        (BackboneConfig(name="resnet18."), "unknown backbone"),
    ],
)
def test_what_cannot_be_built_is_told(config, words):
    with pytest.raises(UserError, match=words):
        build_backbone(config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pretrained": True}, "takes no 'pretrained'.*--init timm:NAME or --init FILE"),
        ({"pretrained": False}, "takes no 'pretrained'"),
        ({"checkpoint_path": "w.pth"}, "takes no 'checkpoint_path'"),
        ({"pretrained_cfg": "a1_in1k"}, "takes no 'pretrained_cfg'"),
        ({"pretrained_cfg_overlay": 1}, "takes no 'pretrained_cfg_overlay'"),
        ({"cache_dir": "cache"}, "takes no 'cache_dir'"),
        ({"depth=1)#": 2}, "no such 'depth=1"),
        ({"norm_layer": "x" * 65}, "no such 'norm_layer'"),
        ({"channels": [4] * 65}, "no such 'channels'"),
        ({"pretrained_cfg": {"file": "w.pth"}}, "takes no 'pretrained_cfg'"),
        ({"block": {"a": 1}}, "no such 'block'"),
    ],
)
def test_options_are_plain_and_read_no_file(options, words):
    """A recipe may be somebody else's: nothing is fetched or unpickled because it says so."""
    recipe = RECIPES["cifar10.simclr"]().model_dump(mode="json")
    recipe["backbone"]["options"] = options
    with pytest.raises(UserError, match=words):
        parse_recipe(recipe, "their recipe")


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SMALL.changed(norm="group"),
        BackboneConfig(name="resnet18", base_width=4),
        BackboneConfig(),
    ],
)
def test_the_snippet_loads_the_export_with_timm_alone(config, tmp_path):
    backbone = build_backbone(config)
    for module in backbone.modules():
        if isinstance(
            module, nn.BatchNorm2d | nn.GroupNorm
        ):  # gamma 0 would hide the residual branches
            nn.init.uniform_(module.weight)
    path = tmp_path / "backbone.safetensors"
    export_backbone(backbone.state_dict(), path)
    facts = ImageFacts(32, mean=(0.5,) * 3, std=(0.25, 0.2, 0.2))
    snippet = config.loading_snippet(str(path), ImageData(image_size=32, canvas_size=40), facts)
    assert "(0.25, 0.2, 0.2)" in snippet
    assert "similitude" not in snippet.replace(str(path), "")
    names: dict = {}
    exec(snippet, names)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        ours = backbone.eval()(images)  # in which some convolutions are matrix products
        torch.testing.assert_close(names["backbone"](images), ours, rtol=1e-4, atol=1e-5)


def test_with_group_norm_no_image_meets_another():
    torch.manual_seed(0)
    backbone = build_backbone(SMALL.changed(norm="group")).train()
    images = torch.rand(4, 3, 24, 24)
    together = backbone(images)
    alone = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())


def test_convolutions_are_standardized_where_norms_are_of_groups():
    """A kernel counts by its shape: scaled and shifted it is the same."""
    backbone = build_backbone(SMALL.changed(norm="group")).eval()
    images = torch.rand(2, 3, 24, 24)
    before = backbone(images)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(3).add_(0.5)
    torch.testing.assert_close(backbone(images), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("width", "groups"), [(None, 16), (16, 4), (4, 1), (18, 1)])
def test_groups_have_four_channels_at_least(width, groups):
    config = BackboneConfig(name="resnet18", base_width=width, norm="group")
    assert build_backbone(config).bn1.num_groups == groups


def test_a_network_without_plain_batchnorm_takes_no_group_norm():
    with pytest.raises(UserError, match=r"backbone\.norm=batch"):
        build_backbone(BackboneConfig(name="vit_tiny_patch16_224", norm="group"))
