"""Files each of which is a sample: opened with care, and known by their suffix."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 2**30  # of a file
LONGEST_TEXT = 1000  # characters of what is written beside a sample

# What Hugging Face's library calls columns of samples, and people those of texts beside them.
_FEATURES = ("Image", "Audio", "Video")
_TEXTS = ("caption", "text", "sentence", "description", "transcription")

ByteFile = BytesIO | BufferedReader


class UnreadableError(Exception):
    """A file that is not what it should be, or not whole; the message says why in a few words."""


class Wanted(NamedTuple):
    """What a modality looks for among files.

    Attributes:
        noun: What one of them is called.
        suffixes: Of their names.
        feature: What Hugging Face's library calls a column of them; "" where it knows none.
    """

    noun: str
    suffixes: tuple[str, ...]
    feature: str = ""


def text_column(columns: Iterable[str]) -> str | None:
    """Which of some columns of texts says what is written beside each sample, by its name."""
    names = {name.lower(): name for name in reversed(list(columns))}
    return next((names[name] for name in _TEXTS if name in names), None)


def as_caption(text: str | None) -> str:
    """A text on one line, as far as it is kept; "" of none."""
    return " ".join((text or "").split())[:LONGEST_TEXT]


def kind_declared(features: Iterable[str]) -> str | None:
    """What the first column of samples is, of all that Hugging Face's library says of columns."""
    return next((feature for feature in features if feature in _FEATURES), None)


def told_unused(where: str, wanted: Wanted, others: Counter[str]) -> tuple[str, ...]:
    """The note on files of other suffixes that lie there: how many of each; none without any."""
    if not others:
        return ()
    listed = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    return (f"files in {where} that are no known {wanted.noun}s are not used: {listed}",)


def open_regular(path: str | Path) -> ByteFile:
    """Open a file that is one: no pipe or device, which may never end, and of a sane length.

    Raises:
        UnreadableError: it is not, or cannot be opened.
    """
    try:
        # What waits for another process must not be opened at all, not even to look.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableError("not a regular file")
        file = open(path, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(reason.lower()) from error
    if os.fstat(file.fileno()).st_size > MAX_BYTES:
        file.close()
        raise UnreadableError(f"larger than {MAX_BYTES >> 30} GB")
    return file
