"""A backbone in a detector and a segmenter: random weights, published ones, and these adapted.

    python benchmarks/dense.py boxes STEEL --out OUT
    python benchmarks/dense.py masks CELLS --out OUT
    python benchmarks/dense.py boxes STEEL --runs MOCO BYOL

STEEL holds images/CLASS/*.jpg and boxes-voc/*.xml (NEU-DET); CELLS holds set1/ and set2/ with
images/ and masks/. Adapting sees all images that do not test, and no label; then a small Faster
R-CNN or FCN on a feature pyramid learns from a few labeled ones, all of it, with one recipe for
every row. Seeds draw the labeled images, their order and the heads' weights; the images that test
are always the same. The adapted run stays in OUT and is trained once. With --runs the rows are the
backbones of these runs, and random weights of the first one's. Prints a Markdown table.
"""

import argparse
import copy
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_iou
from torchvision.transforms.functional import normalize

import similitude as sim
from similitude.evaluation.scores import mean_score
from similitude.images.feature_maps import FeatureMaps
from similitude.runs.starts import open_start

START = "efficientnet-lite0"
SIDE = 128  # pixels of every image
WIDTH = 64  # channels of the pyramid
BATCH = 8
LR = 5e-4  # of AdamW, peak of one cycle
Target = dict[str, Tensor]
Scale = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of the channels
Build = Callable[[], nn.Module]


def image(path: Path, side: int = SIDE) -> Tensor:
    """[3, side, side] in [0, 1]."""
    shown = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(shown)).permute(2, 0, 1) / 255


def boxes_of(path: Path, classes: list[str]) -> Target:
    """What torchvision's detectors learn from: corners in pixels, and classes from 1 on."""
    root = ElementTree.parse(path).getroot()
    size = [float(root.findtext(f"size/{side}", "")) for side in ("width", "height")] * 2
    corners = list(zip(("xmin", "ymin", "xmax", "ymax"), size, strict=True))
    found = [
        [float(box.findtext(f"bndbox/{corner}", "")) * SIDE / of for corner, of in corners]
        for box in root.iter("object")
    ]
    labels = [1 + classes.index(box.findtext("name", "")) for box in root.iter("object")]
    return {"boxes": torch.tensor(found), "labels": torch.tensor(labels)}


def classes_of(path: Path) -> Tensor:
    """[side, side]: 0 around the cell, 1 its plasma, 2 its nucleus, drawn as 0, 128 and 255."""
    drawn = Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return (torch.from_numpy(np.array(drawn)).long() + 64) // 128


def average_precision(found: list[Target], true: list[Target], label: int, iou: float) -> float:
    """Of one class: the area below the precision, made monotonic, over the recall (VOC 2010 on).

    Args:
        found: of each image: boxes, labels and scores.
        true: of each image: boxes and labels.
        label: the class.
        iou: from which overlap on a box is found; each is found once.
    """
    scores, hits = [], []
    for ours, theirs in zip(found, true, strict=True):
        mine = ours["labels"] == label
        order = ours["scores"][mine].argsort(descending=True)
        overlaps = box_iou(ours["boxes"][mine][order], theirs["boxes"][theirs["labels"] == label])
        free = torch.ones(overlaps.shape[1], dtype=torch.bool)
        for overlap, score in zip(overlaps, ours["scores"][mine][order], strict=True):
            best = int(overlap.argmax()) if len(overlap) else 0
            hit = bool(len(overlap) and overlap[best] >= iou and free[best])
            if hit:
                free[best] = False
            scores.append(float(score))
            hits.append(hit)
    count = sum(int((target["labels"] == label).sum()) for target in true)
    right = np.array(hits, dtype=float)[np.argsort(-np.array(scores), kind="stable")]
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    monotonic = np.maximum.accumulate(precision[::-1])[::-1]
    return float((monotonic * right).sum() / count)


