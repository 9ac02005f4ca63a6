"""What is chosen fits the images and the machine, and every choice has its reason."""

import pytest
import torch

from builders import IMAGE_METHODS
from similitude.images.views import ImageFacts, PatchView, PatchViewConfig
from similitude.recipes import RECIPES, arithmetic, budget, cifar10, duration, imagenet, override
from similitude.recipes.adapting import better_start
from similitude.recipes.choose import Surroundings
from similitude.recipes.duration import choose_epochs, shorten_warmup, too_few_steps
from similitude.recipes.images import choose_recipe
from similitude.recipes.recipe import InitConfig
from similitude.recipes.sizes import choose_canvas_size, choose_view_sizes, input_sizes, view_sizes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_cifar_images_get_the_cifar_recipe(name):
    recipe = choose_view_sizes(choose_recipe(name, Surroundings(50_000, [32], CPU)))
    template = getattr(cifar10, name)()
    if template.backbone.name.startswith("vit"):  # a ViT is for those who ask for the recipe
        template = template.model_copy(update={"backbone": cifar10.BACKBONE})
    assert recipe.model_copy(update={"reasons": {}}) == template


@pytest.mark.parametrize("name", IMAGE_METHODS)
@pytest.mark.parametrize(("side", "image", "view"), [(8, 16, 12), (28, 28, 21), (40, 40, 30)])
def test_views_of_small_images_are_three_quarters_as_large(name, side, image, view):
    recipe = choose_view_sizes(choose_recipe(name, Surroundings(50_000, [side], CPU)))
    assert recipe.data.image_size == image
    for field, config in recipe.method.view_configs.items():
        if isinstance(config, PatchViewConfig):
            continue
        local = field == "local_view"  # half as large as the others
        assert config.size == (round(view / 2) if local else view)
        words = "beside the global" if local else "three quarters"
        assert words in recipe.reasons[f"method.{field}.size"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpc_v1", "cpc_v2"])
@pytest.mark.parametrize(
    ("side", "device", "share"),
    [(8, CPU, 1 / 4), (28, CPU, 1 / 4), (50, CPU, 1 / 4), (300, GPU, None)],
)
def test_patches_are_as_small_beside_the_image_as_in_the_recipe(name, side, device, share):
    recipe = choose_view_sizes(choose_recipe(name, Surroundings(50_000, [side], device)))
    view = recipe.method.view
    template = getattr(imagenet, name)()
    share = share or template.method.view.patch_size / template.data.image_size
    assert view.size is None
    assert view.patch_size == round(share * recipe.data.image_size)
    assert recipe.reasons["method.view.patch_size"]
    assert recipe.backbone.options == {"norm_layer": "groupnorm1"}
    assert view_sizes(recipe) == input_sizes(recipe) == [view.patch_size]
    PatchView(view, ImageFacts(recipe.data.image_size, (0.5,) * 3, (0.5,) * 3))  # the grid fits


def test_views_follow_a_given_image_size_and_backbone_and_a_given_size_stays():
    recipe = choose_recipe("byol", Surroundings(50_000, [28], CPU))
    larger = choose_view_sizes(override(recipe, ["image_size=48"]))
    assert view_sizes(larger) == [36, 36]
    vit = choose_view_sizes(override(recipe, ["backbone.name=vit_tiny_patch16_224"]))
    assert view_sizes(vit) == [28, 28]
    given = override(recipe, ["method.view2.size=10"])
    assert view_sizes(choose_view_sizes(given, ["method.view2.size"])) == [21, 10]


@pytest.mark.slow
def test_canvases_follow_a_given_image_size_and_a_given_size_stays():
    recipe = choose_recipe("simclr", Surroundings(2_000, [300], CPU))
    larger = override(recipe, ["image_size=224"])
    assert choose_canvas_size(larger, ["image_size"]).data.canvas_size == 256
    given = override(recipe, ["image_size=224", "canvas_size=230"])
    assert choose_canvas_size(given, ["image_size", "canvas_size"]).data.canvas_size == 230
    small = override(choose_recipe("simclr", Surroundings(50_000, [32], CPU)), ["image_size=48"])
    assert choose_canvas_size(small, ["image_size"]).data.canvas_size is None


def test_many_large_images_on_an_accelerator_get_what_the_papers_have():
    recipe = choose_recipe("simclr", Surroundings(50_000, [300, 500, 640], GPU))
    assert (recipe.data.image_size, recipe.backbone.name) == (224, "resnet50")
    assert recipe.backbone.stem == "standard"
    assert set(view_sizes(choose_view_sizes(recipe))) == {224}


@pytest.fixture
def fast(monkeypatch):
    """A machine whose speed does not depend on where the tests run; set how fast it is."""

    def set_speed(factor):
        rates = budget._BFLOAT16["AVX-512 with bfloat16"].times(2 * factor)
        here = budget.Machine("a test", 2, rates, rates)
        monkeypatch.setattr(budget, "machine", lambda device: here)
        for module in (arithmetic, duration):
            monkeypatch.setattr(module, "machine", lambda device: here)

    set_speed(1)
    return set_speed


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_few_photos_get_thousands_of_steps_with_every_method(name, fast):
    around = Surroundings(2_000, [300, 500, 640], CPU)
    recipe = choose_epochs(choose_recipe(name, around), around.num_samples, CPU)
    assert recipe.data.image_size == 64
    assert recipe.data.canvas_size == 73
    assert recipe.backbone.base_width == 16
    assert recipe.epochs * (2_000 // recipe.batch_size) >= 4_000
    assert too_few_steps(recipe, around.num_samples, CPU) is None
    for field in ("data.image_size", "backbone", "epochs", "batch_size"):
        assert recipe.reasons[field]


@pytest.mark.slow
def test_more_time_or_a_faster_machine_buys_a_larger_network_not_steps_without_end(fast):
    around = Surroundings(2_000, [500], CPU)

    def chosen(minutes=None):
        recipe = choose_recipe("simclr", around, minutes=minutes)
        return recipe.data.image_size, recipe.backbone.base_width

    assert chosen() == (64, 16)
    assert chosen(minutes=60) == (96, 32)
    hour = chosen(minutes=60)
    fast(6)
    assert chosen() == hour


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpc_v1", "swav"])
def test_a_network_is_chosen_for_what_it_will_be_given(name, fast):
    """Patches and local views grow with the images, and cost what they then do."""
    around = Surroundings(2_000, [500], CPU)
    recipe = choose_epochs(choose_recipe(name, around, minutes=120), around.num_samples, CPU, 120)
    assert recipe.data.image_size > 64
    assert recipe.epochs * (2_000 // recipe.batch_size) >= 9_000


def test_no_network_is_looked_for_where_the_user_names_one(fast):
    around = Surroundings(2_000, [500], CPU)
    recipe = choose_recipe("simclr", around, minutes=600, own_backbone=True)
    assert recipe.data.image_size == 64
    assert "minutes" not in recipe.reasons["data.image_size"]  # nothing was counted


@pytest.mark.slow
def test_small_photos_are_not_enlarged(fast):
    recipe = choose_recipe("simclr", Surroundings(2_000, [50], CPU), minutes=600)
    assert recipe.data.image_size == 50


@pytest.mark.slow
def test_a_run_that_cannot_learn_in_its_time_says_what_would_be_enough(fast):
    around = Surroundings(2_000, [500], CPU)
    recipe = choose_recipe("simclr", around, minutes=0.5)
    short = choose_epochs(recipe, around.num_samples, CPU, 0.5)
    sentence = too_few_steps(short, around.num_samples, CPU)
    assert "too few" in sentence
    enough = int(sentence.split("--epochs ")[1].split(",")[0])
    assert (
        too_few_steps(short.model_copy(update={"epochs": enough}), around.num_samples, CPU) is None
    )
    assert (
        too_few_steps(short.model_copy(update={"epochs": enough - 1}), around.num_samples, CPU)
        is not None
    )


def test_steps_end_where_few_images_have_been_seen_often_enough(fast):
    fast(1000)
    around = Surroundings(300, [32], CPU)
    recipe = choose_epochs(choose_recipe("simclr", around), around.num_samples, CPU, 600)
    assert recipe.epochs == 500
    assert "by heart" in recipe.reasons["epochs"]
    assert too_few_steps(recipe, around.num_samples, CPU) is None


def test_few_images_without_published_weights_are_told_of_them():
    recipe = RECIPES["small.simclr"]()
    assert "--init" in better_start(recipe, 2_000)
    assert better_start(recipe, 60_000) is None
    init = InitConfig(name="some", fingerprint="0")
    started = recipe.model_copy(update={"init": init})
    assert better_start(started, 2_000) is None


@pytest.mark.slow
@pytest.mark.parametrize("images", [16, 100, 700, 5_000])
@pytest.mark.parametrize("name", ["moco_v1", "moco_v2"])
def test_batch_queue_and_splits_fit_few_images(name, images):
    recipe = choose_recipe(name, Surroundings(images, [32], CPU))
    config = recipe.method
    assert 8 <= recipe.batch_size <= max(8, images // 4)
    assert recipe.batch_size % config.bn_splits == 0
    assert config.queue_length >= 2 * recipe.batch_size
    assert choose_epochs(recipe, images, CPU).epochs >= 1  # it can be counted


@pytest.mark.slow
def test_a_given_batch_size_is_kept():
    recipe = choose_recipe("moco_v2", Surroundings(50_000, [32], CPU), batch_size=30)
    assert recipe.batch_size == 30
    assert choose_epochs(recipe, 50_000, CPU).epochs >= 1
    assert 30 % recipe.method.bn_splits == 0


@pytest.mark.slow
def test_epochs_fill_the_minutes_and_say_so(fast):
    around = Surroundings(4_000, [500], CPU)
    recipe = choose_recipe("simclr", around)
    ten = choose_epochs(recipe, around.num_samples, CPU)
    assert choose_epochs(recipe, around.num_samples, CPU, 20).epochs == pytest.approx(
        2 * ten.epochs, abs=1
    )
    assert "10 minutes" in ten.reasons["epochs"]
    assert choose_epochs(recipe, 10_000_000, CPU).epochs == 1


def test_warm_up_is_a_tenth_of_a_short_run_at_most():
    recipe = choose_recipe("simclr", Surroundings(1_000, [32], CPU))
    assert shorten_warmup(recipe.model_copy(update={"epochs": 2})).optimizer.warmup_epochs == 0.2
    assert shorten_warmup(recipe.model_copy(update={"epochs": 100})) == recipe.model_copy(
        update={"epochs": 100}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swav", "dino"])
def test_local_views_stay_as_small_as_in_the_recipe(name):
    on_cpu = choose_view_sizes(choose_recipe(name, Surroundings(2_000, [300], CPU)))
    assert on_cpu.method.local_view.size == 32  # half of 64
    on_gpu = choose_view_sizes(choose_recipe(name, Surroundings(50_000, [300], GPU)))
    assert on_gpu.method.local_view.size == 96
