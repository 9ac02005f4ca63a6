"""Networks for graphs: GCN, GAT and GIN, on sparse products.

Letters: N rows of a batch, D features of the output; of a layer n nodes that it is given, m that
it makes, C features of a node, H heads, e edges and loops.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import mm

from similitude.devices import computing_in
from similitude.graphs.graph import GraphInput, Hop
from similitude.sample import NetworkConfig

_MOVED = 3  # numbers for each feature that goes over an edge: it is read, and added to another


class GraphNetworkConfig(NetworkConfig):
    """Which network is trained and kept.

    Attributes:
        name: "gcn" (Kipf and Welling 2017), "gat" (Velickovic et al. 2018) or "gin" (Xu et al.
            2019).
        in_features: Of a node; set from the data.
        width: Features of the output; layers before the last have twice as many.
        layers: Of message passing, and so how many steps away a node sees.
        heads: Of GAT's attention; side by side before the last layer, averaged in it.
        readout: What the features of a graph are of those of its nodes; None: their sum for "gin",
            as in its paper, their mean for the others.
    """

    name: Literal["gcn", "gat", "gin"] = "gcn"
    in_features: int = Field(default=1, ge=1)
    width: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=2)
    heads: int = Field(default=4, ge=1)
    readout: Literal["mean", "sum"] | None = None

    @model_validator(mode="after")
    def _heads_fit(self) -> "GraphNetworkConfig":
        if self.name == "gat" and 2 * self.width % self.heads:
            raise ValueError(
                f"the {2 * self.width} features of a layer do not divide among {self.heads} heads"
            )
        return self

    def preparing_snippet(self, data: Any, facts: Any) -> str:
        """Python that makes of files what the network takes."""
        own = type(data)
        return f"""\
from {own.__module__} import MODALITY, {own.__name__}

