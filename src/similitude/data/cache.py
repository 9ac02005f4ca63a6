"""Where things are kept between runs, and how much memory there is."""

import os
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path

_STALE_SECONDS = 24 * 3600.0


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/similitude`` or ``~/.cache/similitude``; it need not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "similitude"


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Delete what a killed run left half-written in ``folder`` more than a day ago."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Delete the folders PREFIX-HOST-PID-* in ``folder`` whose process of this host is gone."""
    if os.name != "posix":  # where there is no looking at a process without touching it
        return
    for path in folder.glob(f"{prefix}-{platform.node()}-*"):
        pid = path.name.rpartition("-")[0].rpartition("-")[2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, OSError):  # another user's
            continue


def free_memory_bytes() -> int:
    """Memory that can be taken without swapping, within the limit of a container."""
    free = _available_by_system()
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        with suppress(OSError, ValueError):  # ValueError: the limit is the word "max"
            free = min(free, max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
    return free


def _available_by_system() -> int:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):  # no such thing on this system
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * 1024**3
