"""The nearest rows of rows: exact in tiles, or approximate by a graph.

N rows, Q queries, D numbers of an embedding, K neighbors.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.devices import best_device
from similitude.errors import UserError
from similitude.evaluation.knn import nearest_rows
from similitude.listener import Listener, Silent

Found = tuple[Float[Tensor, "Q K"], Int[Tensor, "Q K"]]  # cosines, falling, and positions

_ROWS = 2**14  # at once
CONNECTIVITY = 32  # links of a node of the graph
EXPANSION = 128  # candidates that are kept, while it is built and while it is searched


class ExactIndex:
    """Compares all with all, in tiles; on a GPU where there is one.

    Beside the rows themselves it holds 2^24 cosines, 64 MB.

    Args:
        x: Unit norm.
    """

    def __init__(self, x: Float[Tensor, "N D"]) -> None:
        self.bank = x.to(best_device())

    def search(self, queries: Float[Tensor, "Q D"], k: int, listener: Listener) -> Found:
        """Cosines and positions of the K nearest rows of each query, nearest first.

        Among equally near rows the first are taken.

        Args:
            queries: Unit norm.
            k: K, or N where that is less.
            listener: Hears how it goes.
        """
        cosines, positions, done = [], [], 0
        for similar, index in nearest_rows(queries.to(self.bank.device), self.bank, k):
            order = similar.argsort(dim=1, descending=True, stable=True)
            cosines.append(similar.gather(1, order).cpu())
            positions.append(index.gather(1, order).cpu())
            done += len(similar)
            listener.progress("searching", done, len(queries))
        return torch.cat(cosines), torch.cat(positions)


class ApproximateIndex:
    """A navigable graph of small worlds (HNSW, Malkov and Yashunin 2016), of usearch.

    Built once in about N log N; a query then takes a part of a millisecond. It holds the rows a
    second time, and 2 * 32 links of each. Built by several threads, so that another run may find
    others.

    Args:
        x: Unit norm.
        listener: Hears how it goes.

    Raises:
        UserError: usearch is missing.
    """

    def __init__(self, x: Float[Tensor, "N D"], listener: Listener | None = None) -> None:
        check_approximate()
        from usearch.index import Index as Graph  # pyright: ignore[reportMissingImports]

        heard = listener or Silent()
        self.graph: Any = Graph(
            ndim=x.shape[1],
            metric="ip",  # of unit rows the cosine
            dtype="f32",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION,
            expansion_search=EXPANSION,
        )
        for first in range(0, len(x), _ROWS):
            some = x[first : first + _ROWS].numpy()
            self.graph.add(np.arange(first, first + len(some), dtype=np.uint64), some)
            heard.progress("building the index", first + len(some), len(x))

    def search(self, queries: Float[Tensor, "Q D"], k: int, listener: Listener) -> Found:
        """See :meth:`ExactIndex.search`; of the nearest nearly all are found."""
        k = min(k, len(self.graph))
        cosines = torch.empty(len(queries), k)
        positions = torch.empty(len(queries), k, dtype=torch.int64)
        for first in range(0, len(queries), _ROWS):
            some = queries[first : first + _ROWS].numpy()
            found = self.graph.search(some, k)
            rows = slice(first, first + len(some))
            cosines[rows] = torch.from_numpy(1 - found.distances.reshape(len(some), k))
            positions[rows] = torch.from_numpy(found.keys.reshape(len(some), k).astype(np.int64))
            listener.progress("searching", first + len(some), len(queries))
        return cosines, positions


Index = ExactIndex | ApproximateIndex


def check_approximate() -> None:
    """Refuse an approximate search where usearch is missing.

    Raises:
        UserError: it is.
    """
    try:
        import usearch  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "an approximate search needs usearch (pip install 'similitude[search]'); without "
            "--approximate it is exact, and needs nothing more"
        ) from error


def build_index(
    x: Float[Tensor, "N D"], *, approximate: bool = False, listener: Listener | None = None
) -> Index:
    """An index of rows of unit norm."""
    return ApproximateIndex(x, listener) if approximate else ExactIndex(x)


def neighbors(
    x: Float[Tensor, "N D"], k: int, *, approximate: bool = False, listener: Listener | None = None
) -> Found:
    """Cosines and positions of the K nearest other rows of every row, nearest first.

    Args:
        x: Unit norm.
        k: K, less than N.
        approximate: Whether a graph is searched, instead of all pairs.
        listener: Hears how it goes.
    """
    heard = listener or Silent()
    index = build_index(x, approximate=approximate, listener=heard)
    return without_themselves(torch.arange(len(x)), *index.search(x, k + 1, heard))


def without_themselves(
    rows: Int[Tensor, " Q"], similar: Float[Tensor, "Q L"], found: Int[Tensor, "Q L"]
) -> Found:
    """One neighbor less of each: the row itself where it is among them, else the last.

    Args:
        rows: Positions of the queries among the rows that were searched.
        similar: Cosines, falling.
        found: Positions.
    """
    own = found == rows[:, None]
    own[:, -1] |= ~own.any(dim=1)  # a row with as many equal ones may not be among them
    return similar[~own].view(len(rows), -1), found[~own].view(len(rows), -1)


def outlier_distance(
    x: Float[Tensor, "N D"], k: int, *, approximate: bool = False, listener: Listener | None = None
) -> Float[Tensor, " N"]:
    """The distance of every row to its k-th nearest other row, 0..2: large for outliers.

    Ramaswamy et al. 2000 (Definition 2.1), on unit rows as Sun et al. 2022 ("Out-of-distribution
    detection with deep nearest neighbors", Section 3) take them: sqrt(2 - 2 cosine).

    Args:
        x: Unit norm.
        k: Less than N.
        approximate: See :func:`neighbors`.
        listener: Hears how it goes.
    """
    similar, _ = neighbors(x, k, approximate=approximate, listener=listener)
    return (2 - 2 * similar[:, -1]).clamp_min(0).sqrt()


def unit_rows(
    x: Float[np.ndarray, "N D"], out: Float[np.ndarray, "N D"] | None = None
) -> Float[Tensor, "N D"]:
    """Rows of unit norm, some at a time; a row of zeros stays one.

    Args:
        x: May be mapped from a file.
        out: Where they are written; in the place of ``x`` if nothing is given.
    """
    out = x if out is None else out
    for first in range(0, len(x), _ROWS):
        rows = slice(first, first + _ROWS)
        out[rows] = torch.nn.functional.normalize(torch.from_numpy(x[rows]), dim=1).numpy()
    return torch.from_numpy(out)
