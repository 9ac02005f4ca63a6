"""Who hears how a command goes on."""

from typing import Protocol, runtime_checkable


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
