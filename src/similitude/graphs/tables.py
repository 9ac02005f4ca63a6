"""A graph in two tables: edges.csv with from and to, nodes.csv with id, features, label and split.

Letters: M nodes, D features, E edges.
"""

import math
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from similitude.data.classes import numbered_classes
from similitude.data.labels import LABEL_COLUMNS
from similitude.data.parts import PARTS
from similitude.data.tables import read_table
from similitude.errors import UserError
from similitude.graphs.labeled import LabeledGraph, tested, with_features

EDGES, NODES = "edges.csv", "nodes.csv"
_FROM = ("from", "source", "src")
_TO = ("to", "target", "dst")
_ID = ("id", "node", "node_id")
_SPLIT = ("split", "part")


def read_tables(edges_path: Path, nodes_path: Path) -> LabeledGraph:
    """The graph of a table of nodes and a table of edges between them.

    Every column of the nodes that is not id, label or split is a feature; without any, degrees
    stand for them. Of the edges, from and to are read.

    Raises:
        UserError: a column, a number or a node is missing or wrong; names file and line.
    """
    rows = read_table(nodes_path)
    header = _header(next(rows, (1, []))[1])
    identity = _column(nodes_path, header, _ID)
    label, split = (_found(header, names) for names in (LABEL_COLUMNS, _SPLIT))
    features = [i for i in range(len(header)) if i not in (identity, label, split)]
    position: dict[str, int] = {}
    classes: list[str | None] = []
    parts: dict[str, list[int]] = {}
    numbers = array("f")
    for line, row in rows:
        _check_length(nodes_path, line, row, header)
        name = row[identity].strip()
        if name in position:
            raise UserError(
                f"{nodes_path} line {line}: node {name!r} is there twice: give each node one row"
            )
        if split is not None and (word := row[split].strip().lower()):
            if word not in PARTS:
                raise UserError(
                    f"{nodes_path} line {line}: {row[split]!r} in column {header[split]!r} is no "
                    "part: write train, val or test, or nothing"
                )
            parts.setdefault(PARTS[word], []).append(len(position))
        position[name] = len(position)
        classes.append(None if label is None else row[label])
        numbers.extend(_number(nodes_path, line, row[i], header[i]) for i in features)
    if not position:
        raise UserError(f"{nodes_path} holds no node: give each node a row below the header")
    count = len(position)
    x = torch.from_numpy(np.array(numbers)).view(count, -1) if features else None
    edges, notes = _edges(edges_path, nodes_path, position)
    graph, of_degrees = with_features(x, edges, count, str(nodes_path))
    found, told = tested({part: torch.tensor(at) for part, at in parts.items()}, str(nodes_path))
    labels, class_names = numbered_classes(classes)
    return LabeledGraph(
        graph, None, labels, class_names, found, list(position), (*notes, *of_degrees, *told)
    )


def _edges(
    path: Path, nodes_path: Path, position: dict[str, int]
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Numbers of the nodes that each row connects, [2, E], and a sentence on other columns."""
    rows = read_table(path)
    header = _header(next(rows, (1, []))[1])
    ends = _column(path, header, _FROM), _column(path, header, _TO)
    pairs = array("q")
    for line, row in rows:
        _check_length(path, line, row, header)
        for end in ends:
            name = row[end].strip()
            if name not in position:
                raise UserError(
                    f"{path} line {line}: node {name!r} is not in {nodes_path}: add it there, or "
                    "leave the edge out"
                )
            pairs.append(position[name])
    others = [name for i, name in enumerate(header) if i not in ends]
    notes = (f"{path}: {', '.join(others)} is not read",) if others else ()
    return torch.from_numpy(np.array(pairs).reshape(-1, 2).T.copy()), notes


def _header(row: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]


def _found(header: list[str], names: Sequence[str]) -> int | None:
    return next((i for i, cell in enumerate(header) if cell in names), None)


def _column(path: Path, header: list[str], names: Sequence[str]) -> int:
    found = _found(header, names)
    if found is None:
        raise UserError(
            f"{path} line 1 has no column {names[0]} (there: {', '.join(header[:5]) or 'nothing'}"
            f"{', ...' if len(header) > 5 else ''}): give the columns names, one of them "
            f"{names[0]}"
        )
    return found


def _check_length(path: Path, line: int, row: list[str], header: list[str]) -> None:
    if len(row) != len(header):
        raise UserError(
            f"{path} line {line} has {len(row)} cells and the header {len(header)}: give each "
            "column one"
        )


def _number(path: Path, line: int, cell: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{path} line {line}: {cell!r} in column {column!r} is no finite number: features are "
            "numbers, so leave the column out or make numbers of it"
        )
    return number
