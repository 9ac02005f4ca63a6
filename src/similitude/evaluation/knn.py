"""Weighted k nearest neighbors: the probe that has nothing to tune.

Shapes: N rows to classify, M rows in the bank, D features, K neighbors, C classes,
T rows of a tile.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.checks import check_features, check_labeled

MAX_SIMILARITIES = 2**24  # entries of the similarity matrix held at once
BANK_TILE = 2**17  # rows of the bank compared at once


class KNNProbe:
    """Classify by a vote of the ``k`` most similar training rows, weight exp(cosine / temperature).

    The protocol of InstDisc (Wu et al. 2018, section 3.4), also used by MoCo and DINO. There is no
    randomness: among equally similar neighbors the one with the lowest class, then the
    lowest row number is taken, and among equal votes the lowest class wins.
    """

    def __init__(self, k: int = 20, temperature: float = 0.07) -> None:
        if k < 1:
            raise UserError(f"k must be at least 1, not {k}")
        if not temperature > 0:
            raise UserError(f"the temperature must be above 0, not {temperature}")
        self.k = k
        self.temperature = temperature

    def fit(self, x: Float[Tensor, "M D"], y: Int[Tensor, " M"]) -> "KNNProbe":
        """Remember the rows; those labeled -1 are left out.

        Args:
            x: Features of any scale; they are L2-normalized here. Float64 stays float64.
            y: Class numbers; the classes are those that occur here.

        Raises:
            UserError: If there are fewer labeled rows than ``k``, or a feature is not finite.
        """
        x, y = check_labeled(x, y)
        if self.k > len(x):
            raise UserError(
                f"k = {self.k} neighbors need at least as many labeled training samples; there "
                f"are {len(x)}: choose a smaller k"
            )
        # Sorted by class, "the first of equals" is also "the lowest class of equals".
        order = y.argsort(stable=True)
        self.classes_, self.class_index_ = torch.unique(y[order], return_inverse=True)
        self.bank_ = F.normalize(x[order], dim=1)
        return self

    def predict(self, x: Float[Tensor, "N D"]) -> Int[Tensor, " N"]:
        """The class with the most votes, for each row."""
        found = []
        for similarity, index in self._neighbors(x):
            # Shifting all exponents of a row changes no comparison, and none can overflow.
            weight = ((similarity - similarity.amax(1, keepdim=True)) / self.temperature).exp()
            found.append(self.classes_[self._votes(weight, index).argmax(1)])
        return torch.cat(found)

    def score(self, x: Float[Tensor, "N D"], y: Int[Tensor, " N"]) -> float:
        """Share of the labeled rows whose class is found, 0..1."""
        x, y = check_labeled(x, y)
        return (self.predict(x) == y).double().mean().item()

    def _votes(
        self, weight: Float[Tensor, "N K"], index: Int[Tensor, "N K"]
    ) -> Float[Tensor, "N C"]:
        """Sum of the weights of each class's neighbors; columns as ``classes_``."""
        votes = weight.new_zeros(len(weight), len(self.classes_))
        return votes.scatter_add_(1, self.class_index_[index], weight)

    def _neighbors(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Similarities and bank rows of the neighbors, in tiles of queries."""
        x = check_features(x).to(self.bank_)
        if x.shape[1] != self.bank_.shape[1]:
            raise UserError(
                f"the rows to classify have {x.shape[1]} features, the fitted ones "
                f"{self.bank_.shape[1]}: use features of the same backbone"
            )
        return list(nearest_rows(F.normalize(x, dim=1), self.bank_, self.k))


def nearest_rows(
    x: Float[Tensor, "N D"], bank: Float[Tensor, "M D"], k: int
) -> Iterator[tuple[Float[Tensor, "T K"], Int[Tensor, "T K"]]]:
    """Cosines and positions of the nearest rows of a bank, T rows of ``x`` at a time.

    Exact, in tiles: never are more than 2^24 cosines held. The positions of a row rise; among
    equally near rows the first are taken.

    Args:
        x: Unit norm.
        bank: Unit norm.
        k: K, or M where that is less.
    """
    for some in x.split(rows_at_once(len(bank))):
        yield _nearest(some, bank, k)


def rows_at_once(bank: int) -> int:
    """T: how many rows are compared at once with a bank of so many."""
    return max(1, MAX_SIMILARITIES // max(1, min(bank, BANK_TILE)))


def _nearest(x: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    similarity, index = x.new_empty(len(x), 0), torch.empty(0)
    for start in range(0, len(bank), BANK_TILE):
        tile = x @ bank[start : start + BANK_TILE].T
        best, column = _top_k(tile, min(k, tile.shape[1]))
        column += start
        if start > 0:
            best, column = torch.cat([similarity, best], 1), torch.cat([index, column], 1)
            best, kept = _top_k(best, min(k, best.shape[1]))
            column = column.gather(1, kept)
        similarity, index = best, column
    return similarity, index


def _top_k(values: Float[Tensor, "N M"], k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, in rising order of column; among equals the first columns.

    ``torch.topk`` leaves open which of equal values it takes.
    """
    ranked = values.topk(min(k + 1, values.shape[1]), dim=1)
    column = ranked.indices[:, :k].sort(dim=1).values
    best = values.gather(1, column)
    last = ranked.values[:, k - 1 : k]
    tied = (ranked.values[:, k:] == last).any(1).nonzero().squeeze(1)
    if len(tied) > 0:
        rows, limit = values[tied], last[tied]
        above, equal = rows > limit, rows == limit
        room = k - above.sum(1, keepdim=True)
        keep = above | (equal & (equal.cumsum(1) <= room))
        column[tied] = keep.nonzero()[:, 1].view(len(tied), k)
        best[tied] = rows.gather(1, column[tied])
    return best, column
