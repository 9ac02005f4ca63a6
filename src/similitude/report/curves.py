"""The curves of ``metrics.csv`` as small plots, of one run or of several over each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from similitude.report.figures import (
    Figure,
    base_layout,
    dashed_line,
    figure,
    plain,
    rounded,
    run_color,
    run_dash,
    thin,
)
from similitude.report.read import RunSummary
from similitude.report.words import number


@dataclass(frozen=True)
class Panel:
    """One small plot: what it shows, how to read it, its last value, and the figure."""

    key: str
    title: str
    caption: str
    value: str
    figure: Figure


@dataclass(frozen=True)
class _Curve:
    column: str
    title: str
    caption: str
    percent: bool = False


CURVES = (
    _Curve("loss", "Loss", "Dashed: chance, the loss of a network that tells no samples apart."),
    _Curve(
        "knn", "Online kNN, %", "A quick vote of neighbors. At 0: the untrained backbone.", True
    ),
    _Curve(
        "feature_std",
        "Feature spread",
        "Standard deviation of the unit features. Dashed: 1/\N{SQUARE ROOT}D, spread evenly. "
        "Near 0: collapsed.",
    ),
    _Curve(
        "center_share",
        "Center share",
        "What all unit projections have in common. Near 1: collapsed.",
    ),
    _Curve("effective_rank", "Effective rank", "How many directions the features really use."),
    _Curve("alignment", "Alignment", "Distance between two views of a sample. Lower is closer."),
    _Curve("uniformity", "Uniformity", "How evenly features fill the sphere. Lower is more even."),
    _Curve("drift", "Drift", "How far the features are from those of the weights at the start."),
    _Curve("lr", "Learning rate", "Warm-up, then decay."),
)
KNOWN = {"step", "epoch", "chance_loss", "loss_floor", "feature_dim", "stopped_early"}
KNOWN |= {"knn_raw", "knn_start", "knn_queries", "copies"}
KNOWN |= {curve.column for curve in CURVES}
EXTRA_TITLES = {
    "images_per_second": "Samples per second",
    "waiting_share": "Share of time waiting for data",
    "projection_std": "Spread of the projections",
    "extra_center_share": "Center share of the extra gradient",
    "extra_center_cosine": "Its center against that of the projections, cosine",
    "extra_residual_cosine": "Its residuals against theirs, cosine",
    "target_entropy": "Entropy of the targets, nats",
    "target_kl": "Divergence from the targets, nats",
    "prototype_entropy": "Entropy of the prototypes in use, nats",
}


def curve_panels(
    runs: Sequence[RunSummary], labels: Sequence[str], positions: Sequence[int] | None = None
) -> tuple[list[Panel], str]:
    """A panel for every known curve that some run measured, and the unit of the x axis.

    ``positions`` gives the runs their colors; by default each has its own.
    """
    axis = _axis(runs)
    panels = [_panel(runs, labels, curve, axis, positions) for curve in CURVES]
    return [panel for panel in panels if panel], axis


def extra_panels(
    runs: Sequence[RunSummary], labels: Sequence[str], positions: Sequence[int] | None = None
) -> list[Panel]:
    """What else ``metrics.csv`` holds: speed, and the methods' own measurements."""
    axis = _axis(runs)
    panels = []
    for column in dict.fromkeys(column for run in runs for column in run.metrics.columns):
        if column not in KNOWN:
            title = EXTRA_TITLES.get(column, column.replace("_", " "))
            panels.append(_panel(runs, labels, _Curve(column, title, ""), axis, positions))
    return [panel for panel in panels if panel]


def _axis(runs: Sequence[RunSummary]) -> str:
    for run in runs:
        epochs = run.metrics.curve("epoch")[1]
        # Whole epochs that repeat would stack the points of an epoch on one vertical line.
        if not epochs or any(b <= a for a, b in pairwise(epochs)):
            return "step"
    return "epoch"


def _panel(
    runs: Sequence[RunSummary],
    labels: Sequence[str],
    curve: _Curve,
    axis: str,
    positions: Sequence[int] | None,
) -> Panel | None:
    single = len(runs) == 1
    traces: list[Figure] = []
    scale = 100 if curve.percent else 1
    for position, run, label in zip(positions or range(len(runs)), runs, labels, strict=True):
        x, y = run.metrics.curve(curve.column, axis)
        if not x:
            continue
        color = "var(--accent)" if single else run_color(position)
        kept = thin(len(x))
        traces.append(
            {
                "type": "scatter",
                "name": label,
                "mode": "lines" if len(kept) > 40 else "lines+markers",
                "x": rounded(x[i] for i in kept),
                "y": rounded(scale * y[i] for i in kept),
                "line": {"color": color, "width": 2, "dash": run_dash(position)},
                "marker": {"color": color, "size": 5},
                "hovertemplate": ("%{y:.4~g}" if single else f"{plain(label)}: %{{y:.4~g}}")
                + "<extra></extra>",
            }
        )
        if curve.column == "loss":
            traces += _chance(run, axis, "var(--ink-2)" if single else color)
    if not traces:
        return None
    layout = base_layout(axis)
    reference = _even_spread(runs) if curve.column == "feature_std" else None
    if reference is not None:
        layout["shapes"] = [dashed_line(y=reference)]
        layout["yaxis"]["rangemode"] = "tozero"
    last = runs[0].metrics.last(curve.column) if single else None
    value = "" if last is None else number(round(100 * last, 1) if curve.percent else last)
    caption = curve.caption
    if curve.column == "loss" and all(trace["name"] != "chance" for trace in traces):
        caption = "What training minimizes."
    if curve.column == "feature_std" and reference is None:
        caption = "Standard deviation of the unit features. Near 0: collapsed."
    return Panel(f"curve-{curve.column}", curve.title, caption, value, figure(traces, layout))


def _chance(run: RunSummary, axis: str, color: str) -> list[Figure]:
    x, y = run.metrics.curve("chance_loss", axis)
    if not x:
        return []
    kept = thin(len(x))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "chance",
            "x": rounded(x[i] for i in kept),
            "y": rounded(y[i] for i in kept),
            "line": {"color": color, "width": 1.5, "dash": "dash"},
            "hovertemplate": "chance %{y:.4~g}<extra></extra>",
        }
    ]


def _even_spread(runs: Sequence[RunSummary]) -> float | None:
    widths = {width for width in map(feature_dim, runs) if width}
    return 1 / math.sqrt(widths.pop()) if len(widths) == 1 else None


def feature_dim(run: RunSummary) -> int | None:
    """D of the backbone's features, where some file says it."""
    if run.embedding is not None:
        return run.embedding.features.shape[1]
    logged = run.metrics.last("feature_dim")
    return int(logged) if logged is not None and math.isfinite(logged) else None
