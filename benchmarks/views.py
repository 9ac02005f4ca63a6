"""Microseconds that one view takes, of several sizes, here and in another checkout.

    git worktree add ../before COMMIT
    python benchmarks/views.py CIFAR10_FOLDER/train --against ../before

Every measurement is a process of its own, and the versions take turns. One Markdown table: medians
of the rounds and of their ratios. Canvases are there already, views are those of SimCLR's recipes,
two of each canvas; sizes of 96 px and more are cut out of canvases of 256.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.canvases import Canvases
from similitude.images.opening import open_source
from similitude.methods import build_method
from similitude.recipes import RECIPES, override

SIZES = {24: 32, 32: 32, 64: 64, 96: 256, 224: 256}  # side of a view -> of its canvas
PIXELS = 1 << 21  # of the views of a batch
SECONDS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(args.threads)
        print(microseconds(args.folder, args.sizes[0]))
        return
    here = Path(__file__).parent.parent
    versions = [here] if args.against is None else [here, args.against.resolve()]
    print("| | here | against | times as fast |" if args.against else "| | here |")
    print("|---" * (2 * len(versions)) + "|")
    for size in args.sizes:
        words = [str(args.folder), "--one", "--sizes", str(size), "--threads", str(args.threads)]
        rounds = [[run(version, words) for version in versions] for _ in range(args.rounds)]
        cells = [f"{statistics.median(times):,.1f}" for times in zip(*rounds, strict=True)]
        if args.against:
            cells.append(f"{statistics.median(then / now for now, then in rounds):.2f}")
        print(f"| {size} px of {SIZES[size]}, µs | {' | '.join(cells)} |", flush=True)


def run(version: Path, words: list[str]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(version / "src")}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return float(done.stdout)


def microseconds(folder: Path, size: int) -> float:
    """Of one view, with as many threads as PyTorch has."""
    source = open_source(folder)
    side = SIZES[size]
    n = PIXELS // size**2
    pixels = torch.stack([source.read(i * len(source) // n) for i in range(n)])
    if side != pixels.shape[-1]:
        pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear")
    name = "cifar10.simclr" if side <= 64 else "imagenet.simclr"
    settings = [f"method.view.size={size}", "method.view.interpolation=bilinear"]
    recipe = override(RECIPES[name](), settings)
    views = build_method(recipe.method, build_backbone(BackboneConfig())).views(recipe.facts)
    rows, index = Canvases(pixels), torch.arange(n)
    views(rows, index, seed=0, epoch=0)
    batches, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        batches += 1
        views(rows, index, seed=0, epoch=batches)
    return 1e6 * spent / (batches * n * len(views))


if __name__ == "__main__":
    main()
