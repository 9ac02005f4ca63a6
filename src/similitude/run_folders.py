"""The place of a run: whether it is free, who trains into it, what of it may be replaced."""

import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from similitude.errors import UserError

# What a run folder holds; overwriting a run removes these and nothing else.
RUN_FILES = (
    "environment.json",
    "metrics.csv",
    "health.json",
    "evaluation.json",
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
    "recipe.yaml",  # last: what is left of a run without it cannot be replaced
)


_ASIDE, _LOCK = ".replaced", ".lock"


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
    for name in (*RUN_FILES, *besides, _ASIDE, _LOCK, "checkpoints/last.ckpt"):
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


def check_run_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a place where something would be lost.

    Raises:
        UserError: the folder is a file, or not empty, or not a run that can be replaced, or not
            there to be resumed.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    if folder.is_file():
        raise UserError(f"cannot make the run folder {folder}: a file has this name")
    if resume and not folder.exists():
        raise UserError(f"there is no folder {folder} to resume")
    refuse_links(folder)
    if resume or not folder.is_dir() or {p.name for p in folder.iterdir()} <= {_LOCK}:
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
def training_in(folder: Path) -> Iterator[None]:
    """Hold the folder while something trains into it.

    Raises:
        UserError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    with (folder / _LOCK).open("a") as file:  # gone with the process, however it ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process trains into {folder}: wait for its end, or give another --out"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


@contextmanager
def replacing_run(folder: Path, *besides: str) -> Iterator[None]:
    """Move the run in ``folder`` aside; it comes back unless the new one reaches a checkpoint.

    Args:
        folder: of the run; need not exist.
        besides: names in the folder that go with the run.
    """
    if not folder.is_dir():
        yield
        return
    _settle(folder)  # what a killed process has left
    aside = folder / _ASIDE
    aside.mkdir()
    for name in (*RUN_FILES, *besides):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    try:
        yield
    finally:
        _settle(folder)


def _settle(folder: Path) -> None:
    """Keep the new run, or the one that was moved aside."""
    aside = folder / _ASIDE
    if not aside.is_dir():
        return
    if not (folder / "checkpoints" / "last.ckpt").exists():
        clear_run_folder(folder)
        for path in aside.iterdir():
            path.rename(folder / path.name)
    shutil.rmtree(aside)


def free_run_folder(data: object, method: str) -> Path:
    """The first of runs/NAME-METHOD, runs/NAME-METHOD-2, ... that does not exist."""
    name = Path(data).resolve().name if isinstance(data, str | Path) else "images"
    stem = Path("runs") / f"{Path(name).stem or 'images'}-{method}".replace(" ", "-")
    numbered = (stem.with_name(f"{stem.name}-{i}") for i in range(2, 10_000))
    return next(path for path in (stem, *numbered) if not path.exists())
