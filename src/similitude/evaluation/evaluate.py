"""Backbones beside each other and beside raw pixels: one table, on equal terms.

Shapes: N test images, D features.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from similitude.distributed import rank
from similitude.errors import UserError, did_you_mean
from similitude.evaluation.comparison import (
    BEFORE_TRAINING,
    PRETRAINED_BACKBONE,
    RANDOM_BACKBONE,
    RAW_PIXELS,
    Difference,
)
from similitude.evaluation.features import (
    Features,
    centered,
    extract_features,
    raw_features,
    split_features,
)
from similitude.evaluation.label_free import label_free_numbers
from similitude.evaluation.probe import Outcome
from similitude.evaluation.probes import PROBES
from similitude.evaluation.scores import ScoreTable
from similitude.nets.weights import fingerprint_of
from similitude.sample import Facts, Samples

Parts = tuple[
    Samples[Any], Samples[Any] | None
]  # training images, and test images where there are some
PROTOCOLS = tuple(PROBES)
TEST_FRACTION = 0.2  # held out of the training part where there is no test part


def check_protocols(protocols: str | Sequence[str] | None) -> tuple[str, ...]:
    """The protocols (a sequence, or one text with commas; None is all), each once, in order.

    Raises:
        UserError: If a name is unknown, with the nearest known names, or if there is none.
    """
    if protocols is None:
        return PROTOCOLS
    if isinstance(protocols, str):
        protocols = [name.strip() for name in protocols.split(",") if name.strip()]
    for name in protocols:
        if name not in PROTOCOLS:
            raise UserError(f"unknown protocol {name!r}: {did_you_mean(name, PROTOCOLS)}")
    if not protocols:
        raise UserError(f"no protocol is given: choose from {', '.join(PROTOCOLS)}")
    return tuple(name for name in PROTOCOLS if name in protocols)


_OURS = (RAW_PIXELS, RANDOM_BACKBONE, BEFORE_TRAINING, PRETRAINED_BACKBONE)


def check_names(names: Sequence[str], taken: Sequence[str] = _OURS) -> None:
    """Refuse rows that could not be told apart.

    Raises:
        UserError: A name occurs twice, or is one of those that are taken.
    """
    for position, name in enumerate(names):
        if name in taken or name in names[:position]:
            raise UserError(
                f"two rows of the table would be called {name!r}: give each network once, and "
                "rename a file or run that is called like another row"
            )


def probe_features(
    train: Features,
    test: Features,
    protocols: Sequence[str] = PROTOCOLS,
    *,
    k: int = 20,
    draws: int = 10,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Outcome]:
    """What every probe makes of one kind of features.

    Args:
        train: Rows to learn from.
        test: Rows to score on.
        protocols: Names from :data:`PROTOCOLS`.
        k: Neighbors of the kNN probe; fewer when there are fewer labeled training rows.
        draws: Draws of the few-label probes.
        seed: Of the held-out part of the linear probe and of the draws.
        on_progress: Called with the name of each protocol before it starts.

    Returns:
        Column -> outcome, whose ``score`` is the accuracy: "knn", "linear", and "linear_5" for 5
        labels per class.

    Raises:
        UserError: If a name is unknown or labels are missing.
    """
    chosen = check_protocols(protocols)
    test = test.labeled()
    found: dict[str, Outcome] = {}
    for protocol in chosen:
        if on_progress is not None:
            on_progress(protocol)
        found |= PROBES[protocol].outcomes(train, test, k=k, draws=draws, seed=seed)
    return found


@dataclass(frozen=True)
class Entrant:
    """A backbone that gets a row, and the images that it wants.

    Attributes:
        name: Of the row.
        backbone: Maps [N, 3, size, size] to [N, D].
        facts: What its input is like: of images side, mean and std.
        load: Gives the training part and the test part with canvases that are fit for its input;
            None for those of the table.
        autocast_dtype: Precision of its forward pass.
        channels_last: Memory layout of its input.
    """

    name: str
    backbone: nn.Module
    facts: Facts
    load: Callable[[], Parts] | None = None
    autocast_dtype: torch.dtype | None = None
    channels_last: bool = False


def evaluate_entrants(
    entrants: Sequence[Entrant],
    images: Parts,
    *,
    data: str,
    pixels: Parts | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    k: int = 20,
    draws: int = 10,
    seed: int = 0,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    on_progress: Callable[[str], None] | None = None,
    over_processes: bool = False,
) -> ScoreTable:
    """The score table of several backbones, on equal terms: same images, same labels, same probes.

    Args:
        entrants: The rows in their order. That named "pretrained backbone" is compared with each
            of the others.
        images: Training part and test part; without a test part, a stratified fifth of the other
            is held out.
        data: Name of the data for the table's title.
        pixels: The same images for a first row of raw pixels; see :func:`raw_features`.
        protocols: Names from :data:`PROTOCOLS`.
        k: Neighbors of the kNN probe.
        draws: Draws of the few-label probes.
        seed: Of held-out parts and draws; the same for all rows, so rows are paired.
        batch_size: Images per forward pass.
        device: Where to extract features; by default where each backbone is.
        on_progress: Called with a few words before each step ("random backbone: linear").
        over_processes: Whether all processes call this together; they then share the extraction
            of features.

    Returns:
        The table, with its notes and paired differences. Features of one row are in memory at a
        time. Only the first process scores: the tables of the others have no rows.

    Raises:
        UserError: If labels are missing, the classes of the two parts differ, a protocol is
            unknown, or two rows have one name.
    """
    begin = time.perf_counter()
    chosen = check_protocols(protocols)
    check_names([entrant.name for entrant in entrants], taken=(images[0].raw_name,))
    train, test = images
    if test is not None and not _agree(train.class_names or [], test.class_names or []):
        raise UserError(
            f"the training part has classes {_some(train.class_names or [])} and the test part "
            f"{_some(test.class_names or [])}: they must be the same, in the same order"
        )

    def say(text: str) -> None:
        if on_progress is not None:
            on_progress(text)

    is_first = not over_processes or rank() == 0
    found: dict[str, dict[str, Outcome]] = {}
    unlabeled: dict[str, dict[str, float]] = {}  # numbers of each network
    tests: dict[str, list[str]] = {}  # names of the test images of each row
    labels = torch.empty(0, dtype=torch.int64)  # of the training images
    seen = ""  # without pixels the images are not known

    def score(
        row: str, parts: Parts, features: Callable[[Samples[Any]], Features], *, plain: bool = False
    ) -> None:
        nonlocal labels, seen
        say(f"{row}: features")
        bank = features(parts[0])
        if parts[1] is None:
            bank, queries = split_features(bank, TEST_FRACTION, seed)
        else:
            say(f"{row}: features")
            queries = features(parts[1])
        if not is_first:
            return
        known = bank.labeled().y
        assert known is not None
        tests[row], labels = queries.labeled().names, known
        if plain:
            seen = seen or _checksum((bank, queries))
            bank, queries = centered(bank, queries)
        else:
            unlabeled[row] = label_free_numbers(bank.x)
        found[row] = probe_features(
            bank,
            queries,
            chosen,
            k=k,
            draws=draws,
            seed=seed,
            on_progress=lambda protocol: say(f"{row}: {protocol}"),
        )

    if pixels is not None and is_first:
        both = [part for part in pixels if part is not None]
        score(pixels[0].raw_name, pixels, lambda part: raw_features(part, both), plain=True)
        further = {id(part): part.baselines() for part in both}
        for name in further[id(pixels[0])]:
            if any(name not in rows for rows in further.values()):  # a sensor that one part lacks
                continue

            def numbers(part: Samples[Any], name: str = name) -> Features:
                one_scale = part.has_one_scale(name)
                return Features(further[id(part)][name], part.labels, list(part.names), one_scale)

            score(name, pixels, numbers, plain=True)
    for entrant in entrants:
        score(
            entrant.name,
            images if entrant.load is None else entrant.load(),
            lambda part, entrant=entrant: extract_features(
                entrant.backbone,
                part,
                entrant.facts,
                batch_size=batch_size,
                device=device,
                autocast_dtype=entrant.autocast_dtype,
                channels_last=entrant.channels_last,
                over_processes=over_processes,
            ),
        )
    others = {entrant.name for entrant in entrants}
    weights = {entrant.name: fingerprint_of(entrant.backbone.state_dict()) for entrant in entrants}
    return ScoreTable(
        data=data,
        num_train=len(labels),
        num_test=len(next(reversed(tests.values()), [])),
        num_classes=len(torch.unique(labels)),
        columns=list(next(reversed(found.values()), {})),
        rows={row: {c: o.score for c, o in outcomes.items()} for row, outcomes in found.items()},
        seconds=time.perf_counter() - begin,
        notes=_notes(labels, chosen, k, train.class_names, held_out=test is None) if found else [],
        key=f"{weights.get(PRETRAINED_BACKBONE, '')}-{seen}-{seed}" if seen else "",
        weights=weights,
        differences=_differences(found, tests),
        plain=[row for row in found if row not in others] or [train.raw_name],
        nouns=train.noun,
        label_free=unlabeled,
    )


def _checksum(parts: Sequence[Features]) -> str:
    """Eight characters that tell names, labels and pixels of some images from those of others."""
    found = 0
    for part in parts:
        assert part.y is not None
        found = zlib.crc32("\n".join(part.names).encode(), found)
        for tensor in (part.y, part.x):
            found = zlib.crc32(tensor.contiguous().numpy().data, found)
    return f"{found:08x}"


def _differences(
    found: dict[str, dict[str, Outcome]], tests: dict[str, list[str]]
) -> dict[str, dict[str, Difference]]:
    """The pretrained backbone minus each other row; of the same test images only."""
    ours = found.get(PRETRAINED_BACKBONE, {})
    return {
        row: {c: ours[c].above(outcome) for c, outcome in theirs.items() if c in ours}
        for row, theirs in found.items()
        if row != PRETRAINED_BACKBONE and ours and tests[row] == tests[PRETRAINED_BACKBONE]
    }


def _notes(
    labels: Tensor,
    protocols: Sequence[str],
    k: int,
    class_names: Sequence[str] | None,
    *,
    held_out: bool,
) -> list[str]:
    notes = []
    if held_out:
        notes.append(
            f"There is no test part: {TEST_FRACTION:.0%} of the labeled samples were held out."
        )
    for protocol in protocols:
        notes += PROBES[protocol].notes(labels, k, class_names)
    return notes


def _agree(one: list[str], other: list[str]) -> bool:
    """Whether class numbers mean the same; the last classes may lack images in one part."""
    fewer, more = sorted((one, other), key=len)
    return more[: len(fewer)] == fewer


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) or "without names"
    return f"{shown}, ... ({len(names)})" if len(names) > 5 else shown
