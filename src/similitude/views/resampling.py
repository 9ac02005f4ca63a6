"""Crop, mirror, resize and blur of whole batches as banded matrix products.

Resampling is linear and separable, so a crop with its mirror and its anti-aliased resize is
``out = Y @ image @ X^T`` with one pair of weight matrices per sample, and so is a blur.
The weights are those of ``torch.nn.functional.interpolate(..., antialias=True)``: a filter centred
on the output pixel, widened by the scale where the crop shrinks, cut at the box and renormalised.

Letters: N samples, B blurred samples, S side of a canvas, s side of a view, M weight matrices.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

_OUTSIDE = 1e6  # a position this far from every centre gets the weight 0 of either filter
# On a CPU, dense products win until the zeros outweigh the time that each sample takes by itself:
# 1.7 times faster at 64 px, 1.2 times at 96, the same at 128.
_LARGEST_DENSE = 96
_BLOCK = 16  # rows of a blur that one product makes: measured best of 8, 16 and 32
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


_FILTERS = {"bilinear": _bilinear_, "bicubic": _bicubic_}


def resize_weights(
    start: Int[Tensor, " M"],
    length: Int[Tensor, " M"],
    mirror: Bool[Tensor, " M"],
    *,
    canvas_size: int,
    size: int,
    interpolation: str,
) -> Float[Tensor, "M s S"]:
    """Weights that resize ``length`` canvas pixels from ``start`` to ``size`` pixels of a view.

    Args:
        start: First pixel of each interval.
        length: Pixels in each interval, at least 1.
        mirror: Whether the output runs backwards.
        canvas_size: S, pixels along the canvas.
        size: s, pixels along the view.
        interpolation: "bilinear" or "bicubic".

    Returns:
        Float32 rows that sum to one and are zero outside the interval.
    """
    device = start.device
    scale = length.to(torch.float32).div_(size)
    squeeze = scale.clamp(min=1.0).reciprocal_()
    pixel = torch.arange(canvas_size, device=device)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    # positions and centres are relative to the box, where float32 is more exact
    position = (pixel - start[:, None]).add(0.5).mul_(squeeze[:, None])
    position = position.masked_fill_(~inside, _OUTSIDE)
    output = torch.arange(size, device=device)
    output = torch.where(mirror[:, None], size - 1 - output, output)
    centre = output.add(0.5).mul_((scale * squeeze)[:, None])
    weights = _FILTERS[interpolation](position[:, None, :] - centre[:, :, None])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _separable(
    images: Float[Tensor, "N 3 S S"],
    y: Float[Tensor, "N s S"],
    x: Float[Tensor, "N s S"],
) -> Float[Tensor, "N 3 s s"]:
    """``y @ image @ x^T`` for every sample and channel."""
    n, _, canvas_size, _ = images.shape
    size = y.shape[1]
    y = y.repeat_interleave(3, dim=0)
    images = images.reshape(3 * n, canvas_size, canvas_size)
    rows = torch.bmm(y, images).view(n, 3 * size, canvas_size)
    return torch.bmm(rows, x.transpose(1, 2)).view(n, 3, size, size)


def _crop_each(
    canvases: UInt8[Tensor, "N 3 S S"],
    boxes: Int[Tensor, "N 4"],
    flip: Bool[Tensor, " N"],
    size: int,
    interpolation: str,
) -> Float[Tensor, "N 3 s s"]:
    """The same resampling sample by sample, which leaves out the zeros of the matrices."""
    out = torch.empty(len(canvases), 3, size, size)
    for i, (box, mirrored) in enumerate(zip(boxes.tolist(), flip.tolist(), strict=True)):
        top, left, height, width = box
        pixels = canvases[i : i + 1, :, top : top + height, left : left + width]
        resized = F.interpolate(
            pixels.to(torch.float32), size=(size, size), mode=interpolation, antialias=True
        )
        torch.mul(resized.flip(3) if mirrored else resized, 1.0 / 255.0, out=out[i : i + 1])
    return out


def crop_and_resize(
    canvases: UInt8[Tensor, "N 3 S S"],
    top: Int[Tensor, " N"],
    left: Int[Tensor, " N"],
    height: Int[Tensor, " N"],
    width: Int[Tensor, " N"],
    flip: Bool[Tensor, " N"],
    *,
    size: int,
    interpolation: str,
) -> Float[Tensor, "N 3 s s"]:
    """One resampling per sample: crop a box, mirror it, resize it to ``size``.

    Args:
        canvases: Pixels in 0..255.
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
    n, canvas_size = canvases.shape[0], canvases.shape[-1]
    if canvases.device.type == "cpu" and max(canvas_size, size) > _LARGEST_DENSE:
        boxes = torch.stack([top, left, height, width], dim=1)
        out = _crop_each(canvases, boxes, flip, size, interpolation)
        return out.clamp_(0.0, 1.0) if interpolation == "bicubic" else out
    weights = resize_weights(
        torch.cat([top, left]),
        torch.cat([height, width]),
        torch.cat([torch.zeros_like(flip), flip]),
        canvas_size=canvas_size,
        size=size,
        interpolation=interpolation,
    )
    y, x = weights[:n], weights[n:]
    y.mul_(1.0 / 255.0)
    out = _separable(canvases.to(torch.float32), y, x)
    return out.clamp_(0.0, 1.0) if interpolation == "bicubic" else out


