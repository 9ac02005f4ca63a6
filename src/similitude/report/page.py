"""Render the page of one run, or the comparison of several, and write it in one piece."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic_core import to_jsonable_python

from similitude.errors import UserError
from similitude.evaluation.comparison import join
from similitude.files.writing import as_path, check_writable, write_text
from similitude.report import attention, curves, figures, gallery, scores, words
from similitude.report.read import RunSummary, flatten, read_run
from similitude.report.retrieval import build_retrieval
from similitude.runs.folder import refuse_links

ENVIRONMENT_TITLES = {"num_images": "samples", "waiting_share": "share of time waiting for data"}
# What differs between any two runs says nothing about why their results differ.
PER_RUN = {"command", "started", "ended", "seconds", "images_per_second", "waiting_share", "title"}


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write one self-contained HTML file, and its numbers beside it as JSON.

    One run gives ``report.html`` in its folder; two or more give a comparison,
    ``report-comparison.html`` in the folder that holds them all.

    Args:
        runs: run folders; only their files are read.
        out: the HTML file to write instead; the JSON file has the same name with ``.json``.

    Returns:
        The HTML file.

    Raises:
        UserError: no run was given, one was given twice, or a folder is not a run.
    """
    folders = [as_path(run) for run in runs]
    resolved = [folder.resolve() for folder in folders]
    if not folders:
        raise UserError("no run folder was given: name one, for example `similitude report runs/x`")
    for position, folder in enumerate(resolved):
        if folder in resolved[:position]:
            raise UserError(f"the run {folders[position]} is given twice: name each run once")
    for folder in folders:
        refuse_links(folder)
    summaries = [read_run(folder) for folder in folders]
    if len(summaries) == 1:
        target = as_path(out) if out is not None else folders[0] / "report.html"
        html, facts = render_run(summaries[0])
    else:
        parent = Path(os.path.commonpath([folder.parent for folder in resolved]))
        target = as_path(out) if out is not None else parent / "report-comparison.html"
        labels = [_label(folder, resolved, parent) for folder in resolved]
        html, facts = render_comparison(summaries, labels)
    if out is not None:
        expected = {target}
    else:  # a run's own page may be written again, whatever it is
        expected = {target, target.with_suffix(".json")} if len(summaries) == 1 else set()
    _check_target(target, expected)
    write_text(target.with_suffix(".json"), json.dumps(facts, indent=2, allow_nan=False) + "\n")
    write_text(target, html)
    return target


def _check_target(target: Path, expected: set[Path]) -> None:
    """Refuse a place that cannot be written, or a file that nobody expects to be replaced."""
    if target.is_dir():
        raise UserError(f"{target} is a folder: give the name of an HTML file")
    if target.suffix == ".json":
        raise UserError(f"{target} is a JSON name: give the name of an HTML file")
    facts = target.with_suffix(".json")
    for path in (target, facts):
        check_writable(path)
        if path.exists() and path not in expected and not is_ours(path):
            raise UserError(
                f"{path} is there already and is no report of similitude: give another name with "
                "-o; the numbers of a report go beside it, into a file of the same name"
            )


