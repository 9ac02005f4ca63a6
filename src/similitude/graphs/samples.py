"""The nodes of a graph as one of the kinds of data.

Letters: N nodes, M nodes of the whole graph, D features.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from similitude.data.openers import is_path
from similitude.data.source import Source, numbered
from similitude.errors import UserError
from similitude.files.reading import array_names
from similitude.files.writing import as_path
from similitude.graphs.files import (
    LabeledGraph,
    from_arrays,
    planetoid_name,
    read_npz,
    read_planetoid,
)
from similitude.graphs.graph import Graph, GraphInput, Nodes, propagated
from similitude.graphs.networks import GCNConfig
from similitude.graphs.views import GraphFacts, GraphViewConfig
from similitude.modalities import Modality
from similitude.sample import DataConfig, MultiView, Samples, ViewConfig

PROPAGATED = (1, 2)  # steps, of the baselines


class GraphData(DataConfig):
    """What a recipe decides of a graph."""

    kind: Literal["graph"] = "graph"
    num_features: int = 1  # of a node; set from the data

    fewest_steps: ClassVar[int] = 100  # each sees the whole graph

    def facts(self, views: Collection[ViewConfig]) -> GraphFacts:
        """How many features a node has."""
        return GraphFacts(self.num_features)

    def noise(self, number: int) -> Nodes:
        """A ring of nodes with random features."""
        nodes = torch.arange(number)
        edges = torch.stack([nodes, nodes.roll(1)])
        return Nodes(Graph(torch.rand(number, self.num_features), edges), nodes)


@dataclass(frozen=True)
class GraphSamples(Samples[Nodes]):
    """Some nodes of a graph, all of whose other nodes stay around them."""

    graph: Graph
    nodes: Int[Tensor, " N"]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None

    noun: ClassVar[str] = "nodes"
    raw_name: ClassVar[str] = "raw features"

    def take(self, index: Int[Tensor, " M"] | slice) -> Nodes:
        """The nodes at these positions."""
        return Nodes(self.graph, self.nodes[index])

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "GraphSamples":
        """The nodes at these positions, in that order."""
        rows = torch.arange(len(self))[
            index if isinstance(index, slice) else torch.as_tensor(index)
        ]
        return replace(
            self,
            nodes=self.nodes[rows],
            names=[self.names[i] for i in rows.tolist()],
            labels=None if self.labels is None else self.labels[rows],
        )

    def clean(self, rows: Nodes, facts: GraphFacts) -> GraphInput:
        """The whole graph as it is."""
        return GraphInput(rows.graph.x, rows.graph.edges, rows.index)

    def raw(self, beside: Sequence["GraphSamples"] = ()) -> Float[Tensor, "N D"]:
        """The features of the nodes."""
        return self.graph.x[self.nodes]

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """Features averaged over the neighbors, in one step and in two: nothing is learned."""
        return {
            f"{k} step{'' if k == 1 else 's'} of propagation": propagated(self.graph, k)[self.nodes]
            for k in PROPAGATED
        }

    def sheet(self, views: MultiView, facts: GraphFacts, *, seed: int) -> Image.Image:
        """Some nodes, a row each: their features, then those of each view, as squares."""
        some = self.spread(8)
        rows = some.take(slice(None))
        made = views(rows, torch.arange(len(some)), seed=seed, epoch=0)
        columns = [rows.graph.x[rows.index], *(view.x[view.index] for view in made)]
        tiles = [_squares(x, 64) for x in columns]
        picture = np.concatenate([np.concatenate(list(tile), axis=0) for tile in tiles], axis=1)
        return Image.fromarray(picture)

    def copies(self) -> float:
        """The share of the nodes whose features are those of another one, 0..1."""
        kinds = len(torch.unique(self.graph.x[self.nodes], dim=0))
        return 1 - kinds / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The features of each node as a square, row by row."""
        return _squares(self.graph.x[self.nodes], side)

    def fingerprint(self) -> str:
        """The graph and the nodes in a few characters."""
        return f"{super().fingerprint()}-{self.graph.fingerprint()}"


