"""Recipes for graphs: one step sees all nodes, and takes a fraction of a second."""

from typing import Any

import torch
from torch import nn

from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.graphs.graph import GraphInput
from similitude.graphs.networks import GCNConfig
from similitude.graphs.samples import GraphData, GraphSource
from similitude.graphs.views import GraphViewConfig
from similitude.method import MethodConfig, Role
from similitude.methods import make_config
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because

LEARNING_RATE = 1e-3  # of AdamW, whatever the number of nodes
WIDTH = 256  # of the network and of every layer of a head


def barlow_twins() -> Recipe:
    """Graph Barlow Twins (Bielak et al. 2021) on Cora, with a linear projector.

    The paper has no projector. Masks, dropped edges and the weight 1 / D off the diagonal are its
    own (Sec. 4.2).
    """
    return _recipe("barlow_twins", projector_layers=1, off_diagonal_weight=1 / WIDTH)


def byol() -> Recipe:
    """BYOL on nodes, which BGRL (Thakoor et al. 2022) is without a projector."""
    return _recipe("byol", ema_decay=0.99)


def _recipe(name: str, **settings: Any) -> Recipe:
    config = make_config(name, settings)
    return Recipe(
        method=_on_graphs(config),
        data=GraphData(),
        backbone=GCNConfig(width=WIDTH),
        optimizer=OptimizerConfig(
            name="adamw", base_lr=LEARNING_RATE, weight_decay=1e-5, warmup_epochs=20
        ),
        epochs=200,
        batch_size=256,
        precision="float32",
        memory_format="contiguous",
        attention="fused",
        compile=False,
    )


def _on_graphs(config: MethodConfig) -> MethodConfig:
    """The method with views of graphs and narrow heads."""
    config = with_views(config, GraphViewConfig())
    return config.changed(**dict.fromkeys(config.in_role(Role.WIDTH), WIDTH))


class Graphs(Chooser):
    """What :mod:`similitude.training.choose` asks about graphs."""

    default_method = "barlow_twins"

    def surroundings(self, source: GraphSource, num_samples: int | None = None) -> Surroundings:
        """The number of nodes, and of their features."""
        return Surroundings.of(source, [source.graph.x.shape[1]], num_samples)

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """All nodes in every step."""
        known = {"barlow_twins": barlow_twins, "byol": byol}
        recipe = known[method]() if method in known else _recipe(method)
        size = batch_size or around.num_samples // world_size() * world_size()
        why = "all nodes see each other in every step"
        recipe = because(recipe, why, batch_size=size)
        fitted = recipe.method.fitted(around.num_samples, size, world_size())
        for name, (value, reason) in fitted.items():
            recipe = because(recipe, reason, **{f"method.{name}": value})
        # the rate does not grow with the graph
        rate = {"optimizer.base_lr": LEARNING_RATE * 256 / size}
        return because(recipe, f"a rate of {LEARNING_RATE:g}", **rate)

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return barlow_twins()

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> GCNConfig:
        """A GCN."""
        if name != "gcn":
            raise UserError(f"unknown network for graphs {name!r}: there is gcn")
        assert isinstance(beside.backbone, GCNConfig)
        return beside.backbone if keep else GCNConfig(width=beside.backbone.width)

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With as many inputs as nodes have features."""
        count = around.short_side
        return recipe.changed(
            data=recipe.data.changed(num_features=count),
            backbone=recipe.backbone.changed(in_features=count),
        )

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Refuse micro-batches, which would each need the whole graph."""
        if recipe.micro_batch_size is not None:
            raise UserError("a graph is not cut into micro-batches: leave out --micro-batch-size")
        assert isinstance(recipe.data, GraphData)
        rows = recipe.data.noise(4)
        with torch.no_grad():
            network.eval()(GraphInput(rows.graph.x, rows.graph.edges, rows.index))

    def fit(self, recipe: Recipe, samples: Any, given: Any, *, pixels: bool, views: bool) -> Recipe:
        """With the number of nodes."""
        return set_num_samples(recipe, len(samples))


CHOOSER = Graphs()
