"""Whatever befalls a command, nothing is lost, and the next one goes on to the same bits.

    python benchmarks/faults.py [--only kill writes full ...] [--methods simclr byol ...]
        [--commands pretrain embed ...] [--kills 50] [--writes 60] [--seed 0] [--jobs 2]

The real commands run on tiny data of every kind, each in a child of a process that has imported
everything once. Meanwhile something happens to them: see `PARTS`. After it three things must hold:

- whole: every file is read to its end by its reader, or has the name of a temporary file;
- kept: what was there before is there as it was, or as the command would have left it;
- goes on: the command that the documentation names (the same one, or ``--resume``; where nothing
  was saved ``--overwrite``) ends well, leaves no temporary file, and every file is, bit for bit,
  that of a run to which nothing happened. `TIMES` and `TIMED` say what is left out: times.

Prints a Markdown table, and below it what was wrong. Exit status 1 if anything was.
"""

import argparse
import builtins
import csv
import errno
import hashlib
import io
import json
import logging
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import similitude.__main__ as program
from similitude.distributed import launch
from similitude.files.reading import read_yaml
from similitude.files.writing import is_temporary, write_with
from similitude.images import loading
from similitude.images.packs import open_pack
from similitude.methods import METHODS
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.folder import settle
from similitude.runs.metrics import read_metrics
from similitude.runs.run import Run

# What a training says that was to go on and has not begun.
NOTHING_SAVED = ("saved none yet", "there is no folder", "is not a classifier: make one with")
# What a command says whose new folder was whole before it was killed.
IS_THERE = "is there already and is not empty"
AT_ONCE = 10  # tries of a task
HALF_WAY = 80  # change of the disk by a training
PATIENCE = 300.0  # seconds, of a command that takes some

# Files that say when and how long: not the same in two runs, and so only read to their ends.
TIMED = ("log.txt", "events", "environment.json", "report.html", "report.json", "key.txt")
# Columns and keys of files that are compared without them.
TIMES = ("images_per_second", "waiting_share", "seconds", "speed", "minutes", "took")


# --- data and commands -------------------------------------------------------------------------

NARROW = ["precision=float32", "memory_format=contiguous", "compile=false"]
IMAGES = ["backbone.base_width=4", *NARROW]
SOUNDS = ["data.sample_rate=8000", "data.high=4000", *NARROW]
TEXTS = ["backbone.towers.text.network.width=16", *NARROW]
PAIRS = ["backbone.towers.photo.network.base_width=4", *TEXTS]
# method -> data and settings, where they are not photos
OTHERS = {
    "byol_a": ("tones", SOUNDS),
    "speech_simclr": ("tones", SOUNDS),
    "cpc_audio": ("tones", SOUNDS),
    "clip": ("pairs.csv", PAIRS),
    "elo": ("pairs.csv", PAIRS),
}
# what is trained besides, so that every kind of data is
KINDS = {
    "simclr, a graph": ("simclr", "graph.npz", ["backbone.width=16", *NARROW]),
    "byol, videos": ("byol", "films", ["data.size=16", "backbone.width=4", *NARROW]),
    "simclr, texts": ("simclr", "texts.csv", TEXTS),
    "cmc, sensors": ("cmc", "pairs.csv", PAIRS),
    "simclr, a pack": ("simclr", "photos.pack", IMAGES),
}


@dataclass(frozen=True)
class Command:
    """What a user types in a folder that holds some of the stock.

    Attributes:
        name: in the table.
        words: of the command line; STOCK stands for the folder of the stock.
        before: name in the folder -> name in the stock, of what is there before.
        resume: words that go on with a training; where there are none the same command does.
    """

    name: str
    words: tuple[str, ...]
    before: Mapping[str, str] = field(default_factory=dict)
    resume: tuple[str, ...] = ()


def command(name: str, text: str, **options: Any) -> Command:
    return Command(name, tuple(text.split()), **options)


def training(name: str, method: str, data: str, values: Sequence[str]) -> Command:
    """A training of six steps or so, in three epochs."""
    sets = " ".join(f"--set {value}" for value in values)
    data = f"STOCK/{data}"
    text = f"pretrain {data} --method {method} --epochs 3 --batch-size 16 {sets} --out run"
    return command(name, text, resume=("pretrain", data, "--out", "run", "--resume"))


TRAININGS = {m: training(m, m, *OTHERS.get(m, ("photos", IMAGES))) for m in METHODS}
TRAININGS |= {name: training(name, *given) for name, given in KINDS.items()}

