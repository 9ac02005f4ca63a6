"""One file with all canvases of a data set, ready to be mapped into memory.

    canvases, N x 3 x S x S bytes | facts, JSON in UTF-8 | length of the facts, 8 bytes | MAGIC

Canvases come first, so that a page of the file is a page of them. Facts come last, so that a file
that was cut off is not a pack.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8

from similitude.data.arrays import ArraySource
from similitude.data.decoder import Decoder, File, Found, StreamDecoder
from similitude.errors import UserError
from similitude.storage import replacing

SUFFIX = ".pack"
_MAGIC = b"SIMPACK1"


def append_facts(file: BinaryIO, facts: dict[str, Any]) -> None:
    """End a file of canvases; ``facts`` has at least "count" and "size"."""
    text = json.dumps(facts).encode()
    file.write(text + len(text).to_bytes(8, "little") + _MAGIC)


def write_pack(
    path: Path,
    decoder: Decoder | StreamDecoder,
    more: Callable[[Found], dict[str, Any]],
) -> dict[str, Any]:
    """Decode everything to a pack; its facts, with ``more`` of them."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        numbers = 3 * decoder.size**2  # of a canvas
        reserve(file, len(decoder.source) * numbers)
        found = decoder.run(File(file))
        file.truncate(len(found.kept) * numbers)
        facts = {"count": len(found.kept), "size": decoder.size, "aspect": found.aspect}
        facts |= {"unreadable": found.unreadable, **more(found)}
        append_facts(file, facts)
    return facts


def reserve(file: BinaryIO, numel: int) -> None:
    """Claim the room on the disk now, so that a full disk shows before an hour of decoding.

    Raises:
        OSError: the disk has no room for so many bytes.
    """
    held = getattr(os.fstat(file.fileno()), "st_blocks", 0) * 512  # not known on every system
    if shutil.disk_usage(file.name).free < numel - held:  # where nothing can be claimed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with suppress(AttributeError):  # not on every system
        try:
            os.posix_fallocate(file.fileno(), 0, numel)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


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
            return facts if end - length == facts["count"] * 3 * facts["size"] ** 2 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def map_canvases(path: Path, facts: dict[str, Any]) -> UInt8[np.ndarray, "N 3 S S"]:
    """The canvases, mapped: read from the file when they are looked at, and never written to it."""
    size = facts["size"]
    # a private copy of what is changed, which nothing does; torch wants memory it could write
    return np.memmap(path, np.uint8, mode="c", shape=(facts["count"], 3, size, size))


def open_pack(path: Path) -> ArraySource:
    """The images of a file that ``similitude pack`` wrote.

    Raises:
        UserError: the file is something else, or not a whole one.
    """
    facts = read_facts(path)
    if facts is None or "names" not in facts:
        raise UserError(f"{path} is no whole pack of images: make it again with similitude pack")
    notes = []
    if facts["unreadable"]:
        notes.append(f"{len(facts['unreadable'])} files could not be read when it was packed")
    labels, neighbours = facts["labels"], facts["neighbours"]
    return ArraySource(
        name=str(path),
        names=facts["names"],
        labels=None if labels is None else torch.tensor(labels),
        class_names=facts["class_names"],
        notes=tuple(notes),
        neighbours=None if neighbours is None else torch.tensor(neighbours),
        array=map_canvases(path, facts),
        layout="NCHW",
        aspect=torch.tensor(facts["aspect"], dtype=torch.float32),
    )
