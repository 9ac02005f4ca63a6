"""A run beside its baselines: the table that ``Run.evaluate`` makes, and keeps in the run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from similitude.data.classes import check_classes, told_single
from similitude.data.labels import read_labels
from similitude.distributed import rank
from similitude.errors import UserError
from similitude.evaluation import ScoreTable, read_scores
from similitude.evaluation.comparison import BEFORE_TRAINING, PRETRAINED_BACKBONE, RANDOM_BACKBONE
from similitude.evaluation.evaluate import TEST_FRACTION, Entrant, Parts, evaluate_entrants
from similitude.evaluation.grouping import held_out_groups, shared_groups, units_of
from similitude.files.writing import as_path, taking_turns, write_text
from similitude.listener import Listener
from similitude.modalities import Modality
from similitude.nets.start import Start
from similitude.recipes import Recipe, arithmetic_of
from similitude.runs.checkpoint import load_backbone
from similitude.runs.folder import is_held
from similitude.runs.gallery import write_gallery
from similitude.runs.run import Run
from similitude.runs.starts import fitted
from similitude.sample import DataConfig


def score_run(
    run: Run,
    sources: tuple[Any, Any],
    published: Sequence[Start],
    protocols: Sequence[str],
    draws: int,
    listener: Listener,
    groups: Sequence[Sequence[str]] = (),
) -> ScoreTable:
    """The table that :meth:`Run.evaluate` gives, and keeps in the run.

    Args:
        run: what is scored.
        sources: of the training part and the test part, as :func:`labeled_parts` gives them.
        published: weights that get a row each, on samples as they want them.
        protocols: names of probes.
        draws: random draws of the few labels.
        listener: hears how it goes.
        groups: what each sample of a source belongs to, which is kept on one side; by source.
    """
    train_source, test_source = sources
    if (told := told_single(train_source)) is not None:
        listener.say(told)
    config = run.recipe.data
    published = fitted(published, run.modality, config, listener)
    train = run.load_source(train_source, listener)
    test = None if test_source is None else run.load_source(test_source, listener)
    kept, told = _kept_apart(run, sources, groups)
    train, test = _cut((train, test), sources, kept)
    known: list[Parts] = [(train, test)]  # as the run has them, and in one other way at a time

    def loaded(wanted: DataConfig) -> Parts:
        """The samples in the way that is wanted."""
        if wanted == config:
            return known[0]
        for parts in known:
            if run.modality.same(wanted, parts[0]):
                return parts
        del known[1:]  # room for the next ones
        first = run.load_as(wanted, train_source, listener)
        second = None if test_source is None else run.load_as(wanted, test_source, listener)
        known.append(_cut((first, second), sources, kept))
        return known[1]

    def row_of(weights: Start) -> Entrant:
        """Published weights, on samples as they want them, in full precision."""
        facts, wanted = run.modality.entrant_at(weights, train, train_source)
        load = partial(loaded, wanted or config)
        return Entrant(weights.name, weights.build(), facts, load, channels_last=True)

    entrants = [
        *_before(run),
        *map(row_of, published),
        entrant_of(run.recipe, PRETRAINED_BACKBONE, run.backbone),
    ]
    steps = (1 + len(train.baselines()) + len(entrants)) * (1 + len(protocols) + (test is not None))
    done = iter(range(steps))
    table = evaluate_entrants(
        entrants,
        (train, test),
        data=train_source.name,
        pixels=loaded(run.modality.for_raw(config, train_source)),
        protocols=protocols,
        draws=draws,
        seed=run.split_seed,
        device=run.device,
        on_progress=lambda what: listener.progress("evaluating", next(done), steps, what),
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
    table = replace(table, notes=[*told, *table.notes, *notes])
    listener.progress("evaluating", steps, steps)
    place = run.path / "evaluation.json"
    of_step = f"these are scores of step {run.checkpoint.step:,}"
    if run.is_outdated:
        listener.say(f"{run.path} has trained on meanwhile: {of_step}, and are not kept")
        return table
    if is_held(run.path):
        listener.say(f"{run.path} is trained still: {of_step}, and are removed when that ends")
    with taking_turns(run.path):  # another evaluation may end at the same time
        if (earlier := read_scores(place)) is not None:
            if not table.is_alike(earlier):
                columns = ", ".join(map(earlier.title, earlier.columns))
                why = "weights, images or labels have changed"
                if not earlier.weights:
                    why = "an earlier version wrote them, which scored raw pixels in another way"
                listener.say(
                    f"the scores of before ({columns} on {earlier.data}) are replaced in {place}: "
                    f"{why}"
                )
            table = table.completed_by(earlier)
        write_text(place, json.dumps(table.to_json(), indent=2))
    write_gallery(run, train if test is None else test)
    if run.is_outdated:  # the training may have looked for such scores before they were there
        place.unlink(missing_ok=True)
    return table


def _below(source: Any) -> str:
    """A hint where the folders of the classes are one level further down."""
    places = [name.split("/") for name in source.names]
    if {len(place) for place in places} != {3} or len({place[0] for place in places}) > 1:
        return ""
    return f"; its classes are one level down: give {source.name}/{places[0][0]}"


def _kept_apart(
    run: Run, sources: tuple[Any, Any], groups: Sequence[Sequence[str]]
) -> tuple[Any, list[str]]:
    """Masks of what is learned from and tested on, for a cut by groups; None without groups."""
    if not groups:
        return None, []
    first, second = sources
    everything = torch.ones(len(first), dtype=torch.bool)
    if second is not None:
        mask, told = shared_groups(groups[0], groups[1], first.name, second.name)
        return (everything, mask), told
    out = held_out_groups(first.labels, groups[0], TEST_FRACTION, run.split_seed)
    count = len(np.unique(units_of(groups[0])[out.numpy()]))
    told = (
        f"There is no test part: {int(out.sum()):,} samples, all of {count:,} groups, were held "
        "out. Intervals are over samples: those of decide are over groups, and wider."
    )
    return (~out, out), [told]


def _cut(parts: Parts, sources: tuple[Any, Any], kept: Any) -> Parts:
    """Loaded parts by masks over their sources, some of whose samples may not be readable."""
    if kept is None:
        return parts
    train, test = parts

    def those(samples: Any, source: Any, mask: Any) -> Any:
        names = {name for name, keep in zip(source.names, mask.tolist(), strict=True) if keep}
        return samples.subset([i for i, name in enumerate(samples.names) if name in names])

    second = (train, sources[0]) if test is None else (test, sources[1])
    return those(train, sources[0], kept[0]), those(*second, kept[1])


def _before(run: Run) -> list[Entrant]:
    """The rows of the same backbone with random weights, and with those of its start."""
    rows = [entrant_of(run.recipe, RANDOM_BACKBONE, run.untrained())]
    if run.start is not None:
        begun = load_backbone(run.recipe, run.start, run.path)
        rows.append(entrant_of(run.recipe, BEFORE_TRAINING, begun))
    return rows


def entrant_of(recipe: Recipe, name: str, backbone: nn.Module) -> Entrant:
    """A row of a backbone that takes the images of a run of this recipe, in its arithmetic."""
    arithmetic = arithmetic_of(recipe)
    arithmetic.place(backbone)
    return Entrant(
        name,
        backbone,
        recipe.facts,
        autocast_dtype=None if arithmetic.dtype == torch.float32 else arithmetic.dtype,
        channels_last=arithmetic.channels_last,
    )


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
                f"{source.name} has no labels to score against: sort them into one subfolder "
                f"for each class, or give --labels labels.csv with rows FILE,LABEL{_below(source)}"
            )
    train = sources[0]
    for test in sources[1:]:
        check_classes(train, test)
    assert train.labels is not None
    classes, counts = train.labels[train.labels >= 0].unique(return_counts=True)
    if int((counts >= 2).sum()) < 2:
        raise UserError(
            f"{train.name} has {int(counts.sum())} labeled samples of {len(classes)} classes: "
            "scores need at least two classes with two samples each"
        )
    return train, sources[1] if len(sources) > 1 else None
