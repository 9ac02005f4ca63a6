"""How well entries of one sensor find those of another: the table of a run; without PyTorch."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from similitude.errors import visible
from similitude.files.reading import read_json

KS = (1, 5, 10)


@dataclass(frozen=True)
class Retrieval:
    """How well one sensor's entries find those of another.

    Attributes:
        row: Whose embeddings: those of the run, or of random weights.
        asked: The sensor that asks.
        found: The sensor whose entries are ranked.
        questions: How many.
        candidates: How many.
        recall: Share of the questions with a right candidate among the first k, by k, 0..1.
        median_rank: Of the first right candidate, from 1.
    """

    row: str
    asked: str
    found: str
    questions: int
    candidates: int
    recall: dict[int, float]
    median_rank: float


@dataclass(frozen=True)
class RetrievalTable:
    """What was asked of a run and of random weights, as stored in ``retrieval.json``.

    Attributes:
        data: What was searched.
        rows: One for each direction and each of both.
        zero_shot: Share of samples whose class was named by its description, by row; empty without
            labels or texts.
        prompts: The descriptions, with {} for the class.
        weights: Fingerprint of each row's backbone that is not random.
    """

    data: str
    rows: list[Retrieval]
    zero_shot: dict[str, float] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, value: Any) -> "RetrievalTable":
        """The inverse of :meth:`to_json`, of what the text says."""
        return TypeAdapter(cls).validate_python(value)

    def render(self) -> Group:
        """For the terminal."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for name in ("found among", "by", "weights"):
            table.add_column(name, overflow="fold")
        for name in (*(f"first {k}" for k in KS), "median\nrank"):
            table.add_column(name, justify="right")
        for row in self.rows:
            shares = [f"{100 * row.recall[k]:.1f}" if k in row.recall else "-" for k in KS]
            among = f"{row.candidates:,} of {visible(row.found)}"
            weights = row.row.removesuffix(" backbone")  # names of sensors need the room
            table.add_row(among, visible(row.asked), weights, *shares, f"{row.median_rank:g}")
        said = [
            f"Classes by their description, {row}: {100 * share:.1f} %"
            for row, share in self.zero_shot.items()
        ]
        title = f"{visible(self.data)}: how often a right one is among the first, in %"
        return Group(title, table, *said)


def read_retrieval(path: Path) -> RetrievalTable | None:
    """The table in a run folder's retrieval.json; None where there is none that can be read."""
    try:
        return RetrievalTable.from_json(read_json(path))
    except ValueError:
        return None
