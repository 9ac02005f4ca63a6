"""Views of a graph are a function of seed, epoch and number; features and edges go as drawn."""

import pytest
import torch

from similitude.graphs.graph import Graph, GraphInput, Nodes, normalized_adjacency, propagated
from similitude.graphs.views import GraphFacts, GraphViewConfig
from similitude.nets.views import joined, rows_at
from similitude.sample import MultiView


def graph(nodes=200, features=300):
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, nodes, (2, 2000), generator=generator)
    return Graph(torch.rand(nodes, features, generator=generator), edges)


def views_of(rows, *, seed=0, epoch=0, **config):
    view = GraphViewConfig(**config).on(GraphFacts(rows.graph.x.shape[1]))
    return MultiView(view, view)(rows, torch.arange(len(rows)), seed=seed, epoch=epoch)


def test_a_feature_is_masked_in_all_nodes_and_edges_go_at_their_rate():
    rows = Nodes(graph(), torch.arange(200))
    v1, v2 = views_of(rows, mask_features=0.3, drop_edges=0.4)
    masked = (v1.x == 0).all(dim=0)
    assert ((v1.x == 0).any(dim=0) == masked).all()
    assert masked.float().mean() == pytest.approx(0.3, abs=0.08)
    assert v1.edges.shape[1] / 2000 == pytest.approx(0.6, abs=0.04)
    assert not torch.equal(v1.x, v2.x)


def test_views_do_not_depend_on_the_nodes_that_are_asked_for():
    whole, some = Nodes(graph(), torch.arange(200)), Nodes(graph(), torch.tensor([7, 3]))
    for ours, theirs in zip(views_of(whole, epoch=3), views_of(some, epoch=3), strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.edges, theirs.edges)
    assert not torch.equal(views_of(whole, epoch=3)[0].x, views_of(whole, epoch=4)[0].x)
    assert not torch.equal(views_of(whole, seed=1)[0].x, views_of(whole)[0].x)


def test_adjacency_is_that_of_kipf_and_welling():
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    a = torch.eye(3)
    a[edges[0], edges[1]] = 1
    degree = a.sum(1)
    expected = a / (degree[:, None] * degree[None]).sqrt()
    torch.testing.assert_close(normalized_adjacency(edges, 3).to_dense(), expected)
    x = torch.rand(3, 4)
    torch.testing.assert_close(propagated(Graph(x, edges), 2), expected @ expected @ x)


def test_joined_graphs_do_not_touch():
    one = GraphInput(torch.rand(4, 2), torch.tensor([[0], [1]]), torch.tensor([2, 0]))
    two = GraphInput(torch.rand(3, 2), torch.tensor([[2], [0]]), torch.tensor([1]))
    both = joined([one, two])
    assert both.edges.tolist() == [[0, 6], [1, 4]]
    assert both.index.tolist() == [2, 0, 5]
    assert rows_at(both, torch.tensor([2, 0])).index.tolist() == [5, 2]
    assert torch.equal(joined([one.x, one.x]), torch.cat([one.x, one.x]))
