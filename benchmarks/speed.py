"""Speed of views and of training steps, against other libraries and a loop written by hand.

    python -m venv peer && peer/bin/pip install lightly timm kornia
    python -m venv other && other/bin/pip install stable-pretraining
    other/bin/pip install --no-deps solo-learn==1.0.2
    python benchmarks/speed.py CIFAR10_FOLDER/train --peer peer/bin/python --peer other/bin/python

Same backbone, batch, sizes and number of views on both sides; every measurement is a process of its
own, and the sides take turns. One Markdown table: medians of images per second (an image is all its
views) and of the ratios. Ours computes in the arithmetic that a run's rule chooses.
Photos of 500 px are made of the folder's images, unless --photos gives some.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from similitude.data.loader import Loader
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.image_set import ImageSet
from similitude.images.lazy import LazyCanvases
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.methods import build_method
from similitude.modalities import modality
from similitude.recipes import RECIPES, Recipe, override
from similitude.training.choose import choose_for
from similitude.training.step import Pretraining

PEERS = Path(__file__).parent / "peers"
WARM_UP = 2
PHOTOS = 256  # made, of 500 x 375 px


@dataclass(frozen=True)
class Task:
    """What is timed, on how much, and against whom."""

    batch: int
    steps: int
    photos: bool  # on photos of 500 px; else on the folder as it is
    ours: str  # "views", "decode" or "train"
    recipe: str
    settings: tuple[str, ...]
    peers: dict[str, tuple[str, ...]]  # name -> script and arguments; {data} is the folder


PACKAGES = {  # that a script needs
    "lightly_steps.py": "lightly",
    "kornia_views.py": "kornia",
    "stable_pretraining_steps.py": "stable-pretraining",
    "solo_learn_steps.py": "solo-learn",
}


def _simclr(stem: str, *, compiled: bool = False) -> Task:
    peers: dict[str, tuple[str, ...]] = {
        "lightly": ("lightly_steps.py", "simclr", "{data}", "256", "4", "--stem", stem),
        "stable-pretraining": (
            *("stable_pretraining_steps.py", "simclr", "{data}", "256", "4"),
            *("--stem", stem),
        ),
        "solo-learn": ("solo_learn_steps.py", "simclr", "{data}", "256", "4", "--stem", stem),
        "by hand": ("by_hand.py", stem, "256", "4", "--no-compile"),
    }
    if compiled:
        peers = {"by hand": ("by_hand.py", stem, "256", "4")}
    return Task(
        batch=256,
        steps=4,
        photos=False,
        ours="train",
        recipe="cifar10.simclr",
        settings=(
            f"backbone.stem={stem}",
            "backbone.base_width=null",
            "method.view.size=32",
            f"compile={str(compiled).lower()}",
        ),
        peers=peers,
    )


TASKS = {
    "two views of 32 px": Task(
        batch=256,
        steps=100,
        photos=False,
        ours="views",
        recipe="cifar10.simclr",
        settings=("method.view.size=32",),
        peers={
            "lightly": ("lightly_steps.py", "views", "{data}", "256", "30"),
            "kornia": ("kornia_views.py", "32", "256", "20"),
            "stable-pretraining": ("stable_pretraining_steps.py", "views", "{data}", "256", "30"),
            "solo-learn": ("solo_learn_steps.py", "views", "{data}", "256", "30"),
        },
    ),
    "two views of 224 px, with decoding": Task(
        batch=64,
        steps=30,  # the peer's workers have four batches ready when the clock starts
        photos=True,
        ours="decode",
        recipe="imagenet.simclr",
        settings=(
            "method.view.interpolation=bilinear",
        ),  # as torchvision's crops, which lightly uses
        peers={
            "lightly": ("lightly_steps.py", "views", "{data}", "64", "30", "--size", "224"),
            "stable-pretraining": (
                *("stable_pretraining_steps.py", "views", "{data}", "64", "30"),
                *("--size", "224"),
            ),
        },
    ),
    "SimCLR, ResNet-18, small stem, 32 px": _simclr("small"),
    "SimCLR, ResNet-18, small stem, 32 px, compiled": _simclr("small", compiled=True),
    "SimCLR, ResNet-18, ImageNet stem, 32 px": _simclr("standard"),
    "SimCLR, ResNet-18, ImageNet stem, 32 px, compiled": _simclr("standard", compiled=True),
    "BYOL, ResNet-50, 224 px": Task(
        batch=16,
        steps=2,
        photos=True,
        ours="train",
        recipe="imagenet.byol",
        settings=("batch_size=16", "compile=false"),
        peers={
            "lightly": ("lightly_steps.py", "byol", "{data}", "16", "2", "--size", "224"),
            "stable-pretraining": (
                *("stable_pretraining_steps.py", "byol", "{data}", "16", "2"),
                *("--size", "224"),
            ),
        },
    ),
    "DINO, ViT-S/16, 2 x 224 and 6 x 96 px": Task(
        batch=16,
        steps=2,
        photos=True,
        ours="train",
        recipe="imagenet.dino",
        settings=("batch_size=16", "method.local_views=6", "compile=false"),
        peers={
            "lightly": ("lightly_steps.py", "dino", "{data}", "16", "2"),
            "stable-pretraining": ("stable_pretraining_steps.py", "dino", "{data}", "16", "2"),
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--peer", type=Path, action="append", default=[], help="python where peers are installed"
    )
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version, as a peer")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos of about 500 px")
    parser.add_argument("--tasks", default="", help="whose names contain this; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(time_ours(TASKS[args.one], args.folder))
        return
    for python in args.peer:
        if not python.exists():
            parser.error(f"--peer {python}: no such file; give the python of an environment")
    torch.set_num_threads(1)  # what waits here must not spin on a core that is being measured
    # nor must the peers' own threads take the cores from their worker processes
    quiet = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    with tempfile.TemporaryDirectory() as temporary:
        photos = args.photos or make_photos(args.folder, Path(temporary) / "photos")
        print("| | similitude | peer | | ratio |\n|---|---|---|---|---|")
        for name, task in TASKS.items():
            if args.tasks not in name:
                continue
            data = photos if task.photos else args.folder
            here = [sys.executable, __file__, str(data), "--one", name]
            pythons = {
                peer: environment_of(script, tuple(args.peer))
                for peer, (script, *_) in task.peers.items()
            }
            peers = [peer for peer, python in pythons.items() if python is not None]
            if args.before:
                peers.append("before")
            if not peers:
                continue
            rounds: list[dict[str, float]] = []
            for _ in range(args.rounds):
                speeds = {"similitude": run(here, dict(os.environ))}
                for peer in peers:
                    if peer == "before":
                        speeds[peer] = run(*of_before(args.before, here))
                        continue
                    script, *arguments = task.peers[peer]
                    words = [argument.format(data=data) for argument in arguments]
                    environment = dict(os.environ) if script == "by_hand.py" else quiet
                    speeds[peer] = run([pythons[peer], str(PEERS / script), *words], environment)
                rounds.append(speeds)
            for peer in peers:
                ours, theirs = (median(r[side] for r in rounds) for side in ("similitude", peer))
                ratio = median(r["similitude"] / r[peer] for r in rounds)
                row = f"{name} | {number(ours)} | {peer} | {number(theirs)} | {ratio:.2f}"
                print(f"| {row} |", flush=True)


def of_before(checkout: Path, here: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command and environment in which an earlier version times the same task."""
    python, _, *arguments = here
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    return [python, str(checkout / "benchmarks" / "speed.py"), *arguments], environment


