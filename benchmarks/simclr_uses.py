"""Three uses of one SimCLR run: fine-tuned, distilled, on other images (arXiv:2108.00587).

    python benchmarks/simclr_uses.py RUN FOLDER OTHER... --out OUT

RUN has learned from FOLDER, which holds train/CLASS and test/CLASS, as every OTHER does. The
classifier that fine-tuning makes of it teaches students: its own network, one half as wide, a
deeper one. "Labels alone" are the same networks trained on the labels from random weights. OTHER
folders are scored with RUN's frozen features. What is finished in OUT is not trained again. Prints
two Markdown tables.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import similitude as sim
from similitude.evaluation.scores import mean_score
from similitude.images.backbones import BackboneConfig

COLUMNS = {"knn": "kNN", "linear": "linear", "linear_5": "5 labels"}


def accuracy(folder: Path, stage: Callable[..., Any], *sources: Path, **options: Any) -> float:
    """On the test images, of the classifier in a folder; it is trained where there is none."""
    try:
        found = sim.Classifier(folder).test_accuracy
    except sim.UserError:
        stage(*sources, out=folder, overwrite=True, **options)
        found = sim.Classifier(folder).test_accuracy
    assert found is not None
    return found


def labels_alone(folder: Path, data: Path, backbone: BackboneConfig, **options: Any) -> float:
    """Of a network that was trained from random weights on the labels."""
    if not (folder / "untrained" / "health.json").exists():
        sim.pretrain(
            data, backbone=backbone, epochs=1, out=folder / "untrained", overwrite=True
        )  # gives fine-tuning a network; its weights are not used
    tuned = folder / "tuned"
    accuracy(tuned, sim.finetune, folder / "untrained", data, from_scratch=True, **options)
    found = sim.Classifier(tuned / "from_scratch").test_accuracy
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label-fractions", default="0.01,0.1")
    parser.add_argument("--seeds", type=int, default=1, help="each draws its labels")
    parser.add_argument("--distill-epochs", type=int, default=30)
    args = parser.parse_args()

    run = sim.load(args.run)
    own = run.recipe.backbone
    width = own.base_width or 64
    students = {
        "its own network": own,
        "half as wide": own.model_copy(update={"base_width": width // 2}),
        "a ResNet-34, as wide": own.model_copy(update={"name": "resnet34"}),
    }
    fractions = [float(text) for text in args.label_fractions.split(",")]
    rows: dict[str, list[str]] = {}

    def add(name: str, values: list[float]) -> None:
        rows.setdefault(name, []).append(mean_score(values).to_text())

    for fraction in fractions:
        tuned: list[float] = []
        alone: dict[str, list[float]] = {name: [] for name in students}
        taught: dict[str, list[float]] = {name: [] for name in students}
        for seed in range(args.seeds):
            out = args.out / f"{fraction:g}-{seed}"
            options = {"label_fraction": fraction, "seed": seed}
            teacher = out / "fine-tuned"
            tuned.append(accuracy(teacher, sim.finetune, args.run, args.folder, **options))
            for name, backbone in students.items():
                place = out / name.replace(" ", "-").replace(",", "")
                alone[name].append(labels_alone(place, args.folder, backbone, **options))
                told = {"backbone": backbone, "epochs": args.distill_epochs, "seed": seed}
                told["temperature"] = 1.0
                taught[name].append(
                    accuracy(place / "taught", sim.distill, teacher, args.folder, **told)
                )
        add("fine-tuned", tuned)
        for name in students:
            add(f"labels alone: {name}", alone[name])
            add(f"taught by the fine-tuned one: {name}", taught[name])
    print(
        f"| test accuracy with | {' | '.join(f'{100 * f:g} % of the labels' for f in fractions)} |"
    )
    print("|---|" + "---|" * len(fractions))
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")

    print(f"\n| folder | classes | row | {' | '.join(COLUMNS.values())} |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for other in [args.folder, *args.others]:
        table = run.evaluate(other)
        for name, scores in table.rows.items():
            cells = " | ".join(scores[c].to_text() if c in scores else "-" for c in COLUMNS)
            print(f"| {other.name} | {table.num_classes} | {name} | {cells} |")


if __name__ == "__main__":
    main()
