"""MoCo v3's vision transformer: fixed positions and its first weights. M patches, D features."""

from math import prod, sqrt

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from similitude.errors import UserError


def sincos_positions(
    grid: tuple[int, int], dim: int, temperature: float = 10_000.0
) -> Float[Tensor, "1 M D"]:
    """Fixed 2-D sine and cosine positions (MoCo v3, arXiv:2104.02057, Sec. 5; from its code).

    A quarter of the features each for the sine and cosine of the two coordinates, at frequencies
    from 1 down towards 1 / temperature. As in the code, the positions run through the second axis
    of the grid slowest, whereas patches come row by row: the order is theirs on square grids
    alone, up to the names of the coordinates.

    Args:
        grid: patches along height and width.
        dim: D, a multiple of 4.
        temperature: of the slowest frequency.

    Raises:
        UserError: D is no multiple of 4.
    """
    if dim % 4:
        raise UserError(f"positions of {dim} numbers; sine and cosine need a multiple of 4")
    height, width = grid
    frequency = temperature ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    slow, fast = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="ij")
    angles = [axis.flatten()[:, None] * frequency for axis in (slow, fast)]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat(waves, dim=1)[None]


@torch.no_grad()
def set_sincos_positions_(vit: VisionTransformer) -> None:
    """Replace the positions of ``vit`` by fixed ones; those of class and other tokens are 0.

    Raises:
        UserError: it has no absolute positions, or none for its patches.
    """
    grid, positions = vit.patch_embed.grid_size, vit.pos_embed
    if positions is None or grid is None:
        raise UserError(f"a {type(vit).__name__} without absolute positions cannot have fixed ones")
    patches = sincos_positions(grid, vit.embed_dim)
    tokens = positions.shape[1] - patches.shape[1]
    positions.copy_(torch.cat([patches.new_zeros(1, tokens, vit.embed_dim), patches], dim=1))
    positions.requires_grad_(False)


@torch.no_grad()
def xavier_init_(vit: VisionTransformer) -> None:
    """Draw the first weights as MoCo v3 does, from torch's global generator.

    Every Linear is uniform after Xavier, queries, keys and values as three matrices of their own
    and the patch embedding as one Linear of all its pixels; biases are 0; the class token has
    standard deviation 1e-6.
    """
    for name, layer in vit.named_modules():
        if isinstance(layer, nn.Linear):
            parts = 3 if name.endswith("qkv") else 1
            for weight in layer.weight.chunk(parts):
                nn.init.xavier_uniform_(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    patches = vit.patch_embed.proj
    if isinstance(patches, nn.Conv2d):
        fan_in = prod(patches.weight.shape[1:])
        bound = sqrt(6 / (fan_in + patches.out_channels))
        nn.init.uniform_(patches.weight, -bound, bound)
        if patches.bias is not None:
            nn.init.zeros_(patches.bias)
    if vit.cls_token is not None:
        nn.init.normal_(vit.cls_token, std=1e-6)
