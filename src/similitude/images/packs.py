"""One file with all canvases of a data set, ready to be mapped into memory.

    canvases, N x C x S x S numbers | facts, JSON in UTF-8 | length of the facts, 8 bytes | MAGIC

Canvases come first, so that a page of the file is a page of them. Facts come last, so that a file
that was cut off is not a pack. The fact "checksum" is the CRC-32 of the canvases and then of the
other facts, in JSON; canvases that are made while a run goes on, and packs of before, have none.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import torch
from jaxtyping import UInt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from similitude.errors import UserError
from similitude.files.writing import checksum, replacing, reserve
from similitude.images.arrays import ArraySource
from similitude.images.decoder import Decoder, Found, StreamDecoder
from similitude.images.decoding import DTYPES, ValueRange
from similitude.images.source import ImageSource

SUFFIX = ".pack"
_MAGIC = b"SIMPACK1"


class _Facts(BaseModel):
    """What :func:`open_pack` believes of a file's facts: their types and lengths."""

    model_config = ConfigDict(strict=True, extra="forbid")

    count: int = Field(ge=1)  # N
    size: int = Field(ge=1)
    channels: int = Field(default=3, ge=1)  # C; not in files of before
    depth: Literal[8, 16] = 8  # bits of a number, the lower byte first; not in files of before
    names: list[str]  # N
    aspect: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]  # N
    unreadable: list[list[str]]
    labels: list[Annotated[int, Field(ge=-1, lt=2**62)]] | None  # N
    class_names: list[str] | None
    neighbours: list[list[int]] | None  # N x K
    checksum: int | None = None  # of all else in the file; not in packs of before
    values: list[float] | None = None  # black and white, of deep pictures; not in packs of before

    @model_validator(mode="after")
    def _lengths(self) -> "_Facts":
        n = self.count
        listed = [self.names, self.aspect, self.labels, self.neighbours]
        if any(len(each) != n for each in listed if each is not None):
            raise ValueError("a list is not as long as there are images")
        classes = self.class_names
        if classes is not None and max(self.labels or [], default=-1) >= len(classes):
            raise ValueError("a label has no name")
        beside = self.neighbours or []
        if len({len(row) for row in beside}) > 1 or any(not -1 <= i < n for r in beside for i in r):
            raise ValueError("a neighbour is no image")
        return self


def append_facts(file: BinaryIO, facts: dict[str, Any]) -> None:
    """End a file of canvases; ``facts`` has at least "count" and "size"."""
    text = json.dumps(facts).encode()
    file.write(text + len(text).to_bytes(8, "little") + _MAGIC)


def write_pack(
    path: Path, decoder: Decoder | StreamDecoder, more: Callable[[Found], dict[str, Any]]
) -> dict[str, Any]:
    """Decode everything to a pack; its facts, with ``more`` of them."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        facts = form_facts(decoder.source, decoder.size)
        length = bytes_of(facts)
        reserve(file, len(decoder.source) * length)
        crc, found = write_canvases(file, decoder), decoder.found
        file.truncate(len(found.kept) * length)
        facts |= {"count": len(found.kept), "aspect": found.aspect}
        facts |= {"unreadable": found.unreadable, **more(found)}
        facts["checksum"] = zlib.crc32(json.dumps(facts).encode(), crc)
        append_facts(file, facts)
    return facts


def form_facts(source: ImageSource, size: int) -> dict[str, Any]:
    """The facts on a canvas of these images: only what is not as in files of before, and the size.

    So that an earlier version reads what it can, and refuses the rest.
    """
    form = {"channels": (source.channels, 3), "depth": (source.depth, 8)}
    return {"size": size, **{name: own for name, (own, usual) in form.items() if own != usual}}


def bytes_of(facts: dict[str, Any]) -> int:
    """Of a canvas in the file that has these facts."""
    return facts.get("channels", 3) * facts.get("depth", 8) // 8 * facts["size"] ** 2


def write_canvases(file: BinaryIO, decoder: Decoder | StreamDecoder) -> int:
    """Decode everything to where the file stands; the CRC-32 of what was written."""
    crc = 0
    for canvases in decoder.canvases():
        content = np.ascontiguousarray(canvases).data
        file.write(content)
        crc = zlib.crc32(content, crc)
    return crc


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a pack; None if the file is none, or not a whole one."""
    try:
        with path.open("rb") as file:
            end = file.seek(-16, 2)
            length = int.from_bytes(file.read(8), "little")
            if file.read(8) != _MAGIC or length > end:
                return None
            file.seek(end - length)
            facts = json.loads(file.read(length))
            return facts if end - length == facts["count"] * bytes_of(facts) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def map_canvases(path: Path, facts: dict[str, Any]) -> UInt[np.ndarray, "N C S S"]:
    """The canvases, mapped: read from the file when they are looked at, and never written to it."""
    size = facts["size"]
    shape = (facts["count"], facts.get("channels", 3), size, size)
    # a private copy of what is changed, which nothing does; torch wants memory it could write
    return np.memmap(path, DTYPES[facts.get("depth", 8)], mode="c", shape=shape)


def open_pack(path: Path) -> ArraySource:
    """The images of a file that ``similitude pack`` wrote; it is read once, for its checksum.

    Raises:
        UserError: the file is something else, not a whole one, or has changed since.
    """
    found = read_facts(path)
    try:
        facts = _Facts.model_validate(found)
    except ValidationError as error:
        raise UserError(
            f"{path} is no whole pack of images: make it again with similitude pack"
        ) from error
    _compare(path, dict(found or {}))
    notes = []
    if facts.unreadable:
        notes.append(f"{len(facts.unreadable)} files could not be read when it was packed")
    return ArraySource(
        name=str(path),
        names=facts.names,
        labels=None if facts.labels is None else torch.tensor(facts.labels),
        class_names=facts.class_names,
        notes=tuple(notes),
        partners=None if facts.neighbours is None else torch.tensor(facts.neighbours),
        array=map_canvases(path, found or {}),
        layout="NCHW",
        channels=facts.channels,
        depth=facts.depth,
        values=None if facts.values is None else ValueRange(*facts.values),
        aspect=torch.tensor(facts.aspect, dtype=torch.float32),
    )


def _compare(path: Path, facts: dict[str, Any]) -> None:
    """Compare a file with its checksum, if it has one.

    Raises:
        UserError: it is another one.
    """
    if (written := facts.pop("checksum", None)) is None:
        return
    with path.open("rb") as file:
        canvases = checksum(file, facts["count"] * bytes_of(facts))
    if zlib.crc32(json.dumps(facts).encode(), canvases) != written:
        raise UserError(
            f"{path} is damaged, its checksum is of other content: make it again with similitude "
            "pack"
        )
