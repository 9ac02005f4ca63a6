"""The page of an answer about embeddings: samples side by side, in rows."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from similitude.errors import visible
from similitude.files.writing import write_text
from similitude.report.gallery import make_sprite
from similitude.report.page import render

MAX_SHOWN = 2000  # pictures on a page


@dataclass(frozen=True)
class Shown:
    """A sample on the page.

    Attributes:
        name: Of the sample.
        caption: A number about it.
        picture: How it looks, where that is known.
        heard: Which track it is heard in, and from which second to which.
    """

    name: str
    caption: str
    picture: UInt8[np.ndarray, "h w 3"] | None
    heard: tuple[int, float, float] | None = None


Row = tuple[Shown | None, Sequence[Shown]]  # what was asked about, if anything, and what was found


def write_answers_page(
    path: Path,
    title: str,
    told: str,
    rows: Sequence[Row],
    left_out: int,
    tracks: Sequence[bytes] = (),
) -> None:
    """Write one self-contained HTML file.

    Args:
        path: of the page; replaced if it is there.
        title: its heading.
        told: a sentence below it.
        rows: what is shown, at most 2,000 samples.
        left_out: rows that found no place.
        tracks: sound files in which samples are heard.
    """
    every = [shown for head, found in rows for shown in ([head] if head else []) + list(found)]
    pictures = [shown.picture for shown in every if shown.picture is not None]
    cells = {}
    for shown in every:
        if shown.picture is not None:
            cells[id(shown)] = len(cells)
    html = render(
        "answers.html.j2",
        title=title,
        told=told,
        rows=rows,
        left_out=left_out,
        sprite=make_sprite(np.stack(pictures)) if pictures else None,
        cell=lambda shown: cells.get(id(shown)),
        visible=visible,
        figures={},
        points={"tracks": [b64encode(t).decode() for t in tracks]} if tracks else None,
    )
    write_text(path, html)
