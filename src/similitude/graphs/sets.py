"""Nodes of a graph, and many graphs, as samples of a data set.

Letters: N samples, D numbers of a sample.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from similitude.graphs.graph import PROPAGATIONS, Graph, GraphInput, Nodes
from similitude.graphs.many import FewGraphs, ManyGraphs
from similitude.graphs.views import GraphFacts
from similitude.sample import MultiView, Samples

_SHOWN = 8  # samples on a sheet
_TILE = 64  # pixels of each

# Rows of the baselines: nothing is learned.
PROPAGATED = tuple(f"{k} step{'s'[: k > 1]} of propagation" for k in range(1, PROPAGATIONS + 1))


@dataclass(frozen=True)
class NodeSet(Samples[Nodes]):
    """Some nodes of a graph, all of whose other nodes stay around them."""

    graph: Graph
    index: Int[Tensor, " N"]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None

    noun: ClassVar[str] = "nodes"
    raw_name: ClassVar[str] = "raw features"
    pictured: ClassVar[str] = "A picture of a node is its features as a square, row by row."
    seen_together: ClassVar[bool] = True

    def take(self, index: Int[Tensor, " M"] | slice) -> Nodes:
        """The nodes at these positions."""
        return Nodes(self.graph, self.index[index])

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "NodeSet":
        """The nodes at these positions, in that order."""
        return _subset(self, index)

    def clean(self, rows: Nodes, facts: GraphFacts) -> GraphInput:
        """The whole graph as it is."""
        return rows.plain()

    def raw(self, beside: Sequence["NodeSet"] = ()) -> Float[Tensor, "N D"]:
        """The features of the nodes."""
        return self.graph.x[self.index]

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """Features averaged over the neighbors, in one step, in two and in three."""
        return {
            name: x[self.index] for name, x in zip(PROPAGATED, self.graph.propagated, strict=True)
        }

    def has_one_scale(self, row: str) -> bool:
        """Whether the features count words, or the like."""
        return self.graph.is_sparse

    def sheet(self, views: MultiView, facts: GraphFacts, *, seed: int) -> Image.Image:
        """Some nodes, a row each: their features, then those of each view, as squares."""
        some = self.spread(_SHOWN)
        rows = some.take(slice(None))
        made = views(rows, torch.arange(len(some)), seed=seed, epoch=0)
        return _side_by_side([_squares(x, _TILE) for x in (some.raw(), *(v.shown for v in made))])

    def copies(self) -> float:
        """The share of the nodes whose features are those of another one, 0..1."""
        return 1 - len(torch.unique(self.raw(), dim=0)) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The features of each node as a square, row by row."""
        return _squares(self.raw(), side)

    def fingerprint(self) -> str:
        """The graph and the nodes in a few characters."""
        return f"{super().fingerprint()}-{self.graph.fingerprint()}"


@dataclass(frozen=True)
class GraphSet(Samples[FewGraphs]):
    """Some of many graphs."""

    graphs: ManyGraphs
    index: Int[Tensor, " N"]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None

    noun: ClassVar[str] = "graphs"
    raw_name: ClassVar[str] = "mean of raw features"
    pictured: ClassVar[str] = "A picture of a graph is its edges as a matrix."

    def take(self, index: Int[Tensor, " M"] | slice) -> FewGraphs:
        """The graphs at these positions."""
        return FewGraphs(self.graphs, self.index[index])

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "GraphSet":
        """The graphs at these positions, in that order."""
        return _subset(self, index)

    def clean(self, rows: FewGraphs, facts: GraphFacts) -> GraphInput:
        """The graphs as they are."""
        return rows.plain()

    def raw(self, beside: Sequence["GraphSet"] = ()) -> Float[Tensor, "N D"]:
        """The mean of the features of the nodes of each graph."""
        return self.graphs.mean(self.graphs.graph.x)[self.index]

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """The mean of features that are averaged over the neighbors, in one step to three."""
        found = zip(PROPAGATED, self.graphs.graph.propagated, strict=True)
        return {f"mean of {name}": self.graphs.mean(x)[self.index] for name, x in found}

    def sheet(self, views: MultiView, facts: GraphFacts, *, seed: int) -> Image.Image:
        """Some graphs, a row each: their edges, then those of each view, as matrices."""
        some = self.spread(_SHOWN)
        rows = some.take(slice(None))
        made = views(rows, torch.arange(len(some)), seed=seed, epoch=0)
        return _side_by_side([_matrices(view, _TILE) for view in (rows.plain(), *made)])

    def copies(self) -> float:
        """The share of the graphs whose nodes and edges are those of another one, 0..1."""
        kinds = set()
        for i in range(len(self)):
            graph = self.take(slice(i, i + 1)).gathered.graph
            kinds.add((graph.x.numpy().tobytes(), graph.edges.numpy().tobytes()))
        return 1 - len(kinds) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The edges of each graph as a matrix."""
        return _matrices(self.take(slice(None)).plain(), side)

    def fingerprint(self) -> str:
        """The graphs, and which of them, in a few characters."""
        sizes = zlib.crc32(self.graphs.sizes.numpy().tobytes())
        return f"{super().fingerprint()}-{self.graphs.graph.fingerprint()}-{sizes:08x}"


def _subset(samples: Any, index: Any) -> Any:
    rows = torch.arange(len(samples))[index if isinstance(index, slice) else torch.as_tensor(index)]
    return replace(
        samples,
        index=samples.index[rows],
        names=[samples.names[i] for i in rows.tolist()],
        labels=None if samples.labels is None else samples.labels[rows],
    )


def _side_by_side(columns: Sequence[UInt8[np.ndarray, "N s s 3"]]) -> Image.Image:
    """A picture with a column for each, of tiles below each other."""
    stacked = [np.concatenate(list(tiles), axis=0) for tiles in columns]
    return Image.fromarray(np.concatenate(stacked, axis=1))


def _squares(x: Float[Tensor, "N D"], side: int) -> UInt8[np.ndarray, "N s s 3"]:
    """Large is dark, from the smallest to the largest of all."""
    width = math.ceil(x.shape[1] ** 0.5)
    padded = torch.zeros(len(x), width * width)
    padded[:, : x.shape[1]] = (x - x.min()) / (x.max() - x.min()).clamp_min(1e-12)
    return _gray(padded.view(-1, 1, width, width), side)


def _matrices(graphs: GraphInput, side: int) -> UInt8[np.ndarray, "N s s 3"]:
    """Where there are many edges it is dark; nodes of a large graph share a pixel."""
    assert graphs.sizes is not None
    sizes, edges = graphs.sizes.cpu(), graphs.hops[0].edges.cpu()
    first = sizes.cumsum(0) - sizes
    of = torch.arange(len(sizes)).repeat_interleave(sizes)[edges[0]]
    place = ((edges - first[of]) * side // sizes[of].clamp_min(side)).long()
    shown = torch.zeros(len(sizes), side, side)
    shown.index_put_((of, place[0], place[1]), torch.ones(len(of)), accumulate=True)
    fitting = [
        _gray((one[:n, :n] / one.max().clamp_min(1))[None, None], side)
        for one, n in zip(shown, sizes.clamp_max(side).tolist(), strict=True)
    ]
    return np.concatenate(fitting)


def _gray(shown: Float[Tensor, "N 1 w w"], side: int) -> UInt8[np.ndarray, "N s s 3"]:
    """Pictures of values of 0, white, to 1, black."""
    square = torch.nn.functional.interpolate(shown, (side, side), mode="area")
    pixels = (255 * (1 - square.clamp(0, 1) ** 0.5)).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous().numpy()
