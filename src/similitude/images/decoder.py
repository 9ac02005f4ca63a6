"""Decode all images of a source, or of a stream, to canvases, in parallel and in order.

Letters: N images, M of them, C channels, S side of a canvas in pixels.
"""

import dataclasses
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from jaxtyping import UInt
from torch import Tensor

from similitude.data.files import UnreadableError
from similitude.data.streams import Block, Stream
from similitude.distributed.threads import cores, lone_threads
from similitude.errors import UserError
from similitude.images.arrays import ArraySource
from similitude.images.decoding import to_canvas, to_canvases
from similitude.images.depth import with_measured_values
from similitude.images.image_set import ImageSet, partners_among
from similitude.images.lazy import MAX_UNREADABLE_SHARE
from similitude.images.source import ImageSource, as_images, check_number

LARGEST_DEFAULT_SIZE = 256
_CHUNK = 32  # images per task of a core: large enough to hide the cost of handing it over
_FEW = 1000  # images of a stream before the share of unreadable ones means something


def native_size(source: ImageSource) -> int | None:
    """The median short side of (a sample of) the images in pixels; None if none can be read."""
    sizes = source.probe_sizes()
    return int(statistics.median_low(min(size) for size in sizes)) if sizes else None


def default_size(source: ImageSource) -> int:
    """The native size, at most 256 pixels.

    Larger canvases cost memory that few recipes use; who needs them says so.
    """
    # without a readable header in the sample, decoding tells what is wrong
    return min(LARGEST_DEFAULT_SIZE, native_size(source) or LARGEST_DEFAULT_SIZE)


@dataclass
class Found:
    """Which images of a source were readable, and what is known of them besides the pixels."""

    kept: list[int] = field(default_factory=list)
    aspect: list[float] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, more: "Found", start: int = 0) -> None:
        """Append what was found in a part that begins at position ``start``."""
        self.kept += [start + i for i in more.kept]
        self.aspect += more.aspect
        self.unreadable += more.unreadable

    def check_share(self, name: str, done: int, total: int) -> None:
        """Refuse where more than 10 % of ``total`` images cannot be read."""
        if len(self.unreadable) > MAX_UNREADABLE_SHARE * total:
            file, reason = self.unreadable[0]
            raise UserError(
                f"{len(self.unreadable)} of {done} files looked at in {name} cannot be read (more "
                f"than 10 % of {total}), the first is {file} ({reason}): remove or replace them"
            )

    def image_set(self, pixels: UInt[Tensor, "N C S S"], source: ImageSource) -> ImageSet:
        """The images that were read, with what ``source`` knows of them."""
        kept = torch.tensor(self.kept)
        beside = source.partners
        return ImageSet(
            pixels=pixels,
            aspect=torch.tensor(self.aspect, dtype=torch.float32),
            names=[source.names[i] for i in self.kept],
            labels=None if source.labels is None else source.labels[kept],
            class_names=source.class_names,
            unreadable=self.unreadable,
            partners=None if beside is None else partners_among(beside, kept),
        )


# Canvases are NumPy arrays on their way: NumPy copies in the calling thread, where torch would
# start a pool of threads in each of ours.
_Chunk = tuple[UInt[np.ndarray, "M C S S"], Found]


