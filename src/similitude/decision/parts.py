"""What is learned from, and what is tested on: no sample, and nothing it belongs to, is in both.

Letters: N test samples, M training samples.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from similitude.data.source import Source
from similitude.errors import UserError
from similitude.evaluation.draws import held_out, random_keys, rank_within_class
from similitude.evaluation.evaluate import TEST_FRACTION
from similitude.evaluation.grouping import groups_of, held_out_groups, shared_groups, units_of
from similitude.modalities import Modality, chooser, modality_of
from similitude.randomness import permutation
from similitude.runs.scoring import labeled_parts
from similitude.sample import DataConfig, Samples

MOST = 3_000  # samples of either part: two standard errors of an accuracy are then 1.8 points


@dataclass(frozen=True)
class Part:
    """Labeled samples, as positions in a source.

    Attributes:
        source: Where they are.
        positions: In the source.
        y: Classes, 0 to C - 1, shape [N].
        units: Numbers of what each belongs to, [N].
    """

    source: Source
    positions: list[int]
    y: Int[Tensor, " N"]
    units: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def names(self) -> list[str]:
        """Of the samples."""
        return [self.source.names[i] for i in self.positions]

    def kept(self, mask: Bool[Tensor, " N"]) -> "Part":
        """Those where the mask is true."""
        places = [p for p, keep in zip(self.positions, mask.tolist(), strict=True) if keep]
        return replace(self, positions=places, y=self.y[mask], units=self.units[mask.numpy()])


@dataclass(frozen=True)
class Parts:
    """All that a decision is made on.

    Attributes:
        modality: The kind of data.
        name: Of the data, for people.
        train: Labeled samples to learn from.
        test: Labeled samples to test on.
        class_names: Of the C classes.
        pool: What is pretrained on, without labels.
        pool_positions: Those of the pool that are; None for all.
        notes: Sentences on what was chosen and left out.
        config: How the data is read, where something is said of it.
    """

    modality: Modality
    name: str
    train: Part
    test: Part
    class_names: list[str]
    pool: Source
    pool_positions: list[int] | None
    notes: list[str] = field(default_factory=list)
    config: DataConfig | None = None

    def load(self, part: Part, config: DataConfig) -> Samples[Any]:
        """The samples of a part, with classes 0 to C - 1."""
        samples = self.modality.load_some(part.source, part.positions, config)
        return samples.with_labels(part.y, self.class_names)

    def load_pool(self, config: DataConfig, most: int, seed: int, on_progress: Any) -> Samples[Any]:
        """What is pretrained on, without labels: at most so many samples, drawn with the seed."""
        positions = self.pool_positions
        if most < self.pool_size:
            drawn = permutation(seed, -3, self.pool_size)[:most].sort().values.tolist()
            positions = drawn if positions is None else [positions[i] for i in drawn]
        if positions is None:
            samples = self.modality.load(self.pool, config, on_progress)
        else:
            samples = self.modality.load_some(self.pool, positions, config)
        return samples.without_labels()

    def some(self) -> Samples[Any]:
        """A few training samples, to see what they are like."""
        config = self.config or chooser(self.modality.kind).any_data(self.train.source)
        return self.modality.load_some(self.train.source, self.train.positions[:2], config)

    @property
    def pool_size(self) -> int:
        """How many samples are pretrained on, unless some cannot be read."""
        return len(self.pool if self.pool_positions is None else self.pool_positions)

    def seen_together(self) -> "Parts":
        """The same, where one pass of a network sees all samples, and so the test samples too."""
        told = (
            f"All {self.modality.noun} are around each other while a network learns, those of the "
            "test without their labels."
        )
        return replace(self, pool_positions=None, notes=[*self.notes, told])

    def keeping(self, part: str, mask: Bool[Tensor, " N"]) -> "Parts":
        """The same with those samples of "train" or "test" where the mask is true."""
        return replace(self, **{part: getattr(self, part).kept(mask)})


def open_parts(
    data: Any,
    labeled: Any,
    labels: str | Path | None,
    group: str | None,
    seed: int,
    config: DataConfig | None = None,
) -> Parts:
    """Find, split and cut what the user gave.

    Args:
        data: To pretrain on; labeled itself where ``labeled`` is None.
        labeled: Labeled samples, of the same kind.
        labels: A table of labels, or None.
        group: What belongs together: a column of the table, or the level of a folder, 1 the first.
        seed: Of what is drawn.
        config: How the data is read, where something is said of it.

    Raises:
        UserError: There are no labels or too few, the kinds differ, or the groups cannot be read
            or kept apart.
    """
    kind = modality_of(data)
    if labeled is not None and modality_of(labeled).kind != kind.kind:
        raise UserError(
            f"{data} holds {kind.noun} and {labeled} {modality_of(labeled).noun}: give labeled "
            f"{kind.noun}"
        )
    first, second = labeled_parts(kind, data if labeled is None else labeled, labels, config)
    groups = [
        None if group is None else groups_of(source, group, labels)
        for source in (first, second)
        if source is not None
    ]
    notes = list(first.notes)
    if second is None:
        out = _held_out(first, groups[0], seed)
        train, test = _part(first, ~out, groups[0]), _part(first, out, groups[0])
        notes.append(f"There is no test part: {len(test):,} of the labeled samples are held out.")
        beside = set(out.nonzero()[:, 0].tolist())
    else:
        mine, theirs = groups if group is not None else (None, None)
        mask = torch.ones(len(second), dtype=torch.bool)
        if mine is not None and theirs is not None:
            mask, told = shared_groups(mine, theirs, first.name, second.name)
            notes += told
        train = _part(first, torch.ones(len(first), dtype=torch.bool), mine)
        test = _part(second, mask, theirs)
        beside = set()
    train, test, class_names, told = _numbered(train, test)
    notes += told
    train, test, told = _cut(train, test, seed)
    notes += told
    if group is not None:
        found = len(np.unique(test.units))
        notes.append(f"The test is of {found:,} groups, over which the intervals are.")
    pool, positions = kind.open_training(data, config), None
    if labeled is None and beside:
        positions = [i for i in range(len(first)) if i not in beside]
    return Parts(kind, first.name, train, test, class_names, pool, positions, notes, config)


def _held_out(source: Source, groups: list[str] | None, seed: int) -> Bool[Tensor, " N"]:
    """Mask of a fifth of the labeled samples, of each class, and of whole groups."""
    y = source.labels
    assert y is not None
    if groups is None:
        return held_out(y, TEST_FRACTION, seed) & (y >= 0)
    return held_out_groups(y, groups, TEST_FRACTION, seed)


def _part(source: Source, mask: Bool[Tensor, " N"], groups: list[str] | None) -> Part:
    assert source.labels is not None
    chosen = (mask & (source.labels >= 0)).nonzero()[:, 0]
    units = np.arange(len(source)) if groups is None else units_of(groups)
    return Part(source, chosen.tolist(), source.labels[chosen], units[chosen.numpy()])


def _numbered(train: Part, test: Part) -> tuple[Part, Part, list[str], list[str]]:
    """Both with the classes of the training part as 0 to C - 1, and their names."""
    found, y = train.y.unique(return_inverse=True)
    if len(found) < 2:
        raise UserError(f"{train.source.name} has one class to learn from: a decision needs two")
    place = {number: i for i, number in enumerate(found.tolist())}
    known = torch.tensor([number in place for number in test.y.tolist()])
    if not bool(known.any()):
        raise UserError(f"{test.source.name} has no sample of a class to learn: add some")
    told = []
    if not bool(known.all()):
        told.append(
            f"{int((~known).sum())} test samples are of classes without a training sample and are "
            "left out."
        )
    test = test.kept(known)
    numbers = torch.tensor([place[number] for number in test.y.tolist()])
    given = train.source.class_names
    names = [str(n) if given is None else given[n] for n in found.tolist()]
    return replace(train, y=y), replace(test, y=numbers), names, told


def _cut(train: Part, test: Part, seed: int) -> tuple[Part, Part, list[str]]:
    """Both at most so large, drawn class by class."""
    cut, told = [], []
    for part, what in ((train, "training"), (test, "test")):
        smaller = part
        if len(part) > MOST:
            keys = random_keys(seed, 0, len(part), f"decision {what}")
            share = part.y.bincount()[part.y] * MOST / len(part)
            smaller = part.kept(rank_within_class(keys, part.y) < share.round().clamp_min(1))
            told.append(f"{len(smaller):,} of {len(part):,} labeled {what} samples are used.")
        cut.append(smaller)
    return cut[0], cut[1], told