def _squares(x: Float[Tensor, "N D"], side: int) -> UInt8[np.ndarray, "N s s 3"]:
    width = math.ceil(x.shape[1] ** 0.5)
    padded = torch.zeros(len(x), width * width)
    padded[:, : x.shape[1]] = (x - x.min()) / (x.max() - x.min()).clamp_min(1e-12)
    square = padded.view(-1, 1, width, width)
    shown = torch.nn.functional.interpolate(square, (side, side), mode="area")
    pixels = (255 * (1 - shown.clamp(0, 1) ** 0.5)).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous().numpy()


@dataclass(frozen=True, kw_only=True)
class GraphSource(Source):
    """Nodes of a graph.

    Attributes:
        graph: The whole.
        nodes: Those that are meant.
    """

    graph: Graph
    nodes: Int[Tensor, " N"]

    def fingerprint(self) -> str:
        """That of the graph."""
        return self.graph.fingerprint()


class Graphs(Modality):
    """One graph, whose nodes are the samples."""

    kind = "graph"
    noun = "nodes"
    data_config = GraphData
    network_config = GCNConfig
    view_configs: ClassVar[Mapping[str, type]] = {"graph": GraphViewConfig}

    def claims(self, data: Any) -> bool:
        """Planetoid's files, an .npz file with edges, an object with x and edge_index."""
        if not isinstance(data, str | Path):
            return hasattr(data, "edge_index") and hasattr(data, "x")
        if not is_path(data):
            return False
        path = as_path(data)
        if path.suffix.lower() == ".npz" and path.is_file():
            return "edge_index" in array_names(path)
        return planetoid_name(path) is not None

    def open_training(
        self, data: Any, config: GraphData | None, *, resumed: bool = False
    ) -> GraphSource:
        """All nodes: labels play no part."""
        return _source(_read(data), data, None)

    def open_part(self, data: Any, split: str | None, config: GraphData) -> GraphSource:
        """The nodes of a part, or all."""
        found = _read(data)
        if split is not None and split not in found.parts:
            raise UserError(f"{data} says of no node that it is for {split}")
        return _source(found, data, split)

    def open_parts(self, data: Any, config: GraphData | None) -> list[GraphSource]:
        """The nodes to learn from and those to test on, or all where nothing is said of them."""
        found = _read(data)
        parts = ["train", "test"] if {"train", "test"} <= found.parts.keys() else [None]
        return [_source(found, data, part) for part in parts]

    def load(
        self,
        source: GraphSource,
        config: GraphData,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> GraphSamples:
        """The nodes, which are in memory already."""
        return GraphSamples(
            source.graph, source.nodes, source.names, source.labels, source.class_names
        )


def _read(data: Any) -> LabeledGraph:
    if not isinstance(data, str | Path):
        named = {name: getattr(data, name, None) for name in ("x", "edge_index", "y")}
        named |= {f"{part}_mask": getattr(data, f"{part}_mask", None) for part in ("train", "test")}
        known = {name: value for name, value in named.items() if value is not None}
        return from_arrays(known, "the graph")
    path = as_path(data)
    name = planetoid_name(path)
    return read_npz(path) if name is None else read_planetoid(path, name)


def _source(found: LabeledGraph, data: Any, part: str | None) -> GraphSource:
    count = len(found.graph.x)
    nodes = torch.arange(count) if part is None else found.parts[part]
    labels = None if found.labels is None else found.labels[nodes]
    classes = None if found.labels is None else int(found.labels.max()) + 1
    every, name = numbered(count), str(data) if isinstance(data, str | Path) else "the graph"
    return GraphSource(
        name=name if part is None else f"{name} {part}",
        names=[every[i] for i in nodes.tolist()],
        labels=labels,
        class_names=None if classes is None else [str(i) for i in range(classes)],
        graph=found.graph,
        nodes=nodes,
    )


MODALITY = Graphs()
