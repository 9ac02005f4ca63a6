"""The page of a decision: the sentence, the table, the label curve, confusions, mistakes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from similitude.errors import UserError, visible_values
from similitude.evaluation.scores import ScoreTable, labels_per_class
from similitude.files.reading import damaged, read_arrays, read_json
from similitude.files.writing import write_text
from similitude.report import figures, scores
from similitude.report.gallery import make_sprite
from similitude.report.page import render

MOST_CLASSES = 40  # of a confusion matrix that one can read
MOST_COPIES = 20  # that are named

Facts = dict[str, Any]


def write_decision_page(folder: Path) -> Path:
    """Write decision.html from decision.json and mistakes.npz.

    Returns:
        The page.

    Raises:
        UserError: there is no decision in the folder, or a file of it is damaged.
    """
    place = folder / "decision.json"
    try:
        facts: Facts = visible_values(read_json(place))
        table = ScoreTable.from_json(facts["table"])
        ways = [_way(way) for way in facts["ways"]]
        classes: list[str] = facts["class_names"]
        matrix = _confusion(facts["confusion"]) if len(classes) <= MOST_CLASSES else []
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(place, error) from error
    curve = _label_curve(table)
    drawn = {} if curve is None else {"labels": curve}
    rows = [(n, "run" if n == facts["use"] else "baseline", s) for n, s in table.rows.items()]
    base = table.rows.get(table.plain[0]) if table.plain else None
    html = render(
        "decision.html.j2",
        title=table.data,
        facts=facts,
        nouns=table.nouns,
        table=scores.table(rows, table.columns, base),
        raw=table.plain[0] if base else "",
        notes=table.notes,
        ways=ways,
        legend=[] if curve is None else [(t["line"]["color"], t["name"]) for t in curve["data"]],
        matrix=matrix,
        classes=classes,
        mistakes=_mistakes(folder / "mistakes.npz"),
        copies=facts["copies"][:MOST_COPIES],
        figures=drawn,
        points=None,
    )
    target = folder / "decision.html"
    write_text(target, html)
    return target


def _label_curve(table: ScoreTable) -> figures.Figure | None:
    """Accuracy against labels per class, of the rows that have several numbers of them."""
    several = {
        name: row
        for name, row in table.rows.items()
        if sum(labels_per_class(column) is not None for column in row)
    }
    return figures.labels_figure(replace(table, rows=several))


def _way(way: Facts) -> Facts:
    """A line of the table of ways: numbers as text."""
    score, behind = way["score"], way["behind"]
    margin = (behind["high"] - behind["low"]) / 2
    is_best = behind["mean"] == 0
    return {
        **way,
        "accuracy": scores.percent(score["mean"]),
        "interval": f"{scores.percent(score['low'])}\N{EN DASH}{scores.percent(score['high'])}",
        "balanced": scores.percent(way["balanced"]),
        "macro_f1": scores.percent(way["macro_f1"]),
        "difference": ""
        if is_best
        else f"{scores.points(-behind['mean'])} \N{PLUS-MINUS SIGN} {scores.percent(margin)}",
        "minutes": f"{way['seconds'] / 60:.1f}",
    }


def _confusion(matrix: Sequence[Sequence[int]]) -> list[list[tuple[int, str]]]:
    """Each number with the share of its row, 0..1, which shades it."""
    return [[(count, f"{count / max(1, sum(row)):.3f}") for count in row] for row in matrix]


def _mistakes(path: Path) -> Facts | None:
    """The pictures of some mistakes; None where there are none."""
    try:
        arrays = read_arrays(path)
    except UserError:
        return None
    if "thumbnails" not in arrays:
        return None
    shown = zip(arrays["names"], arrays["classes"], arrays["said"], strict=True)
    texts = [tuple(visible_values([str(text) for text in texts])) for texts in shown]
    return {"sprite": make_sprite(arrays["thumbnails"]), "texts": texts}
