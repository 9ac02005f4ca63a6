"""What a layer sees, and views that are joined and indexed."""

import pytest
import torch

from similitude.errors import UserError
from similitude.graphs.graph import Graph, GraphInput, Hop
from similitude.nets.views import joined, rows_at


def test_adjacency_is_that_of_kipf_and_welling():
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    a = torch.zeros(3, 3)
    a[edges[1], edges[0]] = 1
    with_loops = a + torch.eye(3)
    degree = with_loops.sum(1)
    expected = with_loops / (degree[:, None] * degree[None]).sqrt()
    hop = Hop.whole(edges, 3)
    torch.testing.assert_close(hop.normalized.to_dense(), expected)
    torch.testing.assert_close(hop.adjacency.to_dense(), a)
    x = torch.rand(3, 4)
    one, two, three = Graph(x, edges).propagated
    torch.testing.assert_close(one, expected @ x)
    torch.testing.assert_close(three, expected @ two)


def plain(nodes, edges, index, sizes=None):
    sizes = None if sizes is None else torch.tensor(sizes)
    hop = Hop.whole(torch.tensor(edges), nodes)
    return GraphInput(torch.rand(nodes, 2), (hop,), torch.tensor(index), sizes)


def test_joined_graphs_do_not_touch():
    one, two = plain(4, [[0], [1]], [2, 0]), plain(3, [[2], [0]], [1])
    both = joined([one, two])
    assert both.hops[0].edges.tolist() == [[0, 6], [1, 4]]
    assert both.hops[0].targets.tolist() == list(range(7))
    assert both.hops[0].degree.tolist() == [1, 2, 1, 1, 2, 1, 1]
    assert both.index.tolist() == [2, 0, 5]
    assert torch.equal(both.shown, torch.cat([one.shown, two.shown]))
    assert rows_at(both, torch.tensor([2, 0])).index.tolist() == [5, 2]
    assert torch.equal(joined([one.x, one.x]), torch.cat([one.x, one.x]))


def test_joined_graphs_of_many_are_counted_as_graphs():
    one, two = plain(4, [[0], [1]], [1, 0], [1, 3]), plain(3, [[2], [0]], [0], [3])
    both = joined([one, two])
    assert both.sizes.tolist() == [1, 3, 3]
    assert both.index.tolist() == [1, 0, 2]
    assert torch.equal(both.shown, torch.cat([one.shown, two.shown]))


def test_a_graph_is_the_mean_or_the_sum_of_its_nodes():
    view = plain(4, [[0], [1]], [1, 0], [1, 3])
    h = torch.rand(4, 5)
    torch.testing.assert_close(view.rows(h, "sum"), torch.stack([h[1:].sum(0), h[0]]))
    torch.testing.assert_close(view.rows(h, "mean"), torch.stack([h[1:].mean(0), h[0]]))


def test_each_layer_sees_what_was_sampled_for_it():
    hop = Hop.whole(torch.tensor([[0], [1]]), 2)
    view = GraphInput(torch.rand(2, 2), (hop, hop), torch.tensor([0]))
    assert view.of_layers(2) == (hop, hop)
    with pytest.raises(UserError, match=r"data\.neighbors has 2 numbers and the network 3 layers"):
        view.of_layers(3)


def test_what_an_evaluation_made_trains_later():
    graph = Graph(torch.rand(3, 2), torch.tensor([[0, 1], [1, 0]]))
    with torch.inference_mode():
        torch.sparse.mm(graph.hop.normalized, graph.x)
    weight = torch.rand(2, 2, requires_grad=True)
    torch.sparse.mm(graph.hop.normalized, graph.x @ weight).sum().backward()
    assert weight.grad is not None