def is_ours(path: Path) -> bool:
    """Whether a file is a page, or the numbers of one, that was written here."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json":
        return "similitude report</title>" in text[:2000]
    try:
        facts = json.loads(text)
    except ValueError:
        return False
    return isinstance(facts, dict) and ("runs" in facts or {"run", "verdict"} <= facts.keys())


def render_run(run: RunSummary) -> tuple[str, dict[str, Any]]:
    """The page of one run, and its facts for ``report.json``."""
    drawn: dict[str, Any] = {}
    panels, axis = curves.curve_panels([run], [run.name])
    extras = curves.extra_panels([run], [run.name])
    drawn |= {panel.key: panel.figure for panel in [*panels, *extras]}
    evaluation, embedding = run.evaluation, run.embedding
    if evaluation is not None:
        _add(drawn, "labels", figures.labels_figure(evaluation))
    if embedding is not None:
        _add(drawn, "spectrum", figures.spectrum_figure([(run.name, embedding)], _rank(run)))
    pictures = gallery.build_gallery(embedding) if embedding is not None else None
    has_map = isinstance(pictures, gallery.Gallery)
    if has_map:
        drawn["map"] = figures.map_figure(pictures)
    verdict = words.verdict(run)
    facts = _facts(run, verdict)
    html = render(
        "run.html.j2",
        title=run.name,
        run=run,
        nouns=words.nouns(run),
        noun=words.nouns(run).removesuffix("s"),
        verdict=verdict,
        summary=words.summary(run),
        method=words.method_name(run),
        backbone=words.backbone_name(run),
        tiles=_tiles(run),
        table=scores.run_table(evaluation) if evaluation else None,
        unlabeled=scores.label_free_table(evaluation) if evaluation else None,
        raw=evaluation.plain[0] if evaluation else "",
        said=evaluation.sentences(scores.full_title) if evaluation else [],
        differences=scores.difference_rows(evaluation) if evaluation else [],
        beside=words.rows_beside(evaluation) if evaluation else "",
        panels=panels,
        extras=extras,
        axis=axis,
        rank=facts["effective_rank"],
        gallery=pictures if has_map else None,
        no_gallery=pictures if isinstance(pictures, str) else "",
        same_class=gallery.same_class,
        map_colors=has_map and len(set(pictures.classes or [])) > 1,
        max_colored=figures.MAX_COLORED_CLASSES,
        retrieval=build_retrieval(run),
        retrieve_command=words.retrieve_command(run),
        attention=attention.build_attention(run.attention) if run.attention else None,
        views=gallery.views_uri(run.views) if run.views else None,
        recipe=_grouped(run),
        environment=_environment_rows(run.environment),
        readings=_readings(run),
        evaluate_command=words.evaluate_command(run),
        repeat_command=words.repeat_command(run),
        figures=drawn,
        points=_points(pictures) if has_map else None,
    )
    return html, facts


def render_comparison(
    runs: Sequence[RunSummary], labels: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """The page that lays several runs side by side, and the facts of all."""
    panels, axis = curves.curve_panels(runs, labels)
    drawn = {panel.key: panel.figure for panel in panels}
    embedded = [(label, run.embedding) for label, run in zip(labels, runs, strict=True)]
    _add(drawn, "spectrum", figures.spectrum_figure(embedded))
    verdicts = [words.verdict(run) for run in runs]
    table, note = _comparison_table(runs, labels)
    html = render(
        "comparison.html.j2",
        title=f"{len(runs)} runs compared",
        nouns=words.nouns(runs[0]),
        raw=next((run.evaluation.plain[0] for run in runs if run.evaluation), ""),
        runs=[
            {
                "label": label,
                "run": run,
                "verdict": verdict,
                "method": words.method_name(run),
                "summary": words.training_summary(run),
                "color": figures.run_color(position),
                "evaluate": words.evaluate_command(run),
            }
            for position, (label, run, verdict) in enumerate(
                zip(labels, runs, verdicts, strict=True)
            )
        ],
        table=table,
        note=note,
        panels=panels,
        axis=axis,
        recipe=_differences([dict(flatten(run.recipe)) for run in runs]),
        environment=_differences(
            [{k: v for k, v in run.environment.items() if k not in PER_RUN} for run in runs]
        ),
        figures=drawn,
        points=None,
    )
    facts = [
        {"label": label, **_facts(run, verdict)}
        for label, run, verdict in zip(labels, runs, verdicts, strict=True)
    ]
    return html, {"runs": facts}


def _comparison_table(
    runs: Sequence[RunSummary], labels: Sequence[str]
) -> tuple[scores.Table | None, str]:
    evaluated = [(la, r.evaluation) for la, r in zip(labels, runs, strict=True) if r.evaluation]
    if not evaluated:
        return None, ""
    columns: list[str] = []
    for _, evaluation in evaluated:
        columns += [column for column in evaluation.columns if column not in columns]
    shared = scores.shared_baselines([e for _, e in evaluated])
    rows = [(name, "baseline", found) for name, found in shared.items()]
    rows += [
        (label, "run", evaluation.rows.get(scores.PRETRAINED, {}))
        for label, evaluation in evaluated
    ]
    sets = {evaluation.data for _, evaluation in evaluated}
    note = ""
    if len(sets) > 1:
        note = f"These scores come from different data ({join(sorted(sets))}): do not compare them."
    return scores.table(rows, columns, shared.get(evaluated[0][1].plain[0])), note


def _differences(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    names: dict[str, None] = {}
    for mapping in settings:
        names |= dict.fromkeys(mapping)
    rows = []
    for name in names:
        texts = [words.value_text(mapping.get(name)) for mapping in settings]
        if len(set(texts)) > 1:
            rows.append((name, texts))
    return rows


def _tiles(run: RunSummary) -> list[tuple[str, str, str]]:
    """(value, what it is, how it compares) for the line of figures under the verdict."""
    tiles = []
    evaluation = run.evaluation
    ours = evaluation.rows.get(scores.PRETRAINED, {}) if evaluation else {}
    raw = evaluation.plain[0] if evaluation else ""
    gains = {c.row: c.gains for c in evaluation.comparisons} if evaluation else {}
    for column, title in (("knn", "kNN"), ("linear", "linear probe"), ("linear_10", "10 labels")):
        if column in ours:
            compared = [
                f"{scores.points(gains[row][column])} against {name}"
                for row, name in (
                    (raw, raw),
                    (scores.RANDOM, "random"),
                    (scores.BEFORE, "its start"),
                )
                if column in gains.get(row, {})
            ]
            title = "10 labels per class" if column == "linear_10" else title
            tiles.append((f"{scores.percent(ours[column].mean)}%", title, "\n".join(compared)))
    rank = _rank(run)
    if rank is not None:
        wide = curves.feature_dim(run)
        tiles.append((f"{rank:.0f}", "effective rank", f"of at most {wide}" if wide else ""))
    loss, chance = run.metrics.last("loss"), run.metrics.last("chance_loss")
    if loss is not None:
        against = f"chance is {words.number(chance)}" if chance is not None else ""
        tiles.append((words.number(loss), "loss at the end", against))
    return tiles


def _rank(run: RunSummary) -> float | None:
    candidates = [
        run.health.readings.get("effective_rank") if run.health else None,
        run.metrics.last("effective_rank"),
    ]
    return next((r for r in candidates if r is not None and math.isfinite(r)), None)


def _grouped(run: RunSummary) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Groups of the recipe: name, reason, rows (field, value, reason); plain fields first."""
    groups: dict[str, list[tuple[str, str, str]]] = {"": []}
    for dotted, value in flatten(run.recipe):
        group, _, rest = dotted.partition(".")
        name, group = (rest, group) if rest else (dotted, "")
        row = (name, words.value_text(value), run.reasons.get(dotted, ""))
        groups.setdefault(group, []).append(row)
    return [(group, run.reasons.get(group, ""), rows) for group, rows in groups.items() if rows]


