"""Graphs are pretrained, scored, reported and resumed by the commands that take images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import similitude as sim
from builders import Ears
from similitude.graphs.samples import GraphData
from similitude.modalities import modality, modality_of
from similitude.recipes import find_recipe
from similitude.recipes.duration import seconds_per_step

NODES = 120  # of the file
NEIGHBORS = {"overrides": ["neighbors=[3, 2]"], "batch_size": 40}


def bits(run):
    return run.checkpoint.method


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["barlow_twins", "barlow_twins_hsic", "byol", "simclr", "moco_v2"]
)
def test_a_method_of_images_trains_on_a_graph_as_it_is(file, tmp_path, method):
    run = sim.pretrain(file, method=method, out=tmp_path / "r", epochs=6, report=False)
    assert run.recipe.data.num_features == run.recipe.backbone.in_features == 24
    assert run.recipe.batch_size == NODES
    assert run.embed(file).x.shape == (NODES, run.recipe.backbone.width)
    again = sim.pretrain(file, recipe=run.recipe, out=tmp_path / "s", report=False)
    assert all(torch.equal(bits(again)[key], value) for key, value in bits(run).items())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["gat", "gin"])
def test_other_networks(file, tmp_path, network):
    run = sim.pretrain(file, backbone=network, out=tmp_path / "r", epochs=4, report=False)
    assert run.recipe.backbone.name == network
    assert run.embed(file).x.shape == (NODES, 256)


@pytest.mark.slow
def test_it_is_scored_beside_what_needs_no_learning(file, tmp_path):
    run = sim.pretrain(file, out=tmp_path / "r", epochs=30)
    table = run.evaluate(file, protocols=["knn", "linear"])
    assert list(table.rows) == [
        *("raw features", "1 step of propagation", "2 steps of propagation"),
        *("3 steps of propagation", "random backbone", "pretrained backbone"),
    ]
    assert table.rows["raw features"]["knn"].mean < table.rows["2 steps of propagation"]["knn"].mean
    assert "2 steps of propagation" in run.report().read_text()
    assert (run.path / "views.png").stat().st_size > 0


@pytest.mark.slow
def test_small_graphs_are_scored_too(molecules, tmp_path):
    ears = Ears()
    run = sim.pretrain(molecules, method="simclr", out=tmp_path / "r", epochs=10, listener=ears)
    assert ears.sentences[0].startswith("60 graphs in ")
    assert run.recipe.data.nodes_per_graph == 6
    assert (run.recipe.backbone.name, run.recipe.batch_size) == ("gin", 8)
    table = run.evaluate(molecules, protocols=["knn"])
    assert list(table.rows) == [
        *("mean of raw features", "mean of 1 step of propagation"),
        *("mean of 2 steps of propagation", "mean of 3 steps of propagation"),
        *("random backbone", "pretrained backbone"),
    ]
    assert table.rows["pretrained backbone"]["knn"].mean > 0.9
    assert run.embed(molecules).y.tolist() == [1 - i % 2 for i in range(60)]
    assert "<img" in run.report().read_text()


class StopsAt:
    def __init__(self, step):
        self.step = step

    def say(self, sentence):
        pass

    def progress(self, what, done, total, note=""):
        if what == "training" and done == self.step:
            import signal

            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "options"), [("file", {}), ("file", NEIGHBORS), ("molecules", {"batch_size": 20})]
)
def test_a_stopped_run_goes_on_with_the_same_bits(fixture, options, tmp_path, request):
    data = request.getfixturevalue(fixture)
    options = {"epochs": 10, "report": False, **options}
    whole = sim.pretrain(data, out=tmp_path / "whole", **options)
    assert sim.pretrain(data, out=tmp_path / "r", listener=StopsAt(5), **options) is None
    resumed = sim.pretrain(data, out=tmp_path / "r", resume=True, report=False)
    assert all(torch.equal(bits(resumed)[key], value) for key, value in bits(whole).items())


@pytest.mark.slow
def test_all_nodes_are_embedded_and_those_of_the_parts_are_scored(file, tmp_path):
    arrays = dict(np.load(file))
    train = np.arange(len(arrays["y"])) % 3 == 0
    np.savez(file, **arrays, train_mask=train, test_mask=~train)
    run = sim.pretrain(file, out=tmp_path / "r", epochs=4, report=False)
    found, own = run.embed(file), {}
    assert found.names == [f"{i:05d}" for i in range(NODES)]
    snippet = run.export(tmp_path / "kept.safetensors")
    exec(snippet.replace("GRAPH", str(file)), own)  # as a user does
    torch.testing.assert_close(own["features"].detach(), found.x, rtol=1e-4, atol=1e-5)
    assert run.evaluate(file, protocols=["knn"]).num_train == NODES // 3


@pytest.mark.slow
def test_a_run_is_given_graphs_like_those_it_knows(file, molecules, tmp_path):
    run = sim.pretrain(file, out=tmp_path / "r", epochs=2, report=False)
    other = SimpleNamespace(x=torch.rand(8, 3), edge_index=torch.tensor([[0, 1], [1, 2]]), y=None)
    with pytest.raises(sim.UserError, match="the graph has 3 features of a node, and the run was"):
        run.embed(other)
    with pytest.raises(sim.UserError, match="is many graphs, and the run was trained on one"):
        run.embed(molecules)


def test_an_object_of_torch_geometric_is_a_graph_and_a_folder_of_photos_is_none(tmp_path):
    data = SimpleNamespace(x=torch.rand(8, 3), edge_index=torch.tensor([[0, 1], [1, 2]]), y=None)
    assert modality_of(data).kind == "graph"
    assert len(modality_of(data).open_training(data, None)) == 8
    assert modality_of(tmp_path).kind == modality_of(torch.rand(4, 8, 8)).kind == "image"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init": "timm:resnet18"}, "no published weights"),
        ({"micro_batch_size": 16}, "not cut into micro-batches"),
        ({"backbone": "resnet18"}, "there are gcn, gat, gin"),
        ({"overrides": ["neighbors=[3, 3, 3]"]}, "data.neighbors has 3 numbers and the network 2"),
        ({"overrides": ["neighbors=[3]"]}, "data.neighbors"),
        ({"backbone": "gat", "overrides": ["backbone.heads=3"]}, "do not divide among 3 heads"),
        ({"method": "cpc_v1"}, "needs views that such data does not have"),
    ],
)
def test_what_a_graph_has_not_is_one_sentence(file, tmp_path, options, words):
    with pytest.raises(sim.UserError, match=words):
        sim.pretrain(file, out=tmp_path / "r", epochs=1, **options)


def test_neighbors_are_of_one_large_graph(molecules, tmp_path):
    with pytest.raises(sim.UserError, match="sampled of one large graph"):
        sim.pretrain(molecules, out=tmp_path / "r", overrides=["neighbors=[3, 3, 3]"], epochs=1)


def test_views_of_named_recipes_are_drawn_on_both_kinds(file, molecules, tmp_path):
    for data in (file, molecules):
        for options in ({"recipe": "graphs.grace"}, {"method": "byol"}):
            sim.draw_views(data, tmp_path / "v.png", **options)
            assert (tmp_path / "v.png").stat().st_size > 0


def test_noise_costs_what_samples_do():
    tree = GraphData(num_features=4, neighbors=(3, 2)).noise(5)
    assert len(tree) == 5
    assert torch.bincount(tree.graph.edges[1]).tolist() == [3] * 5 + [2] * 15
    assert len(tree.graph) == 5 + 15 + 30
    rings = GraphData(num_features=4, nodes_per_graph=6, degree=3).noise(5).plain()
    assert rings.x.shape == (30, 4)
    assert rings.hops[0].degree.tolist() == [1 + 3] * 30
    assert (rings.hops[0].edges // 6)[0].tolist() == (rings.hops[0].edges // 6)[1].tolist()


def test_more_edges_and_more_neighbors_take_longer():
    def seconds(network="gcn", **data):
        recipe = find_recipe("graphs.barlow_twins")
        recipe = recipe.with_value("backbone.name", network)
        return seconds_per_step(recipe.changed(data=GraphData(**data)), torch.device("cpu"))

    for network in ("gcn", "gat", "gin"):
        assert seconds(network, degree=30) > 1.5 * seconds(network)
    assert seconds(neighbors=(10, 10)) > 1.5 * seconds(neighbors=(2, 2)) > seconds()


def test_recipes_from_before_there_were_other_networks_load():
    kind = modality("graph")
    old = {"name": "gcn", "in_features": 1433, "width": 256}
    assert kind.network_config.model_validate(old).layers == 2
    names = {"first.weight", "norm.weight", "act.weight", "last.weight", "last.bias"}
    state = kind.network_config(**old).build().state_dict()
    assert names < state.keys()
    assert state["first.weight"].shape == (512, 1433)
