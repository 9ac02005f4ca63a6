"""Views of a graph: masked features and dropped edges (GRACE, Zhu et al. 2020, Sec. 3.3).

Letters: M nodes, D features, E edges, N nodes of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from similitude.graphs.graph import GraphInput, Nodes
from similitude.randomness import uniforms
from similitude.sample import Draw, View, ViewConfig

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


@dataclass(frozen=True)
class GraphFacts:
    """Facts about a graph that views depend on.

    Attributes:
        numbers: Features of a node.
    """

    numbers: int


class GraphViewConfig(ViewConfig):
    """How one view is drawn from a graph; the defaults are those of Graph Barlow Twins on Cora.

    Attributes:
        mask_features: Probability that a feature is 0 in all nodes.
        drop_edges: Probability that an edge is left out, for each direction.
    """

    kind: Literal["graph"] = "graph"
    mask_features: Probability = 0.2
    drop_edges: Probability = 0.4

    def on(self, facts: GraphFacts) -> View[Nodes]:
        """The view of a graph of which these facts are true."""
        return GraphView(self, facts)


@dataclass(frozen=True)
class GraphView(View[Nodes]):
    """One random view of a whole graph, whichever of its nodes are asked for."""

    config: GraphViewConfig
    facts: GraphFacts

    def draw(self, draw: Draw, rows: Nodes) -> list[tuple[Bool[Tensor, " D"], Bool[Tensor, " E"]]]:
        """Which features and which edges are kept: of the graph, so the same for every node.

        A function of seed, epoch and number of the view alone.
        """
        graph, kept = rows.graph, []
        one, edges = torch.zeros(1, dtype=torch.int64), torch.arange(graph.edges.shape[1])
        for view in draw.views:
            features = {"masked feature": graph.x.shape[1]}
            of_features = uniforms(draw.seed, draw.epoch, one, view, features)["masked feature"][0]
            of_edges = uniforms(draw.seed, draw.epoch, edges, view, {"dropped edge": 1})
            kept.append(
                (
                    of_features >= self.config.mask_features,
                    of_edges["dropped edge"][:, 0] >= self.config.drop_edges,
                )
            )
        return kept

    def apply(
        self, rows: Nodes, choices: Sequence[tuple[Bool[Tensor, " D"], Bool[Tensor, " E"]]]
    ) -> list[GraphInput]:
        """The graphs that the choices leave."""
        graph = rows.graph
        return [
            GraphInput(
                graph.x * features.to(graph.x), graph.edges[:, edges.to(graph.x.device)], rows.index
            )
            for features, edges in choices
        ]
