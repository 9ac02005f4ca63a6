"""Scores with their uncertainty, and the table that sets a backbone beside its baselines."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

RAW_PIXELS = "raw pixels"
RANDOM_BACKBONE = "random backbone"
PRETRAINED_BACKBONE = "pretrained backbone"

# Two-sided 95 % points of Student's t for 1..9 degrees of freedom; beyond, the expansion below.
_STUDENT_95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Score:
    """An accuracy, 0..1; ``low`` and ``high`` bound its mean over draws with 95 % confidence."""

    mean: float
    low: float | None = None
    high: float | None = None
    draws: int = 1

    def to_text(self) -> str:
        """In per cent, with half the interval's width: ``67.4 +- 1.2``."""
        if self.low is None or self.high is None:
            return f"{100 * self.mean:.1f}"
        return f"{100 * self.mean:.1f} ± {50 * (self.high - self.low):.1f}"


def student_95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t.

    From 10 degrees of freedom on, the expansion of Abramowitz and Stegun 26.7.5 (error < 1e-4).
    """
    if degrees <= len(_STUDENT_95):
        return _STUDENT_95[degrees - 1]
    z = _NORMAL_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def mean_score(accuracies: Sequence[float]) -> Score:
    """Mean over draws with a 95 % Student-t interval; no interval for a single draw."""
    mean = statistics.fmean(accuracies)
    n = len(accuracies)
    if n == 1:
        return Score(mean)
    half = student_95(n - 1) * statistics.stdev(accuracies) / math.sqrt(n)
    return Score(mean, mean - half, mean + half, n)


def chance_margin(one: float, other: float, images: int) -> float:
    """Half the 95 % interval of the difference of two accuracies that so few test images leave.

    That of independent shares, which is more than that of two scores on the same images.
    """
    return _NORMAL_95 * math.sqrt((one * (1 - one) + other * (1 - other)) / images)


def column_title(column: str) -> str:
    """What a reader calls a column: "kNN", "linear", "5 labels/class"."""
    if column.startswith("linear_"):
        k = column.removeprefix("linear_")
        return f"{k} label{'' if k == '1' else 's'}/class"
    return {"knn": "kNN"}.get(column, column)


def _place_of_column(column: str) -> tuple[bool, int]:
    """Where it stands: kNN first, then all labels, then few, the fewest first."""
    labels = column.removeprefix("linear").removeprefix("_")
    return column != "knn", int(labels) if labels.isdecimal() else 0


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a backbone and its baselines: rows -> columns -> score.

    ``notes`` say in plain sentences what a reader must know beside the numbers, for example why a
    column is missing. ``key`` tells weights, images, labels and seeds apart; empty if unknown.
    """

    data: str
    num_train: int
    num_test: int
    num_classes: int
    columns: list[str]
    rows: dict[str, dict[str, Score]]
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    key: str = ""

    def is_alike(self, other: "ScoreTable") -> bool:
        """Whether both tables tell of the same weights, images, labels and seed."""
        return self.key != "" and self.key == other.key

    def completed_by(self, earlier: "ScoreTable") -> "ScoreTable":
        """This table, and the columns that it lacks of an earlier one that is alike."""
        if not self.is_alike(earlier):
            return self
        columns = sorted({*self.columns, *earlier.columns}, key=_place_of_column)
        rows = {name: {**earlier.rows.get(name, {}), **row} for name, row in self.rows.items()}
        notes = list(dict.fromkeys([*self.notes, *earlier.notes]))
        return replace(self, columns=columns, rows=rows, notes=notes)

    def best(self, column: str) -> list[str]:
        """Names of the rows with the highest mean; several when they are equal as printed."""
        shown = {r: round(s[column].mean, 3) for r, s in self.rows.items() if column in s}
        top = max(shown.values(), default=None)
        return [row for row, mean in shown.items() if mean == top]

    def warnings(self) -> list[str]:
        """Sentences on every column in which the pretrained backbone does not win."""
        pretrained = self.rows.get(PRETRAINED_BACKBONE)
        if pretrained is None:
            return []
        sentences, uncertain = [], False
        for other in (RAW_PIXELS, RANDOM_BACKBONE):
            won = {
                c: (self.rows[other][c].mean, pretrained[c].mean)
                for c in self.columns
                if c in pretrained
                and c in self.rows.get(other, {})
                and self.rows[other][c].mean > pretrained[c].mean
            }
            if won:
                name = "Raw pixels beat" if other == RAW_PIXELS else "The random backbone beats"
                columns = ", ".join(
                    f"{column_title(c)} ({100 * theirs:.1f} against {100 * ours:.1f})"
                    for c, (theirs, ours) in won.items()
                )
                sentences.append(f"{name} the pretrained backbone in: {columns}.")
                margins = (t - o < chance_margin(t, o, self.num_test) for t, o in won.values())
                uncertain = uncertain or any(margins)
        if uncertain:
            sentences.append(
                f"With only {self.num_test:,} test images, chance could make some of these "
                "differences."
            )
        return sentences

    def __str__(self) -> str:
        """The table as the command line prints it, without colours."""
        out = StringIO()
        Console(file=out, width=120, no_color=True).print(self.render())
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings, as stored in a run folder's evaluation.json."""
        return {
            "data": self.data,
            "num_train": self.num_train,
            "num_test": self.num_test,
            "num_classes": self.num_classes,
            "columns": list(self.columns),
            "rows": [
                {"name": name, "scores": {c: asdict(s) for c, s in scores.items()}}
                for name, scores in self.rows.items()
            ],
            "seconds": self.seconds,
            "notes": list(self.notes),
            "key": self.key,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any] | str) -> "ScoreTable":
        """The inverse of :meth:`to_json`; also takes the text of the file."""
        data = json.loads(value) if isinstance(value, str) else dict(value)
        data["rows"] = {
            row["name"]: {c: Score(**s) for c, s in row["scores"].items()} for row in data["rows"]
        }
        return cls(**data)

    def render(self) -> Group:
        """For the terminal: the best of each column is bold, warnings and notes stand below."""
        # Fits into 80 columns.
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("accuracy in %", no_wrap=True)
        for column in self.columns:
            title = column_title(column).replace("/class", "\nper class")
            table.add_column(title, justify="right", no_wrap=True)
        best = {column: self.best(column) for column in self.columns}
        for name, scores in self.rows.items():
            cells = [
                Text(
                    scores[column].to_text().replace(" ", "") if column in scores else "-",
                    style="bold" if name in best[column] else "",
                )
                for column in self.columns
            ]
            table.add_row(name, *cells)
        title = (
            f"{self.data}: {self.num_train:,} training and {self.num_test:,} test images, "
            f"{self.num_classes} classes"
        )
        return Group(Text(title), table, *(Text(s) for s in [*self.warnings(), *self.notes]))


def read_scores(path: Path) -> ScoreTable | None:
    """The table in a run folder's evaluation.json; None where there is none that can be read."""
    try:
        table = ScoreTable.from_json(path.read_text(encoding="utf-8"))
        return replace(table, columns=list(table.columns), notes=list(table.notes))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
