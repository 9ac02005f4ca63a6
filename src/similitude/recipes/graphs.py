"""Recipes for graphs: a step sees a whole one, or neighbors of some nodes, or some small graphs."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.graphs.networks import GraphNetworkConfig
from similitude.graphs.samples import GraphData, GraphSource
from similitude.graphs.views import GraphViewConfig
from similitude.method import MethodConfig, Role
from similitude.methods import make_config
from similitude.methods.barlow_twins import BarlowTwinsConfig, BarlowTwinsHSICConfig
from similitude.recipes.choose import Chooser, Surroundings, set_num_samples, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because
from similitude.sample import MultiView

WIDTH = 256  # of a network for nodes, and of every layer of a head
WIDTH_OF_MANY = 64  # of one for small graphs, as their number is small too
LEARNING_RATE = 1e-3  # whatever the number of nodes or graphs in a batch
NEIGHBORS = 10  # sampled for a node in each layer, as in the code of Graph Barlow Twins
BATCH_SIZE = 1024  # nodes whose neighbors are sampled; there 256 to 2,048
BATCH_OF_MANY = 128
# GB that a step over all nodes may take. About as large a step takes six seconds on one core, so
# that no more than the fewest that make sense fit into ten minutes.
LARGEST_STEP = 2.0
# Nodes of a step at most in methods whose loss compares each with each: 20,000 take 20 seconds.
MOST_COMPARED = 10_000
_COMPARE_ALL = ("simclr", "simclr_v2", "inva_spread", "end_to_end", "moco_v3")

# Graph Barlow Twins has no projector; another rate for biases and norms is for LARS alone.
_SETTINGS: dict[str, dict[str, Any]] = {
    "barlow_twins": {"projector_layers": 0, "bias_lr_scale": 1.0},
    "barlow_twins_hsic": {"projector_layers": 0, "bias_lr_scale": 1.0},
    "byol": {"ema_decay": 0.99},
}


def graph_barlow_twins() -> Recipe:
    """Graph Barlow Twins on WikiCS (Bielak et al. 2021, Sec. 4 and the authors' code)."""
    view = GraphViewConfig(mask_features=0.1, drop_edges=0.5)
    return _recipe("barlow_twins", view=view, rate=5e-4, epochs=1000)


def graph_barlow_twins_hsic() -> Recipe:
    """The same with correlations drawn to -1 (Tsai et al. 2021), an option of its code."""
    view = GraphViewConfig(mask_features=0.1, drop_edges=0.5)
    return _recipe("barlow_twins_hsic", view=view, rate=5e-4, epochs=1000)


def barlow_twins() -> Recipe:
    """Graph Barlow Twins in a minute, on a graph such as Cora."""
    return _recipe("barlow_twins")


def barlow_twins_hsic() -> Recipe:
    """The same with correlations drawn to -1."""
    return _recipe("barlow_twins_hsic")


def byol() -> Recipe:
    """BYOL on nodes, which BGRL (Thakoor et al. 2022) is without a projector."""
    return _recipe("byol")


def grace() -> Recipe:
    """GRACE on Cora (Zhu et al. 2020, the authors' code): SimCLR's loss, two kinds of views."""
    view = GraphViewConfig(mask_features=(0.3, 0.4), drop_edges=(0.2, 0.4))
    settings = {"temperature": 0.4, "projector_norm": False}
    recipe = _recipe("simclr", view=view, width=128, rate=5e-4, **settings)
    constant = {"name": "adam", "schedule": "constant", "warmup_epochs": 0}
    return recipe.changed(optimizer=recipe.optimizer.changed(**constant))


def _recipe(
    name: str,
    *,
    view: GraphViewConfig | None = None,
    width: int = WIDTH,
    rate: float = LEARNING_RATE,
    epochs: int = 200,
    **settings: Any,
) -> Recipe:
    config = make_config(name, _SETTINGS.get(name, {}) | settings)
    recipe = Recipe(
        method=_on_graphs(config, view or GraphViewConfig(), width),
        data=GraphData(),
        backbone=GraphNetworkConfig(width=width),
        optimizer=OptimizerConfig(
            name="adamw", base_lr=rate, weight_decay=1e-5, warmup_epochs=epochs / 10
        ),
        epochs=epochs,
        batch_size=256,
        precision="float32",
        memory_format="contiguous",
        attention="fused",
        compile=False,
    )
    # with a reason it is made to fit the graph: see to_fit
    recipe = because(recipe, "a batch that fits the graph", batch_size=256)
    return because(recipe, f"a rate of {rate:g}", **{"optimizer.base_lr": rate})


def _on_graphs(config: MethodConfig, view: GraphViewConfig, width: int) -> MethodConfig:
    """The method with views of graphs and narrow heads."""
    config = with_views(config, view)
    config = config.changed(**dict.fromkeys(config.in_role(Role.WIDTH), width))
    if isinstance(config, BarlowTwinsConfig | BarlowTwinsHSICConfig):
        config = config.changed(off_diagonal_weight=1 / width)
    return config


_MEASURED = ("num_features", "degree", "nodes_per_graph")  # and kept in the recipe


@dataclass(frozen=True)
class Around(Surroundings):
    """What the choices depend on: also the graph.

    Attributes:
        num_nodes: Of the graph, or of all of them.
        num_features: Of a node.
        degree: Neighbors of a node, on average; at least 1.
        nodes_per_graph: On average, where graphs are the samples; None where nodes are.
    """

    num_nodes: int = 1
    num_features: int = 1
    degree: int = 1
    nodes_per_graph: int | None = None


class Graphs(Chooser):
    """What :mod:`similitude.training.choose` asks about graphs."""

    default_method = "barlow_twins"

    def surroundings(self, source: GraphSource, num_samples: int | None = None) -> Around:
        """The numbers of samples, nodes and features."""
        count, features = source.graph.x.shape
        degree = max(1, round(source.graph.edges.shape[1] / count))
        each = None if source.sizes is None else max(1, round(count / len(source.sizes)))
        return Around(
            **vars(Surroundings.of(source, [features], num_samples)),
            num_nodes=count,
            num_features=features,
            degree=degree,
            nodes_per_graph=each,
        )

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """All nodes in every step where they fit; else a sample of neighbors; or small graphs."""
        assert isinstance(around, Around)
        if around.nodes_per_graph is not None:
            recipe = _recipe(method, width=WIDTH_OF_MANY)
            network = GraphNetworkConfig(name="gin", width=WIDTH_OF_MANY, layers=3)
            recipe = because(recipe, "many small graphs", backbone=network)
        else:
            named = {"simclr": grace}
            recipe = named[method]() if method in named else _recipe(method)
            if (why := _too_large(recipe, around)) is not None:
                recipe = because(recipe, why, **{"data.neighbors": _neighbors(recipe)})
        recipe = _with_batch(recipe, around, batch_size)
        fitted = recipe.method.fitted(around.num_samples, recipe.batch_size, world_size())
        for name, (value, reason) in fitted.items():
            recipe = because(recipe, reason, **{f"method.{name}": value})
        return recipe

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return barlow_twins()

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> GraphNetworkConfig:
        """A GCN, a GAT or a GIN."""
        known = ("gcn", "gat", "gin")
        if name not in known:
            raise UserError(f"unknown network for graphs {name!r}: there are {', '.join(known)}")
        assert isinstance(beside.backbone, GraphNetworkConfig)
        return beside.backbone.changed(name=name)

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With what the nodes have, and what is not given made to fit each other."""
        assert isinstance(around, Around)
        found = {name: getattr(around, name) for name in _MEASURED}
        recipe = recipe.changed(
            data=recipe.data.changed(**found),
            backbone=recipe.backbone.changed(in_features=around.num_features),
        )
        if "data.neighbors" in recipe.reasons:
            recipe = recipe.with_value("data.neighbors", _neighbors(recipe))
        said = recipe.batch_size, recipe.reasons.get("batch_size")
        if said[1] is not None and said != _batch(recipe, around):
            recipe = _with_batch(recipe, around)
        return recipe

    def sizes(self, recipe: Recipe, given: Collection[str], *, views: bool) -> Recipe:
        """With the weight of Graph Barlow Twins for another width."""
        method, network, weight = recipe.method, recipe.backbone, "method.off_diagonal_weight"
        if not isinstance(method, BarlowTwinsConfig | BarlowTwinsHSICConfig):
            return recipe
        assert isinstance(network, GraphNetworkConfig)
        width = network.width
        if not views or weight in given or method.projector_layers:
            return recipe
        if method.off_diagonal_weight == 1 / width:
            return recipe
        return because(recipe, f"1 / d for {width} features", **{weight: 1 / width})

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Refuse what graphs are not cut into, and send some through the network."""
        data = recipe.data
        assert isinstance(data, GraphData)
        if recipe.micro_batch_size is not None:
            raise UserError("a graph is not cut into micro-batches: leave out --micro-batch-size")
        if data.neighbors is not None and data.nodes_per_graph is not None:
            raise UserError("neighbors are sampled of one large graph: leave out data.neighbors")
        view = MultiView(GraphViewConfig().on(recipe.facts))
        made = view(data.noise(4), torch.arange(4), seed=0, epoch=0)
        with torch.no_grad():
            network.eval()(made[0])

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With the number of samples."""
        return set_num_samples(recipe, len(samples))


def _too_large(recipe: Recipe, around: Around) -> str | None:
    """Why a step should not be over all nodes; None where it may be."""
    network, count = recipe.backbone, around.num_nodes
    assert isinstance(network, GraphNetworkConfig)
    # what layers keep for two views, 4 bytes each, and as much again for gradients: of 20,000 to
    # 60,000 nodes within a tenth of what was measured
    each = around.num_features + 2 * network.width * (4 * (network.layers - 1) + 1)
    gigabytes = 16 * count * each / 1e9
    if gigabytes > LARGEST_STEP:
        return f"a step over all {count:,} nodes would take {gigabytes:.1f} GB"
    if recipe.method.name in _COMPARE_ALL and count > MOST_COMPARED:
        return f"the loss would compare all {count:,} nodes with each other"
    return None


def _neighbors(recipe: Recipe) -> tuple[int, ...]:
    """As many for each layer."""
    assert isinstance(recipe.backbone, GraphNetworkConfig)
    return (NEIGHBORS,) * recipe.backbone.layers


def _batch(recipe: Recipe, around: Around) -> tuple[int, str]:
    """Samples of a step, and why so many."""
    assert isinstance(recipe.data, GraphData)
    size, why = around.num_samples, "all nodes see each other in every step"
    if around.nodes_per_graph is not None:
        size, why = BATCH_OF_MANY, "many steps in a short run"
        while size > 8 and size > around.num_samples // 4:
            size //= 2
    elif recipe.data.neighbors is not None:
        size, why = min(BATCH_SIZE, size), "nodes of which each samples its neighbors"
    return size // world_size() * world_size(), why


def _with_batch(recipe: Recipe, around: Around, size: int | None = None) -> Recipe:
    """With a batch that fits, and the same rate whatever its size."""
    chosen, why = _batch(recipe, around)
    rate = recipe.optimizer.base_lr * recipe.batch_size / 256
    recipe = because(recipe, why, batch_size=size or chosen)
    if "optimizer.base_lr" not in recipe.reasons:
        return recipe
    per_256 = {"optimizer.base_lr": rate * 256 / recipe.batch_size}
    return because(recipe, f"a rate of {rate:g}", **per_256)


CHOOSER = Graphs()
