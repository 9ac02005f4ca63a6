"""What ends a command from outside: Ctrl-C, and SIGTERM, which Slurm, Docker and systemd send."""

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT  # exit codes, as shells give them
TERMINATED = 128 + signal.SIGTERM


def end(number: int, *, told: bool = False) -> NoReturn:
    """End what is under way as a signal asks.

    Args:
        number: of the signal.
        told: whether somebody has said how to go on.

    Raises:
        SystemExit: with 143, for SIGTERM: whoever sent it wants the process gone.
        KeyboardInterrupt: for Ctrl-C.
    """
    if number == signal.SIGTERM:
        if not told:  # not by print: the signal may have come within one
            os.write(2, b"stopped: give the same command again; with --resume if it had begun\n")
        raise SystemExit(TERMINATED)
    raise KeyboardInterrupt


@contextmanager
def hearing(hear: Callable[[int], None]) -> Iterator[None]:
    """Within the block, Ctrl-C and SIGTERM do no more than call ``hear`` with their number.

    Only in the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: hear(number)) for n in numbers}
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
    words = ["similitude", stage, *map(str, given), "--out", str(out), "--resume", *own, *options]
    return shlex.join(words)
