"""The numbers of a run, in metrics.csv: written while it trains, read by everything after."""

import copy
import csv
import math
from collections.abc import Mapping
from pathlib import Path

from similitude.errors import UserError, visible
from similitude.files.reading import MAX_JSON, damaged, read_bytes
from similitude.files.writing import write_text

# Columns that stand first; any other that a step reports follows, sorted by name.
FIRST_COLUMNS = [
    "step",
    "epoch",
    "loss",
    "chance_loss",
    "lr",
    "images_per_second",
    "waiting_share",
    "knn",
    "feature_std",
    "feature_dim",
    "effective_rank",
    "alignment",
    "uniformity",
    "projection_std",
    "center_share",
]
_DIGITS = ".8g"  # of a value


class Metrics:
    """The rows of metrics.csv; a cell that was not measured is empty.

    Args:
        path: the file; rows beyond ``first_step`` are those of a run cut off later, and go.
        first_step: step at which this run starts; without it all rows are kept.
    """

    def __init__(self, path: Path, first_step: float = math.inf) -> None:
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["step"] <= first_step]

    def add(self, values: Mapping[str, float]) -> None:
        """Append a row, or complete the last one if it is of the same step; write the file.

        A value is kept as it is written, so that a run that was resumed judges the same numbers.
        """
        values = {name: float(f"{value:{_DIGITS}}") for name, value in values.items()}
        if self.rows and self.rows[-1]["step"] == values["step"]:
            self.rows[-1].update(values)
        else:
            self.rows.append(values)
        names = self.columns
        lines = [",".join(names)]
        lines += [
            ",".join(f"{row[name]:{_DIGITS}}" if name in row else "" for name in names)
            for row in self.rows
        ]
        write_text(self.path, "\n".join(lines) + "\n")

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in their order; none where there is no row."""
        names = {name for row in self.rows for name in row}
        return FIRST_COLUMNS + sorted(names - set(FIRST_COLUMNS)) if names else []

    def curve(self, name: str, axis: str = "step") -> tuple[list[float], list[float]]:
        """Where ``name`` was measured (in units of ``axis``) and what was found there."""
        rows = [row for row in self.rows if name in row and axis in row]
        return [row[axis] for row in rows], [row[name] for row in rows]

    def until(self, step: float) -> "Metrics":
        """What was known after a step."""
        past = copy.copy(self)
        past.rows = [row for row in self.rows if row["step"] <= step]
        return past

    def last(self, name: str) -> float | None:
        """The latest value of a column; None if it was never measured."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    def first(self, name: str) -> float | None:
        """The earliest value of a column; None if it was never measured."""
        return next((row[name] for row in self.rows if name in row), None)

    def largest(self, name: str) -> float | None:
        """The largest value of a column that is a number; None if there is none."""
        return max(self._finite(name), default=None)

    def smallest(self, name: str) -> float | None:
        """The smallest value of a column that is a number; None if there is none."""
        return min(self._finite(name), default=None)

    def _finite(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row and math.isfinite(row[name])]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv without their empty cells; none if there is no file.

    Raises:
        UserError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        lines = read_bytes(path, MAX_JSON).decode("utf-8-sig").splitlines()  # spreadsheets sign
        rows = [
            {visible(name): float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(lines)
        ]
        if any("step" not in row for row in rows):
            raise ValueError("a row without a step")
    except (AttributeError, csv.Error, TypeError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise damaged(path, error) from error
    return rows
