"""The rows of images: squares of pixels, and the shape that each had before.

Letters: N images, S side of a canvas in pixels.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from similitude.errors import UserError


class Canvases:
    """Images, each squashed to a square.

    Attributes:
        pixels: Red, green and blue in 0..255, shape [N, 3, S, S], uint8.
        aspect: Width / height of each original, shape [N], on the CPU, where choices are drawn.
    """

    def __init__(
        self, pixels: UInt8[Tensor, "N 3 S S"], aspect: Float[Tensor, " N"] | None = None
    ) -> None:
        """Put pixels and aspects side by side; without aspects all are square.

        Raises:
            UserError: shapes or types do not fit.
        """
        shape = tuple(pixels.shape)
        is_square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
        if pixels.dtype != torch.uint8 or not is_square:
            raise UserError(
                f"Views need uint8 canvases of shape [N, 3, S, S], not {pixels.dtype} of shape "
                f"{list(shape)}; load the images with similitude.data."
            )
        self.pixels = pixels
        self.aspect = torch.ones(len(pixels)) if aspect is None else aspect.cpu()
        if self.aspect.shape != (len(pixels),):
            raise UserError(
                f"aspect has shape {list(self.aspect.shape)} for {len(pixels)} canvases; give one "
                "number per canvas."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "Canvases":
        """The same with the pixels on a device; a copy to a GPU may still be on its way."""
        if device.type == "cuda":
            # the copy of pinned memory runs beside the computation that uses the last batch
            return Canvases(self.pixels.pin_memory().to(device, non_blocking=True), self.aspect)
        return Canvases(self.pixels.to(device), self.aspect)
