"""Classes that are given as texts, and one numbering of them in all parts of a data set.

Letters: N images, C classes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from unicodedata import normalize

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.source import S, Source
from similitude.errors import UserError

_UNKNOWN = ("", "-1")
_BLOCK = 1 << 20  # samples that are counted at once


def numbered_classes(
    texts: Iterable[str | None],
) -> tuple[Int[Tensor, " N"], list[str]] | tuple[None, None]:
    """Numbers of classes that are given as texts, and the names of those that occur; if any does.

    None, an empty text and -1 mean unknown. Names are in order, by value if all are numbers; 1 and
    1.0 are one class, and so are two ways to write an accent.
    """
    names = [None if text is None else _name(text) for text in texts]
    known = sorted({name for name in names if name is not None})
    if not known:
        return None, None
    if all(map(_is_number, known)):
        known.sort(key=float)
    numbers: dict[str | None, int] = {name: i for i, name in enumerate(known)}
    return torch.tensor([numbers.get(name, -1) for name in names], dtype=torch.int64), known


def _name(text: str) -> str | None:
    name = re.sub(r"^(-?\d+)\.0*$", r"\1", normalize("NFC", text.strip()))
    return None if name in _UNKNOWN else name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def class_counts(labels: Int[Tensor, " N"], classes: int) -> Int[Tensor, " C"]:
    """How many samples each class has, counted piece by piece: labels may be mapped."""
    counts = torch.zeros(classes, dtype=torch.int64)
    for some in labels.split(_BLOCK):
        counts += some[some >= 0].bincount(minlength=classes)
    return counts


def has_labels(source: Source) -> bool:
    """Whether the class of any image is known."""
    return source.labels is not None and bool((source.labels >= 0).any())


def with_same_classes(sources: Sequence[S]) -> list[S]:
    """The sources with one numbering of classes: those of the first, then what others add."""
    if any(source.labels is None or source.class_names is None for source in sources):
        return list(sources)
    union: dict[str, int] = {}
    for source in sources:
        for name in source.class_names or ():
            union.setdefault(name, len(union))
    found: list[S] = []
    for source in sources:
        numbers = torch.tensor([*(union[name] for name in source.class_names or ()), -1])
        assert source.labels is not None
        found.append(replace(source, labels=numbers[source.labels], class_names=list(union)))
    return found


def check_classes(train: Source, test: Source) -> None:
    """Refuse to test on classes that nothing can be learned of.

    Raises:
        UserError: a class of the test images without a training image, as ``Cat`` beside ``cat``.
    """
    names = train.class_names
    if names is None or test.class_names != names:  # not numbered alike: another check refuses
        return
    known, asked = (
        {names[label] for label in source.labels.unique().tolist() if label >= 0}
        for source in (train, test)
        if source.labels is not None
    )
    if missing := sorted(asked - known):
        some, there = ", ".join(missing[:5]), ", ".join(sorted(known)[:5])
        raise UserError(
            f"{len(missing)} classes of {test.name} have no image in {train.name}: {some} (there: "
            f"{there}): rename the classes, or leave these images out"
        )


def told_single(source: Source) -> str | None:
    """A sentence on classes that have a single image, which may be slips; None without any."""
    if source.labels is None or source.class_names is None:
        return None
    counts = class_counts(source.labels, len(source.class_names))
    single = [name for name, n in zip(source.class_names, counts.tolist(), strict=True) if n == 1]
    if not single:
        return None
    shown = f"{', '.join(single[:5])}{', ...' if len(single) > 5 else ''}"
    return f"{source.name}: a single image has the label {shown}; look whether it is a slip"
