"""What several sensors saw, as samples.

Letters: N samples, D numbers of a sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from similitude.multimodal.inputs import SensorInputs, SensorRows
from similitude.multimodal.views import SensorFacts, SensorView
from similitude.randomness import Blocks
from similitude.sample import MultiView, Samples


@dataclass(frozen=True)
class SensorSet(Samples[SensorRows]):
    """Samples with entries of several sensors.

    Attributes:
        of: What each sensor saw, every entry once.
        where: Position of a sample's entry there, -1 where it has none.
        blocks: Those of the first sensor, where its entries are the samples in their order.
    """

    of: Mapping[str, Samples[Any]]
    where: Mapping[str, Int[Tensor, " N"]]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None
    blocks: Blocks | None = None

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """As the first sensor does."""
        self.of[self.first].read_ahead(blocks)

    @property
    def first(self) -> str:
        """The sensor that pictures and the first baseline show."""
        return next(iter(self.of))

    @property
    def noun(self) -> str:  # type: ignore[override]
        """What several samples are called."""
        return "samples" if len(self.of) > 1 else self.of[self.first].noun

    @property
    def raw_name(self) -> str:  # type: ignore[override]
        """The row of the first sensor's raw numbers."""
        return f"{self.of[self.first].raw_name} of {self.first}"

    def take(self, index: Int[Tensor, " M"] | slice) -> SensorRows:
        """What is known of the samples at these positions."""
        at = {name: where[index] for name, where in self.where.items()}
        return SensorRows(
            {name: self.of[name].take(rows.clamp_min(0)) for name, rows in at.items()},
            {name: rows >= 0 for name, rows in at.items()},
        )

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "SensorSet":
        """The samples at these positions, in that order."""
        rows = torch.arange(len(self))[
            index if isinstance(index, slice) else torch.as_tensor(index)
        ]
        return replace(
            self,
            where={name: where[rows] for name, where in self.where.items()},
            names=[self.names[i] for i in rows.tolist()],
            labels=None if self.labels is None else self.labels[rows],
            partners=None,
            blocks=None,
        )

    def clean(self, rows: SensorRows, facts: SensorFacts) -> SensorInputs:
        """The view without chance of every sensor."""
        made = {name: self.of[name].clean(some, facts.of[name]) for name, some in rows.of.items()}
        return SensorInputs(made, rows.present)

    def raw(self, beside: Sequence["SensorSet"] = ()) -> Float[Tensor, "N D"]:
        """The first sensor's raw numbers; zeros where it is missing."""
        return self._placed(self.first, self.of[self.first].raw(self._beside(self.first, beside)))

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """The raw numbers of the other sensors, and what else is plain of any."""
        found = {}
        for name, samples in self.of.items():
            plain = {} if name == self.first else {samples.raw_name: samples.raw()}
            for row, x in (plain | samples.baselines()).items():
                found[f"{row} of {name}"] = self._placed(name, x)
        return found

    def has_one_scale(self, row: str) -> bool:
        """Whether the sensor's own numbers have."""
        name = max((n for n in self.of if row.endswith(f" of {n}")), key=len)
        return self.of[name].has_one_scale(row.removesuffix(f" of {name}"))

    def _beside(self, name: str, others: Sequence["SensorSet"]) -> list[Samples[Any]]:
        return [other.of[name] for other in others if name in other.of]

    def _placed(self, name: str, x: Float[Tensor, "M D"]) -> Float[Tensor, "N D"]:
        rows = self.where[name]
        return x[rows.clamp_min(0)] * (rows >= 0)[:, None]

    def sheet(self, views: MultiView, facts: SensorFacts, *, seed: int) -> Image.Image:
        """The sheets of all sensors, side by side."""
        some = self.spread(8)
        sheets = []
        for name, samples in some.of.items():
            own = [view.of[name] for view in views.views if isinstance(view, SensorView)]
            there = some.where[name][some.where[name] >= 0]
            if len(there):
                shown = samples.subset(there)
                sheets.append(shown.sheet(MultiView(*own), facts.of[name], seed=seed))
        page = Image.new(
            "RGB", (sum(s.width for s in sheets), max(s.height for s in sheets)), "white"
        )
        left = 0
        for sheet in sheets:
            page.paste(sheet, (left, 0))
            left += sheet.width
        return page

    def told_missing(self) -> list[str]:
        """The sensors that some samples have no entry of."""
        lacking = {name: int((rows < 0).sum()) for name, rows in self.where.items()}
        return [
            f"{name} is missing in {count} of {len(self)} {self.noun}"
            for name, count in lacking.items()
            if count
        ]

    def copies(self) -> float:
        """The share of the samples whose entries are all those of another one, 0..1."""
        entries = torch.stack(list(self.where.values()), dim=1)
        return 1 - len(torch.unique(entries, dim=0)) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """Pictures of the first sensor; gray where it is missing."""
        rows = self.where[self.first]
        pictures = self.of[self.first].thumbnails_of(rows.clamp_min(0), side)
        pictures[(rows < 0).numpy()] = 128
        return pictures
