"""What this process takes of its machine: threads that compute by themselves, and memory."""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import torch
from threadpoolctl import ThreadpoolController

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of returning it.

    Each step allocates the same large tensors again. Memory that went back between steps comes as
    empty pages, which the kernel fills with zeros first: half the time of views on a processor, a
    tenth of a step of a ResNet-18. The process, from then on, keeps the most it ever had in use.
    Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # The first one first: setting the other freezes it, at 128 KB if it was not raised before.
    # Older versions take at most 32 MB. -1: never.
    if mallopt and (mallopt(_M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(_M_MMAP_THRESHOLD, 2**25)):
        mallopt(_M_TRIM_THRESHOLD, -1)
