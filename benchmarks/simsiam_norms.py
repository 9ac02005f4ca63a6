"""SimSiam from a network with GroupNorm: kept, made BatchNorm, from random weights of both.

    python benchmarks/simsiam_norms.py SOURCE TARGET --out OUT

As in arXiv:2103.03166, whose start is Big Transfer's network (GroupNorm, standardized convolutions)
with labels of ImageNet. Here that network, half as wide, learns by SimCLR from SOURCE; then SimSiam
goes on from it on TARGET (train/CLASS and test/CLASS), with one recipe in all rows. What is
finished in OUT is not made again. Prints two Markdown tables: scores, and kNN along the way.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import similitude as sim
from similitude.images.backbones import BackboneConfig
from similitude.recipes import Recipe, find_recipe

NETWORK = "resnetv2_50x1_bit"
USUAL = "resnetv2_50"  # the same layers with BatchNorm and plain convolutions
CHANNELS = (128, 256, 512, 1024)  # half of Big Transfer's
COLUMNS = {"knn": "kNN", "linear": "linear", "linear_1": "1", "linear_5": "5", "linear_10": "10"}
MOMENTS = (0.1, 0.25, 0.5, 1.0)  # of the run, at which kNN is shown


def recipe_of(name: str, side: int, network: str = NETWORK) -> Recipe:
    """The recipe for small photos, with another network."""
    update = {
        "backbone": BackboneConfig(name=network, options={"channels": CHANNELS}),
        "image_size": side,
        "canvas_size": round(side * 8 / 7),
    }
    return find_recipe(f"small.{name}").model_copy(update=update)


def trained(data: Path, out: Path, recipe: Recipe, steps: int, **options: Any) -> sim.Run:
    """The run in a folder, trained where it is not yet."""
    if not (out / "health.json").exists():
        images = sum(1 for path in data.rglob("*") if path.is_file())
        epochs = max(1, round(steps / (images // recipe.batch_size)))
        recipe = recipe.model_copy(update={"epochs": epochs})
        sim.pretrain(data, recipe=recipe, out=out, overwrite=True, **options)
    return sim.load(out)


def along(run: sim.Run) -> list[str]:
    """The watched images' kNN accuracy at some moments."""
    with (run.path / "metrics.csv").open() as file:
        rows = [(float(r["step"]), r["knn"]) for r in csv.DictReader(file) if r.get("knn")]
    last = rows[-1][0]
    near = [min(rows, key=lambda row: abs(row[0] - share * last))[1] for share in MOMENTS]
    return [f"{100 * float(value):.1f}" for value in near]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--side", type=int, default=48, help="of the images, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    simclr = recipe_of("simclr", args.side)
    start = trained(args.source / "train", args.out / "start", simclr, args.start_steps)
    train = args.target / "train"
    groups = recipe_of("simsiam", args.side)
    begun = {"init": start.path, "seed": args.seed}
    cells: dict[str, tuple[Recipe, dict[str, Any]]] = {
        "random weights, GroupNorm": (groups, {"seed": args.seed}),
        "random weights, BatchNorm": (recipe_of("simsiam", args.side, USUAL), {"seed": args.seed}),
        "the start, GroupNorm": (groups, begun),
        "the start, BatchNorm": (groups, begun | {"overrides": ["init.norm=batch"]}),
    }
    runs = {}
    for name, (recipe, options) in cells.items():
        place = args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{args.seed}"
        runs[name] = trained(train, place, recipe, args.steps, **options)

    print(f"| {args.target.name} | {' | '.join(COLUMNS.values())} | rank | verdict |")
    print("|---|" + "---|" * (len(COLUMNS) + 2))
    frozen = start.evaluate(args.target).rows
    shown = {n: frozen[n] for n in ("raw pixels",)} | {"the start": frozen["pretrained backbone"]}
    health = {}
    for name, run in runs.items():
        table = run.evaluate(args.target).rows
        if name == "the start, BatchNorm":
            shown["the start made BatchNorm, not trained"] = table["before training"]
        shown[f"SimSiam from {name}"] = table["pretrained backbone"]
        verdict = run.verdict
        health[f"SimSiam from {name}"] = (
            f"{verdict.readings.effective_rank or 0:.0f} | {verdict.state}"
        )
    for name, scores in shown.items():
        numbers = " | ".join(scores[c].to_text() for c in COLUMNS)
        print(f"| {name} | {numbers} | {health.get(name, '- | -')} |")

    print(f"\n| kNN at | {' | '.join(f'{100 * share:g} %' for share in MOMENTS)} |")
    print("|---|" + "---|" * len(MOMENTS))
    for name, run in runs.items():
        print(f"| {name} | {' | '.join(along(run))} |")


if __name__ == "__main__":
    main()
