"""Photos and words of exercises: retrieval by CLIP, and what each further view gives CMC.

    python benchmarks/exercises.py FREE_EXERCISE_FOLDER clip --seeds 0 1 2
    python benchmarks/exercises.py FREE_EXERCISE_FOLDER cmc --seeds 0 1 2 3 4

The folder has exercises.json and two photos of each exercise. 200 exercises are held out, and
photos that are nearly copies (the field group) stay on one side. Prints Markdown tables.
"""

import argparse
import csv
import json
import random
import statistics
import tempfile
from pathlib import Path

import similitude as sim

HELD_OUT = 200
VIEWS = (("photo",), ("photo", "second"), ("photo", "second", "text"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("study", choices=("clip", "siglip", "cmc"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--both-photos", action="store_true", help="of clip: train on either photo")
    parser.add_argument("--label", default="equipment", help="of cmc: what the probes name")
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of the recipe")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        (clip if args.study != "cmc" else cmc)(args, Path(out))


def clip(args: argparse.Namespace, out: Path) -> None:
    """Recall each way, a column for each seed; the last is of random weights."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    settings = ["method.loss=sigmoid"] if args.study == "siglip" else []
    for seed in args.seeds:
        table = write_table(args.folder, seed, ("photo", "text"), args.label, both=args.both_photos)
        run = sim.pretrain(
            table,
            method="clip",
            seed=seed,
            epochs=args.epochs,
            out=out / str(seed),
            overrides=[*settings, *args.set],
            report=False,
        )
        assert run is not None
        for row in run.retrieve(table).rows:
            numbers = [100 * row.recall[k] for k in (1, 5, 10)] + [row.median_rank]
            found.setdefault((row.row, f"{row.asked} to {row.found}"), []).append(numbers)
    print(
        "| weights | | first 1, % | first 5, % | first 10, % | median rank |"
        "\n|---|---|---|---|---|---|"
    )
    for (weights, way), seeds in found.items():
        cells = [" ".join(f"{x:.1f}" for x in column) for column in zip(*seeds, strict=True)]
        print(f"| {weights} | {way} | {' | '.join(cells)} |")


def cmc(args: argparse.Namespace, out: Path) -> None:
    """The first photo's network alone, after training beside more and more views."""
    rows: dict[str, list[float]] = {}
    for seed in args.seeds:
        for views in VIEWS[1:]:
            table = write_table(args.folder, seed, views, args.label)
            run = sim.pretrain(
                table,
                method="cmc",
                seed=seed,
                epochs=args.epochs,
                out=out / f"{seed}-{len(views)}",
                overrides=["method.loss=in_batch", "method.temperature=0.1", *args.set],
                report=False,
            )
            assert run is not None
            scores = run.evaluate(table, protocols=["linear"]).rows
            for row in ("raw pixels of photo", "random backbone"):
                rows.setdefault(row, []).append(100 * scores[row]["linear"].mean)
            own = 100 * scores["pretrained backbone"]["linear"].mean
            rows.setdefault(", ".join(views), []).append(own)
    print(f"| {args.label}, linear, % | mean | seeds |\n|---|---|---|")
    for name, values in rows.items():
        unique = values[:: len(VIEWS) - 1] if name.startswith(("raw", "random")) else values
        print(
            f"| {name} | {statistics.mean(unique):.1f} | {' '.join(f'{v:.1f}' for v in unique)} |"
        )


def write_table(
    folder: Path, seed: int, views: tuple[str, ...], label: str, *, both: bool = False
) -> Path:
    """A table in the folder, of a split of its own for each seed.

    With ``both`` an exercise to train on has two rows, one for each of its photos.
    """
    exercises = json.loads((folder / "exercises.json").read_text())
    groups = sorted({str(e["group"]) for e in exercises})
    random.Random(seed).shuffle(groups)
    held: set[str] = set()
    for group in groups:
        if sum(str(e["group"]) in held for e in exercises) >= HELD_OUT:
            break
        held.add(group)
    path = folder / f"table-{seed}-{len(views)}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*views, "label", "split"])
        for e in exercises:
            photos = sorted((folder / "exercises" / e["id"]).iterdir())
            first, second = (str(photo.relative_to(folder)) for photo in photos)
            of = {"photo": first, "second": second, "text": words(e)}
            split = "test" if str(e["group"]) in held else "train"
            writer.writerow([*(of[v] for v in views), e.get(label) or "none", split])
            if both and split == "train":
                of["photo"] = second
                writer.writerow([*(of[v] for v in views), e.get(label) or "none", split])
    return path


def words(exercise: dict[str, object]) -> str:
    """Name and instructions."""
    steps = exercise["instructions"]
    assert isinstance(steps, list)
    return f"{exercise['name']}. {' '.join(steps)}"


if __name__ == "__main__":
    main()
