"""Views of images that are not red, green and blue, and of 16 bits."""

import pytest
import torch

from builders import random_images
from similitude.errors import UserError
from similitude.images.views import (
    Canvases,
    ImageFacts,
    ImageViewConfig,
    MultiView,
    PatchViewConfig,
    evaluation_view,
)

COLORS = {"jitter": (0.4, 0.4, 0.0, 0.0), "grey": 0.0}


def facts(channels, size=8):
    return ImageFacts(size, (0.0,) * channels, (1.0,) * channels)


def seen(config, canvases):
    view = MultiView(config.on(facts(canvases.pixels.shape[1])))
    return view(canvases, torch.arange(len(canvases)), seed=3, epoch=1)[0]


def test_channels_are_cropped_blurred_and_solarized_each_as_if_it_were_alone():
    pixels = random_images(6).pixels[:]
    config = ImageViewConfig(jitter_probability=0.0, grey=0.0, blur=1.0, solarize=0.5, turn=0.75)
    together = seen(config, Canvases(pixels.repeat(1, 2, 1, 1)[:, :5]))
    for channel in range(5):
        alone = seen(config, Canvases(pixels[:, channel % 3 : channel % 3 + 1]))
        assert torch.allclose(together[:, channel : channel + 1], alone, atol=1e-6)


def test_brightness_and_contrast_change_all_channels_as_they_change_gray_ones():
    gray = random_images(6).pixels[:][:, :1]
    config = ImageViewConfig(blur=0.0, jitter_probability=1.0, **COLORS)
    as_rgb = seen(config, Canvases(gray.expand(-1, 3, -1, -1)))
    for channels in (1, 2, 4):
        found = seen(config, Canvases(gray.repeat(1, channels, 1, 1)))
        assert torch.allclose(found, as_rgb[:, :1].expand(-1, channels, -1, -1), atol=1e-3)


@pytest.mark.parametrize("config", [ImageViewConfig(), PatchViewConfig(patch_size=4, grid=2)])
def test_bytes_times_257_are_the_same_views(config):
    pixels = random_images(5).pixels[:]
    deep = (pixels.int() * 257).to(torch.uint16)
    assert torch.allclose(seen(config, Canvases(deep)), seen(config, Canvases(pixels)), atol=1e-6)
    for size in (16, 9):
        both = [evaluation_view(Canvases(p), facts(3, size)) for p in (pixels, deep)]
        assert torch.allclose(*both, atol=1e-6)


def test_what_differs_below_eight_bits_is_told_apart():
    pixels = torch.full((1, 1, 8, 8), 1000, dtype=torch.int32)
    near = [Canvases((pixels + step).to(torch.uint16)) for step in (0, 1)]
    config = ImageViewConfig(jitter_probability=0.0, grey=0.0, blur=0.0)
    a, b = (seen(config, canvases) for canvases in near)
    assert torch.allclose(b - a, torch.full_like(a, 1 / 65535), rtol=1e-2)


@pytest.mark.parametrize(
    "config",
    [
        ImageViewConfig(),
        ImageViewConfig(grey=0.0),
        PatchViewConfig(patch_size=4, grid=2, patch_drop=0.5),
        PatchViewConfig(patch_size=4, grid=2, patch_jitter_probability=0.5),
    ],
)
def test_colors_are_refused_where_there_are_none_and_what_to_set_is_said(config):
    for channels in (1, 4):
        with pytest.raises(UserError, match=f"{channels} channel.*do not have: set its"):
            config.on(facts(channels))
        config.changed(**config.of_colors).on(facts(channels))
    assert config.on(facts(3))


def test_patches_of_four_channels():
    canvases = Canvases(random_images(4).pixels[:].repeat(1, 2, 1, 1)[:, :4])
    config = PatchViewConfig(patch_size=4, grid=2, patch_jitter_probability=0.9)
    patches = seen(config.changed(**config.of_colors), canvases)
    assert patches.shape == (4, 2, 2, 4, 4, 4)
    assert patches.isfinite().all()
