"""The model card of an export: what the network is, of what it was made, and what it is worth."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import yaml

from similitude.errors import visible
from similitude.evaluation.scores import ScoreTable, column_title, read_scores
from similitude.files.reading import read_json
from similitude.recipes import dump_recipe
from similitude.runs.run import Run

OTHER = "other"  # what the hub calls a license that it does not know


def model_card(run: Run, library: str, code: str, told: Sequence[str]) -> str:
    """Markdown with the metadata of Hugging Face's hub (its page "Model Cards").

    Paths of the machine are left out: of data and start only the last part of their name stands.

    Args:
        run: whose backbone was exported.
        library: what it is for, as the hub calls it.
        code: Python that uses it.
        told: sentences on how it was checked.
    """
    recipe = run.pretraining
    method = recipe.method.title or recipe.method.name
    before = f"trained with {method} without labels" if run.learned_without_labels else None
    stages = ", then ".join(filter(None, (before, run.labeled_stage)))
    gives = "a row of features [D]"
    if run.class_names:
        gives += f" and logits of {len(run.class_names)} classes"
    license_name, license_sentence = _license(run)
    task = "image-classification" if run.class_names else "image-feature-extraction"
    head: dict[str, Any] = {"library_name": library, "pipeline_tag": task}
    if run.learned_without_labels:
        head |= {"tags": ["self-supervised", recipe.method.name]}
    if license_name is not None:
        head["license"] = license_name
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {recipe.backbone.name}, {stages}\n",
        f"It makes {gives} of an image. {_data(run)}\n",
        f"## Use\n\nRun this where the folder lies.\n\n```python\n{code}\n```\n",
        "## Checked\n\n" + "".join(f"- {visible(sentence)}\n" for sentence in told),
        f"## Scores\n\n{_scores(read_scores(run.path / 'evaluation.json'))}",
        f"## License\n\n{license_sentence}\n",
    ]
    if run.learned_without_labels:
        parts.append(f"## Recipe of the training without labels\n\n```yaml\n{_recipe(run)}```\n")
    if run.labeled_settings:
        settings = yaml.safe_dump(run.labeled_settings, sort_keys=False)
        parts.append(f"## Recipe of the training on labels\n\n```yaml\n{settings}```\n")
    return "\n".join(parts)


def _data(run: Run) -> str:
    place = run.path / "environment.json"
    known = read_json(place) if place.is_file() else {}
    name = visible(PurePath(str(known.get("data", "images"))).name)
    number = known.get("num_images")
    of = f"{number:,} {run.modality.noun}" if isinstance(number, int) else run.modality.noun
    start = "random weights" if run.pretraining.init is None else f"the weights {_start(run)}"
    return (
        f"It began with {start} and was last trained on {of} of `{name}`, {run.checkpoint.step:,} "
        f"steps of {run.recipe.batch_size:,}, with similitude {run.checkpoint.version}."
    )


def _start(run: Run) -> str:
    assert run.pretraining.init is not None
    return visible(PurePath(run.pretraining.init.name).name)


def _license(run: Run) -> tuple[str | None, str]:
    """What the head says, and a sentence: what is known of the start, and nothing more."""
    init, starts = run.pretraining.init, run.modality.starts
    if init is None:
        return None, "Trained from random weights: whoever trained it chooses the license."
    known = None if starts is None else starts.license_of(init.name)
    if known is None:
        return OTHER, (
            f"It started from {_start(run)}, whose license is not stated: see where those weights "
            "come from before you pass these on."
        )
    return known, f"It started from {_start(run)}, which is under {known}."


def _scores(table: ScoreTable | None) -> str:
    if table is None:
        return "None were taken: `similitude evaluate RUN LABELED` takes them.\n"
    titles = [column_title(column).full for column in table.columns]
    lines = [f"| accuracy in % | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for name, scores in table.rows.items():
        cells = [scores[c].to_text() if c in scores else "-" for c in table.columns]
        lines.append(f"| {visible(name)} | {' | '.join(cells)} |")
    counts = f"{table.num_train or 0:,} training and {table.num_test or 0:,} test {table.nouns}"
    said = "".join(f"- {visible(sentence)}\n" for sentence in [*table.sentences(), *table.notes])
    return "\n".join([*lines, f"\n{counts}, {table.num_classes or 0} classes.\n\n{said}"])


def _recipe(run: Run) -> str:
    init = run.pretraining.init
    named = None if init is None else init.changed(name=_start(run))
    return dump_recipe(run.pretraining.changed(init=named, reasons={}))
