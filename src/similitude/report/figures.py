"""Plotly figures as plain JSON; colors are names of CSS variables that the page resolves.

So a figure follows the light and the dark theme, and nothing of plotly is imported.
M: embedded images, D: backbone features.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from similitude.evaluation.scores import Score, ScoreTable, labels_per_class
from similitude.report.gallery import Gallery
from similitude.report.read import Embedding
from similitude.report.scores import BEFORE, PRETRAINED, RANDOM

Figure = dict[str, Any]

MAX_POINTS = 1500  # per curve
PALETTE = 10  # colors --c0 .. --c9 of the style sheet
SYMBOLS = ("circle", "diamond", "triangle-up")
MAX_COLORED_CLASSES = PALETTE * len(SYMBOLS)
MAX_NAMED_GROUPS = 12  # more names than these hide the dots of the map
ROW_COLORS = {PRETRAINED: "var(--accent)", RANDOM: "var(--orange)", BEFORE: "var(--c2)"}


def run_color(position: int) -> str:
    """The color of the run at ``position`` in a comparison."""
    return f"var(--c{position % PALETTE})"


def run_dash(position: int) -> str:
    """The dash that tells apart runs which share a color."""
    return ("solid", "dot", "dashdot")[position // PALETTE % 3]


def labels_figure(evaluation: ScoreTable) -> Figure | None:
    """Accuracy against labels per class, with intervals; None below two columns."""
    columns = sorted(
        (c for c in evaluation.columns if labels_per_class(c) is not None),
        key=lambda c: labels_per_class(c) or 0,
    )
    if "linear" in evaluation.columns:
        columns.append("linear")
    if len(columns) < 2:
        return None
    traces = []
    for name, scores in evaluation.rows.items():
        shown = [column for column in columns if column in scores]
        is_raw = name == evaluation.plain[0]
        own = "var(--neutral)" if is_raw else f"var(--c{len(traces) % PALETTE})"
        color = ROW_COLORS.get(name, own)
        traces.append(
            {
                "type": "scatter",
                "name": name,
                "mode": "lines+markers",
                "x": [_tick(column) for column in shown],
                "y": rounded(100 * scores[column].mean for column in shown),
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": rounded(_reach(scores[column], "high") for column in shown),
                    "arrayminus": rounded(_reach(scores[column], "low") for column in shown),
                    "color": color,
                    "thickness": 1.5,
                    "width": 4,
                },
                "line": {"color": color, "width": 3 if name == PRETRAINED else 2},
                "marker": {"color": color, "size": 8, "symbol": _row_symbol(name, is_raw)},
                "hovertemplate": f"{plain(name)}: %{{y:.1f}} %<extra></extra>",
            }
        )
    layout = base_layout("labels per class")
    layout["xaxis"] |= {"type": "category", "categoryarray": [_tick(c) for c in columns]}
    layout["yaxis"] |= {"ticksuffix": " %"}
    layout["margin"] |= {"l": 52}
    return figure(traces, layout)


def _reach(score: Score, end: str) -> float:
    """From the mean to one end of its interval, in points; 0 without an interval."""
    bound = getattr(score, end)
    return 0.0 if bound is None else 100 * abs(bound - score.mean)


def _row_symbol(name: str, is_raw: bool) -> str:
    known = {PRETRAINED: "circle", RANDOM: "diamond", BEFORE: "diamond"}
    return known.get(name, "square" if is_raw else "triangle-up")


def _tick(column: str) -> str:
    k = labels_per_class(column)
    return "all" if k is None else str(k)


def spectrum_figure(
    embeddings: Sequence[tuple[str, Embedding | None]], rank: float | None = None
) -> Figure | None:
    """Singular values relative to the largest (log scale), and a line at the effective rank."""
    traces = []
    for position, (label, embedding) in enumerate(embeddings):
        if embedding is None:
            continue  # the other runs keep the color of their position
        values = np.sort(embedding.spectrum)[::-1]
        if not len(values) or not np.isfinite(values).all() or values[0] <= 0:
            continue
        relative = values / values[0]
        # Below 1e-7 is rounding of float32: a gap there says that the direction is not used.
        y = [v if v > 1e-7 else None for v in relative.tolist()]
        single = len(embeddings) == 1
        color = "var(--accent)" if single else run_color(position)
        kept = thin(len(y))
        traces.append(
            {
                "type": "scatter",
                "name": label,
                "mode": "lines" if sum(v is not None for v in y) > 3 else "lines+markers",
                "x": [i + 1 for i in kept],
                "y": [None if y[i] is None else float(f"{y[i]:.4g}") for i in kept],
                "line": {"color": color, "width": 2.5, "dash": run_dash(position)},
                "hovertemplate": f"{'' if single else plain(label) + ', '}"
                "direction %{x}: %{y:.3~g}<extra></extra>",
            }
        )
        if single:
            traces[-1] |= {"fill": "tozeroy", "fillcolor": "var(--accent-wash)"}
    if not traces:
        return None
    layout = base_layout("direction, strongest first")
    layout["yaxis"] |= {"type": "log", "dtick": 1, "exponentformat": "power"}
    layout["margin"] |= {"l": 52, "t": 24}
    smallest = min(v for trace in traces for v in trace["y"] if v is not None)
    layout["yaxis"]["range"] = [math.floor(math.log10(smallest) - 0.05), 0.1]
    if rank is not None:
        layout["shapes"] = [dashed_line(x=rank)]
        layout["annotations"] = [
            {
                "x": rank,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "text": f"effective rank {rank:.1f}",
                "showarrow": False,
                "font": {"color": "var(--ink)"},
            }
        ]
    return figure(traces, layout)


def map_figure(gallery: Gallery) -> Figure:
    """The map: one trace per class (or one of all), point numbers in ``customdata``."""
    groups: list[tuple[str, np.ndarray]]
    if gallery.labels is None:
        groups = [("images", np.arange(len(gallery.names)))]
    else:
        groups = [
            (gallery.class_names[label], np.flatnonzero(gallery.labels == label))
            for label in np.unique(gallery.labels)
        ]
    colored = 1 < len(groups) <= MAX_COLORED_CLASSES
    plane = gallery.coordinates
    traces = [
        {
            "type": "scatter",
            "name": name,
            "mode": "markers",
            "x": rounded(plane[index, 0].tolist()),
            "y": rounded(plane[index, 1].tolist()),
            "customdata": index.tolist(),
            "hoverinfo": "none",
            "marker": {
                "color": f"var(--c{position % PALETTE})" if colored else "var(--accent)",
                "symbol": SYMBOLS[position // PALETTE % len(SYMBOLS)] if colored else "circle",
                "size": 7 if len(gallery.names) > 600 else 9,
                "opacity": 0.85,
                "line": {"width": 0.5, "color": "var(--card)"},
            },
        }
        for position, (name, index) in enumerate(groups)
    ]
    layout = base_layout("")
    hidden = {"visible": False, "showgrid": False}
    layout["xaxis"] |= hidden
    layout["yaxis"] |= hidden | {"scaleanchor": "x"}
    layout |= {"hovermode": "closest", "hoverdistance": 14, "dragmode": "pan"}
    layout["modebar"] = {
        "bgcolor": "rgba(0,0,0,0)",
        "color": "var(--ink-2)",
        "activecolor": "var(--accent)",
    }
    if colored and len(groups) <= MAX_NAMED_GROUPS:
        layout["annotations"] = [_name_tag(name, plane[index]) for name, index in groups]
    layout["margin"] = {"l": 8, "r": 8, "t": 8, "b": 8}
    return figure(traces, layout)


def _name_tag(name: str, group: Float[np.ndarray, "M 2"]) -> Figure:
    x, y = rounded(np.median(group, axis=0).tolist())
    return {
        "x": x,
        "y": y,
        "text": plain(name),
        "showarrow": False,
        "bgcolor": "var(--tag)",
        "borderpad": 2,
        "captureevents": False,
        "font": {"size": 12, "color": "var(--ink)"},
    }


def figure(traces: list[Figure], layout: Figure) -> Figure:
    """What the page hands to plotly."""
    return {"data": traces, "layout": layout}


def base_layout(x_title: str) -> Figure:
    """The layout that all figures share: quiet axes, no legend, no background."""
    axis = {
        "gridcolor": "var(--grid)",
        "zeroline": False,
        "linecolor": "var(--grid)",
        "automargin": True,
        "nticks": 6,
    }
    return {
        "autosize": True,
        "margin": {"l": 44, "r": 14, "t": 10, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink-2)"},
        "xaxis": dict(axis) | {"title": {"text": x_title, "standoff": 6}, "showgrid": False},
        "yaxis": dict(axis),
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
    }


def dashed_line(x: float | None = None, y: float | None = None) -> Figure:
    """A reference line over the whole plot, upright at ``x`` or level at ``y``."""
    line = {"color": "var(--ink-2)", "width": 1.5, "dash": "dash"}
    if x is not None:
        return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}
    return {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y, "line": line}


def thin(count: int) -> list[int]:
    """At most ``MAX_POINTS`` positions, evenly spread, with the first and the last."""
    if count <= MAX_POINTS:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, MAX_POINTS).round().astype(int)).tolist()


def rounded(values: Any) -> list[float | None]:
    """Five significant digits; what is not finite becomes a gap (JSON has no NaN)."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]


def plain(text: str) -> str:
    """Text for plotly's templates, which read a little HTML and %{fields}."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")
