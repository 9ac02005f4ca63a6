"""Batches of samples for the optimizer's steps, gathered ahead in a thread.

Letters: N samples, B samples of a batch, K partners of a sample at most.
"""

import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.profiler import record_function

from similitude.distributed.threads import keep_freed_memory
from similitude.errors import UserError
from similitude.randomness import BlockOrder, Order, uniform
from similitude.sample import Rows, Samples

_AHEAD = 2  # batches ready or under way: enough to hide a slow gather, little memory


class RowBatch(NamedTuple):
    """One batch of samples, where views are made.

    Attributes:
        rows: The samples.
        index: Position of each in the data set, shape [B]; on the CPU, where views are drawn.
        epoch: Number of the pass over the data, from 0.
        partners: A partner of each sample, drawn anew in every epoch; the sample itself where it
            has none. None if they were not asked for.
    """

    rows: Rows
    index: Int[Tensor, " B"]  # pyright: ignore[reportIncompatibleMethodOverride]
    epoch: int
    partners: Rows | None = None


class Loader:
    """The batches of steps ``first_step`` to ``total_steps - 1``.

    The batch of a step is a pure function of (seed, step, number of images, batch size): epoch e is
    ``Order(seed, e, N)`` cut into ``N // batch_size`` batches, and what is left over is dropped.
    Where samples lie in blocks it is ``BlockOrder(seed, e, blocks)``, and the blocks of the next
    window are read while batches of the one before are used. To resume, set ``first_step``. Every
    iteration starts at ``first_step``.

    Attributes:
        steps_per_epoch: Whole batches of one pass.
        waiting_seconds: How long the consumer has waited for batches, over all iterations.
    """

    def __init__(
        self,
        samples: Samples[Any],
        *,
        batch_size: int,
        seed: int,
        first_step: int = 0,
        total_steps: int,
        device: torch.device | str = "cpu",
        part: int = 0,
        parts: int = 1,
        partners: bool = False,
    ) -> None:
        """Take the samples and the range of steps; nothing runs before the iteration.

        Args:
            samples: What to draw from.
            batch_size: Samples per batch, at least 1.
            seed: Of the run; decides the order.
            first_step: First step to deliver; larger than 0 to resume.
            total_steps: Steps of the whole run, counted from 0, not from ``first_step``.
            device: Where the batches go.
            part: Which of ``parts`` of every batch to deliver: processes that train together
                share a batch.
            parts: Equal parts into which batches are cut, at least 1.
            partners: Give a partner of each sample too, where samples have any.

        Raises:
            UserError: fewer samples than a batch, a batch size below 1, or unequal parts.
        """
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if len(samples) < batch_size:
            raise UserError(
                f"{len(samples)} images are fewer than one batch of {batch_size}: "
                f"add images or set the batch size to at most {len(samples)}"
            )
        if batch_size % parts:
            raise UserError(
                f"a batch of {batch_size} does not divide among {parts} processes: choose a batch "
                f"size that is a multiple of {parts}"
            )
        self.samples = samples
        self.batch_size = batch_size
        self.part, self.parts = part, parts
        self.partners = samples.partners if partners else None
        self.seed = seed
        self.first_step = first_step
        self.total_steps = total_steps
        self.device = torch.device(device)
        keep_freed_memory()  # whoever takes batches takes steps
        self.steps_per_epoch = len(samples) // batch_size
        self.waiting_seconds = 0.0
        self._orders: dict[int, Order | BlockOrder] = {}

    def __len__(self) -> int:
        return max(0, self.total_steps - self.first_step)

    def __iter__(self) -> Generator[RowBatch, None, None]:
        under_way: deque[Future[RowBatch]] = deque()
        try:
            with ThreadPoolExecutor(1, "similitude-rows") as thread:
                for step in range(self.first_step, self.total_steps):
                    # The order is drawn here: torch's operations in the other thread would start a
                    # second pool of OpenMP threads, and OpenMP then lets the threads that train
                    # sleep between operations instead of spinning, which makes the views half as
                    # fast.
                    if self.samples.blocks is not None:
                        thread.submit(self.samples.read_ahead, self._ahead(step))
                    under_way.append(thread.submit(self._gather, *self._index(step)))
                    if len(under_way) > _AHEAD:
                        yield self._wait(under_way.popleft())
                while under_way:
                    yield self._wait(under_way.popleft())
        finally:
            self.samples.read_ahead(())

    def _wait(self, batch: Future[RowBatch]) -> RowBatch:
        start = time.perf_counter()
        with record_function("waiting for images"):
            result = batch.result()
        self.waiting_seconds += time.perf_counter() - start
        return result

    def _index(self, step: int) -> tuple[Tensor, int, Tensor | None]:
        epoch, places = self._places(step)
        index = self._order(epoch)[places]
        if self.partners is None:
            return index, epoch, None
        return index, epoch, draw_partners(self.partners, index, seed=self.seed, epoch=epoch)

    def _places(self, step: int) -> tuple[int, slice]:
        """The epoch, and where the samples of this part stand in its order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        length = self.batch_size // self.parts
        start = position * self.batch_size + self.part * length
        return epoch, slice(start, start + length)

    def _order(self, epoch: int) -> Order | BlockOrder:
        if epoch not in self._orders:
            # orders by blocks are small, and the next one is looked at before its epoch begins
            is_kept = self.samples.blocks is not None
            self._orders = {e: o for e, o in self._orders.items() if is_kept and e == epoch - 1}
            self._orders[epoch] = self.samples.order(self.seed, epoch)
        return self._orders[epoch]

    def _ahead(self, step: int) -> list[int]:
        """The blocks of the window that a step uses, and of the one that is used next."""
        epoch, places = self._places(step)
        order = self._order(epoch)
        assert isinstance(order, BlockOrder)
        first, last = order.window(places.start), order.window(places.stop - 1)
        if first < order.window(self.steps_per_epoch * self.batch_size - 1):
            return order.blocks(first, max(last + 1, first + 2))
        blocks = order.blocks(first, first + 1)
        if (epoch + 1) * self.steps_per_epoch < self.total_steps:
            following = self._order(epoch + 1)
            assert isinstance(following, BlockOrder)
            blocks += following.blocks(0, 1)
        return blocks

    def _gather(self, index: Tensor, epoch: int, beside: Tensor | None) -> RowBatch:
        rows = self.samples.take(index).to(self.device)
        partners = None if beside is None else self.samples.take(beside).to(self.device)
        return RowBatch(rows, index, epoch, partners)


def draw_partners(
    partners: Int[Tensor, "N K"], index: Int[Tensor, " B"], *, seed: int, epoch: int
) -> Int[Tensor, " B"]:
    """One of the partners of each sample, as a pure function of seed, epoch and position.

    Args:
        partners: See :class:`Samples`.
        index: Positions of the samples.
        seed: Of the run.
        epoch: Number of the pass over the data.

    Returns:
        A position for each; a sample's own where it has no partner.
    """
    beside = partners[index]
    there = beside >= 0
    draw = uniform(seed, epoch, index, 0, "neighbour")[:, 0] * there.sum(dim=1)
    chosen = there & (there.cumsum(dim=1) - 1 == draw.long()[:, None])
    return torch.where(there.any(dim=1), (beside * chosen).sum(dim=1), index)
