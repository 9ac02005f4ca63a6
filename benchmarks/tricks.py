"""What a trick is worth: images per second of whole steps with it and without, in turns.

    python benchmarks/tricks.py CIFAR10_FOLDER/train

A trick is code that computes the same in another way, for speed alone. It stays where it gains a
tenth on the quickstart or on a ResNet-18 step. Every measurement is a process of its own; one
Markdown table of medians over the rounds, and of the ratios of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from similitude.data.loader import Loader
from similitude.images.backbones import build_backbone
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.methods import build_method
from similitude.modalities import modality
from similitude.recipes import RECIPES, override
from similitude.training.choose import choose_for
from similitude.training.step import Pretraining

WARM_UP = 3
# name -> recipe, its settings, steps
JOBS = {
    "quickstart (28 px, base width 16, batch 128)": ("fashion_mnist.quickstart", [], 60),
    "SimCLR, ResNet-18, small stem, 32 px, batch 256": (
        "cifar10.simclr",
        ["backbone.base_width=null", "method.view.size=32"],
        4,
    ),
    "SimCLR, ResNet-18, ImageNet stem, 64 px, batch 128": (
        "cifar10.simclr",
        [
            *("backbone.base_width=null", "backbone.stem=standard", "batch_size=128"),
            *("image_size=64", "method.view.size=64", "canvas_size=73"),
        ],
        8,
    ),
    "the choice for photos (64 px, base width 16, ImageNet stem, batch 64)": (
        "cifar10.simclr",
        [
            *("backbone.base_width=16", "backbone.stem=standard", "batch_size=64"),
            *("image_size=64", "method.view.size=64", "canvas_size=73"),
        ],
        60,
    ),
}
TRICKS = ("small maps",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(speed(args.folder, *args.one))
        return
    print("| job | trick | with | without | ratio |\n|---|---|---|---|---|")
    for job in JOBS:
        found: dict[str, list[float]] = {name: [] for name in ("", *TRICKS)}
        for _ in range(args.rounds):
            for trick, speeds in found.items():
                command = [sys.executable, __file__, str(args.folder), "--one", job, trick]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                speeds.append(float(done.stdout.split()[-1]))
        usual = found[""]
        for trick in TRICKS:
            ratio = statistics.median(a / b for a, b in zip(usual, found[trick], strict=True))
            numbers = [statistics.median(usual), statistics.median(found[trick])]
            row = " | ".join(f"{number:,.0f}" for number in numbers)
            print(f"| {job} | {trick} | {row} | {ratio:.2f} |", flush=True)


def speed(folder: Path, job: str, without: str) -> float:
    """Images per second of training steps, without one trick."""
    name, settings, steps = JOBS[job]
    with ExitStack() as stack:
        if without == "small maps":
            stack.enter_context(
                patch("similitude.images.backbones.convert_convolutions", lambda _: None)
            )
        source = open_source(folder)
        recipe = override(RECIPES[name](), [*settings, "epochs=100"])
        images = load_images(source, recipe.data.canvas_size)
        recipe = choose_for(modality("image"), source, len(images), recipe=recipe)
        method = build_method(recipe.method, build_backbone(recipe.backbone))
        module = Pretraining(method, recipe, steps_per_epoch=len(images) // recipe.batch_size)
        loader = Loader(images, batch_size=recipe.batch_size, seed=0, total_steps=WARM_UP + steps)
        start = 0.0
        for step, batch in enumerate(loader):
            if step == WARM_UP:
                start = time.perf_counter()
            module.training_step(batch)
        return steps * recipe.batch_size / (time.perf_counter() - start)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "active")
    main()