data = {own.__name__}.model_validate({data.model_dump()!r})
graphs = MODALITY.load(MODALITY.open_part("GRAPH", None, data), data)  # whatever `embed` takes
features = backbone(graphs.clean(graphs.take(slice(None)), data.facts([])))"""

    def build(self) -> nn.Module:
        """The network with random weights."""
        network = GraphNetwork(self)
        network.built_from = self  # type: ignore[assignment]
        network.has_pretrained_weights = False  # type: ignore[assignment]
        return network


class GCNLayer(nn.Linear):
    """H' = D^-1/2 (A + I) D^-1/2 H W (Kipf and Welling 2017, eq. 2), and in the last layer + b."""

    def __init__(self, given: int, made: int, heads: int, *, last: bool) -> None:
        super().__init__(given, made, bias=last)  # BatchNorm follows all others

    def reset_parameters(self) -> None:
        """As in its authors' code, and in torch_geometric: Glorot's uniform weights, no bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, h: Float[Tensor, "n C"], hop: Hop) -> Float[Tensor, "m C2"]:  # type: ignore[override]
        """Features of the nodes that are made."""
        matrix = hop.normalized.to(h.dtype)
        if self._propagates_first(hop):
            # the same product, of fewer nodes: a sampled step takes 0.6 of the time
            return super().forward(mm(matrix, h))
        made = mm(matrix, F.linear(h, self.weight))
        return made if self.bias is None else made + self.bias

    def _propagates_first(self, hop: Hop) -> bool:
        return self.in_features < self.out_features and hop.weight is not None

    def moved(self, h: Float[Tensor, "n C"], hop: Hop) -> int:
        """Numbers that go over edges, for an estimate of time."""
        width = self.in_features if self._propagates_first(hop) else self.out_features
        return _MOVED * len(hop.with_loops[0]) * width


class GATLayer(nn.Module):
    """Attention over the neighbors of a node and itself (Velickovic et al. 2018, eq. 1 to 6).

    e_ij = LeakyReLU(a [W h_i ; W h_j]); h_i' = sum over j of softmax_j(e_ij) W h_j. Of sampled
    neighbors each stands for several, so that its exp(e) counts as often.
    """

    def __init__(self, given: int, made: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.heads, self.last = heads, last
        width = made if last else made // heads
        self.linear = nn.Linear(given, heads * width, bias=False)
        self.attend_to = nn.Parameter(torch.empty(heads, width))  # the half of a for h_i
        self.attend_from = nn.Parameter(torch.empty(heads, width))
        self.bias = nn.Parameter(torch.zeros(made))
        for weight in (self.linear.weight, self.attend_to, self.attend_from):
            nn.init.xavier_uniform_(weight)

    def forward(self, h: Float[Tensor, "n C"], hop: Hop) -> Float[Tensor, "m C2"]:
        """Features of the nodes that are made."""
        wh = self.linear(h).view(len(h), self.heads, -1)
        source, to, count = hop.with_loops
        of_source = (wh * self.attend_from).sum(dim=2)
        of_target = (wh * self.attend_to).sum(dim=2)[hop.targets]
        e = F.leaky_relu(of_target[to] + of_source[source], 0.2)  # [e, H]
        made = len(hop.targets)
        with torch.no_grad():  # no softmax depends on it
            largest = e.new_full((made, self.heads), -torch.inf)
            largest.scatter_reduce_(0, to[:, None].expand_as(e), e, "amax")
        attention = (e - largest[to]).exp() * count.to(e.dtype)[:, None]
        attention = attention / attention.new_zeros(largest.shape).index_add(0, to, attention)[to]
        message = attention[:, :, None] * wh[source]
        found = message.new_zeros(made, *wh.shape[1:]).index_add(0, to, message)
        return (found.mean(dim=1) if self.last else found.flatten(1)) + self.bias

    def moved(self, h: Float[Tensor, "n C"], hop: Hop) -> int:
        """Numbers that go over edges, for an estimate of time: also to be weighed."""
        return 2 * _MOVED * len(hop.with_loops[0]) * self.linear.out_features


class GINLayer(nn.Module):
    """h_v' = MLP((1 + eps) h_v + sum of the neighbors' h_u), eps is learned (Xu et al. 2019, 4.1).

    The MLP has two layers with BatchNorm and ReLU between them (Sec. 7).
    """

    def __init__(self, given: int, made: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(
            nn.Linear(given, made, bias=False),
            nn.BatchNorm1d(made),
            nn.ReLU(),
            nn.Linear(made, made, bias=last),  # BatchNorm follows all others
        )

    def forward(self, h: Float[Tensor, "n C"], hop: Hop) -> Float[Tensor, "m C2"]:
        """Features of the nodes that are made."""
        own = (1 + self.eps) * h[hop.targets]
        return self.mlp(own + mm(hop.adjacency.to(h.dtype), h))

    def moved(self, h: Float[Tensor, "n C"], hop: Hop) -> int:
        """Numbers that go over edges, for an estimate of time."""
        return _MOVED * hop.edges.shape[1] * h.shape[1]


_LAYERS = {"gcn": GCNLayer, "gat": GATLayer, "gin": GINLayer}


class _Between(nn.Module):
    """A layer that is neither the first nor the last."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm1d(width, momentum=0.01)
        self.act = nn.PReLU()

    def forward(self, h: Float[Tensor, "n C"], hop: Hop) -> Float[Tensor, "m C"]:
        return self.act(self.norm(self.layer(h, hop)))


class GraphNetwork(nn.Module):
    """Layers of message passing with BatchNorm and PReLU between them.

    With "gcn" and two layers it is that of Graph Barlow Twins (Bielak et al. 2021, Sec. 4):
    GCN(in -> 2 D), BatchNorm, PReLU, GCN(2 D -> D).
    """

    def __init__(self, config: GraphNetworkConfig) -> None:
        super().__init__()
        layer, width, heads = _LAYERS[config.name], 2 * config.width, config.heads
        self.num_features, self.layers = config.width, config.layers
        self.readout: Literal["mean", "sum"] = config.readout or (
            "sum" if config.name == "gin" else "mean"
        )
        self.first = layer(config.in_features, width, heads, last=False)
        self.norm = nn.BatchNorm1d(width, momentum=0.01)
        self.act = nn.PReLU()
        self.between = nn.ModuleList(
            _Between(layer(width, width, heads, last=False), width)
            for _ in range(config.layers - 2)
        )
        self.last = layer(width, config.width, heads, last=True)

    def forward(self, graph: GraphInput) -> Float[Tensor, "N D"]:
        """Features of the nodes or graphs that are asked for."""
        with computing_in(torch.float32, graph.device):  # no sparse product in bfloat16
            first, *between, last = graph.of_layers(self.layers)
            h = graph.x.to(self.norm.weight.dtype)
            h = self.act(self.norm(self.first(h, first)))
            for layer, hop in zip(self.between, between, strict=True):
                h = layer(h, hop)
            return graph.rows(self.last(h, last), self.readout)
