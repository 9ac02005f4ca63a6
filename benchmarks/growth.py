"""What a larger data set costs: seconds to the first step, seconds per image, and memory.

    python benchmarks/growth.py CIFAR10_FOLDER/train [--counts 5000,50000,500000,1000000]

Folders of any number of files are made of hard links to the given images, in --work, and removed
again. Each count is a process of its own. Prints one Markdown table: seconds to list the files, to
the first step (from the start of Python), milliseconds per image of a SimCLR step with what
decoding takes meanwhile, and the most memory that the process held: its own, without the mapped
files, whose pages the kernel can take back at any time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from process import memory

WARM_UP, STEPS = 5, 60
ORIGINALS = 500  # each is linked up to 2,000 times; file systems allow 65,000
FILES_IN_FOLDER = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="images to make folders of")
    parser.add_argument("--counts", default="5000,50000,500000,1000000")
    parser.add_argument("--recipe", default="cifar10.simclr")
    parser.add_argument("--work", type=Path, help="on the file system of the images")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.folder, args.recipe)))
        return
    originals = sorted(p for p in args.folder.rglob("*") if p.is_file())[:ORIGINALS]
    print("| images | s to list | s to the first step | ms per image | GB |\n|---|---|---|---|---|")
    for count in map(int, args.counts.split(",")):
        place = Path(tempfile.mkdtemp(prefix="growth-", dir=args.work or args.folder.parent))
        try:
            link(originals, place / "images", count)
            command = [sys.executable, __file__, str(place / "images"), "--one"]
            caches = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")  # as on a new machine
            environment = os.environ | {name: str(place / name) for name in caches}
            start = time.time()
            done = subprocess.run(
                [*command, "--recipe", args.recipe],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
        finally:
            shutil.rmtree(place)
        found = json.loads(done.stdout.splitlines()[-1])
        first = found["first_step"] - start
        cells = f"{found['listing']:.1f} | {first:.1f} | {found['ms']:.2f} | {found['gb']:.2f}"
        print(f"| {count:,} | {cells} |", flush=True)


def link(originals: list[Path], place: Path, count: int) -> None:
    """A folder of ``count`` files, in subfolders."""
    for i in range(count):
        if i % FILES_IN_FOLDER == 0:
            folder = place / f"{i // FILES_IN_FOLDER:04d}"
            folder.mkdir(parents=True)
        original = originals[i % len(originals)]
        os.link(original, folder / f"{i:07d}{original.suffix}")


def measure(folder: Path, recipe_name: str) -> dict[str, float]:
    """Times and memory of some training steps in this process."""
    from similitude.data.loader import Loader
    from similitude.images.backbones import build_backbone
    from similitude.images.loading import load_images
    from similitude.images.opening import open_source
    from similitude.methods import build_method
    from similitude.modalities import modality
    from similitude.recipes import RECIPES
    from similitude.training.choose import choose_for
    from similitude.training.step import Pretraining

    held: list[int] = []
    threading.Thread(target=watch_memory, args=[held], daemon=True).start()
    start = time.perf_counter()
    source = open_source(folder)
    listing = time.perf_counter() - start
    recipe = RECIPES[recipe_name]()
    images = load_images(source, recipe.data.canvas_size)
    recipe = choose_for(modality("image"), source, len(images), recipe=recipe)
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    module = Pretraining(method, recipe, steps_per_epoch=len(images) // recipe.batch_size)
    steps = min(WARM_UP + STEPS, module.steps_per_epoch * recipe.epochs)
    loader = Loader(images, batch_size=recipe.batch_size, seed=0, total_steps=steps)
    first = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        module.training_step(batch)
        first = first or time.time()
    seconds = time.perf_counter() - start
    return {
        "listing": listing,
        "first_step": first,
        "ms": 1e3 * seconds / ((steps - WARM_UP) * recipe.batch_size),
        "gb": max(held) / 2**30,
    }


def watch_memory(held: list[int]) -> None:
    """Add to ``held`` what memory of this process no file holds, in bytes, fifty times a second."""
    while True:
        held.append(memory("RssAnon"))
        time.sleep(0.02)


if __name__ == "__main__":
    main()
