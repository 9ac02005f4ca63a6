"""Scores with their uncertainty, and the table that sets a backbone beside its baselines."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from similitude.errors import visible
from similitude.evaluation.comparison import (
    BEFORE_TRAINING,
    PRETRAINED_BACKBONE,
    RANDOM_BACKBONE,
    RAW_PIXELS,
    Comparison,
    Difference,
    compare,
    losses,
    sentences,
    student_95,
)
from similitude.files.reading import read_json


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


def mean_score(accuracies: Sequence[float]) -> Score:
    """Mean over draws with a 95 % Student-t interval; no interval for a single draw."""
    mean = statistics.fmean(accuracies)
    n = len(accuracies)
    if n == 1:
        return Score(mean)
    half = student_95(n - 1) * statistics.stdev(accuracies) / math.sqrt(n)
    return Score(mean, mean - half, mean + half, n)


class Title(NamedTuple):
    """What a column is called: short, for a narrow table; in full; and what it means."""

    short: str
    full: str
    meaning: str


TITLES = {
    "knn": Title("kNN", "kNN", "vote of the nearest training samples; nothing is trained"),
    "linear": Title(
        "linear", "linear probe", "one linear layer trained on all labels, backbone frozen"
    ),
    "finetuned": Title(
        "fine-tuned", "fine-tuned", "the whole network trained on all labels, with a linear layer"
    ),
}


# Numbers that need no label, in their order; see evaluation.label_free for their papers.
LABEL_FREE = {
    "effective_rank": Title("rank", "effective rank", "RankMe: directions in use, of the width"),
    "alpha_req": Title("alpha", "alpha-ReQ", "how steeply the spectrum falls; near 1 is best"),
    "uniformity": Title("uniform", "uniformity", "how even directions are; lower is more even"),
    "intrinsic_dimension": Title(
        "dimension", "intrinsic dimension", "numbers that tell images from neighbors (TwoNN)"
    ),
    "cluster_learnability": Title(
        "learnable", "cluster learnability", "how soon neighbors learn clusters, 0 to 1 (CLID)"
    ),
}


def labels_per_class(column: str) -> int | None:
    """The k of a column ``linear_k``; None for the others."""
    tail = column.removeprefix("linear_")
    return int(tail) if column.startswith("linear_") and tail.isdecimal() else None


def column_title(column: str) -> Title:
    """What a column is called: by its own name, where nobody has given it a title."""
    k = labels_per_class(column)
    if k is None:
        return TITLES.get(column, Title(column, column.replace("_", " "), column))
    labels = "1 label" if k == 1 else f"{k} labels"
    meaning = f"linear probe that sees {labels} of each class"
    return Title(f"{labels}/class", f"{labels} per class", meaning)


def place_of_column(column: str) -> tuple[int, int]:
    """Where it stands: kNN first, then all labels, then few, the fewest first, then others."""
    if (k := labels_per_class(column)) is not None:
        return 1, k
    return {"knn": 0, "linear": 1}.get(column, 2), 0


def _place_of_row(name: str, plain: Sequence[str]) -> int:
    """Where it stands: what learned nothing, then published weights, then one's own."""
    first = (*plain, RANDOM_BACKBONE, BEFORE_TRAINING)
    return first.index(name) if name in first else len(first) + (name == PRETRAINED_BACKBONE)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a backbone and its baselines: rows -> columns -> score.

    ``notes`` say in plain sentences what a reader must know beside the numbers, for example why a
    column is missing. ``key`` tells weights, images, labels and seeds apart; empty if unknown.
    ``weights`` tells those of each row apart. ``differences`` are those of the pretrained backbone
    to each other row, image by image or draw by draw: rows -> columns. ``plain`` are the rows that
    need no network, the one that others are compared with first; ``nouns`` is what the samples are
    called. ``label_free`` has numbers of the training samples' features that need no label, by row
    and name.
    """

    data: str
    num_train: int | None
    num_test: int | None
    num_classes: int | None
    columns: list[str]
    rows: dict[str, dict[str, Score]]
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    key: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    differences: dict[str, dict[str, Difference]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=lambda: [RAW_PIXELS])
    nouns: str = "images"
    label_free: dict[str, dict[str, float]] = field(default_factory=dict)

    def title(self, column: str) -> str:
        """What a reader calls a column."""
        return column_title(column).short

    def is_alike(self, other: "ScoreTable") -> bool:
        """Whether both tables tell of the same weights, images, labels and seed."""
        return self.key != "" and self.key == other.key

    def completed_by(self, earlier: "ScoreTable") -> "ScoreTable":
        """This table, and the columns and rows that it lacks of an earlier one that is alike."""
        if not self.is_alike(earlier):
            return self
        same = {
            name: row
            for name, row in earlier.rows.items()
            if name not in self.rows or self.weights.get(name) == earlier.weights.get(name)
        }
        names = sorted({**self.rows, **same}, key=lambda name: _place_of_row(name, self.plain))
        differences = {
            name: {**earlier.differences.get(name, {}), **self.differences.get(name, {})}
            if name in same
            else self.differences.get(name, {})
            for name in names
        }
        columns = dict.fromkeys([*self.columns, *(c for row in same.values() for c in row)])
        return replace(
            self,
            columns=sorted(columns, key=place_of_column),
            rows={name: {**same.get(name, {}), **self.rows.get(name, {})} for name in names},
            notes=list(dict.fromkeys([*self.notes, *earlier.notes])),
            weights={**earlier.weights, **self.weights},
            differences={name: found for name, found in differences.items() if found},
            label_free={
                name: found
                for name in names
                if (found := self.label_free.get(name, earlier.label_free.get(name)))
            },
        )

    def best(self, column: str) -> list[str]:
        """Names of the rows with the highest mean; several when they are equal as printed."""
        shown = {r: round(s[column].mean, 3) for r, s in self.rows.items() if column in s}
        top = max(shown.values(), default=None)
        return [row for row, mean in shown.items() if mean == top]

    @property
    def comparisons(self) -> list[Comparison]:
        """The pretrained backbone beside each other row; of old tables without intervals."""
        means = {row: {c: s.mean for c, s in scores.items()} for row, scores in self.rows.items()}
        return compare(means, self.columns, self.differences, self.plain)

    def warnings(self) -> list[str]:
        """Sentences on every row that the pretrained backbone does not beat, and what to do."""
        return losses(self.comparisons, self.title)

    def sentences(self, title: Callable[[str], str] | None = None) -> list[str]:
        """What the differences say, the warnings first; columns are called by their short titles.

        Args:
            title: What to call a column instead.
        """
        return sentences(self.comparisons, title or self.title, self.num_test, self.nouns)

    def __str__(self) -> str:
        """The table as the command line prints it, without colors."""
        out = StringIO()
        Console(file=out, width=120, no_color=True).print(self.render())
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings, as stored in a run folder's evaluation.json."""
        value = asdict(self)
        value["rows"] = [{"name": row, "scores": scores} for row, scores in value["rows"].items()]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any] | str) -> "ScoreTable":
        """The inverse of :meth:`to_json`; also takes the text of the file."""
        data = json.loads(value) if isinstance(value, str) else dict(value)
        data["rows"] = {
            row["name"]: {
                column: score
                for column, score in row["scores"].items()
                if score is not None and math.isfinite(float(score["mean"]))
            }
            for row in data["rows"]
        }
        return TypeAdapter(cls).validate_python(data)

    def render(self) -> Group:
        """For the terminal: the best of each column is bold, sentences and notes stand below."""
        # Fits into 80 columns: only names are folded, which may be long.
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("accuracy in %", overflow="fold")
        for column in self.columns:
            title = self.title(column).replace("/class", "\nper class")
            table.add_column(title, justify="right", no_wrap=True)
        best = {column: self.best(column) for column in self.columns}
        beside = "" if len(self.columns) < 7 else "\n"  # so many leave names no room
        for name, scores in self.rows.items():
            cells = [
                Text(
                    scores[column].to_text().replace(" ± ", f"{beside}±")
                    if column in scores
                    else "-",
                    style="bold" if name in best[column] else "",
                )
                for column in self.columns
            ]
            table.add_row(Text(visible(name)), *cells)
        title = (
            f"{visible(self.data)}: {self.num_train or 0:,} training and {self.num_test or 0:,} "
            f"test {self.nouns}, {self.num_classes or 0} classes"
        )
        said = [*self.sentences(), *self.notes]
        tables = [table, *([self._label_free_table()] if self.label_free else [])]
        return Group(Text(title), *tables, *(Text(visible(sentence)) for sentence in said))

    def _label_free_table(self) -> Table:
        """Numbers that need no label; none is a score, so none is bold."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("without labels", overflow="fold")
        for title in LABEL_FREE.values():
            table.add_column(title.short, justify="right", no_wrap=True)
        for name, numbers in self.label_free.items():
            cells = [number_text(numbers.get(key)) for key in LABEL_FREE]
            table.add_row(Text(visible(name)), *cells)
        return table


def number_text(value: float | None) -> str:
    """A number without a label in three digits; a dash where it is not defined."""
    return "-" if value is None else f"{value:.3g}"


def read_scores(path: Path) -> ScoreTable | None:
    """The table in a run folder's evaluation.json; None where there is none that can be read."""
    try:
        return ScoreTable.from_json(read_json(path))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
