"""Folders of short tones."""

from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="sounds need: pip install 'similitude[audio]'")
pytest.importorskip("soxr", reason="sounds need: pip install 'similitude[audio]'")


def tone(pitch: float, seconds: float, rate: int = 8_000, noise: float = 0.02) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    grain = np.random.default_rng(round(pitch)).standard_normal(len(time))
    return (0.4 * np.sin(2 * np.pi * pitch * time) + noise * grain).astype(np.float32)


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """train/ and test/ with two classes, low tones and high ones, of different lengths."""
    folder = tmp_path_factory.mktemp("tones")
    for part, count in (("train", 32), ("test", 8)):
        for name, start in (("low", 200), ("high", 1500)):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                wave = tone(start + 9 * i + (part == "test"), 0.4 + 0.01 * (i % 7))
                soundfile.write(place / f"{i:02d}.wav", wave, 8_000)
    return folder