@lru_cache(maxsize=16)
def _reflected_taps(size: int, radius: int, device: torch.device) -> Float[Tensor, "taps ss"]:
    """Row r: the s x s matrix, flattened, that adds the two pixels at distance r of each pixel.

    A pixel past the border is the one as far inside it (reflection without the border itself).
    """
    centre = torch.arange(size)
    taps = torch.zeros(radius + 1, size, size)
    for distance in range(radius + 1):
        for offset in {distance, -distance}:
            neighbour = (centre + offset).abs()
            neighbour = torch.where(neighbour < size, neighbour, 2 * (size - 1) - neighbour)
            taps[distance, centre, neighbour] += 1.0
    return taps.view(radius + 1, size * size).to(device)


def gaussian_blur(
    images: Float[Tensor, "B 3 s s"], sigma: Float[Tensor, " B"], *, radius: int
) -> Float[Tensor, "B 3 s s"]:
    """Gaussian blur with a standard deviation per sample and reflection at the border.

    Args:
        images: Any range.
        sigma: Standard deviations in pixels, positive.
        radius: Pixels of the kernel on each side of its centre, below s; weights sum to one.

    Returns:
        A new tensor.
    """
    if radius == 0:
        return images.clone()
    size = images.shape[-1]
    distance = torch.arange(radius + 1, device=images.device, dtype=torch.float32)
    kernel = distance.div(sigma[:, None]).square_().mul_(-0.5).exp_()
    kernel.div_(kernel.sum(dim=1, keepdim=True).mul_(2.0).sub_(1.0))  # the centre counts once
    if images.device.type == "cpu" and size > _LARGEST_DENSE:
        return _blur_each(images, kernel)
    matrix = kernel @ _reflected_taps(size, radius, images.device)
    matrix = matrix.view(-1, size, size)
    return _separable(images, matrix, matrix)


def _blur_each(
    images: Float[Tensor, "B 3 s s"], kernel: Float[Tensor, "B taps"]
) -> Float[Tensor, "B 3 s s"]:
    """The same blur sample by sample, which leaves out the zeros of the matrices.

    Some rows of the result are one small band matrix times the rows around them, and that matrix
    is the same for all of them, as for the columns.
    """
    size = images.shape[-1]
    blocks = -(-size // _BLOCK)
    rest = blocks * _BLOCK - size  # zeros that make the last block a whole one
    out = images.new_empty(len(images), 3, blocks, _BLOCK, blocks, _BLOCK)
    # not below 0, so that a sigma that is no number shows
    reaches = (kernel > _NO_WEIGHT).sum(dim=1).sub(1).clamp(min=0).tolist()
    for i, reach in enumerate(reaches):
        half = kernel[i, : reach + 1]
        around = _BLOCK + 2 * reach
        # one row shorter than a period: every repetition starts one further to the right
        period = F.pad(torch.cat([half.flip(0), half[1:]]), (0, _BLOCK))
        band = period.repeat(_BLOCK)[: _BLOCK * around].view(_BLOCK, around)
        x = F.pad(images[i], (reach,) * 4, mode="reflect")
        x = F.pad(x, (0, rest, 0, rest)) if rest else x
        high, wide = x.shape[1:]
        x = x.as_strided((3, blocks, around, wide), (high * wide, _BLOCK * wide, wide, 1))
        x = torch.matmul(band, x)
        rows = 3 * blocks * _BLOCK
        x = x.as_strided((blocks, rows, around), (_BLOCK, wide, 1))
        x = torch.bmm(x, band.t().expand(blocks, around, _BLOCK))
        out[i].copy_(x.view(blocks, 3, blocks, _BLOCK, _BLOCK).permute(1, 2, 3, 0, 4))
    return out.view(len(images), 3, size + rest, size + rest)[:, :, :size, :size]
