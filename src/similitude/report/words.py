"""What a report says in words: the verdict, the summary sentence, durations and commands."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from similitude.errors import visible
from similitude.evaluation.comparison import Comparison, join
from similitude.evaluation.scores import ScoreTable
from similitude.report.read import Health, RunSummary
from similitude.report.scores import BEFORE, PRETRAINED, RANDOM, first_loss, percent

# What a sentence calls a row; others go by their own name.
PHRASES = {
    RANDOM: "the same backbone with random weights",
    BEFORE: "the published weights it started from",
}


@dataclass(frozen=True)
class Banner:
    """The banner: ``tone`` colors it, ``learned`` is the answer where scores exist."""

    state: str  # "healthy", "doubtful", "collapsed" or "unknown"
    tone: str
    headline: str
    lead: str
    learned: str | None  # "yes", "partly", "no"; None without an evaluation
    reasons: list[str]
    advice: list[str]


def verdict(run: RunSummary) -> Banner:
    """Join what the run says of its own health with what the scores say."""
    health = run.health or Health("unknown")
    learned, lead = _gain(run)
    advice = list(health.advice)
    tone = health.state
    beside = _in_order(run.evaluation) if run.evaluation else []
    as_good = next((c for c in beside if not c.is_published and c.is_no_better), None)
    if health.state == "collapsed":
        headline = "Collapsed: do not use this backbone"
    elif health.state == "doubtful":
        headline = "Doubtful: check before you use it"
    elif as_good is not None:
        name = "random weights" if as_good.row == RANDOM else as_good.phrase
        headline = f"Not collapsed, but no better than {name}"
        tone = "doubtful"
        advice = [*advice, as_good.advice]
    elif health.state == "unknown":
        headline = "No verdict: this run has not written its health yet"
    elif learned == "yes":
        headline = "Healthy: the backbone learned"
    elif learned == "partly":
        headline = "Healthy, but the gain is uneven"
    else:
        headline = "Healthy: no sign of collapse"
    return Banner(health.state, tone, headline, lead, learned, list(health.reasons), advice)


def _gain(run: RunSummary) -> tuple[str | None, str]:
    """Whether it learned more than what it started from, and what it gained on every row."""
    if run.evaluation is None:
        return None, (
            "Whether the features are good is not measured yet; the scores need a labeled test."
        )
    over = {c.row: c.gains for c in _in_order(run.evaluation)}
    parts = [f"{_range(gains)} {PHRASES.get(row, row)}" for row, gains in over.items()]
    lead = f"Its features score {join(parts)}." if parts else ""
    if loss := first_loss(run.evaluation):
        lead = f"{loss} {lead}"
    over_start = over.get(BEFORE) or over.get(RANDOM)
    if not over_start:
        return None, lead
    better = sum(gain > 0 for gain in over_start.values())
    if better == len(over_start):
        return "yes", lead
    return ("partly" if sum(over_start.values()) > 0 else "no"), lead


def _in_order(evaluation: ScoreTable) -> list[Comparison]:
    """A start is worth more than random weights; no network at all is what must be beaten last."""
    order = (lambda c: c.row == BEFORE, lambda c: c.row == RANDOM, lambda c: c.is_plain)
    return sorted(evaluation.comparisons, key=lambda c: [not is_so(c) for is_so in order])


def _range(differences: Mapping[str, float]) -> str:
    low, high = min(differences.values()), max(differences.values())
    if low < 0 < high:
        return f"between {percent(-low)} points below and {percent(high)} above"
    small, large = sorted((percent(abs(low)), percent(abs(high))), key=float)
    span = large if small == large else f"{small} to {large}"
    return f"{span} points {'below' if low < 0 else 'above'}"


def method_name(run: RunSummary) -> str:
    """The method as its paper writes it, where the run says so."""
    name = run.setting("method.name") or run.setting("method") or "an unnamed method"
    return str(run.environment.get("title", name))


def backbone_name(run: RunSummary) -> str:
    """The backbone's name in the recipe."""
    backbone = run.setting("backbone.name") or run.setting("backbone")
    return str(backbone) if isinstance(backbone, str) else "backbone"


def epochs_done(run: RunSummary) -> tuple[float | None, float | None]:
    """(epochs trained, epochs planned); the first is None unless the run stopped early."""
    planned = run.setting("epochs")
    if not isinstance(planned, int | float):
        return None, None
    last = max(run.metrics.curve("epoch")[1], default=planned)
    return (last if last < planned * (1 - 1e-6) else None), planned


