"""Convolutions on maps that are no larger than their kernels.

N samples, C channels in and K out, H x W pixels in and h x w out.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """A convolution that computes as a matrix product where every output sees the whole map.

    A kernel of 3 x 3 sees all of a map of 2 x 2 or 1 x 1 from each of its pixels, and multiplies
    the border's zeros besides: five of nine products on 2 x 2, eight of nine on 1 x 1. Convolution
    kernels are slow on such maps on top of that. The result is that of ``nn.Conv2d`` but for
    rounding.
    """

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """Convolve."""
        windows = [self._windows(side, input.shape[2 + side]) for side in (0, 1)]
        if self.groups > 1 or self.padding_mode != "zeros" or not all(windows):
            return super().forward(input)
        rows, columns = windows
        seen = [self.weight[:, :, y, x] for y in rows for x in columns]  # for each output pixel
        weight = torch.stack(seen).permute(0, 1, 3, 4, 2).flatten(2).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(len(seen))
        out = F.linear(input.permute(0, 2, 3, 1).flatten(1), weight, bias)
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


def convert_convolutions(module: nn.Module) -> None:
    """Let every ``nn.Conv2d`` in ``module`` compute as :class:`Conv2d`, in place.

    Weights, their names and the state of the random generator stay as they are.
    """
    for part in module.modules():
        if type(part) is nn.Conv2d:
            part.__class__ = Conv2d
