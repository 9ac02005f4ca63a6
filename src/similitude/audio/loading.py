"""Decode a folder of sounds once: to one file of wave forms, mapped into memory.

samples, 16 bits each | facts, JSON in UTF-8 | length of the facts, 8 bytes | MAGIC
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from similitude.audio.clips import Waves
from similitude.audio.decoding import check_libraries, decode
from similitude.audio.sound_set import SoundSet
from similitude.data.cache import cache_folder
from similitude.data.files import UnreadableError
from similitude.data.source import FileSource
from similitude.distributed import first_then_others
from similitude.distributed.threads import cores, lone_threads
from similitude.errors import UserError
from similitude.files.writing import replacing

MAX_UNREADABLE_SHARE = 0.1
_MAGIC = b"SIMWAVE1"
_FORMAT = 1  # of the cache; larger when a wave form would come out differently


def load_sounds(
    source: FileSource,
    rate: int,
    *,
    cache_dir: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SoundSet:
    """Every sound of a source, decoded to one channel of 16 bits at one rate.

    What was decoded before is found in the cache again. Files that cannot be read are left out, and
    listed in ``unreadable``.

    Args:
        source: What to decode.
        rate: Samples in a second.
        cache_dir: Where wave forms are kept; by default a subfolder of :func:`cache_folder`.
        on_progress: Called with (sounds done, sounds in all) now and then, in this thread.

    Raises:
        UserError: fewer than 2 sounds, more than 10 % of them unreadable, or a full disk.
    """
    check_libraries()
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "sounds"
    path = folder / f"{source.fingerprint()[:32]}-{rate}-{_FORMAT}.waves"

    def ready() -> dict[str, Any]:
        facts = _read_facts(path)
        return _write(source, rate, path, on_progress) if facts is None else facts

    facts = first_then_others(ready)
    lengths = np.array(facts["length"], np.int64)
    # a private copy of what is changed, which nothing does; torch wants memory it could write
    samples = np.memmap(path, np.int16, mode="c", shape=(int(lengths.sum()),))
    waves = Waves(samples, np.cumsum(lengths) - lengths, lengths, rate)
    return _sound_set(source, waves, facts["kept"], [(f, r) for f, r in facts["unreadable"]])


def decode_some(source: FileSource, positions: Sequence[int], rate: int) -> SoundSet:
    """A few sounds, and no others.

    Args:
        source: What to decode from.
        positions: Of the sounds, in ``source.names``.
        rate: Samples in a second.
    """
    check_libraries()
    found, kept, unreadable = [], [], []
    for i in positions:
        try:
            found.append(_decoded(source, i, rate))
            kept.append(i)
        except UnreadableError as error:
            unreadable.append((source.names[i], str(error)))
    lengths = np.array([len(wave) for wave in found], np.int64)
    samples = np.concatenate(found) if found else np.zeros(0, np.int16)
    waves = Waves(samples, np.cumsum(lengths) - lengths, lengths, rate)
    return _sound_set(source, waves, kept, unreadable)


def _sound_set(
    source: FileSource, waves: Waves, kept: list[int], unreadable: list[tuple[str, str]]
) -> SoundSet:
    return SoundSet(
        waves=waves,
        index=torch.arange(len(kept)),
        names=[source.names[i] for i in kept],
        labels=None if source.labels is None else source.labels[torch.tensor(kept)],
        class_names=source.class_names,
        unreadable=unreadable,
    )


def _decoded(source: FileSource, i: int, rate: int) -> np.ndarray:
    with source.file(i) as file:
        return decode(file, rate)


def _write(
    source: FileSource, rate: int, path: Path, on_progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """Decode everything to a file, in the order of the names; its facts."""
    total = len(source)
    kept: list[int] = []
    lengths: list[int] = []
    unreadable: list[tuple[str, str]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        for i, wave in enumerate(_in_order(source, rate)):
            if isinstance(wave, UnreadableError):
                unreadable.append((source.names[i], str(wave)))
                if len(unreadable) > MAX_UNREADABLE_SHARE * total:
                    raise UserError(
                        f"{len(unreadable)} of {i + 1} files looked at in {source.name} cannot be "
                        f"read (more than 10 % of {total}), the first is {unreadable[0][0]} "
                        f"({unreadable[0][1]}): remove or replace them"
                    )
            else:
                file.write(wave.tobytes())
                kept.append(i)
                lengths.append(len(wave))
            if on_progress is not None and (i % 100 == 0 or i + 1 == total):
                on_progress(i + 1, total)
        if len(kept) < 2:
            raise UserError(
                f"{source.name} has {len(kept) or 'no'} readable sound, but learning needs at "
                "least 2"
            )
        facts = {"kept": kept, "length": lengths, "unreadable": unreadable}
        text = json.dumps(facts).encode()
        file.write(text + len(text).to_bytes(8, "little") + _MAGIC)
    return facts


def _in_order(source: FileSource, rate: int) -> Iterator[np.ndarray | UnreadableError]:
    """Every wave form, or why there is none, decoded by all cores."""
    waiting: deque[Future[np.ndarray]] = deque()
    with lone_threads(cores(), "sounds") as threads:

        def result() -> np.ndarray | UnreadableError:
            try:
                return waiting.popleft().result()
            except UnreadableError as error:
                return error

        for i in range(len(source)):
            waiting.append(threads.submit(_decoded, source, i, rate))
            if len(waiting) > 4 * cores():
                yield result()
        while waiting:
            yield result()


def _read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a file of wave forms; None if there is none, or not a whole one."""
    try:
        with path.open("rb") as file:
            end = file.seek(-16, 2)
            length = int.from_bytes(file.read(8), "little")
            if file.read(8) != _MAGIC or length > end:
                return None
            file.seek(end - length)
            facts = json.loads(file.read(length))
            return facts if end - length == 2 * sum(facts["length"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
