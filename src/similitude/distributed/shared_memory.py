"""Messages between the processes of one machine through memory that they share.

Between processes that compute, a message over a socket waits for the threads that carry it: two to
five milliseconds, and synchronised BatchNorm sends two for each layer and step. Here a process
writes its part, raises a counter that the others watch, and reads theirs.
"""

import fcntl
import mmap
import os
import tempfile
import time
import zlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_FOLDER = "/dev/shm"  # files there never go to a disk
_LINE = 64  # bytes: processors hand memory to one another in such lines
_SLOT = 2**20  # bytes of one part; longer ones take several rounds
_SECONDS_AWAKE = 0.02  # then the others are at something longer, and the core is worth more
_SECONDS_ASLEEP = 1e-4, 5e-3  # at first and at most
_SECONDS_BETWEEN_LOOKS = 1.0  # whether who is waited for is still there


class SharedMemory:
    """What W processes write for each other, in rounds that all of them make together.

    Each process has a counter of its rounds, and two slots that it fills alternately: nobody can
    begin round t + 2, which overwrites the slots of round t, before all have read those and begun
    round t + 1. Beside the counter stands what is sent, so that messages cannot be mixed up.

    Only for processors on which one core sees the writes of another in their order (x86). An
    instance should live as long as its process: the lock by which the others see that this one is
    there ends when the file is closed.

    Args:
        descriptor: of an open file of :meth:`size_of` bytes, zeros at first.
        rank: number of this process.
        processes: how many share the file.

    Raises:
        OSError: the file cannot be mapped or locked.
    """

    def __init__(self, descriptor: int, rank: int, processes: int) -> None:
        self._descriptor, self._rank, self._processes = descriptor, rank, processes
        memory = mmap.mmap(descriptor, self.size_of(processes))
        # a line for each process: its counter, then what it sends in even and in odd rounds
        lines = np.frombuffer(memory, dtype=np.int64, count=processes * _LINE // 8)
        self._lines = lines.reshape(processes, _LINE // 8)
        slots = torch.frombuffer(memory, dtype=torch.uint8, offset=processes * _LINE)
        self._slots = slots.view(2, processes, _SLOT)
        self._round = 0
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, rank)

    @staticmethod
    def size_of(processes: int) -> int:
        """Bytes of the file for so many processes."""
        return processes * (_LINE + 2 * _SLOT)

    def gather(self, x: Tensor) -> Tensor:
        """The ``x`` of all processes, [W, ...] in rank order; each has the same shape and dtype.

        Raises:
            RuntimeError: a process has ended, or sends something else.
        """
        everybody = x.new_empty((self._processes, *x.shape))
        whole = everybody.view(self._processes, -1).view(torch.uint8) if x.numel() else everybody
        for parts, start in self._rounds_of(x, "gather"):
            whole[:, start : start + parts.shape[1]] = parts
        return everybody

    def sum(self, x: Tensor) -> Tensor:
        """The sum of the ``x`` of all processes in rank order: the same bits in each of them.

        Raises:
            RuntimeError: a process has ended, or sends something else.
        """
        total = torch.empty_like(x, memory_format=torch.contiguous_format)
        flat = total.view(-1)
        for parts, start in self._rounds_of(x, "sum"):
            first, *others = parts.view(x.dtype)
            sums = flat[start // x.element_size() :][: len(first)]
            sums.copy_(first)
            for theirs in others:
                sums += theirs
        return total

    def _rounds_of(self, x: Tensor, kind: str) -> Iterator[tuple[Tensor, int]]:
        """Bytes of all processes, [W, n], and where in ``x`` they begin; valid until the next."""
        mine = x.contiguous().view(-1).view(torch.uint8)
        what = zlib.crc32(f"{kind} {x.dtype} {x.shape}".encode())
        for start in range(0, len(mine), _SLOT):
            self._round += 1
            half = self._round % 2
            slots = self._slots[half, :, : min(_SLOT, len(mine) - start)]
            slots[self._rank] = mine[start : start + _SLOT]
            self._lines[self._rank, 1 + half] = what
            self._lines[self._rank, 0] = self._round  # last: what it announces is there
            for rank in range(self._processes):
                self._wait_for(rank)
                if self._lines[rank, 1 + half] != what:
                    raise RuntimeError(
                        f"process {rank + 1} of {self._processes} does not send what process "
                        f"{self._rank + 1} does, {kind} of {x.dtype} {tuple(x.shape)}"
                    )
            yield slots, start

    def _wait_for(self, rank: int) -> None:
        lines, number = self._lines, self._round
        if lines[rank, 0] >= number:
            return
        begun = looked = time.perf_counter()
        pause, longest = _SECONDS_ASLEEP
        while lines[rank, 0] < number:
            now = time.perf_counter()
            if now - begun < _SECONDS_AWAKE:
                os.sched_yield()  # to a process that waits for this core
                continue
            time.sleep(pause)
            pause = min(2 * pause, longest)
            if now - looked > _SECONDS_BETWEEN_LOOKS:
                looked = now
                if self._has_ended(rank) and lines[rank, 0] < number:
                    raise RuntimeError(f"process {rank + 1} of {self._processes} has ended")

    def _has_ended(self, rank: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
        except (BlockingIOError, PermissionError):  # it holds its lock
            return False
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, rank)
        return True


def open_shared_memory() -> SharedMemory | None:
    """Shared memory of all processes of the group, which must be on one machine.

    None, in each of them, where it cannot be had, e.g. for lack of room.
    """
    rank, processes = dist.get_rank(), dist.get_world_size()
    path = _new_file(SharedMemory.size_of(processes)) if rank == 0 else None
    try:
        answer = [path]
        dist.broadcast_object_list(answer)
        shared = None if answer[0] is None else _opened(answer[0], rank, processes)
        # Behind this all hold their locks, so that nobody can seem to have ended.
        all_have_it = torch.tensor([shared is not None], dtype=torch.int64)
        dist.all_reduce(all_have_it, dist.ReduceOp.MIN)
    finally:
        if path is not None:
            os.unlink(path)  # the memory stays until the last process has left
    return shared if all_have_it else None


def _new_file(size: int) -> str | None:
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"similitude-{os.getpid()}-", dir=_FOLDER)
    except OSError:
        return None
    try:
        # Room that is missing shows here, and not as the end of the process in a later write.
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.unlink(path)
        return None
    finally:
        os.close(descriptor)
    return path


def _opened(path: str, rank: int, processes: int) -> SharedMemory | None:
    try:
        return SharedMemory(os.open(path, os.O_RDWR), rank, processes)
    except OSError:  # e.g. in a container of its own
        return None
