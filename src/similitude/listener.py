"""What passes between a command and whoever started it: sentences, progress, and signals to end.

Signals are Ctrl-C, and SIGTERM, which Slurm, Docker and systemd send; in a job of Slurm also
SIGUSR1, which it sends before the time limit if it is asked to, and after which the job is queued
again.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol, runtime_checkable

from similitude import slurm
from similitude.errors import visible
from similitude.files.writing import writing_error

INTERRUPTED = 128 + signal.SIGINT  # exit codes, as shells give them
TERMINATED = 128 + signal.SIGTERM


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that end what is under way."""
    always = (signal.SIGINT, signal.SIGTERM)
    return (*always, signal.SIGUSR1) if slurm.is_in_job() else always


@runtime_checkable
class Listener(Protocol):
    """Whoever wants to hear how a command goes on."""

    def say(self, sentence: str) -> None:
        """A choice, a warning, a result."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` of ``what`` is finished; a total of 0 is not known."""


class Silent:
    """A listener that does nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""


class Titled:
    """Passes on the progress of a training under another name, and none of its sentences."""

    def __init__(self, listener: Listener, title: str) -> None:
        self.listener = listener
        self.title = title

    def say(self, sentence: str) -> None:
        """Nothing: the log of the run keeps it."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Pass it on; of the training itself as that of the title."""
        self.listener.progress(self.title if what == "training" else what, done, total, note)


class Log:
    """Passes everything on to a listener and keeps the sentences in the run's log.txt."""

    def __init__(self, listener: Listener, path: Path) -> None:
        self.listener = listener
        self.path = path

    def say(self, sentence: str) -> None:
        """Show and keep a sentence."""
        self.listener.say(sentence)
        self._keep(sentence)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show progress; keep it where there is something to note."""
        self.listener.progress(what, done, total, note)
        if note:
            self._keep(f"{what} {done}/{total}  {note}")

    def _keep(self, line: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {visible(line)}\n")
        except OSError as error:
            raise writing_error(self.path, error) from error


def end(number: int, *, told: bool = False) -> NoReturn:
    """End what is under way as a signal asks.

    Args:
        number: of the signal.
        told: whether somebody has said how to go on.

    Raises:
        SystemExit: with 143, for SIGTERM: whoever sent it wants the process gone; with 138, for
            SIGUSR1.
        KeyboardInterrupt: for Ctrl-C.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if not told:  # not by print: the signal may have come within one
        os.write(2, f"stopped: give the same command again{_with_resume()}\n".encode())
        if number != signal.SIGTERM and slurm.is_first():
            os.write(2, f"{slurm.requeue()}\n".encode())
    raise SystemExit(128 + number)


def _with_resume() -> str:
    """What the command of this process needs besides, to go on with what it may have begun."""
    words = sys.argv[1:]
    has_option = words[:1] in (["pretrain"], ["finetune"], ["distill"])
    if not has_option or {"--resume", "--auto-resume"} & set(words):
        return ""
    return "; if it had begun, with --resume"


def end_anywhere(number: int, frame: FrameType | None) -> NoReturn:
    """End what is under way; the handler of stop signals where nothing else hears them.

    Within an import the process ends at once, without an exception: a module may take that for a
    missing part of itself and go on, or go on with a part of itself missing.
    """
    try:
        end(number)
    finally:
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                os._exit(128 + number)
            frame = frame.f_back


@contextmanager
def hearing(hear: Callable[[int], None]) -> Iterator[None]:
    """Within the block, stop signals do no more than call ``hear`` with their number.

    Only in the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, lambda number, _: hear(number)) for n in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python


def how_to_resume(
    stage: str, *given: object, out: Path, method: str, options: Sequence[str] = ()
) -> str:
    """What goes on with a training: a command that a shell takes as it is printed.

    Args:
        stage: the command, which is also the function of Python.
        given: its arguments as the user gave them; where one is an object, the call is told.
        out: the folder of the training.
        options: that a resumed training needs again.
        method: its name; one of the user's own, MODULE:CLASS, must be said again.
    """
    if not all(isinstance(argument, str | Path) for argument in given):
        return f"sim.{stage}(..., out={str(out)!r}, resume=True)"
    own = ["--method", method] if ":" in method else []
    mode = [] if "--auto-resume" in options else ["--resume"]
    words = ["similitude", stage, *map(str, given), "--out", str(out), *mode, *own, *options]
    return shlex.join(words)
