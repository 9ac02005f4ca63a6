"""Color operations on batches with parameters per sample; pixels are floats in [0, 1].

Letters: N samples, C channels, s side of a view.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's and PIL's luma (ITU-R 601)
_SIGN = -(1 << 31)  # the bit of a float32 that holds its sign


def to_grey(images: Float[Tensor, "N C s s"]) -> Float[Tensor, "N s s"]:
    """Luma of every pixel; of other channels than red, green and blue their mean."""
    if images.shape[1] != 3:
        return images.mean(1)
    red, green, blue = images.unbind(1)
    grey = red * _GREY_WEIGHTS[0]
    return grey.add_(green, alpha=_GREY_WEIGHTS[1]).add_(blue, alpha=_GREY_WEIGHTS[2])


def blend_(
    images: Float[Tensor, "N C s s"],
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
    offset = grey.sum(dim=1).sum(dim=1).mul_(mean_weight / (grey.shape[1] * grey.shape[2]))
    grey.mul_(grey_weight[:, None, None]).add_(offset[:, None, None])
    torch.addcmul(grey[:, None], images, factor[:, None, None, None], out=images).clamp_(0.0, 1.0)


def scale_brightness_(images: Float[Tensor, "N C s s"], factor: Float[Tensor, " N"]) -> None:
    """``clamp(factor * x, 0, 1)``, in place."""
    images.mul_(factor[:, None, None, None]).clamp_(0.0, 1.0)


def shift_hue_(images: Float32[Tensor, "N 3 s s"], turns: Float32[Tensor, " N"]) -> None:
    """Turns the hue of every pixel through HSV, in place.

    Without branches: with m, M, c = M - m the smallest and largest channel and their difference,
    the hue in sixths of a turn is h = 1 + (g + b - r - m) / c with the sign of g - b. Turned and
    wrapped into [-3, 3], it makes the channels M - c * clamp(w, 0, 1) with w = |h| - 1 for red,
    2 - |h + 1| for green and 2 - |h - 1| for blue, as from ``min(k, 4 - k, 1)``.
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(red, green)
    high = torch.maximum(red, green)
    torch.minimum(low, blue, out=low)
    torch.maximum(high, blue, out=high)
    chroma = high - low
    one, two = images.new_ones(()), images.new_full((), 2.0)
    hue = (green + blue).sub_(red).sub_(low)
    # a grey pixel has chroma 0 and stays as it is
    torch.addcdiv(one, hue, chroma.clamp(min=1e-12), out=hue)
    sign = torch.sub(green, blue, out=low).view(torch.int32).bitwise_and_(_SIGN)
    hue.view(torch.int32).bitwise_or_(sign)  # three times faster than torch.copysign
    # from here on in turns, not sixths
    torch.add(turns[:, None, None], hue, alpha=1.0 / 6.0, out=hue)
    hue.sub_(torch.round(hue, out=low))
    for channel, shift in (green, 1.0 / 6.0), (blue, -1.0 / 6.0):
        torch.add(hue, shift, out=channel).abs_()
        torch.sub(two, channel, alpha=6.0, out=channel).clamp_(0.0, 1.0)
        torch.addcmul(high, channel, chroma, value=-1.0, out=channel)
    torch.sub(one, hue.abs_(), alpha=6.0, out=hue).clamp_(-1.0, 0.0)
    torch.addcmul(high, hue, chroma, out=red)


def solarize(images: Float[Tensor, "N C s s"], threshold: float) -> Float[Tensor, "N C s s"]:
    """Inverts every value at or above the threshold."""
    return torch.where(images >= threshold, 1.0 - images, images)
