"""Recipes: functions that return a complete Recipe, by the name the command line takes."""

import difflib
from collections.abc import Callable
from pathlib import Path

from similitude.errors import UserError
from similitude.recipes import cifar10, fashion_mnist, imagenet
from similitude.recipes.recipe import (
    OptimizerConfig,
    Recipe,
    dump_recipe,
    load_recipe,
    override,
    parse_recipe,
)

__all__ = [
    "RECIPES",
    "OptimizerConfig",
    "Recipe",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "override",
    "parse_recipe",
]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "cifar10.byol": cifar10.byol,
    "cifar10.moco_v1": cifar10.moco_v1,
    "cifar10.moco_v2": cifar10.moco_v2,
    "cifar10.simclr": cifar10.simclr,
    "cifar10.simclr_v2": cifar10.simclr_v2,
    "cifar10.simsiam": cifar10.simsiam,
    "fashion_mnist.quickstart": fashion_mnist.quickstart,
    "imagenet.byol": imagenet.byol,
    "imagenet.moco_v1": imagenet.moco_v1,
    "imagenet.moco_v2": imagenet.moco_v2,
    "imagenet.simclr": imagenet.simclr,
    "imagenet.simclr_v2": imagenet.simclr_v2,
    "imagenet.simsiam": imagenet.simsiam,
}


def find_recipe(name_or_file: str | Path) -> Recipe:
    """A recipe by its name in RECIPES, or from a YAML file.

    Raises:
        UserError: neither a known name nor a readable recipe file.
    """
    name = str(name_or_file)
    if name in RECIPES:
        return RECIPES[name]()
    if Path(name).exists() or name.endswith((".yaml", ".yml")) or "/" in name:
        return load_recipe(Path(name))
    near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise UserError(f"unknown recipe {name!r}; {hint}known recipes: {', '.join(RECIPES)}")
