"""Find the graphs that a user names: a table of forms, the first of which that claims them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from similitude.data.openers import is_path
from similitude.errors import UserError
from similitude.files.reading import array_names
from similitude.files.writing import as_path
from similitude.graphs.files import planetoid_name, read_npz, read_planetoid
from similitude.graphs.labeled import LabeledGraph, from_arrays, from_many
from similitude.graphs.tables import EDGES, NODES, read_tables
from similitude.graphs.tu import read_tu, tu_name

# what torch_geometric's Data may have
_FIELDS = ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask")
_FIELDS += ("edge_attr", "edge_weight")  # which are told of, and not read


class Form(NamedTuple):
    """One way in which graphs are given.

    Attributes:
        claims: Whether what a user gave has this form.
        read: The graph, or the many graphs.
    """

    claims: Callable[[Any], bool]
    read: Callable[[Any], LabeledGraph]


def claims(data: Any) -> bool:
    """Whether data is graphs."""
    return any(form.claims(data) for form in FORMS)


def read(data: Any) -> LabeledGraph:
    """The graph, or the many graphs.

    Raises:
        UserError: it is none, or is damaged.
    """
    for form in FORMS:
        if form.claims(data):
            return form.read(data)
    raise UserError(
        f"{data} is no graph: give a folder of Planetoid's or TUDataset's files, a folder with "
        f"{EDGES} and {NODES}, an .npz file with x and edge_index, or an object of torch_geometric"
    )


def _is_object(data: Any) -> bool:
    return hasattr(data, "edge_index")


def _is_sequence(data: Any) -> bool:
    """Whether it is a data set of such objects."""
    if isinstance(data, str | Path | Tensor | np.ndarray | Mapping):
        return False
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return False
    try:
        return len(data) > 0 and _is_object(data[0])
    except Exception:  # a data set of something else, whose first item cannot be had
        return False


def _read_object(data: Any) -> LabeledGraph:
    return from_arrays(_fields(data), "the graph")


def _read_sequence(data: Any) -> LabeledGraph:
    if len(data) == 1:  # as Planetoid's of torch_geometric
        return _read_object(data[0])
    return from_many([_fields(data[i]) for i in range(len(data))], "the data set")


def _fields(data: Any) -> dict[str, Any]:
    found = {name: getattr(data, name, None) for name in _FIELDS}
    if found["x"] is None:
        found["num_nodes"] = getattr(data, "num_nodes", None)
    return {name: value for name, value in found.items() if value is not None}


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and all(map(is_path, data))


def _is_npz(data: Any) -> bool:
    if not is_path(data):
        return False
    path = as_path(data)
    return path.suffix.lower() == ".npz" and path.is_file() and "edge_index" in array_names(path)


def _in_folder(name_in: Callable[[Path], str | None]) -> Callable[[Any], bool]:
    return lambda data: is_path(data) and name_in(as_path(data)) is not None


def _has_tables(folder: Path) -> str | None:
    return EDGES if (folder / EDGES).is_file() else None


FORMS = (
    Form(_is_pair, lambda data: read_tables(*map(as_path, data))),
    Form(_is_sequence, _read_sequence),
    Form(_is_object, _read_object),  # data sets have such attributes too, of all their graphs
    Form(_is_npz, lambda data: read_npz(as_path(data))),
    Form(
        _in_folder(planetoid_name),
        lambda data: read_planetoid(as_path(data), planetoid_name(as_path(data)) or ""),
    ),
    Form(
        _in_folder(_has_tables),
        lambda data: read_tables(as_path(data) / EDGES, as_path(data) / NODES),
    ),
    Form(_in_folder(tu_name), lambda data: read_tu(as_path(data), tu_name(as_path(data)) or "")),
)
