"""A start from published weights decides network and pixels, and the run stays near it."""

import pytest
import torch

from similitude.images.backbones import BackboneConfig
from similitude.nets.start import Start
from similitude.recipes import cifar10
from similitude.recipes.adapting import choose_adapting, starting_from
from similitude.recipes.choose import Surroundings
from similitude.recipes.recipe import InitConfig
from similitude.recipes.sizes import view_sizes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def start_of(network: str) -> Start:
    """Published weights of a network, which no choice looks at."""
    state, mean, std = {"weight": torch.zeros(1)}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    return Start("some-weights", "ours", BackboneConfig(name=network), state, 224, mean, std, [])


@pytest.mark.slow
def test_adapting_takes_pixels_and_network_of_its_start_and_stays_near_it():
    start = start_of("resnet18")
    recipe = choose_adapting("byol", Surroundings(2_000, [500], CPU), start)
    assert recipe.backbone == start.backbone
    assert (recipe.data.image_size, recipe.data.mean, recipe.data.std) == (
        224,
        start.mean,
        start.std,
    )
    assert view_sizes(recipe) == [128, 128]  # a CPU affords no more
    assert recipe.init.fingerprint == start.fingerprint
    assert 0 < recipe.init.frozen < 1
    assert 0 < recipe.init.average < 1
    assert view_sizes(choose_adapting("byol", Surroundings(2_000, [500], GPU), start)) == [224, 224]
    assert recipe.data.canvas_size == 256
    assert choose_adapting("byol", Surroundings(2_000, [60], CPU), start).data.canvas_size == 60
    moco = choose_adapting("moco_v2", Surroundings(2_000, [500], CPU), start).method
    assert moco.bn_splits == 1  # published networks may have layers that cannot be split
    diet = choose_adapting("diet", Surroundings(2_000, [500], CPU), start).method
    assert (diet.label_smoothing, diet.normalize) == (0.3, True)  # DIET-CP
    fixed = start_of("vit_tiny_patch16_224")
    assert view_sizes(choose_adapting("byol", Surroundings(2_000, [500], CPU), fixed)) == [224, 224]


def test_a_named_recipe_with_a_start_takes_its_network_and_keeps_the_rest():
    start = start_of("resnet34")
    recipe = starting_from(cifar10.byol(), start)
    assert recipe.backbone.name == "resnet34"
    assert recipe.init == InitConfig(name="some-weights", fingerprint=start.fingerprint)
    assert recipe.optimizer == cifar10.byol().optimizer
