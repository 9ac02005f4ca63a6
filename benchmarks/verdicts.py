"""How often the verdict is right: 24 broken and 24 sound runs over all methods.

    python benchmarks/verdicts.py FOLDER --out OUT [--steps 300] [--only NAME,...]

FOLDER holds small images, e.g. a cut of CIFAR-10; labels are not looked at, so a verdict rests on
what an unlabeled run measures. A third of the cases is kept from the tuning of thresholds: look at
the others when you change one. A broken run is named if its verdict is doubtful or collapsed, a
sound one passes if it is healthy. What is finished in OUT is not trained again. Prints a Markdown
table.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import similitude as sim
from similitude.evaluation import diagnose
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.method import Method, Progress, StepOutput
from similitude.methods import METHODS
from similitude.recipes import find_recipe, override

IMAGES = 2_000
BATCH = 64
Loss = Callable[[Method, Any, Progress], StepOutput]


@contextmanager
def nothing_else(name: str) -> Iterator[None]:
    """The method as it is."""
    yield


def changed(edit: Callable[[Method, StepOutput, Progress], StepOutput]) -> Any:
    """A context in which what a step of the method yields is edited."""

    @contextmanager
    def context(name: str) -> Iterator[None]:
        kind = METHODS[name]
        original: Loss = kind.training_loss

        def training_loss(self: Method, batch: Any, progress: Progress) -> StepOutput:
            return edit(self, original(self, batch, progress), progress)

        with patch.object(kind, "training_loss", training_loss):
            yield

    return context


def negated(method: Method, output: StepOutput, progress: Progress) -> StepOutput:
    """The sign of the loss is turned."""
    return output._replace(loss=-output.loss)


def without_numbers(method: Method, output: StepOutput, progress: Progress) -> StepOutput:
    """From step 50 on a pixel that is no number has reached the loss."""
    return output._replace(loss=output.loss * float("nan")) if progress.step >= 50 else output


def frozen(method: Method, output: StepOutput, progress: Progress) -> StepOutput:
    """No gradient reaches the backbone."""
    for parameter in method.backbone.parameters():
        parameter.register_hook(torch.zeros_like) if parameter.requires_grad else None
    return output


def as_they_are(pixels: Tensor) -> Tensor:
    """The images."""
    return pixels


def constant(pixels: Tensor) -> Tensor:
    """One gray picture."""
    return torch.full_like(pixels, 127)


def duplicates(pixels: Tensor) -> Tensor:
    """Ten pictures, each many times."""
    return pixels[torch.arange(len(pixels)) % 10]


def noise(pixels: Tensor) -> Tensor:
    """Pictures of nothing: every pixel is drawn."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, pixels.shape, generator=generator, dtype=torch.uint8)


@dataclass(frozen=True)
class Case:
    """One run, broken or sound."""

    name: str
    method: str
    overrides: tuple[str, ...] = ()
    is_broken: bool = True
    is_kept: bool = False  # from the tuning of thresholds
    context: Any = nothing_else
    data: Callable[[Tensor], Tensor] = as_they_are
    faster: float = 1.0  # the learning rate
    steps: int | None = None


