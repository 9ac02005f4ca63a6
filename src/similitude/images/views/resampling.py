"""Crop, mirror, resize and blur of whole batches: every pixel is a weighted sum of a few of a line.

Resampling is linear and separable, so a crop with its mirror and its anti-aliased resize sums, for
each row of a view, the few rows of the canvas that its filter reaches, and then columns likewise;
so does a blur. ``embedding_bag`` makes such sums, without the zeros of a matrix product.
The weights are those of ``torch.nn.functional.interpolate(..., antialias=True)``: a filter centered
on the output pixel, widened by the scale where the crop shrinks, cut at the box and renormalized.

Letters: N images, C channels, B crops or blurs of them, S side of a canvas, s side of a view, L
length of a line, M intervals, P planes, K taps: pixels or lines that are summed for one.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int, UInt
from torch import Tensor

from similitude.devices import moved

_NO_WEIGHT = 2.0**-28  # of a tap of a blur: the sum of all is one, in numbers of 24 bits


def _bilinear_(distance: Tensor) -> Tensor:
    return torch.sub(distance.new_ones(()), distance.abs_(), out=distance).clamp_(min=0.0)


def _bicubic_(distance: Tensor) -> Tensor:
    # Keys' kernel with a = -0.5 (PIL's, and torch's when it anti-aliases), without branches:
    # the outer piece is t^2 (t - 1) / 2 with t = 2 - |d|; inside, u = t - 1 adds u^2 (1 - 2 u)
    t = distance.abs_().neg_().add_(2.0).clamp_(min=0.0)
    u = (t - 1.0).clamp_(min=0.0)
    outer = (t - 1.0).mul_(0.5).mul_(t).mul_(t)
    return outer.addcmul_(u * u, u.mul_(-2.0).add_(1.0))


_FILTERS = {"bilinear": (_bilinear_, 1), "bicubic": (_bicubic_, 2)}  # and their reach to each side


def resize_taps(
    start: Int[Tensor, " M"],
    length: Int[Tensor, " M"],
    mirror: Bool[Tensor, " M"],
    *,
    size: int,
    interpolation: str,
) -> tuple[Int[Tensor, "M s K"], Float[Tensor, "M s K"]]:
    """What resizes ``length`` canvas pixels from ``start`` to ``size`` pixels of a view.

    Args:
        start: First pixel of each interval.
        length: Pixels in each interval, at least 1.
        mirror: Whether the output runs backwards.
        size: s, pixels along the view.
        interpolation: "bilinear" or "bicubic".

    Returns:
        Pixels of the canvas in int32, all in the interval, and their weights in float32, which sum
        to one.
    """
    weigh_, reach = _FILTERS[interpolation]
    taps = -(-2 * reach * max(int(length.max()), size) // size)
    span = length.to(torch.float32)[:, None]
    shrink = (size / span).clamp_(max=1.0)
    # positions and centers are relative to the interval, where float32 is more exact
    center = torch.arange(size, dtype=torch.float32)
    center = torch.where(mirror[:, None], size - 1.0 - center, center).add_(0.5) * (span / size)
    first = (center - (reach / shrink + 0.5)).floor_().add_(1.0)
    pixel = first[:, :, None] + torch.arange(taps)
    distance = (pixel - (center - 0.5)[:, :, None]).mul_(shrink[:, :, None])
    inside = torch.minimum(pixel.clamp(min=0.0), span[:, :, None] - 1.0)
    weights = weigh_(distance).mul_(inside == pixel)
    # one after the other: K depends on the other intervals, and zeros must not change the sum
    weights.div_(weights.cumsum(dim=2)[:, :, -1:])
    return inside.add_(start[:, None, None]).to(torch.int32), weights


def _transpose(planes: Float[Tensor, "P a b"]) -> Float[Tensor, "P b a"]:
    """A contiguous copy, made faster than by ``contiguous``, which goes number by number.

    Where all numbers of a plane are channels, and its rows their groups, this is what a shuffle of
    channels does, in blocks: 3 times as fast on a CPU, 8 times for a side of 256.
    """
    number, a, b = planes.shape
    channels = planes.view(number, 1, 1, a * b).permute(0, 3, 1, 2)
    return F.channel_shuffle(channels, a).view(number, b, a)


class _Taps(NamedTuple):
    """Which pixels of a line are summed for each pixel of a result, and their weights."""

    pixel: Int[Tensor, "B s K"]
    weight: Float[Tensor, "B s K"]


def _sum_lines(
    images: Float[Tensor, "N C S L"], which: Int[Tensor, " B"], taps: _Taps
) -> Float[Tensor, "P s L"]:
    """Weighted sums of whole lines of the planes of some images; P is C B."""
    channels, lines, device = images.shape[1], images.shape[2], images.device
    plane = torch.arange(channels, dtype=torch.int32, device=device)
    first = (which.to(torch.int32)[:, None] * channels + plane) * lines
    number = moved(taps.pixel, device)[:, None] + first[:, :, None, None]
    weight = moved(taps.weight, device)[:, None].expand(number.shape)
    number, weight = (t.reshape(-1, number.shape[3]) for t in (number, weight))
    table = images.view(-1, images.shape[3])
    summed = F.embedding_bag(number, table, per_sample_weights=weight, mode="sum")
    return summed.view(channels * len(which), -1, images.shape[3])


def _resample(
    images: Float[Tensor, "N C S S"], which: Int[Tensor, " B"], rows: _Taps, columns: _Taps
) -> Float[Tensor, "B C s s"]:
    """Weighted sums of rows, then of columns, of some images."""
    planes = (-1, images.shape[1])
    turned = _transpose(_sum_lines(images, which, rows)).unflatten(0, planes)
    every = torch.arange(len(turned), dtype=torch.int32, device=images.device)
    return _transpose(_sum_lines(turned, every, columns)).unflatten(0, planes)


def crop_and_resize(
    canvases: UInt[Tensor, "N C S S"],
    which: Int[Tensor, " B"],
    top: Int[Tensor, " B"],
    left: Int[Tensor, " B"],
    height: Int[Tensor, " B"],
    width: Int[Tensor, " B"],
    flip: Bool[Tensor, " B"],
    *,
    size: int,
    interpolation: str,
) -> Float[Tensor, "B C s s"]:
    """One resampling per crop: cut a box, mirror it, resize it to ``size``.

    Args:
        canvases: Pixels from 0 to the largest value of their type.
        which: Canvas of each crop; this and the other choices are on the CPU.
        top: First row of each box.
        left: First column of each box.
        height: Rows in each box.
        width: Columns in each box.
        flip: Whether to mirror left and right.
        size: s, side of the result.
        interpolation: "bilinear" or "bicubic".

    Returns:
        Float32 in [0, 1]. What a bicubic filter throws over the ends is cut off, as PIL does.
    """
    n, device = len(which), canvases.device
    if n == 0:
        return torch.empty(0, canvases.shape[1], size, size, device=device)
    pixels, weights = resize_taps(
        torch.cat([top, left]),
        torch.cat([height, width]),
        torch.cat([torch.zeros_like(flip), flip]),
        size=size,
        interpolation=interpolation,
    )
    weights[:n].mul_(1.0 / torch.iinfo(canvases.dtype).max)
    rows, columns = _Taps(pixels[:n], weights[:n]), _Taps(pixels[n:], weights[n:])
    images = canvases.to(torch.float32, memory_format=torch.contiguous_format)
    out = _resample(images, moved(which, device), rows, columns)
    return out.clamp_(0.0, 1.0) if interpolation == "bicubic" else out


@lru_cache(maxsize=64)
def _reflected(size: int, reach: int) -> Int[Tensor, "s K"]:
    """The pixels around each pixel, from ``-reach`` to ``reach``.

    One past the border is the one as far inside it (reflection without the border itself).
    """
    offset = torch.arange(-reach, reach + 1, dtype=torch.int32)
    pixel = (torch.arange(size, dtype=torch.int32)[:, None] + offset).abs()
    return torch.where(pixel < size, pixel, 2 * (size - 1) - pixel)


def gaussian_blur_(
    images: Float32[Tensor, "N C s s"],
    which: Int[Tensor, " B"],
    sigma: Float32[Tensor, " B"],
    *,
    radius: int,
) -> None:
    """Blurs some images in place: a Gaussian per sample, reflected at the border.

    Args:
        images: Any range.
        which: Numbers of the images to blur, each once; on the CPU.
        sigma: Their standard deviations in pixels, positive, on the CPU.
        radius: Pixels of the kernel on each side of its center, below s; weights sum to one.
    """
    if radius == 0 or len(which) == 0:
        return
    size, device = images.shape[-1], images.device
    distance = torch.arange(radius + 1, dtype=torch.float32)
    kernel = distance.div(sigma[:, None]).square_().mul_(-0.5).exp_()
    kernel.div_(kernel.sum(dim=1, keepdim=True).mul_(2.0).sub_(1.0))  # the center counts once
    # Samples of the same reach together, without the taps whose weights are lost in the sum; not
    # below 0, so that a sigma that is no number shows.
    reaches = (kernel > _NO_WEIGHT).sum(dim=1).sub_(1).clamp_(min=0)
    order, numbers = reaches.argsort(stable=True), torch.bincount(reaches).tolist()
    kernel, which = (moved(values.index_select(0, order), device) for values in (kernel, which))
    parts = zip(kernel.split(numbers), which.split(numbers), strict=True)
    for reach, (half, some) in enumerate(parts):
        if len(some) > 0:
            half = half[:, : reach + 1]
            weights = torch.cat([half[:, 1:].flip(1), half], dim=1)[:, None].expand(-1, size, -1)
            pixels = moved(_reflected(size, reach), device).expand(len(some), -1, -1)
            taps = _Taps(pixels, weights)
            images.index_copy_(0, some, _resample(images, some, taps, taps))
