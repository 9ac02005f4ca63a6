"""The place of a run: whether it is free, who trains into it, what of it may be replaced."""

import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from similitude.errors import UserError
from similitude.files.writing import (
    LOOKS,
    check_writable,
    contents,
    locked,
    remove_temporaries,
    writing_error,
)

logger = logging.getLogger(__name__)

# What a run folder holds; overwriting a run removes these and nothing else.
RUN_FILES = (
    "environment.json",
    "metrics.csv",
    "health.json",
    "evaluation.json",
    "retrieval.json",
    "retrieval.npz",
    "embedding.npz",
    "attention.npz",
    "backbone.safetensors",
    "start.safetensors",
    "unreadable.txt",
    "views.png",
    "log.txt",
    "profile.txt",
    "scores.json",
    "report.html",
    "report.json",
    "events",
    "checkpoints",
    "recipe.yaml",
)
CHECKPOINT = ("checkpoints", "last.ckpt")  # in a run folder: the whole state

_RUNS = Path("runs")  # where runs go that nobody gave a place
_LOCK = ".lock"
_ASIDE = ".replaced"  # a whole run, while another is to take its place
_ON_ITS_WAY = ".half-replaced"  # a part of it, the rest of which is where it belongs


def refuse_links(folder: Path, *besides: str) -> None:
    """Refuse a run folder in which what the program writes to is elsewhere.

    The folder may be somebody else's, and a link in it would lead to any file of the user's.

    Args:
        folder: of a run; need not exist.
        besides: further names in the folder that are written to.

    Raises:
        UserError: a file or folder of the run is a link, or a pipe or device, or what is appended
            to has another name elsewhere.
    """
    for name in (*RUN_FILES, *besides, _ASIDE, _ON_ITS_WAY, _LOCK, "checkpoints/last.ckpt"):
        path = folder / name
        try:
            status = path.lstat()
        except OSError:  # not there
            continue
        kind = status.st_mode
        other_name = name in (_LOCK, "log.txt") and status.st_nlink > 1
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) or other_name:
            what = "link to another place" if stat.S_ISLNK(kind) or other_name else "pipe or device"
            raise UserError(
                f"{path} is a {what}, which a run is not written into: put a file or folder of its "
                "own there, or copy the run with cp -rL"
            )


