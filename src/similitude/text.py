"""Text that somebody else chose, where people read it."""

import unicodedata
from collections.abc import Mapping
from typing import Any


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
