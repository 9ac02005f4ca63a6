"""Recipes for texts, which are always beside another sensor."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from similitude.methods import make_config
from similitude.recipes.choose import Chooser, Surroundings, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because
from similitude.text.hugging_face import from_anywhere
from similitude.text.networks import TextNetworkConfig
from similitude.text.samples import TextData
from similitude.text.text_set import TextSet
from similitude.text.tokens import learn_vocabulary
from similitude.text.views import TextViewConfig


class Text(Chooser):
    """What :mod:`similitude.training.choose` asks about texts."""

    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """A bag of tokens."""
        return Recipe(
            method=with_views(make_config(method, {}), TextViewConfig()),
            data=TextData(),
            backbone=TextNetworkConfig(),
            optimizer=OptimizerConfig(name="adamw", base_lr=1e-3, weight_decay=0.1),
            epochs=60,
            batch_size=batch_size or 64,
        )

    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""
        return self.choose("simclr", Surroundings(2, (), torch.device("cpu")))

    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> TextNetworkConfig:
        """A bag of tokens, a transformer over them, or an encoder of Hugging Face's."""
        assert isinstance(beside.backbone, TextNetworkConfig)
        return beside.backbone.changed(name=name)

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Every network takes every text."""

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With a vocabulary that is learned from the texts, and a network of its size."""
        data, network = recipe.data, recipe.backbone
        assert isinstance(data, TextData)
        assert isinstance(network, TextNetworkConfig)
        assert isinstance(samples, TextSet)
        if network.is_published:
            network = network.changed(name=from_anywhere(network.name), length=data.length)
            network = network.changed(width=network.build().num_features)
            recipe = recipe.changed(backbone=network)
            return because(recipe, "the network's own", **{"data.tokenizer": network.name})
        if not data.vocabulary:
            found = learn_vocabulary(samples.texts, data.entries)
            why = f"{len(found):,} pieces of words, learned from these texts"
            recipe = because(recipe, why, **{"data.vocabulary": found})
        entries = len(recipe.data.vocabulary)  # type: ignore[attr-defined]
        sizes = {"entries": entries, "length": data.length}
        return recipe.changed(backbone=network.changed(**sizes))


CHOOSER = Text()
