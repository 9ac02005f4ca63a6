"""Views of graphs: masked features and dropped edges (GRACE, Zhu et al. 2020, Sec. 3.3).

Letters: M nodes, D features, E edges, N rows of a batch; another number in every view: _.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.graphs.graph import Graph, GraphInput, Hop, Nodes
from similitude.graphs.many import FewGraphs, ranges
from similitude.graphs.neighbors import Incoming
from similitude.randomness import uniforms
from similitude.sample import Draw, View, ViewConfig

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
OfViews = Probability | Annotated[tuple[Probability, ...], Field(min_length=1)]

_GRAPH_BITS = 32  # of a number that names an edge: those above its place in its graph


@dataclass(frozen=True)
class GraphFacts:
    """Facts about a graph, or many, that views depend on.

    Attributes:
        num_features: Of a node.
        nodes_per_graph: On average, where graphs are the samples; None where nodes are.
        neighbors: How many are sampled, of the last layer's nodes first; None: all are there.
    """

    num_features: int
    nodes_per_graph: int | None = None
    neighbors: tuple[int, ...] | None = None

    @property
    def numbers(self) -> int:
        """About how many numbers one sample has."""
        return self.num_features * (self.nodes_per_graph or 1)


class GraphViewConfig(ViewConfig):
    """How one view is drawn from a graph; the defaults are for one such as Cora.

    A list has a probability for each view of a sample in turn, for methods with one field for both
    views: ``[0.2, 0.4]`` is 0.2 in the first view and 0.4 in the second.

    Attributes:
        mask_features: Probability that a feature is 0 in all nodes of the graph.
        drop_edges: Probability that an edge is left out, for each direction.
    """

    kind: Literal["graph"] = "graph"
    mask_features: OfViews = 0.2
    drop_edges: OfViews = 0.4

    def on(self, facts: GraphFacts) -> View[Nodes] | View[FewGraphs]:
        """The view of graphs of which these facts are true.

        Raises:
            UserError: Nodes of small graphs, or sampled ones, would be of several processes, whose
                BatchNorm takes them to have as many each.
        """
        if facts.nodes_per_graph is None and facts.neighbors is None:
            return WholeView(self)
        if world_size() > 1:
            raise UserError(
                "small graphs, and sampled neighbors of a large one, are trained on in one "
                "process: leave out --devices"
            )
        return ManyView(self) if facts.neighbors is None else SampledView(self, facts.neighbors)


@dataclass(frozen=True)
class WholeView(View[Nodes]):
    """One random view of a whole graph, whichever of its nodes are asked for."""

    config: GraphViewConfig

    def draw(self, draw: Draw, rows: Nodes) -> list[tuple[Bool[Tensor, " D"], Bool[Tensor, " E"]]]:
        """Which features and which edges are kept: of the graph, so the same for every node.

        A function of seed, epoch and number of the view alone.
        """
        return [_kept(self.config, draw, view, rows.graph) for view in draw.views]

    def apply(
        self, rows: Nodes, choices: Sequence[tuple[Bool[Tensor, " D"], Bool[Tensor, " E"]]]
    ) -> list[GraphInput]:
        """The graphs that the choices leave."""
        graph = rows.graph.to(rows.index.device)
        made = []
        for features, edges in choices:
            hop = Hop.whole(graph.edges[:, edges.to(graph.x.device)], len(graph))
            made.append(GraphInput(graph.x * features.to(graph.x), (hop,), rows.index))
        return made


@dataclass(frozen=True)
class SampledView(View[Nodes]):
    """One random view of some nodes: their neighborhoods, sampled from a view of the whole graph.

    A function of seed, epoch, number of the view and number of the node; with as many neighbors as
    there are it is :class:`WholeView`'s.
    """

    config: GraphViewConfig
    neighbors: tuple[int, ...]
    # the whole graph's view of the epoch under way: the same for all its batches
    _epoch: dict[int, "_Epoch"] = field(default_factory=dict, compare=False, repr=False)

    def draw(
        self, draw: Draw, rows: Nodes
    ) -> list[tuple[Bool[Tensor, " D"], Int[Tensor, " _"], tuple[Hop, ...]]]:
        """Which features are kept, the nodes that are needed, and what each layer sees."""
        drawn = []
        for view in draw.views:
            kept = self._of_epoch(draw, view, rows.graph)
            drawn.append(
                (kept.features, *kept.edges.neighborhood(rows.index.cpu(), self.neighbors))
            )
        return drawn

    def _of_epoch(self, draw: Draw, view: int, graph: Graph) -> "_Epoch":
        found = self._epoch.get(view)
        if found is None or found.key != (draw.seed, draw.epoch) or found.graph is not graph:
            features, edges = _kept(self.config, draw, view, graph)
            incoming = Incoming.of(graph, edges, seed=draw.seed, epoch=draw.epoch)
            found = self._epoch[view] = _Epoch((draw.seed, draw.epoch), graph, features, incoming)
        return found

    def apply(
        self,
        rows: Nodes,
        choices: Sequence[tuple[Bool[Tensor, " D"], Int[Tensor, " _"], tuple[Hop, ...]]],
    ) -> list[GraphInput]:
        """The neighborhoods that the choices leave."""
        index = torch.arange(len(rows))
        return [
            GraphInput(rows.graph.x[nodes] * features, hops, index).to(rows.index.device)
            for features, nodes, hops in choices
        ]


@dataclass(frozen=True, eq=False)
class _Epoch:
    key: tuple[int, int]  # seed and epoch
    graph: Graph
    features: Bool[Tensor, " D"]
    edges: Incoming


@dataclass(frozen=True)
class ManyView(View[FewGraphs]):
    """One random view of each of some small graphs."""

    config: GraphViewConfig

    def draw(
        self, draw: Draw, rows: FewGraphs
    ) -> list[tuple[Bool[Tensor, "N D"], Bool[Tensor, " E"]]]:
        """Which features of each graph, and which of its edges, are kept.

        A function of seed, epoch, position of the graph and number of the view.
        """
        graph, _, counts = rows.gathered
        place = ranges(torch.zeros_like(counts), counts)
        edges = (draw.index.repeat_interleave(counts) << _GRAPH_BITS) + place
        drawn = []
        for view in draw.views:
            numbers = {"masked feature": graph.x.shape[1]}
            of_features = uniforms(draw.seed, draw.epoch, draw.index, view, numbers)
            of_edges = uniforms(draw.seed, draw.epoch, edges, view, {"dropped edge": 1})
            drawn.append(
                (
                    of_features["masked feature"] >= _of(self.config.mask_features, view),
                    of_edges["dropped edge"][:, 0] >= _of(self.config.drop_edges, view),
                )
            )
        return drawn

    def apply(
        self, rows: FewGraphs, choices: Sequence[tuple[Bool[Tensor, "N D"], Bool[Tensor, " E"]]]
    ) -> list[GraphInput]:
        """The graphs that the choices leave."""
        graph, sizes, _ = rows.gathered
        made = []
        for features, edges in choices:
            x = graph.x * features.repeat_interleave(sizes, dim=0)
            hop = Hop.whole(graph.edges[:, edges], len(graph))
            view = GraphInput(x, (hop,), torch.arange(len(rows)), sizes)
            made.append(view.to(rows.index.device))
        return made


def _kept(
    config: GraphViewConfig, draw: Draw, view: int, graph: Graph
) -> tuple[Bool[Tensor, " D"], Bool[Tensor, " E"]]:
    """Which features and which edges of a whole graph a view keeps."""
    one, edges = torch.zeros(1, dtype=torch.int64), torch.arange(graph.edges.shape[1])
    features = {"masked feature": graph.x.shape[1]}
    of_features = uniforms(draw.seed, draw.epoch, one, view, features)["masked feature"][0]
    of_edges = uniforms(draw.seed, draw.epoch, edges, view, {"dropped edge": 1})
    return (
        of_features >= _of(config.mask_features, view),
        of_edges["dropped edge"][:, 0] >= _of(config.drop_edges, view),
    )


def _of(probability: float | tuple[float, ...], view: int) -> float:
    return probability[view % len(probability)] if isinstance(probability, tuple) else probability
