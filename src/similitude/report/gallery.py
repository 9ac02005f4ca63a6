"""The embedding in pictures: one sprite sheet, a map in the plane, nearest neighbors.

M: embedded images, D: features, K: neighbors, T: side of a thumbnail in pixels.
"""

import base64
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from similitude.files.reading import MAX_JSON, damaged, read_bytes
from similitude.report.read import Embedding

NEIGHBORS = 8
QUERIES = 12
SEED = 0
SPRITE_BYTES = 1_800_000  # the page with 2,000 thumbnails stays below 8 MB
VIEWS_BYTES = 300_000
UNLABELED = "no label"  # among the names of classes
SIDES = (8, 16, 24, 32, 40, 48, 56)  # whole JPEG blocks: neighbors do not bleed into each other


@dataclass(frozen=True)
class Sprite:
    """All thumbnails in one image: cell i is at column i % columns, row i // columns."""

    uri: str
    columns: int
    rows: int
    side: int

    def position(self, cell: int | np.integer) -> str:
        """CSS ``background-position`` of a cell, in percent so that any display size works."""
        column, row = cell % self.columns, cell // self.columns
        x = 100 * column / max(1, self.columns - 1)
        y = 100 * row / max(1, self.rows - 1)
        return f"{x:.4f}% {y:.4f}%"


@dataclass(frozen=True)
class Gallery:
    """Everything the page shows of an embedding."""

    sprite: Sprite
    names: list[str]
    classes: list[str] | None  # class of each image, as text
    labels: Int[np.ndarray, " M"] | None  # the last of class_names is UNLABELED, if need be
    class_names: list[str]
    coordinates: Float[np.ndarray, "M 2"]
    map_method: str  # "t-SNE" or "PCA"
    neighbors: Int[np.ndarray, "M K"]
    queries: list[int]
    agreement: float | None  # share of neighbors that have the class of their query
    pixel_agreement: float | None  # the same for neighbors in the thumbnails' pixels
    chance_agreement: float | None
    track: str  # the sounds that can be played, MP3 in base64; empty without any
    times: dict[int, tuple[float, float]]  # when each of them begins and ends in it, in seconds


def build_gallery(embedding: Embedding) -> Gallery | str:
    """Map, neighbors and sprite of the images, or a sentence why there are none."""
    features = embedding.features.astype(np.float64)
    if len(features) < 3:
        return "The embedding holds fewer than three images: there is nothing to compare."
    if not np.isfinite(features).all():
        return "The embedding holds numbers that are not finite: no map and no neighbors."
    spread = features.std(axis=0).max()
    if spread <= 1e-6 * np.abs(features).max():
        return (
            "Every image has the same embedding: a map would be one dot, and every image "
            "would be the neighbor of every other."
        )
    labels, class_names = _classes(embedding)
    queries, neighbors = queries_and_neighbors(embedding)
    coordinates, method = project(features)
    agreement = pixel_agreement = chance = None
    known = np.zeros(len(features), bool) if labels is None else _known(labels, class_names)
    if labels is not None and len(np.unique(labels[known])) > 1:
        pixels = embedding.thumbnails.reshape(len(features), -1).astype(np.float32)
        by_pixels = nearest(pixels - pixels.mean(axis=0), NEIGHBORS)
        agreement = _agreement(labels, known, neighbors)
        pixel_agreement = _agreement(labels, known, by_pixels)
        counts = np.unique(labels[known], return_counts=True)[1]
        chance = float((counts * (counts - 1)).sum() / (known.sum() * (known.sum() - 1)))
    return Gallery(
        sprite=make_sprite(embedding.thumbnails),
        names=embedding.names,
        classes=None if labels is None else [class_names[label] for label in labels],
        labels=labels,
        class_names=class_names,
        coordinates=coordinates,
        map_method=method,
        neighbors=neighbors,
        queries=queries,
        agreement=agreement,
        pixel_agreement=pixel_agreement,
        chance_agreement=chance,
        track=base64.b64encode(embedding.track or b"").decode("ascii"),
        times=embedding.times,
    )


def queries_and_neighbors(embedding: Embedding) -> tuple[list[int], Int[np.ndarray, "M K"]]:
    """The images that are asked about, and the nearest of every image."""
    labels, _ = _classes(embedding)
    nearest_of_all = nearest(embedding.features.astype(np.float64), NEIGHBORS)
    return choose_queries(len(embedding.features), labels), nearest_of_all


def _classes(embedding: Embedding) -> tuple[Int[np.ndarray, " M"] | None, list[str]]:
    """Labels and the names they point to; images without a label are a group of their own."""
    labels = embedding.labels
    if labels is None or (labels < 0).all():
        return None, []
    names = list(embedding.class_names or [])
    unnamed = np.unique(labels[labels >= len(names)])
    labels = np.where(labels >= len(names), len(names) + np.searchsorted(unnamed, labels), labels)
    names += [f"class {i}" for i in unnamed]
    if (labels >= 0).all():
        return labels, names
    return np.where(labels < 0, len(names), labels), [*names, UNLABELED]


