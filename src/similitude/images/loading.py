"""Decode a source once: to canvases in memory, or in one memory-mapped file if there are too many.

Letters: N images, C channels, S side of a canvas in pixels.
"""

import dataclasses
import logging
import math
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt

from similitude.data.cache import cache_folder, free_memory_bytes, remove_leftovers
from similitude.data.streams import Stream
from similitude.distributed import first_then_others, processes_of_machine
from similitude.distributed.threads import cores
from similitude.errors import UserError
from similitude.files.writing import making, remove_temporaries, reserve, writing_error
from similitude.images.arrays import ArraySource
from similitude.images.decoder import Decoder, Found, StreamDecoder, aspects, default_size
from similitude.images.image_set import ImageSet
from similitude.images.lazy import LazyCanvases
from similitude.images.packs import (
    SUFFIX,
    append_facts,
    form_facts,
    map_canvases,
    open_pack,
    read_facts,
    write_pack,
)
from similitude.images.source import ImageSource, check_number
from similitude.images.tiles import TiledSource

logger = logging.getLogger(__name__)

LAZY_FROM = 100_000  # images; so many take minutes to decode

_FORMAT = 3  # of the cache files; larger when a canvas would come out differently


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
        cache_dir: Where the file of canvases is kept, to be used again by the next run: of those
            that do not fit in memory, and of more than 100,000. By default a subfolder of
            :func:`cache_folder`.
        memory_limit_bytes: Canvases that need more than this never stay in memory; by default a
            third of the memory that is free.
        workers: Threads; by default one for each core, and more where files are far away.
        on_progress: Called with (images done, images in all) now and then, in this thread.

    Raises:
        UserError: fewer than 2 images, more than 10 % of them unreadable, or a full disk.
    """
    try:
        return _loaded(
            source,
            size,
            cache_dir=cache_dir,
            memory_limit_bytes=memory_limit_bytes,
            workers=workers,
            on_progress=on_progress,
        )
    finally:
        source.read_ahead(())  # what it, or a look before, had read is needed no more


def _loaded(
    source: ImageSource,
    size: int | None,
    *,
    cache_dir: str | Path | None,
    memory_limit_bytes: int | None,
    workers: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> ImageSet:
    check_number(source.name, len(source))
    if size is None:
        size = default_size(source)
    if size < 1:
        raise UserError(f"the size of the images must be at least 1 pixel, not {size}")
    share = free_memory_bytes() // (3 * processes_of_machine())  # each process has its own copy
    limit = share if memory_limit_bytes is None else memory_limit_bytes
    if isinstance(source, ArraySource) and source.holds_canvases(size):
        ready = Found(list(range(len(source))), aspects(source, 0, len(source), size, size))
        images = ready.image_set(torch.from_numpy(source.array), source)  # no decoding, no copy
        images = dataclasses.replace(images, blocks=source.blocks)
        if source.mapped.file is None:
            return images
        mapped = LazyCanvases(source, size, workers or source.readers, source.array)
        mapped.take_as_complete(images.aspect, [])
        return dataclasses.replace(images, pixels=mapped)
    readers = workers or source.readers
    # Rows of an array are there at once; tiles are cut from whole images, one after the other.
    if len(source) > LAZY_FROM and not isinstance(source, (ArraySource, TiledSource)):
        folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "canvases"
        images = first_then_others(lambda: _lazily(source, size, folder, limit, readers))
        return dataclasses.replace(images, blocks=source.blocks)
    decoder = Decoder(source, size, readers, on_progress)
    shape, dtype = (len(source), *source.canvas(size)), np.dtype(source.dtype)
    if math.prod(shape) * dtype.itemsize <= limit:
        pixels, count = np.empty(shape, dtype), 0
        for canvases in decoder.canvases():
            pixels[count : count + len(canvases)] = canvases
            count += len(canvases)
        return decoder.found.image_set(torch.from_numpy(pixels[:count]), source)
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "canvases"
    return first_then_others(lambda: _from_cache(source, size, folder, decoder))


def load_some(source: ImageSource, positions: Sequence[int], size: int | None = None) -> ImageSet:
    """Decode a few images, and no others.

    Args:
        source: What to decode from.
        positions: Of the images, in ``source.names``.
        size: See :func:`load_images`.
    """
    size = default_size(source) if size is None else size
    return _undecoded(source, LazyCanvases(source, size, source.readers, None)).subset(positions)


def pack_images(
    source: ImageSource | Stream,
    path: str | Path,
    size: int | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    channels: int = 3,
    depth: int = 8,
) -> ImageSet:
    """Decode every image of ``source`` into one file, which :func:`open_source` reads at once.

    Args:
        source: What to decode; of a stream nobody has to know the length.
        path: The file, named .pack; replaced if it is there.
        size: Side S of the canvases in pixels; see :func:`load_images`.
        on_progress: See :func:`load_images`; of a stream, 0 images in all.
        channels: That are kept of a stream; a source knows its own.
        depth: Likewise, the bits of a pixel.

    Returns:
        The images, mapped from the file.

    Raises:
        UserError: as :func:`load_images`, or the name ends in something else.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise UserError(f"cannot pack to {path}: the name must end in {SUFFIX}")
    if isinstance(source, Stream):
        decoder = StreamDecoder(source, size, cores(), on_progress, channels=channels, depth=depth)
    else:
        check_number(source.name, len(source))
        size = default_size(source) if size is None else size
        decoder = Decoder(source, size, source.readers, on_progress)

    def listing(found: Found) -> dict[str, Any]:
        pixels = torch.empty(len(found.kept), 1, 0, 0, dtype=torch.uint8)
        images = found.image_set(pixels, decoder.source)
        beside = images.partners
        return {
            "names": images.names,
            "labels": None if images.labels is None else images.labels.tolist(),
            "class_names": images.class_names,
            "neighbours": None if beside is None else beside.tolist(),
            "values": decoder.source.values,
        }

    try:
        facts = write_pack(path, decoder, listing)
    finally:
        if not isinstance(source, Stream):
            source.read_ahead(())
    unreadable = [(file, reason) for file, reason in facts["unreadable"]]
    return dataclasses.replace(load_images(open_pack(path), decoder.size), unreadable=unreadable)


