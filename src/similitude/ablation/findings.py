"""What an ablation found: numbers by cell, intervals over seeds, as table, JSON and CSV."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from similitude.ablation.grid import value_text
from similitude.ablation.studies import STUDIES
from similitude.ablation.study import ACCURACIES, COLLAPSED, Judgement
from similitude.errors import visible
from similitude.evaluation.scores import Score, mean_score
from similitude.experiment import FAILED
from similitude.files.writing import write_text

# Columns of the terminal's table: measure, title, digits after the point.
COLUMNS = (
    ("knn", "kNN", 1),
    ("linear", "linear", 1),
    ("finetuned", "fine-tuned", 1),
    ("effective_rank", "rank", 1),
    ("relative_std", "std", 2),
    ("loss", "loss", 2),
)
LEGEND = (
    "kNN, linear: accuracy in %; rank: effective rank of the features; std: their spread, 1 is "
    "even and 0 constant; min: of training, one run."
)


@dataclass(frozen=True)
class RunFinding:
    """One run of a cell."""

    seed: int
    path: Path
    state: str  # the verdict: healthy, doubtful, collapsed; or FAILED
    stopped_early: bool
    seconds: float  # of training
    values: dict[str, float]  # scores, and the last of everything measured in training


@dataclass(frozen=True)
class CellFinding:
    """The runs of one cell, one for each seed."""

    name: str
    settings: dict[str, Any]  # varied field -> value; empty in a study
    runs: list[RunFinding]

    def values(self, measure: str) -> list[float]:
        """One number for each run, NaN where it has none."""
        if measure == COLLAPSED:
            known = {FAILED: math.nan, "collapsed": 1.0}
            return [known.get(run.state, 0.0) for run in self.runs]
        return [run.values.get(measure, math.nan) for run in self.runs]

    def mean(self, measure: str) -> Score | None:
        """The mean over the runs that have a number, and its 95 % interval; None without any."""
        finite = [value for value in self.values(measure) if math.isfinite(value)]
        return mean_score(finite) if finite else None

    @property
    def measures(self) -> list[str]:
        """What some run measured."""
        return sorted({measure for run in self.runs for measure in run.values})

    @property
    def verdict(self) -> str:
        """The runs' verdicts in a few words: "healthy", or "1 healthy, 1 collapsed"."""
        counts = Counter(run.state for run in self.runs)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{number} {state}" for state, number in counts.most_common())

    @property
    def minutes(self) -> float:
        """Of training, mean over the runs."""
        return sum(run.seconds for run in self.runs) / len(self.runs) / 60


