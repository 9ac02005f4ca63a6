"""What is chosen fits the images and the machine, and every choice has its reason."""

import pytest
import torch

from similitude.methods import METHODS
from similitude.recipes import cifar10, override
from similitude.recipes.automatic import (
    Facts,
    choose_epochs,
    choose_normalisation,
    choose_recipe,
    choose_view_sizes,
    shorten_warmup,
    view_sizes,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_cifar_images_get_the_cifar_recipe(name):
    recipe = choose_view_sizes(choose_recipe(name, Facts(50_000, [32], CPU)))
    template = getattr(cifar10, name)()
    assert recipe.model_copy(update={"reasons": {}}) == template


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize(("side", "image", "view"), [(8, 16, 12), (28, 28, 21), (64, 64, 48)])
def test_views_of_small_images_are_three_quarters_as_large(name, side, image, view):
    recipe = choose_view_sizes(choose_recipe(name, Facts(50_000, [side], CPU)))
    assert recipe.image_size == image
    assert set(view_sizes(recipe)) == {view}
    for field in recipe.method.view_configs:
        assert "three quarters" in recipe.reasons[f"method.{field}.size"]


def test_views_follow_a_given_image_size_and_backbone_and_a_given_size_stays():
    recipe = choose_recipe("byol", Facts(50_000, [28], CPU))
    larger = choose_view_sizes(override(recipe, ["image_size=48"]))
    assert view_sizes(larger) == [36, 36]
    vit = choose_view_sizes(override(recipe, ["backbone.name=vit_tiny_patch16_224"]))
    assert view_sizes(vit) == [28, 28]
    given = override(recipe, ["method.view2.size=10"])
    assert view_sizes(choose_view_sizes(given, ["method.view2.size"])) == [21, 10]


@pytest.mark.parametrize(
    ("device", "size", "backbone"), [(CPU, 96, "resnet18"), (GPU, 224, "resnet50")]
)
def test_large_images_get_the_backbone_the_machine_affords(device, size, backbone):
    recipe = choose_recipe("simclr", Facts(50_000, [300, 500, 640], device))
    assert (recipe.image_size, recipe.backbone.name) == (size, backbone)
    assert recipe.backbone.stem == "standard"
    assert set(view_sizes(choose_view_sizes(recipe))) == {size}


@pytest.mark.parametrize("images", [16, 100, 700, 5_000])
@pytest.mark.parametrize("name", ["moco_v1", "moco_v2"])
def test_batch_queue_and_splits_fit_few_images(name, images):
    recipe = choose_recipe(name, Facts(images, [32], CPU))
    config = recipe.method
    assert 8 <= recipe.batch_size <= max(8, images // 4)
    assert recipe.batch_size % config.bn_splits == 0
    assert config.queue_length >= 2 * recipe.batch_size


def test_a_given_batch_size_is_kept():
    recipe = choose_recipe("moco_v2", Facts(50_000, [32], CPU), batch_size=30)
    assert recipe.batch_size == 30
    assert 30 % recipe.method.bn_splits == 0


def test_epochs_fill_ten_minutes_on_a_cpu():
    recipe = choose_recipe("simclr", Facts(1_000, [32], CPU))
    slow = choose_epochs(recipe, Facts(1_000_000, [32], CPU), 1000.0)
    some = choose_epochs(recipe, Facts(50_000, [32], CPU), 2200.0)
    few = choose_epochs(recipe, Facts(1_000, [32], CPU), 2200.0)
    assert (slow.epochs, some.epochs, few.epochs) == (1, 12, 200)
    assert choose_epochs(recipe, Facts(1_000_000, [32], GPU), 1.0).epochs == 200
    assert "10 minutes" in some.reasons["epochs"]


def test_warm_up_is_a_tenth_of_a_short_run_at_most():
    recipe = choose_recipe("simclr", Facts(1_000, [32], CPU))
    assert shorten_warmup(recipe.model_copy(update={"epochs": 2})).optimizer.warmup_epochs == 0.2
    assert shorten_warmup(recipe.model_copy(update={"epochs": 100})) == recipe.model_copy(
        update={"epochs": 100}
    )


def test_normalisation_is_that_of_the_pixels():
    from builders import random_images

    images = random_images(64)
    recipe = choose_normalisation(cifar10.simclr(), images, [])
    pixels = images.pixels.float() / 255
    assert recipe.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-3)
    assert recipe.std == pytest.approx(pixels.std(dim=(0, 2, 3)).tolist(), abs=1e-3)
    assert choose_normalisation(cifar10.simclr(), images, ["mean=[0,0,0]"]) == cifar10.simclr()
