"""Small things that many tests need: a backbone, configs of every method, batches, images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from similitude.backbones import BackboneConfig
from similitude.data import ImageSet
from similitude.method import Batch, MethodConfig, Progress
from similitude.methods import CONFIGS
from similitude.recipes import OptimizerConfig, Recipe

START = Progress(step=0, total_steps=10, steps_per_epoch=5)
BACKBONE = BackboneConfig(name="resnet18", stem="small", base_width=4)


class TinyBackbone(nn.Module):
    """A smooth backbone without BatchNorm: samples meet in heads and losses only."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def small_config(name: str, **changes: Any) -> MethodConfig:
    """The config of a method with heads and memory of a few numbers."""
    kind = CONFIGS[name]
    small: dict[str, Any] = {
        "projector_hidden": 16,
        "hidden_dim": 16,
        "predictor_hidden": 8,
        "projection_dim": 12,
        "queue_length": 32,
        "bn_splits": 2,
    }
    known = {field: value for field, value in small.items() if field in kind.model_fields}
    return kind(**{**known, **changes})


def small_recipe(name: str, **changes: Any) -> Recipe:
    """A recipe that trains in a second: 16-pixel images, a narrow ResNet, three epochs."""
    values: dict[str, Any] = {
        "method": small_config(name),
        "backbone": BACKBONE,
        "optimizer": OptimizerConfig(base_lr=0.1, warmup_epochs=1),
        "epochs": 3,
        "batch_size": 16,
        "image_size": 16,
    }
    return Recipe(**{**values, **changes})


def random_batch(n: int = 8, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Two views of ``n`` samples for TinyBackbone: the second is the first with some noise."""
    generator = torch.Generator().manual_seed(seed)
    v1 = torch.randn(n, 3, 4, 4, generator=generator, dtype=dtype)
    v2 = v1 + 0.3 * torch.randn(v1.shape, generator=generator, dtype=dtype)
    return Batch([v1, v2], torch.arange(n))


def random_images(n: int = 64, size: int = 16, *, classes: int = 4, seed: int = 0) -> ImageSet:
    """Images whose class is a colour and whose rest is noise; easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    colours = torch.randint(0, 256, (classes, 3, 1, 1), generator=generator)
    noise = torch.randint(-40, 41, (n, 3, size, size), generator=generator)
    pixels = (colours[labels] + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(
        pixels=pixels,
        aspect=torch.ones(n),
        names=[f"train/{i:05d}" for i in range(n)],
        labels=labels,
        class_names=[f"colour {c}" for c in range(classes)],
    )


def write_photos(folder: Path, n: int = 40, *, classes: int = 2, size: int = 20) -> Path:
    """A folder of PNG files, one subfolder for each class; or flat with ``classes=0``."""
    images = random_images(n, size, classes=max(1, classes))
    for i, pixels in enumerate(images.pixels):
        place = folder / f"class{i % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        Image.fromarray(array).save(place / f"photo{i:03d}.png")
    return folder
