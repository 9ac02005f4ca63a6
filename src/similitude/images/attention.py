"""Where a vision transformer looks: the attention of its last block, from the class token.

M images, H heads, h x w patches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from similitude.images.image_set import ImageSet
from similitude.images.views.image import ImageFacts


def has_attention(backbone: nn.Module) -> bool:
    """Whether the network is a ViT of timm whose last block has one attention and a class token."""
    if not isinstance(backbone, VisionTransformer) or backbone.cls_token is None:
        return False
    last = getattr(backbone.blocks[-1], "attn", None)
    return isinstance(getattr(last, "attn_drop", None), nn.Module) and hasattr(last, "fused_attn")


@torch.inference_mode()
def attention_maps(
    backbone: nn.Module, images: ImageSet, image: ImageFacts, *, device: torch.device
) -> Float[Tensor, "M H h w"]:
    """How the class token of the last block shares out its attention over the patches.

    Args:
        backbone: a ViT (see :func:`has_attention`); left in the mode and on the device it was.
        images: a few; all pass at once.
        image: size and normalization of what the backbone sees.
        device: where to compute.

    Returns:
        Float32 on the CPU, 0 or more; a map sums to 1 minus what the class token (and registers)
        get. Of images cut to a square of side ``image.size``.
    """
    home = next(backbone.parameters()).device
    modes = [(module, module.training) for module in backbone.modules()]
    try:
        backbone.to(device).eval()
        with _watching(backbone) as seen:
            backbone(images.clean(images.take(slice(None)).to(device), image))
    finally:
        backbone.to(home)
        for module, mode in modes:
            module.training = mode
    (weights,) = seen  # [M, H, tokens, tokens]
    prefix: int = backbone.num_prefix_tokens  # type: ignore[assignment]
    maps = weights[:, :, 0, prefix:].float().cpu()
    side = round(maps.shape[-1] ** 0.5)
    return maps.unflatten(2, (side, -1))


@contextmanager
def _watching(backbone: Any) -> Iterator[list[Tensor]]:
    """Collect what the last block multiplies its values with; fused kernels never show it."""
    attention, seen = backbone.blocks[-1].attn, []
    fused = attention.fused_attn
    hook = attention.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    attention.fused_attn = False
    try:
        yield seen
    finally:
        attention.fused_attn = fused
        hook.remove()
