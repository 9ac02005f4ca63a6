"""Threads each of which computes by itself, beside those in which one operation is split."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

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
