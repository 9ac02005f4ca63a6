"""The parts of a data set, by the names that people give them."""

import re
from collections.abc import Iterable

PARTS = {
    "train": "train",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}  # name in small letters -> part


def part_of_file(name: str) -> str | None:
    """The part that a file's name begins with, as it is called there; None where it is none."""
    word = re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]
    return word if word in PARTS else None


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """Which of some names are parts of one data set.

    Returns:
        "train", "test", "val" -> the name it has; empty unless there is "train" and another. Of
        several names for one part the first in ``PARTS`` counts.
    """
    by_name = {name.lower(): name for name in sorted(names)}
    found: dict[str, str] = {}
    for name, part in PARTS.items():
        if name in by_name:
            found.setdefault(part, by_name[name])
    return found if "train" in found and len(found) > 1 else {}
