"""Pictures without an upper side are told from those with one, gray ones from colored ones."""

import dataclasses
import tarfile

import pytest
import torch

from builders import random_images
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.recipes import RECIPES, cifar10
from similitude.recipes.looks import choose_looks, choose_normalization, look_at

SIMCLR = RECIPES["small.simclr"]()


def pictures(pixels):
    return dataclasses.replace(random_images(len(pixels)), pixels=pixels.contiguous())


def noise(n=400, side=32):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8)


def test_a_light_sky_makes_pictures_upright():
    torch.manual_seed(0)
    pixels = noise()
    assert not look_at(pictures(pixels)).upright
    pixels[:, :, :8] = (pixels[:, :, :8].float() * 0.3 + 170).byte()
    assert look_at(pictures(pixels)).upright


def test_stripes_have_a_direction():
    torch.manual_seed(0)
    pixels = noise()
    pixels[:, :, :, ::2] //= 2
    assert look_at(pictures(pixels)).upright


def test_the_whole_set_is_looked_at_not_its_beginning():
    torch.manual_seed(0)
    pixels = noise(999)
    pixels[:500] = pixels[:500, :1]
    assert not look_at(pictures(pixels)).gray


def test_pictures_with_edges_of_their_own_direction_are_not_turned():
    """Each has stripes, as many across as down: only single pictures tell."""
    torch.manual_seed(0)
    pixels = noise()
    pixels[::2, :, :, ::2] //= 2
    pixels[1::2, :, ::2] //= 2
    assert look_at(pictures(pixels)).upright


def test_a_view_that_is_given_stays():
    torch.manual_seed(0)
    recipe = SIMCLR
    assert choose_looks(recipe, pictures(noise()), ["method.view"]).method == recipe.method


def test_pictures_without_an_upper_side_get_strong_colors_and_no_weaker_ones_than_before():
    torch.manual_seed(0)
    images = pictures(noise())
    assert choose_looks(SIMCLR, images, []).method.view.jitter == (0.8, 0.8, 0.8, 0.2)
    given = choose_looks(SIMCLR, images, ["method.view.jitter"]).method.view
    assert given.jitter == SIMCLR.method.view.jitter  # set later, from what is given
    assert given.turn == 0.75
    strong = SIMCLR.model_copy(deep=True)
    view = strong.method.view.model_copy(update={"jitter": (1.0, 0.4, 0.4, 0.5)})
    strong = strong.model_copy(update={"method": strong.method.model_copy(update={"view": view})})
    assert choose_looks(strong, images, []).method.view.jitter == (1.0, 0.8, 0.8, 0.5)


def test_gray_pictures_get_no_changes_of_color_and_given_fields_stay():
    torch.manual_seed(0)
    pixels = noise()[:, :1].expand(-1, 3, -1, -1)
    images = pictures(pixels)
    assert look_at(images).gray
    assert not look_at(pictures(noise())).gray
    view = choose_looks(SIMCLR, images, []).method.view
    assert (view.jitter, view.grey, view.turn) == ((0.8, 0.8, 0.0, 0.0), 0.0, 0.75)
    given = choose_looks(SIMCLR, images, ["method.view.turn"])
    assert given.method.view.turn == 0
    assert "method.view.turn" not in given.reasons


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "folder", "upright"),
    [
        ("free-exercise-db-96px.tar", "exercises", True),
        ("white-blood-cells.tar", "set1/images", False),
    ],
)
def test_real_pictures(archive, folder, upright, shared_data_dir, tmp_path):
    with tarfile.open(shared_data_dir / archive) as tar:
        tar.extractall(tmp_path, filter="data")
    assert look_at(load_images(open_source(tmp_path / folder), 32)).upright == upright


def test_normalization_is_that_of_the_pixels():
    images = random_images(64)
    recipe = choose_normalization(cifar10.simclr(), images)
    pixels = images.pixels.float() / 255
    assert recipe.data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-3)
    assert recipe.data.std == pytest.approx(pixels.std(dim=(0, 2, 3)).tolist(), abs=1e-3)
    assert choose_normalization(cifar10.simclr(), images, ["mean"]) == cifar10.simclr()
