"""Graphs as one of the kinds of data: nodes of a large one are the samples, or many small ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from similitude.data.source import Source, numbered
from similitude.errors import UserError
from similitude.graphs import opening
from similitude.graphs.graph import Graph, GraphInput, Nodes
from similitude.graphs.labeled import LabeledGraph
from similitude.graphs.many import FewGraphs, ManyGraphs
from similitude.graphs.networks import GraphNetworkConfig
from similitude.graphs.sets import GraphSet, NodeSet
from similitude.graphs.views import GraphFacts, GraphViewConfig
from similitude.modalities import Modality
from similitude.sample import DataConfig, ViewConfig

Count = Annotated[int, Field(ge=1)]


class GraphData(DataConfig):
    """What a recipe decides of graphs.

    Attributes:
        num_features: Of a node; set from the data.
        degree: Neighbors of a node on average; set from the data, for estimates of time.
        nodes_per_graph: On average, where graphs are the samples; None where nodes of one graph
            are. Set from the data.
        neighbors: How many neighbors of a node a step samples: of the nodes of the batch, of those
            sampled for them, and so on, a number for each layer of the network. None: every step
            sees the whole graph.
    """

    kind: Literal["graph"] = "graph"
    num_features: Count = 1
    degree: Count = 1
    nodes_per_graph: Count | None = None
    neighbors: Annotated[tuple[Count, ...], Field(min_length=2)] | None = None

    fewest_steps: ClassVar[int] = 100  # each sees many nodes

    def facts(self, views: Collection[ViewConfig]) -> GraphFacts:
        """How many features a node has, and what a sample is."""
        return GraphFacts(self.num_features, self.nodes_per_graph, self.neighbors)

    def noise(self, number: int) -> Nodes | FewGraphs:
        """Nodes or graphs with random features, and as many edges; trees of sampled neighbors."""
        if self.nodes_per_graph is not None:
            sizes = torch.full((number,), self.nodes_per_graph)
            graph = Graph(torch.rand(int(sizes.sum()), self.num_features), self._rings(sizes))
            return FewGraphs(ManyGraphs(graph, sizes), torch.arange(number))
        if self.neighbors is None:
            edges = self._rings(torch.tensor([number]))
            return Nodes(Graph(torch.rand(number, self.num_features), edges), torch.arange(number))
        total, level, parents = number, number, []
        for count in self.neighbors:
            first = total - level
            parents.append(torch.arange(first, total).repeat_interleave(count))
            level *= count
            total += level
        edges = torch.stack([torch.arange(number, total), torch.cat(parents)])
        return Nodes(Graph(torch.rand(total, self.num_features), edges), torch.arange(number))

    def view_cost(self, views: Sequence[GraphInput]) -> float:
        """A tenth of a pixel's for each number that is gathered and masked."""
        return sum(view.x.numel() / len(view) for view in views) / 10

    def _rings(self, sizes: Int[Tensor, " K"]) -> Int[Tensor, "2 E"]:
        """From every node to the next ones of its graph."""
        rings = torch.arange(int(sizes.sum())).split(sizes.tolist())
        ends = [torch.cat([ring.roll(-k) for ring in rings]) for k in range(1, self.degree + 1)]
        return torch.stack([torch.cat(rings).repeat(self.degree), torch.cat(ends)])


@dataclass(frozen=True, kw_only=True)
class GraphSource(Source):
    """Nodes of a graph, or some of many graphs.

    Attributes:
        graph: The whole, or all of many as one.
        sizes: Nodes of each of many graphs; None: nodes are meant.
        index: Numbers of those that are meant.
    """

    graph: Graph
    sizes: Int[Tensor, " K"] | None
    index: Int[Tensor, " N"]

    @property
    def noun(self) -> str:
        """Nodes or graphs."""
        return "nodes" if self.sizes is None else "graphs"

    def fingerprint(self) -> str:
        """That of the graph."""
        return self.graph.fingerprint()


class Graphs(Modality):
    """One graph, whose nodes are the samples, or many graphs, which are."""

    kind = "graph"
    noun = "nodes"
    data_config = GraphData
    network_config = GraphNetworkConfig
    view_configs: ClassVar[Mapping[str, type]] = {"graph": GraphViewConfig}

    def claims(self, data: Any) -> bool:
        """Files and objects of graphs: see :mod:`similitude.graphs.opening`."""
        return opening.claims(data)

    def open_training(
        self, data: Any, config: GraphData | None, *, resumed: bool = False
    ) -> GraphSource:
        """All of them: labels play no part."""
        return _source(opening.read(data), data, None)

    def open_part(self, data: Any, split: str | None, config: GraphData) -> GraphSource:
        """A part, or all."""
        found = _read(data, config)
        if split is not None and split not in found.parts:
            raise UserError(f"{_name(data, found)} does not say what of it is for {split}")
        return _source(found, data, split)

    def open_parts(self, data: Any, config: GraphData | None) -> list[GraphSource]:
        """Those to learn from and those to test on, or all where nothing is said of them."""
        found = _read(data, config)
        parts = ["train", "test"] if {"train", "test"} <= found.parts.keys() else [None]
        return [_source(found, data, part) for part in parts]

    def open_all(self, data: Any, config: GraphData | None) -> list[GraphSource]:
        """All, also those that are of no part."""
        return [_source(_read(data, config), data, None)]

    def load(
        self,
        source: GraphSource,
        config: GraphData,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NodeSet | GraphSet:
        """The nodes or graphs, which are in memory already."""
        known = (source.index, list(source.names), source.labels, source.class_names)
        if source.sizes is None:
            return NodeSet(source.graph, *known)
        return GraphSet(ManyGraphs(source.graph, source.sizes), *known)


def _read(data: Any, config: GraphData | None) -> LabeledGraph:
    """The graphs, which fit a run.

    Raises:
        UserError: they have other features, or are many where the run is of one.
    """
    found = opening.read(data)
    if config is None:
        return found
    name = _name(data, found)
    if (found.sizes is None) != (config.nodes_per_graph is None):
        ours, theirs = ("many graphs", "one") if found.sizes is not None else ("one graph", "many")
        raise UserError(f"{name} is {ours}, and the run was trained on {theirs}")
    if found.graph.x.shape[1] != config.num_features:
        raise UserError(
            f"{name} has {found.graph.x.shape[1]} features of a node, and the run was "
            f"trained on {config.num_features}: give nodes the same features"
        )
    return found


def _name(data: Any, found: LabeledGraph) -> str:
    if isinstance(data, str | Path):
        return str(data)
    return "the graph" if found.sizes is None else "the graphs"


def _source(found: LabeledGraph, data: Any, part: str | None) -> GraphSource:
    index = torch.arange(len(found)) if part is None else found.parts[part]
    every, name = found.names or numbered(len(found)), _name(data, found)
    return GraphSource(
        name=name if part is None else f"{name} {part}",
        names=[every[i] for i in index.tolist()],
        labels=None if found.labels is None else found.labels[index],
        class_names=found.class_names,
        notes=found.notes,
        graph=found.graph,
        sizes=found.sizes,
        index=index,
    )


MODALITY = Graphs()
