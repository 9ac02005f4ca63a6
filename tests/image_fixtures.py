"""Folders of small images, and a cache of their own for every test."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test sees what others, or the user, have downloaded."""
    folder = tmp_path / "cache-home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("SIMILITUDE_DATA", raising=False)
    return folder / "similitude"


@pytest.fixture
def make_image():
    """``make_image(path, seed, size=(w, h))`` writes a random image; the suffix is the format."""

    def make(path, seed=0, size=(12, 8)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return pixels

    return make


@pytest.fixture
def photos(tmp_path, make_image):
    """Twelve nested images of several sizes and formats, without classes."""
    folder = tmp_path / "photos"
    suffixes = ("png", "PNG", "jpg", "bmp", "ppm", "tif")
    for i in range(12):
        below = folder / ("." if i % 3 == 0 else f"trip{i % 3}/day{i % 2}")
        make_image(below / f"img{i:02d}.{suffixes[i % 6]}", i, (10 + i, 20 - i))
    return folder
