import pytest
import timm
import torch

from builders import TinyBackbone, random_images
from similitude.images.attention import attention_maps, has_attention
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.canvases import Canvases
from similitude.images.views import ImageFacts, evaluation_view

CPU = torch.device("cpu")
IMAGE = ImageFacts(16, (0.5,) * 3, (0.25,) * 3)
OPTIONS = {
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "dynamic_img_size": True,
}


def vit(**changes):
    config = BackboneConfig(name="vit_tiny_patch16_224", options={**OPTIONS, **changes})
    return build_backbone(config)


def test_maps_are_the_softmax_of_the_last_blocks_queries_and_keys():
    backbone, images = vit().eval(), random_images(5)
    maps = attention_maps(backbone, images, IMAGE, device=CPU)
    assert maps.shape == (5, 3, 4, 4)

    inputs = []
    attention = backbone.blocks[-1].attn
    attention.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    with torch.no_grad():
        backbone(evaluation_view(Canvases(images.pixels), IMAGE))
        q, k, _ = attention.qkv(inputs[0]).view(5, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
    weights = (q[:, :, :1] @ k.transpose(2, 3) / 8**0.5).softmax(dim=3)[:, :, 0]
    torch.testing.assert_close(maps.flatten(2), weights[:, :, 1:])
    torch.testing.assert_close(maps.sum(dim=(2, 3)), 1 - weights[:, :, 0])


def test_a_token_that_looks_at_one_patch_lights_that_patch():
    """Row by row: patch 6 of a 4 x 4 grid is in row 1, column 2."""
    backbone, images = vit(), random_images(2)
    attention = backbone.blocks[-1].attn
    attention.q_norm = torch.nn.Identity()
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
    marked = torch.zeros(1, 17, 24)
    marked[:, 1 + 6] = 50.0

    class Keys(torch.nn.Module):
        def forward(self, k):
            return k + marked.view(1, 17, 3, 8).transpose(1, 2)

    attention.qkv.bias.data[:24] = 1.0  # every query asks for the mark
    attention.k_norm = Keys()
    maps = attention_maps(backbone, images, IMAGE, device=CPU)
    expected = torch.zeros(4, 4)
    expected[1, 2] = 1.0
    torch.testing.assert_close(maps[0, 0], expected)


def test_the_backbone_is_left_as_it_was():
    backbone, images = vit(), random_images(3)
    backbone.blocks[0].eval()
    fused = backbone.blocks[-1].attn.fused_attn
    modes = [module.training for module in backbone.modules()]
    attention_maps(backbone, images, IMAGE, device=CPU)
    assert [module.training for module in backbone.modules()] == modes
    assert backbone.blocks[-1].attn.fused_attn == fused
    assert not backbone.blocks[-1].attn.attn_drop._forward_pre_hooks


def test_registers_are_not_patches():
    maps = attention_maps(vit(reg_tokens=2), random_images(2), IMAGE, device=CPU)
    assert maps.shape == (2, 3, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "answer"),
    [
        (lambda: vit(), True),
        (lambda: vit(class_token=False, global_pool="avg"), False),
        (TinyBackbone, False),
        (lambda: timm.create_model("resnet18", num_classes=0), False),
    ],
)
def test_which_networks_have_maps(backbone, answer):
    assert has_attention(backbone()) is answer
