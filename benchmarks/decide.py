"""How often the sentence of `similitude decide` is right: many small tests, judged on a large one.

    python benchmarks/decide.py of decisions/cifar --test 200 --splits 10
    python benchmarks/decide.py features cifar10/ --train 300 --test 50 150 500 --splits 20

`of` takes a decision with a large test part. Each split is a small test drawn from it; the sentence
is made anew from that alone, and judged on all test samples that it did not see. `features` draws
the labels of each split anew too: its rows are frozen, plain numbers, a random network, and
published weights on images of several sizes, which are near ties. Right is to name the way that is
best there, or to leave it among those that cannot be told apart; near is one at most half a point
below the best.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from similitude.decision.findings import Decision, Holdout, decided
from similitude.decision.plan import RANDOM, Planned, all_rows
from similitude.decision.work import Row
from similitude.evaluation import Features, LinearProbe, centered, extract_features, raw_features
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.views import ImageFacts
from similitude.modalities import modality
from similitude.randomness import permutation
from similitude.runs.starts import open_start

SIDES = (224, 160, 128, 96, 64)  # of the images that the published weights are given


@dataclass(frozen=True)
class Judged:
    """What each way says of all test samples, their classes and groups."""

    everything: list[Planned]
    said: dict[str, np.ndarray]
    y: np.ndarray
    units: np.ndarray
    class_names: list[str]
    num_train: int

    @property
    def plain(self) -> list[str]:
        return [planned.row for planned in self.everything if planned.task == "plain"]


def features_of(
    folder: str, against: str, most: int
) -> tuple[dict[str, list[Features]], list[str]]:
    """Features of a training and a test part by row, and the names of the classes."""
    images = modality("image")
    config = images.data_config(image_size=64, canvas_size=64)
    sources = images.open_parts(folder, None)
    parts = [
        images.load_some(s, permutation(0, -1, len(s))[:most].sort().values.tolist(), config)
        for s in sources
    ]
    start = open_start(against)
    torch.manual_seed(0)
    small = build_backbone(BackboneConfig(name="resnet18", stem="small", base_width=16))
    plain = [raw_features(part, parts) for part in parts]
    found = {"raw pixels": list(centered(plain[0], plain[1]))}
    half = (0.5,) * 3
    found[RANDOM] = [extract_features(small, part, ImageFacts(32, half, half)) for part in parts]
    for side in SIDES:
        facts = ImageFacts(side, start.mean, start.std)
        found[f"{side} px"] = [extract_features(start.build(), part, facts) for part in parts]
        print(f"features at {side} px", flush=True)
    return found, parts[0].class_names or []


def main() -> None:
    """Print one line for each size of the test."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    either = parser.add_subparsers(dest="study", required=True)
    whole = either.add_parser("of", help="a decision with a large test part")
    whole.add_argument("decisions", type=Path, nargs="+", help="their folders")
    frozen = either.add_parser("features", help="frozen networks, labels drawn anew")
    frozen.add_argument("data", help="a folder with train/ and test/")
    frozen.add_argument("--against", default="efficientnet-lite0")
    frozen.add_argument("--most", type=int, default=5_000, help="images of either part")
    frozen.add_argument("--train", type=int, default=300, help="labeled images of a split")
    for study in (whole, frozen):
        study.add_argument("--test", type=int, nargs="+", default=[50, 150, 500])
        study.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    print(
        "| data | test samples | certain | right when certain | near when certain | right "
        "| undecided |\n|---|---|---|---|---|---|---|"
    )
    if given.study == "features":
        print_lines("frozen features", drawn_anew(given), given)
        return
    for folder in given.decisions:
        judged = read(folder)
        print_lines(folder.name, [judged] * given.splits, given)


def drawn_anew(given: argparse.Namespace) -> list[Judged]:
    """Of each split, what linear probes on its labels say of all test images."""
    found, names = features_of(given.data, given.against, given.most)
    everything = all_rows(["raw pixels"], [f"{side} px" for side in SIDES])
    train, test = found[RANDOM]
    assert train.y is not None
    assert test.y is not None
    splits = []
    for split in range(given.splits):
        drawn = permutation(split, 0, len(train))[: given.train]
        fitted = {
            row: LinearProbe(seed=split).fit(parts[0].x[drawn], train.y[drawn])
            for row, parts in found.items()
        }
        said = {row: f.predict(found[row][1].x).numpy() for row, f in fitted.items()}
        y = test.y.numpy()
        splits.append(Judged(everything, said, y, np.arange(len(y)), names, given.train))
    return splits


def read(folder: Path) -> Judged:
    """What the ways of a finished decision said."""
    with (folder / "predictions.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    facts = json.loads((folder / "decision.json").read_text())
    names = facts["class_names"]
    columns = dict(zip(head, zip(*lines, strict=True), strict=True))
    said = {title: np.array([names.index(c) for c in columns[title]]) for title in head[3:]}
    published = list(json.loads((folder / "plan.json").read_text())["against"])
    networks = {planned.title for planned in all_rows([], published)}
    plain = [title for title in said if title not in networks]
    y = np.array([names.index(c) for c in columns["class"]])
    units = np.array(columns["group"], dtype=int)
    return Judged(all_rows(plain, published), said, y, units, names, 0)


def print_lines(title: str, splits: list[Judged], given: argparse.Namespace) -> None:
    """One line for each size of the test."""
    for count in given.test:
        certain, sure, near, right, left = 0, 0, 0, 0, []
        for split, judged in enumerate(splits):
            decision, truth = decided_on(judged, count, split)
            best = max(truth, key=truth.__getitem__)
            candidates = [way.title for way in decision.ways if way.is_candidate]
            certain += decision.is_certain
            sure += decision.is_certain and decision.use == best
            near += decision.is_certain and truth[decision.use] > truth[best] - 0.005
            right += best in candidates
            left.append(len(candidates))
        print(
            f"| {title} | {count} | {certain} of {len(splits)} | {sure} of {certain} "
            f"| {near} of {certain} | {right} of {len(splits)} | {np.mean(left):.1f} |",
            flush=True,
        )


def decided_on(judged: Judged, count: int, split: int) -> tuple[Decision, dict[str, float]]:
    """The decision on ``count`` test samples or more, whole groups, and accuracies on the rest."""
    y, units = judged.y, judged.units
    order = permutation(split, 1, int(units.max()) + 1).numpy()
    place = np.argsort(order)[units]  # of each sample's group in the order
    mine = place < np.sort(place)[min(count, len(y) - 1)]
    truth = {row: float((p[~mine] == y[~mine]).mean()) for row, p in judged.said.items()}
    holdout = Holdout(
        "", y[mine], units[mine], judged.class_names, judged.num_train, "samples", judged.plain
    )
    rows = {
        planned.title: Row({planned.column: judged.said[planned.title][mine][None]}, 1.0)
        for planned in judged.everything
        if planned.title in judged.said
    }
    decision = decided(
        Path("."), judged.everything, rows, holdout, minutes=10, seed=0, is_complete=True
    )
    return decision, truth


if __name__ == "__main__":
    main()
