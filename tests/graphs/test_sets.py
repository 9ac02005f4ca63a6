"""Nodes and small graphs as samples: plain numbers, pictures, copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from similitude.data.source import numbered
from similitude.graphs.many import ManyGraphs
from similitude.graphs.sets import GraphSet, NodeSet
from similitude.graphs.views import GraphFacts, GraphViewConfig
from similitude.sample import MultiView


@pytest.fixture
def nodes(graph):
    return NodeSet(graph, torch.arange(200), numbered(200), torch.arange(200) % 3)


@pytest.fixture
def graphs(many):
    return GraphSet(many, torch.arange(6), numbered(6), torch.arange(6) % 2)


def test_plain_numbers_of_nodes(nodes, graph):
    some = nodes.subset([5, 3])
    assert torch.equal(some.raw(), graph.x[[5, 3]])
    assert list(some.baselines()) == [
        *("1 step of propagation", "2 steps of propagation", "3 steps of propagation")
    ]
    assert torch.equal(some.baselines()["3 steps of propagation"], graph.propagated[2][[5, 3]])
    assert some.labels.tolist() == [2, 0]


def test_features_that_count_words_keep_one_scale(nodes, graph):
    counts = (torch.rand(graph.x.shape) < 0.2).float()
    assert NodeSet(replace(graph, x=counts), nodes.index, nodes.names).has_one_scale("raw features")
    ages_and_incomes = 1 + torch.rand(graph.x.shape)
    others = NodeSet(replace(graph, x=ages_and_incomes), nodes.index, nodes.names)
    assert not others.has_one_scale("raw features")


def test_plain_numbers_of_graphs(graphs, many):
    some = graphs.subset(torch.tensor([False, True, False, False, False, False]))
    torch.testing.assert_close(some.raw(), many.graph.x[3:12].mean(dim=0, keepdim=True))
    name = "mean of 2 steps of propagation"
    expected = many.graph.propagated[1][3:12].mean(dim=0, keepdim=True)
    torch.testing.assert_close(some.baselines()[name], expected)


def test_pictures(nodes, graphs):
    for samples, facts in (
        (nodes, GraphFacts(300)),
        (nodes, GraphFacts(300, neighbors=(3, 3))),
        (graphs, GraphFacts(40, nodes_per_graph=5)),
    ):
        view = GraphViewConfig().on(facts)
        sheet = samples.sheet(MultiView(view, view), facts, seed=0)
        assert sheet.size == (3 * 64, min(8, len(samples)) * 64)
        thumbnails = samples.thumbnails(32)
        assert thumbnails.shape == (len(samples), 32, 32, 3)
        assert len(np.unique(thumbnails)) > 1


def test_a_graph_with_more_nodes_than_pixels_is_a_picture_too(graph):
    samples = GraphSet(ManyGraphs(graph, torch.tensor([200])), torch.arange(1), ["0"])
    shown = samples.thumbnails(16)[0, :, :, 0]
    assert shown[0].mean() < shown[-1].mean()  # first nodes have most edges


def test_copies_and_fingerprints(graphs, many, nodes):
    assert graphs.copies() == nodes.copies() == 0
    assert graphs.subset([0, 0, 1, 2]).copies() == pytest.approx(0.25)
    cut_elsewhere = replace(graphs, graphs=ManyGraphs(many.graph, many.sizes.flip(0)))
    assert graphs.fingerprint() != cut_elsewhere.fingerprint()
    assert graphs.fingerprint() != graphs.subset([0, 1]).fingerprint()
