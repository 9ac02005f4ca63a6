"""Threads that decode, beside those that compute."""

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from threadpoolctl import threadpool_limits


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def decoding_threads(number: int) -> ThreadPoolExecutor:
    """Threads each of which computes by itself: torch's own would compete with all others."""
    return ThreadPoolExecutor(number, "similitude-decode", _compute_alone)


def _compute_alone() -> None:
    # Not torch.set_num_threads: it also holds for every thread that has not used torch yet, and the
    # main thread may be one of them. What it would undo in this thread is done at the first look.
    torch.get_num_threads()
    threadpool_limits(1, user_api="openmp")
