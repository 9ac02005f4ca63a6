"""Read one run folder into a typed summary; nothing here draws or writes.

M: images, D: backbone features, T: side of a thumbnail in pixels, C: classes; H: heads and h x w:
patches of a vision transformer; Q: questions, K: answers to each, E: entries of sensors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from pydantic import ValidationError

from similitude.errors import UserError, visible, visible_values
from similitude.evaluation.retrieval_table import RetrievalTable
from similitude.evaluation.scores import ScoreTable
from similitude.files.reading import (
    MAX_LIST,
    damaged,
    read_arrays,
    read_bytes,
    read_json,
    read_yaml,
)
from similitude.files.writing import as_path
from similitude.runs.folder import settle
from similitude.runs.metrics import Metrics

STATES = ("healthy", "doubtful", "collapsed")
MAX_IMAGES = 2000  # of an embedding: a page can show no more, and a run writes no more


@dataclass(frozen=True)
class Health:
    """The verdict of the run about itself: state, why, what to try, and the numbers behind it."""

    state: str
    reasons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    readings: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Embedding:
    """Backbone features of some images, with the images themselves."""

    features: Float[np.ndarray, "M D"]
    thumbnails: UInt8[np.ndarray, "M T T 3"]
    names: list[str]
    labels: Integer[np.ndarray, " M"] | None
    class_names: list[str] | None
    spectrum: Float[np.ndarray, " K"]
    track: bytes | None = None  # some of the samples as one sound file
    times: dict[int, tuple[float, float]] = field(default_factory=dict)  # of each in it, seconds


@dataclass(frozen=True)
class Attention:
    """Where the class token of a ViT's last block looks, in a few images."""

    maps: Float[np.ndarray, "M H h w"]
    images: UInt8[np.ndarray, "M T T 3"]
    names: list[str]
    classes: list[str] | None


@dataclass(frozen=True)
class Examples:
    """Some questions of one sensor to another, and what was found first.

    Attributes:
        asked: The sensor of each question, Q of them.
        found: The other.
        query: Number of the entry that asks.
        answers: Numbers of the entries that were found, the best first; -1 where there are fewer.
        right: Whether an answer belongs to the question.
        names: Of the entries: a text itself.
        is_text: Whether an entry is a text.
        thumbnails: Of the entries.
    """

    asked: list[str]
    found: list[str]
    query: Integer[np.ndarray, " Q"]
    answers: Integer[np.ndarray, "Q K"]
    right: Bool[np.ndarray, "Q K"]
    names: list[str]
    is_text: Bool[np.ndarray, " E"]
    thumbnails: UInt8[np.ndarray, "E T T 3"]


@dataclass(frozen=True)
class RunSummary:
    """What a run folder holds; a part that is missing is None or empty."""

    path: Path
    name: str
    recipe: dict[str, Any]
    reasons: dict[str, str]
    environment: dict[str, Any]
    metrics: Metrics
    health: Health | None
    evaluation: ScoreTable | None
    retrieval: RetrievalTable | None
    examples: Examples | None
    embedding: Embedding | None
    attention: Attention | None
    views: Path | None
    unreadable: int

    def setting(self, dotted: str) -> Any:
        """The value of a recipe field such as ``method.name``, or None."""
        value: Any = self.recipe
        for key in dotted.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value


