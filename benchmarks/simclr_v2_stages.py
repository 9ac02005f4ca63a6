"""SimCLR v2 in stages on CIFAR-10 with few labels: supervised, fine-tuned, distilled.

    python benchmarks/simclr_v2_stages.py CIFAR10_FOLDER [--out OUT] [--label-fraction 0.01]

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg. What is finished in --out is not trained
again, and what was stopped goes on; another --set needs another --out. Prints one Markdown table:
accuracy on the test images after each stage, mean and 95 % interval over seeds. A seed draws the
labels; the pretraining is shared by all.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import similitude as sim
from similitude.cli.console import Console
from similitude.evaluation.scores import mean_score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/simclr_v2"))
    parser.add_argument("--recipe", default="cifar10.simclr_v2")
    parser.add_argument("--label-fraction", type=float, default=0.01)
    parser.add_argument("--layers", default="0,1", help="to fine-tune from; the last one teaches")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--finetune-epochs", type=int, help="default: chosen")
    parser.add_argument("--temperatures", default="0.1,1", help="to distill at")
    parser.add_argument("--distill-epochs", type=int, help="default: those of the pretraining")
    args = parser.parse_args()

    run = args.out / "pretrained"
    if not (run / "health.json").exists():
        options = {"recipe": args.recipe, "overrides": args.overrides}
        go_on(sim.pretrain, args.folder, out=run, **options)

    rows: dict[str, list[float]] = {}
    layers = [int(layer) for layer in args.layers.split(",")]
    for seed in range(args.seeds):
        name = f"{args.label_fraction:g}-{seed}"
        options = {"label_fraction": args.label_fraction, "seed": seed}
        options["epochs"] = args.finetune_epochs
        for layer in layers:
            teacher = args.out / f"finetuned-layer{layer}-{name}"
            scratch = teacher / "from_scratch"
            options |= {"from_layer": layer, "from_scratch": layer == layers[-1]}
            if accuracy(scratch if options["from_scratch"] else teacher) is None:
                go_on(sim.finetune, run, args.folder, out=teacher, **options)
            rows.setdefault(f"fine-tuned from layer {layer}", []).append(accuracy(teacher))
        rows.setdefault("supervised, from scratch", []).append(accuracy(scratch))
        for temperature in args.temperatures.split(","):
            student = args.out / f"distilled-temperature{temperature}-{name}"
            if accuracy(student) is None:
                options = {"seed": seed, "epochs": args.distill_epochs}
                options["temperature"] = float(temperature)
                go_on(sim.distill, teacher, args.folder, out=student, **options)
            kind = f"distilled at temperature {temperature}"
            rows.setdefault(kind, []).append(accuracy(student))
            gain = accuracy(student) - accuracy(teacher)
            rows.setdefault(f"{kind}, minus its teacher", []).append(gain)

    print(f"| {100 * args.label_fraction:g} % of the labels | test accuracy in % |\n|---|---|")
    for name, accuracies in rows.items():
        print(f"| {name} | {mean_score(accuracies).to_text()} |")


def go_on(stage: Callable[..., Any], *sources: Path, out: Path, **options: Any) -> None:
    """Run a stage, from where it stopped if it did."""
    if (out / "checkpoints" / "last.ckpt").exists():
        options = {k: v for k, v in options.items() if k == "from_scratch"} | {"resume": True}
    with Console() as console:
        if stage(*sources, out=out, listener=console, **options) is None:
            raise SystemExit(130)


def accuracy(folder: Path) -> Any:
    """On the test images, 0..1; None if the classifier is not finished."""
    return sim.Classifier(folder).test_accuracy if (folder / "checkpoints").exists() else None


if __name__ == "__main__":
    main()
