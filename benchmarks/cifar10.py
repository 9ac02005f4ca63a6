"""Every method on CIFAR-10 under one equal budget of training time, beside baselines and a twin.

    OMP_WAIT_POLICY=active python benchmarks/cifar10.py CIFAR10_FOLDER --out runs/cifar10

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg. Each recipe gets as many whole epochs as
fit best into --minutes on this machine, measured by a short trial; with --minutes 0 it keeps its
own. The kept epoch is the last one. Every run has its own process (for its peak memory) and its own
folder with recipe and log. What is finished is not trained again, so an interrupted benchmark goes
on where it was; another budget needs another --out. Prints one Markdown table: mean and 95 %
interval over seeds.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import similitude as sim
from similitude.data.loader import Loader
from similitude.evaluation import (
    Features,
    centered,
    effective_rank,
    extract_features,
    few_label_accuracies,
    probe_features,
    raw_features,
)
from similitude.evaluation.scores import mean_score
from similitude.images.backbones import build_backbone
from similitude.images.image_set import ImageSet
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.images.views import ImageView, ImageViewConfig
from similitude.method import Progress
from similitude.methods import build_method
from similitude.modalities import modality
from similitude.nets.precision import computing
from similitude.recipes import RECIPES, Recipe, arithmetic_of
from similitude.recipes.choose import set_num_samples
from similitude.runs.checkpoint import fresh_backbone
from similitude.runs.run import Run
from similitude.sample import Draw
from similitude.training.choose import choose_for
from similitude.training.rates import learning_rate
from similitude.training.step import Pretraining

RECIPE_NAMES = tuple(n.removeprefix("cifar10.") for n in RECIPES if n.startswith("cifar10."))
SEEDS = "simclr=3,moco_v2=3,byol=3,simsiam=3,barlow_twins=3,swav=3"
SHARES = {"1 %": 50, "10 %": 500}  # labels per class, of 5,000
COLUMNS = ("knn", "linear", *SHARES)
WARM_UP, TRIAL_STEPS = 5, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="of training, for each run; 0: the epochs of the recipes",
    )
    parser.add_argument("--recipes", default=",".join(RECIPE_NAMES))
    parser.add_argument("--seeds", default=SEEDS, help="others: 1")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        train_one(args.folder, args.out, args.one[0], int(args.one[1]), args.minutes)
        return

    seeds = dict(pair.split("=") for pair in args.seeds.split(",") if pair)
    names = args.recipes.split(",")
    # the first seed of every method first: a table that is cut off then has all its rows
    order = [(n, s) for s in range(10) for n in names if s < int(seeds.get(n, 1))]
    for name, seed in order:
        if not (args.out / f"{name}-{seed}" / "scores.json").exists():
            here = [sys.executable, __file__, str(args.folder), "--out", str(args.out)]
            budget = ["--minutes", str(args.minutes)]
            subprocess.run([*here, *budget, "--one", name, str(seed)], check=True)
    train, test = images_of(args.folder, "train"), images_of(args.folder, "test")
    runs = {
        name: [read(args.out / f"{name}-{s}" / "scores.json") for n, s in order if n == name]
        for name in names
    }
    print_table(baselines(args.out, names, train, test), runs)


def train_one(folder: Path, out: Path, name: str, seed: int, minutes: float) -> None:
    """Train and score one recipe with one seed, in this process."""
    train, test = images_of(folder, "train"), images_of(folder, "test")
    recipe = RECIPES[f"cifar10.{name}"]()
    budget = cached(out / f"{name}.json", lambda: budgeted(recipe, train, minutes))
    place = out / f"{name}-{seed}"
    print(f"{name}, seed {seed}: {budget}", flush=True)
    if not (place / "health.json").exists():
        settings = [f"{key}={value}" for key, value in budget.items()]
        chosen = sim.recipes.override(recipe, settings)
        run = sim.pretrain(train, recipe=chosen, seed=seed, out=place, overwrite=True)
        assert run is not None
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        (place / "memory.json").write_text(json.dumps(memory))
    run = Run(place)
    result = features_scores(*features_of(run.backbone, run.recipe, train, test))
    result |= {
        "epochs": run.recipe.epochs,
        "seconds": run.checkpoint.seconds,
        "memory": json.loads((place / "memory.json").read_text()),
        "verdict": run.verdict.state,
    }
    (place / "scores.json").write_text(json.dumps(result))
    print(result, flush=True)


def budgeted(recipe: Recipe, train: ImageSet, minutes: float) -> dict[str, Any]:
    """Epochs that fit, and the arithmetic that was fastest when they were counted."""
    if minutes == 0:
        return {}
    chosen = set_num_samples(
        choose_for(modality("image"), open_source(train), len(train), recipe=recipe), len(train)
    )
    method = build_method(chosen.method, build_backbone(chosen.backbone))
    module = Pretraining(method, chosen, steps_per_epoch=len(train) // chosen.batch_size)
    steps = WARM_UP + TRIAL_STEPS
    loader = Loader(train, batch_size=chosen.batch_size, seed=0, total_steps=steps)
    start = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        module.training_step(batch)
    per_epoch = (time.perf_counter() - start) / TRIAL_STEPS * module.steps_per_epoch
    return {
        "epochs": max(1, round(60 * minutes / per_epoch)),
        "precision": chosen.precision,
        "memory_format": chosen.memory_format,
    }


def images_of(folder: Path, split: str) -> ImageSet:
    return load_images(open_source(folder, split=split))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def cached(path: Path, compute: Callable[[], Any]) -> Any:
    """The result stored at ``path``, computed if it is not there."""
    if not path.exists():
        result = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))
    return read(path)


def features_scores(train: Features, test: Features) -> dict[str, Any]:
    """Accuracies in [0, 1]; of few labels mean and half the interval, over draws."""
    found = probe_features(train, test, ("knn", "linear"))
    result: dict[str, Any] = {name: outcome.score.mean for name, outcome in found.items()}
    few = few_label_accuracies(train, test, list(SHARES.values()), draws=3)
    for share, count in SHARES.items():
        result[share] = mean_score(few[count]).mean
    result["rank"] = effective_rank(test.x)
    return result


def features_of(
    backbone: nn.Module, recipe: Recipe, train: ImageSet, test: ImageSet
) -> tuple[Features, Features]:
    arithmetic = arithmetic_of(recipe)
    arithmetic.place(backbone)
    low = None if arithmetic.dtype == torch.float32 else arithmetic.dtype
    options = {"autocast_dtype": low, "channels_last": arithmetic.channels_last}
    image = recipe.facts
    return (
        extract_features(backbone, train, image, **options),
        extract_features(backbone, test, image, **options),
    )


def baselines(
    out: Path, names: list[str], train: ImageSet, test: ImageSet
) -> dict[str, list[dict[str, Any]]]:
    """Raw pixels, one random backbone of each kind, and a supervised twin of the first run."""
    rows: dict[str, list[dict[str, Any]]] = {}
    recipes = [Run(out / f"{name}-0").recipe for name in names]
    first = recipes[0]
    rows["raw pixels"] = [
        cached(
            out / "pixels.json",
            lambda: features_scores(
                *centered(raw_features(train, [test]), raw_features(test, [train]))
            ),
        )
    ]
    for recipe in {recipe.backbone.name: recipe for recipe in reversed(recipes)}.values():
        kind = recipe.backbone.name

        def score(recipe: Recipe = recipe) -> dict[str, Any]:
            torch.manual_seed(recipe.seed)
            return features_scores(*features_of(fresh_backbone(recipe), recipe, train, test))

        rows[f"random {kind}"] = [cached(out / f"random-{kind}.json", score)]
    rows["supervised twin"] = [
        cached(out / "supervised.json", lambda: supervised(first, train, test))
    ]
    return rows


def print_table(
    baseline: dict[str, list[dict[str, Any]]], runs: dict[str, list[dict[str, Any]]]
) -> None:
    titles = ["", "kNN-20", "linear", *SHARES, "rank", "epochs", "s / epoch", "GB", "verdict"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for name, results in {**baseline, **runs}.items():
        cells = [mean_score([r[column] for r in results]).to_text() for column in COLUMNS]
        cells.append(f"{mean(results, 'rank'):.1f}")
        if "epochs" in results[0]:
            cells += [
                f"{results[0]['epochs']}",
                f"{mean(results, 'seconds') / results[0]['epochs']:.0f}",
                f"{mean(results, 'memory'):.1f}",
                ", ".join(sorted({r["verdict"] for r in results})),
            ]
        else:
            cells += ["-"] * 4
        print(f"| {name} | " + " | ".join(cells) + " |")


def mean(results: list[dict[str, Any]], name: str) -> float:
    return sum(result[name] for result in results) / len(results)


def supervised(recipe: Recipe, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """The same backbone, epochs, batches and rates, with labels: crop and flip, cross-entropy."""
    assert train.labels is not None
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(recipe.backbone)
    arithmetic = arithmetic_of(recipe)
    arithmetic.place(backbone)
    model = nn.ModuleDict(
        {"backbone": backbone, "classifier": nn.Linear(backbone.num_features, 10)}
    )
    view = ImageView(
        ImageViewConfig(
            size=next(iter(recipe.method.view_configs.values())).size,
            crop_scale=(0.5, 1.0),
            jitter_probability=0.0,
            grey=0.0,
            blur=0.0,
        ),
        recipe.facts,
    )
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    per_epoch = len(train) // recipe.batch_size
    total = per_epoch * recipe.epochs
    loader = Loader(train, batch_size=recipe.batch_size, seed=recipe.seed, total_steps=total)
    for step, batch in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, Progress(step, total, per_epoch))
        choices = view.draw(Draw(recipe.seed, batch.epoch, batch.index, [0]), batch.rows)
        with computing(model, arithmetic):
            h = model["backbone"](*view.apply(batch.rows, choices))
        loss = nn.functional.cross_entropy(model["classifier"](h), train.labels[batch.index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return features_scores(*features_of(backbone, recipe, train, test))


if __name__ == "__main__":
    main()
