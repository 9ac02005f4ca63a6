"""Recipes: functions that return a complete Recipe, by the name the command line takes."""

from collections.abc import Callable
from inspect import isfunction
from pathlib import Path
from types import ModuleType

from similitude.errors import UserError, did_you_mean
from similitude.files.writing import as_path
from similitude.methods import METHODS
from similitude.recipes import audio, cifar10, fashion_mnist, graphs, imagenet, multimodal, small
from similitude.recipes.recipe import (
    OptimizerConfig,
    Recipe,
    arithmetic_of,
    dump_recipe,
    field_text,
    load_recipe,
    override,
    parse_recipe,
    touched_fields,
    validated,
)

__all__ = [
    "RECIPES",
    "OptimizerConfig",
    "Recipe",
    "arithmetic_of",
    "dump_recipe",
    "field_text",
    "find_recipe",
    "load_recipe",
    "override",
    "parse_recipe",
    "touched_fields",
    "validated",
]


def _named(data: ModuleType) -> dict[str, Callable[[], Recipe]]:
    """The recipes of a module: its public functions."""
    name = data.__name__.rpartition(".")[2]
    own = {k: f for k, f in vars(data).items() if getattr(f, "__module__", "") == data.__name__}
    return {f"{name}.{k}": f for k, f in own.items() if isfunction(f) and not k.startswith("_")}


def _small() -> dict[str, Callable[[], Recipe]]:
    """A recipe for small photos of every method for images."""

    def made(template: Callable[[], Recipe]) -> Callable[[], Recipe]:
        return lambda: small.for_small_photos(template())

    return {f"small.{n}": made(getattr(cifar10, n)) for n in METHODS if hasattr(cifar10, n)}


# A function in one of these files is a recipe. imagenet: as published, with accelerators in mind;
# cifar10 and small: short runs of a few thousand images, on two cores of a processor.
RECIPES: dict[str, Callable[[], Recipe]] = {
    **_named(audio),
    **_named(cifar10),
    **_named(fashion_mnist),
    **_named(graphs),
    **_named(imagenet),
    **_named(multimodal),
    **_small(),
}


def find_recipe(name_or_file: str | Path) -> Recipe:
    """A recipe by its name in RECIPES, or from a YAML file.

    Raises:
        UserError: neither a known name nor a readable recipe file.
    """
    name = str(name_or_file)
    if name in RECIPES:
        return RECIPES[name]()
    if as_path(name).exists() or name.endswith((".yaml", ".yml")) or "/" in name:
        return load_recipe(as_path(name))
    raise UserError(f"unknown recipe {name!r}: {did_you_mean(name, RECIPES)}")
