"""Find what a user names: a table of openers, the first of which that claims it opens it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from similitude.data.classes import has_labels, with_same_classes
from similitude.data.source import Source


@dataclass(frozen=True)
class Found:
    """What a user's data turned out to be.

    Attributes:
        open: Gives a part by its own name, or all for None.
        parts: "train", "test", "val" -> the name that part has there.
        default: Name of the part that is opened where none is asked for; None opens all.
    """

    open: Callable[[str | None], Any]
    parts: dict[str, str] = field(default_factory=dict)
    default: str | None = None


class Opener(NamedTuple):
    """One kind of source.

    Attributes:
        claims: Whether what a user gave is of this kind.
        find: What is there.
    """

    claims: Callable[[Any], bool]
    find: Callable[[Any], Found]


def is_path(data: Any) -> bool:
    """Whether data may be the path of something."""
    return isinstance(data, str | Path) and bool(str(data).strip())


def find(data: Any, openers: Sequence[Opener]) -> Found | None:
    """What the first opener finds that claims it; None where none does."""
    return next((opener.find(data) for opener in openers if opener.claims(data)), None)


def open_part(found: Found, split: str | None, noun: str) -> Any:
    """One part, or what is trained on where none is asked for; the choice is in its notes.

    Args:
        found: what is there.
        split: "train", "test" or None.
        noun: what the samples are, for the notes: "images".
    """
    if split is None:
        name = found.default
    else:
        stands_for = "val" if split == "test" and "test" not in found.parts else split
        name = found.parts.get(stands_for, split)
    source = found.open(name)
    notes = source.notes
    if split is None and found.default is not None:
        others = ", ".join(part for part in found.parts.values() if part != name)
        notes += (f"{source.name}: the training {noun} are used, those of {others} are not",)
    elif split == "test" and {"test", "val"} <= found.parts.keys():
        source, notes = _labeled_test(found, source)
    return replace(source, notes=notes)


def open_both(found: Found, opened: Callable[[Any, Any], Any], noun: str) -> list[Any]:
    """The training and the test part, with one numbering of classes; or all, where it is one part.

    Args:
        found: what is there.
        opened: what becomes of a part, given the first part or None.
        noun: see :func:`open_part`.
    """
    first, *others = ["train", "test"] if found.parts else [None]
    source = opened(open_part(found, first, noun), None)
    more = [opened(open_part(found, split, noun), source) for split in others]
    return with_same_classes([source, *more])


def _labeled_test(found: Found, source: Source) -> tuple[Source, tuple[str, ...]]:
    """The test part, or the validation part where that alone has labels; with a note."""
    test, val = found.parts["test"], found.parts["val"]
    if not has_labels(source) and has_labels(other := found.open(val)):
        note = f"{source.name} has no labels: {val} is used to test in its place"
        return other, (*other.notes, note)
    return source, (*source.notes, f"{source.name}: {test} is used to test, {val} is not")
