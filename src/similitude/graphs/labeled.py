"""A graph with what is known of its nodes, and how it comes from arrays.

Letters: M nodes, D features, E edges, K graphs, N samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from similitude.data.classes import numbered_classes
from similitude.errors import UserError
from similitude.graphs.graph import Graph

LARGEST_DEGREE = 63  # that has a column of its own; fixed, so that other graphs have the same ones
_READ = ("x", "edge_index", "y", "num_nodes", "train_mask", "val_mask", "test_mask")


@dataclass(frozen=True)
class LabeledGraph:
    """A graph, or many of them, as somebody gave it.

    Attributes:
        graph: Nodes and edges; of many graphs, all as one.
        sizes: Nodes of each of many graphs, which are then the samples, [K]; None: nodes are.
        labels: Class of each sample, [N], -1 where unknown; None without any.
        class_names: Name of each class, or None.
        parts: Samples to learn from and to test on, by "train" and "test", where it is said.
        names: Of the samples; None: their numbers.
        notes: Sentences on what is not read, or read in a way that people should know.
    """

    graph: Graph
    sizes: Int[Tensor, " K"] | None = None
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    parts: dict[str, Int[Tensor, " n"]] = field(default_factory=dict)
    names: list[str] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.graph if self.sizes is None else self.sizes)


def from_arrays(given: Mapping[str, Any], where: str) -> LabeledGraph:
    """The graph of arrays or tensors by the names that torch_geometric's ``Data`` has.

    Args:
        given: x [M, D], edge_index [2, E]; perhaps y [M], and train_mask, val_mask, test_mask [M].
        where: They are from, for sentences.

    Raises:
        UserError: They do not fit each other, or x is not finite.
    """
    x, edges, count = _nodes_and_edges(given, where)
    labels, names, notes = _classes(given.get("y"), count, f"{where}: y", "nodes")
    unread = [name for name in given if name not in _READ]
    if unread:
        notes += (f"{where}: {', '.join(unread)} is not read",)
    parts = {}
    for part in ("train", "val", "test"):
        if (mask := given.get(f"{part}_mask")) is None:
            continue
        mask = torch.as_tensor(mask).cpu().bool()
        if len(mask) != count:
            raise UserError(f"{where}: {part}_mask is of {len(mask)} nodes, and there are {count}")
        if mask.ndim == 2:
            notes += (
                f"{where}: {part}_mask has {mask.shape[1]} splits, of which the first is used",
            )
            mask = mask[:, 0]
        parts[part] = mask.nonzero()[:, 0]
    parts, told = tested(parts, where)
    graph, of_degrees = with_features(x, edges, count, where)
    return LabeledGraph(graph, None, labels, names, parts, notes=(*notes, *told, *of_degrees))


def from_many(given: Sequence[Mapping[str, Any]], where: str) -> LabeledGraph:
    """Many graphs, each as :func:`from_arrays` takes it, with one class in y.

    Raises:
        UserError: One of them is no graph, has no node, or has other features than the first.
    """
    features, edges, sizes, classes, start = [], [], [], [], 0
    for i, arrays in enumerate(given):
        x, pairs, count = _nodes_and_edges(arrays, f"graph {i} of {where}")
        if count == 0:
            raise UserError(f"graph {i} of {where} has no nodes: leave it out")
        columns = 0 if x is None else x.shape[1]
        if features and columns != features[0].shape[1]:
            raise UserError(
                f"graph {i} of {where} has {columns} features of a node, and graph 0 has "
                f"{features[0].shape[1]}: give all graphs the same features"
            )
        features.append(torch.zeros(count, 0) if x is None else x)
        edges.append(pairs + start)
        sizes.append(count)
        start += count
        if arrays.get("y") is not None:
            classes.append(torch.as_tensor(arrays["y"]).cpu().flatten())
    y = torch.cat(classes) if classes else None
    labels, names, notes = _classes(y, len(sizes), f"{where}: y", "graphs")
    if any(arrays.keys() - set(_READ) for arrays in given):
        unread = sorted({name for arrays in given for name in arrays} - set(_READ))
        notes += (f"{where}: {', '.join(unread)} is not read",)
    x = torch.cat(features)
    graph, of_degrees = with_features(
        x if x.shape[1] else None, torch.cat(edges, dim=1), len(x), where
    )
    return LabeledGraph(graph, torch.tensor(sizes), labels, names, notes=(*notes, *of_degrees))


def with_features(
    x: Tensor | None, edges: Int[Tensor, "2 E"], count: int, where: str
) -> tuple[Graph, tuple[str, ...]]:
    """The graph with every edge in both directions, and degrees in the place of no features.

    Args:
        x: Features of the nodes, [M, D], or None.
        edges: From and to, in one direction or in both.
        count: Nodes.
        where: They are from, for the sentence.

    Returns:
        The graph, and a sentence where there were no features.
    """
    edges = _in_both_directions(edges, count)
    if x is not None:
        return Graph(x, edges), ()
    degree = torch.bincount(edges[1], minlength=count).clamp_max(LARGEST_DEGREE)
    told = (
        f"{where} has no features of nodes: a column for each number of neighbors from 0 to "
        f"{LARGEST_DEGREE}, the last for more of them too, stands for them"
    )
    return Graph(F.one_hot(degree, LARGEST_DEGREE + 1).float(), edges), (told,)


def tested(parts: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The parts "train" and "test", where "val" stands for a test part that is not there."""
    val = parts.pop("val", None)
    if val is None or "test" in parts:
        return parts, ()
    return {**parts, "test": val}, (f"{where}: the validation part is used to test",)


