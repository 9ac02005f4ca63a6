"""Patches come from their places, are drawn one by one, and depend on nothing else."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from similitude.errors import UserError
from similitude.images.views import (
    Canvases,
    ImageFacts,
    ImageView,
    MultiView,
    PatchView,
    PatchViewConfig,
    contact_sheet,
    cut_patches,
    evaluation_view,
)
from similitude.images.views.patches import patch_starts
from similitude.sample import Draw

SPEC = ImageFacts(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
PLAIN = {"crop_scale": (1.0, 1.0), "flip": 0.0, "patch_size": 8, "grid": 5, "patch_crop": 1.0}


def canvases(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


def view(**changes):
    return PatchView(PatchViewConfig(**{**PLAIN, **changes}), SPEC)


def drawn(patch_view, n=6, epoch=0, aspect=None, index=None):
    index = torch.arange(n) if index is None else index
    rows = Canvases(canvases(len(index)), aspect)
    (parameters,) = patch_view.draw(Draw(0, epoch, index, [0]), rows)
    return parameters


def made(patch_view, parameters, n=6):
    (patches,) = patch_view.apply(Canvases(canvases(n)), [parameters])
    return patches


def test_the_papers_grids():
    assert patch_starts(256, 64, 7).tolist() == list(range(0, 193, 32))  # CPC
    assert patch_starts(260, 80, 6).tolist() == list(range(0, 181, 36))  # CPC v2
    assert patch_starts(32, 8, 4).tolist() == [0, 8, 16, 24]
    assert patch_starts(28, 8, 4).tolist() == [0, 7, 13, 20]  # to the nearest pixel
    assert patch_starts(8, 8, 1).tolist() == [0]


def test_predicted_patches_share_no_pixel_with_what_is_known():
    """In the published grids the nearest predicted row begins below the last known one."""
    for size, patch, grid, skip in ((256, 64, 7, 1), (260, 80, 6, 2), (32, 8, 5, 1)):
        starts = patch_starts(size, patch, grid)
        assert (starts[skip + 1 :] >= starts[: -skip - 1] + patch).all()
        assert (starts[skip:] < starts[:-skip] + patch).all() or grid == 5


@pytest.mark.parametrize(("size", "patch", "grid"), [(32, 40, 2), (32, 28, 6)])
def test_a_grid_that_does_not_fit_is_told(size, patch, grid):
    with pytest.raises(UserError, match=f"{grid} patches of {patch} px do not fit .* {size} px"):
        patch_starts(size, patch, grid)


def test_unchanged_patches_are_those_of_evaluation():
    views = MultiView(view())(Canvases(canvases()), torch.arange(6), seed=0, epoch=0)
    expected = cut_patches(evaluation_view(Canvases(canvases()), SPEC), 8, 5)
    assert views[0].shape == (6, 5, 5, 3, 8, 8)
    torch.testing.assert_close(views[0], expected, atol=1e-6, rtol=0)
    image = evaluation_view(Canvases(canvases()), SPEC)
    torch.testing.assert_close(expected[2, 1, 3], image[2, :, 6:14, 18:26])


def test_a_part_of_each_patch_is_shown_and_moves():
    patch_view = view(patch_crop=0.75)
    parameters = drawn(patch_view)
    patches = made(patch_view, parameters)
    image = evaluation_view(Canvases(canvases()), SPEC)
    border = torch.ones(8, 8, dtype=torch.bool)
    border[1:7, 1:7] = False
    assert not patches[..., border].any()  # the mean color
    for n, row, column in ((0, 0, 0), (3, 4, 1), (5, 2, 4)):
        top = int(parameters.top[n, 5 * row + column]) + 6 * row
        left = int(parameters.left[n, 5 * row + column]) + 6 * column
        part = image[n, :, top : top + 6, left : left + 6]
        shown = patches[n, row, column, :, 1:7, 1:7]
        torch.testing.assert_close(shown, part, atol=1e-6, rtol=0)
    assert sorted(parameters.top.unique().tolist()) == [0, 1, 2]
    assert (parameters.top != parameters.left).any()


@pytest.mark.slow
def test_choices_of_a_patch_are_applied_to_it_as_torchvision_does():
    config = {
        "patch_flip": 0.5,
        "patch_jitter_probability": 0.7,
        "patch_grey": 0.3,
        "patch_drop": 0.4,
    }
    patch_view = view(**config)
    parameters = drawn(patch_view)
    patches = made(patch_view, parameters).flatten(0, 2)
    plain = view(normalize=False)
    originals = made(plain, drawn(plain)).flatten(0, 2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (SPEC.mean, SPEC.std))
    flat = type(parameters)(parameters.image, *(field.flatten() for field in parameters[1:]))
    for i, patch in enumerate(originals):
        if flat.flip[i]:
            patch = patch.flip(2)
        if flat.jitter[i]:
            patch = tv.adjust_brightness(patch, float(flat.brightness[i]))
            patch = tv.adjust_contrast(patch, float(flat.contrast[i]))
            patch = tv.adjust_saturation(patch, float(flat.saturation[i]))
            patch = tv.adjust_hue(patch, float(flat.hue[i]))
        if flat.grey[i]:
            patch = tv.rgb_to_grayscale(patch, num_output_channels=3)
        expected = (patch - mean) / std
        if flat.kept[i] >= 0:
            dropped = torch.arange(3) != flat.kept[i]
            expected[dropped] = 0
        torch.testing.assert_close(patches[i], expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "kept"])
def test_patches_of_an_image_choose_on_their_own_at_the_given_rate(name):
    patch_view = view(patch_flip=0.3, patch_jitter_probability=0.3, patch_grey=0.3, patch_drop=0.3)
    chosen = getattr(drawn(patch_view, n=2000), name)
    if name == "kept":
        rates = torch.tensor([(chosen == channel).double().mean() for channel in range(3)])
        torch.testing.assert_close(rates, torch.full((3,), 0.1).double(), atol=0.01, rtol=0)
        chosen = chosen >= 0
    chosen = chosen.double()
    assert chosen.mean().item() == pytest.approx(0.3, abs=0.01)
    correlations = torch.corrcoef(chosen.T) - torch.eye(25)
    assert correlations.abs().max() < 0.12  # neither alike nor exclusive


def test_a_sample_gives_the_same_patches_in_any_batch():
    patch_view = MultiView(
        view(crop_scale=(0.5, 0.9), patch_crop=0.8, patch_flip=0.5, patch_jitter_probability=0.5)
    )
    pixels, index = canvases(), torch.arange(10, 16)
    (whole,) = patch_view(Canvases(pixels), index, seed=1, epoch=2)
    order = torch.tensor([4, 0, 5])
    (part,) = patch_view(Canvases(pixels[order]), index[order], seed=1, epoch=2)
    torch.testing.assert_close(part, whole[order], atol=1e-6, rtol=0)
    (later,) = patch_view(Canvases(pixels), index, seed=1, epoch=3)
    assert not torch.equal(later, whole)


def test_the_crop_is_a_square_of_the_original_also_where_images_are_not():
    aspect = torch.tensor([1.0, 2.0, 0.5]).repeat(200)
    box = drawn(view(crop_scale=(0.25, 0.25)), n=600, aspect=aspect).image
    square, wide, tall = (torch.arange(i, 600, 3) for i in range(3))
    assert (box.height[square] == 16).all()
    assert (box.width[square] == 16).all()
    assert (box.height[wide] == 16).all()  # half of the short side, which is the height
    assert (box.width[wide] == 8).all()
    assert (box.height[tall] == 8).all()
    assert (box.width[tall] == 16).all()
    assert (box.left[wide].min(), box.left[wide].max()) == (0, 24)  # all over the image


def test_square_images_are_cropped_as_by_an_image_view():
    patch_view = view(crop_scale=(0.3, 0.9), crop_ratio=(0.8, 1.25), flip=0.5)
    alone = ImageView(patch_view.config, SPEC)
    expected = alone.draw(Draw(0, 0, torch.arange(50), [0]), Canvases(canvases(50)))
    for name, a, b in zip(expected._fields, drawn(patch_view, n=50).image, expected, strict=True):
        assert name == "operations" or torch.equal(a, b), name


def test_pixels_stay_in_range_without_normalization():
    patch_view = view(normalize=False, patch_jitter_probability=1.0, patch_crop=0.8)
    (patches,) = MultiView(patch_view)(Canvases(canvases()), torch.arange(6), seed=0, epoch=0)
    assert patches.min() >= 0
    assert patches.max() <= 1


def test_the_contact_sheet_shows_a_grid_of_patches():
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    pixels[:, 0, :, 16:] = 255  # the right half is red
    sheet = contact_sheet(Canvases(pixels), MultiView(view()), SPEC, columns_per_view=1)
    assert sheet.size == (20 + 96 + 20 + 96 + 20, 46 + 2 * 96 + 4 + 20)
    cell = torch.from_numpy(np.array(sheet.crop((136, 46, 232, 142))))
    assert (cell[:, :14] < 60).all(dim=2).float().mean() > 0.7  # black patches
    right = cell[:, -14:]
    assert ((right[..., 0] > 200) & (right[..., 1] < 60)).float().mean() > 0.7
    assert (cell > 200).all(dim=2).any(dim=1).float().mean() > 0.95  # white lines between


def test_a_batch_without_any_jittered_patch_is_made():
    patch_view = view(patch_jitter_probability=1e-9)
    patches = made(patch_view, drawn(patch_view, n=2), 2)
    plain = view(patch_jitter_probability=0.0)
    assert torch.equal(patches, made(plain, drawn(plain, n=2), 2))
    assert made(patch_view, drawn(patch_view, n=0), 0).shape == (0, 5, 5, 3, 8, 8)
