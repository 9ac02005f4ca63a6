"""Small things that many tests need: a backbone, configs of every method, batches, images."""

import io
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.distributed import join_processes
from similitude.evaluation import KNNProbe
from similitude.images.backbones import BackboneConfig
from similitude.images.image_set import ImageSet
from similitude.images.views import Canvases, ImageFacts, PatchViewConfig
from similitude.listener import Silent
from similitude.method import Batch, Method, MethodConfig, Progress
from similitude.methods import CONFIGS
from similitude.nets import WeightNormLinear
from similitude.recipes import OptimizerConfig, Recipe

START = Progress(step=0, total_steps=10, steps_per_epoch=5)
IMAGE = ImageFacts(12, (0.5,) * 3, (0.5,) * 3)
# Those whose views are of images; methods of other kinds have tests of their own.
IMAGE_METHODS = sorted(
    name
    for name, kind in CONFIGS.items()
    if not any(view.kind in ("audio", "sensors") for view in kind().view_configs.values())
)
BACKBONE = BackboneConfig(name="resnet18", stem="small", base_width=4)


class TinyBackbone(nn.Module):
    """A smooth backbone without BatchNorm, for images of any size: samples meet in heads only."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 8), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LogitsHead(nn.Module):
    """A head of DINO's whose K logits are what ``output`` is, or a function of its input."""

    def __init__(self, output: Tensor | Callable[[Tensor], Tensor], num_prototypes: int) -> None:
        super().__init__()
        self.output = output
        self.last_layer = WeightNormLinear(num_prototypes, num_prototypes, train_scale=False)
        nn.init.eye_(self.last_layer.weight_v)

    def bottleneck(self, h: Tensor) -> Tensor:
        return self.output if isinstance(self.output, Tensor) else self.output(h)


class Ears(Silent):
    """A listener that remembers what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


class StopAt(Silent):
    """Presses Ctrl-C when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == "training" and done == self.step:
            signal.raise_signal(signal.SIGINT)


class BreakOff(Silent):
    """Breaks a training off in the middle, where nothing is saved."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == "training" and done >= total // 2:
            raise KeyboardInterrupt


def same(a: Any, b: Any) -> bool:
    """Whether two checkpoints, or parts of them, have the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def vote_scores(probe: KNNProbe, x: Tensor) -> Tensor:
    """Sum of exp(cosine / temperature) over each class's neighbors: what a kNN probe compares."""
    found = [((s / probe.temperature).exp(), index) for s, index in probe._neighbors(x)]
    return torch.cat([probe._votes(weight, index) for weight, index in found])


def small_config(name: str, **changes: Any) -> MethodConfig:
    """The config of a method with views, heads and memory of a few numbers."""
    kind = CONFIGS[name]
    small: dict[str, Any] = {
        "projector_hidden": 16,
        "hidden_dim": 16,
        "predictor_hidden": 8,
        "projection_dim": 12,
        "queue_length": 32,
        "bn_splits": 2,
        "num_samples": 64,
        "num_negatives": 16,
        "num_prototypes": 12,
        "queue_start_epoch": 0,
    }
    known = {field: value for field, value in small.items() if field in kind.model_fields}
    views = {
        field: view.model_copy(update={"size": 8 if field.startswith("local") else 12})
        for field, view in kind().view_configs.items()
        if view.size is not None
    }
    views |= {
        field: view.model_copy(update={"patch_size": 6})
        for field, view in kind().view_configs.items()
        if isinstance(view, PatchViewConfig)
    }
    return kind(**{**views, **known, **changes})


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


def random_batch(
    method: Method, n: int = 8, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Batch:
    """Views of ``n`` samples in the method's own shapes: one thing per sample, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(n, 3, 4, 4, generator=generator, dtype=dtype)
    canvases = Canvases(torch.zeros(n, 3, IMAGE.size, IMAGE.size, dtype=torch.uint8))
    views = []
    for like in method.views(IMAGE)(canvases, torch.arange(n), seed=0, epoch=0):
        view = F.interpolate(samples, size=like.shape[-2:], mode="bilinear")
        view = view.view(n, *[1] * (like.ndim - 4), *view.shape[1:])
        views.append(view + 0.3 * torch.randn(like.shape, generator=generator, dtype=dtype))
    return Batch(views, torch.arange(n))


def random_images(n: int = 64, size: int = 16, *, classes: int = 4, seed: int = 0) -> ImageSet:
    """Images whose class is a color and whose rest is noise; easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    colors = torch.randint(0, 256, (classes, 3, 1, 1), generator=generator)
    noise = torch.randint(-40, 41, (n, 3, size, size), generator=generator)
    pixels = (colors[labels] + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(
        pixels=pixels,
        aspect=torch.ones(n),
        names=[f"train/{i:05d}" for i in range(n)],
        labels=labels,
        class_names=[f"color {c}" for c in range(classes)],
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


PRELOADED = ["similitude.api"]  # by the process that others are forked from


def write_tar(
    path: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None
) -> Path:
    """A tar file of these files, and of hard links from names to names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    return path


def start_processes(function: Callable[..., None], *arguments: Any, processes: int = 2) -> None:
    """Call ``function(number, *arguments)`` in several processes at once and wait for them.

    They are forked from one that has imported what takes seconds, and has no threads.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(function, arguments, nprocs=processes, start_method="forkserver")


def leave() -> None:
    """End a process that has met others, when all have done their work.

    PyTorch's own way out has aborted once in some hundred runs, in a thread of gloo.
    """
    torch.distributed.barrier()
    os._exit(0)


def join_as(number: int, processes: int, port: int, *, on_one_machine: bool = True) -> None:
    """Meet other processes as those that a launcher starts do."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": processes}
    place |= {"LOCAL_WORLD_SIZE": processes if on_one_machine else 1}
    os.environ.update({name: str(value) for name, value in place.items()})
    join_processes()
