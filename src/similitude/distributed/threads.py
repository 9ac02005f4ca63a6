"""Threads each of which computes by itself, beside those in which one operation is split."""

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def lone_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Threads in which torch computes with one core: its own would compete with all others."""
    # looked for here, once: the search in several threads could stop one that loads a library
    libraries = ThreadpoolController()
    return ThreadPoolExecutor(number, f"similitude-{name}", _compute_alone, (libraries,))


_one_by_one = ContextVar("_one_by_one", default=False)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Within the block :func:`side_by_side` works in the calling thread, where counters see it."""
    token = _one_by_one.set(True)
    try:
        yield
    finally:
        _one_by_one.reset(token)


def side_by_side(work: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Do ``work`` for every number, in as many threads as torch has for one operation.

    Work that has begun when another fails goes on to its end; the caller hears of the first error.
    """
    threads = torch.get_num_threads()
    if threads == 1 or _one_by_one.get():  # 1 is also what work sees: it may call this in turn
        for number in numbers:
            work(number)
        return
    inference = torch.is_inference_mode_enabled()  # of the calling thread alone

    def work_likewise(number: int) -> None:
        with torch.inference_mode(inference):
            work(number)

    list(_computing_threads(threads, os.getpid()).map(work_likewise, numbers))


@lru_cache(maxsize=1)
def _computing_threads(number: int, process: int) -> ThreadPoolExecutor:
    # of this process: threads do not live on in a fork
    return lone_threads(number, "views")


def _compute_alone(libraries: ThreadpoolController) -> None:
    # Not torch.set_num_threads: it also holds for every thread that has not used torch yet, and the
    # main thread may be one of them. What it would undo in this thread is done at the first look.
    torch.get_num_threads()
    libraries.limit(limits=1, user_api="openmp")
    # After a call of torch.set_num_threads MKL has a number of its own, for all threads but those
    # that say otherwise. It is a part of PyTorch that threadpoolctl does not see; not every build.
    limit_mkl = getattr(ctypes.CDLL(torch._C.__file__), "MKL_Set_Num_Threads_Local", None)
    if limit_mkl is not None:
        limit_mkl(1)
