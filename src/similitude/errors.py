"""The exception that is the user's to mend, and how text of others is shown to people."""

import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any


class UserError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with code 2; from Python it is a ``ValueError``.
    Names of others stand in it as :func:`visible` shows them.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(visible(sentence))


class WritingError(UserError):
    """A write that the system refused: it says nothing of what was to be written."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """How a sentence about an unknown name ends: the nearest names, or all where none is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"


def visible(text: str) -> str:
    r"""The text on one line, with what controls written out: ``\n``, ``\x1b``, ``\u202e``.

    Names of files and classes, and recipes of others, may hold characters that move the cursor,
    recolor the terminal, or turn the order of what is read.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _acts(c) else c for c in text)


def visible_values(tree: Any) -> Any:
    """The same mappings, lists and values with all their text visible."""
    if isinstance(tree, str):
        return visible(tree)
    if isinstance(tree, Mapping):
        return {visible(str(key)): visible_values(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [visible_values(item) for item in tree]
    return tree


def _acts(character: str) -> bool:
    """Whether it is no letter, mark, number, sign or space: control, format, line or paragraph."""
    category = unicodedata.category(character)
    return category.startswith("C") or category in ("Zl", "Zp")


def told_unreadable(name: str, unreadable: Sequence[tuple[str, str]], total: int) -> str | None:
    """A sentence on the files of what is called ``name`` that are left out; None without any.

    Args:
        name: Of the source.
        unreadable: Each with the reason.
        total: Files, with those that are left out.
    """
    if not unreadable:
        return None
    some = ", ".join(f"{file} ({reason})" for file, reason in unreadable[:3])
    more = ", ..." if len(unreadable) > 3 else ""
    count = len(unreadable)
    return f"{count} of {total} files in {name} cannot be read and are left out: {some}{more}"
