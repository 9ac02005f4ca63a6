"""What one sensor finds of another: the table, and a few questions with what was found first."""

from dataclasses import dataclass
from itertools import groupby

from similitude.evaluation.retrieval_table import KS, RetrievalTable
from similitude.report.gallery import Sprite, make_sprite
from similitude.report.read import RunSummary
from similitude.report.scores import PRETRAINED, percent

SPRITE_BYTES = 600_000


@dataclass(frozen=True)
class Answer:
    """An entry that was found, and whether it belongs to what was asked."""

    entry: int
    is_right: bool


@dataclass(frozen=True)
class Asked:
    """Questions of one sensor to another: the entry that asks, and what was found."""

    asked: str
    found: str
    questions: list[tuple[int, list[Answer]]]


@dataclass(frozen=True)
class Row:
    """A row of the table: what is found, by what, whose weights, and its numbers as text."""

    direction: str
    weights: str
    kind: str  # "baseline" or "run"
    cells: list[str]


@dataclass(frozen=True)
class RetrievalPage:
    """Everything the page shows of it."""

    data: str
    ks: tuple[int, ...]
    rows: list[Row]
    zero_shot: list[str]
    examples: list[Asked]
    sprite: Sprite | None
    names: list[str]
    is_text: list[bool]


def build_retrieval(run: RunSummary) -> RetrievalPage | None:
    """Table and examples; None where nobody has asked."""
    table, shown = run.retrieval, run.examples
    if table is None:
        return None
    examples = []
    if shown is not None:
        pairs = list(zip(shown.asked, shown.found, strict=True))
        for (asked, found), rows in groupby(range(len(pairs)), key=lambda row: pairs[row]):
            questions = [
                (
                    int(shown.query[row]),
                    [
                        Answer(int(entry), bool(is_right))
                        for entry, is_right in zip(
                            shown.answers[row], shown.right[row], strict=True
                        )
                        if entry >= 0
                    ],
                )
                for row in rows
            ]
            examples.append(Asked(asked, found, questions))
    return RetrievalPage(
        data=table.data,
        ks=KS,
        rows=_rows(table),
        zero_shot=[f"{percent(share)} % by the {row}" for row, share in table.zero_shot.items()],
        examples=examples,
        sprite=None if shown is None else make_sprite(shown.thumbnails, SPRITE_BYTES),
        names=[] if shown is None else shown.names,
        is_text=[] if shown is None else shown.is_text.tolist(),
    )


def _rows(table: RetrievalTable) -> list[Row]:
    return [
        Row(
            direction=f"{row.found} by {row.asked}, of {row.candidates:,}",
            weights=row.row,
            kind="run" if row.row == PRETRAINED else "baseline",
            cells=[
                *(percent(row.recall[k]) if k in row.recall else "" for k in KS),
                f"{row.median_rank:g}",
            ],
        )
        for row in table.rows
    ]
