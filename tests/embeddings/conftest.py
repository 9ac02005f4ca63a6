"""Photos, and published weights of a narrow network, so that nothing has to be trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders import BACKBONE, write_photos
from similitude.evaluation import Features
from similitude.nets.start import Start


@pytest.fixture(scope="session")
def start() -> Start:
    torch.manual_seed(0)
    state = BACKBONE.build().state_dict()
    middle = (0.5, 0.5, 0.5)
    return Start(
        "tiny", "random weights", BACKBONE, state, 16, middle, middle, ["They are random."]
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 24)


@pytest.fixture
def clouds() -> Features:
    """Three clouds of 30, 20 and 10 rows around directions of their own, and one row far away."""
    rng = np.random.default_rng(0)
    centers = np.eye(4, 8)
    sizes = (30, 20, 10)
    rows = [c + 0.1 * rng.normal(size=(n, 8)) for c, n in zip(centers, sizes, strict=False)]
    x = torch.tensor(np.concatenate([*rows, -np.ones((1, 8))]), dtype=torch.float32)
    names = [f"{'abc'[i]}{j:02d}" for i, n in enumerate(sizes) for j in range(n)]
    return Features(x, None, [*names, "stranger"])
