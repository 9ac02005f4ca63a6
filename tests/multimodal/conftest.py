"""A table of small photos with what is on them in words."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "white": (230,) * 3}


def photo(path: Path, color: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = np.array(color) + rng.integers(-25, 26, (24, 24, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """80 rows, each fourth one for the test; some have no text, some no depth."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for i in range(80):
        name = list(COLORS)[i % 4]
        photo(folder / f"{i:02d}.png", COLORS[name], rng)
        photo(folder / f"{i:02d}-depth.png", (40 * (i % 4),) * 3, rng)
        text = f"a picture of a {name} thing, number {i // 4}" if i % 10 else ""
        depth = f"{i:02d}-depth.png" if i % 7 else "nowhere.png"
        rows.append([f"{i:02d}.png", depth, text, name, "test" if i % 5 == 4 else "train"])
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["photo", "depth", "text", "label", "split"], *rows])
    return path