def summary(run: RunSummary) -> str:
    """The run in one paragraph: what was trained, and what a vote of neighbors makes of it."""
    return f"{training_summary(run)} {_knn_sentence(run)}".strip()


def nouns(run: RunSummary) -> str:
    """What several samples are called: images, sounds, nodes."""
    return str(run.environment.get("noun", "images"))


def training_summary(run: RunSummary) -> str:
    """What was trained, on what, for how long."""
    environment = run.environment
    images = environment.get("num_images")
    data = environment.get("data")
    stopped, planned = epochs_done(run)
    sentence = f"{method_name(run)} trained {_article(backbone_name(run))}"
    if isinstance(images, int | float):
        sentence += f" on {images:,.0f} {nouns(run)}"
    if data:
        sentence += f" from {data}"
    sentence += ", without labels"
    if planned is not None and stopped is None:
        sentence += f", for {planned:g} {'epoch' if planned == 1 else 'epochs'}"
    elif planned is not None:
        sentence += f", and was stopped after {stopped or 0:.3g} of {planned:g} epochs"
    sentence += "."
    seconds, speed = environment.get("seconds"), environment.get("images_per_second")
    parts = []
    if isinstance(seconds, int | float):
        parts.append(f"It took {duration(seconds)}")
        if environment.get("device"):
            parts[-1] += f" on {environment['device']}"
    if isinstance(speed, int | float):
        parts.append(f"{'at' if parts else 'It ran at'} {speed:,.0f} {nouns(run)} a second")
    if parts:
        sentence += f" {', '.join(parts)}."
    if run.unreadable:
        files = "file was" if run.unreadable == 1 else "files were"
        sentence += f" {run.unreadable:,} {files} unreadable and left out (unreadable.txt)."
    return sentence


def _knn_sentence(run: RunSummary) -> str:
    rows = run.evaluation.rows if run.evaluation else {}
    ours = rows.get(PRETRAINED, {}).get("knn")
    if ours is None:
        return ""
    others = [
        f"{percent(scores['knn'].mean)}\N{NO-BREAK SPACE}% of {PHRASES.get(row, row)}"
        for row, scores in rows.items()
        if row != PRETRAINED and "knn" in scores
    ]
    against = f", against {join(others)}" if others else ""
    return (
        f"A vote of the nearest neighbors (kNN) in its features names the right class for "
        f"{percent(ours.mean)}\N{NO-BREAK SPACE}% of the test {nouns(run)}{against}."
    )


def rows_beside(evaluation: ScoreTable) -> str:
    """The other rows of the table, as a list for a sentence."""
    return join([PHRASES.get(row, row) for row in evaluation.rows if row != PRETRAINED])


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 5 min 12 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def evaluate_command(run: RunSummary) -> str:
    """The command that makes scores and embedding."""
    known = run.embedding is None or run.embedding.labels is not None
    data = _data(run) if known else "LABELED_FOLDER"
    return visible(f"similitude evaluate {shlex.quote(str(run.path))} {data}")


def retrieve_command(run: RunSummary) -> str:
    """The command that asks one sensor for another; empty where no method has compared them."""
    if run.setting("method.name") != "clip":
        return ""
    return visible(f"similitude retrieve {shlex.quote(str(run.path))} {_data(run)}")


def repeat_command(run: RunSummary) -> str:
    """The command that trains the same backbone again."""
    path = run.path
    return visible(
        f"similitude pretrain {_data(run)} --recipe {shlex.quote(str(path / 'recipe.yaml'))} "
        f"--out {shlex.quote(str(path) + '-again')}"
    )


def _data(run: RunSummary) -> str:
    """What the run's own command was given; DATA where that cannot be told.

    The environment's ``data`` is a name for people ("digits train"), not an argument.
    """
    try:
        words = shlex.split(str(run.environment.get("command") or ""))
    except ValueError:
        return "DATA"
    _, _, *given = words if words[1:2] == ["pretrain"] else ["", ""]
    # Two plain words in a row: a name with a blank that was not quoted, or something new.
    clear = given and not given[0].startswith("-") and all(w.startswith("-") for w in given[1:2])
    return shlex.quote(given[0]) if clear else "DATA"


def value_text(value: Any) -> str:
    """A recipe or environment value as a reader wants it."""
    if value is None:
        return "\N{EM DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        if len(value) > 32:
            return f"{len(value):,} values"
        return ", ".join(value_text(item) for item in value) or "\N{EM DASH}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) or "{}"
    return str(value)


def number(value: float | None) -> str:
    """Three or four significant digits; an em dash for None, 'not a number' for NaN."""
    if value is None:
        return "\N{EM DASH}"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
