"""A backbone beside its baselines: raw pixels, and the same network with random weights."""

import time
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from similitude.data.images import ImageSet
from similitude.distributed import rank
from similitude.errors import UserError, did_you_mean
from similitude.evaluation.features import (
    Features,
    extract_features,
    pixel_features,
    split_features,
)
from similitude.evaluation.few_labels import LABELS_PER_CLASS, few_label_scores, few_label_skips
from similitude.evaluation.knn import KNNProbe
from similitude.evaluation.linear import LinearProbe
from similitude.evaluation.scores import (
    PRETRAINED_BACKBONE,
    RANDOM_BACKBONE,
    RAW_PIXELS,
    Score,
    ScoreTable,
)
from similitude.views.image import ImageSpec

PROTOCOLS = ("knn", "linear", "few")
TEST_FRACTION = 0.2  # held out of the training part where there is no test part


def check_protocols(protocols: str | Sequence[str]) -> tuple[str, ...]:
    """The protocols (a sequence, or one text with commas), each once, in order.

    Raises:
        UserError: If a name is unknown, with the nearest known names, or if there is none.
    """
    if isinstance(protocols, str):
        protocols = [name.strip() for name in protocols.split(",") if name.strip()]
    for name in protocols:
        if name not in PROTOCOLS:
            raise UserError(f"unknown protocol {name!r}: {did_you_mean(name, PROTOCOLS)}")
    if not protocols:
        raise UserError(f"no protocol is given: choose from {', '.join(PROTOCOLS)}")
    return tuple(name for name in PROTOCOLS if name in protocols)


def score_features(
    train: Features,
    test: Features,
    protocols: Sequence[str] = PROTOCOLS,
    *,
    k: int = 20,
    draws: int = 10,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Score]:
    """Scores of one kind of features.

    Args:
        train: Rows to learn from.
        test: Rows to score on.
        protocols: Names from :data:`PROTOCOLS`.
        k: Neighbours of the kNN probe; fewer when there are fewer labelled training rows.
        draws: Draws of the few-label probes.
        seed: Of the held-out part of the linear probe and of the draws.
        on_progress: Called with the name of each protocol before it starts.

    Returns:
        Column -> score: "knn", "linear", and "linear_5" for 5 labels per class.

    Raises:
        UserError: If a name is unknown or labels are missing.
    """
    chosen = check_protocols(protocols)
    known, test = train.labelled(), test.labelled()
    assert known.y is not None
    assert test.y is not None
    scores: dict[str, Score] = {}
    for protocol in chosen:
        if on_progress is not None:
            on_progress(protocol)
        if protocol == "knn":
            probe = KNNProbe(min(k, len(known))).fit(known.x, known.y)
            scores["knn"] = Score(probe.score(test.x, test.y))
        elif protocol == "linear":
            linear = LinearProbe(seed=seed).fit(known.x, known.y)
            scores["linear"] = Score(linear.score(test.x, test.y))
        else:
            few = few_label_scores(train, test, draws=draws, seed=seed)
            scores |= {f"linear_{n}": score for n, score in few.items()}
    return scores


