"""The rows of images: squares of pixels, and the shape that each had before.

Letters: N images, C channels, S side of a canvas in pixels.
"""

import torch
from jaxtyping import Float, UInt
from torch import Tensor

from similitude.devices import moved
from similitude.errors import UserError

DEPTHS = {torch.uint8: 8, torch.uint16: 16}  # bits of a pixel, by how canvases keep it


class Canvases:
    """Images, each squashed to a square.

    Attributes:
        pixels: Shape [N, C, S, S], black to white: uint8 in 0..255, or uint16 in 0..65535. Three
            channels are red, green and blue.
        aspect: Width / height of each original, shape [N], on the CPU, where choices are drawn.
    """

    def __init__(
        self, pixels: UInt[Tensor, "N C S S"], aspect: Float[Tensor, " N"] | None = None
    ) -> None:
        """Put pixels and aspects side by side; without aspects all are square.

        Raises:
            UserError: shapes or types do not fit.
        """
        shape = tuple(pixels.shape)
        is_square = len(shape) == 4 and shape[1] > 0 and shape[2] == shape[3]
        if pixels.dtype not in DEPTHS or not is_square:
            raise UserError(
                f"Views need canvases of shape [N, C, S, S], uint8 or uint16, not {pixels.dtype} "
                f"of shape {list(shape)}; load the images with similitude.data."
            )
        self.pixels = pixels
        self.aspect = torch.ones(len(pixels)) if aspect is None else aspect.cpu()
        if self.aspect.shape != (len(pixels),):
            raise UserError(
                f"aspect has shape {list(self.aspect.shape)} for {len(pixels)} canvases; give one "
                "number per canvas."
            )

    @property
    def white(self) -> int:
        """The largest value that a pixel can have."""
        return torch.iinfo(self.pixels.dtype).max

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "Canvases":
        """The same with the pixels on a device; a copy to a GPU may still be on its way."""
        return Canvases(moved(self.pixels, device), self.aspect)
