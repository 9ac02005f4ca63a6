"""The six folders on which the first hour of a new user is measured, from published archives.

    python benchmarks/folders.py ARCHIVES OUT

Each folder has train/CLASS/ and test/CLASS/; what belongs together (photos of one exercise) is on
one side. White blood cells have a second one, with the test images of another camera and stain.
"""

import argparse
import csv
import json
import random
import shutil
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

from PIL import Image

from similitude.images.loading import load_images
from similitude.images.opening import open_source

SEED = 0
TEST_SHARE = 0.2
CUT = 5_000  # training images of the two sets that are cut down
EQUIPMENT = ("barbell", "dumbbell", "body only", "cable", "machine", "kettlebells", "bands")


def stratified(names: dict[str, list[str]], count: int, rng: random.Random) -> set[str]:
    """As equal a share of each class as it gets, ``count`` in all."""
    share = count / sum(map(len, names.values()))
    return {
        n for c in sorted(names) for n in rng.sample(sorted(names[c]), round(share * len(names[c])))
    }


def place(path: Path, out: Path, part: str, label: str, name: str | None = None) -> None:
    """Copy one image to where its part and class say."""
    target = out / part / label / (name or path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def steel(raw: Path, out: Path) -> None:
    rng = random.Random(SEED)
    by_class = {f.name: [p.name for p in f.iterdir()] for f in (raw / "images").iterdir()}
    test = stratified(by_class, round(TEST_SHARE * sum(map(len, by_class.values()))), rng)
    for label, names in by_class.items():
        for name in names:
            place(raw / "images" / label / name, out, "test" if name in test else "train", label)


def white_blood_cells(raw: Path, out: Path, other: Path) -> None:
    rng = random.Random(SEED)
    parts = {}
    for part in ("set1", "set2"):
        rows = list(csv.DictReader((raw / part / "labels.csv").open()))
        parts[part] = {r["file"]: r["label"] for r in rows if r["label"] != "basophil"}
    by_class: dict[str, list[str]] = defaultdict(list)
    for name, label in parts["set1"].items():
        by_class[label].append(name)
    test = stratified(by_class, round(TEST_SHARE * len(parts["set1"])), rng)
    for name, label in parts["set1"].items():
        image = raw / "set1" / "images" / name
        place(image, out, "test" if name in test else "train", label)
        if name not in test:
            place(image, other, "train", label)
    for name, label in parts["set2"].items():
        place(raw / "set2" / "images" / name, other, "test", label)


def exercises(raw: Path, out: Path) -> None:
    """Photos of exercises by the equipment in them; photos that are alike share a group."""
    rng = random.Random(SEED)
    entries = [
        e for e in json.loads((raw / "exercises.json").read_text()) if e["equipment"] in EQUIPMENT
    ]
    groups = sorted({e["group"] for e in entries}, key=str)
    test = set(rng.sample(groups, round(TEST_SHARE * len(groups))))
    for entry in entries:
        part = "test" if entry["group"] in test else "train"
        for photo in sorted((raw / "exercises" / entry["id"]).iterdir()):
            place(
                photo,
                out,
                part,
                entry["equipment"].replace(" ", "-"),
                f"{entry['id']}-{photo.name}",
            )


def cifar10(raw: Path, out: Path) -> None:
    rng = random.Random(SEED)
    for part in ("train", "test"):
        by_class = {
            f.name: [f"{f.name}/{p.name}" for p in f.iterdir()] for f in (raw / part).iterdir()
        }
        for name in sorted(stratified(by_class, CUT, rng)):
            place(raw / part / name, out, part, name.split("/")[0])


def fashion_mnist(out: Path) -> None:
    rng = random.Random(SEED)
    for part in ("train", "test"):
        images = load_images(open_source("fashion-mnist", split=part))
        assert images.labels is not None
        assert images.class_names is not None
        by_class: dict[str, list[str]] = defaultdict(list)
        for i, label in enumerate(images.labels.tolist()):
            by_class[images.class_names[label]].append(str(i))
        for i in sorted(map(int, stratified(by_class, CUT, rng))):
            name = images.class_names[int(images.labels[i])].replace("/", "-")
            target = out / part / name / f"{i:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[i : i + 1][0, 0].numpy()).save(target)


def make(archives: Path, out: Path) -> list[Path]:
    """Make the folders that are not there yet; all of them."""
    sources = {
        "steel": ("steel-defects.tar.gz", steel),
        "white-blood-cells": ("white-blood-cells.tar", white_blood_cells),
        "exercises": ("free-exercise-db-96px.tar", exercises),
        "cifar10-5000": ("cifar10-images.tar.gz", cifar10),
    }
    made = []
    for name, (archive, build) in sources.items():
        places = [out / name]
        if name == "white-blood-cells":
            places.append(out / f"{name}-2")
        made += places
        if all(place.exists() for place in places):
            continue
        with tempfile.TemporaryDirectory() as raw:
            with tarfile.open(archives / archive) as tar:
                tar.extractall(raw, filter="data")
            build(Path(raw), *places)
    made.append(out / "fashion-mnist-5000")
    if not made[-1].exists():
        fashion_mnist(made[-1])
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    for folder in make(given.archives, given.out):
        counts = [
            sum(p.is_file() for p in (folder / part).rglob("*")) for part in ("train", "test")
        ]
        classes = len(list((folder / "train").iterdir()))
        print(f"{folder.name}: {counts[0]} training and {counts[1]} test images, {classes} classes")
