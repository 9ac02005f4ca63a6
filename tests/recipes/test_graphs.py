"""What is chosen for graphs: how much of one a step sees, and rates that fit it."""

import numpy as np
import pytest
import torch
from torch import nn

from similitude.graphs.graph import Graph
from similitude.graphs.samples import GraphSource
from similitude.method import Batch, Progress
from similitude.methods import build_method
from similitude.recipes import RECIPES, find_recipe
from similitude.recipes.graphs import CHOOSER, NEIGHBORS
from similitude.training.choose import choose
from similitude.training.request import PretrainRequest

NAMES = [name for name in RECIPES if name.startswith("graphs.")]


def source(nodes=1000, features=8, sizes=None):
    edges = torch.randint(0, nodes, (2, 4 * nodes))
    count = nodes if sizes is None else len(sizes)
    return GraphSource(
        name="it",
        names=[""] * count,
        graph=Graph(torch.zeros(nodes, features), edges),
        sizes=sizes,
        index=torch.arange(count),
    )


def chosen(data, *assignments, **options):
    request = PretrainRequest(None, overrides=assignments, epochs=10, **options)
    return choose(request, CHOOSER, CHOOSER.surroundings(data))


def rate(recipe):
    return recipe.optimizer.base_lr * recipe.batch_size / 256


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        *(("graphs.graph_barlow_twins", 5e-4), ("graphs.graph_barlow_twins_hsic", 5e-4)),
        *(("graphs.barlow_twins", 1e-3), ("graphs.byol", 1e-3), ("graphs.grace", 5e-4)),
    ],
)
def test_a_named_recipe_sees_all_nodes_at_its_rate(name, peak):
    recipe = chosen(source(), recipe=name)
    assert recipe.batch_size == 1000
    assert recipe.data.num_features == recipe.backbone.in_features == 8
    assert rate(recipe) == pytest.approx(peak)


def test_graph_barlow_twins_is_the_published_one():
    recipe = find_recipe("graphs.graph_barlow_twins")
    assert (recipe.epochs, recipe.optimizer.warmup_epochs) == (1000, 100)
    assert (recipe.optimizer.name, recipe.optimizer.weight_decay) == ("adamw", 1e-5)
    assert recipe.method.projector_layers == 0
    assert recipe.method.off_diagonal_weight == 1 / recipe.backbone.width == 1 / 256


@pytest.mark.parametrize(("name", "target"), [("barlow_twins", 0), ("barlow_twins_hsic", -1)])
def test_the_loss_is_the_published_one_without_a_projector(name, target):
    """Written again with NumPy, from Sec. 3.3 of Bielak et al.: lambda = 1 / D."""
    config = find_recipe(f"graphs.graph_{name}").method.changed(off_diagonal_weight=1 / 6)
    backbone = nn.Identity()
    backbone.num_features = 6
    views = [torch.randn(40, 6, dtype=torch.float64) for _ in range(2)]
    views[1] += views[0]
    method = build_method(config, backbone).double()
    found = method.training_loss(Batch(views, torch.arange(40)), Progress(0, 10, 10)).loss.item()
    a, b = ((z - z.mean(axis=0)) / z.std(axis=0) for z in (view.numpy() for view in views))
    c = a.T @ b / 40
    own = np.eye(6, dtype=bool)
    expected = ((1 - c[own]) ** 2).sum() + ((target - c[~own]) ** 2).sum() / 6
    assert found == pytest.approx(expected, rel=1e-4)  # BatchNorm adds 1e-5 to the variance


def test_grace_has_two_kinds_of_views():
    method = find_recipe("graphs.grace").method
    assert (method.name, method.temperature) == ("simclr", 0.4)
    assert method.view.mask_features == (0.3, 0.4)
    assert method.view.drop_edges == (0.2, 0.4)
    assert chosen(source(), method="simclr").method == method


def test_a_graph_that_does_not_fit_into_a_step_is_sampled():
    small = chosen(source())
    assert small.data.neighbors is None
    large = chosen(source(nodes=400_000))
    assert large.data.neighbors == (NEIGHBORS, NEIGHBORS)
    assert large.batch_size == 1024
    assert large.reasons["data.neighbors"] == "a step over all 400,000 nodes would take 16.4 GB"
    assert rate(large) == pytest.approx(rate(small)) == pytest.approx(1e-3)
    deeper = chosen(source(nodes=400_000), "backbone.layers=3")
    assert deeper.data.neighbors == (NEIGHBORS,) * 3


def test_a_loss_that_compares_all_nodes_has_fewer_of_them():
    assert chosen(source(nodes=12_000), method="simclr").data.neighbors is not None
    assert chosen(source(nodes=12_000), method="byol").data.neighbors is None


def test_what_is_given_stays_and_the_rest_fits_it():
    sampled = chosen(source(nodes=4000), "neighbors=[5, 4]")
    assert (sampled.data.neighbors, sampled.batch_size) == ((5, 4), 1024)
    assert rate(sampled) == pytest.approx(1e-3)
    assert "samples its neighbors" in chosen(source(), "neighbors=[5, 4]").reasons["batch_size"]
    own = chosen(source(nodes=4000), "neighbors=[5, 4]", "optimizer.base_lr=0.5", batch_size=64)
    assert (own.batch_size, own.optimizer.base_lr) == (64, 0.5)
    assert chosen(source(nodes=400_000), "neighbors=null").batch_size == 400_000
    narrow = chosen(source(), "backbone.width=64")
    assert narrow.method.off_diagonal_weight == 1 / 64
    told = chosen(source(), "backbone.width=64", "method.off_diagonal_weight=0.5")
    assert told.method.off_diagonal_weight == 0.5
    with_head = chosen(source(), "backbone.width=64", "method.projector_layers=1")
    assert with_head.method.off_diagonal_weight == 1 / 256


def test_many_small_graphs_have_batches_of_some():
    recipe = chosen(source(nodes=6000, sizes=torch.full((300,), 20)))
    assert recipe.data.nodes_per_graph == 20
    assert (recipe.backbone.name, recipe.batch_size) == ("gin", 64)
    assert recipe.method.off_diagonal_weight == 1 / recipe.backbone.width
    named = chosen(source(nodes=6000, sizes=torch.full((300,), 20)), recipe="graphs.byol")
    assert (named.backbone.name, named.batch_size) == ("gcn", 64)