def _known(labels: Int[np.ndarray, " M"], class_names: list[str]) -> Bool[np.ndarray, " M"]:
    unlabeled = len(class_names) - 1 if class_names[-1] == UNLABELED else -1
    return labels != unlabeled


def _agreement(
    labels: Int[np.ndarray, " M"], known: Bool[np.ndarray, " M"], neighbors: Int[np.ndarray, "M K"]
) -> float:
    """Share of the neighbors that have the class of their query, where both are known."""
    both = known[:, None] & known[neighbors]
    same = labels[neighbors] == labels[:, None]
    return float(same[both].mean()) if both.any() else 0.0


def nearest(features: Float[np.ndarray, "M D"], count: int) -> Int[np.ndarray, "M K"]:
    """The ``count`` nearest other rows of every row by cosine, nearest first."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(norms, np.finfo(features.dtype).tiny)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(count, len(features) - 1)]


def project(features: Float[np.ndarray, "M D"]) -> tuple[Float[np.ndarray, "M 2"], str]:
    """Two coordinates per row: PCA to 50 then t-SNE (van der Maaten and Hinton, 2008).

    Below 30 rows t-SNE has no neighborhoods to keep, so PCA alone; its name is returned too.
    """
    # Imported here: scikit-learn takes a second, and a page without an embedding needs none.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(50, *features.shape)
    # Rank can be below `components` when the embedding has collapsed onto a few directions.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        reduced = PCA(components, svd_solver="full", random_state=SEED).fit_transform(features)
    if len(features) < 30:
        plane = reduced[:, :2]
        return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1]))), "PCA"
    reduced /= reduced[:, 0].std()
    tsne = TSNE(
        2,
        perplexity=min(30.0, (len(features) - 1) / 3),
        # Not "pca": it divides by a standard deviation that is 0 when one direction is left.
        init=_start(reduced),  # pyright: ignore[reportArgumentType]
        random_state=SEED,
    )
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64), "t-SNE"


def _start(reduced: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M 2"]:
    start = np.zeros((len(reduced), 2))
    start[:, : min(2, reduced.shape[1])] = 1e-4 * reduced[:, :2]
    start += np.random.default_rng(SEED).normal(0, 1e-6, start.shape)
    return start.astype(np.float32)


def choose_queries(total: int, labels: Int[np.ndarray, " M"] | None) -> list[int]:
    """A dozen images at random (fixed seed); with labels, classes take turns."""
    order = np.random.default_rng(SEED).permutation(total)
    if labels is not None:
        turn: dict[int, int] = {}
        keys = []
        for position, index in enumerate(order):
            label = int(labels[index])
            keys.append((turn.get(label, 0), position))
            turn[label] = turn.get(label, 0) + 1
        order = order[[position for _, position in sorted(keys)]]
        chosen = order[:QUERIES]
        return [int(i) for i in chosen[np.argsort(labels[chosen], kind="stable")]]
    return [int(i) for i in order[:QUERIES]]


def make_sprite(thumbnails: UInt8[np.ndarray, "M T T 3"], limit: int = SPRITE_BYTES) -> Sprite:
    """One JPEG with all thumbnails; quality falls until it has at most ``limit`` bytes."""
    count, height, width, _ = thumbnails.shape
    side = next((s for s in SIDES if s >= max(height, width)), SIDES[-1])
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * side, rows * side))
    for cell, pixels in enumerate(thumbnails):
        picture = Image.fromarray(pixels)
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(picture, (cell % columns * side, cell // columns * side))
    gray = bool((np.ptp(thumbnails, axis=-1) == 0).all())
    return Sprite(jpeg_uri(sheet.convert("L") if gray else sheet, limit), columns, rows, side)


def jpeg_uri(picture: Image.Image, limit: int) -> str:
    """The picture as a data URI, at the best quality that keeps it below ``limit`` bytes."""
    data = b""
    for quality in (88, 78, 66, 50, 35):
        buffer = io.BytesIO()
        # Full color resolution: halved, each block would mix the colors of two thumbnails.
        # Not `optimize`: Pillow then wants the whole file in one buffer, which noise overflows.
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
        data = buffer.getvalue()
        if len(data) <= limit:
            break
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def views_uri(path: Path) -> tuple[str, int, int]:
    """The contact sheet as (data URI, width, height); a large one is made smaller."""
    data = read_bytes(path, MAX_JSON)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
            if len(data) <= VIEWS_BYTES:
                uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
                return uri, opened.width, opened.height
            picture = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise damaged(path, "it is no picture in PNG") from error
    picture.thumbnail((1600, 4000), Image.Resampling.LANCZOS)
    return jpeg_uri(picture, VIEWS_BYTES), picture.width, picture.height


def same_class(gallery: Gallery, query: int) -> Bool[np.ndarray, " K"] | None:
    """Whether each neighbor of ``query`` has its class; None if that of the query is unknown."""
    if gallery.labels is None or not _known(gallery.labels, gallery.class_names)[query]:
        return None
    return gallery.labels[gallery.neighbors[query]] == gallery.labels[query]
