"""The score table: cells with interval and difference, the best of each column, the losses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from similitude.report.read import Evaluation, Score

RAW = "raw pixels"
RANDOM = "random backbone"
PRETRAINED = "pretrained backbone"


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


def labels_per_class(column: str) -> int | None:
    """The k of a column ``linear_k``; None for the others."""
    tail = column.removeprefix("linear_")
    return int(tail) if column.startswith("linear_") and tail.isdigit() else None


def column_title(column: str) -> tuple[str, str]:
    """What a column is called, and one sentence on what it means."""
    if column == "knn":
        return "kNN", "vote of the nearest training images; nothing is trained"
    if column == "linear":
        return "linear probe", "one linear layer trained on all labels, backbone frozen"
    k = labels_per_class(column)
    if k is not None:
        noun = "label" if k == 1 else "labels"
        return f"{k} {noun} per class", f"linear probe that sees {k} {noun} of each class"
    return column.replace("_", " "), column


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
    return Table([column_title(column) for column in columns], laid_out, draws)


def run_table(evaluation: Evaluation) -> Table:
    """The table of one run: its baselines and itself."""
    rows = [
        (name, "run" if name == PRETRAINED else "baseline", scores)
        for name, scores in evaluation.rows.items()
    ]
    return table(rows, evaluation.columns, evaluation.rows.get(RAW))


def gains(evaluation: Evaluation, over: str) -> dict[str, float]:
    """Pretrained minus ``over`` (fractions) for every column that both have."""
    ours, theirs = evaluation.rows.get(PRETRAINED, {}), evaluation.rows.get(over, {})
    return {
        column: ours[column].mean - theirs[column].mean
        for column in evaluation.columns
        if column in ours and column in theirs
    }


def where_baselines_win(evaluation: Evaluation) -> str:
    """Sentences on every column where raw pixels or random weights beat the pretrained backbone.

    And on differences, for better or worse, that too few test images leave open.
    """
    compared, sentences, open_ones, ahead = [], [], [], True
    for row, name in ((RAW, "raw pixels"), (RANDOM, "random weights")):
        differences = gains(evaluation, row)
        if differences:
            compared.append(name)
        ahead = ahead and all(gain > 0 for gain in differences.values())
        lost = [
            f"{column_title(column)[0]} ({percent(evaluation.rows[row][column].mean)} against "
            f"{percent(evaluation.rows[PRETRAINED][column].mean)})"
            for column, gain in differences.items()
            if gain < 0
        ]
        if lost:
            sentences.append(f"{name.capitalize()} win in {join(lost)}.")
        small = [
            column_title(column)[0]
            for column, gain in differences.items()
            if 0 < abs(gain) < margin(evaluation, row, column)
        ]
        if small:
            where = "every column" if len(small) == len(differences) > 1 else join(small)
            open_ones.append(f"{name} in {where}")
    if compared and ahead:
        sentences = [f"The pretrained backbone is ahead of {join(compared)} in every column."]
    if open_ones:
        sentences.append(
            f"With only {evaluation.num_test:,} test images, chance could make the difference to "
            f"{join(open_ones)}."
        )
    return " ".join(sentences)


def margin(evaluation: Evaluation, row: str, column: str) -> float:
    """The difference to ``row`` that chance could make; 0 where the images are not counted.

    As `evaluation.scores.chance_margin`, which would load PyTorch.
    """
    if not evaluation.num_test:
        return 0.0
    ours, theirs = evaluation.rows[PRETRAINED][column].mean, evaluation.rows[row][column].mean
    variance = (ours * (1 - ours) + theirs * (1 - theirs)) / evaluation.num_test
    return 1.96 * math.sqrt(variance)


def shared_baseline(
    raws: Sequence[Mapping[str, Score] | None],
) -> dict[str, Score] | None:
    """Raw pixels' scores of several runs as one row; None unless all have the same ones.

    The same test images give the same scores; runs may have been scored in different columns, of
    which each needs one in common with those before it.
    """
    together: dict[str, Score] = {}
    for raw in raws:
        if raw is None:
            return None
        common = together.keys() & raw.keys()
        if (together and not common) or any(together[c] != raw[c] for c in common):
            return None
        together |= raw
    return together


def join(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
