"""Frames of videos side by side, as they are kept and as a batch has them.

Letters: N videos, M cuts, T frames of a cut, C channels, S side in pixels.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from similitude.devices import moved
from similitude.files.reading import Mapped


@dataclass(frozen=True)
class Frames:
    """All frames of a data set, one video behind the other.

    Attributes:
        rows: RGB in 8 bits, or flow in steps of 1/8 pixel, [frames, C, S, S]; often mapped from a
            file.
        start: Where each video begins, [N].
        length: Frames of each, at least 1, [N].
        rate: Frames in a second.
        mapped: The file of the rows, as it was when they were mapped.
    """

    rows: np.ndarray
    start: Int[np.ndarray, " N"]
    length: Int[np.ndarray, " N"]
    rate: float
    mapped: Mapped = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mapped", Mapped(self.rows))

    def __len__(self) -> int:
        return len(self.start)

    def cut(self, which: Int[Tensor, " M"], begin: Int[Tensor, " M"], count: int) -> Tensor:
        """Consecutive frames, the last one repeated where a video ends, [M, T, C, S, S].

        Args:
            which: Numbers of the videos.
            begin: First frame of each cut, 0 or more.
            count: T.

        Raises:
            UserError: the file that they are mapped from was changed in place.
        """
        self.mapped.check()
        videos = which.numpy()
        at = np.minimum(begin.numpy()[:, None] + np.arange(count), self.length[videos][:, None] - 1)
        return torch.from_numpy(self.rows[self.start[videos][:, None] + at])


@dataclass(frozen=True)
class Films:
    """The videos of a batch. What a view takes of them is cut when the view is made.

    Attributes:
        frames: Of the whole data set.
        index: Numbers of these videos in it, on the CPU.
        device: Where views are made.
    """

    frames: Frames
    index: Int[Tensor, " N"]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Films":
        """The same, whose cuts go to a device."""
        return replace(self, device=torch.device(device))

    @property
    def length(self) -> Int[Tensor, " N"]:
        """Frames of each."""
        return torch.from_numpy(self.frames.length[self.index.numpy()])

    def middle(self, count: int) -> Tensor:
        """The middle frames of each video, [N, T, C, S, S]."""
        begin = torch.div(self.length - count, 2, rounding_mode="floor").clamp_min(0)
        return moved(self.frames.cut(self.index, begin, count), self.device)
