"""A sample of neighbors depends on seed, epoch and node alone, and stands for all of them."""

import pytest
import torch

from similitude.graphs.neighbors import Incoming

ALL = 1000  # more than any node has


def incoming(graph, epoch=0, seed=0):
    kept = torch.ones(graph.edges.shape[1], dtype=torch.bool)
    return Incoming.of(graph, kept, seed=seed, epoch=epoch)


def neighbors_of(graph, nodes, count, **draw):
    """Numbers of the sampled neighbors of each node."""
    before, (hop,) = incoming(graph, **draw).neighborhood(torch.tensor(nodes), [count])
    assert before[hop.targets].tolist() == nodes
    return {
        node: sorted(before[hop.edges[0, hop.edges[1] == place]].tolist())
        for place, node in enumerate(nodes)
    }


def test_what_a_node_samples_does_not_depend_on_the_batch(graph):
    alone, beside = (neighbors_of(graph, nodes, 3) for nodes in ([7], [0, 7, 150]))
    assert alone[7] == beside[7]
    assert len(alone[7]) == 3
    everything = neighbors_of(graph, [7], ALL)[7]
    assert everything == graph.edges[0, graph.edges[1] == 7].tolist()
    assert set(alone[7]) < set(everything)
    drawn = {tuple(neighbors_of(graph, [7], 3, epoch=epoch)[7]) for epoch in range(20)}
    assert len(drawn) > 3
    assert neighbors_of(graph, [7], 3, seed=1) != neighbors_of(graph, [7], 3, seed=2)


def test_all_neighbors_are_the_whole_graph(graph):
    nodes, hops = incoming(graph).neighborhood(torch.tensor([5, 0]), [ALL, ALL])
    h = graph.x[nodes]
    for hop in hops:
        h = torch.sparse.mm(hop.normalized, h)
    torch.testing.assert_close(h, graph.propagated[1][[5, 0]])


@pytest.mark.slow
def test_few_neighbors_are_all_of_them_on_average(graph):
    busiest = torch.bincount(graph.edges[1]).argsort(descending=True)[:3]
    found = torch.zeros(3, 4)
    for epoch in range(400):
        nodes, (hop,) = incoming(graph, epoch).neighborhood(busiest, [4])
        assert torch.bincount(hop.edges[1]).tolist() == [4, 4, 4]
        found += torch.sparse.mm(hop.adjacency, graph.x[nodes, :4]) / 400
    expected = torch.sparse.mm(graph.hop.adjacency, graph.x[:, :4])[busiest]
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)


def test_nodes_without_neighbors_are_themselves(graph):
    nodes, hops = incoming(graph).neighborhood(torch.tensor([195]), [3, 3])
    assert nodes.tolist() == [195]
    assert [hop.edges.shape for hop in hops] == [(2, 0), (2, 0)]
    assert hops[0].normalized.to_dense().tolist() == [[1.0]]


@pytest.mark.parametrize("counts", [[2, 5], [5, 2]])
def test_the_last_layer_has_the_first_number(graph, counts):
    _, hops = incoming(graph).neighborhood(torch.tensor([0, 1]), counts)
    most = [int(torch.bincount(hop.edges[1]).max()) for hop in reversed(hops)]
    assert most == counts
