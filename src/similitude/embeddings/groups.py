"""Groups of samples that are nearly the same.

N rows, D numbers of an embedding.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from similitude.embeddings.neighbors import ExactIndex, neighbors
from similitude.evaluation import knn
from similitude.listener import Listener, Silent

THRESHOLD = 0.98  # of the cosine of near duplicates
_ROUNDING = 1e-6  # of the cosine of two equal rows in float32
_NEIGHBORS = 20  # of each row that are looked at in an approximate search
_MAX_PAIRS = 2**22  # held before they are joined


def duplicate_groups(
    x: Float[Tensor, "N D"],
    threshold: float = THRESHOLD,
    *,
    approximate: bool = False,
    listener: Listener | None = None,
) -> list[list[int]]:
    """Rows that are joined by pairs with a cosine of at least the threshold.

    Connected components, as in near-duplicate detection by embeddings (SemDeDup, Abbas et al. 2023,
    Section 3, without its clusters: all pairs are compared). A chain of near duplicates is one
    group, though its ends may differ.

    Args:
        x: Unit norm.
        threshold: Of the cosine, up to 1, which finds equal rows.
        approximate: Whether the 20 nearest of each are looked at, instead of all pairs.
        listener: Hears how it goes.

    Returns:
        Positions of each group of two or more, rising, in the order of their first ones.
    """
    heard = listener or Silent()
    limit = threshold - _ROUNDING
    of = np.arange(len(x))  # number of each row's group
    if approximate:
        k = min(_NEIGHBORS, len(x) - 1)
        similar, index = neighbors(x, k, approximate=True, listener=heard)
        rows, column = (similar >= limit).nonzero(as_tuple=True)
        of = _joined(of, rows.numpy(), index[rows, column].numpy())
    else:
        bank, pairs, held = ExactIndex(x).bank, [], 0
        step = knn.rows_at_once(len(x))
        for first in range(0, len(x), step):
            some = bank[first : first + step]
            for start in range(first, len(x), knn.BANK_TILE):
                close = some @ bank[start : start + knn.BANK_TILE].T >= limit
                i, j = (found.cpu() for found in close.nonzero(as_tuple=True))
                later = (j + start) > (i + first)  # each pair once
                pairs.append((i[later] + first, j[later] + start))
                held += int(later.sum())
            if held > _MAX_PAIRS or first + step >= len(x):
                i, j = (torch.cat(side).numpy() for side in zip(*pairs, strict=True))
                of, pairs, held = _joined(of, i, j), [], 0
            heard.progress("comparing", min(len(x), first + step), len(x))
    order = np.argsort(of, kind="stable")
    ends = np.flatnonzero(np.diff(of[order])) + 1
    return sorted(group.tolist() for group in np.split(order, ends) if len(group) > 1)


def _joined(of: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Numbers of the groups, when the groups of i and j are one."""
    size = len(of)
    graph = coo_array((np.ones(len(i), bool), (of[i], of[j])), shape=(size, size))
    return connected_components(graph, directed=False)[1][of]