def read_run(path: Path) -> RunSummary:
    """Read the folder that ``similitude pretrain`` and ``similitude evaluate`` wrote.

    Only ``recipe.yaml`` must be there; a run that was stopped or not yet evaluated is fine.

    Raises:
        UserError: the folder is missing, is not a run, or holds a file that is damaged.
    """
    path = as_path(path)
    settle(path)
    if not path.is_dir():
        raise UserError(f"no such run folder: {path}; `similitude pretrain DATA` makes one")
    if not (path / "recipe.yaml").is_file():
        raise UserError(
            f"{path} is not a run folder: it holds no recipe.yaml; "
            f"`similitude pretrain DATA --out {path}` makes one"
        )
    recipe = _mapping(path / "recipe.yaml")
    if "stage" in recipe:
        raise UserError(
            f"{path} is a classifier, and a report shows a pretraining: its curves are in "
            "metrics.csv, its accuracy is in log.txt"
        )
    reasons = recipe.pop("reasons", None)
    views = path / "views.png"
    unreadable = path / "unreadable.txt"
    retrieval = _retrieval(path / "retrieval.json")
    return RunSummary(
        path=path,
        name=visible(path.resolve().name),
        recipe=recipe,
        reasons={key: str(why) for key, why in flatten(reasons)}
        if isinstance(reasons, Mapping)
        else {},
        environment=_environment(path / "environment.json"),
        metrics=Metrics(path / "metrics.csv"),
        health=_health(path / "health.json"),
        evaluation=_evaluation(path / "evaluation.json"),
        retrieval=retrieval,
        examples=None if retrieval is None else _examples(path / "retrieval.npz"),
        embedding=read_embedding(path / "embedding.npz"),
        attention=_attention(path / "attention.npz"),
        views=views if views.is_file() else None,
        unreadable=len(_lines(unreadable)) if unreadable.is_file() else 0,
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of a nested mapping as (dotted name, value), in their order."""
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves += flatten(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves


def _lines(path: Path) -> list[str]:
    lines = read_bytes(path, MAX_LIST).splitlines()
    return [visible(line.decode(errors="replace")) for line in lines if line.strip()]


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    loaded = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(loaded, dict):
        raise damaged(path, "it does not hold a mapping of names to values")
    return visible_values(loaded)


def _environment(path: Path) -> dict[str, Any]:
    """Without the numbers that are none, which nobody measured."""
    return {
        name: value
        for name, value in _mapping(path).items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _health(path: Path) -> Health | None:
    loaded = _mapping(path)
    if not loaded:
        return None
    if loaded.get("state") not in STATES:
        raise damaged(path, f"state is {loaded.get('state')!r}, not one of {', '.join(STATES)}")
    try:
        return Health(
            state=loaded["state"],
            reasons=[str(reason) for reason in loaded.get("reasons") or []],
            advice=[str(advice) for advice in loaded.get("advice") or []],
            readings={str(k): _number(v) for k, v in (loaded.get("readings") or {}).items()},
        )
    except (AttributeError, TypeError) as error:
        raise damaged(path, error) from error


def _evaluation(path: Path) -> ScoreTable | None:
    loaded = _mapping(path)
    if not loaded:
        return None
    absent: dict[str, Any] = dict.fromkeys(("num_train", "num_test", "num_classes"))
    usual = {"data": "", **absent, "notes": [], "differences": {}}
    given = {name: value for name, value in loaded.items() if value is not None}
    try:
        return ScoreTable.from_json({**usual, **given})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__} {error}".splitlines()[0]) from error


def _retrieval(path: Path) -> RetrievalTable | None:
    loaded = _mapping(path)
    if not loaded:
        return None
    try:
        return RetrievalTable.from_json(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _examples(path: Path) -> Examples | None:
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    try:
        asked, found, names = (
            [visible(str(name)) for name in arrays[of]] for of in ("asked", "found", "names")
        )
        query, answers = (np.asarray(arrays[of], dtype=np.int64) for of in ("query", "answers"))
        right, is_text = (np.asarray(arrays[of], dtype=bool) for of in ("right", "is_text"))
        thumbnails = np.asarray(arrays["thumbnails"], dtype=np.uint8)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    q, shape = len(asked), thumbnails.shape
    if not q == len(found) == query.size or answers.shape != right.shape or len(answers) != q:
        raise damaged(path, "questions and answers differ in number")
    if (
        len(shape) != 4
        or shape[-1] != 3
        or 0 in shape
        or not len(names) == is_text.size == shape[0]
    ):
        raise damaged(path, "thumbnails are not [E, T, T, 3], one for each name")
    if answers.ndim != 2 or query.min() < 0 or max(query.max(), answers.max()) >= len(names):
        raise damaged(path, "it names entries that it does not hold")
    flat = (query.ravel(), answers, right, names, is_text.ravel())
    return Examples(asked, found, *flat, thumbnails)


def _attention(path: Path) -> Attention | None:
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    try:
        maps = np.asarray(arrays["maps"], dtype=np.float32)
        images = np.asarray(arrays["images"], dtype=np.uint8)
        names = [visible(str(name)) for name in arrays["names"]]
        classes = arrays.get("classes")
        classes = None if classes is None else [visible(str(name)) for name in classes]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    shapes = (*maps.shape, *images.shape)
    if maps.ndim != 4 or images.ndim != 4 or images.shape[-1] != 3 or 0 in shapes:
        raise damaged(path, "maps are not [M, H, h, w] or images not [M, T, T, 3]")
    if len({len(maps), len(images), len(names), len(classes or names)}) > 1:
        raise damaged(path, "maps, images, names and classes differ in number")
    return Attention(maps, images, names, classes)


def read_embedding(path: Path) -> Embedding | None:
    """What a run keeps of some images in its embedding.npz; None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    try:
        features = np.asarray(arrays["features"], dtype=np.float32)
        thumbnails = np.asarray(arrays["thumbnails"], dtype=np.uint8)
        names = [visible(str(name)) for name in arrays["names"]]
        spectrum = arrays["spectrum"].ravel()
        class_names = arrays.get("class_names")
        class_names = None if class_names is None else [visible(str(name)) for name in class_names]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    labels = arrays.get("labels")
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise damaged(path, "labels are not whole numbers [M]")
    counts = {len(features), len(thumbnails), len(names)}
    if len(counts) > 1 or (labels is not None and len(labels) not in counts):
        raise damaged(path, "features, thumbnails, names and labels differ in number")
    shape = thumbnails.shape
    if features.ndim != 2 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise damaged(path, "features are not [M, D] or thumbnails not [M, T, T, 3]")
    if spectrum.dtype.kind != "f":
        raise damaged(path, "the spectrum holds no numbers")
    return Embedding(
        features=features[:MAX_IMAGES],
        thumbnails=thumbnails[:MAX_IMAGES],
        names=names[:MAX_IMAGES],
        labels=None if labels is None else labels[:MAX_IMAGES].astype(np.int64),
        class_names=class_names,
        spectrum=spectrum,
        **_heard(path, arrays, len(features)),
    )


def _heard(path: Path, arrays: dict[str, np.ndarray], count: int) -> dict[str, Any]:
    if "track" not in arrays:
        return {}
    try:
        heard, times = arrays["heard"].tolist(), arrays["times"].astype(float)
        track = arrays["track"].astype(np.uint8).tobytes()
    except (KeyError, ValueError, TypeError) as error:
        raise damaged(path, error) from error
    if times.shape != (len(heard), 2) or not all(0 <= i < count for i in heard):
        raise damaged(path, "sounds and their times differ in number")
    return {"track": track, "times": dict(zip(heard, map(tuple, times.tolist()), strict=True))}
