"""Views that a GPU makes have the pixels of those that the processor makes.

Choices are drawn on the processor, so that only rounding differs: of all numbers but one in ten
thousand by less than a twentieth of 1/255, black to white being 1. The rest may be more: a hue at
the border of two sextants, a pixel at the threshold of solarization.
"""

from typing import Any

import numpy as np
import pytest
import torch

from similitude.audio.clips import Clips, Waves
from similitude.audio.spectrograms import Mel
from similitude.audio.views import AudioFacts, AudioViewConfig
from similitude.images.views import Canvases, ImageFacts, ImageViewConfig, PatchViewConfig
from similitude.recipes import RECIPES
from similitude.sample import MultiView
from similitude.video.films import Films, Frames
from similitude.video.views import VideoFacts, VideoViewConfig

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unchecked_runs", "exact")]

NUMBER = 24
NEAR, FARTHER = 0.05 / 255, 1e-4  # what most numbers stay within; share of the others
MEL_NEAR = 1e-3  # of the logarithm of an energy, which rounding moves most where it is small
WHOLE = {"jitter_probability": 1.0, "blur": 1.0, "normalize": False}
SETTINGS = {
    "crop and flip": ImageViewConfig(jitter_probability=0, grey=0, blur=0, normalize=False),
    "bicubic": ImageViewConfig(interpolation="bicubic", normalize=False),
    "enlarged": ImageViewConfig(size=160, crop_scale=(0.01, 0.1), normalize=False),
    "one draw": ImageViewConfig(crop_attempts=0, crop_ratio=(0.5, 2), normalize=False),
    "turned": ImageViewConfig(turn=1.0, normalize=False),
    "brightness": ImageViewConfig(jitter=(0.8, 0, 0, 0), normalize=False),
    "contrast": ImageViewConfig(jitter=(0, 0.8, 0, 0), normalize=False),
    "saturation": ImageViewConfig(jitter=(0, 0, 0.8, 0), normalize=False),
    "hue": ImageViewConfig(jitter=(0, 0, 0, 0.5), **WHOLE),
    "all": ImageViewConfig(jitter=(0.8, 0.8, 0.8, 0.2), grey=0.5, solarize=0.5, **WHOLE),
    "narrow blur": ImageViewConfig(blur_kernel=0.1, **WHOLE),
    "normalized": ImageViewConfig(),
    "patches": PatchViewConfig(patch_size=16, grid=5),
    "changed patches": PatchViewConfig(
        patch_size=16,
        grid=5,
        grey=0.5,
        blur=0.5,
        jitter_probability=0.5,
        patch_flip=0.5,
        patch_grey=0.5,
        patch_drop=0.5,
        patch_crop=0.8,
        patch_jitter_probability=0.8,
    ),
}


def views_of(config: Any, facts: Any, rows: Any, device: torch.device) -> list[Any]:
    views = MultiView(*[config.on(facts)] * 2)
    return views(rows.to(device), torch.arange(len(rows)), seed=3, epoch=1)


def assert_near(gpu: torch.device, config: Any, facts: Any, rows: Any, near: float) -> None:
    cpu = torch.device("cpu")
    made = zip(views_of(config, facts, rows, gpu), views_of(config, facts, rows, cpu), strict=True)
    for ours, expected in made:
        assert ours.shape == expected.shape
        assert ours.device.type == gpu.type
        far = (ours.cpu() - expected).abs() > near
        assert float(far.double().mean()) < FARTHER


def canvases(channels: int, dtype: torch.dtype = torch.uint8) -> Canvases:
    """Of smooth shapes and some noise, as photos are; aspects of their own."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(NUMBER, channels, 6, 6, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=draw)
    pixels = (noisy.clamp(0, 1) * torch.iinfo(dtype).max).to(dtype)
    return Canvases(pixels, torch.rand(NUMBER, generator=draw) + 0.5)


@pytest.mark.parametrize("name", SETTINGS)
def test_images(gpu, name):
    assert_near(gpu, SETTINGS[name], ImageFacts(64, (0.4,) * 3, (1.0,) * 3), canvases(3), NEAR)


PUBLISHED = {
    repr(view): view
    for name, recipe in RECIPES.items()
    if name.startswith("imagenet.")
    for view in recipe().method.view_configs.values()
}


@pytest.mark.parametrize("config", PUBLISHED.values(), ids=range(len(PUBLISHED)))
def test_views_of_the_published_recipes(gpu, config):
    std = (0.25,) * 3 if config.normalize else (1.0,) * 3
    side = 260 if isinstance(config, PatchViewConfig) else 64
    assert_near(gpu, config, ImageFacts(side, (0.4,) * 3, std), canvases(3), NEAR / min(std))


def test_deep_images_of_two_channels(gpu):
    config = ImageViewConfig(jitter=(0.4, 0.4, 0, 0), grey=0, solarize=0.5, normalize=False)
    assert_near(
        gpu, config, ImageFacts(64, (0.4,) * 2, (1.0,) * 2), canvases(2, torch.uint16), NEAR
    )


MEL = Mel(8_000, 256, 80, 24, 0.0, 4_000.0)
SOUNDS = {
    "cut": AudioViewConfig(seconds=0.3, mix=0, resize=False, standardize=False),
    "mixed and resized": AudioViewConfig(seconds=0.3),
    "waves changed": AudioViewConfig(
        seconds=0.3,
        speed=3,
        reverb=0.5,
        noise=0.5,
        gain_db=6,
        fade=1,
        mask_time=0.3,
        mask_bands=0.3,
        standardize=False,
    ),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(gpu, name):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1_000, 6_000, NUMBER)
    samples = rng.integers(-9_000, 9_000, lengths.sum()).astype(np.int16)
    waves = Waves(samples, np.cumsum(lengths) - lengths, lengths, MEL.rate)
    rows = Clips(waves, torch.arange(NUMBER))
    assert_near(gpu, SOUNDS[name], AudioFacts(MEL, 0.5, -6.0, 3.0), rows, MEL_NEAR)


@pytest.mark.parametrize("shows", ["frames", "gray", "flow"])
def test_videos(gpu, shows):
    channels = {"frames": 3, "gray": 1, "flow": 2}[shows]
    kept = np.int8 if shows == "flow" else np.uint8
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 100, (10 * NUMBER, 2 if shows == "flow" else 3, 24, 24))
    lengths = np.full(NUMBER, 10)
    frames = Frames(rows.astype(kept), np.cumsum(lengths) - lengths, lengths, 8.0)
    facts = VideoFacts(shows, 16, 6, (0.0,) * channels, (1.0,) * channels)
    assert_near(gpu, VideoViewConfig(), facts, Films(frames, torch.arange(NUMBER)), NEAR)