def check_run_folder(folder: Path | None, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse a place where something would be lost or nothing can be written.

    Args:
        folder: of the run; None if `free_run_folder` is to choose it.
        resume: whether a run there goes on.
        overwrite: whether a run there is replaced.

    Raises:
        UserError: the folder is a file, or not empty, or not a run that can be replaced, or not
            there to be resumed, or cannot be written.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    if folder is None:
        check_writable(_RUNS, "run", *CHECKPOINT)
        return
    if folder.is_file():
        raise UserError(f"cannot make the run folder {folder}: a file has this name")
    refuse_links(folder)
    check_writable(folder, *CHECKPOINT)
    settle(folder)
    if resume and not folder.exists():
        raise UserError(f"there is no folder {folder} to resume")
    # a training that was killed before it began leaves its log
    if resume or not folder.is_dir() or contents(folder) <= {_LOCK, "log.txt"}:
        return
    if not (folder / "recipe.yaml").exists():
        raise UserError(f"{folder} is not empty and not a run: give another --out")
    if not overwrite:
        raise UserError(
            f"{folder} is not empty: use --resume to go on with its run, --overwrite to replace "
            "it, or another --out"
        )


def clear_run_folder(folder: Path) -> None:
    """Remove the files of a run; a file that is not of the run stays."""
    for name in RUN_FILES:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def training_in(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Hold the folder while something trains into it, tidied up after processes that were killed.

    Raises:
        UserError: another process holds it, or has meanwhile made it a place that
            `check_run_folder` refuses.
    """
    with holding(folder):
        _tell(folder, _settle(folder))
        remove_temporaries(folder)
        check_run_folder(folder, resume=resume, overwrite=overwrite)
        yield


def is_held(folder: Path) -> bool:
    """Whether a process trains into the folder."""
    try:
        with (folder / _LOCK).open() as file:
            return locked(file.fileno(), shared=True) is False
    except OSError:  # nothing was ever trained there
        return False


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, or of several, against other processes.

    The file of its lock is gone afterwards, unless the process is killed. It is removed while it is
    locked: who has opened it meanwhile gets a lock that tells
    nobody anything, sees that it is not the file of this place any more, and opens the next one.
    """
    place = folder / _LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            refuse_links(folder)
            file = place.open("a")
        except OSError as error:
            raise writing_error(folder, error) from error
        with file:
            if locked(file.fileno(), looks=LOOKS) is False:
                raise UserError(
                    f"another process trains into {folder}: wait for its end, or give another --out"
                )
            if not _is_at(file, place):
                continue
            try:
                yield
            finally:
                if _is_at(file, place):  # the folder may have been replaced as a whole
                    with suppress(OSError):  # as on Windows, where it is open
                        place.unlink()
            return


def _is_at(file: IO[str], place: Path) -> bool:
    """Whether an open file is the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def replacing_run(folder: Path, *besides: str) -> Iterator[None]:
    """Move the run in ``folder`` aside; it comes back unless the new one reaches a checkpoint.

    However the process ends: what it leaves undone, `settle` does.

    Args:
        folder: of the run, which is held.
        besides: names in the folder that go with the run.

    Raises:
        UserError: the folder cannot be written.
    """
    if not (folder / "recipe.yaml").exists():
        yield
        return
    on_its_way = folder / _ON_ITS_WAY
    try:
        on_its_way.mkdir()
        for name in (*RUN_FILES, *besides):
            if (folder / name).exists():
                (folder / name).rename(on_its_way / name)
        on_its_way.rename(folder / _ASIDE)  # from now on the run is whole there
    except OSError as error:
        _settle(folder)
        raise writing_error(folder, error) from error
    try:
        yield
    finally:
        _settle(folder)


def settle(folder: Path) -> None:
    """Bring back a run that was to be replaced, if the process that did it was killed too early.

    Whoever opens a run folder calls this first. It does nothing where the process is at work.

    Raises:
        UserError: the run cannot be brought back, as on a disk that is read-only, or
            `refuse_links` refuses the folder.
    """
    if not any((folder / name).is_dir() for name in (_ASIDE, _ON_ITS_WAY)):
        return
    refuse_links(folder)
    if not is_held(folder):
        with holding(folder):
            _tell(folder, _settle(folder))


def _settle(folder: Path) -> str:
    """Keep the new run if it has a checkpoint, else the one that was moved aside; which of them.

    Killed at any point, it can be called again.
    """
    aside, on_its_way, which = folder / _ASIDE, folder / _ON_ITS_WAY, ""
    if aside.is_dir() and folder.joinpath(*CHECKPOINT).exists():
        shutil.rmtree(aside)
        which = "the new one"
    elif aside.is_dir():
        clear_run_folder(folder)
        aside.rename(on_its_way)
    if on_its_way.is_dir():
        for path in on_its_way.iterdir():
            path.rename(folder / path.name)
        on_its_way.rmdir()
        which = "the old one"
    return which


def _tell(folder: Path, which: str) -> None:
    if which:
        logger.warning(f"a process that replaced the run in {folder} was killed: it is {which}")


def free_run_folder(data: object, method: str) -> Path:
    """The first of runs/NAME-METHOD, runs/NAME-METHOD-2, ... that does not exist."""
    name = Path(str(data).partition("?")[0]).resolve().stem if isinstance(data, str | Path) else ""
    # without the ranges and patterns of shards, which shells would take for their own
    plain = re.sub(r"\{[^}]*\}|[*?]", "", name).strip("-_. ").replace(" ", "-")
    stem = _RUNS / f"{plain or 'images'}-{method}"
    numbered = (stem.with_name(f"{stem.name}-{i}") for i in range(2, 10_000))
    return next(path for path in (stem, *numbered) if not path.exists())