TUNED = "--epochs 2 --batch-size 16 --out tuned"
TINY = "--set batch_size=16 --set method.view.size=12 --set image_size=16"
TINY += " ".join(f" --set {value}" for value in IMAGES)
RUN = {"run": "run"}
COMMANDS = {
    c.name: c
    for c in (
        replace(TRAININGS["simclr"], name="pretrain"),
        replace(
            TRAININGS["byol"],
            name="pretrain --overwrite",
            words=(*TRAININGS["byol"].words, "--overwrite"),
            before=RUN,
        ),
        command(
            "pretrain --resume", "pretrain STOCK/photos --out run --resume", before={"run": "half"}
        ),
        command("evaluate", "evaluate run STOCK/photos --draws 1", before=RUN),
        command("retrieve", "retrieve run STOCK/pairs.csv", before={"run": "clip"}),
        command("embed, npz", "embed run STOCK/photos -o x.npz", before=RUN | {"x.npz": "x.npz"}),
        command("embed, parquet", "embed run STOCK/photos -o x.parquet", before=RUN),
        command("export", "export clip -o x.safetensors", before={"clip": "clip"}),
        command("export, folder", "export run --to torch-export -o x", before=RUN),
        command("report", "report run", before=RUN),
        command("report of two", "report run other -o x.html", before=RUN | {"other": "clip"}),
        command("pack", "pack STOCK/photos -o x.pack", before={"x.pack": "other.pack"}),
        command("views", "views STOCK/photos -o x.png"),
        command("search", "search run STOCK/photos -o x.csv", before=RUN),
        command("choose", "choose STOCK/x.npz -o x.csv -k 5", before={"x.csv": "texts.csv"}),
        command(
            "finetune",
            f"finetune run STOCK/photos {TUNED}",
            before=RUN,
            resume=("finetune", "run", "STOCK/photos", "--out", "tuned", "--resume"),
        ),
        command(
            "distill",
            f"distill first STOCK/photos {TUNED}",
            before={"first": "tuned"},
            resume=("distill", "first", "STOCK/photos", "--out", "tuned", "--resume"),
        ),
        command(
            "ablate",
            "ablate simsiam STOCK/photos --vary stop_gradient=true,false --seeds 1 --epochs 1 "
            f"--out x {TINY}",
        ),
        command(
            "evolve",
            "evolve STOCK/photos --method simsiam --search optimizer.base_lr=0.01..1:log "
            "--generations 1 --population 4 --epochs 1 --clusters 4 --out x "
            f"--set epochs=30 {TINY}",
        ),
    )
}


STOCK = WORK = Path()  # where data lies, and where commands are tried
MADE = {  # name in the stock -> what makes it, of what stands above it
    "run": TRAININGS["simclr"],
    "clip": TRAININGS["clip"],
    "tuned": COMMANDS["finetune"],
    "x.npz": replace(COMMANDS["embed, npz"], before=RUN),
    "photos.pack": command("", "pack STOCK/photos -o photos.pack"),
    "other.pack": command("", "pack STOCK/photos/high --size 8 -o other.pack"),
    "half": TRAININGS["simclr"],
}


