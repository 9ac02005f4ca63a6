"""A run beside its baselines: the table that ``Run.evaluate`` makes, and keeps in the run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from similitude.data.classes import check_classes, told_single
from similitude.data.labels import read_labels
from similitude.distributed import first_then_others, join_processes, rank
from similitude.distributed.launch import run_on_devices, wants_processes
from similitude.errors import UserError
from similitude.evaluation import ScoreTable, check_protocols, read_scores
from similitude.evaluation.comparison import BEFORE_TRAINING, PRETRAINED_BACKBONE, RANDOM_BACKBONE
from similitude.evaluation.evaluate import Entrant, check_names, evaluate_entrants
from similitude.files.writing import as_path, check_writable, write_text
from similitude.listener import Listener
from similitude.modalities import Modality
from similitude.nets.start import Start
from similitude.recipes import arithmetic_of
from similitude.runs.checkpoint import load_backbone
from similitude.runs.entrants import AsWanted
from similitude.runs.folder import is_held, refuse_links
from similitude.runs.run import Calls, Progress, Run, Say
from similitude.runs.starts import opened
from similitude.sample import DataConfig


def evaluate(
    run: Run,
    data: object,
    *,
    protocols: str | Sequence[str] | None,
    labels: str | Path | None,
    draws: int,
    against: Sequence[str | Path | Start],
    devices: int | None,
    progress: Progress | None,
    say: Say | None,
) -> ScoreTable:
    """See :meth:`Run.evaluate`."""
    protocols = check_protocols(protocols)  # before any image is read
    refuse_links(run.path)
    check_writable(run.path / "evaluation.json")
    if wants_processes(devices, 1):
        return run_on_devices(
            _evaluate_in_a_process,
            {
                "run": run.path,
                "method": run.method_name,
                "data": data,
                "protocols": protocols,
                "labels": labels,
                "draws": draws,
                "against": against,
            },
            devices=devices or 1,
            listener=Calls(progress, say),
        )
    join_processes()
    published = first_then_others(lambda: opened(against))
    check_names([weights.name for weights in published])
    train_source, test_source = first_then_others(
        lambda: labeled_parts(run.modality, data, labels, run.recipe.data)
    )
    if say is not None and (told := told_single(train_source)) is not None:
        say(told)
    train = run.load_source(train_source, progress, say)
    test = None if test_source is None else run.load_source(test_source, progress, say)
    parts = AsWanted(
        (train, test),
        run.recipe.data,
        (train_source, test_source),
        run.modality,
        lambda source, config: run.load_source(source, progress, None, config),
    )
    entrants = [
        *_before(run),
        *map(parts.row_of, published),
        _entrant(run, PRETRAINED_BACKBONE, run.backbone),
    ]
    steps = (1 + len(train.baselines()) + len(entrants)) * (1 + len(protocols) + (test is not None))
    done = iter(range(steps))
    table = evaluate_entrants(
        entrants,
        parts.own,
        data=train_source.name,
        pixels=parts.for_raw(),
        protocols=protocols,
        draws=draws,
        seed=run.split_seed,
        device=run.device,
        on_progress=lambda what: progress and progress("evaluating", next(done), steps, what),
        over_processes=True,
    )
    if rank() > 0:
        return table
    notes = [
        f"{weights.name} was given images of {weights.image_size} px, its own size; the run's "
        f"are of {run.facts.size} px."
        for weights in published
        if weights.image_size != run.facts.size
    ]
    table = replace(table, notes=[*table.notes, *notes])
    if progress is not None:
        progress("evaluating", steps, steps, "")
    place, tell = run.path / "evaluation.json", say or (lambda _: None)
    of_step = f"these are scores of step {run.checkpoint.step:,}"
    if run.is_outdated:
        tell(f"{run.path} has trained on meanwhile: {of_step}, and are not kept")
        return table
    if is_held(run.path):
        tell(f"{run.path} is trained still: {of_step}, and are removed when that ends")
    if (earlier := read_scores(place)) is not None:
        if say is not None and not table.is_alike(earlier):
            columns = ", ".join(map(earlier.title, earlier.columns))
            why = "weights, images or labels have changed"
            if not earlier.weights:
                why = "an earlier version wrote them, which scored raw pixels in another way"
            say(
                f"the scores of before ({columns} on {earlier.data}) are replaced in {place}: {why}"
            )
        table = table.completed_by(earlier)
    write_text(place, json.dumps(table.to_json(), indent=2))
    run.write_gallery(train if test is None else test)
    if run.is_outdated:  # the training may have looked for such scores before they were there
        place.unlink(missing_ok=True)
    return table


def _before(run: Run) -> list[Entrant]:
    """The rows of the same backbone with random weights, and with those of its start."""
    rows = [_entrant(run, RANDOM_BACKBONE, run.untrained())]
    if run.start is not None:
        rows.append(_entrant(run, BEFORE_TRAINING, load_backbone(run.recipe, run.start, run.path)))
    return rows


def _entrant(run: Run, name: str, backbone: nn.Module) -> Entrant:
    """A row of a backbone that takes this run's images, in this run's arithmetic."""
    arithmetic = arithmetic_of(run.recipe)
    arithmetic.place(backbone)
    return Entrant(
        name,
        backbone,
        run.facts,
        autocast_dtype=None if arithmetic.dtype == torch.float32 else arithmetic.dtype,
        channels_last=arithmetic.channels_last,
    )


def _evaluate_in_a_process(
    *, run: Path, method: str | None, listener: Listener, **arguments: Any
) -> ScoreTable:
    there = Run(run, method=method)
    return there.evaluate(**arguments, progress=listener.progress, say=listener.say)


def labeled_parts(
    modality: Modality, data: object, labels: str | Path | None, config: DataConfig | None
) -> tuple[Any, Any]:
    """Training and test samples, both with labels; None where there is one part only."""
    sources = modality.open_parts(data, config)
    if labels is not None:
        if len(sources) > 1 and as_path(labels).exists():  # reading says that it does not
            raise UserError(
                f"--labels {labels} goes with one folder, and {data} has two parts: "
                "give one of them, e.g. its train folder"
            )
        sources = [sources[0].with_labels(*read_labels(labels, sources[0]))]
    for source in sources:
        if source.labels is None:
            raise UserError(
                f"{source.name} has no labels to score against: sort the images into one subfolder "
                "for each class, or give --labels labels.csv with rows FILE,LABEL"
            )
    train = sources[0]
    for test in sources[1:]:
        check_classes(train, test)
    assert train.labels is not None
    classes, counts = train.labels[train.labels >= 0].unique(return_counts=True)
    if int((counts >= 2).sum()) < 2:
        raise UserError(
            f"{train.name} has {int(counts.sum())} labeled images of {len(classes)} classes: "
            "scores need at least two classes with two images each"
        )
    return train, sources[1] if len(sources) > 1 else None
