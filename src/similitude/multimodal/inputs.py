"""What the sensors of some samples saw: as rows of a batch, and as a network takes it.

Letters: N samples, M of several views.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from similitude.devices import moved
from similitude.sample import Rows


@dataclass(frozen=True)
class SensorRows:
    """Rows of every sensor.

    Attributes:
        of: Rows of each sensor, N of them; any row where the entry is missing.
        present: Whether a sample has an entry of the sensor.
    """

    of: Mapping[str, Rows]
    present: Mapping[str, Bool[Tensor, " N"]]

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    def to(self, device: torch.device) -> "SensorRows":
        """The same on a device."""
        return SensorRows(
            {name: rows.to(device) for name, rows in self.of.items()},
            {name: moved(there, device) for name, there in self.present.items()},
        )


@dataclass(frozen=True)
class SensorInputs:
    """Inputs of the networks of all sensors, one for each sample, and whether it is there."""

    of: Mapping[str, Tensor]
    present: Mapping[str, Bool[Tensor, " N"]]

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(iter(self.of.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of what networks give."""
        floating = (x.dtype for x in self.of.values() if x.is_floating_point())
        return next(floating, torch.float32)

    def each(self, change: Callable[[Tensor], Tensor]) -> "SensorInputs":
        """The same after a change of every tensor."""
        return SensorInputs(
            {name: change(x) for name, x in self.of.items()},
            {name: change(there) for name, there in self.present.items()},
        )

    def to(self, device: torch.device) -> "SensorInputs":
        """The same on a device."""
        return self.each(lambda x: moved(x, device))

    def clone(self) -> "SensorInputs":
        """A copy."""
        return self.each(torch.clone)

    def refilled(self, tensors: Iterator[Tensor]) -> "SensorInputs":
        """The same sensors with the next of some tensors, nothing of which is missing."""
        of = {name: next(tensors) for name in self.of}
        there = {name: torch.ones(len(x), dtype=torch.bool) for name, x in of.items()}
        return SensorInputs(of, there)

    def rows_at(self, order: Int[Tensor, " M"]) -> "SensorInputs":
        """The inputs of these samples."""
        return self.each(lambda x: x[order])

    def split(self, size: int) -> "list[SensorInputs]":
        """The inputs of some samples at a time."""
        return [
            self.each(lambda x, start=start: x[start : start + size])
            for start in range(0, len(self), size)
        ]

    @staticmethod
    def joined(views: "Sequence[SensorInputs]") -> "SensorInputs":
        """Several views as one."""
        first = views[0]
        return SensorInputs(
            {name: torch.cat([view.of[name] for view in views]) for name in first.of},
            {name: torch.cat([view.present[name] for view in views]) for name in first.present},
        )
