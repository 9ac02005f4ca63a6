"""Every method on CIFAR-10 from a folder of JPEG files, beside baselines and a supervised twin.

    python benchmarks/cifar10.py CIFAR10_FOLDER --out runs/cifar10 [--seeds simclr=3,simsiam=3]

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg. Trains what is not yet trained in --out, so
an interrupted benchmark goes on where it was; another --set needs another --out. Prints one
Markdown table: kNN-20 and linear accuracy on the test images of the last epoch, mean and 95 %
interval over seeds.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

import similitude as sim
from similitude.acceleration import computing
from similitude.backbones import build_backbone
from similitude.data import CanvasLoader, ImageSet, load_images, open_source
from similitude.evaluation import extract_features, pixel_features, score_features
from similitude.evaluation.scores import Score, mean_score
from similitude.method import Progress
from similitude.pretraining import arithmetic_of, image_spec, learning_rate
from similitude.recipes import RECIPES, Recipe
from similitude.runs import Run
from similitude.views import ImageView, ImageViewConfig

METHODS = ("simclr", "moco_v1", "moco_v2", "byol", "simsiam")
PROTOCOLS = ("knn", "linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="simclr=3,simsiam=3", help="others: 1")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    seeds = dict(pair.split("=") for pair in args.seeds.split(",") if pair)

    train = load_images(open_source(args.folder, split="train"))
    test = load_images(open_source(args.folder, split="test"))

    def recipe_of(name: str) -> Recipe:
        return sim.recipes.override(RECIPES[f"cifar10.{name}"](), args.overrides)

    runs: dict[str, list[dict[str, float]]] = {}
    for name in args.methods.split(","):
        runs[name] = []
        for seed in range(int(seeds.get(name, 1))):
            folder = args.out / f"{name}-{seed}"
            if not (folder / "health.json").exists():
                run = sim.pretrain(
                    train, recipe=recipe_of(name), seed=seed, out=folder, overwrite=True
                )
                assert run is not None
            runs[name].append(
                cached(
                    folder / "scores.json",
                    lambda folder=folder: run_scores(Run(folder), train, test),
                )
            )
            print(name, seed, runs[name][-1], flush=True)

    # the baselines compute as the runs do, which chose the fastest arithmetic at their start
    recipe = Run(args.out / f"{next(iter(runs))}-0").recipe
    image = image_spec(recipe)
    pixels = cached(
        args.out / "pixels.json",
        lambda: score(pixel_features(train, image), pixel_features(test, image)),
    )
    untrained = cached(args.out / "random.json", lambda: random_scores(recipe, train, test))
    twin = cached(args.out / "supervised.json", lambda: supervised(recipe, train, test))
    rows = {"raw pixels": [pixels], "random backbone": [untrained], **runs}
    rows["supervised twin"] = [twin]

    print("| | kNN-20 | linear | seconds of training | verdict |\n|---|---|---|---|---|")
    for name, results in rows.items():
        cells = [mean_score([r[p] for r in results]).to_text() for p in PROTOCOLS]
        seconds = [r["seconds"] for r in results if "seconds" in r]
        cells.append(f"{sum(seconds) / len(seconds):.0f}" if seconds else "-")
        cells.append(", ".join(sorted({r["verdict"] for r in results if "verdict" in r})) or "-")
        print(f"| {name} | " + " | ".join(cells) + " |")


def cached(path: Path, compute) -> dict[str, float]:
    """The result stored at ``path``, computed if it is not there."""
    if not path.exists():
        result = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))
    return json.loads(path.read_text())


def score(train, test) -> dict[str, float]:
    scores: dict[str, Score] = score_features(train, test, PROTOCOLS)
    return {name: value.mean for name, value in scores.items()}


def random_scores(recipe: Recipe, train: ImageSet, test: ImageSet) -> dict[str, float]:
    torch.manual_seed(recipe.seed)
    return backbone_scores(build_backbone(recipe.backbone), recipe, train, test)


def backbone_scores(
    backbone: nn.Module, recipe: Recipe, train: ImageSet, test: ImageSet
) -> dict[str, float]:
    arithmetic = arithmetic_of(recipe)
    arithmetic.place(backbone)
    options = {"autocast_dtype": arithmetic.dtype, "channels_last": arithmetic.channels_last}
    if arithmetic.dtype == torch.float32:
        options["autocast_dtype"] = None
    image = image_spec(recipe)
    return score(
        extract_features(backbone, train, image, **options),
        extract_features(backbone, test, image, **options),
    )


def run_scores(run: Run, train: ImageSet, test: ImageSet) -> dict[str, float]:
    result = backbone_scores(run.backbone, run.recipe, train, test)
    return result | {"seconds": run.checkpoint.seconds, "verdict": run.verdict.state}


def supervised(recipe: Recipe, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """The same backbone, epochs, batches and rates, with labels: crop and flip, cross-entropy."""
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
        image_spec(recipe),
    )
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    per_epoch = len(train) // recipe.batch_size
    total = per_epoch * recipe.epochs
    loader = CanvasLoader(train, batch_size=recipe.batch_size, seed=recipe.seed, total_steps=total)
    start = time.perf_counter()
    for step, batch in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, Progress(step, total, per_epoch))
        parameters = view.draw(recipe.seed, batch.epoch, batch.index, 0, batch.aspect, train.size)
        with computing(model, arithmetic):
            h = model["backbone"](view.apply(batch.canvases, parameters))
        loss = nn.functional.cross_entropy(model["classifier"](h), train.labels[batch.index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    return backbone_scores(backbone, recipe, train, test) | {"seconds": seconds}


if __name__ == "__main__":
    main()
