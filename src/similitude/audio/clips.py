"""Wave forms side by side, as they are kept and as a batch has them.

Letters: N clips, M cuts, S samples of a cut, T samples of all clips.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from similitude.devices import moved
from similitude.files.reading import Mapped


@dataclass(frozen=True)
class Waves:
    """All wave forms of a data set, one behind the other.

    Attributes:
        samples: 16 bits each; often mapped from a file.
        start: Where each clip begins, [N].
        length: Samples of each, at least 1, [N].
        rate: Samples in a second.
        mapped: The file of the samples, as it was when they were mapped.
    """

    samples: Int16[np.ndarray, " T"]
    start: Int[np.ndarray, " N"]
    length: Int[np.ndarray, " N"]
    rate: int
    mapped: Mapped = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mapped", Mapped(self.samples))

    def __len__(self) -> int:
        return len(self.start)

    def cut(
        self, which: Int[Tensor, " M"], begin: Int[Tensor, " M"], size: int
    ) -> Float[Tensor, "M size"]:
        """Parts of clips, in [-1, 1), with silence where they reach beyond a clip.

        Args:
            which: Numbers of the clips.
            begin: Where a part begins, counted from its clip's beginning; may be negative.
            size: Samples of each.

        Raises:
            UserError: the file that they are mapped from was changed in place.
        """
        self.mapped.check()
        out = np.zeros((len(which), size), np.int16)
        for row, clip, at in zip(out, which.tolist(), begin.tolist(), strict=True):
            start, length = int(self.start[clip]), int(self.length[clip])
            first, last = max(0, at), min(length, at + size)
            if first < last:
                row[first - at : last - at] = self.samples[start + first : start + last]
        return torch.from_numpy(out).to(torch.float32).div_(32768.0)


@dataclass(frozen=True)
class Clips:
    """The clips of a batch. What a view takes of them is cut when the view is made.

    Attributes:
        waves: Of the whole data set, so that a view may mix one clip with any other.
        index: Numbers of these clips in it, on the CPU.
        device: Where views are made.
    """

    waves: Waves
    index: Int[Tensor, " N"]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Clips":
        """The same, whose cuts go to a device."""
        return replace(self, device=torch.device(device))

    @property
    def length(self) -> Int[Tensor, " N"]:
        """Samples of each."""
        return torch.from_numpy(self.waves.length[self.index.numpy()])

    def middle(self, size: int) -> Float[Tensor, "N size"]:
        """The middle of each clip, with silence around shorter ones."""
        begin = torch.div(self.length - size, 2, rounding_mode="floor")
        return moved(self.waves.cut(self.index, begin, size), self.device)
