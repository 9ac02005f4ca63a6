"""MoCo v3's heads and positions against its code."""

import pytest
import timm
import torch
from torch import nn

from builders import TinyBackbone
from similitude.images.vit import set_sincos_positions_, sincos_positions
from similitude.methods import MoCoV3, MoCoV3Config
from similitude.recipes import find_recipe


def text(layer):
    if isinstance(layer, nn.Linear):
        return f"Linear({layer.in_features},{layer.out_features},bias={layer.bias is not None})"
    if isinstance(layer, nn.BatchNorm1d):
        return f"BatchNorm1d({layer.num_features},affine={layer.affine})"
    return type(layer).__name__


@pytest.mark.golden("mocov3_heads")
@pytest.mark.parametrize(
    ("recipe", "network"), [("moco_v3", "MoCo_ResNet"), ("moco_v3_vit", "MoCo_ViT")]
)
def test_heads(vectors, recipe, network):
    backbone = TinyBackbone()
    backbone.num_features = vectors["in_dim"]
    config = find_recipe(f"imagenet.{recipe}").method
    assert isinstance(config, MoCoV3Config)
    sizes = {"hidden_dim": vectors["mlp_dim"], "projection_dim": vectors["dim"]}
    method = MoCoV3(backbone, config.model_copy(update=sizes))
    assert [*map(text, method.projector)] == vectors[f"{network}.projector"]
    assert [*map(text, method.predictor)] == vectors[f"{network}.predictor"]


@pytest.mark.golden("mocov3_posembed")
def test_positions(vectors):
    grid = tuple(vectors["grid"].tolist())
    positions = sincos_positions(grid, vectors["embed_dim"], vectors["temperature"])
    expected = vectors["pos_embed"]
    # the reference computes in float32
    torch.testing.assert_close(positions, expected[:, 1:], rtol=1e-5, atol=1e-6)

    vit = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        img_size=[4 * side for side in grid],
        patch_size=4,
        embed_dim=vectors["embed_dim"],
        depth=1,
        num_heads=1,
    )
    set_sincos_positions_(vit)
    torch.testing.assert_close(vit.pos_embed.double(), expected, rtol=1e-5, atol=1e-6)
    assert not vit.pos_embed.requires_grad
    assert not vit.pos_embed[:, 0].any()  # the class token has none