@functools.cache
def environment_of(script: str, pythons: tuple[Path, ...]) -> str | None:
    """The first Python that has what a peer's script needs."""
    if script not in PACKAGES:
        return sys.executable
    package = PACKAGES[script]
    look = f"import importlib.metadata; importlib.metadata.version('{package}')"
    for python in pythons:
        found = subprocess.run([python, "-c", look], stderr=subprocess.DEVNULL, check=False)
        if found.returncode == 0:
            return str(python)
    print(f"no --peer has {package}: its rows are left out", file=sys.stderr)
    return None


def number(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"


def median(values) -> float:
    return statistics.median(values)


def run(command: Sequence[str], environment: dict[str, str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return float(done.stdout.split()[-1])


def make_photos(folder: Path, out: Path) -> Path:
    """JPEG files of 500 x 375 px and the bytes of real photos: enlarged images with some grain."""
    torch.manual_seed(0)
    source = open_source(folder)
    for i in range(PHOTOS):
        pixels = source.read(i * len(source) // PHOTOS)[None].float()
        large = torch.nn.functional.interpolate(pixels, (375, 500), mode="bicubic")[0]
        grainy = (large + 6 * torch.randn(1, 375, 500)).clamp(0, 255).to(torch.uint8)
        place = out / f"{i % 2}" / f"{i:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grainy.permute(1, 2, 0).numpy()).save(place, quality=85)
    return out


def time_ours(task: Task, folder: Path) -> float:
    """Images per second of one task in this process."""
    source = open_source(folder)
    recipe = override(RECIPES[task.recipe](), [*task.settings, "epochs=100"])
    recipe = recipe.model_copy(update={"batch_size": task.batch})
    if task.ours == "decode":
        cores = torch.get_num_threads()
        canvases = LazyCanvases(source, recipe.data.canvas_size or 256, cores, kept=None)
        images = ImageSet(canvases, canvases.aspect, source.names)
        return time_views(recipe, images, task)
    images = load_images(source, recipe.data.canvas_size)
    if task.ours == "views":
        return time_views(recipe, images, task)
    recipe = choose_for(modality("image"), source, len(images), recipe=recipe)
    print(recipe.reasons.get("precision", ""), file=sys.stderr)
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    module = Pretraining(method, recipe, steps_per_epoch=len(images) // task.batch)
    return timed(images, task, module.training_step)


def time_views(recipe: Recipe, images: ImageSet, task: Task) -> float:
    method = build_method(recipe.method, build_backbone(BackboneConfig()))
    views = method.views(recipe.facts)
    return timed(
        images, task, lambda batch: views(batch.rows, batch.index, seed=0, epoch=batch.epoch)
    )


def timed(images: ImageSet, task: Task, do: Callable[..., object]) -> float:
    total = WARM_UP + task.steps
    loader = Loader(images, batch_size=task.batch, seed=0, total_steps=total)
    start = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        do(batch)
    return task.steps * task.batch / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