def evaluate_backbone(
    backbone: nn.Module,
    train: ImageSet,
    test: ImageSet | None,
    image: ImageSpec,
    *,
    data: str,
    random_backbone: nn.Module | None = None,
    raw_pixels: bool = True,
    protocols: Sequence[str] = PROTOCOLS,
    k: int = 20,
    draws: int = 10,
    seed: int = 0,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    autocast_dtype: torch.dtype | None = None,
    channels_last: bool = False,
    on_progress: Callable[[str], None] | None = None,
    over_processes: bool = False,
) -> ScoreTable:
    """The score table: the backbone beside raw pixels and a random backbone, on equal terms.

    Args:
        backbone: Maps [N, 3, size, size] to [N, D].
        train: Images to fit the probes on.
        test: Images to score on; without it, a stratified fifth of ``train`` is held out.
        image: Side, mean and std of the backbone's input.
        data: Name of the data for the table's title.
        random_backbone: The same network as it was before training; its row is left out without it.
        raw_pixels: Whether to add the row of raw pixels.
        protocols: Names from :data:`PROTOCOLS`.
        k: Neighbours of the kNN probe.
        draws: Draws of the few-label probes.
        seed: Of held-out parts and draws; the same for all rows, so rows are paired.
        batch_size: Images per forward pass.
        device: Where to extract features; by default where each backbone is.
        autocast_dtype: Precision of the forward pass.
        channels_last: Memory layout of the backbone's input.
        on_progress: Called with a few words before each step ("random backbone: linear").
        over_processes: Whether all processes call this together; they then share the extraction
            of features.

    Returns:
        The table, with its warnings and notes. Only the first process scores: those of the others
        have no rows.

    Raises:
        UserError: If labels are missing, the classes of the two parts differ, or a protocol is
            unknown.
    """
    begin = time.perf_counter()
    chosen = check_protocols(protocols)
    if test is not None and not _agree(train.class_names or [], test.class_names or []):
        raise UserError(
            f"the training part has classes {_some(train.class_names or [])} and the test part "
            f"{_some(test.class_names or [])}: they must be the same, in the same order"
        )

    def say(text: str) -> None:
        if on_progress is not None:
            on_progress(text)

    def features(row: str, images: ImageSet) -> Features:
        say(f"{row}: features")
        if row == RAW_PIXELS:
            return pixel_features(images, image)
        network = backbone if row == PRETRAINED_BACKBONE else random_backbone
        assert network is not None
        return extract_features(
            network,
            images,
            image,
            batch_size=batch_size,
            device=device,
            autocast_dtype=autocast_dtype,
            channels_last=channels_last,
            over_processes=over_processes,
        )

    present = {RAW_PIXELS: raw_pixels, RANDOM_BACKBONE: random_backbone is not None}
    rows: dict[str, dict[str, Score]] = {}
    notes: list[str] = []
    num_train = num_test = num_classes = 0
    key = ""  # without pixels the images are not known
    for row in (RAW_PIXELS, RANDOM_BACKBONE, PRETRAINED_BACKBONE):
        if not present.get(row, True):
            continue
        bank = features(row, train)
        if test is None:
            bank, queries = split_features(bank, TEST_FRACTION, seed)
        else:
            queries = features(row, test)
        known = bank.labelled()
        assert known.y is not None
        if over_processes and rank() > 0:
            continue
        rows[row] = score_features(
            bank,
            queries,
            chosen,
            k=k,
            draws=draws,
            seed=seed,
            on_progress=lambda protocol, row=row: say(f"{row}: {protocol}"),
        )
        if not notes and num_train == 0:
            notes = _notes(known, chosen, k, train.class_names, held_out=test is None)
        num_train, num_test = len(known), len(queries.labelled())
        num_classes = len(torch.unique(known.y))
        if row == RAW_PIXELS:
            key = _key(backbone, seed, (bank, queries))
    return ScoreTable(
        data=data,
        num_train=num_train,
        num_test=num_test,
        num_classes=num_classes,
        columns=list(rows.get(PRETRAINED_BACKBONE, ())),
        rows=rows,
        seconds=time.perf_counter() - begin,
        notes=notes,
        key=key,
    )


def _key(backbone: nn.Module, seed: int, parts: Sequence[Features]) -> str:
    """Weights, seed, and names, labels and pixels of the images, in a few characters."""
    weights = 0
    for tensor in backbone.state_dict().values():
        weights = zlib.crc32(_bytes(tensor), weights)
    images = 0
    for part in parts:
        assert part.y is not None
        images = zlib.crc32("\n".join(part.names).encode(), images)
        images = zlib.crc32(_bytes(part.x), zlib.crc32(_bytes(part.y), images))
    return f"{weights:08x}-{images:08x}-{seed}"


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _notes(
    known: Features,
    protocols: Sequence[str],
    k: int,
    class_names: Sequence[str] | None,
    *,
    held_out: bool,
) -> list[str]:
    assert known.y is not None
    notes = []
    if held_out:
        notes.append(
            f"There is no test part: {TEST_FRACTION:.0%} of the labelled images were held out."
        )
    if "knn" in protocols and k > len(known):
        notes.append(f"kNN uses all {len(known)} labelled training images instead of {k}.")
    if "few" in protocols:
        notes += few_label_skips(known.y, LABELS_PER_CLASS, class_names).values()
    return notes


def _agree(one: list[str], other: list[str]) -> bool:
    """Whether class numbers mean the same; the last classes may lack images in one part."""
    fewer, more = sorted((one, other), key=len)
    return more[: len(fewer)] == fewer


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) or "without names"
    return f"{shown}, ... ({len(names)})" if len(names) > 5 else shown
