"""Sounds without labels: instruments at unseen pitches, words of unseen speakers.

    python benchmarks/sounds.py notes NOTES_FOLDER --seeds 0 1 2
    python benchmarks/sounds.py words WORDS_FOLDER --seeds 0 1 2 --method speech_simclr

NOTES_FOLDER has labels.csv with program and pitch: every second pitch of an instrument is for
training, those between for the test. WORDS_FOLDER has labels.csv with word, speaker and split.
Prints a Markdown table: accuracies in percent of every row, one column for each seed.
"""

import argparse
import csv
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import similitude as sim

METHODS = {"notes": "byol_a", "words": "speech_simclr"}
SETTINGS = {
    ("notes", "byol_a"): ["epochs=60"],
    ("words", "byol_a"): ["epochs=20"],
    ("words", "speech_simclr"): ["epochs=26"],
    ("words", "cpc_audio"): ["epochs=20"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=METHODS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of the recipe")
    parser.add_argument("--protocol", default="knn,linear,few")
    parser.add_argument("--all", action="store_true", help="pretrain on the test's sounds, too")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    args = parser.parse_args()
    method = args.method or METHODS[args.task]
    settings = [*SETTINGS.get((args.task, method), []), *args.set]
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / args.task
        for part, name, file in parts(args.task, args.folder):
            place = data / part / name
            place.mkdir(parents=True, exist_ok=True)
            os.link(args.folder / file, place / file.replace("/", "-"))
        unlabeled = data
        if args.all:  # a flat folder, which has no parts and no classes
            unlabeled = Path(temporary) / "all"
            unlabeled.mkdir()
            for _, _, file in parts(args.task, args.folder):
                os.link(args.folder / file, unlabeled / file.replace("/", "-"))
        tables, seconds = [], []
        for seed in args.seeds:
            out = (args.out or Path(temporary)) / f"{args.task}-{method}-{seed}"
            start = time.time()
            run = sim.pretrain(
                unlabeled, method=method, seed=seed, overrides=settings, out=out, overwrite=True
            )
            seconds.append(time.time() - start)
            tables.append(run.evaluate(data, protocols=args.protocol))
            print(f"seed {seed}: {run.verdict.sentence} ({seconds[-1]:.0f} s)", flush=True)
        print(table_of(tables))
        print(f"seconds: {', '.join(f'{s:.0f}' for s in seconds)}")


def parts(task: str, folder: Path) -> list[tuple[str, str, str]]:
    """(part, class, file) of every sound."""
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    if task == "words":
        return [
            ("train" if row["split"] == "train" else "test", row["word"], row["file"])
            for row in rows
        ]
    of = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row["pitch"])):
        of[row["program"]].append(row["file"])
    return [
        ("test" if number % 2 else "train", f"{int(program):03d}", file)
        for program, files in of.items()
        for number, file in enumerate(files)
    ]


def table_of(tables: list[sim.evaluation.ScoreTable]) -> str:
    columns = tables[0].columns
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in tables[0].rows:
        cells = [
            " ".join(f"{100 * t.rows[row][c].mean:.1f}" for t in tables if c in t.rows[row])
            for c in columns
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
