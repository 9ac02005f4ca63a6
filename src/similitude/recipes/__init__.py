"""Recipes: functions that return a complete Recipe, by the name the command line takes."""

from collections.abc import Callable
from pathlib import Path

from similitude.errors import UserError, did_you_mean
from similitude.files.writing import as_path
from similitude.recipes import cifar10, fashion_mnist, imagenet, small
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

RECIPES: dict[str, Callable[[], Recipe]] = {
    "cifar10.barlow_twins": cifar10.barlow_twins,
    "cifar10.barlow_twins_hsic": cifar10.barlow_twins_hsic,
    "cifar10.byol": cifar10.byol,
    "cifar10.diet": cifar10.diet,
    "cifar10.dino": cifar10.dino,
    "cifar10.end_to_end": cifar10.end_to_end,
    "cifar10.cmc": cifar10.cmc,
    "cifar10.cpc_v1": cifar10.cpc_v1,
    "cifar10.cpc_v2": cifar10.cpc_v2,
    "cifar10.inst_disc": cifar10.inst_disc,
    "cifar10.inva_spread": cifar10.inva_spread,
    "cifar10.memory_bank": cifar10.memory_bank,
    "cifar10.moco_v1": cifar10.moco_v1,
    "cifar10.moco_v2": cifar10.moco_v2,
    "cifar10.moco_v3": cifar10.moco_v3,
    "cifar10.moco_v3_vit": cifar10.moco_v3_vit,
    "cifar10.raft": cifar10.raft,
    "cifar10.simclr": cifar10.simclr,
    "cifar10.simclr_v2": cifar10.simclr_v2,
    "cifar10.simsiam": cifar10.simsiam,
    "cifar10.simtriplet": cifar10.simtriplet,
    "cifar10.swav": cifar10.swav,
    "fashion_mnist.quickstart": fashion_mnist.quickstart,
    "imagenet.barlow_twins": imagenet.barlow_twins,
    "imagenet.barlow_twins_hsic": imagenet.barlow_twins_hsic,
    "imagenet.byol": imagenet.byol,
    "imagenet.diet": imagenet.diet,
    "imagenet.dino": imagenet.dino,
    "imagenet.dino_resnet50": imagenet.dino_resnet50,
    "imagenet.end_to_end": imagenet.end_to_end,
    "imagenet.cmc": imagenet.cmc,
    "imagenet.cpc_v1": imagenet.cpc_v1,
    "imagenet.cpc_v2": imagenet.cpc_v2,
    "imagenet.inst_disc": imagenet.inst_disc,
    "imagenet.inva_spread": imagenet.inva_spread,
    "imagenet.memory_bank": imagenet.memory_bank,
    "imagenet.moco_v1": imagenet.moco_v1,
    "imagenet.moco_v2": imagenet.moco_v2,
    "imagenet.moco_v3": imagenet.moco_v3,
    "imagenet.moco_v3_vit": imagenet.moco_v3_vit,
    "imagenet.raft": imagenet.raft,
    "imagenet.simclr": imagenet.simclr,
    "imagenet.simclr_v2": imagenet.simclr_v2,
    "imagenet.simsiam": imagenet.simsiam,
    "imagenet.simtriplet": imagenet.simtriplet,
    "imagenet.swav": imagenet.swav,
    **{f"small.{name}": recipe for name, recipe in small.ALL.items()},
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
