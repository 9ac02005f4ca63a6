"""The networks are their papers' formulas, written with dense matrices, and torch_geometric's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from similitude.graphs.graph import GraphInput, Hop, Nodes
from similitude.graphs.many import FewGraphs
from similitude.graphs.networks import GATLayer, GCNLayer, GINLayer, GraphNetworkConfig
from similitude.graphs.views import GraphFacts, GraphViewConfig
from similitude.sample import MultiView

STORED = np.load(Path(__file__).parent / "vectors" / "torch_geometric.npz")
NODES = 7
NAMES = ("gcn", "gat", "gin")


@pytest.fixture
def dense():
    """A [to, from] without loops, and what a layer sees of it."""
    a = (torch.rand(NODES, NODES) < 0.4).double()
    a = ((a + a.T) > 0).double() * (1 - torch.eye(NODES).double())
    return a, Hop.whole(a.T.nonzero().T, NODES)


@pytest.fixture
def h():
    return torch.randn(NODES, 5).double()


def test_gcn(dense, h):
    a, hop = dense
    layer = GCNLayer(5, 6, 1, last=True).double()
    with_loops = a + torch.eye(NODES)
    d = with_loops.sum(1).rsqrt().diag()
    torch.testing.assert_close(
        layer(h, hop),
        d @ with_loops @ d @ h @ layer.weight.T + layer.bias,
        check_dtype=False,
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("last", [False, True])
def test_gat(dense, h, last):
    a, hop = dense
    layer = GATLayer(5, 6, 3, last=last).double()
    width = 6 if last else 2
    made = []
    for head in range(3):
        wh = h @ layer.linear.weight[head * width : (head + 1) * width].T
        full = torch.cat([layer.attend_to[head], layer.attend_from[head]])  # a of eq. 1 and 3
        e = torch.stack(
            [torch.stack([F.leaky_relu(full @ torch.cat([i, j]), 0.2) for j in wh]) for i in wh]
        )
        e = e.masked_fill((a + torch.eye(NODES)) == 0, -torch.inf)
        made.append(e.softmax(dim=1) @ wh)  # eq. 2 and 4
    expected = torch.stack(made).mean(0) if last else torch.cat(made, dim=1)  # eq. 6 and 5
    torch.testing.assert_close(layer(h, hop), expected + layer.bias)


def test_gcn_starts_as_in_its_authors_code():
    """With PyTorch's narrower start Graph Barlow Twins is 1.5 points worse on Cora."""
    layer = GCNLayer(50, 70, 1, last=True)
    largest = (6 / (50 + 70)) ** 0.5
    assert 0.98 * largest < layer.weight.abs().max() <= largest
    assert not layer.bias.any()


@pytest.mark.parametrize("kind", ["gcn", "gat", "gat_last", "gin"])
def test_layers_are_those_of_torch_geometric(kind):
    """On a graph in which a node has no neighbor; values of version 2.8.1."""
    stored = {
        name: torch.from_numpy(STORED[name])
        for name in STORED.files
        if name in ("x", "edge_index", kind) or name.startswith(f"{kind}_")
    }
    last = kind != "gat"
    name = kind.removesuffix("_last")
    layer = {"gcn": GCNLayer, "gat": GATLayer, "gin": GINLayer}[name](5, 6, 3, last=last).double()
    if kind == "gin":
        layer.eps.data.fill_(0.3)
        layer.mlp = nn.Linear(5, 6).double()
    linear = layer.get_submodule({"gcn": "", "gat": "linear", "gin": "mlp"}[name])
    linear.weight.data = stored[f"{kind}_weight"]
    (linear if name == "gin" else layer).bias.data = stored[f"{kind}_bias"]
    if name == "gat":
        layer.attend_to.data, layer.attend_from.data = stored[f"{kind}_to"], stored[f"{kind}_from"]
    found = layer(stored["x"], Hop.whole(stored["edge_index"], len(stored["x"])))
    torch.testing.assert_close(found, stored[kind], check_dtype=False, rtol=1e-6, atol=1e-6)


def test_gin(dense, h):
    a, hop = dense
    layer = GINLayer(5, 6, 1, last=True).double()
    layer.eps.data.fill_(0.3)
    torch.testing.assert_close(layer(h, hop), layer.mlp(1.3 * h + a @ h))
    layer(h, hop).sum().backward()
    assert layer.eps.grad is not None


def network(name, **fields):
    return GraphNetworkConfig(name=name, in_features=300, width=8, **fields).build().eval()


def views_of(graph, nodes, **facts):
    rows = Nodes(graph, torch.tensor(nodes))
    view = GraphViewConfig().on(GraphFacts(300, **facts))
    return MultiView(view, view)(rows, torch.arange(len(nodes)), seed=0, epoch=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_all_neighbors_is_the_whole_graph(graph, name):
    for layers in (2, 3):
        net = network(name, layers=layers)
        whole = net(views_of(graph, [3, 190, 8])[1])
        sampled = net(views_of(graph, [3, 190, 8], neighbors=(1000,) * layers)[1])
        torch.testing.assert_close(sampled, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_a_sampled_node_do_not_depend_on_the_batch(graph, name):
    net = network(name)
    alone = net(views_of(graph, [8], neighbors=(3, 2))[0])
    beside = net(views_of(graph, [0, 1, 8, 2], neighbors=(3, 2))[0])
    torch.testing.assert_close(beside[2:3], alone, rtol=1e-4, atol=1e-5)
    joined = net(GraphInput.joined(views_of(graph, [0, 8], neighbors=(3, 2))))
    torch.testing.assert_close(joined[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_a_small_graph_do_not_depend_on_the_batch(many, name):
    net = GraphNetworkConfig(name=name, in_features=40, width=8).build().eval()
    every = net(FewGraphs(many, torch.arange(6)).plain())
    some = net(FewGraphs(many, torch.tensor([4, 1])).plain())
    assert every.shape == (6, 8)
    torch.testing.assert_close(some, every[[4, 1]], rtol=1e-4, atol=1e-5)


def test_gin_adds_nodes_up_and_others_average_them_if_nothing_is_said(many):
    rows = FewGraphs(many, torch.arange(6)).plain()
    for name, own, other in (("gcn", "mean", "sum"), ("gin", "sum", "mean")):
        made = {}
        for readout in (None, own, other):
            torch.manual_seed(0)
            config = GraphNetworkConfig(name=name, in_features=40, width=8, readout=readout)
            made[readout] = config.build().eval()(rows)
        assert torch.equal(made[None], made[own])
        assert not torch.allclose(made[None], made[other])


def test_it_computes_in_float32_also_where_others_do_not(graph):
    net, rows = network("gcn"), Nodes(graph, torch.tensor([3])).plain()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = net(rows)
    assert torch.equal(made, net(rows))


def test_heads_that_do_not_divide_a_layer_are_refused():
    assert GraphNetworkConfig(name="gcn", width=7, heads=3).heads == 3
    with pytest.raises(ValidationError, match="14 features of a layer do not divide among 3 heads"):
        GraphNetworkConfig(name="gat", width=7, heads=3)
