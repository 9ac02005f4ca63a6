"""Decode a source once: to canvases in memory, or in one memory-mapped file if there are too many.

Letters: N images, S side of a canvas in pixels.
"""

import errno
import logging
import math
import os
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from similitude.data.arrays import ArraySource
from similitude.data.base import ImageSource
from similitude.data.cache import cache_folder, free_memory_bytes, remove_leftovers
from similitude.data.decoding import UnreadableImageError, to_canvas, to_canvases
from similitude.data.images import ImageSet, neighbours_among
from similitude.data.lazy import MAX_UNREADABLE_SHARE, LazyCanvases
from similitude.data.packs import SUFFIX, append_facts, map_canvases, open_pack, read_facts
from similitude.distributed import first_then_others, processes_of_machine
from similitude.errors import UserError
from similitude.storage import replacing, writing_error

logger = logging.getLogger(__name__)

LARGEST_DEFAULT_SIZE = 256
LAZY_FROM = 100_000  # images; so many take minutes to decode

_FORMAT = 2  # of the cache files; larger when a canvas would come out differently
_CHUNK = 32  # images per task: large enough to hide the cost of handing it over


def load_images(
    source: ImageSource,
    size: int | None = None,
    *,
    cache_dir: str | Path | None = None,
    memory_limit_bytes: int | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Decode every image of ``source`` to a canvas; see :class:`ImageSet`.

    The result does not depend on ``workers``, nor on whether it is in memory or in a file. Files
    that cannot be read are left out and listed in ``unreadable``. Of more than 100,000 images none
    is decoded yet: see :class:`LazyCanvases`, also for what becomes of unreadable ones.

    Args:
        source: What to decode.
        size: Side S of the canvases in pixels; None for the median short side (the native size
            where all are equal), at most 256.
        cache_dir: Where canvases are kept that do not fit in memory, to be used again by the
            next run; by default a subfolder of :func:`cache_folder`.
        memory_limit_bytes: Canvases that need more than this go to a file; by default a third of
            the memory that is free.
        workers: Threads; by default one for each core.
        on_progress: Called with (images done, images in all) now and then, in this thread.

    Raises:
        UserError: fewer than 2 images, more than 10 % of them unreadable, or a full disk.
    """
    if len(source) < 2:
        raise UserError(f"{source.name} has {len(source)} image(s), but learning needs at least 2")
    if size is None:
        size = default_size(source)
    if size < 1:
        raise UserError(f"the size of the images must be at least 1 pixel, not {size}")
    share = free_memory_bytes() // (3 * processes_of_machine())  # each process has its own copy
    limit = share if memory_limit_bytes is None else memory_limit_bytes
    if isinstance(source, ArraySource) and source.holds_canvases(size):
        ready = _Found(list(range(len(source))), _aspects(source, 0, len(source), size, size))
        return ready.image_set(torch.from_numpy(source.array), source)  # nothing to decode or copy
    if len(source) > LAZY_FROM and not isinstance(source, ArraySource):
        folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "canvases"
        return first_then_others(lambda: _lazily(source, size, folder, limit, workers or _cores()))
    decoder = _Decoder(source, size, workers or _cores(), on_progress)
    if len(source) * 3 * size * size <= limit:
        memory = _Memory(np.empty((len(source), 3, size, size), np.uint8))
        found = decoder.run(memory)
        return found.image_set(torch.from_numpy(memory.pixels[: len(found.kept)]), source)
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "canvases"
    return first_then_others(lambda: _from_cache(source, size, folder, decoder))


def pack_images(
    source: ImageSource,
    path: str | Path,
    size: int | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Decode every image of ``source`` into one file, which :func:`open_source` reads at once.

    Args:
        source: What to decode.
        path: The file, named .pack; replaced if it is there.
        size: Side S of the canvases in pixels; see :func:`load_images`.
        on_progress: See :func:`load_images`.

    Returns:
        The images, mapped from the file.

    Raises:
        UserError: as :func:`load_images`, or the name ends in something else.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise UserError(f"cannot pack to {path}: the name must end in {SUFFIX}")
    if len(source) < 2:
        raise UserError(f"{source.name} has {len(source)} image(s), but learning needs at least 2")
    size = default_size(source) if size is None else size

    def more(found: _Found) -> dict[str, Any]:
        images = found.image_set(torch.empty(len(found.kept), 3, 0, 0, dtype=torch.uint8), source)
        beside = images.neighbours
        return {
            "names": images.names,
            "labels": None if images.labels is None else images.labels.tolist(),
            "class_names": images.class_names,
            "neighbours": None if beside is None else beside.tolist(),
        }

    _write(path, source, size, _Decoder(source, size, _cores(), on_progress), more)
    return load_images(open_pack(path), size)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def default_size(source: ImageSource) -> int:
    """The median short side of (a sample of) the images in pixels, at most 256.

    Larger canvases cost memory that few recipes use; who needs them says so.
    """
    sizes = source.probe_sizes()
    if not sizes:  # no readable header in the sample; decoding tells what is wrong
        return LARGEST_DEFAULT_SIZE
    return min(LARGEST_DEFAULT_SIZE, int(statistics.median_low(min(size) for size in sizes)))


@dataclass
class _Found:
    """Which images of a source were readable, and what is known of them besides the pixels."""

    kept: list[int] = field(default_factory=list)
    aspect: list[float] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def image_set(self, pixels: UInt8[Tensor, "N 3 S S"], source: ImageSource) -> ImageSet:
        kept = torch.tensor(self.kept)
        beside = source.neighbours
        return ImageSet(
            pixels=pixels,
            aspect=torch.tensor(self.aspect, dtype=torch.float32),
            names=[source.names[i] for i in self.kept],
            labels=None if source.labels is None else source.labels[kept],
            class_names=source.class_names,
            unreadable=self.unreadable,
            neighbours=None if beside is None else neighbours_among(beside, kept),
        )


# Canvases are NumPy arrays on their way: NumPy copies in the calling thread, where torch would
# start a pool of threads in each of ours.


@runtime_checkable
class _Sink(Protocol):
    def append(self, canvases: UInt8[np.ndarray, "M 3 S S"]) -> None: ...


@dataclass
class _Memory:
    pixels: UInt8[np.ndarray, "N 3 S S"]
    count: int = 0

    def append(self, canvases: UInt8[np.ndarray, "M 3 S S"]) -> None:
        self.pixels[self.count : self.count + len(canvases)] = canvases
        self.count += len(canvases)


@dataclass
class _File:
    file: BinaryIO

    def append(self, canvases: UInt8[np.ndarray, "M 3 S S"]) -> None:
        self.file.write(np.ascontiguousarray(canvases).data)


@dataclass
class _Chunk:
    canvases: UInt8[np.ndarray, "M 3 S S"]
    found: _Found


@dataclass
class _Decoder:
    source: ImageSource
    size: int
    workers: int
    on_progress: Callable[[int, int], None] | None

    def run(self, sink: _Sink) -> _Found:
        """Decode everything in parallel, hand it to ``sink`` in the order of the source."""
        total = len(self.source)
        found, done = _Found(), 0
        for chunk in self._chunks():
            sink.append(chunk.canvases)
            found.kept += chunk.found.kept
            found.aspect += chunk.found.aspect
            found.unreadable += chunk.found.unreadable
            done = min(total, done + _CHUNK)
            if len(found.unreadable) > MAX_UNREADABLE_SHARE * total:
                file, reason = found.unreadable[0]
                raise UserError(
                    f"{len(found.unreadable)} of {done} files looked at in {self.source.name} "
                    f"cannot be read (more than 10 % of {total}), the first is {file} ({reason}): "
                    f"remove or replace them"
                )
            if self.on_progress is not None:
                self.on_progress(done, total)
        if len(found.kept) < 2:
            raise UserError(
                f"{self.source.name} has {len(found.kept)} readable image(s), but learning needs "
                f"at least 2"
            )
        return found

    def _chunks(self) -> Iterator[_Chunk]:
        starts = iter(range(0, len(self.source), _CHUNK))
        waiting: deque[Future[_Chunk]] = deque()
        # Each thread decodes by itself: torch's own threads would compete with the others.
        with ThreadPoolExecutor(
            self.workers, "similitude-decode", torch.set_num_threads, (1,)
        ) as pool:
            try:
                while True:
                    # no more at once than keeps everyone busy: results wait in memory
                    while len(waiting) < 2 * self.workers + 2:
                        start = next(starts, None)
                        if start is None:
                            break
                        waiting.append(pool.submit(self._decode, start))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _decode(self, start: int) -> _Chunk:
        stop = min(len(self.source), start + _CHUNK)
        if isinstance(self.source, ArraySource):
            return _decode_rows(self.source, start, stop, self.size)
        found = _Found()
        canvases = np.empty((stop - start, 3, self.size, self.size), np.uint8)
        for i in range(start, stop):
            try:
                image = self.source.read(i, self.size)
            except UnreadableImageError as error:
                found.unreadable.append((self.source.names[i], str(error)))
                continue
            canvases[len(found.kept)] = to_canvas(image, self.size).numpy()
            found.kept.append(i)
            found.aspect.append(image.shape[2] / image.shape[1])
        return _Chunk(canvases[: len(found.kept)], found)


def _decode_rows(source: ArraySource, start: int, stop: int, size: int) -> _Chunk:
    rows = source.read_rows(start, stop)
    aspect = _aspects(source, start, stop, rows.shape[3], rows.shape[2])
    canvases = to_canvases(rows, size).expand(-1, 3, -1, -1)
    return _Chunk(canvases.numpy(), _Found(list(range(start, stop)), aspect))


def _aspects(source: ArraySource, start: int, stop: int, width: int, height: int) -> list[float]:
    if source.aspect is None:
        return [width / height] * (stop - start)
    return source.aspect[start:stop].tolist()


def _from_cache(source: ImageSource, size: int, folder: Path, decoder: _Decoder) -> ImageSet:
    path = folder / f"{source.fingerprint()[:32]}-{size}-{_FORMAT}{SUFFIX}"
    facts = read_facts(path)
    if facts is None or facts["size"] != size:
        logger.info("the canvases of %s do not fit in memory: %s", source.name, path)
        remove_leftovers(folder, ".*.tmp.*")
        facts = _write(path, source, size, decoder, lambda found: {"kept": found.kept})
    unreadable = [(file, reason) for file, reason in facts["unreadable"]]
    found = _Found(facts["kept"], facts["aspect"], unreadable)
    return found.image_set(torch.from_numpy(map_canvases(path, facts)), source)


def _lazily(source: ImageSource, size: int, folder: Path, limit: int, workers: int) -> ImageSet:
    """All images, to be decoded when they are needed, into memory, a file, or nowhere."""
    path = folder / f"{source.fingerprint()[:32]}-{size}-{_FORMAT}{SUFFIX}"
    everything = list(range(len(source)))
    facts = read_facts(path)
    if facts is not None and facts["kept"] == everything and facts["size"] == size:
        found = _Found(everything, facts["aspect"], [(f, r) for f, r in facts["unreadable"]])
        return found.image_set(torch.from_numpy(map_canvases(path, facts)), source)
    shape = (len(source), 3, size, size)
    if math.prod(shape) <= limit:
        canvases = LazyCanvases(source, size, workers, np.empty(shape, np.uint8))
    else:
        partial = path.with_suffix(".partial")

        def complete(lazy: LazyCanvases) -> None:
            facts = {"count": len(lazy), "size": size, "aspect": lazy.aspect.tolist()}
            facts |= {"unreadable": lazy.unreadable, "kept": everything}
            with partial.open("rb+") as file:
                file.seek(0, os.SEEK_END)
                append_facts(file, facts)
                os.fsync(file.fileno())
            partial.replace(path)

        kept = _room(partial, shape)
        canvases = LazyCanvases(source, size, workers, kept, complete)
    return ImageSet(
        pixels=canvases,
        aspect=canvases.aspect,
        names=source.names,
        labels=source.labels,
        class_names=source.class_names,
        unreadable=canvases.unreadable,
        neighbours=source.neighbours,
    )


def _room(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "N 3 S S"] | None:
    """A file of this many bytes, mapped; None if the disk has no room for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:  # what another process has mapped must stay
            _reserve(file, math.prod(shape))
            file.truncate(math.prod(shape))
    except OSError as error:
        logger.warning("%s: images are decoded again in every epoch", writing_error(path, error))
        path.unlink(missing_ok=True)
        return None
    return np.memmap(path, np.uint8, mode="r+", shape=shape)


def _write(
    path: Path,
    source: ImageSource,
    size: int,
    decoder: _Decoder,
    more: Callable[[_Found], dict[str, Any]],
) -> dict[str, Any]:
    """Decode everything to a pack; its facts, with ``more`` of them."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        _reserve(file, len(source) * 3 * size * size)
        found = decoder.run(_File(file))
        file.truncate(len(found.kept) * 3 * size * size)
        facts = {"count": len(found.kept), "size": size, "aspect": found.aspect}
        facts |= {"unreadable": found.unreadable, **more(found)}
        append_facts(file, facts)
    return facts


def _reserve(file: BinaryIO, numel: int) -> None:
    """Claim the room on the disk now, so that a full disk shows before an hour of decoding."""
    with suppress(AttributeError):  # not on every system
        try:
            os.posix_fallocate(file.fileno(), 0, numel)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
