"""Many small graphs in the text files of TUDataset (Morris et al. 2020).

NAME_A.txt has the two nodes of each edge, NAME_graph_indicator.txt the graph of each node,
NAME_graph_labels.txt the class of each graph; NAME_node_labels.txt and NAME_node_attributes.txt,
where they are there, what is known of each node. Everything is numbered from 1.

Letters: M nodes, E edges, K graphs.
"""

import math
from array import array
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from similitude.data.classes import numbered_classes
from similitude.data.tables import read_table
from similitude.errors import UserError
from similitude.graphs.labeled import LabeledGraph, with_features

_UNREAD = ("edge_labels", "edge_attributes", "graph_attributes")


def tu_name(folder: Path) -> str | None:
    """The NAME of files NAME_A.txt and so on in a folder; None where there are none."""
    if not folder.is_dir():
        return None
    names = [path.name.removesuffix("_A.txt") for path in sorted(folder.glob("*_A.txt"))]
    return next((n for n in names if (folder / f"{n}_graph_indicator.txt").is_file()), None)


def read_tu(folder: Path, name: str) -> LabeledGraph:
    """The graphs of a folder.

    Node labels become a column for each, beside the attributes; without either, degrees stand for
    them.

    Raises:
        UserError: a number or a file is missing or wrong; names file and line.
    """

    def file(what: str) -> Path:
        return folder / f"{name}_{what}.txt"

    graph_of = _numbers(file("graph_indicator"))[:, 0].long()
    graphs, graph_of = torch.unique(graph_of, return_inverse=True)
    count = len(graph_of)
    order = graph_of.argsort(stable=True)  # files have them in order already
    place = torch.empty_like(order)
    place[order] = torch.arange(count)
    pairs = _numbers(file("A"), columns=2).long() - 1
    if (wrong := ((pairs < 0) | (pairs >= count)).any(dim=1).nonzero()).numel():
        line = int(wrong[0]) + 1
        raise UserError(
            f"{file('A')} line {line}: {int(pairs[line - 1].max()) + 1} is no node: there are "
            f"{count:,}, numbered from 1, in {file('graph_indicator')}"
        )
    if (wrong := (graph_of[pairs[:, 0]] != graph_of[pairs[:, 1]]).nonzero()).numel():
        raise UserError(
            f"{file('A')} line {int(wrong[0]) + 1}: the edge is between two graphs: look at "
            f"{file('graph_indicator')}"
        )
    features = []
    if file("node_attributes").is_file():
        features.append(_of_nodes(file("node_attributes"), count)[order])
    if file("node_labels").is_file():
        for column in _of_nodes(file("node_labels"), count)[order].T:
            _, kind = torch.unique(column, return_inverse=True)
            features.append(F.one_hot(kind).float())
    labels, class_names = None, None
    if file("graph_labels").is_file():
        lines = [row[0] for _, row in read_table(file("graph_labels"))]
        if len(lines) != len(graphs):
            raise UserError(
                f"{file('graph_labels')} has {len(lines)} classes, and "
                f"{file('graph_indicator')} {len(graphs)} graphs: give each graph one line"
            )
        labels, class_names = _classes(lines)
    x = torch.cat(features, dim=1).float() if features else None
    graph, told = with_features(x, place[pairs.T], count, str(folder))
    unread = [file(what).name for what in _UNREAD if file(what).is_file()]
    notes = (*told, *([f"{folder}: {', '.join(unread)} is not read"] if unread else []))
    sizes = torch.bincount(graph_of)
    return LabeledGraph(graph, sizes, labels, class_names, notes=notes)


def _classes(lines: list[str]) -> tuple[Tensor | None, list[str] | None]:
    """As :func:`numbered_classes`, but -1 is a class: many of these sets have 1 and -1."""
    if not {line.strip() for line in lines} <= {"1", "-1"}:
        return numbered_classes(lines)
    numbers = torch.tensor([int(line) for line in lines])
    return (numbers > 0).long(), ["-1", "1"]


def _of_nodes(path: Path, count: int) -> Tensor:
    found = _numbers(path)
    if len(found) != count:
        raise UserError(
            f"{path} has {len(found):,} lines for {count:,} nodes: give each node one line"
        )
    return found


def _numbers(path: Path, columns: int | None = None) -> Tensor:
    """The numbers of a file, a row for each line, [lines, columns]."""
    found, width = array("d"), columns
    for line, row in read_table(path):
        width = width or len(row)
        if len(row) != width:
            raise UserError(
                f"{path} line {line} has {len(row)} numbers, and {width} are needed: look whether "
                "the file is whole"
            )
        try:
            numbers = [float(cell) for cell in row]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise UserError(
                f"{path} line {line}: {', '.join(row)!r} is no finite number: look whether the "
                "file is whole"
            )
        found.extend(numbers)
    if not found:
        raise UserError(f"{path} is empty: look whether the file is whole")
    return torch.from_numpy(np.array(found).reshape(-1, width or 1))
