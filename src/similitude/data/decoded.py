"""Decode samples of different lengths once: to one file, mapped into memory.

rows of all samples | facts, JSON in UTF-8 | length of the facts, 8 bytes | MAGIC
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from similitude.data.cache import cache_folder
from similitude.data.files import UnreadableError
from similitude.data.source import FileSource
from similitude.distributed import first_then_others
from similitude.distributed.threads import lone_threads
from similitude.errors import UserError
from similitude.files.writing import replacing

MAX_UNREADABLE_SHARE = 0.1
_MAGIC = b"SIMROWS2"


@dataclass(frozen=True)
class Decoded:
    """Rows of all samples, one sample behind the other.

    Attributes:
        rows: [T, ...], of all samples; often mapped from a file.
        length: Rows of each sample, [N].
        kept: Position of each sample in its source, [N].
        unreadable: Name of what was left out, and why.
    """

    rows: np.ndarray
    length: np.ndarray
    kept: list[int]
    unreadable: list[tuple[str, str]]

    @property
    def start(self) -> np.ndarray:
        """Where each sample begins, [N]."""
        return np.cumsum(self.length) - self.length


def decode_once(
    source: FileSource,
    decode: Callable[[int], np.ndarray],
    noun: str,
    stamp: str,
    *,
    cache_dir: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Every sample of a source, decoded now or found in the cache.

    Files that cannot be read are left out, and listed in ``unreadable``.

    Args:
        source: What to decode.
        decode: Gives rows [T, ...] of a sample, T at least 1; of all samples of one type, and alike
            but for T. Called in threads.
        noun: What a sample is called.
        stamp: All else that the rows depend on; a part of the file's name.
        cache_dir: Where the file is kept; by default a subfolder of :func:`cache_folder`.
        on_progress: Called with (samples done, samples in all) now and then, in this thread.

    Raises:
        UserError: fewer than 2 samples, more than 10 % of them unreadable (unless the source's
            files may have none), or a full disk.
    """
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / f"{noun}s"
    path = folder / f"{source.fingerprint()[:32]}-{stamp}.rows"

    def ready() -> dict[str, Any]:
        facts = _read_facts(path)
        return _write(source, decode, noun, path, on_progress) if facts is None else facts

    try:
        facts = first_then_others(ready)
    finally:
        source.read_ahead(())  # what it, or a look before, had read is needed no more
    # a private copy of what is changed, which nothing does; torch wants memory it could write
    rows = np.memmap(path, np.dtype(facts["type"]), mode="c", shape=tuple(facts["shape"]))
    unreadable = [(file, reason) for file, reason in facts["unreadable"]]
    return Decoded(rows, np.array(facts["length"], np.int64), facts["kept"], unreadable)


def decode_some(
    source: FileSource, positions: Any, decode: Callable[[int], np.ndarray], empty: np.ndarray
) -> Decoded:
    """A few samples, and no others.

    Args:
        source: What to decode from.
        positions: Of the samples, in ``source.names``.
        decode: As of :func:`decode_once`.
        empty: The rows of no sample.
    """
    found, kept, unreadable = [], [], []
    for i in positions:
        try:
            found.append(decode(i))
            kept.append(i)
        except UnreadableError as error:
            unreadable.append((source.names[i], str(error)))
    length = np.array([len(rows) for rows in found], np.int64)
    return Decoded(np.concatenate(found) if found else empty, length, kept, unreadable)


def _write(
    source: FileSource,
    decode: Callable[[int], np.ndarray],
    noun: str,
    path: Path,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Decode everything to a file, in the order of the names; its facts."""
    total = len(source)
    kept: list[int] = []
    lengths: list[int] = []
    unreadable: list[tuple[str, str]] = []
    dtype, shape = np.dtype(np.uint8), ()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        for i, rows in enumerate(_in_order(total, decode, noun, source.readers)):
            if isinstance(rows, UnreadableError):
                unreadable.append((source.names[i], str(rows)))
                if len(unreadable) > MAX_UNREADABLE_SHARE * total and not source.may_lack:
                    raise UserError(
                        f"{len(unreadable)} of {i + 1} files looked at in {source.name} cannot be "
                        f"read (more than 10 % of {total}), the first is {unreadable[0][0]} "
                        f"({unreadable[0][1]}): remove or replace them"
                    )
            else:
                dtype, shape = rows.dtype, rows.shape[1:]
                file.write(rows.tobytes())
                kept.append(i)
                lengths.append(len(rows))
            if on_progress is not None and (i % 100 == 0 or i + 1 == total):
                on_progress(i + 1, total)
        if len(kept) < 2:
            raise UserError(
                f"{source.name} has {len(kept) or 'no'} readable {noun}, but learning needs at "
                "least 2"
            )
        facts = {
            "kept": kept,
            "length": lengths,
            "unreadable": unreadable,
            "type": dtype.str,
            "shape": [sum(lengths), *shape],
        }
        text = json.dumps(facts).encode()
        file.write(text + len(text).to_bytes(8, "little") + _MAGIC)
    return facts


def _in_order(
    total: int, decode: Callable[[int], np.ndarray], noun: str, readers: int
) -> Iterator[np.ndarray | UnreadableError]:
    """The rows of every sample, or why there are none, decoded by all cores."""
    waiting: deque[Future[np.ndarray]] = deque()
    with lone_threads(readers, f"{noun}s") as threads:

        def result() -> np.ndarray | UnreadableError:
            try:
                return waiting.popleft().result()
            except UnreadableError as error:
                return error

        for i in range(total):
            waiting.append(threads.submit(decode, i))
            if len(waiting) > 4 * readers:
                yield result()
        while waiting:
            yield result()


def _read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a file of rows; None if there is none, or not a whole one."""
    try:
        with path.open("rb") as file:
            end = file.seek(-16, 2)
            length = int.from_bytes(file.read(8), "little")
            if file.read(8) != _MAGIC or length > end:
                return None
            file.seek(end - length)
            facts = json.loads(file.read(length))
            size = np.dtype(facts["type"]).itemsize * int(np.prod(facts["shape"]))
            return facts if end - length == size else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