@dataclass(frozen=True)
class Ablation:
    """Everything an ablation found.

    Attributes:
        path: the folder, with ``ablation.json``, ``.csv`` and ``.html``.
        title: what was varied.
        question: of a study; empty for a grid.
        fields: what varied, as it was given; empty for a study.
        notes: on images and scores, in plain sentences.
        baselines: accuracies of raw pixels and of the first cell's backbone with random weights.
        cells: in the order they were asked for.
        judgements: of a study: what was expected, and whether it shows.
    """

    path: Path
    title: str
    question: str
    fields: list[str]
    notes: list[str]
    baselines: dict[str, dict[str, Score]]
    cells: list[CellFinding]
    judgements: list[Judgement]

    @property
    def failed(self) -> int:
        """How many runs ended with an error; the same call tries them again."""
        return sum(run.state == FAILED for cell in self.cells for run in cell.runs)

    def render(self) -> Group:
        """For the terminal: the table, its legend, and a line for each expectation."""
        shown = [c for c in COLUMNS if any(cell.mean(c[0]) is not None for cell in self.cells)]
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("", overflow="fold")
        for _, title, _ in shown:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("verdict")
        table.add_column("min", justify="right", no_wrap=True)
        for name, scores in self.baselines.items():
            known = (scores.get(measure) for measure, _, _ in shown)
            table.add_row(
                Text(visible(name), "dim"), *(f"{100 * s.mean:.1f}" if s else "-" for s in known)
            )
        for cell in self.cells:
            numbers = (number_text(cell.mean(m), m, digits) for m, _, digits in shown)
            early = " early" if all(run.stopped_early for run in cell.runs) else ""
            name = cell.name.replace(",", ", ") if self.fields else cell.name
            table.add_row(
                Text(visible(name)), *numbers, cell.verdict + early, f"{cell.minutes:.1f}"
            )
        lines = [*self.notes, LEGEND, *(judgement.line for judgement in self.judgements)]
        told = (Text(visible(line)) for line in lines)
        return Group(Text(visible(self.title), "bold"), table, *told)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings; what is not finite is null."""
        return {
            "title": self.title,
            "question": self.question,
            "fields": self.fields,
            "notes": self.notes,
            "baselines": {
                name: {column: asdict(score) for column, score in scores.items()}
                for name, scores in self.baselines.items()
            },
            "cells": [
                {
                    "name": cell.name,
                    "settings": cell.settings,
                    "verdict": cell.verdict,
                    "minutes": cell.minutes,
                    "means": {
                        measure: asdict(score)
                        for measure in cell.measures
                        if (score := cell.mean(measure)) is not None
                    },
                    "runs": [self._run_facts(run) for run in cell.runs],
                }
                for cell in self.cells
            ],
            "expected": [asdict(judgement) for judgement in self.judgements],
        }

    def _run_facts(self, run: RunFinding) -> dict[str, Any]:
        return {
            "seed": run.seed,
            "folder": run.path.relative_to(self.path).as_posix(),
            "verdict": run.state,
            "stopped_early": run.stopped_early,
            "seconds": run.seconds,
            "values": {k: v if math.isfinite(v) else None for k, v in run.values.items()},
        }

    def to_csv(self) -> str:
        """One row for each run."""
        measured = {measure for cell in self.cells for measure in cell.measures}
        first = [measure for measure, _, _ in COLUMNS if measure in measured]
        measures = first + sorted(measured - set(first))
        head = ["cell", "seed", *self.fields, "verdict", "stopped_early", "seconds", *measures]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(head)
        for cell in self.cells:
            settings = [value_text(cell.settings[field]) for field in self.fields]
            for run in cell.runs:
                numbers = [run.values.get(measure) for measure in measures]
                facts = [run.state, int(run.stopped_early), f"{run.seconds:.1f}"]
                texts = ["" if number is None else f"{number:.8g}" for number in numbers]
                writer.writerow([cell.name, run.seed, *settings, *facts, *texts])
        return text.getvalue()

    def write(self) -> None:
        """Write ablation.json and ablation.csv, each in one piece."""
        facts = json.dumps(self.to_json(), indent=2, allow_nan=False)
        write_text(self.path / "ablation.json", facts + "\n")
        write_text(self.path / "ablation.csv", self.to_csv())


def studies_table() -> Table:
    """The studies: name, question, size, and minutes on two cores."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("study", no_wrap=True)
    table.add_column("question")
    table.add_column("runs", justify="right")
    table.add_column("min", justify="right")
    for name, study in STUDIES.items():
        runs = f"{len(study.cells)} x {study.seeds}"
        table.add_row(name, study.question, runs, f"{study.minutes:.0f}")
    return table


def number_text(score: Score | None, measure: str, digits: int) -> str:
    """A mean with half its interval, accuracies in per cent; a hyphen where there is none."""
    if score is None:
        return "-"
    if measure in ACCURACIES:
        return score.to_text().replace(" ", "")
    return f"{score.mean:.{digits}f}"


def values_by_cell(cells: Sequence[CellFinding]) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """As :func:`similitude.ablation.study.judge` takes them."""
    return {cell.name: {m: cell.values(m) for m in (*cell.measures, COLLAPSED)} for cell in cells}
