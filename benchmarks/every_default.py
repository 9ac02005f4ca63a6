"""What every method learns when nothing but its name is given, in few minutes each.

    python benchmarks/every_default.py FOLDER --out OUT [--minutes 2] [--methods a,b]

FOLDER holds train/CLASS and test/CLASS. What is finished in OUT is not trained again. Prints a
Markdown table: test accuracies, the network chosen, steps, effective rank, verdict.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import similitude as sim
from similitude.evaluation import ScoreTable
from similitude.recipes import small

COLUMNS = {"knn": "kNN", "linear": "linear", "linear_5": "5 labels"}


def train(folder: Path, out: Path, method: str, minutes: float) -> None:
    """One method, from its name to its scores."""
    run = sim.pretrain(folder, method=method, minutes=minutes, out=out, overwrite=True)
    assert run is not None
    run.evaluate(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, for each method")
    parser.add_argument("--methods", default=",".join(small.ALL))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        train(args.folder, args.out / args.one, args.one, args.minutes)
        return
    methods = args.methods.split(",")
    for method in methods:  # each in its own process
        if not (args.out / method / "evaluation.json").exists():
            here = [sys.executable, __file__, str(args.folder), "--out", str(args.out)]
            subprocess.run([*here, "--minutes", str(args.minutes), "--one", method], check=True)
    titles = ["method", *COLUMNS.values(), "kNN of random weights", "network", "steps", "s"]
    titles += ["loss", "chance", "rank", "verdict"]
    print(f"| {' | '.join(titles)} |")
    print("|" + "---|" * len(titles))
    for method in methods:
        run = sim.load(args.out / method)
        table = ScoreTable.from_json((run.path / "evaluation.json").read_text()).rows
        own, random = table["pretrained backbone"], table["random backbone"]
        cells = " | ".join(own[column].to_text() for column in COLUMNS)
        verdict, recipe = run.verdict, run.recipe
        r = verdict.readings
        numbers = [r.loss, r.chance_loss, r.effective_rank]
        shown = " | ".join("-" if n is None else f"{n:.2f}" for n in numbers)
        network = (
            f"{recipe.backbone.name}, {recipe.backbone.base_width}, {recipe.data.image_size} px"
        )
        print(
            f"| {method} | {cells} | {random['knn'].to_text()} | {network} | {r.steps:.0f} | "
            f"{run.checkpoint.seconds:.0f} | {shown} | {verdict.state} |"
        )


if __name__ == "__main__":
    main()
