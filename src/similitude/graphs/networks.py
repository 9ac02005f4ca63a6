"""Networks for graphs: a GCN on sparse products.

Letters: N nodes of a batch, D features of the output.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.sparse import mm

from similitude.graphs.graph import GraphInput, normalized_adjacency
from similitude.sample import NetworkConfig


class GCNConfig(NetworkConfig):
    """Which network is trained and kept."""

    name: Literal["gcn"] = "gcn"
    in_features: int = Field(default=1, ge=1)  # of a node; set from the data
    width: int = Field(default=256, ge=1)  # features of the output; the hidden layer has twice

    def build(self) -> nn.Module:
        """The network with random weights."""
        network = GCN(self.in_features, self.width)
        network.built_from = self  # type: ignore[assignment]
        network.has_pretrained_weights = False  # type: ignore[assignment]
        return network


class GCN(nn.Module):
    """Two graph convolutions (Kipf and Welling 2017), as in Graph Barlow Twins (2021, Sec. 4).

    GCN(in -> 2 D), BatchNorm, PReLU, GCN(2 D -> D).
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.first = nn.Linear(in_features, 2 * width, bias=False)
        self.norm = nn.BatchNorm1d(2 * width, momentum=0.01)
        self.act = nn.PReLU()
        self.last = nn.Linear(2 * width, width)

    def forward(self, graph: GraphInput) -> Float[Tensor, "N D"]:
        """Features of the nodes that are asked for."""
        adjacency = normalized_adjacency(graph.edges, len(graph.x)).to(self.first.weight.dtype)
        h = mm(adjacency, self.first(graph.x.to(self.first.weight.dtype)))
        h = mm(adjacency, self.last(self.act(self.norm(h))))
        return h[graph.index]
