"""Samples that are nearly another one: the same photo stored twice, the next frame of a film.

Letters: N samples, M others, D numbers of a sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

NEAR = 0.1  # of the median distance to the nearest: a stored again or shifted copy is below
_TILE = 1024  # rows compared at once


class Pair(NamedTuple):
    """A sample and the one that it nearly is, as positions in their parts."""

    sample: int
    other: int


def equal(some: Float[Tensor, "N D"], others: Float[Tensor, "M D"]) -> Bool[Tensor, " N"]:
    """Which rows are equal to one of the others, bit by bit: by hashes, so however many."""
    known = {row.tobytes() for row in others.numpy()}
    return torch.tensor([row.tobytes() in known for row in some.numpy()], dtype=torch.bool)


def near_copies(kinds: Sequence[tuple[Tensor, Tensor]]) -> list[Pair]:
    """Pairs that are near to each other in every kind of features, by rising position.

    The distance of two rows is that of their directions. Near is a tenth of what is usual between a
    sample and the nearest other: pixels alone take faces before one wall for copies, and a network
    alone two photos of one thing.

    Args:
        kinds: Features [N, D] of the samples and [M, D] of the others, in the same order in each
            kind; plain numbers less their mean.
    """
    found: set[Pair] | None = None
    for some, others in kinds:
        distance, place = _nearest(some, others)
        near = (distance <= NEAR * distance.median()).nonzero()[:, 0].tolist()
        pairs = {Pair(i, int(place[i])) for i in near}
        if found is not None:  # of many equal others each kind may find another one
            ours = {pair.sample: pair for pair in pairs}
            pairs = {pair for pair in found if pair.sample in ours}
        found = pairs
    return sorted(found or ())


def _nearest(some: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    bank = F.normalize(others, dim=1)
    cosine, place = zip(
        *((tile @ bank.T).max(1) for tile in F.normalize(some, dim=1).split(_TILE)), strict=True
    )
    return (2 - 2 * torch.cat(cosine)).clamp_min(0).sqrt(), torch.cat(place)
