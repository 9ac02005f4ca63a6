"""Color spaces as views: each group of channels has a backbone of its own (CMC).

N samples, D features of all backbones together.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.nets.backbone import Backbone

ColorSpace = Literal["lab", "ycbcr"]

# Linear sRGB to CIE XYZ, and the white of daylight (D65, 2 degrees); scikit-image's constants.
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
_YCBCR_FROM_RGB = (  # ITU-R 601, to 16..235 and 16..240
    (65.481, 128.553, 24.966),
    (-37.797, -74.203, 112.0),
    (112.0, -93.786, -18.214),
)
_YCBCR_OFFSET = (16.0, 128.0, 128.0)

# What is subtracted and divided by in the authors' code. For Lab: center and half width of each
# channel over the colors of sRGB; for YCbCr: means of images, and the half widths.
_RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "lab": ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
    "ycbcr": ((116.151, 121.080, 132.342), (109.500, 111.855, 111.964)),
}


def _mixed(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> list[Tensor]:
    """Rows of ``matrix @ channels``. By hand: autocast would run a product in low precision."""
    red, green, blue = images.unbind(1)
    return [red * r + green * g + blue * b for r, g, b in matrix]


def rgb_to_lab(images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    """SRGB in [0, 1] to CIE Lab: L in 0..100, a and b in about -108..99.

    Values outside [0, 1] are cut off.
    """
    rgb = images.clamp(0.0, 1.0)
    # where() takes both gradients: the power must not see numbers that it is not for
    bent = ((rgb.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4)
    linear = torch.where(rgb > 0.04045, bent, rgb / 12.92)
    x, y, z = (
        torch.where(v > 0.008856, v.clamp(min=0.008856).pow(1 / 3), 7.787 * v + 16 / 116)
        for v in (c / w for c, w in zip(_mixed(linear, _XYZ_FROM_RGB), _WHITE, strict=True))
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def rgb_to_ycbcr(images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    """RGB in [0, 1] to digital YCbCr (ITU-R 601): Y in 16..235, Cb and Cr in 16..240."""
    mixed = _mixed(images.clamp(0.0, 1.0), _YCBCR_FROM_RGB)
    return torch.stack(
        [channel + offset for channel, offset in zip(mixed, _YCBCR_OFFSET, strict=True)], dim=1
    )


_CONVERSIONS = {"lab": rgb_to_lab, "ycbcr": rgb_to_ycbcr}


class ColorSplit(nn.Module):
    """One backbone for each group of color channels; features side by side.

    A backbone sees its own channels in their usual places and zeros in the others', so that any
    network for RGB images will do: (L, 0, 0) and (0, a, b).

    Args:
        network: images [N, 3, H, W] to features, with fresh weights; it takes the first group.
            The others get copies whose random weights are drawn anew, unless they are pretrained.
        space: "lab" or "ycbcr".
        split: channels in each group, in order; 3 together. (1, 2) is L | ab.

    Raises:
        UserError: the groups do not hold three channels together.
    """

    center: Tensor
    width: Tensor
    masks: Tensor

    def __init__(self, network: Backbone, *, space: ColorSpace, split: Sequence[int]) -> None:
        super().__init__()
        if sum(split) != 3 or min(split) < 1:
            raise UserError(
                f"color channels split as {tuple(split)}; give positive numbers that sum to 3, "
                "e.g. (1, 2)"
            )
        self.space = space
        self.networks = nn.ModuleList([network, *(_redrawn(network) for _ in split[1:])])
        each = network.num_features
        self.num_features: int = each * len(split)
        center, width = (torch.tensor(v)[:, None, None] for v in _RANGES[space])
        group = torch.repeat_interleave(torch.arange(len(split)), torch.tensor(split))
        masks = (group == torch.arange(len(split))[:, None])[:, :, None, None].float()
        # facts, not state: weights files hold weights alone
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("width", width, persistent=False)
        self.register_buffer("masks", masks, persistent=False)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """Features of RGB images in [0, 1]; ``chunk`` by the number of groups parts them."""
        x = (_CONVERSIONS[self.space](images) - self.center) / self.width
        return torch.cat(
            [network(x * mask) for network, mask in zip(self.networks, self.masks, strict=True)],
            dim=1,
        )


@torch.no_grad()
def _redrawn(network: nn.Module) -> nn.Module:
    """A copy with its random weights in another order, by torch's global generator.

    Initial weights are independent draws from one distribution for each tensor, whatever the
    architecture: another order is another draw. Constant tensors (norms, biases at 0) stay.
    Pretrained weights stay as they are.
    """
    copy = deepcopy(network)
    if getattr(network, "has_pretrained_weights", False):
        return copy
    for parameter in copy.parameters():
        if parameter.requires_grad:  # a fixed position embedding is no draw
            order = torch.randperm(parameter.numel(), device=parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copy
