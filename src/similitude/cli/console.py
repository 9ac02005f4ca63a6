"""What a person sees while a command works: a progress line, and what was chosen and why."""

import math
import time
from types import TracebackType

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from similitude.distributed import is_first_launched
from similitude.errors import visible

SECONDS_BETWEEN_LINES = 20.0  # where there is no terminal to redraw


class Console:
    """Shows progress as a bar on a terminal, and as a line now and then elsewhere.

    Use as a context manager around the work; :meth:`progress` and :meth:`say` inside it.
    """

    def __init__(self, console: RichConsole | None = None) -> None:
        self.speaks = is_first_launched()  # of several processes only the first is heard
        self._console = console or RichConsole(highlight=False, quiet=not self.speaks)
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = -math.inf

    def __enter__(self) -> "Console":
        if self._console.is_interactive and self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()

    def print(self, content: RenderableType) -> None:
        """Print a line or a table, above the bar; what controls a terminal is written out."""
        if text := isinstance(content, str):
            content = visible(content)
        # paths are shown as they are: neither [brackets] nor :colons: mean anything
        self._console.print(content, soft_wrap=text, markup=False, emoji=False)

    def say(self, sentence: str) -> None:
        """Print a sentence, above the bar."""
        self.print(sentence)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` of ``what`` is finished; a total of 0 is not known."""
        what, note = visible(what), visible(note)
        ended = 0 < total <= done
        if self._bar is not None:
            task = self._tasks.get(what)
            if task is None:
                task = self._tasks[what] = self._bar.add_task(
                    what, total=total or None, completed=done, note=note
                )
            self._bar.update(task, completed=done, total=total or None, note=note)
            if ended:
                self._bar.remove_task(self._tasks.pop(what))
        elif note and (ended or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES):
            self._last_line = time.monotonic()
            self.print(f"{what} {done}/{total}  {note}")
