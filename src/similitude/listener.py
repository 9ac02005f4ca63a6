"""Who hears how a command goes on."""

import time
from pathlib import Path
from typing import Protocol, runtime_checkable

from similitude.errors import visible
from similitude.files.writing import writing_error


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