def train(network: nn.Module, loss: Callable[[list[int]], Tensor], count: int, steps: int) -> None:
    """AdamW on all weights, over positions of the images."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += torch.randperm(count).tolist()
        optimizer.zero_grad()
        loss([order.pop(0) for _ in range(BATCH)]).backward()
        optimizer.step()
        schedule.step()
    network.eval()


class Boxes:
    """Six kinds of defects of steel: AP50, the mean over the kinds."""

    columns = ("AP50",)

    def __init__(self, folder: Path, each: int) -> None:
        self.classes = sorted(place.name for place in (folder / "images").iterdir())
        drawn = np.random.default_rng(0)
        self.pool: list[list[Path]] = []
        self.tested: list[Path] = []
        for name in self.classes:
            files = sorted((folder / "images" / name).glob("*.jpg"))
            files = [files[i] for i in drawn.permutation(len(files))]
            self.tested += files[:20]
            self.pool.append(files[20:])
        self.folder, self.each = folder, each
        self.unlabeled = [file for files in self.pool for file in files]

    def read(self, files: list[Path]) -> tuple[list[Tensor], list[Target]]:
        place = self.folder / "boxes-voc"
        targets = [boxes_of(place / f"{file.stem}.xml", self.classes) for file in files]
        return [image(file) for file in files], targets

    def scores(self, backbone: nn.Module, scale: Scale, seed: int, steps: int) -> list[float]:
        drawn = np.random.default_rng(seed)
        few = [files[i] for files in self.pool for i in drawn.permutation(len(files))[: self.each]]
        images, targets = self.read(few)
        names = ["0", "1", "2"]
        maps = FeatureMaps(backbone, SIDE, names)
        pyramid = nn.Sequential(maps, FeaturePyramidNetwork(maps.channels, WIDTH))
        pyramid.out_channels = WIDTH  # type: ignore[assignment]
        detector = FasterRCNN(
            pyramid,
            min_size=SIDE,
            max_size=SIDE,
            image_mean=scale[0],
            image_std=scale[1],
            rpn_anchor_generator=AnchorGenerator(((24,), (48,), (96,)), ((0.5, 1.0, 2.0),) * 3),
            rpn_post_nms_top_n_train=200,
            rpn_post_nms_top_n_test=200,
            box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
            box_head=TwoMLPHead(WIDTH * 7 * 7, 256),
            box_predictor=FastRCNNPredictor(256, 1 + len(self.classes)),
            box_batch_size_per_image=64,
        )

        def loss(batch: list[int]) -> Tensor:
            return sum(detector([images[i] for i in batch], [targets[i] for i in batch]).values())

        train(detector, loss, len(images), steps)
        images, true = self.read(self.tested)
        with torch.inference_mode():
            found = [detector([shown])[0] for shown in images]
        each = [average_precision(found, true, 1 + c, 0.5) for c in range(len(self.classes))]
        return [float(np.mean(each))]


class Masks:
    """Plasma, nucleus and what is around, of white blood cells: the mean IoU over the three."""

    columns = ("IoU, set 1", "IoU, set 2: another stain and camera")

    def __init__(self, folder: Path, each: int) -> None:
        first = sorted((folder / "set1" / "images").iterdir())
        first = [first[i] for i in np.random.default_rng(0).permutation(len(first))]
        self.tested = [first[:100], sorted((folder / "set2" / "images").iterdir())]
        self.unlabeled, self.each = first[100:], each

    def read(self, files: list[Path], scale: Scale) -> tuple[Tensor, Tensor]:
        shown = torch.stack([image(file) for file in files])
        drawn = [classes_of(file.parents[1] / "masks" / file.name) for file in files]
        return normalize(shown, *map(list, scale)), torch.stack(drawn)

    def scores(self, backbone: nn.Module, scale: Scale, seed: int, steps: int) -> list[float]:
        drawn = np.random.default_rng(seed).permutation(len(self.unlabeled))[: self.each]
        images, classes = self.read([self.unlabeled[i] for i in drawn], scale)
        maps = FeatureMaps(backbone, SIDE, ["out", "1", "2"])  # FCN takes "out", the finest
        pyramid = nn.Sequential(maps, FeaturePyramidNetwork(maps.channels, WIDTH))
        segmenter = FCN(pyramid, FCNHead(WIDTH, 3))

        def loss(batch: list[int]) -> Tensor:
            return nn.functional.cross_entropy(segmenter(images[batch])["out"], classes[batch])

        train(segmenter, loss, len(images), steps)
        found = []
        for files in self.tested:
            images, classes = self.read(files, scale)
            with torch.inference_mode():
                said = torch.cat([segmenter(some)["out"].argmax(1) for some in images.split(20)])
            true, ours = classes.flatten().numpy(), said.flatten().numpy()
            found.append(float(jaccard_score(true, ours, average="macro")))
        return found


STUDIES = {"boxes": Boxes, "masks": Masks}


def adapt(files: list[Path], out: Path, epochs: int) -> None:
    """Let the start go on learning from images without labels."""
    side = Image.open(files[0]).width
    pixels = [255 * image(file, side).permute(1, 2, 0) for file in files]
    images = torch.stack(pixels).round().byte().numpy()
    sim.pretrain(images, init=START, epochs=epochs, out=out, overwrite=True)


def adapted_rows(unlabeled: list[Path], out: Path, epochs: int) -> tuple[dict[str, Build], Scale]:
    """The start with random weights, its own, and adapted ones."""
    start = open_start(START)
    if not (out / "health.json").exists():
        with ProcessPoolExecutor(1) as apart:  # its memory is given back
            apart.submit(adapt, unlabeled, out, epochs).result()
    run = sim.load(out)
    rows: dict[str, Build] = {
        "random weights": start.backbone.build,
        START: start.build,
        f"{START} adapted": lambda: copy.deepcopy(run.backbone),
    }
    return rows, (start.mean, start.std)


def run_rows(folders: list[Path]) -> tuple[dict[str, Build], Scale]:
    """Random weights, and those of some runs, which all read images in one scale."""
    runs = {"/".join(folder.parts[-2:]): sim.load(folder) for folder in folders}
    first = next(iter(runs.values()))
    rows: dict[str, Build] = {"random weights": first.recipe.backbone.build}
    rows |= {name: lambda run=run: copy.deepcopy(run.backbone) for name, run in runs.items()}
    return rows, (first.recipe.data.mean, first.recipe.data.std)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path)
    where.add_argument("--runs", type=Path, nargs="+")
    parser.add_argument("--each", type=int, default=10, help="labeled images, of each kind")
    parser.add_argument("--steps", type=int, default=150, help="of the detector or segmenter")
    parser.add_argument("--epochs", type=int, default=4, help="of adapting")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    study = STUDIES[args.study](args.folder, args.each)
    if args.runs:
        rows, scale = run_rows(args.runs)
    else:
        out = args.out / f"{args.study}-adapted"
        rows, scale = adapted_rows(study.unlabeled, out, args.epochs)
    print(f"| backbone | {' | '.join(study.columns)} |\n|---|{'---|' * len(study.columns)}")
    for name, build in rows.items():
        found = []
        for seed in range(args.seeds):
            torch.manual_seed(seed)
            found.append(study.scores(build(), scale, seed, args.steps))
        cells = [mean_score(list(of_column)).to_text() for of_column in zip(*found, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
