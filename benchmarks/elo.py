"""ELo on surveillance clips with sound, and on three channels of CIFAR-10.

    python benchmarks/elo.py clips FIGHT_CLIPS --seeds 0 1 2
    python benchmarks/elo.py clips FIGHT_CLIPS --recipe evolutions/clips-elo/best.yaml
    python benchmarks/elo.py channels CIFAR10_FOLDER --seeds 0 1 2

Of the clips (a folder with clips/CLASS/NAME.mp4 and labels.csv with a column group) all are seen
without labels; a linear probe is fitted on four fifths and scored on the other one, three times
five folds, and clips of one scene are in one fold. Of CIFAR-10 3,000 images are trained on, as
luma, two colors (YCbCr) and edges of 16 pixels, and 3,000 others are the test. Prints Markdown.
"""

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import similitude as sim
from similitude.evaluation import extract_features
from similitude.modalities import modality

REPEATS, FOLDS = 3, 5
IMAGES, SIDE = 3_000, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=("clips", "channels"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None, help="120 of clips, 6 of channels")
    parser.add_argument("--recipe", type=Path, help="of an evolution; else all weights are equal")
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of the recipe")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        (clips if args.study == "clips" else channels)(args, Path(out))


def trained(data: Path, args: argparse.Namespace, out: Path, seed: int, epochs: int) -> Any:
    if args.recipe is not None:
        options: dict[str, Any] = {"recipe": args.recipe}
    else:
        options = {"method": "elo"}
    return sim.pretrain(
        data,
        out=out / str(seed),
        seed=seed,
        epochs=args.epochs or epochs,
        overrides=args.set,
        report=False,
        **options,
    )


def clips(args: argparse.Namespace, out: Path) -> None:
    folder = args.folder / "clips"
    with (args.folder / "labels.csv").open() as file:
        groups = {row["file"].removeprefix("clips/"): row["group"] for row in csv.DictReader(file)}
    kind = modality("video")
    source = kind.open_training(folder, None)
    rows: dict[str, list[list[float]]] = {}

    def score(name: str, samples: Any, x: np.ndarray) -> None:
        of = np.array([groups[own] for own in samples.names])
        rows.setdefault(name, []).append(probed(x, samples.labels.numpy(), of))

    for shows in ("frames", "flow"):
        videos = kind.load(kind.of_files(source, shows), kind.data_config(shows=shows, size=32))
        score(videos.raw_name, videos, videos.raw().numpy())
        for name, x in videos.baselines().items():
            score(f"{name} of {shows}", videos, x.numpy())
    for seed in args.seeds:
        run = trained(folder, args, out, seed, 120)
        samples = run.modality.load(
            run.modality.open_training(folder, run.recipe.data), run.recipe.data
        )
        torch.manual_seed(seed)
        fresh = run.recipe.backbone.build()
        score("untrained", samples, extract_features(fresh, samples, run.facts).x.numpy())
        score("ELo", samples, extract_features(run.backbone, samples, run.facts).x.numpy())
    print(
        f"| mean over {REPEATS} x {FOLDS} folds | accuracy in percent, for each seed |\n|---|---|"
    )
    for name, found in rows.items():
        print(f"| {name} | {'  '.join(f'{100 * statistics.mean(folds):.1f}' for folds in found)} |")


def probed(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> list[float]:
    """Accuracy on each fold."""
    found = []
    for repeat in range(REPEATS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat)
        for train, test in folds.split(x, y, groups):
            penalty = 1.0 if x.shape[1] < 10 else 0.1  # of many numbers a stronger one
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
            found.append(probe.fit(x[train], y[train]).score(x[test], y[test]))
    return found


def channels(args: argparse.Namespace, out: Path) -> None:
    table = written(args.folder, out)
    rows: dict[str, list[float]] = {}
    for seed in args.seeds:
        run = trained(table, args, out, seed, 6)
        for name, scores in run.evaluate(table, protocols=["linear"]).rows.items():
            rows.setdefault(name, []).append(100 * scores["linear"].mean)
    print("| linear probe, accuracy in percent, a number for each seed | |\n|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {'  '.join(f'{value:.1f}' for value in found)} |")


def written(folder: Path, out: Path) -> Path:
    """The channels of some images as files, and the table that names them."""
    table = out / "channels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["luma", "colors", "edges", "label", "split"])
        for part in ("train", "test"):
            (out / part).mkdir()
            files = sorted((folder / part).glob("*/*"))
            for i in range(IMAGES):
                path = files[i * len(files) // IMAGES]
                with Image.open(path) as image:
                    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
                luma, a, b = small.convert("YCbCr").split()
                edges = luma.filter(ImageFilter.FIND_EDGES)
                colors = Image.merge("RGB", (a, b, Image.new("L", small.size, 128)))
                names = []
                for name, picture in (("l", luma), ("ab", colors), ("e", edges)):
                    names.append(f"{part}/{i:04d}-{name}.png")
                    picture.save(out / names[-1])
                writer.writerow([*names, path.parent.name, part])
    return table


if __name__ == "__main__":
    main()
