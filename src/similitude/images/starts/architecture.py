"""Which network a set of tensors is of, where their names and shapes tell it."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone

# (bottleneck blocks?, blocks of each stage) -> timm's name
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (2, 2, 2, 2)): "resnet26",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


class _ViT(NamedTuple):
    word: str  # in timm's names
    heads: int
    depth: int
    patch: int  # of the plain model that stands for the others


_VITS = {
    192: _ViT("tiny", 3, 12, 16),
    384: _ViT("small", 6, 12, 16),
    768: _ViT("base", 12, 12, 16),
    1024: _ViT("large", 16, 24, 16),
    1280: _ViT("huge", 16, 32, 14),
    1536: _ViT("giant", 24, 40, 14),  # DINOv2's
}


def infer(
    weights: Mapping[str, Tensor], heads: Mapping[int, int], where: str
) -> tuple[BackboneConfig, list[str]]:
    """The plain ResNet or ViT that these tensors are of, and sentences on what was assumed.

    Args:
        weights: under torchvision's or timm's names.
        heads: width of a ViT -> number of its attention heads, as far as the layout says.
        where: the file.

    Raises:
        UserError: names and shapes do not tell.
    """
    found = _resnet(weights, where) or _vit(weights, heads)
    if found is None:
        raise UserError(
            f"names and shapes of the tensors in {where} do not tell which network they are of: "
            "give it with --backbone NAME, a name that timm knows"
        )
    return found


def with_heads(config: BackboneConfig, heads: Mapping[int, int], where: str) -> BackboneConfig:
    """The user's config with the number of attention heads that a layout knows.

    Raises:
        UserError: the user asks for another number.
    """
    network = empty_backbone(config)
    if not heads or not isinstance(network, VisionTransformer):
        return config
    known = heads.get(network.embed_dim)
    if known in (None, network.blocks[0].attn.num_heads):  # type: ignore[union-attr]
        return config
    if "num_heads" in config.options:
        raise UserError(
            f"{where} was trained with {known} attention heads, not with "
            f"{config.options['num_heads']}: leave num_heads out of backbone.options"
        )
    return config.changed(options={**config.options, "num_heads": known})


def empty_backbone(config: BackboneConfig) -> nn.Module:
    """The network without memory for its weights: names and shapes alone.

    Raises:
        UserError: timm does not know the name, or the network does not take the options.
    """
    try:
        with torch.device("meta"):
            return build_backbone(config)
    except RuntimeError:  # older networks of timm read numbers while they are built
        with torch.random.fork_rng(devices=[]):
            return build_backbone(config)


def image_size(config: BackboneConfig, network: nn.Module) -> int:
    """Side of the images that a network was made for, in pixels."""
    made_for = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(made_for, tuple):
        return int(made_for[0])
    if config.stem == "small":
        return 32
    return int(network.pretrained_cfg["input_size"][-1])  # type: ignore[index]


def _resnet(weights: Mapping[str, Tensor], where: str) -> tuple[BackboneConfig, list[str]] | None:
    stem, block = weights.get("conv1.weight"), weights.get("layer1.0.conv1.weight")
    if stem is None or block is None or stem.ndim != 4:
        return None
    bottleneck = "layer1.0.conv3.weight" in weights
    blocks = tuple(_count(weights, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    name = _RESNETS.get((bottleneck, blocks))
    width, kernel = stem.shape[0], stem.shape[-1]
    if name is None or block.shape[0] != width or kernel not in (3, 7):
        return None
    if bottleneck and width != 64:
        raise UserError(
            f"{where} is a {name} of {width // 64} times the width, which timm does not have: "
            "give weights of the usual width"
        )
    report = []
    if kernel == 3:
        report.append(
            "Assumed no max-pool after the 3x3 convolution, as all papers have it on CIFAR, and a "
            "padding of 1 pixel (solo-learn pads 2)."
        )
    return BackboneConfig(
        name=name,
        stem="small" if kernel == 3 else "standard",
        base_width=None if width == 64 else width,
    ), report


def _vit(
    weights: Mapping[str, Tensor], heads: Mapping[int, int]
) -> tuple[BackboneConfig, list[str]] | None:
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight")
    if any(name not in weights for name in (*needed, "blocks.0.attn.qkv.weight")):
        return None
    patches, positions = weights["patch_embed.proj.weight"], weights["pos_embed"]
    if patches.ndim != 4 or positions.ndim != 3 or patches.shape[0] not in _VITS:
        return None
    width, patch = patches.shape[0], patches.shape[-1]
    size = _VITS[width]
    registers = weights.get("reg_token", weights.get("register_tokens"))
    num_registers = 0 if registers is None else registers.shape[1]
    tokens = positions.shape[1]
    # DINOv2 with registers gives them no position; timm's copy of it gives the class none either.
    grids = {n: math.isqrt(n) for n in (tokens - 1, tokens, tokens - 1 - num_registers)}
    grid = next((root for n, root in grids.items() if n > 0 and root * root == n), None)
    if grid is None:
        return None

    options: dict[str, int | float | str | bool | tuple[int, ...]] = {}
    known = timm.list_models("vit_*")
    if patch == 14 and "blocks.0.ls1.gamma" in weights:
        name = f"vit_{size.word}_patch14{'_reg4' if num_registers else ''}_dinov2"
        if num_registers not in (0, 4) or name not in known:
            return None
        defaults = {"img_size": 518}
    else:
        name = f"vit_{size.word}_patch{patch}_224"
        if name not in known:
            name = f"vit_{size.word}_patch{size.patch}_224"
            options["patch_size"] = patch
        if name not in known or size.word == "giant":  # timm's other giants are narrower
            return None
        defaults = {"img_size": 224}
        if "blocks.0.ls1.gamma" in weights:
            options["init_values"] = 1e-5  # which the weights replace
        if num_registers:
            options |= {"reg_tokens": num_registers, "no_embed_class": grid * grid == tokens}
        if "blocks.0.attn.qkv.bias" not in weights:
            options["qkv_bias"] = False
        hidden = weights.get("blocks.0.mlp.fc1.weight")
        if hidden is not None and hidden.shape[0] != 4 * width:
            options["mlp_ratio"] = hidden.shape[0] / width
    depth = _count(weights, r"blocks\.(\d+)\.")
    found = {"img_size": grid * patch, "depth": depth, "num_heads": heads.get(width, size.heads)}
    defaults |= {"depth": size.depth, "num_heads": size.heads}
    options |= {name: value for name, value in found.items() if value != defaults[name]}
    report = []
    if width not in heads:
        report.append(
            f"Assumed {size.heads} attention heads, as timm has at {width} channels: "
            "no tensor shows their number."
        )
    return BackboneConfig(name=name, options=options), report


def _count(names: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the names have at the group of the pattern."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})
