"""Many small graphs, each of which is a sample.

Letters: K graphs of a data set, N of a batch, M nodes, E edges.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.graphs.graph import Graph, GraphInput, Hop


@dataclass(frozen=True, eq=False)
class ManyGraphs:
    """Small graphs one after the other.

    Attributes:
        graph: All of them as one, which no edge connects; edges in the order of the graphs.
        sizes: Nodes of each, [K]; at least 1.
    """

    graph: Graph
    sizes: Int[Tensor, " K"]

    @cached_property
    def of_nodes(self) -> Int[Tensor, " M"]:
        """The number of each node's graph."""
        return torch.arange(len(self.sizes)).repeat_interleave(self.sizes)

    @cached_property
    def edge_counts(self) -> Int[Tensor, " K"]:
        """Edges of each graph."""
        return torch.bincount(self.of_nodes[self.graph.edges[0]], minlength=len(self.sizes))

    @cached_property
    def starts(self) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
        """The number of each graph's first node, and of its first edge."""
        return _before(self.sizes), _before(self.edge_counts)

    def mean(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "K D"]:
        """The mean over the nodes of each graph."""
        total = x.new_zeros(len(self.sizes), x.shape[1]).index_add(0, self.of_nodes, x)
        return total / self.sizes[:, None]


class Gathered(NamedTuple):
    """Some graphs side by side.

    Attributes:
        graph: All of them as one.
        sizes: Nodes of each.
        edge_counts: Edges of each.
    """

    graph: Graph
    sizes: Int[Tensor, " N"]
    edge_counts: Int[Tensor, " N"]


@dataclass(frozen=True)
class FewGraphs:
    """Some of many graphs, the rows of a batch.

    Attributes:
        all: Of which they are, on the CPU.
        index: Their numbers, on the device where views are made.
    """

    all: ManyGraphs
    index: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "FewGraphs":
        """The same for a device, to which each batch goes when its views are drawn."""
        return FewGraphs(self.all, self.index.to(device))

    @cached_property
    def gathered(self) -> Gathered:
        """The graphs side by side, on the CPU."""
        every, index = self.all, self.index.cpu()
        first_node, first_edge = (start[index] for start in every.starts)
        sizes, counts = every.sizes[index], every.edge_counts[index]
        x = every.graph.x[ranges(first_node, sizes)]
        moved = (first_node - _before(sizes)).repeat_interleave(counts)
        edges = every.graph.edges[:, ranges(first_edge, counts)] - moved
        return Gathered(Graph(x, edges), sizes, counts)

    def plain(self) -> GraphInput:
        """The graphs as they are."""
        graph, sizes, _ = self.gathered
        hop = Hop.whole(graph.edges, len(graph))
        index = torch.arange(len(self))
        return GraphInput(graph.x, (hop,), index, sizes).to(self.index.device)


def ranges(start: Int[Tensor, " N"], count: Int[Tensor, " N"]) -> Int[Tensor, " total"]:
    """The numbers from each start on, as many as it has, one range after the other."""
    return torch.arange(int(count.sum())) + (start - _before(count)).repeat_interleave(count)


def _before(count: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """How many come before each."""
    return count.cumsum(0) - count
