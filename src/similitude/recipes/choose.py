"""What chooses recipes for a kind of data, and what the choices depend on."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from similitude.data.source import Source
from similitude.devices import best_device
from similitude.distributed import world_size
from similitude.errors import UserError
from similitude.method import MethodConfig, Role
from similitude.recipes.recipe import Recipe, because
from similitude.sample import NetworkConfig, ViewConfig


@dataclass(frozen=True)
class Surroundings:
    """What the choices depend on: the samples and the machine."""

    num_samples: int
    short_sides: Sequence[int]  # of some of the samples: pixels
    device: torch.device
    name: str = "the data"

    @classmethod
    def of(
        cls, source: Source, short_sides: Sequence[int] = (), num_samples: int | None = None
    ) -> "Surroundings":
        """Those of so many samples of a source, on this machine."""
        count = len(source) if num_samples is None else num_samples
        return cls(count, short_sides, best_device(), source.name)

    @property
    def short_side(self) -> int:
        """The median short side."""
        return int(median(self.short_sides))


class Chooser(ABC):
    """What is not given is chosen here, for one kind of data; only the first four are needed."""

    default_method = "simclr"

    @abstractmethod
    def choose(
        self,
        method: str,
        around: Surroundings,
        batch_size: int | None = None,
        minutes: float | None = None,
        *,
        own_network: bool = False,
    ) -> Recipe:
        """A recipe for these samples on this machine, without precision and epochs."""

    @abstractmethod
    def any_recipe(self) -> Recipe:
        """One whose data fields are those of all."""

    def any_data(self, source: Any) -> Any:
        """A config with which some samples of a source can be looked at."""
        return self.any_recipe().data

    @abstractmethod
    def network(self, name: str, beside: Recipe, *, keep: bool = False) -> NetworkConfig:
        """The network of this name, in the way of a recipe's.

        Args:
            name: as a user gives it.
            beside: whose network it takes the place of.
            keep: take that network as it is where it has the same name.
        """

    @abstractmethod
    def check(self, recipe: Recipe, network: nn.Module) -> None:
        """Refuse a network that does not take what it will be given.

        Raises:
            UserError: says what to do.
        """

    def surroundings(self, source: Any, num_samples: int | None = None) -> Surroundings:
        """What choices depend on, for so many samples of a source."""
        return Surroundings.of(source, (), num_samples)

    def adapt(
        self, method: str, around: Surroundings, start: Any, batch_size: int | None = None
    ) -> Recipe:
        """A recipe that goes on from published weights, and stays near them."""
        raise UserError("there are no published weights for such data: leave out --init")

    def started(self, recipe: Recipe, start: Any) -> Recipe:
        """A named recipe with published weights to begin with."""
        raise UserError("there are no published weights for such data: leave out --init")

    def evaluated_as_trained(self, recipe: Recipe) -> Recipe:
        """With evaluations whose inputs are as large as those of training."""
        return recipe

    def better_start(self, recipe: Recipe, num_samples: int) -> str | None:
        """A sentence on published weights where they would be better."""
        return None

    def settle(self, recipe: Recipe, source: Any) -> Recipe:
        """With what was found in the source."""
        return recipe

    def to_fit(self, recipe: Recipe, around: Surroundings) -> Recipe:
        """With what the network must know of the samples."""
        return recipe

    def sizes(self, recipe: Recipe, given: Collection[str], *, views: bool) -> Recipe:
        """With sizes that fit each other where some are given, of views too if they are free."""
        return recipe

    def fit(
        self, recipe: Recipe, samples: Any, given: Collection[str], *, pixels: bool, views: bool
    ) -> Recipe:
        """With what is measured on the samples.

        Args:
            recipe: all else is chosen.
            samples: to be trained on.
            given: fields that stay as they are.
            pixels: whether the scale of the numbers is free.
            views: whether the views are.
        """
        return set_num_samples(recipe, len(samples))

    def as_used(self, recipe: Recipe) -> Recipe:
        """As a run writes it down."""
        return recipe


def with_views(config: MethodConfig, view: ViewConfig) -> MethodConfig:
    """A method with this view in the place of those of another kind.

    Raises:
        UserError: its views are part of what it is, as CPC's patches are.
    """
    others = {n: view for n, own in config.view_configs.items() if own.kind != view.kind}
    try:
        return config.changed(**others)
    except ValidationError as error:
        raise UserError(
            f"{config.name} needs views that such data does not have: choose another --method"
        ) from error


def with_batch(recipe: Recipe, around: Surroundings, batch_size: int | None, why: str) -> Recipe:
    """With the batch that is given, else one of at most a quarter of the samples.

    Memory and parts of a batch are made to fit it and the number of samples.

    Args:
        recipe: its batch is what is wanted where there are enough samples.
        around: the samples.
        batch_size: as the user gave it.
        why: the reason for the recipe's own.
    """
    size = batch_size or recipe.batch_size
    while batch_size is None and size > 8 and size > around.num_samples // 4:
        size //= 2
    size = size if batch_size else max(1, size // world_size()) * world_size()
    recipe = because(recipe, why, batch_size=size)
    fitted = recipe.method.fitted(around.num_samples, size, world_size())
    for name, (value, reason) in fitted.items():
        recipe = because(recipe, reason, **{f"method.{name}": value})
    return recipe


def set_num_samples(recipe: Recipe, num_samples: int) -> Recipe:
    """Tell a method that keeps something of every sample how many there are."""
    method = recipe.method.of_samples(num_samples)
    if method == recipe.method:
        return recipe
    banks = {f"method.{name}": num_samples for name in method.in_role(Role.BANK)}
    return because(recipe, "the number of images", **banks)
