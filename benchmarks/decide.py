"""How often the sentence of `similitude decide` is right: many small tests, judged on a large one.

Rows are frozen: plain numbers, a random network, and published weights on images of several sizes,
which are near ties. Every split draws labels and a small test part; what is right is decided on
all other test images, which it does not see. Right is to name the way that is best there, or to
leave it among those that cannot be told apart; near is one at most half a point below the best.

    python benchmarks/decide.py cifar10/ --train 300 --test 50 150 500 --splits 20
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from similitude.decision.findings import Holdout, decided
from similitude.decision.plan import RANDOM, all_rows
from similitude.decision.work import Row
from similitude.evaluation import Features, LinearProbe, centered, extract_features, raw_features
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.views import ImageFacts
from similitude.modalities import modality
from similitude.randomness import permutation
from similitude.runs.starts import open_start

SIDES = (224, 160, 128, 96, 64)  # of the images that the published weights are given


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
    parser.add_argument("data", help="a folder with train/ and test/")
    parser.add_argument("--against", default="efficientnet-lite0")
    parser.add_argument("--most", type=int, default=5_000, help="images of either part")
    parser.add_argument("--train", type=int, default=300, help="labeled images of a split")
    parser.add_argument("--test", type=int, nargs="+", default=[50, 150, 500])
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    found, names = features_of(given.data, given.against, given.most)
    everything = all_rows(["raw pixels"], [f"{side} px" for side in SIDES])
    train, test = found[RANDOM]
    assert train.y is not None
    assert test.y is not None
    y = test.y.numpy()
    said = []  # of each split, of all test images
    for split in range(given.splits):
        drawn = permutation(split, 0, len(train))[: given.train]
        fitted = {
            row: LinearProbe(seed=split).fit(parts[0].x[drawn], train.y[drawn])
            for row, parts in found.items()
        }
        said.append({row: f.predict(found[row][1].x).numpy() for row, f in fitted.items()})
    print("| test images | certain | right when certain | near when certain | right | undecided |")
    print("|---|---|---|---|---|---|")
    for count in given.test:
        certain, sure, near, right, left = 0, 0, 0, 0, []
        for split, predicted in enumerate(said):
            order = permutation(split, 1, len(y)).numpy()
            mine, rest = order[:count], order[count:]
            truth = {row: float((p[rest] == y[rest]).mean()) for row, p in predicted.items()}
            best = max(truth, key=truth.__getitem__)
            holdout = Holdout(
                given.data, y[mine], mine, names, given.train, "images", ["raw pixels"]
            )
            rows = {row: Row({"linear": p[mine][None]}, 1.0) for row, p in predicted.items()}
            decision = decided(
                Path("."), everything, rows, holdout, minutes=10, seed=0, is_complete=True
            )
            candidates = [way.title for way in decision.ways if way.is_candidate]
            certain += decision.is_certain
            sure += decision.is_certain and decision.use == best
            near += decision.is_certain and truth[decision.use] > truth[best] - 0.005
            right += best in candidates
            left.append(len(candidates))
        print(
            f"| {count} | {certain} of {given.splits} | {sure} of {certain} | {near} of {certain} "
            f"| {right} of {given.splits} | {np.mean(left):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
