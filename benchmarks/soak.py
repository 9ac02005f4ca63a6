"""Hours of use in one process: memory, files, threads and shared memory must stay flat.

    python benchmarks/soak.py FOLDER --labeled LABELED --hours 3 --out runs/soak

Half of the time goes to one training; then every command comes in turn, again and again: two
methods in this process and one in two, resumed, evaluated, embedded, searched, exported, packed,
reported. After every turn (of the training: every minute) a line is printed of what the process
holds, and the last line says how much each number has grown after the first quarter, which is for
pools and caches to fill. Exits with 1 if memory has grown by a twentieth, or anything else at all.

Linux only: it reads /proc.
"""

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import similitude as sim
from process import memory

GROWTH = 1.05  # of memory, which the allocator does not give back at once


def held() -> dict[str, int]:
    """What this process holds now, and what it has left on the machine."""
    me, here = os.getpid(), Path("/proc")
    children = [p for p in here.glob("[0-9]*/stat") if _parent(p) == me]
    return {
        "RSS MB": memory("VmRSS") // 2**20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": len(children),
        "shared MB": sum(_size(path) for path in Path("/dev/shm").rglob("*")) // 2**20,
        "temporary": len(list(Path(tempfile.gettempdir()).glob("similitude-*"))),
    }


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@dataclass
class Record:
    """Lines of what is held, printed as they come."""

    begun: float = field(default_factory=time.monotonic)
    rows: list[dict[str, int]] = field(default_factory=list)

    def add(self, what: str) -> None:
        """One line."""
        gc.collect()
        self.rows.append(held())
        if len(self.rows) == 1:
            print(f"{'s':>7}", *(f"{name:>10}" for name in self.rows[0]), "  after", sep="")
        values = (f"{value:>10}" for value in self.rows[-1].values())
        print(f"{time.monotonic() - self.begun:>7.0f}", *values, f"  {what}", sep="", flush=True)

    def grown(self) -> dict[str, tuple[int, int]]:
        """What has grown: the most of the second quarter, and the least of the last."""
        quarter = max(1, len(self.rows) // 4)
        found = {}
        for name in self.rows[0]:
            early = max(row[name] for row in self.rows[quarter : 2 * quarter] or self.rows[:1])
            late = min(row[name] for row in self.rows[-quarter:])
            if late > early * (GROWTH if name == "RSS MB" else 1):
                found[name] = (early, late)
        return found


class Minutes:
    """A listener that takes a line every minute of a training, and prints nothing else."""

    def __init__(self, record: Record, limit: float) -> None:
        self.record, self.until, self.last = record, time.monotonic() + limit, 0.0

    def say(self, sentence: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """A line, where a minute has passed; at the limit Ctrl-C."""
        now = time.monotonic()
        if what == "training" and now - self.last > 60:
            self.last = now
            self.record.add(f"step {done}")
        if now > self.until:
            self.until = float("inf")
            os.kill(os.getpid(), 2)


def turns(data: Path, labeled: Path, out: Path) -> dict[str, Callable[[], object]]:
    """One of every command, each on what the ones before it left."""
    run, pack = out / "simclr", out / "images.pack"
    few = {"epochs": 1}

    def train(method: str, **options: object) -> Callable[[], object]:
        place = out / method if "devices" not in options else out / f"{method}-2"
        return lambda: sim.pretrain(
            data, method=method, out=place, overwrite=True, **{**few, **options}
        )

    return {
        "pretrain simclr": train("simclr"),
        "pretrain moco": train("moco_v2"),
        "pretrain in two processes": train("byol", devices=2),
        "resume": lambda: sim.pretrain(data, out=run, resume=True),
        "evaluate": lambda: sim.load(run).evaluate(labeled),
        "embed": lambda: sim.load(run).embed(labeled),
        "search": lambda: sim.embeddings.duplicates(run, labeled, output=out / "duplicates.csv"),
        "export": lambda: sim.load(run).export(_emptied(out / "export"), to="torch-export"),
        "pack": lambda: sim.pack(data, pack),
        "pretrain from the pack": lambda: sim.pretrain(
            pack, method="dino", out=out / "dino", overwrite=True, **few
        ),
        "report": lambda: sim.load(run).report(),
    }


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def main() -> None:
    """Use it for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--labeled", type=Path, required=True, help="a folder with classes")
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    here = options.out / "temporary"  # others leave theirs in the usual place
    here.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(here)
    half = options.hours * 1800
    training, commands = Record(), Record()
    sim.pretrain(
        options.data,
        out=options.out / "long",
        epochs=1_000_000,
        overwrite=True,
        listener=Minutes(training, half),
    )
    begun = time.monotonic()
    work = turns(options.data, options.labeled, options.out)
    while time.monotonic() - begun < half or len(commands.rows) < 4:
        for name, turn in work.items():
            try:
                turn()
            except sim.UserError as error:
                sys.exit(f"{name}: {error}")
        commands.add("every command")
    grown = {"the training": training.grown(), "the commands": commands.grown()}
    for name, found in grown.items():
        print(f"{name}: " + ("flat" if not found else f"grown (early, late): {found}"))
    sys.exit(any(grown.values()))


if __name__ == "__main__":
    main()
