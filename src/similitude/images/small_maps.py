"""Convolutions on maps that are no larger than their kernels.

N samples, C channels in and K out, H x W pixels in and P = h x w out, a kernel of size k x l.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Gathering the matrix costs as much for one sample as for many; it pays from about here.
FEWEST = 32

Window = tuple[slice, slice]


class SmallMapConv2d(nn.Conv2d):
    """A convolution that computes as a matrix product where every output sees the whole map.

    A kernel of 3 x 3 sees all of a map of 2 x 2 or 1 x 1 from each of its pixels, and multiplies
    the border's zeros besides: five of nine products on 2 x 2, eight of nine on 1 x 1. The kernels
    of CPUs are slow on such maps on top of that. The result is that of ``nn.Conv2d`` but for
    rounding; other devices keep theirs.
    """

    def forward(self, input: Float[Tensor, "*N C H W"]) -> Float[Tensor, "*N K h w"]:
        """Convolve."""
        if input.ndim != 4 or input.device.type != "cpu" or len(input) < FEWEST:
            return super().forward(input)
        rows, columns = (self._windows(side, input.shape[2 + side]) for side in (0, 1))
        if not rows or not columns or self.groups > 1 or self.padding_mode != "zeros":
            return super().forward(input)
        windows = [(y, x) for y in rows for x in columns]
        weight = _Windows.apply(self.weight, windows)
        bias = None if self.bias is None else self.bias.repeat(len(windows))
        out = F.linear(input.permute(0, 2, 3, 1).flatten(1), weight, bias)  # type: ignore[arg-type]
        if len(windows) == 1:
            # the strides that BatchNorm gives one pixel: its backward is slow where they differ
            return out[:, :, None, None]
        return out.unflatten(1, (len(rows), len(columns), -1)).permute(0, 3, 1, 2)

    def _windows(self, side: int, size: int) -> list[slice]:
        """Which part of the kernel each output lays over the map; none if one does not see it all.

        Args:
            side: 0 is height, 1 width.
            size: of the map, in pixels.
        """
        if isinstance(self.padding, str) or self.dilation[side] > 1:
            return []
        kernel, stride, padding = self.kernel_size[side], self.stride[side], self.padding[side]
        number = (size + 2 * padding - kernel) // stride + 1
        starts = [padding - stride * i for i in range(number)]
        if any(start < 0 or start + size > kernel for start in starts):
            return []
        return [slice(start, start + size) for start in starts]


class _Windows(torch.autograd.Function):
    """Parts of a kernel, one for each output pixel, as one matrix [P K, H W C]."""

    @staticmethod
    def forward(ctx: Any, weight: Float[Tensor, "K C k l"], windows: list[Window]) -> Tensor:
        ctx.windows, ctx.shape = windows, weight.shape
        parts = [weight[:, :, y, x].permute(0, 2, 3, 1) for y, x in windows]
        ctx.part = parts[0].shape
        return torch.stack(parts).flatten(2).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        outputs, inputs, height, width = ctx.shape
        # channels last, as the parts are: adding across the order of memory takes five times longer
        whole = grad.new_zeros(outputs, height, width, inputs)
        parts = grad.unflatten(0, (len(ctx.windows), -1))
        for part, (y, x) in zip(parts, ctx.windows, strict=True):
            whole[:, y, x] += part.view(ctx.part)
        return whole.permute(0, 3, 1, 2), None


def convert_convolutions(module: nn.Module) -> None:
    """Let every ``nn.Conv2d`` in ``module`` compute as :class:`SmallMapConv2d`, in place.

    Weights, their names and the state of the random generator stay as they are.
    """
    for part in module.modules():
        if type(part) is nn.Conv2d:
            part.__class__ = SmallMapConv2d


def plain_convolutions(module: nn.Module) -> nn.Module:
    """A copy of ``module`` of PyTorch's own layers, which formats of others know."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if type(part) is SmallMapConv2d:
            part.__class__ = nn.Conv2d  # type: ignore[assignment]
    return copied