def _place(source: ImageSource, size: int, folder: Path) -> Path:
    deep = "" if source.values is None else f"-{source.values.black:g}-{source.values.white:g}"
    form = "" if (source.channels, source.depth) == (3, 8) else f"-{source.channels}x{source.depth}"
    return folder / f"{source.fingerprint()[:32]}{deep}{form}-{size}-{_FORMAT}{SUFFIX}"


def _from_cache(source: ImageSource, size: int, folder: Path, decoder: Decoder) -> ImageSet:
    path = _place(source, size, folder)
    facts = read_facts(path)
    if facts is None or facts["size"] != size:
        logger.info("the canvases of %s do not fit in memory: %s", source.name, path)
        remove_temporaries(folder)
        facts = write_pack(path, decoder, lambda found: {"kept": found.kept})
    unreadable = [(file, reason) for file, reason in facts["unreadable"]]
    found = Found(facts["kept"], facts["aspect"], unreadable)
    return found.image_set(torch.from_numpy(map_canvases(path, facts)), source)


def _lazily(source: ImageSource, size: int, folder: Path, limit: int, workers: int) -> ImageSet:
    """All images, to be decoded when they are needed, into memory, a file, or nowhere."""
    path = _place(source, size, folder)
    facts = read_facts(path)
    everything = None if facts is None else list(range(len(source)))
    if facts is not None and facts["kept"] == everything and facts["size"] == size:
        found = Found(facts["kept"], facts["aspect"], [(f, r) for f, r in facts["unreadable"]])
        pixels = map_canvases(path, facts)
        images = found.image_set(torch.from_numpy(pixels), source)
        if not images.unreadable:
            return images
        canvases = LazyCanvases(source, size, workers, pixels)
        canvases.take_as_complete(images.aspect, images.unreadable)
        return dataclasses.replace(images, pixels=canvases)
    # of this machine: pages that two of them map from one file would overwrite each other's rows
    partial = path.with_suffix(f".{platform.node()}.partial")

    def complete(lazy: LazyCanvases) -> None:
        facts = {**form_facts(source, size), "count": len(lazy), "aspect": lazy.aspect.tolist()}
        facts |= {"unreadable": lazy.unreadable, "kept": list(range(len(lazy)))}
        try:
            # made by the move, so that it is this file whose lock is held
            with making(path, partial.replace) as mine, mine.open("rb+") as file:
                file.seek(0, os.SEEK_END)
                append_facts(file, facts)
        except UserError as error:  # this run has its canvases all the same
            if not path.exists():  # else another process or thread has completed the same file
                logger.warning("%s: the next run decodes again", error)

    remove_leftovers(folder, "*.partial")
    remove_temporaries(folder)
    shape, dtype = (len(source), *source.canvas(size)), np.dtype(source.dtype)
    try:
        # In a file even where they fit in memory: what the process holds does not grow with the
        # data set, processes share it, and the next run finds it decoded.
        kept = _room(partial, shape, dtype)
        logger.info("canvases of %s are kept in %s", source.name, path)
        return _undecoded(source, LazyCanvases(source, size, workers, kept, complete))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.exists():  # completed by another just now
            return _lazily(source, size, folder, limit, workers)
        problem = writing_error(partial, error)
    if math.prod(shape) * dtype.itemsize <= limit:
        logger.warning("%s: canvases are kept in memory", problem)
        return _undecoded(source, LazyCanvases(source, size, workers, np.empty(shape, dtype)))
    logger.warning("%s: images are decoded again in every epoch", problem)
    return _undecoded(source, LazyCanvases(source, size, workers, None))


def _undecoded(source: ImageSource, canvases: LazyCanvases) -> ImageSet:
    return ImageSet(
        pixels=canvases,
        aspect=canvases.aspect,
        names=source.names,
        labels=source.labels,
        class_names=source.class_names,
        unreadable=canvases.unreadable,
        partners=source.partners,
    )


def _room(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> UInt[np.ndarray, "N C S S"]:
    """A file with room for this many numbers, mapped.

    Raises:
        OSError: the disk has no room for it; nothing is left there.
    """
    length = math.prod(shape) * dtype.itemsize
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=False)
        is_mine = True
    except FileExistsError:
        is_mine = False  # what another process has mapped must stay
    try:
        with path.open("rb+") as file:
            reserve(file, length)
            if os.fstat(file.fileno()).st_size < length:
                file.truncate(length)
        return np.memmap(path, dtype, mode="r+", shape=shape)
    except OSError:
        if is_mine:
            path.unlink(missing_ok=True)
        raise
