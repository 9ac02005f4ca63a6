"""The page of an ablation: what was expected, the table, points with intervals, and the curves."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from similitude.errors import UserError, visible_values
from similitude.files.reading import read_json
from similitude.files.writing import write_text
from similitude.report import curves, figures
from similitude.report.page import render
from similitude.report.read import read_run

# What is drawn for each varied field: key, title, how to read it, factor.
MEASURES = (
    ("knn", "kNN, %", "Accuracy of a vote of neighbors.", 100.0),
    ("linear", "Linear probe, %", "Accuracy of one linear layer.", 100.0),
    ("finetuned", "Fine-tuned, %", "Accuracy of backbone and logits, trained on labels.", 100.0),
    ("effective_rank", "Effective rank", "How many directions the features really use.", 1.0),
    ("relative_std", "Feature spread", "1: even; near 0: all images alike.", 1.0),
)
DIGITS = {"effective_rank": 1, "relative_std": 2, "loss": 2}
LONGEST_LABEL = 18  # of a cell beside a small plot

Facts = dict[str, Any]


def write_ablation_page(folder: Path) -> Path:
    """Write ablation.html from ablation.json and the run folders it names.

    Returns:
        The page.

    Raises:
        UserError: there is no ablation in the folder, or a file of it is damaged.
    """
    try:
        facts: Facts = visible_values(read_json(folder / "ablation.json"))
    except UserError as error:
        raise UserError(f"{folder} holds no finished ablation: run similitude ablate") from error
    cells: list[Facts] = facts["cells"]
    runs = [(i, cell, run) for i, cell in enumerate(cells) for run in _finished(cell)]
    summaries = [read_run(folder / run["folder"]) for _, _, run in runs]
    labels = [f"{cell['name']}, seed {run['seed']}" for _, cell, run in runs]
    positions = [i for i, _, _ in runs]
    panels, axis = curves.curve_panels(summaries, labels, positions)
    extras = curves.extra_panels(summaries, labels, positions)
    groups = _groups(facts)
    drawn = [*panels, *extras, *(panel for group in groups for panel in group["panels"])]
    target = folder / "ablation.html"
    html = render(
        "ablation.html.j2",
        title=facts["title"],
        facts=facts,
        columns=_columns(facts),
        rows=[_row(i, cell, facts) for i, cell in enumerate(cells)],
        groups=groups,
        legend=[(figures.run_color(i), cell["name"]) for i, cell in enumerate(cells)],
        panels=panels,
        extras=extras,
        axis=axis,
        figures={panel.key: panel.figure for panel in drawn},
        points=None,
    )
    write_text(target, html)
    return target


def _columns(facts: Facts) -> list[tuple[str, str]]:
    """Key and title of the measures that some cell has."""
    titles = {key: title for key, title, _, _ in MEASURES} | {"loss": "Loss"}
    return [(k, t) for k, t in titles.items() if any(k in c["means"] for c in facts["cells"])]


def _row(position: int, cell: Facts, facts: Facts) -> Facts:
    """A line of the table: numbers as text, with their intervals."""
    factors = {key: factor for key, _, _, factor in MEASURES}
    numbers = []
    for key, _ in _columns(facts):
        score = cell["means"].get(key)
        digits, factor = DIGITS.get(key, 1), factors.get(key, 1.0)
        numbers.append(None if score is None else _interval_text(score, factor, digits))
    stopped = sum(run["stopped_early"] for run in cell["runs"])
    return {
        "name": cell["name"],
        "color": figures.run_color(position),
        "numbers": numbers,
        "verdict": cell["verdict"],
        "stopped": f"{stopped} of {len(cell['runs'])} stopped early" if stopped else "",
        "minutes": f"{cell['minutes']:.1f}",
        "folders": [run["folder"] for run in _finished(cell)],
    }


def _finished(cell: Facts) -> list[Facts]:
    """The runs that have a folder to look into."""
    return [run for run in cell["runs"] if run["verdict"] != "failed"]


def _interval_text(score: Mapping[str, Any], factor: float, digits: int) -> tuple[str, str]:
    mean = f"{factor * score['mean']:.{digits}f}"
    if score["high"] is None:
        return mean, ""
    return mean, f"\N{PLUS-MINUS SIGN} {factor * (score['high'] - score['mean']):.{digits}f}"


def _groups(facts: Facts) -> list[Facts]:
    """For each varied field, or for the cells of a study: a legend and a panel per measure."""
    cells, fields = facts["cells"], facts["fields"]
    if not fields:
        panels = [_points(facts, measure, "study", {"": cells}, _cell_name) for measure in MEASURES]
        return [{"name": "", "legend": [], "panels": [panel for panel in panels if panel]}]
    groups = []
    for field in fields:
        others = [other for other in fields if other != field]
        lines: dict[str, list[Facts]] = {}
        for cell in cells:
            fixed = ", ".join(f"{o}={_text(cell['settings'][o])}" for o in others)
            lines.setdefault(fixed, []).append(cell)

        def value(cell: Facts, field: str = field) -> str:
            return _text(cell["settings"][field])

        panels = [_points(facts, measure, field, lines, value) for measure in MEASURES]
        names = [(figures.run_color(i), name) for i, name in enumerate(lines) if name]
        groups.append(
            {"name": field, "legend": names, "panels": [panel for panel in panels if panel]}
        )
    return groups


def _text(value: Any) -> str:
    """A value as it is typed after --vary."""
    return value if isinstance(value, str) else json.dumps(value)


def _cell_name(cell: Facts) -> str:
    name = cell["name"]
    return (
        name
        if len(name) <= LONGEST_LABEL
        else name[: LONGEST_LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def _points(
    facts: Facts,
    measure: tuple[str, str, str, float],
    field: str,
    lines: Mapping[str, Sequence[Facts]],
    label: Any,
) -> curves.Panel | None:
    """Means with intervals against the values of a field, and every run as a small ring."""
    key, title, caption, factor = measure
    traces = []
    for position, (name, cells) in enumerate(lines.items()):
        shown = [cell for cell in cells if key in cell["means"]]
        if not shown:
            continue
        color = figures.run_color(position) if len(lines) > 1 else "var(--accent)"
        means = [cell["means"][key] for cell in shown]
        reach = [factor * (m["high"] - m["mean"]) if m["high"] is not None else 0.0 for m in means]
        places = [label(cell) for cell in shown]
        numbers = figures.rounded(factor * m["mean"] for m in means)
        text = [
            figures.plain(f"{cell['name']}: {number:.4g}")
            for cell, number in zip(shown, numbers, strict=True)
        ]
        axis = ("y", "x") if field == "study" else ("x", "y")
        traces.append(
            {
                "type": "scatter",
                "name": name,
                "mode": "markers" if field == "study" else "lines+markers",
                axis[0]: places,
                axis[1]: numbers,
                f"error_{axis[1]}": {
                    "type": "data",
                    "array": figures.rounded(reach),
                    "color": color,
                    "thickness": 1.5,
                    "width": 4,
                },
                "line": {"color": color, "width": 2},
                "marker": {"color": color, "size": 8},
                "text": text,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
        single = [
            (place, factor * value)
            for place, cell in zip(places, shown, strict=True)
            for run in cell["runs"]
            if (value := run["values"].get(key)) is not None and math.isfinite(value)
        ]
        traces.append(
            {
                "type": "scatter",
                "name": "runs",
                "mode": "markers",
                axis[0]: [place for place, _ in single],
                axis[1]: figures.rounded(value for _, value in single),
                "marker": {"color": color, "size": 6, "symbol": "circle-open"},
                "hoverinfo": "skip",
            }
        )
    if not traces:
        return None
    values = [v for trace in traces for v in trace["x" if field == "study" else "y"]]
    # Two seeds give intervals that would press all dots together: they run out of the plot.
    pad = max(0.15 * (max(values) - min(values)), 0.02 * max(map(abs, values)), 1e-3)
    limits = {"range": [min(values) - pad, max(values) + pad]}
    layout = figures.base_layout("" if field == "study" else field.rpartition(".")[2])
    layout["hovermode"] = "closest"
    if field == "study":
        layout["yaxis"] |= {"type": "category", "autorange": "reversed", "automargin": True}
        layout["xaxis"] |= {"showgrid": True, **limits}
        layout["yaxis"] |= {"showgrid": False}
    else:
        layout["xaxis"] |= {"type": "category"}
        layout["yaxis"] |= limits
    return curves.Panel(f"points-{field}-{key}", title, caption, "", figures.figure(traces, layout))