def _nodes_and_edges(given: Mapping[str, Any], where: str) -> tuple[Tensor | None, Tensor, int]:
    """Features, if there are some, edges, and the number of nodes."""
    try:
        edges = torch.as_tensor(given["edge_index"]).cpu().long()
        x = None if given.get("x") is None else torch.as_tensor(given["x"]).cpu()
        if edges.ndim != 2 or len(edges) != 2 or (x is not None and x.ndim != 2):
            raise ValueError("x is not [M, D], or edge_index not [2, E]")
        largest = int(edges.max()) if edges.numel() else -1
        count = int(given.get("num_nodes") or largest + 1) if x is None else len(x)
        if largest >= count or (edges < 0).any():
            raise ValueError(f"edge_index names a node that is not among the {count}")
        if x is not None:
            x = (x if x.layout == torch.strided else x.to_dense()).float()
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{where} is no graph with x and edge_index: {error}") from error
    if x is not None and not bool(x.isfinite().all()):
        raise UserError(f"{where}: x has values that are no finite numbers: replace them")
    return x, edges, count


def _classes(
    y: Any, count: int, what: str, noun: str
) -> tuple[Tensor | None, list[str] | None, tuple[str, ...]]:
    """Class of each sample, names of the classes, and a sentence where y is something else."""
    if y is None:
        return None, None, ()
    y = torch.as_tensor(y).cpu()
    if y.numel() != count:
        told = f"{what} has shape {list(y.shape)} for {count} {noun}, and is not read"
        return None, None, (told,)
    if y.is_floating_point() and bool((y != y.round()).any()):
        return None, None, (f"{what} is no class numbers, and is not read",)
    labels, names = numbered_classes(str(number) for number in y.flatten().long().tolist())
    return labels, names, ()


def _in_both_directions(edges: Int[Tensor, "2 E"], count: int) -> Int[Tensor, "2 E2"]:
    """Every edge once in each direction, without loops, in order."""
    both = torch.cat([edges, edges.flip(0)], dim=1)
    both = both[:, both[0] != both[1]]
    number = torch.unique(both[0] * max(1, count) + both[1])
    return torch.stack([number // max(1, count), number % max(1, count)])
