"""Threads each of which computes by itself, beside those in which one operation is split."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
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


def side_by_side(work: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Do ``work`` for every number, in as many threads as torch has for one operation."""
    list(_computing_threads(torch.get_num_threads(), os.getpid()).map(work, numbers))


@lru_cache(maxsize=1)
def _computing_threads(number: int, process: int) -> ThreadPoolExecutor:
    # of this process: threads do not live on in a fork
    return lone_threads(number, "views")


def _compute_alone(libraries: ThreadpoolController) -> None:
    # Not torch.set_num_threads: it also holds for every thread that has not used torch yet, and the
    # main thread may be one of them. What it would undo in this thread is done at the first look.
    torch.get_num_threads()
    libraries.limit(limits=1, user_api="openmp")
