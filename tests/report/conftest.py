"""Fabricated run folders: a full one on scikit-learn's digits, and a minimal one without labels."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

MakeRun = Callable[..., Path]

RECIPE = {
    "method": {"name": "simclr", "temperature": 0.2, "projector": {"layers": 2, "width": 128}},
    "backbone": {"name": "resnet18", "stem": "small"},
    "optimizer": {"name": "sgd", "base_lr": 0.2, "weight_decay": 1e-4},
    "epochs": 10,
    "batch_size": 256,
    "image_size": 32,
    "seed": 0,
    "precision": "32",
    "reasons": {
        "batch_size": "1,797 images: 7 steps per epoch",
        "backbone.stem": "images of 32 pixels: a stride of 4 would leave 8",
    },
}
ENVIRONMENT = {
    "similitude": "0.1.0",
    "torch": "2.9.0",
    "python": "3.11.7",
    "platform": "Linux",
    "processor": "x86_64",
    "threads": 2,
    "device": "cpu",
    "command": "/opt/bin/similitude pretrain digits --epochs 10",
    "data": "digits train",
    "title": "SimCLR",
    "num_images": 1797,
    "started": "2030-05-04T10:11:12",
    "seconds": 312.4,
    "images_per_second": 1450.2,
    "waiting_share": 0.012,
}
COLUMNS = ("knn", "linear", "linear_1", "linear_5", "linear_10", "linear_100")
MEANS = {
    "raw pixels": (0.859, 0.84, 0.39, 0.607, 0.68, 0.79),
    "random backbone": (0.71, 0.76, 0.31, 0.498, 0.57, 0.71),
    "pretrained backbone": (0.838, 0.88, 0.48, 0.674, 0.75, 0.85),
}


def _evaluation(means: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    def score(column: str, mean: float) -> dict[str, Any]:
        few = column.startswith("linear_")
        return {
            "mean": mean,
            "low": mean - 0.01 if few else None,
            "high": mean + 0.01 if few else None,
            "draws": 10 if few else 1,
        }

    return {
        "data": "digits",
        "num_train": 1500,
        "num_test": 297,
        "num_classes": 10,
        "columns": list(COLUMNS),
        "rows": [
            {"name": name, "scores": {c: score(c, m) for c, m in zip(COLUMNS, values, strict=True)}}
            for name, values in means.items()
        ],
        "seconds": 12.5,
    }


def _metrics(rows: int, epochs: float) -> str:
    lines = ["step,epoch,loss,chance_loss,lr,knn,feature_std,effective_rank,queue_age"]
    for i in range(rows):
        t = (i + 1) / rows
        loss = 6.236 * (0.45 + 0.55 * math.exp(-4 * t)) + 0.05 * math.sin(9 * i)
        knn = f"{0.3 + 0.5 * t:.3f}" if i % 10 == 9 else ""
        std = f"{0.1 + 0.01 * t:.4f}" if i % 5 == 0 else ""
        rank = f"{4 + 20 * t:.2f}" if i % 5 == 0 else ""
        lr = 0.2 * math.cos(t * math.pi / 2)
        lines.append(f"{i * 7},{epochs * t:.4f},{loss:.4f},6.2364,{lr:.5f},{knn},{std},{rank},{i}")
    return "\n".join(lines) + "\n"


def _digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images[:count], digits.target[:count]


def _embedding(path: Path, count: int, labeled: bool) -> None:
    images, labels = _digits(count)
    rng = np.random.default_rng(0)
    flat = images.reshape(count, -1) - images.mean(axis=0).ravel()
    features = np.maximum(flat @ rng.normal(size=(64, 32)), 0).astype(np.float32)
    pixels = np.repeat((images * 15.9).astype(np.uint8)[..., None], 3, axis=-1)
    arrays: dict[str, Any] = {
        "features": features,
        "thumbnails": pixels.repeat(2, axis=1).repeat(2, axis=2),
        "names": np.array([f"train/{i:05d}" for i in range(count)]),
        "spectrum": np.linalg.svd(features - features.mean(0), compute_uv=False),
    }
    if labeled:
        arrays["labels"] = labels.astype(np.int64)
        arrays["class_names"] = np.array([f"digit {d}" for d in range(10)])
    np.savez(path, **arrays)


def fabricate_run(
    run: Path,
    *,
    state: str = "healthy",
    count: int = 120,
    labeled: bool = True,
    means: dict[str, tuple[float, ...]] | None = None,
    differences: dict[str, dict[str, dict[str, float]]] | None = None,
    recipe: dict[str, Any] | None = None,
    rows: int = 60,
) -> Path:
    """Write a full run folder; keyword arguments change single parts of it."""
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **(recipe or {})}))
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (run / "metrics.csv").write_text(_metrics(rows, 10))
    health = {
        "state": state,
        "reasons": [f"The run is {state}: feature std 0.11 of 0.177."],
        "advice": [] if state == "healthy" else ["Try `--set method.temperature=0.2`."],
        "readings": {"feature_std": 0.11, "effective_rank": 21.5, "loss": None},
    }
    (run / "health.json").write_text(json.dumps(health))
    evaluation = _evaluation(means or MEANS)
    if differences is not None:  # files of earlier versions have none
        evaluation["differences"] = differences
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    _embedding(run / "embedding.npz", count, labeled)
    Image.new("RGB", (96, 64), (200, 120, 40)).save(run / "views.png")
    (run / "unreadable.txt").write_text("a.jpg\ttruncated\nb.jpg\tno image\n")
    return run


def fabricate_minimal_run(run: Path) -> Path:
    """A run that was stopped after three log points: no labels, no evaluation, no embedding."""
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({"method": {"name": "byol"}, "epochs": 20}))
    (run / "metrics.csv").write_text(
        "step,epoch,loss,chance_loss,knn,mystery\n"
        "0,0.1,2.0,,,5\n10,0.2,1.9,,,\n20,0.3,nan,,,7\n30,0"
    )
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(name, ...)`` fabricates runs/name, with `fabricate_run`'s arguments."""

    def make(name: str = "full", **parts: Any) -> Path:
        return fabricate_run(tmp_path / "runs" / name, **parts)

    return make


@pytest.fixture
def minimal_run(tmp_path: Path) -> Path:
    return fabricate_minimal_run(tmp_path / "runs" / "minimal")
