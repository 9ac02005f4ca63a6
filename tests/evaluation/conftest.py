"""Small real data: scikit-learn's digits, 8 x 8 grey, 10 classes."""

import pytest
import torch
from sklearn.datasets import load_digits

from similitude.evaluation import Features
from similitude.images.image_set import ImageSet


@pytest.fixture(scope="session")
def digits() -> tuple[Features, Features]:
    """1,200 training and 597 test rows of raw pixels in 0..16."""
    data = load_digits()
    x = torch.from_numpy(data.data).float()
    y = torch.from_numpy(data.target).long()
    everything = Features(x, y, [f"digit/{i:05d}" for i in range(len(x))])
    return everything.subset(range(1200)), everything.subset(range(1200, len(x)))


@pytest.fixture(scope="session")
def digit_images() -> ImageSet:
    """The first 300 digits as RGB canvases."""
    data = load_digits()
    grey = (torch.from_numpy(data.images[:300]) * 15).to(torch.uint8)
    return ImageSet(
        pixels=grey[:, None].expand(-1, 3, -1, -1).contiguous(),
        aspect=torch.ones(300),
        names=[f"digit/{i:05d}" for i in range(300)],
        labels=torch.from_numpy(data.target[:300]).long(),
        class_names=[str(i) for i in range(10)],
    )
