"""Answers about embeddings, as a table and as a page with pictures."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from similitude.embeddings.embedder import BLOCK, Part, loaded
from similitude.errors import UserError
from similitude.files.writing import as_path, check_writable, write_with
from similitude.listener import Listener
from similitude.modalities import modality_of
from similitude.report.answers import MAX_SHOWN, Shown, write_answers_page
from similitude.report.page import is_ours

SIDE = 56  # of a picture, in pixels
MAX_HEARD = 200  # samples that a page plays: those of three seconds are 2 MB


class Look(NamedTuple):
    """How a sample looks, and where it is heard: the number of a track, begin and end in it."""

    picture: UInt8[np.ndarray, "h w 3"]
    heard: tuple[int, float, float] | None = None


class Pictures:
    """How samples look, by their names; nothing is loaded before it is asked for."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def has_some(self, names: Sequence[str]) -> bool:
        """Whether any of these samples is there."""
        asked = set(names)
        return any(part.prefix + name in asked for part in self.parts for name in part.names)

    def of(self, names: Sequence[str], tracks: list[bytes]) -> dict[str, Look]:
        """Thumbnails of those samples that are there and can be read.

        Sounds are put into further tracks: the first of the names.
        """
        found: dict[str, Look] = {}
        asked, heard = set(names), set(names[:MAX_HEARD])
        for part in self.parts:
            wanted = [i for i, name in enumerate(part.names) if part.prefix + name in asked]
            for first in range(0, len(wanted), BLOCK):
                samples = part.load(wanted[first : first + BLOCK])
                if not len(samples):
                    continue
                of_part = [part.prefix + name for name in samples.names]
                pictures = samples.thumbnails(SIDE)
                found |= {n: Look(p) for n, p in zip(of_part, pictures, strict=True)}
                played = [i for i, name in enumerate(of_part) if name in heard]
                if samples.can_be_heard and played:
                    track, times = samples.subset(played).track()
                    for i, (begin, end) in zip(played, times.tolist(), strict=True):
                        place = (len(tracks), begin, end)
                        found[of_part[i]] = found[of_part[i]]._replace(heard=place)
                    tracks.append(track)
        return found


def pictures_of(data: object) -> Pictures:
    """How the samples of some data look, small."""
    its = modality_of(data)
    sources = its.open_all(data, None)
    prefixes = ("train/", "test/") if len(sources) == 2 else ("",)
    config = its.for_pictures(SIDE, sources[0])
    parts = []
    for source, prefix in zip(sources, prefixes, strict=True):
        if its.is_streamed:
            names, load = source.names, partial(loaded, its, source, config)
        else:
            samples = its.load(source, config)
            names, load = samples.names, samples.subset
        parts.append(Part(source.name, names, prefix, None, BLOCK, load, ""))
    return Pictures(parts)


class Item(NamedTuple):
    """A sample in an answer."""

    name: str
    value: float | None = None  # what is told of it

    @property
    def caption(self) -> str:
        """The value, for people."""
        return "" if self.value is None else f"{self.value:.3f}"


class Group(NamedTuple):
    """Samples that belong together, and the one that was asked about."""

    head: str | None
    items: list[Item]


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found.

    Attributes:
        title: Of the page.
        told: A sentence.
        columns: Of the table: "query", "group", "rank" and "file", and last what is told of each.
        count: Of groups.
        groups: Gives all of them, one after the other: a table may be longer than the memory holds.
        pictures: Of what was found, where they are known.
        asked: Pictures of what was asked about.
    """

    title: str
    told: str
    columns: tuple[str, ...]
    count: int
    groups: Callable[[], Iterator[Group]]
    pictures: Pictures | None = None
    asked: Pictures | None = None

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The table, row by row."""
        for number, group in enumerate(self.groups(), start=1):
            for rank, (name, value) in enumerate(group.items, start=1):
                cells = {"query": group.head, "group": number, "rank": rank, "file": name}
                told = "" if value is None else f"{value:.6g}"
                yield tuple(cells.get(column, told) for column in self.columns)

    def written(self, target: Path | None, listener: Listener) -> "Answer":
        """The same, with its table and its page on disk, where a place is given."""
        if target is None:
            return self
        write_with(target, self._write_table)
        listener.say(f"{self.told}: {target}")
        if self.pictures is not None:
            page = target.with_suffix(".html")
            self._write_page(page, self.pictures)
            listener.say(f"page: {page}")
        return self

    def _write_table(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows(self.rows())

    def _write_page(self, page: Path, pictures: Pictures) -> None:
        """Groups up to as many pictures as a page can show."""
        shown: list[Group] = []
        room = MAX_SHOWN
        for group in self.groups():
            if room <= len(group.items) and shown:
                break
            shown.append(Group(group.head, group.items[:room]))
            room -= len(group.items) + (group.head is not None)
        tracks: list[bytes] = []
        looks = pictures.of([item.name for group in shown for item in group.items], tracks)
        heads = [group.head for group in shown if group.head is not None]
        asked = {} if self.asked is None else self.asked.of(heads, tracks)

        def as_shown(name: str, caption: str, look: Look | None) -> Shown:
            return Shown(name, caption, *(look or (None, None)))

        rows = [
            (
                None if head is None else as_shown(head, "", asked.get(head)),
                [as_shown(item.name, item.caption, looks.get(item.name)) for item in items],
            )
            for head, items in shown
        ]
        left_out = self.count - len(shown)
        write_answers_page(page, self.title, self.told, rows, left_out, tracks)


def check_answer(output: str | Path | None) -> Path | None:
    """The table that is to be written; refuses a format or place before any work is done for it.

    Raises:
        UserError: the name does not end in .csv, a place cannot be written, or the page beside it
            would replace a file that is none.
    """
    if output is None:
        return None
    path = as_path(output)
    if path.suffix != ".csv":
        raise UserError(f"cannot write an answer to {path}: the name must end in .csv")
    page = path.with_suffix(".html")
    for place in (path, page):
        check_writable(place)
    if page.exists() and not is_ours(page):
        raise UserError(
            f"{page} is there already and is no page of similitude: give another name with -o; the "
            "page goes beside the table, into a file of the same name"
        )
    return path
