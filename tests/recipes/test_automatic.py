"""What is chosen fits the images and the machine, and every choice has its reason."""

import pytest
import torch

from similitude.methods import METHODS
from similitude.recipes import cifar10, imagenet, override
from similitude.recipes.automatic import (
    Facts,
    choose_canvas_size,
    choose_epochs,
    choose_normalisation,
    choose_recipe,
    choose_view_sizes,
    input_sizes,
    shorten_warmup,
    view_sizes,
)
from similitude.views import ImageSpec, PatchView, PatchViewConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_cifar_images_get_the_cifar_recipe(name):
    recipe = choose_view_sizes(choose_recipe(name, Facts(50_000, [32], CPU)))
    template = getattr(cifar10, name)()
    if template.backbone.name.startswith("vit"):  # a ViT is for those who ask for the recipe
        template = template.model_copy(update={"backbone": cifar10.BACKBONE})
    assert recipe.model_copy(update={"reasons": {}}) == template


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize(("side", "image", "view"), [(8, 16, 12), (28, 28, 21), (64, 64, 48)])
def test_views_of_small_images_are_three_quarters_as_large(name, side, image, view):
    recipe = choose_view_sizes(choose_recipe(name, Facts(50_000, [side], CPU)))
    assert recipe.image_size == image
    for field, config in recipe.method.view_configs.items():
        if isinstance(config, PatchViewConfig):
            continue
        local = field == "local_view"  # half as large as the others
        assert config.size == (round(view / 2) if local else view)
        words = "beside the global" if local else "three quarters"
        assert words in recipe.reasons[f"method.{field}.size"]


@pytest.mark.parametrize("name", ["cpc_v1", "cpc_v2"])
@pytest.mark.parametrize(
    ("side", "device", "share"),
    [(8, CPU, 1 / 4), (28, CPU, 1 / 4), (300, CPU, None), (300, GPU, None)],
)
def test_patches_are_as_small_beside_the_image_as_in_the_recipe(name, side, device, share):
    recipe = choose_view_sizes(choose_recipe(name, Facts(50_000, [side], device)))
    view = recipe.method.view
    template = getattr(imagenet, name)()
    share = share or template.method.view.patch_size / template.image_size
    assert view.size is None
    assert view.patch_size == round(share * recipe.image_size)
    assert recipe.reasons["method.view.patch_size"]
    assert recipe.backbone.options == {"norm_layer": "groupnorm1"}
    assert view_sizes(recipe) == input_sizes(recipe) == [view.patch_size]
    PatchView(view, ImageSpec(recipe.image_size, (0.5,) * 3, (0.5,) * 3))  # the grid fits


def test_epochs_count_every_patch():
    facts = Facts(10_000, [32], CPU)
    one = choose_epochs(cifar10.simclr(), facts, 1000.0).epochs
    patches = choose_epochs(cifar10.cpc_v1(), facts, 25_000.0).epochs
    assert patches == pytest.approx(2 * one, abs=1)  # one view of 25 patches, not two views


def test_views_follow_a_given_image_size_and_backbone_and_a_given_size_stays():
    recipe = choose_recipe("byol", Facts(50_000, [28], CPU))
    larger = choose_view_sizes(override(recipe, ["image_size=48"]))
    assert view_sizes(larger) == [36, 36]
    vit = choose_view_sizes(override(recipe, ["backbone.name=vit_tiny_patch16_224"]))
    assert view_sizes(vit) == [28, 28]
    given = override(recipe, ["method.view2.size=10"])
    assert view_sizes(choose_view_sizes(given, ["method.view2.size"])) == [21, 10]


def test_canvases_follow_a_given_image_size_and_a_given_size_stays():
    recipe = choose_recipe("simclr", Facts(50_000, [300], CPU))
    larger = override(recipe, ["image_size=224"])
    assert choose_canvas_size(larger, ["image_size"]).canvas_size == 256
    given = override(recipe, ["image_size=224", "canvas_size=230"])
    assert choose_canvas_size(given, ["image_size", "canvas_size"]).canvas_size == 230
    small = override(choose_recipe("simclr", Facts(50_000, [32], CPU)), ["image_size=48"])
    assert choose_canvas_size(small, ["image_size"]).canvas_size is None


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


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_local_views_of_large_images_stay_as_small_as_in_the_paper(name):
    on_cpu = choose_view_sizes(choose_recipe(name, Facts(50_000, [300], CPU)))
    assert on_cpu.image_size == 96
    assert on_cpu.method.local_view.size == 41  # 96 of 224
    on_gpu = choose_view_sizes(choose_recipe(name, Facts(50_000, [300], GPU)))
    assert on_gpu.method.local_view.size == 96


def test_local_views_count_for_the_epochs_by_their_area():
    """Two local views of half the side cost as much as half a global one."""
    facts = Facts(50_000, [32], CPU)
    simclr, swav = (
        choose_epochs(choose_recipe(name, facts), facts, 2200.0) for name in ("simclr", "swav")
    )
    assert swav.method.local_views == 2
    assert swav.epochs == round(simclr.epochs * 2 / 2.5)
