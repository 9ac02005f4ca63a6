"""Batches of canvases for the optimiser's steps, gathered one step ahead in a thread.

Letters: N images, B images of a batch, S side of a canvas in pixels.
"""

import queue
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from similitude.data.images import ImageSet
from similitude.errors import UserError
from similitude.randomness import permutation

_PREFETCH = 2  # batches ready or under way: enough to hide a slow gather, little memory
_POLL_SECONDS = 0.05  # how soon a thread that waits for room sees that nobody reads any more


class CanvasBatch(NamedTuple):
    """One batch of canvases, on the device.

    Attributes:
        canvases: Shape [B, 3, S, S], uint8.
        index: Position of each image in the data set, shape [B].
        aspect: Width / height of each original, shape [B].
        epoch: Number of the pass over the data, from 0.
    """

    canvases: UInt8[Tensor, "B 3 S S"]
    index: Int[Tensor, " B"]  # pyright: ignore[reportIncompatibleMethodOverride]
    aspect: Float[Tensor, " B"]
    epoch: int


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
    ) -> None:
        """Take the images and the range of steps; nothing runs before the iteration.

        Args:
            images: What to draw from.
            batch_size: Images per batch, at least 1.
            seed: Of the run; decides the order.
            first_step: First step to deliver; larger than 0 to resume.
            total_steps: Steps of the whole run, counted from 0, not from ``first_step``.
            device: Where the batches go.

        Raises:
            UserError: fewer images than a batch, or a batch size below 1.
        """
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if len(images) < batch_size:
            raise UserError(
                f"{len(images)} images are fewer than one batch of {batch_size}: "
                f"add images or set the batch size to at most {len(images)}"
            )
        self.images = images
        self.batch_size = batch_size
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
        ready: queue.Queue[CanvasBatch | BaseException | None] = queue.Queue(maxsize=_PREFETCH - 1)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._produce, args=(ready, stop), name="similitude-canvases", daemon=True
        )
        thread.start()
        try:
            while True:
                start = time.perf_counter()
                item = ready.get()
                self.waiting_seconds += time.perf_counter() - start
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:  # also reached when the consumer breaks off, or forgets the iterator
            stop.set()
            thread.join()

    def _produce(
        self, ready: "queue.Queue[CanvasBatch | BaseException | None]", stop: threading.Event
    ) -> None:
        def hand_over(item: CanvasBatch | BaseException | None) -> None:
            while not stop.is_set():
                with suppress(queue.Full):
                    ready.put(item, timeout=_POLL_SECONDS)
                    return

        try:
            for step in range(self.first_step, self.total_steps):
                if stop.is_set():
                    return
                hand_over(self.batch(step))
            hand_over(None)
        except BaseException as error:  # whatever it is, the consumer must hear of it
            hand_over(error)

    def batch(self, step: int) -> CanvasBatch:
        """The batch of one step, now and in this thread."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order
        if order is None or order[0] != epoch:
            order = self._order = (epoch, permutation(self.seed, epoch, len(self.images)))
        start = position * self.batch_size
        index = order[1][start : start + self.batch_size]
        return CanvasBatch(
            self._move(_rows(self.images.pixels, index)),
            self._move(index.clone()),
            self._move(_rows(self.images.aspect, index)),
            epoch,
        )

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            # the copy of pinned memory runs beside the computation that uses the last batch
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    # NumPy gathers in this thread alone; torch would wake a second pool of threads beside the one
    # that trains, and the two would fight for the cores
    return torch.from_numpy(tensor.numpy()[index.numpy()])