SAME_VIEWS = (
    "method.view.crop_scale=[1, 1]",
    "method.view.crop_ratio=[1, 1]",
    "method.view.flip=0",
    "method.view.jitter_probability=0",
    "method.view.grey=0",
    "method.view.blur=0",
)
BLUNT = ("method.target_temperature=0.9", "method.warmup_target_temperature=0.9")
BROKEN = (
    Case("no stop-gradient", "simsiam", ("method.stop_gradient=false",)),
    Case("no stop-gradient", "simtriplet", ("method.stop_gradient=false",), is_kept=True),
    Case(
        "no stop-gradient, no Sinkhorn",
        "swav",
        ("method.stop_gradient=false", "method.assignment=softmax"),
    ),
    Case("no predictor, decay 0", "byol", ("method.predictor=none", "method.ema_decay=0")),
    Case("no predictor", "simsiam", ("method.predictor=none",), is_kept=True),
    Case("no centering", "dino", ("method.centering=false",)),
    Case("target temperature of the online network", "dino", BLUNT, is_kept=True),
    Case("alignment alone", "raft", ("method.cross_model_weight=0", "method.predictor=none")),
    Case("temperature 100", "simclr", ("method.temperature=100",)),
    Case("temperature 100", "moco_v2", ("method.temperature=100",)),
    Case("temperature 100", "inva_spread", ("method.temperature=100",), is_kept=True),
    Case("rate x 100", "simclr", faster=100),
    Case("rate x 100", "barlow_twins", faster=100),
    Case("rate x 100", "byol", faster=100, is_kept=True),
    Case("constant images", "simclr", data=constant),
    Case("constant images", "barlow_twins_hsic", data=constant, is_kept=True),
    Case("ten pictures, repeated", "simclr", data=duplicates),
    Case("ten pictures, repeated", "moco_v3", data=duplicates, is_kept=True),
    Case("views without change", "simclr", SAME_VIEWS),
    Case("no gradient to the backbone", "simclr_v2", context=changed(frozen)),
    Case("no gradient to the backbone", "simsiam", context=changed(frozen), is_kept=True),
    Case("loss with its sign turned", "simclr", context=changed(negated)),
    Case("NaN pixels", "moco_v1", context=changed(without_numbers)),
    Case("too few steps", "simclr", steps=40),
)  # fmt: skip
KEPT_SOUND = ("moco_v1", "raft", "cmc", "memory_bank", "diet", "simtriplet", "cpc_v2", "swav")
SOUND = (
    *(Case("as it is", name, is_broken=False, is_kept=name in KEPT_SOUND) for name in METHODS),
    Case("batches of 128", "simclr", ("batch_size=128",), is_broken=False),
    Case("half the rate", "byol", is_broken=False, faster=0.5),
    Case("twice as wide", "simsiam", ("backbone.base_width=32",), is_broken=False),
)


def train(case: Case, pixels: Tensor, out: Path, steps: int) -> None:
    """One case, from its recipe to its verdict."""
    recipe = find_recipe(f"cifar10.{case.method}")
    if recipe.backbone.name.startswith("resnet"):
        recipe = override(recipe, ["backbone.base_width=16"])
    recipe = override(recipe, [f"batch_size={BATCH}", "precision=float32"])
    recipe = override(recipe, [f"optimizer.base_lr={recipe.optimizer.base_lr * case.faster}"])
    recipe = override(recipe, case.overrides)
    per_epoch = len(pixels) // recipe.batch_size
    epochs = max(1, round((case.steps or steps) / per_epoch))
    warmup = min(recipe.optimizer.warmup_epochs, epochs / 10)
    recipe = override(recipe, [f"epochs={epochs}", f"optimizer.warmup_epochs={warmup}"])
    with case.context(case.method):
        sim.pretrain(case.data(pixels), recipe=recipe, out=out, overwrite=True, report=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", help="methods, with commas")
    args = parser.parse_args()
    images = load_images(open_source(args.folder)).spread(IMAGES)
    pixels = images.pixels[:].permute(0, 2, 3, 1).contiguous()
    only = args.only.split(",") if args.only else list(METHODS)
    print("| run | method | kept from tuning | verdict | right | first reason |")
    print("|---|---|---|---|---|---|")
    right: dict[tuple[bool, bool], list[bool]] = {}
    for case in (*BROKEN, *SOUND):
        if case.method not in only:
            continue
        place = args.out / f"{case.method}-{case.name}".replace(" ", "-").replace(",", "")
        if not (place / "health.json").exists():
            train(case, pixels, place, args.steps)
        verdict = diagnose(sim.load(place).verdict.readings)  # by the rules of now
        is_right = (verdict.state != "healthy") == case.is_broken
        right.setdefault((case.is_broken, case.is_kept), []).append(is_right)
        print(
            f"| {case.name} | {case.method} | {'yes' if case.is_kept else ''} | {verdict.state} | "
            f"{'yes' if is_right else '**no**'} | {verdict.reasons[0]} |",
            flush=True,
        )
    print("\n| runs | right | of |\n|---|---|---|")
    for (is_broken, is_kept), found in right.items():
        kind = f"{'broken' if is_broken else 'sound'}, {'kept' if is_kept else 'tuned on'}"
        print(f"| {kind} | {sum(found)} | {len(found)} |")


if __name__ == "__main__":
    main()
