"""Seconds of training until kNN-20 finds 80, 85 and 90 % of CIFAR-10's test images.

    python benchmarks/cifar10_board.py CIFAR10 --seeds 0 1 2 --seconds 600

CIFAR10 is whatever ``similitude pretrain`` takes and has a training and a test part: a folder
with train/CLASS/* and test/CLASS/*, an .npz, ``cifar10``; or a .tar.gz of such a folder. No label
is seen in training. In the form of cifar10-airbench: a script, several seeds, seconds, the card.
Seconds are those of training steps; the evaluations between them are not counted, and shown beside.

The schedule is made for --seconds, after some steps that are timed, or for --epochs. The recipe is
that of ``cifar10.simclr`` with a whole ResNet-18 and a large batch. It is not tuned: nobody has had
a GPU for it yet. Others: --recipe and --set.
"""

import argparse
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import wheels

wheels.prepare()

import torch
from torch import nn

from similitude.data.loader import Loader
from similitude.devices import best_device, name_of, wait_for
from similitude.evaluation import KNNProbe, extract_features
from similitude.images.image_set import ImageSet
from similitude.images.loading import load_images
from similitude.images.opening import open_parts
from similitude.methods import build_method
from similitude.recipes import RECIPES, Recipe, arithmetic_of, override
from similitude.recipes.arithmetic import choose_arithmetic
from similitude.training.step import Pretraining

MARKS = (0.80, 0.85, 0.90)
BOARD = ("backbone.base_width=null", "batch_size=1024", "optimizer.base_lr=0.15")
SMALL = ("backbone.base_width=4", "batch_size=64", "method.projector_hidden=32")
TRIAL_STEPS, WARM_UP = 20, 5


@dataclass
class Result:
    """What one seed reached.

    Attributes:
        seed: of weights, order and views.
        marks: seconds of training at which each share was first found.
        best: share of the test images that was found at best.
        trained: seconds of training.
        evaluated: seconds of evaluation.
        epochs: that the schedule was made for.
    """

    seed: int
    epochs: int
    marks: dict[str, float] = field(default_factory=dict)
    best: float = 0.0
    trained: float = 0.0
    evaluated: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, for each seed")
    parser.add_argument("--epochs", type=int, help="in place of --seconds")
    parser.add_argument("--every", type=int, default=5, help="epochs between evaluations")
    parser.add_argument("--recipe", default="cifar10.simclr")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--rehearse", action="store_true", help="on colors, in seconds")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    if args.data is None and not args.rehearse:
        parser.error("give CIFAR10, e.g. a folder with train/CLASS/* and test/CLASS/*")
    train, test = colors() if args.rehearse else images_of(args.data)
    recipe = board_recipe(args.recipe, train, args.set, small=args.rehearse)
    epochs = 3 if args.rehearse else args.epochs or epochs_in(args.seconds, recipe, train)
    print(f"{name_of(best_device())}, torch {torch.__version__}, {args.recipe}: {epochs} epochs")
    results = []
    for result in runs(recipe, train, test, args.seeds, epochs, args.every):
        results.append(result)
        print(json.dumps(asdict(result)), flush=True)
    for mark in MARKS:
        print(f"| {mark:.0%} kNN-20 | {told(results, mark)} |")
    if args.json:
        args.json.write_text(json.dumps([asdict(result) for result in results], indent=2))


def images_of(data: Path) -> tuple[ImageSet, ImageSet]:
    """The training and the test images."""
    if data.name.endswith((".tar.gz", ".tgz")):
        folder = tempfile.mkdtemp(prefix="cifar10-")
        with tarfile.open(data) as archive:
            archive.extractall(folder, filter="data")
        data = Path(folder)
    parts = open_parts(str(data))
    if len(parts) != 2:
        raise SystemExit(f"{data} has no test part: give train/CLASS/* and test/CLASS/*")
    train, test = (load_images(part, 32) for part in parts)
    if (len(train), len(test)) != (50_000, 10_000):
        print(f"not CIFAR-10: {len(train)} images to train on, {len(test)} to test")
    return train, test


