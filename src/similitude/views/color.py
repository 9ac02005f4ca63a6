"""Colour operations on batches with parameters per sample; pixels are floats in [0, 1].

Letters: N samples, s side of a view.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's and PIL's luma (ITU-R 601)
_SECTOR_OF_CHANNEL = (3.0, 1.0, -1.0)  # see shift_hue_; in sixths of a turn, red green blue


def to_grey(images: Float[Tensor, "N 3 s s"]) -> Float[Tensor, "N s s"]:
    """Luma of every pixel."""
    red, green, blue = images.unbind(1)
    grey = red * _GREY_WEIGHTS[0]
    return grey.add_(green, alpha=_GREY_WEIGHTS[1]).add_(blue, alpha=_GREY_WEIGHTS[2])


def blend_(
    images: Float[Tensor, "N 3 s s"],
    factor: Float[Tensor, " N"],
    grey_weight: Float[Tensor, " N"],
    mean_weight: Float[Tensor, " N"],
) -> None:
    """``clamp(factor * x + grey_weight * grey(x) + mean_weight * mean(grey(x)), 0, 1)``, in place.

    Brightness is (f, 0, 0), saturation (f, 1 - f, 0) and contrast (f, 0, 1 - f): one pass serves
    samples that are at different operations of their own random order.
    """
    grey = to_grey(images)
    # in two steps: torch may split one long sum over threads, and round a lone sample otherwise
    offset = grey.mean(dim=2).mean(dim=1).mul_(mean_weight)
    grey.mul_(grey_weight[:, None, None]).add_(offset[:, None, None])
    images.mul_(factor[:, None, None, None]).add_(grey[:, None]).clamp_(0.0, 1.0)


def scale_brightness_(images: Float[Tensor, "N 3 s s"], factor: Float[Tensor, " N"]) -> None:
    """``clamp(factor * x, 0, 1)``, in place."""
    images.mul_(factor[:, None, None, None]).clamp_(0.0, 1.0)


def shift_hue_(images: Float[Tensor, "N 3 s s"], turns: Float[Tensor, " N"]) -> None:
    """Turns the hue of every pixel through HSV, in place.

    Without branches: with m, M, c = M - m the smallest and largest channel and their difference,
    the hue in sixths of a turn is h = copysign(1 + (g + b - r - m) / c, g - b) modulo 6, and
    channel k of a pixel with hue h is M - c * clamp(2 - |h + n_k wrapped into [-3, 3]|, 0, 1)
    with n = (3, 1, -1), which is the usual ``min(k, 4 - k, 1)`` centred on its peak.
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(red, green)
    high = torch.maximum(red, green)
    torch.minimum(low, blue, out=low)
    torch.maximum(high, blue, out=high)
    chroma = high - low
    hue = (green + blue).sub_(red).sub_(low)
    hue.div_(chroma.clamp(min=1e-12)).add_(1.0)  # a grey pixel has chroma 0 and stays as it is
    hue.copysign_(torch.sub(green, blue, out=low))
    hue.mul_(1.0 / 6.0).add_(turns[:, None, None])
    whole = low
    for channel, sector in enumerate(_SECTOR_OF_CHANNEL):
        angle = images[:, channel]
        torch.add(hue, sector / 6.0, out=angle)
        torch.round(angle, out=whole)
        angle.sub_(whole).abs_().mul_(-6.0).add_(2.0).clamp_(0.0, 1.0)
        torch.addcmul(high, angle, chroma, value=-1.0, out=angle)


def solarize(images: Float[Tensor, "N 3 s s"], threshold: float) -> Float[Tensor, "N 3 s s"]:
    """Inverts every value at or above the threshold."""
    return torch.where(images >= threshold, 1.0 - images, images)
