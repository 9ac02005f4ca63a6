"""Batches of canvases for the optimiser's steps, gathered ahead in a thread.

Letters: N images, B images of a batch, S side of a canvas in pixels, K neighbours at most.
"""

import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from similitude.data.lazy import LazyCanvases
from similitude.errors import UserError
from similitude.images.image_set import ImageSet
from similitude.randomness import permutation, uniform

_AHEAD = 2  # batches ready or under way: enough to hide a slow gather, little memory


class CanvasBatch(NamedTuple):
    """One batch of canvases, on the device.

    Attributes:
        canvases: Shape [B, 3, S, S], uint8.
        index: Position of each image in the data set, shape [B].
        aspect: Width / height of each original, shape [B].
        epoch: Number of the pass over the data, from 0.
        neighbours: Canvases and aspects of an image beside each image, drawn anew in every epoch;
            the image itself where nothing lies beside it. None if they were not asked for.
    """

    canvases: UInt8[Tensor, "B 3 S S"]
    index: Int[Tensor, " B"]  # pyright: ignore[reportIncompatibleMethodOverride]
    aspect: Float[Tensor, " B"]
    epoch: int
    neighbours: tuple[UInt8[Tensor, "B 3 S S"], Float[Tensor, " B"]] | None = None


class CanvasLoader:
    """The batches of steps ``first_step`` to ``total_steps - 1``.

    The batch of a step is a pure function of (seed, step, number of images, batch size): epoch e is
    ``permutation(seed, e, N)`` cut into ``N // batch_size`` batches, and what is left over is
    dropped. To resume, set ``first_step``. Every iteration starts at ``first_step``.

    Attributes:
        steps_per_epoch: Whole batches of one pass.
        waiting_seconds: How long the consumer has waited for batches, over all iterations.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        seed: int,
        first_step: int = 0,
        total_steps: int,
        device: torch.device | str = "cpu",
        part: int = 0,
        parts: int = 1,
        neighbours: bool = False,
    ) -> None:
        """Take the images and the range of steps; nothing runs before the iteration.

        Args:
            images: What to draw from.
            batch_size: Images per batch, at least 1.
            seed: Of the run; decides the order.
            first_step: First step to deliver; larger than 0 to resume.
            total_steps: Steps of the whole run, counted from 0, not from ``first_step``.
            device: Where the batches go.
            part: Which of ``parts`` of every batch to deliver: processes that train together
                share a batch.
            parts: Equal parts into which batches are cut, at least 1.
            neighbours: Give a neighbour of each image too, where images have any.

        Raises:
            UserError: fewer images than a batch, a batch size below 1, or parts that are not equal.
        """
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if len(images) < batch_size:
            raise UserError(
                f"{len(images)} images are fewer than one batch of {batch_size}: "
                f"add images or set the batch size to at most {len(images)}"
            )
        if batch_size % parts:
            raise UserError(
                f"a batch of {batch_size} does not divide among {parts} processes: choose a batch "
                f"size that is a multiple of {parts}"
            )
        self.images = images
        self.batch_size = batch_size
        self.part, self.parts = part, parts
        self.neighbours = images.neighbours if neighbours else None
        self.seed = seed
        self.first_step = first_step
        self.total_steps = total_steps
        self.device = torch.device(device)
        self.steps_per_epoch = len(images) // batch_size
        self.waiting_seconds = 0.0
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return max(0, self.total_steps - self.first_step)

    def __iter__(self) -> Generator[CanvasBatch, None, None]:
        under_way: deque[Future[CanvasBatch]] = deque()
        with ThreadPoolExecutor(1, "similitude-canvases") as thread:
            for step in range(self.first_step, self.total_steps):
                # The order is drawn here: torch's operations in the other thread would start a
                # second pool of OpenMP threads, and OpenMP then lets the threads that train sleep
                # between operations instead of spinning, which makes the views half as fast.
                under_way.append(thread.submit(self._gather, *self._index(step)))
                if len(under_way) > _AHEAD:
                    yield self._wait(under_way.popleft())
            while under_way:
                yield self._wait(under_way.popleft())

    def _wait(self, batch: Future[CanvasBatch]) -> CanvasBatch:
        start = time.perf_counter()
        result = batch.result()
        self.waiting_seconds += time.perf_counter() - start
        return result

    def batch(self, step: int) -> CanvasBatch:
        """The batch of one step, now and in this thread."""
        return self._gather(*self._index(step))

    def _index(self, step: int) -> tuple[Tensor, int, Tensor | None]:
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order
        if order is None or order[0] != epoch:
            order = self._order = (epoch, permutation(self.seed, epoch, len(self.images)))
        length = self.batch_size // self.parts
        start = position * self.batch_size + self.part * length
        index = order[1][start : start + length].clone()
        if self.neighbours is None:
            return index, epoch, None
        return index, epoch, draw_neighbours(self.neighbours, index, seed=self.seed, epoch=epoch)

    def _gather(self, index: Tensor, epoch: int, beside: Tensor | None) -> CanvasBatch:
        canvases, aspect = self._images(index)
        neighbours = None if beside is None else self._images(beside)
        return CanvasBatch(canvases, self._move(index), aspect, epoch, neighbours)

    def _images(self, index: Tensor) -> tuple[Tensor, Tensor]:
        images = self.images
        return self._move(_rows(images.pixels, index)), self._move(_rows(images.aspect, index))

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            # the copy of pinned memory runs beside the computation that uses the last batch
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def draw_neighbours(
    neighbours: Int[Tensor, "N K"], index: Int[Tensor, " B"], *, seed: int, epoch: int
) -> Int[Tensor, " B"]:
    """One of the images beside each image, as a pure function of seed, epoch and position.

    Args:
        neighbours: See :class:`ImageSet`.
        index: Positions of the images.
        seed: Of the run.
        epoch: Number of the pass over the data.

    Returns:
        A position for each; an image's own where nothing lies beside it.
    """
    beside = neighbours[index]
    there = beside >= 0
    draw = uniform(seed, epoch, index, 0, "neighbour")[:, 0] * there.sum(dim=1)
    chosen = there & (there.cumsum(dim=1) - 1 == draw.long()[:, None])
    return torch.where(there.any(dim=1), (beside * chosen).sum(dim=1), index)


def _rows(tensor: Tensor | LazyCanvases, index: Tensor) -> Tensor:
    if isinstance(tensor, LazyCanvases):
        return torch.from_numpy(tensor.rows(index.numpy()))
    # NumPy gathers in this thread alone; see __iter__ for what torch would do
    return torch.from_numpy(tensor.numpy()[index.numpy()])