def make_stock(folder: Path, wanted: set[str]) -> list[str]:
    """Tiny data of every kind, and what commands make of it; the modules that these import."""
    import soundfile

    rng = np.random.default_rng(0)
    words = ("high", "low")
    rows, texts = ["photo,text"], ["text"]
    for i in range(40):
        tint = rng.integers(-40, 41, (16, 16, 3)) + ((200, 30, 90), (30, 160, 60))[i % 2]
        place = folder / "photos" / words[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tint.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
        texts.append(f"a {words[i % 2]} thing, number {i}")
        rows.append(f"photos/{words[i % 2]}/{i}.png,{texts[-1].replace(',', '')}")
    (folder / "pairs.csv").write_text("\n".join(rows))
    (folder / "texts.csv").write_text("\n".join(text.replace(",", "") for text in texts))
    beat = np.arange(3_200) / 8_000
    for i in range(32):
        place = folder / "tones" / words[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        wave = np.sin(2 * np.pi * (900, 300)[i % 2] * beat) + 0.1 * rng.normal(size=len(beat))
        soundfile.write(place / f"{i}.wav", 0.4 * wave, 8_000)
    (folder / "films").mkdir()
    for i in range(16):
        write_film(folder / "films" / f"{i}.mp4", rng.integers(0, 256, (10, 32, 32, 3), np.uint8))
    edges = rng.integers(0, 48, (2, 240))
    np.savez(folder / "graph.npz", x=rng.random((48, 12), np.float32), edge_index=edges)
    (folder / "notes.txt").write_text("of the user, and nobody else's")

    return sorted(set().union(*(make(name, folder) for name in MADE if name in wanted)))


def make(name: str, folder: Path) -> set[str]:
    """Have a command make a part of the stock; the modules that it imports."""
    one = MADE[name]
    place = prepared(one)
    stops = Fault("interrupt", HALF_WAY) if name == "half" else Fault()
    done = run(one.words, place, stops, imported=place / "modules")
    assert done.code == (130 if name == "half" else 0), done.said
    made = one.words[max(i for i, w in enumerate(one.words) if w in ("-o", "--out")) + 1]
    (place / made).rename(folder / name)
    imported = (place / "modules").read_text().split() if done.code == 0 else []
    removed(place)
    return set(imported) - set(sys.modules)


def needed(used: Iterable[Command], parts: Sequence[str]) -> set[str]:
    """What of the stock commands make, for other commands."""
    found = {"run"} | {stored for one in used for stored in one.before.values()}
    found |= {word.removeprefix("STOCK/") for one in used for word in one.words}
    return found | ({"photos.pack", "other.pack"} if "data" in parts else set())


def write_film(path: Path, frames: np.ndarray) -> None:
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


# --- a command that something happens to -------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What happens.

    Attributes:
        how: "signal" is sent after so many seconds; "before", "half" and "after" kill at a change
            of the disk; "interrupt" presses Ctrl-C there; "full" fails it and all later ones that
            need room, "once" it alone; "clock" lets the time jump.
        at: seconds, or the number of the change.
        signal: that is sent.
    """

    how: str = "none"
    at: float = 0
    signal: int = signal.SIGKILL


class Disk:
    """Counts what this process changes below a folder, and lets a fault come at one of the changes.

    Seen is what Python writes. What native code writes by itself (Parquet, torch.export) is not.
    """

    NEED_ROOM = ("open", "write", "mkdir", "fsync", "truncate", "posix_fallocate")

    def __init__(self, place: Path, fault: Fault, counter: Any, log: Path | None) -> None:
        self.place, self.fault, self.counter = str(place), fault, counter
        self.log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def install(self) -> None:
        """From now on."""
        builtins.open = io.open = self._opening(io.open)  # type: ignore[assignment]
        for name in ("rename", "replace", "unlink", "remove", "mkdir", "rmdir", "truncate"):
            setattr(os, name, self._on_path(name, getattr(os, name)))
        for name in ("fsync", "posix_fallocate"):
            setattr(os, name, self._on_file(name, getattr(os, name)))

    def is_here(self, path: Any) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return os.path.abspath(os.fsdecode(path)).startswith(self.place)

    def change(self, what: str, path: Any, do: Callable[[], Any], half: Any = None) -> Any:
        """Make a change, unless something happens to it."""
        self.counter.value += 1
        number, how, at = self.counter.value, self.fault.how, self.fault.at
        if self.log is not None:
            os.write(self.log, f"{number} {what} {os.fsdecode(path)}\n".encode())
        if how == "full" and number >= at and what in self.NEED_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if number != at:
            return do()
        if how == "once":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if how == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if how in ("before", "half"):
            if how == "half" and half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        done = do()
        if how == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def _on_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            path = args[1] if name in ("rename", "replace") else args[0]
            inside = options.get("dir_fd") is not None or self.is_here(path)
            do = lambda: real(*args, **options)  # noqa: E731
            return self.change(name, path, do) if inside else do()

        return call

    def _on_file(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *args: Any) -> Any:
            do = lambda: real(fd, *args)  # noqa: E731
            if not self.is_here(fd):
                return do()
            return self.change(name, os.readlink(f"/proc/self/fd/{fd}"), do)

        return call

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                view = memoryview(data).cast("B")
                half = lambda: io.FileIO.write(self, view[: len(view) // 2])  # noqa: E731
                return disk.change("write", self.name, lambda: io.FileIO.write(self, view), half)

            def truncate(self, size: int | None = None) -> int:
                do = lambda: io.FileIO.truncate(self, size)  # noqa: E731
                return disk.change("truncate", self.name, do)

        def opened(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not disk.is_here(file):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            plain = mode.replace("b", "").replace("t", "")
            make = lambda: Raw(os.fsdecode(file), plain, opener=opener)  # noqa: E731
            raw = make() if plain == "r+" else disk.change("open", file, make)
            if buffering == 0:
                return raw
            held = io.BufferedRandom(raw) if "+" in plain else io.BufferedWriter(raw)
            if "b" in mode:
                return held
            return io.TextIOWrapper(held, encoding, errors, newline)

        return opened


class Child:
    """A process in which a command runs."""

    def __init__(self, pid: int, said: Path, counter: Any) -> None:
        self.pid, self.path, self.counter = pid, said, counter
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit code; None if it goes on after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def said(self) -> str:
        return self.path.read_text(errors="replace")


def start(
    words: Sequence[str],
    place: Path,
    fault: Fault = Fault(),
    *,
    log: Path | None = None,
    patch: Callable[[], None] | None = None,
    imported: Path | None = None,
) -> Child:
    """Begin a command in a folder; it has begun when this returns."""
    said = place.with_name(f"{place.name}.said.{time.monotonic_ns()}")
    counter = get_context("fork").Value("q", 0, lock=False)
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid:
        os.close(mouth)
        os.read(ear, 1)
        os.close(ear)
        return Child(pid, said, counter)
    code = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), write_through=True)
        os.chdir(place)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        sys.argv = ["similitude", *(word.replace("STOCK", str(STOCK)) for word in words)]
        if patch is not None:
            patch()
        if fault.how != "none" or log is not None:
            Disk(place, fault, counter, log).install()
        os.write(mouth, b".")
        program.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        if imported is not None:
            imported.write_text("\n".join(sys.modules))
        os._exit(code)


def run(words: Sequence[str], place: Path, fault: Fault = Fault(), **options: Any) -> Child:
    """A command to its end, or that of patience with it."""
    child = start(words, place, fault, **options)
    if fault.how == "signal" and child.wait(fault.at) is None:
        child.signal(fault.signal)
    if child.wait() is None:
        child.signal(signal.SIGABRT)
        child.wait()
    return child


# --- what must hold ----------------------------------------------------------------------------


def read_whole(path: Path) -> str:
    """A digest of what is in a file, without times; raises what its reader raises if it is cut."""
    content = path.read_bytes()
    match path.suffix:
        case ".ckpt":
            load_checkpoint(path) if "run" in path.parts else None
            state = torch.load(path, weights_only=True)
            return digest({k: v for k, v in state.items() if k != "seconds"})
        case ".safetensors":
            load_file(path)
        case ".json":
            return digest(without_times(json.loads(content)))
        case ".csv":
            rows = list(csv.reader(io.StringIO(content.decode())))
            assert len({len(row) for row in rows}) == 1, "lines of several lengths"
            kept = [i for i, name in enumerate(rows[0]) if name not in TIMES]
            return digest([[row[i] for i in kept] for row in rows])
        case ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return digest({name: arrays[name] for name in arrays.files})
        case ".png":
            Image.open(path).load()
        case ".yaml":
            read_yaml(path)
        case ".html":
            assert content.rstrip().endswith(b"</html>"), "no end"
        case ".pack":
            open_pack(path) if "cache" not in path.parts else None
        case ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.read_table(path)
        case ".pt2":
            assert zipfile.ZipFile(path).testzip() is None
    return digest(content)


def digest(value: Any) -> str:
    """Of tensors, arrays and plain values."""
    if isinstance(value, torch.Tensor):
        value = value.numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
    if isinstance(value, np.ndarray):
        value = [str(value.dtype), list(value.shape), value.tobytes()]
    if isinstance(value, dict):
        value = [[str(key), digest(item)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        value = "".join(digest(item) for item in value)
    if not isinstance(value, bytes):
        value = f"{type(value).__name__} {value!r}".encode()
    return hashlib.sha1(value).hexdigest()


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def files(place: Path) -> dict[str, Path]:
    """Whatever lies below a folder and has not the name of a temporary file."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_file() and path.name != ".lock" and not in_temporary(Path(name)):
            found[name] = path
    return found


def in_temporary(name: Path) -> bool:
    """Whether a file, or a folder that it is in, has a name that tells it is not finished."""
    parts = (name, *name.parents)
    return any(is_temporary(p.name) or p.suffix in (".parts", ".partial") for p in parts)


def contents(place: Path) -> tuple[dict[str, str], list[str]]:
    """Digests of the files that are compared, and which are not whole."""
    found, broken = {}, []
    for name, path in files(place).items():
        try:
            value = read_whole(path)
        except Exception as error:
            broken.append(f"{name} is not whole ({type(error).__name__}: {str(error)[:100]})")
            continue
        if not set(TIMED) & set(Path(name).parts) and not name.startswith("cache"):
            found[name] = value
    return found, broken


def compared(
    found: Mapping[str, str], wanted: Mapping[str, str], unsteady: Sequence[str]
) -> list[str]:
    """What is not as in the run to which nothing happened."""
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is there" for name in found if name not in wanted]
    both = (name for name in found if name in wanted and name not in unsteady)
    return wrong + [f"{name} differs" for name in both if found[name] != wanted[name]]


@dataclass
class Reference:
    """A command to which nothing happens."""

    before: dict[str, str]
    after: dict[str, str]
    unsteady: list[str]  # files that differ from one such command to the next
    seconds: float
    room: int  # bytes of what it leaves
    changes: int  # of the disk
    log: list[str]


def prepared(wanted: Command, place: Path | None = None) -> Path:
    """A folder in which the command can be typed."""
    place = Path(tempfile.mkdtemp(dir=WORK)) if place is None else place
    shutil.copy(STOCK / "notes.txt", place)
    for name, stored in wanted.before.items():
        source = STOCK / stored
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
    return place


def removed(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for said in place.parent.glob(f"{place.name}.*"):
        said.unlink()


def reference(wanted: Command) -> Reference:
    """What the command makes, how long it takes and how often it changes the disk."""
    stored = WORK / f"{wanted.name}.reference"
    if not stored.exists():
        found = []
        for _ in range(2):
            place = prepared(wanted)
            before, log = contents(place)[0], place.with_name(f"{place.name}.log")
            begun = time.monotonic()
            patch = without_report if wanted.name in TRAININGS else None
            done = run(wanted.words, place, log=log, patch=patch)
            seconds = time.monotonic() - begun
            after, broken = contents(place)
            assert done.code == 0, f"{wanted.name}: {done.said}"
            assert not broken, f"{wanted.name}: {broken}"
            lines = log.read_text().splitlines()
            room = sum(path.stat().st_size + 4096 for path in place.rglob("*"))
            found.append(Reference(before, after, [], seconds, room, done.counter.value, lines))
            removed(place)
        first, second = found
        second.unsteady = [
            name for name in first.after if first.after[name] != second.after.get(name)
        ]
        write_with(stored, lambda path: path.write_bytes(pickle.dumps(second)))
    return pickle.loads(stored.read_bytes())


def without_report() -> None:
    """The page of a run is left to the command `report`, which is hit by itself."""
    Run.report = lambda run: run.path / "report.html"  # type: ignore[method-assign]


def attempt(wanted: Command, fault: Fault, **options: Any) -> str:
    """What is wrong after a fault; empty if nothing is."""
    if wanted.name in TRAININGS:
        options["patch"] = without_report
    known = reference(wanted)
    place = prepared(wanted)
    try:
        hit = run(wanted.words, place, fault, **options)
        wrong = said_rightly(hit, fault) + kept(wanted, known, place)
        wrong += gone_on(wanted, known, place) if not wrong else []
        return "; ".join(wrong)
    finally:
        removed(place)


def said_rightly(hit: Child, fault: Fault) -> list[str]:
    """Exit code and sentence of the command that was hit."""
    said, code = hit.said, hit.code
    if "Traceback" in said:
        return [f"exit code {code} and a traceback: {' '.join(said.split())[-300:]}"]
    if fault.how in ("before", "half", "after") or fault.signal == signal.SIGKILL == -(code or 0):
        return [] if code in (-signal.SIGKILL, 0) else [f"exit code {code}"]
    if code == 0:
        return []
    if fault.how in ("full", "once"):
        told = said.count("error: ") == 1 and "disk is full" in " ".join(said.split())
        return [] if code == 2 and told else [f"exit code {code} and: {said.strip()[-200:]}"]
    asked = signal.SIGINT if fault.how == "interrupt" else fault.signal
    if code != 128 + asked:
        return [f"exit code {code} after signal {asked}: {said.strip()[-200:]}"]
    ways = ("this goes on: ", "give the same command again", "the same command goes on")
    told = any(way in " ".join(said.split()) for way in ways)
    return [] if told or asked == signal.SIGINT else ["no word on how to go on"]


def kept(wanted: Command, known: Reference, place: Path) -> list[str]:
    """Whether all is whole, and what was there before is there still."""
    for folder in {path.parent for path in place.glob("*/.*replaced")}:
        settle(folder)
    found, wrong = contents(place)
    state = "run/checkpoints/last.ckpt"
    replaced = state in found and found[state] != known.before.get(state)
    for name, value in known.before.items():
        if replaced and name.startswith("run/"):
            continue
        if name not in found:
            wrong.append(f"{name} is lost")
        elif name not in known.unsteady and found[name] not in (value, known.after.get(name)):
            wrong.append(f"{name} was changed")
    return wrong


def is_still(folder: Path, known: Reference) -> bool:
    """Whether the run that was there before is there, of a command that replaces it."""
    path = folder / "checkpoints/last.ckpt"
    if not path.exists() or (old := known.before.get("run/checkpoints/last.ckpt")) is None:
        return False
    return old == read_whole(path) != known.after["run/checkpoints/last.ckpt"]


def gone_on(wanted: Command, known: Reference, place: Path) -> list[str]:
    """Whether the documented way leads to the end as if nothing had happened."""
    words = wanted.resume or wanted.words
    if "--overwrite" in words or is_still(place / "run", known):
        words = wanted.words
    patch = without_report if wanted.name in TRAININGS else None
    done = run(words, place, patch=patch)
    if wanted.resume and done.code == 2:
        said = " ".join(done.said.split())
        if not any(sentence in said for sentence in NOTHING_SAVED):
            return [f"--resume says: {said[-200:]}"]
        done = run((*wanted.words, "--overwrite"), place, patch=patch)
    if done.code != 0 and not (done.code == 2 and IS_THERE in " ".join(done.said.split())):
        return [f"to go on ends with {done.code}: {' '.join(done.said.split())[-300:]}"]
    found, wrong = contents(place)
    wrong += compared(found, known.after, known.unsteady)
    left = [str(p.relative_to(place)) for p in place.rglob("*") if in_temporary(Path(p.name))]
    return wrong + [f"{name} is left" for name in left]


# --- other faults ------------------------------------------------------------------------------


def refused(done: Child, *words: str) -> list[str]:
    """Whether a command ended with one sentence that has these words."""
    said = " ".join(done.said.split())
    one = said.count("error: ") == 1 and "Traceback" not in said
    if done.code == 2 and one and all(word in said for word in words):
        return []
    return [f"exit code {done.code} and: {said[-300:]}"]


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A file system of its own at the folder, which stays what it is below."""
    subprocess.run(["mount", *options, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def on_a_small_disk(wanted: Command, chance: random.Random, count: int) -> list[str]:
    """A real disk with less room than the command needs; then it has some."""
    found = []
    for share in (i / count for i in range(count)):
        place = Path(tempfile.mkdtemp(dir=WORK))
        known = reference(wanted)
        with mounted(place, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
            prepared(wanted, place)
            used = shutil.disk_usage(place).used
            room = used + int(share * (known.room - used)) // 4096 * 4096
            subprocess.run(["mount", "-o", f"remount,size={max(room, 4096)}", place], check=True)
            hit = run(wanted.words, place)
            wrong = said_rightly(hit, Fault("full"))
            subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
            wrong += kept(wanted, known, place) + (
                gone_on(wanted, known, place) if not wrong else []
            )
        removed(place)
        found.append((wrong and f"{room - used:,} bytes of room: {'; '.join(wrong)}") or "")
    return found


def on_a_read_only_disk(wanted: Command, chance: random.Random) -> list[str]:
    """Nothing can be written; then it can."""
    known, place = reference(wanted), prepared(wanted)
    before = contents(place)[0]
    with mounted(place, "--bind", str(place)):
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        wrong = refused(run(wanted.words, place), "annot write")
    wrong += [] if contents(place)[0] == before else ["something has changed"]
    wrong += gone_on(wanted, known, place)
    removed(place)
    return ["; ".join(wrong)]


def fewer(data: Path) -> None:
    next(data.rglob("*.png")).unlink()


def gone(data: Path) -> None:
    shutil.rmtree(data) if data.is_dir() else data.unlink()


def cut(data: Path) -> None:
    os.truncate(data, 1000)


def half_as_long(data: Path) -> None:
    os.truncate(data, data.stat().st_size // 2)


def another(data: Path) -> None:
    """In its place, as ``mv`` does it."""
    shutil.copy(STOCK / "other.pack", data.with_suffix(".new"))
    data.with_suffix(".new").replace(data)


def rewritten(data: Path) -> None:
    """In place, as ``cp`` does it."""
    shutil.copyfile(STOCK / "other.pack", data)


def changed_while_stopped(data: str, change: Callable[[Path], None], _: random.Random) -> list[str]:
    """Data that is no longer what the run was trained on; then it is again."""
    wanted = TRAININGS["simclr" if data == "photos" else "simclr, a pack"]
    known, place = reference(wanted), prepared(wanted)
    (shutil.copytree if data == "photos" else shutil.copy)(STOCK / data, place / data)
    here = tuple(word.replace("STOCK/", "") for word in wanted.words)
    assert run(here, place, Fault("interrupt", HALF_WAY), patch=without_report).code == 130
    change(place / data)
    resume = tuple(word.replace("STOCK/", "") for word in wanted.resume)
    wrong = refused(run(resume, place))
    with suppress(FileNotFoundError):
        gone(place / data)
    wrong += kept(wanted, known, place)
    wrong += gone_on(wanted, known, place)
    removed(place)
    return ["; ".join(wrong)]


def changed_while_it_runs(data: str, change: Callable[[Path], None], _: random.Random) -> list[str]:
    """The run ends well, or with a sentence; never by a signal."""
    place = Path(tempfile.mkdtemp(dir=WORK))
    (shutil.copytree if data == "photos" else shutil.copy)(STOCK / data, place / data)
    words = list(training("", "simclr", data, IMAGES).words)
    words[1], words[words.index("3")] = data, "30"
    child = start(words, place, patch=lazily)
    while not (place / "run/checkpoints/last.ckpt").exists() and child.poll() is None:
        time.sleep(0.005)
    change(place / data)
    child.wait()
    wrong = [] if child.code == 0 else refused(child)
    wrong += contents(place / "run")[1]
    removed(place)
    return ["; ".join(wrong)]


def lazily() -> None:
    """Images are read while the run goes on, as many are, and not kept."""
    loading.LAZY_FROM = 0
    without_report()


def with_forks() -> None:
    """Workers are forked: they need not import everything again."""
    real = launch.mp.get_context
    launch.mp.get_context = lambda method: real("fork")  # type: ignore[assignment]
    without_report()


def workers_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def killed_worker(which: str, chance: random.Random, count: int) -> list[str]:
    """One of two processes, or the one that started them; all end soon, and the run goes on."""
    one = TRAININGS["byol"]
    two = ("--devices", "2")
    found = []
    known_place = prepared(one)
    assert run((*one.words, *two), known_place, patch=with_forks).code == 0
    wanted = contents(known_place)[0]
    for _ in range(count):
        place = prepared(one)
        child = start((*one.words, *two), place, patch=with_forks)
        while len(workers := workers_of(child.pid)) < 2 and child.poll() is None:
            time.sleep(0.01)
        while not (place / "run/metrics.csv").exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        killed = {"first": workers[0], "second": workers[1], "starter": child.pid}[which]
        begun = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)
        child.wait(60)
        while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
            time.sleep(0.05)
            if time.monotonic() - begun > 60:
                break
        number = {"first": 1, "second": 2}.get(which)
        wrong = []
        if time.monotonic() - begun > 40:
            wrong.append(f"ended after {time.monotonic() - begun:.0f} s")
        if number is not None and child.code != 0:
            wrong += refused(child, f"process {number} of 2 was killed by signal 9")
        wrong += contents(place)[1]
        done = run((*one.resume, *two), place, patch=with_forks)
        if done.code == 2 and "saved none yet" in done.said:
            done = run((*one.words, "--overwrite", *two), place, patch=with_forks)
        wrong += [] if done.code == 0 else [f"to go on: {done.said[-300:]}"]
        wrong += compared(contents(place)[0], wanted, ())
        removed(place)
        found.append("; ".join(wrong))
    removed(known_place)
    return found


def jumping(chance: random.Random, *clocks: str) -> Callable[[], None]:
    """Clocks that jump: that of the day to and fro, others only forward."""
    seeds = {name: chance.random() for name in clocks}

    def patch() -> None:
        without_report()
        for name, seed in seeds.items():
            real, own, late = getattr(time, name), random.Random(seed), [0.0]

            def told(real: Any = real, own: Any = own, late: Any = late, name: str = name) -> float:
                if own.random() < 0.1:
                    late[0] += own.choice((3600.0, 1e6, 3e7)) * (
                        own.choice((-1, 1)) if name == "time" else 1
                    )
                return real() + late[0]

            setattr(time, name, told)

    return patch


def by_another_clock(
    name: str, clocks: Sequence[str], chance: random.Random, count: int
) -> list[str]:
    """The same bits, and times that are numbers."""
    one, found = TRAININGS[name], []
    known = reference(one)
    for _ in range(count):
        place = prepared(one)
        done = run(one.words, place, patch=jumping(chance, *clocks))
        wrong = [] if done.code == 0 else [f"exit code {done.code}: {done.said[-300:]}"]
        wrong += compared(contents(place)[0], known.after, known.unsteady) if not wrong else []
        if not wrong:
            times = [load_checkpoint(place / "run/checkpoints/last.ckpt").seconds]
            rows = read_metrics(place / "run/metrics.csv")
            times += [row[n] for row in rows for n in TIMES if n in row]
            wrong += [f"a time of {t}" for t in times if not 0 <= t < math.inf]
        removed(place)
        found.append("; ".join(wrong))
    return found


def with_files_of_another_time(_: random.Random) -> list[str]:
    """Data and cache from the future and from long ago."""
    one, found = TRAININGS["byol_a"], []
    known = reference(one)
    for stamp in (0, time.time() + 1e8):
        place = prepared(one)
        assert run(one.words, place, patch=without_report).code == 0
        gone(place / "run")
        for path in place.rglob("*"):
            os.utime(path, (stamp, stamp))
        done = run(one.words, place, patch=without_report)
        wrong = [] if done.code == 0 else [f"exit code {done.code}: {done.said[-300:]}"]
        found.append("; ".join(wrong + compared(contents(place)[0], known.after, known.unsteady)))
        removed(place)
    return found


def at_once(first: Command, second: Command, chance: random.Random, count: int) -> list[str]:
    """Both end well, as if one came after the other; or one refuses, as if it had not come."""
    made: list[dict[str, str]] = []
    for order in ((first, second), (second, first), (first,), (second,)):
        place = prepared(first)
        for one in order:
            run(one.words, place)
        made.append(contents(place)[0])
        removed(place)
    found, longest = [], reference(first).seconds
    unsteady = [*reference(first).unsteady, *reference(second).unsteady]
    for _ in range(count):
        place = prepared(first)
        children = [start(first.words, place)]
        time.sleep(chance.uniform(0, longest / 2))
        children.append(start(second.words, place))
        wrong = []
        for child in children:
            child.wait()
            wrong += [] if child.code == 0 else refused(child)
        wrong += ["neither ends well"] if all(child.code for child in children) else []
        after, broken = contents(place)
        wanted = made if any(child.code for child in children) else made[:2]
        differ = [compared(after, one, unsteady) for one in wanted]
        left = [p.name for p in place.rglob("*") if in_temporary(Path(p.name))]
        wrong += (
            broken + (min(differ, key=len) if all(differ) else []) + [f"{n} is left" for n in left]
        )
        found.append("; ".join(wrong))
        removed(place)
    return found


# --- the matrix --------------------------------------------------------------------------------


def at_random(wanted: Command, chance: random.Random, count: int, number: int) -> list[str]:
    """A signal at random moments."""
    longest = reference(wanted).seconds
    moments = [chance.uniform(0, longest) for _ in range(count)]
    found = []
    for at in moments:
        wrong = attempt(wanted, Fault("signal", at, number))
        found.append(wrong and f"after {at:.3f} s: {wrong}")
    return found


def at_changes(
    wanted: Command, chance: random.Random, count: int, ways: Sequence[str]
) -> list[str]:
    """At each change of the disk, or at some of them if they are many."""
    known = reference(wanted)
    every = [(at, how) for at in range(1, known.changes + 1) for how in ways]
    every = [
        (at, how) for at, how in every if how != "half" or known.log[at - 1].split()[1] == "write"
    ]
    some = sorted(chance.sample(every, min(count, len(every))))
    found = []
    for at, how in some:
        wrong = attempt(wanted, Fault(how, at))
        found.append(f"{how} {known.log[at - 1]}: {wrong}" if wrong else "")
    return found


@dataclass(frozen=True)
class Task:
    """Some tries of a cell."""

    part: str
    fault: str
    hit: str
    do: Callable[[random.Random], list[str]]
    number: int = 0  # of several tasks of one cell

    def wrong(self, seed: int, deadline: float) -> list[str]:
        """Of each try what was wrong, "" if nothing; none at all after the deadline."""
        if time.monotonic() > deadline:
            return []
        try:
            return self.do(random.Random(f"{seed} {self.fault} {self.hit} {self.number}"))
        except Exception:
            return [" ".join(traceback.format_exc().split())[-600:]]


def signals(part: str, one: Command, count: int, sent: int) -> Iterator[Task]:
    """At random moments, some at a time: all commands have some before one has all."""
    for number in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - number)
        do = partial(at_random, one, count=some, number=sent)
        yield Task(part, PARTS[part], one.name, do, number)


PARTS = {
    "kill": "kill -9 at random moments",
    "writes": "kill -9 before, in and after changes of the disk",
    "full": "full disk from a change on",
    "term": "SIGTERM at random moments",
    "int": "Ctrl-C at random moments",
    "small": "a real disk that is too small",
    "readonly": "a read-only disk",
    "data": "data changed",
    "worker": "kill -9 of one of two processes",
    "clock": "a clock that jumps",
    "two": "two commands at once",
}
CHANGES = {"photos": (fewer, gone), "photos.pack": (gone, cut, half_as_long, another, rewritten)}
PAIRS_AT_ONCE = (
    ("pretrain", "pretrain"),
    ("pretrain --overwrite", "evaluate"),
    ("evaluate", "report"),
    ("evaluate", "evaluate"),
    ("pack", "pack"),
    ("embed, npz", "embed, npz"),
    ("embed, parquet", "embed, parquet"),
    ("export", "export"),
    ("finetune", "finetune"),
    ("ablate", "ablate"),
)


def tasks(args: argparse.Namespace) -> Iterator[Task]:
    """What is asked for."""
    trained = [TRAININGS[name] for name in args.methods]
    some = [COMMANDS[name] for name in args.commands]

    def one(part: str, hit: str, do: Callable[..., list[str]], *given: Any, **more: Any) -> Task:
        return Task(part, PARTS[part], hit, partial(do, *given, **more))

    for each in (*trained, *some):
        yield from signals("kill", each, args.kills, signal.SIGKILL)
    for each in (*trained[:: args.each], *some):
        yield from signals("term", each, args.kills, signal.SIGTERM)
        yield from signals("int", each, args.kills, signal.SIGINT)
    for each in some:
        ways = ("before", "half", "after")
        yield one("writes", each.name, at_changes, each, count=args.writes, ways=ways)
        yield one("full", each.name, at_changes, each, count=args.writes, ways=("full",))
        if os.getuid() == 0:
            yield one("readonly", each.name, on_a_read_only_disk, each)
            yield one("small", each.name, on_a_small_disk, each, count=args.few)
    for data, changes in CHANGES.items():
        for change in changes:
            said = f"{data}, {change.__name__.replace('_', ' ')}"
            yield one("data", f"{said}, while stopped", changed_while_stopped, data, change)
            yield one("data", f"{said}, while it runs", changed_while_it_runs, data, change)
    for which in ("first", "second", "starter"):
        yield one("worker", which, killed_worker, which, count=args.few)
    for clocks in (("time",), ("monotonic", "perf_counter")):
        for name in ("simclr", "byol_a"):
            said = f"{name}, {' and '.join(clocks)}"
            yield one("clock", said, by_another_clock, name, clocks, count=args.few)
    yield one("clock", "files of another time", with_files_of_another_time)
    for first, second in PAIRS_AT_ONCE:
        if {first, second} <= set(args.commands):
            pair = COMMANDS[first], COMMANDS[second]
            yield one("two", f"{first} and {second}", at_once, *pair, count=args.few)


TASKS: list[Task] = []


def tried(number: int, seed: int, deadline: float) -> list[str]:
    return TASKS[number].wrong(seed, deadline)


def main() -> None:
    """Make the stock, do what is asked for, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--methods", nargs="*", default=list(TRAININGS), choices=list(TRAININGS))
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--kills", type=int, default=50, help="of each method and command")
    parser.add_argument("--writes", type=int, default=60, help="changes that are hit, at most")
    parser.add_argument("--few", type=int, default=6, help="tries of what takes long")
    parser.add_argument("--each", type=int, default=5, help="of how many methods one is stopped")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="what was not begun is left"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    begun = time.monotonic()
    torch.set_num_threads(1)
    logging.disable()  # what `settle` tells
    global STOCK, WORK
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        STOCK, WORK = Path(folder) / "stock", Path(folder) / "work"
        STOCK.mkdir()
        WORK.mkdir()
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            used = [*(TRAININGS[m] for m in args.methods), *(COMMANDS[c] for c in args.commands)]
            wanted = needed(used, args.only)
            imported = pool.submit(make_stock, STOCK, wanted).result()
        for name in imported:  # by commands, which then need not import them again and again
            with suppress(ImportError):
                import_module(name)
        TASKS[:] = sorted((t for t in tasks(args) if t.part in args.only), key=lambda t: t.number)
        deadline = begun + 60 * args.minutes
        cells: dict[tuple[str, str], list[str]] = {(t.fault, t.hit): [] for t in TASKS}
        with ProcessPoolExecutor(args.jobs, get_context("fork")) as pool:
            waiting = {pool.submit(tried, i, args.seed, deadline): i for i in range(len(TASKS))}
            for future in as_completed(waiting):
                task = TASKS[waiting[future]]
                cells[task.fault, task.hit] += future.result()
                for wrong in filter(None, future.result()):
                    print(f"{task.fault}, {task.hit}: {wrong}", file=sys.stderr, flush=True)
    print("| fault | what was hit | tries | right |\n|---|---|---|---|")
    for (fault, hit), found in cells.items():
        print(f"| {fault} | {hit} | {len(found)} | {found.count('')} |")
    tries, right = sum(map(len, cells.values())), sum(found.count("") for found in cells.values())
    print(f"\n{right} of {tries} right, in {(time.monotonic() - begun) / 60:.0f} minutes")
    sys.exit(right < tries)


if __name__ == "__main__":
    main()