def _environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in flatten(environment):
        if name in ("noun", "title"):
            continue
        text = words.value_text(value)
        if name == "seconds" and isinstance(value, int | float):
            name, text = "training time", words.duration(value)
        elif name == "waiting_share" and isinstance(value, int | float):
            text = f"{100 * value:.1f} %"
        elif name in ("num_images", "images_per_second") and isinstance(value, int | float):
            text = f"{value:,.0f}"
        rows.append((ENVIRONMENT_TITLES.get(name, name.replace("_", " ")), text))
    return rows


def _readings(run: RunSummary) -> list[tuple[str, str]]:
    readings = run.health.readings if run.health else {}
    return [(name.replace("_", " "), words.number(value)) for name, value in readings.items()]


def _points(pictures: gallery.Gallery) -> dict[str, Any]:
    """What the page's script needs to show an image of the map."""
    return {
        "names": pictures.names,
        "classes": pictures.classes,
        "neighbors": pictures.neighbors.tolist(),
        "columns": pictures.sprite.columns,
        "rows": pictures.sprite.rows,
        "tracks": [pictures.track],
    }


def _facts(run: RunSummary, verdict: words.Banner) -> dict[str, Any]:
    evaluation = run.evaluation
    table = {
        name: {
            column: {"mean": s.mean, "low": s.low, "high": s.high, "draws": s.draws}
            for column, s in row.items()
        }
        for name, row in (evaluation.rows.items() if evaluation else ())
    }
    facts = {
        "run": run.name,
        "verdict": {
            "state": verdict.state,
            "learned": verdict.learned,
            "headline": verdict.headline,
            "reasons": verdict.reasons,
            "advice": verdict.advice,
        },
        "summary": words.summary(run),
        "method": run.setting("method.name"),
        "backbone": words.backbone_name(run),
        "effective_rank": _rank(run),
        "readings": dict(run.health.readings) if run.health else {},
        "last": {name: run.metrics.last(name) for name in run.metrics.columns},
        "evaluation": {
            "data": evaluation.data,
            "scores": table,
            "label_free": evaluation.label_free,
            "differences": {
                c.row: {column: asdict(d) for column, d in c.differences.items()}
                for c in evaluation.comparisons
            },
        }
        if evaluation
        else None,
        "retrieval": asdict(run.retrieval) if run.retrieval else None,
        "missing": [
            name
            for name in ("health", "evaluation", "embedding", "views")
            if getattr(run, name) is None
        ],
        "repeat": words.repeat_command(run),
        "recipe": run.recipe,
        "environment": run.environment,
    }
    return to_jsonable_python(facts, inf_nan_mode="null", fallback=str)


def _add(drawn: dict[str, Any], key: str, figure: figures.Figure | None) -> None:
    if figure is not None:
        drawn[key] = figure


def _label(folder: Path, folders: Sequence[Path], parent: Path) -> str:
    same = [other for other in folders if other.name == folder.name]
    return folder.name if len(same) == 1 else folder.relative_to(parent).as_posix()


@cache  # with the templates that it has compiled
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("similitude.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **context: Any) -> str:
    """A page in one piece: style, script and the plotting library inside."""
    from plotly.offline import get_plotlyjs  # only a page that is written pays for the import

    own = resources.files("similitude.report") / "templates"
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup((own / "style.css").read_text(encoding="utf-8")),
            script=Markup((own / "report.js").read_text(encoding="utf-8")),
            plotly=Markup(get_plotlyjs()) if context["figures"] else "",
            **context,
        )
    )
