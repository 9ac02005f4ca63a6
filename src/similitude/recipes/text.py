"""Recipes for texts, which are always beside another sensor."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from similitude.errors import UserError
from similitude.methods import make_config
from similitude.recipes.choose import Chooser, Surroundings, with_views
from similitude.recipes.recipe import OptimizerConfig, Recipe, because
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
        """A bag of tokens, or a transformer over them."""
        if name not in ("bag", "transformer"):
            raise UserError(f"unknown network for texts {name!r}: there are bag and transformer")
        assert isinstance(beside.backbone, TextNetworkConfig)
        return beside.backbone.changed(name=name)

    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Every network takes every text."""

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With a vocabulary that is learned from the texts, and a network of its size."""
        data = recipe.data
        assert isinstance(data, TextData)
        assert isinstance(samples, TextSet)
        if not data.vocabulary:
            found = learn_vocabulary(samples.texts, data.entries)
            why = f"{len(found):,} pieces of words, learned from these texts"
            recipe = because(recipe, why, **{"data.vocabulary": found})
        entries = len(recipe.data.vocabulary)  # type: ignore[attr-defined]
        sizes = {"entries": entries, "length": data.length}
        return recipe.changed(backbone=recipe.backbone.changed(**sizes))


CHOOSER = Text()
