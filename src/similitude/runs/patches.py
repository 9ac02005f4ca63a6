"""Features of every place of an image.

N images; D features of h x w places.
"""

from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn


class PatchFeatures(NamedTuple):
    """Features of every place of some images, row by row; ``y`` is as of :class:`Features`."""

    x: Float[Tensor, "N h w D"]
    y: Int[Tensor, " N"] | None
    names: list[str]


class LastMap(nn.Module):
    """The coarsest of a network's maps as one row of numbers for each image.

    Args:
        maps: samples to maps by name.

    Attributes:
        shape: D, h and w of the map that was made last.
    """

    shape: tuple[int, ...]

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Any) -> Float[Tensor, "N Dhw"]:
        """Rows of numbers, of which ``shape`` tells the places."""
        *_, last = self.maps(x).values()
        self.shape = tuple(last.shape[1:])
        return last.flatten(1)
