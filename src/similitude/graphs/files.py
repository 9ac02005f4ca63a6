"""Graphs in files: Planetoid's, which are pickled, and .npz. Nothing in a file is run.

Letters: M nodes, D features, E edges, C classes.
"""

import importlib
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from similitude.data.classes import numbered_classes
from similitude.errors import UserError
from similitude.files.reading import read_arrays
from similitude.graphs.labeled import LabeledGraph, from_arrays, with_features

_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph")


def planetoid_name(folder: Path) -> str | None:
    """The NAME of files ind.NAME.x and so on in a folder; None where there are none."""
    if not folder.is_dir():
        return None
    found = [path.name.split(".")[1] for path in sorted(folder.glob("ind.*.graph"))]
    return found[0] if found else None


def read_planetoid(folder: Path, name: str) -> LabeledGraph:
    """The graph of Planetoid's files (Yang et al. 2016), with its public split.

    Raises:
        UserError: a file is missing, damaged, or holds something else.
    """
    try:
        x, tx, allx, y, ty, ally, neighbors = (
            _unpickled(folder / f"ind.{name}.{part}") for part in _PARTS
        )
        lines = (folder / f"ind.{name}.test.index").read_text().split()
        tested = np.array(lines, dtype=np.int64)
        first, last = int(tested.min()), int(tested.max())
        count = max(last + 1, len(allx) + len(tx))
        features = np.zeros((count, allx.shape[1]), np.float32)
        classes = np.full(count, -1, np.int64)
        features[: len(allx)], classes[: len(allx)] = allx, _numbers(ally)
        features[tested], classes[tested] = tx, _numbers(ty)
        pairs = np.array([(a, b) for a, beside in neighbors.items() for b in beside])
        edges = torch.from_numpy(pairs.T.astype(np.int64))
        if first < len(x) or int(edges.max()) >= count or len(y) != len(x):
            raise ValueError("parts that do not fit each other")
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes of itself
        raise UserError(
            f"{folder} holds no whole graph of Planetoid ({type(error).__name__}: {error}): it "
            f"needs ind.{name}.{{{','.join(_PARTS)},test.index}}"
        ) from error
    parts = {"train": torch.arange(len(x)), "test": torch.from_numpy(np.sort(tested))}
    graph, _ = with_features(torch.from_numpy(features), edges, count, str(folder))
    labels, names = numbered_classes(str(number) for number in classes.tolist())
    return LabeledGraph(graph, None, labels, names, parts)


def read_npz(path: Path) -> LabeledGraph:
    """The graph of an .npz file, with the arrays that :func:`from_arrays` takes.

    Raises:
        UserError: it is damaged, or its arrays do not fit each other.
    """
    return from_arrays(read_arrays(path), str(path))


def _numbers(one_hot: np.ndarray) -> np.ndarray:
    return np.where(one_hot.sum(1) > 0, one_hot.argmax(1), -1)


class _Matrix:
    """What a pickled sparse matrix by rows becomes: its arrays, and nothing that runs."""

    def dense(self) -> np.ndarray:
        """As an array of floats."""
        rows, columns = self.__dict__["_shape"]
        out = np.zeros((rows, columns), np.float32)
        starts = np.asarray(self.__dict__["indptr"])
        row = np.repeat(np.arange(rows), np.diff(starts))
        out[row, self.__dict__["indices"]] = self.__dict__["data"]
        return out


class _Unpickler(pickle.Unpickler):
    """Makes arrays, matrices, lists and numbers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "csr_matrix" and module.startswith("scipy.sparse"):
            return _Matrix
        if (module, name) == ("collections", "defaultdict"):
            return defaultdict
        if (module, name) in (("__builtin__", "list"), ("builtins", "list")):
            return list
        if (module, name) == ("copy_reg", "_reconstructor"):
            return _plain_object
        if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
            return object
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in (
            "_reconstruct",
            "scalar",
        ):
            return getattr(importlib.import_module("numpy._core.multiarray"), name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it would make a {module}.{name}")


def _plain_object(kind: type, base: type, state: Any) -> Any:
    if kind is not _Matrix:
        raise pickle.UnpicklingError(f"it would make a {kind.__name__}")
    return _Matrix()


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        found = _Unpickler(file, encoding="latin1").load()
    return found.dense() if isinstance(found, _Matrix) else found
