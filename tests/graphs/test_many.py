"""Graphs are gathered as they are, in any order."""

import torch

from similitude.graphs.many import FewGraphs, ranges


def test_ranges():
    assert ranges(torch.tensor([5, 2, 9]), torch.tensor([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert (
        ranges(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64)).numel()
        == 0
    )


def test_graphs_side_by_side(many):
    graph, sizes, counts = FewGraphs(many, torch.tensor([3, 0])).gathered
    assert sizes.tolist() == [5, 3]
    whole, first = many.graph, int(many.sizes[:3].sum())
    assert torch.equal(graph.x, torch.cat([whole.x[first : first + 5], whole.x[:3]]))
    own = whole.edges[:, (whole.edges[0] >= first) & (whole.edges[0] < first + 5)] - first
    assert torch.equal(graph.edges[:, : counts[0]], own)
    other = whole.edges[:, whole.edges[0] < 3]
    assert torch.equal(graph.edges[:, counts[0] :], other + 5)


def test_means(many):
    x = many.graph.x
    torch.testing.assert_close(many.mean(x)[1], x[3:12].mean(dim=0))
