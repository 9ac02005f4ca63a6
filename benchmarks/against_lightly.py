"""Speed of SimCLR on a folder of small images, against lightly's own example code.

    python -m venv peer && peer/bin/pip install lightly
    python benchmarks/against_lightly.py CIFAR10_FOLDER/train --peer peer/bin/python

Same backbone (ResNet-18, small-image stem), batch 256, views of 32 px without blur, all cores. The
two take turns; the table gives medians of images per second (an image is two views) and the ratio.
Ours includes views, loading and the choice of arithmetic that the trial at the start makes.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch

from similitude.acceleration import computing, keep_freed_memory
from similitude.backbones import BackboneConfig, build_backbone
from similitude.data import CanvasLoader, ImageSet, load_images, open_source
from similitude.method import Batch
from similitude.methods import build_method
from similitude.pretraining import Pretraining, image_spec
from similitude.recipes import RECIPES, Recipe, override
from similitude.recipes.automatic import Facts, choose_arithmetic

PEER = Path(__file__).parent / "peers" / "lightly_simclr.py"
CPU = torch.device("cpu")
WARM_UP = 2
SIDE = 32  # of the views, as in the peer's script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="python with lightly installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="of training, in a round")
    parser.add_argument("--view-steps", type=int, default=100)
    args = parser.parse_args()

    keep_freed_memory()
    images = load_images(open_source(args.folder))
    template = RECIPES["cifar10.simclr"]()
    recipe = template.model_copy(
        update={"backbone": BackboneConfig(stem="small"), "batch_size": 256, "epochs": 100}
    )
    recipe = override(recipe, [f"method.view.size={SIDE}"])
    recipe, _ = choose_arithmetic(recipe, Facts(len(images), [images.size], CPU))
    print(f"arithmetic: {recipe.reasons['precision']}")
    steps = {"views": args.view_steps, "train": args.steps}
    # spinning threads would take the cores from the peer's worker processes
    peer_environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    ours = {"views": our_views, "train": our_training}
    print("| | similitude | lightly | ratio |\n|---|---|---|---|")
    for what, count in steps.items():
        speeds: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            peer = subprocess.run(
                [args.peer, PEER, what, args.folder, str(count)],
                capture_output=True,
                text=True,
                check=True,
                env=peer_environment,
            )
            speeds.append((ours[what](images, recipe, count), float(peer.stdout.split()[-1])))
        mine, theirs = (statistics.median(column) for column in zip(*speeds, strict=True))
        ratio = statistics.median(a / b for a, b in speeds)
        print(f"| {what}, images/s | {mine:.0f} | {theirs:.0f} | {ratio:.1f} |", flush=True)


def our_views(images: ImageSet, recipe: Recipe, steps: int) -> float:
    """Images per second of loading and making two views."""
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    views = method.views(image_spec(recipe))
    loader = CanvasLoader(images, batch_size=256, seed=0, total_steps=WARM_UP + steps)
    start = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        views(batch.canvases, batch.index, seed=0, epoch=batch.epoch, aspect=batch.aspect)
    return steps * 256 / (time.perf_counter() - start)


def our_training(images: ImageSet, recipe: Recipe, steps: int) -> float:
    """Images per second of whole training steps."""
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    module = Pretraining(method, recipe, steps_per_epoch=len(images) // 256)
    loader = CanvasLoader(images, batch_size=256, seed=0, total_steps=WARM_UP + steps)
    start = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        views = module.multi_view(
            batch.canvases, batch.index, seed=0, epoch=batch.epoch, aspect=batch.aspect
        )
        with computing(method, module.arithmetic):
            loss = method.training_loss(Batch(views, batch.index), module.progress).loss
        module.optimizer.zero_grad()
        loss.backward()
        module.optimizer.step()
    return steps * 256 / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
