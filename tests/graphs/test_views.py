"""Views of graphs are functions of seed, epoch, position and number; all else goes as drawn."""

import pytest
import torch
from pydantic import ValidationError

from similitude.errors import UserError
from similitude.graphs.graph import Nodes
from similitude.graphs.many import FewGraphs
from similitude.graphs.views import GraphFacts, GraphViewConfig
from similitude.sample import MultiView


def views_of(rows, index=None, *, seed=0, epoch=0, facts=None, **config):
    view = GraphViewConfig(**config).on(facts or GraphFacts(rows.graph.x.shape[1]))
    index = torch.arange(len(rows)) if index is None else torch.tensor(index)
    return MultiView(view, view)(rows, index, seed=seed, epoch=epoch)


def test_a_feature_is_masked_in_all_nodes_and_edges_go_at_their_rate(graph):
    rows = Nodes(graph, torch.arange(200))
    v1, v2 = views_of(rows, mask_features=0.3, drop_edges=0.4)
    masked = (v1.x == 0).all(dim=0)
    assert ((v1.x == 0).any(dim=0) == masked).all()
    assert masked.float().mean() == pytest.approx(0.3, abs=0.08)
    assert v1.hops[0].edges.shape[1] / graph.edges.shape[1] == pytest.approx(0.6, abs=0.04)
    assert not torch.equal(v1.x, v2.x)


def test_views_do_not_depend_on_the_nodes_that_are_asked_for(graph):
    whole, some = Nodes(graph, torch.arange(200)), Nodes(graph, torch.tensor([7, 3]))
    for ours, theirs in zip(views_of(whole, epoch=3), views_of(some, epoch=3), strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.hops[0].edges, theirs.hops[0].edges)
    assert not torch.equal(views_of(whole, epoch=3)[0].x, views_of(whole, epoch=4)[0].x)
    assert not torch.equal(views_of(whole, seed=1)[0].x, views_of(whole)[0].x)


def test_a_probability_for_each_view(graph):
    rows = Nodes(graph, torch.arange(200))
    v1, v2 = views_of(rows, mask_features=(0.0, 0.5), drop_edges=(0.6, 0.1))
    assert torch.equal(v1.x, graph.x)
    assert (v2.x == 0).all(dim=0).float().mean() == pytest.approx(0.5, abs=0.08)
    kept = [view.hops[0].edges.shape[1] / graph.edges.shape[1] for view in (v1, v2)]
    assert kept == pytest.approx([0.4, 0.9], abs=0.04)
    same = views_of(rows, mask_features=(0.3, 0.3), drop_edges=(0.2,))
    for ours, theirs in zip(same, views_of(rows, mask_features=0.3, drop_edges=0.2), strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.hops[0].edges, theirs.hops[0].edges)
    with pytest.raises(ValidationError, match="drop_edges"):
        GraphViewConfig(drop_edges=(0.2, 1.5))
    with pytest.raises(ValidationError, match="drop_edges"):
        GraphViewConfig(drop_edges=())


def test_sampled_neighbors_are_of_the_view_of_the_whole_graph(graph):
    rows = Nodes(graph, torch.tensor([3, 8]))
    facts = GraphFacts(300, neighbors=(4, 4))
    whole = views_of(rows, epoch=2)
    view = GraphViewConfig().on(facts)
    made = MultiView(view, view)
    for epoch in (2, 1, 2):  # what is kept of an epoch is only of it
        sampled = made(rows, torch.arange(2), seed=0, epoch=epoch)
    for ours, theirs in zip(sampled, whole, strict=True):
        masked = (theirs.x == 0).all(dim=0)
        assert torch.equal((ours.x == 0).all(dim=0), masked)
        assert torch.equal(ours.shown, theirs.shown)
        kept = {(a, b) for a, b in theirs.hops[0].edges.T.tolist()}
        number = graph.x[:, ~masked]
        nodes = [int((number == row).all(1).nonzero()[0]) for row in ours.x[:, ~masked]]
        last = ours.hops[-1]
        before = [nodes[i] for i in ours.hops[0].targets.tolist()]
        pairs = {(before[a], [3, 8][b]) for a, b in last.edges.T.tolist()}
        assert pairs <= kept
        assert len(pairs) >= 4


def test_each_small_graph_has_a_view_of_its_own(many):
    rows = FewGraphs(many, torch.arange(6))
    facts = GraphFacts(40, nodes_per_graph=5)
    v1, v2 = views_of(rows, facts=facts, mask_features=0.5, drop_edges=0.4)
    masks = []
    for part in v1.x.split(many.sizes.tolist()):
        masked = (part == 0).all(dim=0)
        assert ((part == 0).any(dim=0) == masked).all()
        masks.append(masked)
    assert not torch.equal(masks[0], masks[1])
    assert torch.stack(masks).float().mean() == pytest.approx(0.5, abs=0.1)
    assert not torch.equal(v1.x, v2.x)
    assert v1.sizes.tolist() == many.sizes.tolist()


def test_views_of_a_small_graph_depend_on_its_position_and_on_nothing_beside_it(many):
    facts = GraphFacts(40, nodes_per_graph=5)
    every = views_of(FewGraphs(many, torch.arange(6)), epoch=3, facts=facts)
    some = views_of(FewGraphs(many, torch.tensor([4, 1])), [4, 1], epoch=3, facts=facts)
    start = many.sizes.cumsum(0) - many.sizes
    for ours, theirs in zip(every, some, strict=True):
        place = torch.cat([torch.arange(7) + start[4], torch.arange(9) + start[1]])
        assert torch.equal(ours.x[place], theirs.x)
        edges = ours.hops[0].edges
        moved = [
            edges[:, (edges[0] >= start[g]) & (edges[0] < start[g] + n)] - start[g] + to
            for g, n, to in ((4, 7, 0), (1, 9, 7))
        ]
        assert torch.equal(torch.cat(moved, dim=1), theirs.hops[0].edges)
    elsewhere = views_of(FewGraphs(many, torch.tensor([4, 1])), [0, 1], epoch=3, facts=facts)
    assert not torch.equal(elsewhere[0].x[:7], some[0].x[:7])
    assert torch.equal(elsewhere[0].x[7:], some[0].x[7:])


@pytest.mark.parametrize("facts", [{"neighbors": (3, 3)}, {"nodes_per_graph": 5}])
def test_what_processes_would_not_share_evenly_is_refused(facts, monkeypatch):
    monkeypatch.setattr("similitude.graphs.views.world_size", lambda: 2)
    GraphViewConfig().on(GraphFacts(3))
    with pytest.raises(UserError, match="in one process: leave out --devices"):
        GraphViewConfig().on(GraphFacts(3, **facts))