@dataclass
class Decoder:
    """Decodes a source whose length is known.

    Attributes:
        source: What to decode.
        size: S.
        workers: Threads.
        on_progress: Called with (images done, images in all) now and then.
        found: What has been found so far.
    """

    source: ImageSource
    size: int
    workers: int
    on_progress: Callable[[int, int], None] | None = None
    found: Found = field(default_factory=Found)

    @property
    def chunk(self) -> int:
        """Images per task; of more threads each has fewer, so that as many wait in memory."""
        return max(1, _CHUNK * cores() // max(cores(), self.workers))

    def canvases(self) -> Iterator[UInt[np.ndarray, "M C S S"]]:
        """All canvases, some at a time, decoded in parallel, in the order of the source."""
        total, done = len(self.source), 0
        for canvases, found in self.chunks():
            yield canvases
            self.found.add(found)
            done = min(total, done + self.chunk)
            self.found.check_share(self.source.name, done, total)
            if self.on_progress is not None:
                self.on_progress(done, total)
        check_number(self.source.name, len(self.found.kept), "readable image")

    def chunks(self) -> Iterator[_Chunk]:
        """Some canvases at a time, with what was found of them in their part of the source."""
        starts = iter(range(0, len(self.source), self.chunk))
        waiting: deque[Future[_Chunk]] = deque()
        with lone_threads(self.workers, "decode") as pool:
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
        stop = min(len(self.source), start + self.chunk)
        if isinstance(self.source, ArraySource):
            return _decode_rows(self.source, start, stop, self.size)
        found = Found()
        canvases = np.empty((stop - start, *self.source.canvas(self.size)), self.source.dtype)
        for i in range(start, stop):
            try:
                image = self.source.read(i, self.size)
            except UnreadableError as error:
                found.unreadable.append((self.source.names[i], str(error)))
                continue
            canvases[len(found.kept)] = to_canvas(image, self.size).numpy()
            found.kept.append(i)
            found.aspect.append(image.shape[2] / image.shape[1])
        return canvases[: len(found.kept)], found


def _decode_rows(source: ArraySource, start: int, stop: int, size: int) -> _Chunk:
    rows = source.read_rows(start, stop)
    aspect = aspects(source, start, stop, rows.shape[3], rows.shape[2])
    canvases = to_canvases(rows, size).expand(-1, source.channels, -1, -1)
    return canvases.numpy(), Found(list(range(start, stop)), aspect)


def aspects(source: ArraySource, start: int, stop: int, width: int, height: int) -> list[float]:
    """Width / height of the originals of some rows of an array."""
    if source.aspect is None:
        return [width / height] * (stop - start)
    return source.aspect[start:stop].tolist()


class StreamDecoder:
    """Decodes a stream, some blocks of which are in memory at a time.

    Attributes:
        size: S; that of the first block if None was given.
        source: What has been listed so far, without the files.
        found: What has been found so far.
    """

    def __init__(
        self,
        stream: Stream,
        size: int | None,
        workers: int,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        channels: int = 3,
        depth: int = 8,
    ) -> None:
        form = {"channels": channels, "depth": depth}
        blocks = (as_images(block).decoded_as(**form) for block in stream.blocks())
        first = next(blocks, None)
        if first is None:
            raise UserError(f"{stream.name} has no images")
        self.size = default_size(first) if size is None else size
        values = with_measured_values(first).values  # as the first ones are, so are all
        self._names: list[str] = []  # of what has been listed
        nothing = Block(
            name=stream.name, names=self._names, files=[], class_names=stream.class_names
        )
        self.source: ImageSource = as_images(nothing).decoded_as(**form)
        self.found = Found()
        self._workers, self._on_progress = workers, on_progress
        blocks = chain([first], blocks)
        self._blocks = blocks if values is None else (b.with_values(values) for b in blocks)

    def canvases(self) -> Iterator[UInt[np.ndarray, "M C S S"]]:
        """All canvases, some at a time, decoded in parallel, in the order of the stream."""
        labels, names, name = [], self._names, self.source.name
        for block in self._blocks:
            for canvases, found in Decoder(block, self.size, self._workers).chunks():
                yield canvases
                self.found.add(found, len(names))
            names += block.names
            labels.append(block.labels)
            self.found.check_share(name, len(names), max(len(names), _FEW))
            if self._on_progress is not None:
                self._on_progress(len(names), 0)
        check_number(name, len(self.found.kept), "readable image")
        known = torch.cat(labels)
        if (known >= 0).any():
            self.source = dataclasses.replace(self.source, labels=known)
