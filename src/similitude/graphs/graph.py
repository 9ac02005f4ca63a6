"""A graph, some of its nodes as rows, and what a network is given of them.

Letters: M nodes, D features, E edges (each direction is one), N nodes of a batch.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """Nodes and edges.

    Attributes:
        x: Features of the nodes, [M, D].
        edges: From and to, [2, E]; an edge without a direction is there twice.
    """

    x: Float[Tensor, "M D"]
    edges: Int[Tensor, "2 E"]

    def to(self, device: torch.device) -> "Graph":
        """The same on a device."""
        return Graph(self.x.to(device), self.edges.to(device))

    def fingerprint(self) -> str:
        """Nodes, features and edges in a few characters."""
        found = 0
        for tensor in (self.x, self.edges):
            found = zlib.crc32(tensor.contiguous().numpy().tobytes(), found)
        return f"{len(self.x)}-{self.edges.shape[1]}-{found:08x}"


@dataclass(frozen=True)
class Nodes:
    """Some nodes of a graph, the rows of a batch; what they are depends on the whole graph."""

    graph: Graph
    index: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Nodes":
        """The same on a device."""
        return Nodes(self.graph.to(device), self.index.to(device))


@dataclass(frozen=True)
class GraphInput:
    """A graph as a network takes it, of which it gives the features of some nodes."""

    x: Float[Tensor, "M D"]
    edges: Int[Tensor, "2 E"]
    index: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.x.device

    def to(self, device: torch.device) -> "GraphInput":
        """The same on a device."""
        return GraphInput(self.x.to(device), self.edges.to(device), self.index.to(device))

    def clone(self) -> "GraphInput":
        """A copy."""
        return GraphInput(self.x.clone(), self.edges.clone(), self.index.clone())

    def rows_at(self, order: Int[Tensor, " M"]) -> "GraphInput":
        """The same graph, and other nodes of it."""
        return GraphInput(self.x, self.edges, self.index[order])

    @staticmethod
    def joined(views: Sequence["GraphInput"]) -> "GraphInput":
        """Several graphs as one, which no edge connects."""
        x, edges, index, start = [], [], [], 0
        for view in views:
            x.append(view.x)
            edges.append(view.edges + start)
            index.append(view.index + start)
            start += len(view.x)
        return GraphInput(torch.cat(x), torch.cat(edges, dim=1), torch.cat(index))


def propagated(graph: Graph, steps: int) -> Float[Tensor, "M D"]:
    """Features averaged over neighbors: A^steps X (SGC, Wu et al. 2019), nothing is learned."""
    adjacency, x = normalized_adjacency(graph.edges, len(graph.x)), graph.x
    for _ in range(steps):
        x = torch.sparse.mm(adjacency, x)
    return x


def normalized_adjacency(edges: Int[Tensor, "2 E"], num_nodes: int) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 as a sparse matrix (Kipf and Welling 2017, eq. 2)."""
    own = torch.arange(num_nodes, device=edges.device).expand(2, -1)
    both = torch.cat([edges, own], dim=1)
    degree = torch.bincount(both[1], minlength=num_nodes).to(torch.float32)
    scale = degree.rsqrt()
    weight = scale[both[0]] * scale[both[1]]
    size = (num_nodes, num_nodes)
    matrix = torch.sparse_coo_tensor(both.flip(0), weight, size, check_invariants=False)
    return matrix.coalesce()
