"""Threads that decode, beside those that compute."""

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from threadpoolctl import ThreadpoolController


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def decoding_threads(number: int) -> ThreadPoolExecutor:
    """Threads each of which computes by itself: torch's own would compete with all others."""
    # looked for here, once: the search in several threads could stop one that loads a library
    libraries = ThreadpoolController()
    return ThreadPoolExecutor(number, "similitude-decode", _compute_alone, (libraries,))


def _compute_alone(libraries: ThreadpoolController) -> None:
    # Not torch.set_num_threads: it also holds for every thread that has not used torch yet, and the
    # main thread may be one of them. What it would undo in this thread is done at the first look.
    torch.get_num_threads()
    libraries.limit(limits=1, user_api="openmp")
