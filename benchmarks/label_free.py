"""Which number without labels goes with accuracy: rank correlations over a folder of runs.

    python benchmarks/label_free.py FOLDER LABELED [--column linear] [--samples 500] [--views 10]
    python benchmarks/label_free.py FOLDER [--column linear]

Every run in FOLDER that was evaluated gives one point: each number on the training images of
LABELED, and the accuracy in its evaluation.json. Prints the numbers of all runs and Spearman's rank
correlation of each with the accuracy, as Markdown. A number is said to be good where more is
better, so those where less is better (uniformity, alignment, the distance of alpha from 1) are
turned. Without LABELED the runs may be of several data sets, and what counts are pairs of networks
in one run's evaluation.json: which share of them each number puts into the order of the accuracies.
"""

import argparse
from collections import Counter
from itertools import combinations
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

import similitude as sim
from similitude.errors import UserError
from similitude.evaluation import (
    alignment,
    clid,
    extract_features,
    label_free_numbers,
    lidar,
    nearest_neighbor_consistency,
    read_scores,
)
from similitude.evaluation.comparison import PRETRAINED_BACKBONE
from similitude.listener import Silent
from similitude.methods import build_method
from similitude.runs.run import Run

MOST_IMAGES = 2_500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("labeled", nargs="?", help="what the runs were evaluated on")
    parser.add_argument("--column", default="linear", help="of the score table")
    parser.add_argument("--samples", type=int, default=500, help="images whose views are compared")
    parser.add_argument("--views", type=int, default=10, help="of each of these")
    args = parser.parse_args()
    if args.labeled is None:
        print_pairs(sorted(args.folder.rglob("evaluation.json")), args.column)
        return
    names, accuracies, rows = [], [], []
    for place in sorted(p for p in args.folder.iterdir() if (p / "evaluation.json").exists()):
        table = read_scores(place / "evaluation.json")
        score = table and table.rows.get(PRETRAINED_BACKBONE, {}).get(args.column)
        if not score:
            continue
        try:
            row = numbers_of(sim.load(place), args.labeled, args.samples, args.views)
        except UserError as error:
            print(f"<!-- {place.name}: {error} -->")
            continue
        names.append(place.name)
        accuracies.append(score.mean)
        rows.append(row)
    if len(rows) < 3:
        parser.error(f"{args.folder} has {len(rows)} runs with a score of {args.column}: 3 or more")
    halves = [column_of(rows, key) for key in ("cluster_learnability", "intrinsic_dimension")]
    for row, value in zip(rows, clid(*halves).tolist(), strict=True):
        row["clid"] = value
    keys = list(max(rows, key=len))  # of a collapsed run some are not defined
    print(f"| run | {args.column} | {' | '.join(keys)} |")
    print("|---|---|" + "---|" * len(keys))
    for name, accuracy, row in zip(names, accuracies, rows, strict=True):
        cells = [f"{row.get(key, float('nan')):.3g}" for key in keys]
        print(f"| {name} | {100 * accuracy:.1f} | {' | '.join(cells)} |")
    found = [
        float(spearmanr(column_of(rows, key), accuracies, nan_policy="omit").statistic)
        for key in keys
    ]
    print(f"| Spearman's rho, {len(rows)} runs | | {' | '.join(f'{rho:.2f}' for rho in found)} |")


def print_pairs(places: list[Path], column: str) -> None:
    """How many pairs of networks on the same data each number puts in order, as Markdown."""
    right: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for place in places:
        table = read_scores(place)
        if table is None:
            continue
        known = [name for name in table.label_free if table.rows.get(name, {}).get(column)]
        rows = {name: turned(table.label_free[name]) for name in known}
        if len(rows) > 1:
            found = list(rows.values())
            halves = (column_of(found, k) for k in ("cluster_learnability", "intrinsic_dimension"))
            for row, value in zip(found, clid(*halves).tolist(), strict=True):
                row["clid"] = value
        for one, other in combinations(rows, 2):
            ahead = table.rows[one][column].mean - table.rows[other][column].mean
            for key in rows[one].keys() & rows[other].keys():
                right[key] += (rows[one][key] - rows[other][key]) * ahead > 0
                every[key] += 1
    print("| number | pairs in the order of the accuracies |")
    print("|---|---|")
    for key, number in every.items():
        print(f"| {key} | {right[key]} of {number} |")


def turned(numbers: dict[str, float]) -> dict[str, float]:
    """With more for better."""
    found = numbers | {"uniformity": -numbers["uniformity"]}
    if "alpha_req" in found:
        found["alpha_req"] = -abs(found["alpha_req"] - 1)
    return found


def numbers_of(run: Run, labeled: str, samples: int, views: int) -> dict[str, float]:
    """All numbers of one run, turned so that more should be better."""
    data = run.recipe.data
    source = run.modality.open_parts(labeled, data)[0]
    images = run.load_as(data, source, Silent()).spread(MOST_IMAGES)
    found = turned(label_free_numbers(extract_features(run.backbone, images, run.facts).x))
    h = features_of_views(run, images.spread(samples), views)
    return found | {
        "lidar": lidar(h),
        "alignment": -alignment(h[0], h[1]),
        "neighbor_consistency": nearest_neighbor_consistency(h[0], h[1]),
    }


@torch.inference_mode()
def features_of_views(run: Run, images: sim.data.ImageSet, views: int) -> Tensor:
    """Features [V, N, D] of the first view of the run's method, drawn several times."""
    method = build_method(run.recipe.method, run.recipe.backbone.build())
    multi_view = method.views(run.facts)
    rows, places = images.take(slice(None)), torch.arange(len(images))
    return torch.stack(
        [
            run.backbone(multi_view(rows, places, seed=0, epoch=-1 - number)[0]).float()
            for number in range(views)
        ]
    )


def column_of(rows: list[dict[str, float]], key: str) -> Tensor:
    return torch.tensor([row.get(key, float("nan")) for row in rows], dtype=torch.float64)


if __name__ == "__main__":
    main()
