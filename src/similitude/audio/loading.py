"""Sounds of a folder as samples: wave forms of one rate, decoded once."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from similitude.audio.clips import Waves
from similitude.audio.decoding import check_libraries, decode
from similitude.audio.sound_set import SoundSet
from similitude.data import decoded
from similitude.data.decoded import Decoded, decode_once
from similitude.data.source import FileSource

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
        cache_dir: Where wave forms are kept.
        on_progress: Called with (sounds done, sounds in all) now and then, in this thread.

    Raises:
        UserError: fewer than 2 sounds, more than 10 % of them unreadable, or a full disk.
    """
    check_libraries()
    found = decode_once(
        source,
        partial(_decoded, source, rate),
        "sound",
        f"{rate}-{_FORMAT}",
        cache_dir=cache_dir,
        on_progress=on_progress,
    )
    return _sound_set(source, found, rate)


def decode_some(source: FileSource, positions: Sequence[int], rate: int) -> SoundSet:
    """A few sounds, and no others.

    Args:
        source: What to decode from.
        positions: Of the sounds, in ``source.names``.
        rate: Samples in a second.
    """
    check_libraries()
    empty = np.zeros(0, np.int16)
    found = decoded.decode_some(source, positions, partial(_decoded, source, rate), empty)
    return _sound_set(source, found, rate)


def _sound_set(source: FileSource, found: Decoded, rate: int) -> SoundSet:
    kept = found.kept
    return SoundSet(
        waves=Waves(found.rows, found.start, found.length, rate),
        index=torch.arange(len(kept)),
        names=[source.names[i] for i in kept],
        labels=None if source.labels is None else source.labels[torch.tensor(kept)],
        class_names=source.class_names,
        unreadable=found.unreadable,
    )


def _decoded(source: FileSource, rate: int, i: int) -> np.ndarray:
    with source.file(i) as file:
        return decode(file, rate)
