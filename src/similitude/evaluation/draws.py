"""Choices of rows that depend on a seed and on the labels, never on the features.

So every backbone meets the same labeled samples and the same held-out part: comparisons are
paired. Shapes: N rows.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from similitude.errors import UserError
from similitude.randomness import uniform


def random_keys(seed: int, draw: int, n: int, purpose: str) -> Float[Tensor, " N"]:
    """One number in [0, 1) per row, a pure function of the arguments and the row number."""
    return uniform(seed, draw, torch.arange(n), 0, purpose)[:, 0]


def rank_within_class(keys: Float[Tensor, " N"], y: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Position of each row among the rows of its class, by rising key; ties by row number."""
    order = keys.argsort(stable=True)
    order = order[y[order].argsort(stable=True)]
    _, counts = torch.unique_consecutive(y[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(y)) - starts.repeat_interleave(counts)
    return ranks


def held_out(y: Int[Tensor, " N"], fraction: float, seed: int) -> Bool[Tensor, " N"]:
    """Mask of a stratified part: ``fraction`` of each class, rounded.

    A class keeps at least one row; a class with two or more gives at least one.

    Raises:
        UserError: If ``fraction`` is not between 0 and 1, or no class has two rows.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the held-out fraction must be between 0 and 1, not {fraction}")
    _, inverse, counts = torch.unique(y, return_inverse=True, return_counts=True)
    size = (counts * fraction).round().long().clamp_min(1).minimum(counts - 1)
    out = rank_within_class(random_keys(seed, 0, len(y), "hold out"), y) < size[inverse]
    if not bool(out.any()):
        raise UserError(
            f"no class has two labeled samples among {len(y)}, so none can be held out: "
            "label more samples"
        )
    return out
