"""The score table, its paired differences, and what these say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from similitude.evaluation.comparison import BEFORE_TRAINING as BEFORE
from similitude.evaluation.comparison import PRETRAINED_BACKBONE as PRETRAINED
from similitude.evaluation.comparison import RANDOM_BACKBONE as RANDOM
from similitude.evaluation.scores import LABEL_FREE, Score, ScoreTable, column_title, number_text


@dataclass(frozen=True)
class Cell:
    """One score as text: percent, its interval, and points more than raw pixels."""

    mean: str
    interval: str
    difference: str
    sign: str  # "up", "down" or "" where there is nothing to compare with
    best: bool


@dataclass(frozen=True)
class Row:
    """A row of the table; a cell is None where that score was not measured."""

    name: str
    kind: str  # "baseline" or "run"
    cells: list[Cell | None]


@dataclass(frozen=True)
class Table:
    """Column titles, with their explanation, and the rows below them."""

    columns: list[tuple[str, str]]
    rows: list[Row]
    draws: int


def percent(fraction: float) -> str:
    """0.8594 -> '85.9'."""
    return f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """Difference of two fractions in points, with its sign: 0.026 -> '+2.6'."""
    rounded = round(100 * fraction, 1)
    sign = "+" if rounded > 0 else "\N{MINUS SIGN}" if rounded < 0 else "\N{PLUS-MINUS SIGN}"
    return f"{sign}{abs(rounded):.1f}"


def table(
    rows: Sequence[tuple[str, str, Mapping[str, Score]]],
    columns: Sequence[str],
    reference: Mapping[str, Score] | None,
) -> Table:
    """Lay out rows of (name, kind, scores); differences are to ``reference``."""
    best = {
        column: max((scores[column].mean for *_, scores in rows if column in scores), default=None)
        for column in columns
    }
    laid_out = []
    for name, kind, scores in rows:
        cells = []
        for column in columns:
            score = scores.get(column)
            if score is None:
                cells.append(None)
                continue
            base = None if reference is None or scores is reference else reference.get(column)
            gain = None if base is None else score.mean - base.mean
            interval = (
                f"{percent(score.low)}\N{EN DASH}{percent(score.high)}"
                if score.low is not None and score.high is not None
                else ""
            )
            sign = "" if gain is None else "up" if gain > 0 else "down" if gain < 0 else ""
            cells.append(
                Cell(
                    mean=percent(score.mean),
                    interval=interval,
                    difference="" if gain is None else points(gain),
                    sign=sign,
                    best=len(rows) > 1 and score.mean == best[column],
                )
            )
        laid_out.append(Row(name, kind, cells))
    draws = max((s.draws for *_, scores in rows for s in scores.values()), default=1)
    named = [column_title(column) for column in columns]
    return Table([(title.full, title.meaning) for title in named], laid_out, draws)


def run_table(evaluation: ScoreTable) -> Table:
    """The table of one run: its baselines and itself."""
    rows = [
        (name, "run" if name == PRETRAINED else "baseline", scores)
        for name, scores in evaluation.rows.items()
    ]
    return table(rows, evaluation.columns, evaluation.rows.get(evaluation.plain[0]))


def label_free_table(evaluation: ScoreTable) -> Table | None:
    """Numbers that need no label, of every network; None where none were taken."""
    if not evaluation.label_free:
        return None
    rows = []
    for name, numbers in evaluation.label_free.items():
        texts = [number_text(numbers[key]) if key in numbers else None for key in LABEL_FREE]
        cells = [None if text is None else Cell(text, "", "", "", best=False) for text in texts]
        rows.append(Row(name, "run" if name == PRETRAINED else "baseline", cells))
    return Table([(title.full, title.meaning) for title in LABEL_FREE.values()], rows, 1)


def full_title(column: str) -> str:
    """What a page calls a column."""
    return column_title(column).full


def first_loss(evaluation: ScoreTable) -> str:
    """A sentence for the top of the page, where start or raw pixels are as good, or better."""
    behind = (c for c in evaluation.comparisons if (c.is_plain or c.row == BEFORE) and c.loses)
    return next((comparison.loss(full_title) for comparison in behind), "")


def difference_rows(evaluation: ScoreTable) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each other row its name, and (text, sign) for each column.

    The sign is "up" or "down", or "" where the two cannot be told apart. Empty where no difference
    has an interval, as in files of earlier versions.
    """
    found = evaluation.comparisons
    if all(d.margin is None for comparison in found for d in comparison.differences.values()):
        return []
    rows = []
    for comparison in found:
        cells = []
        for column in evaluation.columns:
            d = comparison.differences.get(column)
            if d is None:
                cells.append(("", ""))
                continue
            margin = "" if d.margin is None else f" \N{PLUS-MINUS SIGN} {percent(d.margin)}"
            sign = "up" if d.is_above else "down" if d.is_below else ""
            cells.append((points(d.mean) + margin, sign))
        rows.append((comparison.row, cells))
    return rows


def shared_baselines(evaluations: Sequence[ScoreTable]) -> dict[str, dict[str, Score]]:
    """Rows that need no training and that all runs have with the same scores.

    The same test images give the same scores; runs may have been scored in different columns, of
    which each needs one in common with those before it.
    """
    shared = {}
    for name in evaluations[0].rows if evaluations else ():
        if name in (RANDOM, BEFORE, PRETRAINED):
            continue
        together: dict[str, Score] = {}
        for scores in (evaluation.rows.get(name, {}) for evaluation in evaluations):
            common = together.keys() & scores.keys()
            if (together and not common) or any(together[c] != scores[c] for c in common):
                break
            together |= scores
        else:
            shared[name] = together
    return shared
