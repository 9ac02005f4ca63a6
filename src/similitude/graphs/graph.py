"""A graph, some of its nodes as rows, and what a network is given of them.

Letters: M nodes, D features, E edges (each direction is one), N rows of a batch, K graphs; of a
layer: n nodes that it is given, m that it makes.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.errors import UserError

PROPAGATIONS = 3  # steps, of the baselines


@dataclass(frozen=True, eq=False)
class Hop:
    """Over which edges a layer of a network makes nodes out of those before it.

    Attributes:
        edges: From, among the nodes before, and to, among those that are made, [2, E].
        targets: Where each node that is made is among those before, [m].
        degree: Edges into each node before, and one for itself, [n].
        weight: How many edges each stands for, [E]; None where all are there.
    """

    edges: Int[Tensor, "2 E"]
    targets: Int[Tensor, " m"]
    degree: Int[Tensor, " n"]
    weight: Float[Tensor, " E"] | None = None

    @staticmethod
    def whole(edges: Int[Tensor, "2 E"], num_nodes: int) -> "Hop":
        """All edges, for a layer that makes every node."""
        degree = torch.bincount(edges[1], minlength=num_nodes) + 1
        return Hop(edges, torch.arange(num_nodes, device=edges.device), degree)

    @cached_property
    def with_loops(self) -> tuple[Int[Tensor, " e"], Int[Tensor, " e"], Float[Tensor, " e"]]:
        """From, to and weight of every edge, and then of a loop at each node that is made."""
        own = torch.arange(len(self.targets), device=self.edges.device)
        weight = torch.ones(self.edges.shape[1] + len(own), device=self.edges.device)
        if self.weight is not None:
            weight[: len(self.weight)] = self.weight
        return (torch.cat([self.edges[0], self.targets]), torch.cat([self.edges[1], own]), weight)

    @cached_property
    def normalized(self) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 as a sparse matrix [m, n] (Kipf and Welling 2017, eq. 2)."""
        source, to, weight = self.with_loops
        scale = self.degree.to(torch.float32).rsqrt()
        return self._matrix(source, to, scale[source] * scale[self.targets[to]] * weight)

    @cached_property
    def adjacency(self) -> Tensor:
        """A as a sparse matrix [m, n]."""
        count = self.edges.shape[1]
        return self._matrix(self.edges[0], self.edges[1], self.with_loops[2][:count])

    def _matrix(self, source: Tensor, to: Tensor, weight: Tensor) -> Tensor:
        size = (len(self.targets), len(self.degree))
        # an inference tensor, as of an evaluation, could not be used in a training later
        with torch.inference_mode(mode=False):
            index = torch.stack([to, source])
            return torch.sparse_coo_tensor(
                index, weight.clone(), size, check_invariants=False
            ).coalesce()

    def each(self, change: Callable[[Tensor], Tensor]) -> "Hop":
        """The same with every tensor changed."""
        weight = None if self.weight is None else change(self.weight)
        return Hop(change(self.edges), change(self.targets), change(self.degree), weight)

    @staticmethod
    def joined(hops: Sequence["Hop"]) -> "Hop":
        """Several, of nodes that no edge connects, as one."""
        edges, targets, before, made = [], [], 0, 0
        for hop in hops:
            offset = torch.tensor([[before], [made]], device=hop.edges.device)
            edges.append(hop.edges + offset)
            targets.append(hop.targets + before)
            before, made = before + len(hop.degree), made + len(hop.targets)
        weights = [hop.weight for hop in hops if hop.weight is not None]
        return Hop(
            torch.cat(edges, dim=1),
            torch.cat(targets),
            torch.cat([hop.degree for hop in hops]),
            torch.cat(weights) if weights else None,
        )


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and edges.

    Attributes:
        x: Features of the nodes, [M, D].
        edges: From and to, [2, E]; an edge without a direction is there twice.
    """

    x: Float[Tensor, "M D"]
    edges: Int[Tensor, "2 E"]
    _copies: dict[torch.device, "Graph"] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "Graph":
        """The same on a device, which keeps it for the next step."""
        if device == self.x.device:
            return self
        if device not in self._copies:
            with torch.inference_mode(mode=False):
                self._copies[device] = Graph(self.x.to(device), self.edges.to(device))
        return self._copies[device]

    @cached_property
    def is_sparse(self) -> bool:
        """Whether most of the features are 0, as where they count words."""
        return bool((self.x == 0).double().mean() > 0.5)

    @cached_property
    def hop(self) -> Hop:
        """All edges, for a layer that makes every node."""
        with torch.inference_mode(mode=False):
            return Hop.whole(self.edges, len(self))

    @cached_property
    def propagated(self) -> list[Float[Tensor, "M D"]]:
        """A X, A^2 X, A^3 X: features averaged over neighbors (SGC, Wu et al. 2019)."""
        found, x = [], self.x
        for _ in range(PROPAGATIONS):
            x = torch.sparse.mm(self.hop.normalized, x)
            found.append(x)
        return found

    def fingerprint(self) -> str:
        """Nodes, features and edges in a few characters."""
        found = 0
        for tensor in (self.x, self.edges):
            found = zlib.crc32(tensor.contiguous().numpy().data, found)
        return f"{len(self)}-{self.edges.shape[1]}-{found:08x}"


@dataclass(frozen=True)
class Nodes:
    """Some nodes of a graph, the rows of a batch; what they are depends on the whole graph.

    Attributes:
        graph: On the CPU, where views are drawn.
        index: Numbers of the nodes, on the device where views are made.
    """

    graph: Graph
    index: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Nodes":
        """The same for a device; the graph goes there when it is needed."""
        return Nodes(self.graph, self.index.to(device))

    def plain(self) -> "GraphInput":
        """The whole graph as it is, of which these nodes are asked for."""
        graph = self.graph.to(self.index.device)
        return GraphInput(graph.x, (graph.hop,), self.index)


@dataclass(frozen=True, eq=False)
class GraphInput:
    """A graph as a network takes it, of which it gives the features of some nodes or graphs.

    Attributes:
        x: Features of the nodes, [M, D].
        hops: What each layer sees, the first layer's first; or one for all of them.
        index: Numbers of what is asked for: of the last layer's nodes, or of the graphs.
        sizes: How many nodes each graph has, one after the other, [K]; None: nodes are asked for.
    """

    x: Float[Tensor, "M D"]
    hops: tuple[Hop, ...]
    index: Int[Tensor, " N"]
    sizes: Int[Tensor, " K"] | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the features."""
        return self.x.dtype

    def of_layers(self, count: int) -> tuple[Hop, ...]:
        """What each of so many layers sees.

        Raises:
            UserError: neighbors were sampled for another number of layers.
        """
        if len(self.hops) == 1:
            return self.hops * count
        if len(self.hops) != count:
            raise UserError(
                f"data.neighbors has {len(self.hops)} numbers and the network {count} layers: give "
                "one number for each layer"
            )
        return self.hops

    def rows(
        self, h: Float[Tensor, "m D"], readout: Literal["mean", "sum"]
    ) -> Float[Tensor, "N D"]:
        """What is asked for, of the features of all nodes that a network makes."""
        if self.sizes is None:
            return h[self.index]
        graph = torch.arange(len(self.sizes), device=h.device).repeat_interleave(self.sizes)
        found = h.new_zeros(len(self.sizes), h.shape[1]).index_add(0, graph, h)
        if readout == "mean":
            found = found / self.sizes[:, None]
        return found[self.index]

    @property
    def shown(self) -> Float[Tensor, "N D"]:
        """The features that are asked for, before any layer."""
        place = torch.arange(len(self.x), device=self.device)
        for hop in self.hops:
            place = place[hop.targets]
        return self.rows(self.x[place], "mean")

    def to(self, device: torch.device) -> "GraphInput":
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def clone(self) -> "GraphInput":
        """A copy."""
        return self._each(torch.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "GraphInput":
        sizes = None if self.sizes is None else change(self.sizes)
        hops = tuple(hop.each(change) for hop in self.hops)
        return GraphInput(change(self.x), hops, change(self.index), sizes)

    def rows_at(self, order: Int[Tensor, " M"]) -> "GraphInput":
        """The same graph, and other nodes or graphs of it."""
        return replace(self, index=self.index[order])

    @staticmethod
    def joined(views: Sequence["GraphInput"]) -> "GraphInput":
        """Several graphs as one, which no edge connects."""
        index, made = [], 0
        for view in views:
            index.append(view.index + made)
            made += len(view.hops[-1].targets if view.sizes is None else view.sizes)
        sizes = [view.sizes for view in views if view.sizes is not None]
        hops = zip(*(view.hops for view in views), strict=True)
        return GraphInput(
            torch.cat([view.x for view in views]),
            tuple(Hop.joined(each) for each in hops),
            torch.cat(index),
            torch.cat(sizes) if sizes else None,
        )
