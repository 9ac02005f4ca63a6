"""The page of an evolution: the best, the fitness and what it says, every individual."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from similitude.errors import UserError, visible_values
from similitude.files.reading import read_json
from similitude.files.writing import write_text
from similitude.report import curves, figures
from similitude.report.page import render

Facts = dict[str, Any]
Correlations = dict[tuple[str, str], Facts]

# Key, title, digits, factor.
MEASURES = (
    ("fitness", "Fitness", 4, 1.0),
    ("effective_rank", "RankMe", 1, 1.0),
    ("knn", "kNN, %", 1, 100.0),
    ("linear", "Linear probe, %", 1, 100.0),
)
PROBES = MEASURES[2:]


def write_evolution_page(folder: Path) -> Path:
    """Write evolution.html from evolution.json.

    Returns:
        The page.

    Raises:
        UserError: there is no evolution in the folder, or its file is damaged.
    """
    try:
        facts: Facts = visible_values(read_json(folder / "evolution.json"))
    except UserError as error:
        raise UserError(f"{folder} holds no finished evolution: run similitude evolve") from error
    people = facts["individuals"]
    columns = [m for m in MEASURES if any(m[0] in one["values"] for one in people)]
    found: Correlations = {(c["of"], c["with_"]): c for c in facts["correlations"]}
    panels = [_by_generation(people), *_against_probes(people, found)]
    target = folder / "evolution.html"
    html = render(
        "evolution.html.j2",
        title=facts["title"],
        facts=facts,
        best=next((one for one in people if one["folder"] == facts["best"]), None),
        columns=[title for _, title, _, _ in columns],
        baselines=[(name, _numbers(v, columns)) for name, v in facts["baselines"].items()],
        people=[(one, _numbers(one["values"], columns)) for one in people],
        others=[m for m in columns if m[0] != "effective_rank"],
        settings=[_setting(r, facts, columns, found) for r in facts["ranges"]],
        generations=1 + max(one["generation"] for one in people),
        color=figures.run_color,
        panels=panels,
        figures={panel.key: panel.figure for panel in panels},
        points=None,
    )
    write_text(target, html)
    return target


def _numbers(values: Facts, columns: Sequence[tuple[str, str, int, float]]) -> list[str]:
    """A line of the table, as text; empty where nothing was measured."""
    return [f"{f * values[key]:.{d}f}" if key in values else "" for key, _, d, f in columns]


def _setting(span: Facts, facts: Facts, columns: Sequence[Any], found: Correlations) -> Facts:
    """What became of a number of the recipe, and what goes with it."""
    path = span["path"]
    bests = [o["settings"][path] for o in facts["individuals"] if o["folder"] == facts["best"]]
    ranks = [found.get((path, key)) for key, *_ in columns if key != "effective_rank"]
    return {
        "path": path,
        "range": f"{span['low']:g} to {span['high']:g}{', log' if span['log'] else ''}",
        "best": f"{bests[0]:.4g}" if bests else "",
        "ranks": [(f"{c['rho']:+.2f}", f"p {c['p']:.2g}") if c else None for c in ranks],
    }


def _by_generation(people: Sequence[Facts]) -> curves.Panel:
    """Every sound individual, and best and mean of each generation."""
    sound = [one for one in people if one["sound"]]
    generations = sorted({one["generation"] for one in sound})
    fitness = {
        g: [o["values"]["fitness"] for o in sound if o["generation"] == g] for g in generations
    }
    traces = _dots(sound, "generation", "fitness", 1.0)
    for name, choose, dash in (("best", min, "solid"), ("mean", _mean, "dot")):
        traces.append(
            {
                "type": "scatter",
                "name": name,
                "mode": "lines",
                "x": generations,
                "y": figures.rounded(choose(fitness[g]) for g in generations),
                "line": {"color": "var(--accent)", "width": 2, "dash": dash},
                "hovertemplate": f"{name} %{{y:.4~g}}<extra></extra>",
            }
        )
    layout = figures.base_layout("generation")
    layout["hovermode"] = "closest"
    layout["xaxis"] |= {"dtick": 1}
    caption = "Less is better. Line: the best of each generation; dotted: the mean."
    return curves.Panel("generations", "Fitness", caption, "", figures.figure(traces, layout))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _against_probes(people: Sequence[Facts], found: Correlations) -> list[curves.Panel]:
    """Fitness and RankMe of the sound individuals against their accuracies."""
    panels = []
    for x, x_title, _, _ in MEASURES[:2]:
        for y, y_title, _, factor in PROBES:
            shown = [one for one in people if one["sound"] and {x, y} <= one["values"].keys()]
            if not shown:
                continue
            layout = figures.base_layout(x_title)
            layout["hovermode"] = "closest"
            dots = figures.figure(_dots(shown, x, y, factor), layout)
            known = found.get((x, y))
            rank = f"{known['rho']:+.2f}" if known else ""
            caption = f"Rank correlation, p {known['p']:.2g}." if known else "Too few to correlate."
            title = f"{y_title} by {x_title}"
            panels.append(curves.Panel(f"{x}-{y}", title, caption, rank, dots))
    return panels


def _dots(people: Sequence[Facts], x: str, y: str, factor: float) -> list[Facts]:
    """One dot for each individual, colored by its generation."""
    generations: dict[int, list[Facts]] = {}
    for one in people:
        generations.setdefault(one["generation"], []).append(one)
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [one.get(x, one["values"].get(x)) for one in shown],
            "y": figures.rounded(factor * one["values"][y] for one in shown),
            "marker": {"color": figures.run_color(generation), "size": 8},
            "text": [figures.plain(one["folder"]) for one in shown],
            "hovertemplate": "%{text}: %{x:.4~g}, %{y:.4~g}<extra></extra>",
        }
        for generation, shown in generations.items()
    ]
