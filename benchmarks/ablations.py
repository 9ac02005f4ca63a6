"""The ablations this field is known for, each a few minutes on two CPU cores.

    python benchmarks/ablations.py CIFAR10_FOLDER --out runs/ablations

Prints one Markdown table: kNN-20, linear, the standard deviation of the unit projections relative
to 1 / sqrt(P), the effective rank of the features, the last loss, and the verdict.
"""

import argparse
from pathlib import Path

import similitude as sim
from cifar10 import cached, run_scores
from similitude.data import load_images, open_source
from similitude.recipes import RECIPES
from similitude.recording import read_metrics
from similitude.runs import Run

STUDIES: dict[str, tuple[str, list[str]]] = {
    "SimSiam": ("simsiam", []),
    "SimSiam, no stop-gradient": ("simsiam", ["method.stop_gradient=false"]),
    "SimSiam, no predictor": ("simsiam", ["method.predictor=none"]),
    "BYOL": ("byol", []),
    "BYOL, EMA 0": ("byol", ["method.ema_decay=0", "method.ema_schedule=constant"]),
    "BYOL, EMA 1": ("byol", ["method.ema_decay=1", "method.ema_schedule=constant"]),
    "MoCo v2": ("moco_v2", []),
    "MoCo v2, EMA 0": ("moco_v2", ["method.ema_decay=0"]),
    "SimCLR, mlp projector": ("simclr", []),
    "SimCLR, linear projector": ("simclr", ["method.projector=linear"]),
    "SimCLR, no projector": ("simclr", ["method.projector=none"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--methods", default="simsiam,byol,moco_v2,simclr", help="which to vary")
    args = parser.parse_args()
    train = load_images(open_source(args.folder, split="train"))
    test = load_images(open_source(args.folder, split="test"))
    print("| | kNN-20 | linear | std x sqrt(P) | rank | loss | seconds | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for title, (name, overrides) in STUDIES.items():
        if name not in args.methods.split(","):
            continue
        folder = args.out / title.lower().replace(", ", "-").replace(" ", "_")
        if not (folder / "health.json").exists():
            recipe = sim.recipes.override(
                RECIPES[f"cifar10.{name}"](), [f"epochs={args.epochs}", *overrides]
            )
            sim.pretrain(train, recipe=recipe, out=folder, overwrite=True)
        run = Run(folder)
        scores = cached(folder / "scores.json", lambda run=run: run_scores(run, train, test))
        last = {k: v for row in read_metrics(folder / "metrics.csv") for k, v in row.items()}
        print(
            f"| {title} | {100 * scores['knn']:.1f} | {100 * scores['linear']:.1f} "
            f"| {last['projection_std']:.3f} | {last['effective_rank']:.1f} "
            f"| {last['loss']:.3f} | {run.checkpoint.seconds:.0f} | {run.verdict.sentence} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
