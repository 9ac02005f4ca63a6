"""A new user's first hour on six folders: raw pixels, random weights, published ones, ours.

    python benchmarks/first_hour.py ARCHIVES --out runs/first-hour

`benchmarks/folders.py` makes the folders of ARCHIVES. On each, `pretrain` trains with nothing given
but the seed ("default") and from published weights ("adapted", --init), for --minutes at most, and
`evaluate` scores both beside raw pixels, random weights and the published weights as they are. What
is finished is not made again. Prints two Markdown tables: scores, and how the runs went.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import similitude as sim
from folders import make
from similitude.evaluation import ScoreTable

COLUMNS = {"knn": "kNN", "linear": "linear", "linear_1": "1", "linear_5": "5", "linear_10": "10"}
# of the other folders one
SEEDS = {"exercises": 3, "white-blood-cells": 3, "white-blood-cells-2": 3}
ROWS = ("raw pixels", "random backbone", "frozen", "default", "adapted")
SECOND = "white-blood-cells-2"  # scored with the runs of the first


def folder_of_runs(folder: str) -> str:
    """The folder whose images the runs have learned from."""
    return "white-blood-cells" if folder == SECOND else folder


def train(folder: Path, place: Path, seed: int, init: str | None, minutes: float) -> None:
    """One training, timed."""
    start = time.perf_counter()
    options = {} if init is None else {"init": init}
    run = sim.pretrain(folder, out=place, seed=seed, minutes=minutes, overwrite=True, **options)
    assert run is not None
    took = time.perf_counter() - start
    (place / "took.json").write_text(json.dumps({"seconds": took}))


def score(folder: Path, place: Path, init: str, against: bool) -> None:
    """The score table of a run; once more for another folder."""
    run = sim.load(place)
    table = run.evaluate(folder, against=[init] if against else [])
    (place / f"{folder.name}.json").write_text(json.dumps(table.to_json()))


def cell(tables: list[dict[str, float]], column: str) -> str:
    """The mean over seeds, with the spread over seeds where there are several."""
    values = [100 * table[column] for table in tables if column in table]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def rows_of(out: Path, folder: str, init: str) -> dict[str, list[dict[str, float]]]:
    """Scores of each row, a table for each seed."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS}
    for seed in range(SEEDS.get(folder, 1)):
        tables = {}
        for kind in ("default", "adapted"):
            path = out / folder_of_runs(folder) / f"{kind}-{seed}" / f"{folder}.json"
            if path.exists():
                tables[kind] = ScoreTable.from_json(path.read_text()).rows
        for kind, rows in tables.items():
            names = {"pretrained backbone": kind}
            if kind == "default":
                names |= {n: n for n in ROWS[:2]} | {init: "frozen"}
            for name, row in names.items():
                if name in rows:
                    found[row].append({c: s.mean for c, s in rows[name].items()})
    return found


def print_tables(out: Path, folders: list[str], init: str) -> None:
    """Scores of all rows, then how each run went."""
    print(f"| folder | row | {' | '.join(COLUMNS.values())} |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for folder in folders:
        for name, tables in rows_of(out, folder, init).items():
            cells = " | ".join(cell(tables, column) for column in COLUMNS)
            print(f"| {folder} | {name} | {cells} |")
    print("\n| run | steps | network | minutes | loss | chance | drift | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for place in sorted(out.glob("*/*-*")):
        if not (place / "took.json").exists():
            continue
        run, health = sim.load(place), json.loads((place / "health.json").read_text())
        readings, recipe = health["readings"], run.recipe
        minutes = json.loads((place / "took.json").read_text())["seconds"] / 60
        network = f"{recipe.backbone.name}, {recipe.backbone.base_width or 'whole'}"
        numbers = (readings[key] for key in ("loss", "chance_loss", "drift"))
        shown = " | ".join("-" if n is None else f"{n:.2f}" for n in numbers)
        print(
            f"| {place.parent.name}/{place.name} | {readings['steps']:.0f} | {network}, "
            f"{recipe.data.image_size} px | {minutes:.1f} | {shown} | {health['state']} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each run")
    parser.add_argument("--init", default="efficientnet-lite0", help="the published weights")
    parser.add_argument("--folders", help="some of them, with commas")
    parser.add_argument(
        "--one", nargs=3, metavar=("FOLDER", "KIND", "SEED"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    data = {path.name: path for path in make(args.archives, args.out / "folders")}
    names = args.folders.split(",") if args.folders else list(data)
    if args.one is not None:
        name, kind, seed = args.one
        place = args.out / folder_of_runs(name) / f"{kind}-{seed}"
        if not (place / "took.json").exists():
            init = args.init if kind == "adapted" else None
            train(data[folder_of_runs(name)], place, int(seed), init, args.minutes)
        if not (place / f"{name}.json").exists():
            score(data[name], place, args.init, against=kind == "default")
        return
    for seed in range(max(SEEDS.values())):  # the first seed of every folder first
        for name in names:
            for kind in ("default", "adapted"):
                if seed < SEEDS.get(name, 1):
                    shown = [str(args.archives), "--out", str(args.out), "--init", args.init]
                    shown += ["--minutes", str(args.minutes), "--one", name, kind, str(seed)]
                    subprocess.run([sys.executable, __file__, *shown], check=True)
    print_tables(args.out, names, args.init)


if __name__ == "__main__":
    main()
