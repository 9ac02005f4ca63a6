"""The one exception that is the user's to mend."""

import difflib
from collections.abc import Collection

from similitude.text import visible


class UserError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with code 2; from Python it is a ``ValueError``.
    Names of others stand in it as :func:`visible` shows them.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(visible(sentence))


def did_you_mean(name: str, known: Collection[str]) -> str:
    """How a sentence about an unknown name ends: the nearest names, or all where none is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