def colors() -> tuple[ImageSet, ImageSet]:
    """Images that a few steps tell apart, for a rehearsal."""
    draw = torch.Generator().manual_seed(0)
    base = torch.rand(10, 3, 1, 1, generator=draw)

    def some(n: int) -> ImageSet:
        y = torch.arange(n) % 10
        pixels = base[y] + 0.2 * torch.randn(n, 3, 32, 32, generator=draw)
        names = [str(i) for i in range(n)]
        bytes_ = (255 * pixels.clamp(0, 1)).to(torch.uint8)
        return ImageSet(bytes_, torch.ones(n), names, y, [str(c) for c in range(10)])

    return some(512), some(128)


def board_recipe(
    name: str, train: ImageSet, settings: Sequence[str], *, small: bool = False
) -> Recipe:
    """The named recipe as the board takes it, in the arithmetic that is fast here."""
    recipe = override(RECIPES[name](), [*(SMALL if small else BOARD), *settings])
    recipe = recipe.changed(method=recipe.method.of_samples(len(train)))
    return choose_arithmetic(recipe, recipe.backbone.build(), best_device())


def module_of(recipe: Recipe, steps_per_epoch: int) -> Pretraining:
    """As a run begins with it, on the best device."""
    torch.manual_seed(recipe.seed)
    method = build_method(recipe.method, recipe.backbone.build()).to(best_device())
    return Pretraining(method, recipe, steps_per_epoch=steps_per_epoch)


def epochs_in(seconds: float, recipe: Recipe, train: ImageSet) -> int:
    """How many fit, by the time of some steps."""
    module, start = module_of(recipe, len(train) // recipe.batch_size), 0.0
    total = WARM_UP + TRIAL_STEPS
    loader = Loader(
        train, batch_size=recipe.batch_size, seed=0, total_steps=total, device=module.device
    )
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            wait_for(module.device)
            start = time.perf_counter()
        module.training_step(batch)
    wait_for(module.device)
    one = (time.perf_counter() - start) / TRIAL_STEPS
    return max(1, int(seconds / (one * module.steps_per_epoch)))


def runs(
    recipe: Recipe, train: ImageSet, test: ImageSet, seeds: Sequence[int], epochs: int, every: int
) -> Iterator[Result]:
    """One training for each seed, to its end."""
    for seed in seeds:
        chosen = recipe.changed(seed=seed, epochs=epochs)
        module = module_of(chosen, len(train) // chosen.batch_size)
        device, result = module.device, Result(seed, epochs)
        loader = Loader(
            train,
            batch_size=chosen.batch_size,
            seed=seed,
            total_steps=module.progress.total_steps,
            device=device,
        )
        since = time.perf_counter()
        for batch in loader:
            module.training_step(batch)
            done, left = divmod(module.step, module.steps_per_epoch)
            if left or (done % every and done != epochs):
                continue
            wait_for(device)
            paused = time.perf_counter()
            result.trained += paused - since
            found = knn(module.method.kept_backbone, chosen, train, test)
            result.best = max(result.best, found)
            for mark in MARKS:
                if found >= mark:
                    result.marks.setdefault(f"{mark:.0%}", round(result.trained, 2))
            since = time.perf_counter()
            result.evaluated += since - paused
        yield result


def knn(backbone: nn.Module, recipe: Recipe, train: ImageSet, test: ImageSet) -> float:
    """Share of the test images whose class 20 neighbors find, temperature 0.07."""
    device, how = best_device(), arithmetic_of(recipe)
    bank, asked = (
        extract_features(
            backbone,
            images,
            recipe.facts,
            batch_size=2048,
            device=device,
            autocast_dtype=how.dtype,
            channels_last=how.channels_last,
        )
        for images in (train, test)
    )
    assert bank.y is not None
    assert asked.y is not None
    probe = KNNProbe(k=20).fit(bank.x.to(device), bank.y)
    return probe.score(asked.x.to(device), asked.y)


def told(results: Sequence[Result], mark: float) -> str:
    """The seconds to a share, of all seeds, or how far they came."""
    name = f"{mark:.0%}"
    times = [result.marks.get(name) for result in results]
    reached = [t for t in times if t is not None]
    best = max((result.best for result in results), default=0.0)
    trained = max((result.trained for result in results), default=0.0)
    if not reached:
        return f"not reached in {trained:.0f} s of training (best {best:.1%})"
    mean = sum(reached) / len(reached)
    each = ", ".join("-" if t is None else f"{t:.0f}" for t in times)
    return f"{mean:.0f} s = {mean / 60:.1f} min; by seed: {each}"


if __name__ == "__main__":
    main()
