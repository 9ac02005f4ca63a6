"""Sampled neighborhoods, for graphs that do not fit into a step (GraphSAGE, Hamilton et al. 2017).

Letters: M nodes and E edges of a graph, N nodes of a batch, n nodes that a layer is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from similitude.graphs.graph import Graph, Hop
from similitude.graphs.many import ranges
from similitude.randomness import uniform


@dataclass(frozen=True, eq=False)
class Incoming:
    """The edges into every node, in a random order: the first ones are a sample.

    Attributes:
        start: Place of each node's first edge, and of the end, [M + 1].
        source: Where the edges come from, [E].
    """

    start: Int[Tensor, " M1"]
    source: Int[Tensor, " E"]

    @staticmethod
    def of(graph: Graph, kept: Bool[Tensor, " E"], *, seed: int, epoch: int) -> "Incoming":
        """Those of the kept edges; their order is a function of seed, epoch and edge alone.

        So what a node samples does not depend on the others of its batch, and both views of it
        sample the same edges as far as they keep them.
        """
        number = kept.nonzero()[:, 0]
        source, to = graph.edges[:, number]
        order = uniform(seed, epoch, number, 0, "neighbor")[:, 0].argsort(stable=True)
        order = order[to[order].argsort(stable=True)]
        count = torch.bincount(to, minlength=len(graph))
        return Incoming(torch.cat([count.new_zeros(1), count.cumsum(0)]), source[order])

    @property
    def degree(self) -> Int[Tensor, " M"]:
        """Edges into each node, and one for itself."""
        return self.start.diff() + 1

    def neighborhood(
        self, nodes: Int[Tensor, " N"], counts: Sequence[int]
    ) -> tuple[Int[Tensor, " n"], tuple[Hop, ...]]:
        """The nodes that a network needs to make some, and what each of its layers sees.

        Args:
            nodes: Numbers of those that are asked for, all different.
            counts: Neighbors of a node at most: of the last layer's nodes first.

        Returns:
            Numbers of the nodes that the first layer is given, and hops, the first layer's first.
        """
        hops = []
        degree = self.degree
        for count in counts:
            there = degree[nodes] - 1
            taken = there.clamp_max(count)
            source = self.source[ranges(self.start[nodes], taken)]
            to = torch.arange(len(nodes)).repeat_interleave(taken)
            before, place = torch.unique(torch.cat([nodes, source]), return_inverse=True)
            edges = torch.stack([place[len(nodes) :], to])
            weight = (there / taken)[to]
            hops.insert(0, Hop(edges, place[: len(nodes)], degree[before], weight))
            nodes = before
        return nodes, tuple(hops)
