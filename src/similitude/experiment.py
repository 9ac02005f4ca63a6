"""What experiments of many runs share: data, a plan, runs that are trained, resumed or read."""

import re
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from similitude.data.classes import check_classes, has_labels
from similitude.data.source import Source
from similitude.devices import best_device
from similitude.errors import UserError, did_you_mean
from similitude.evaluation import ScoreTable, evaluate_entrants
from similitude.evaluation.comparison import PRETRAINED_BACKBONE, RANDOM_BACKBONE
from similitude.files.reading import read_yaml
from similitude.files.writing import contents, write_text
from similitude.listener import Listener
from similitude.modalities import Modality, chooser
from similitude.recipes import Recipe, load_recipe, parse_recipe
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.folder import CHECKPOINT, replacing_run, settle, training_in
from similitude.runs.run import Run
from similitude.runs.scoring import entrant_of
from similitude.sample import DataConfig, Samples
from similitude.training.pretrain import train

PROTOCOLS = ("knn", "linear")
FAILED = "failed"  # in place of a verdict: the run ended with an error
LONGEST_NAME = 100  # of a folder
FIXED = ("name", "method", "seed", "reasons")  # are the same in all runs


# --- the data ----------------------------------------------------------------------------------


def open_parts(modality: Modality, data: Any, config: DataConfig | None) -> tuple[Any, Any]:
    """The sources of what is trained on, and of test samples where some stand apart, else None.

    Args:
        modality: the kind of data.
        data: as the user gave it.
        config: how it is read, where something is said of it.
    """
    source, *test = modality.open_parts(data, config)
    if test and has_labels(source) and has_labels(test[0]):
        check_classes(source, test[0])
    whole = modality.open_training(data, config)
    if whole.names != source.names:  # of a graph all nodes are, and those for tests too
        return whole, None
    return source, test[0] if test else None


def load(modality: Modality, source: Any, config: DataConfig, listener: Listener) -> Samples[Any]:
    """The samples of a source; how many cannot be read is told."""
    images = modality.load(
        source, config, lambda done, total: listener.progress("reading images", done, total)
    )
    if images.unreadable:
        listener.say(f"{len(images.unreadable)} unreadable files in {source.name} are left out")
    return images


def some(images: Samples[Any], count: int) -> Samples[Any]:
    """At most ``count`` samples, always the same ones, in their order."""
    if len(images) <= count:
        return images
    return images.subset(images.order(0, -1)[:count].sort().values)


def scorable(images: Samples[Any]) -> bool:
    """Whether there are two classes with two samples each."""
    if images.labels is None:
        return False
    counts = images.labels[images.labels >= 0].unique(return_counts=True)[1]
    return int((counts >= 2).sum()) >= 2


# --- the plan ----------------------------------------------------------------------------------


def field_path(field: str, recipe: Recipe, option: str) -> str:
    """Where a field stands in a recipe that was given as a path, or as one of the method.

    Raises:
        UserError: neither the recipe nor its method has such a field.
    """
    first = field.partition(".")[0]
    method = type(recipe.method).model_fields
    if first in Recipe.model_fields:
        return field
    if first in method:
        return f"method.{field}"
    known = [name for name in (*method, *Recipe.model_fields) if name not in FIXED]
    raise UserError(
        f"{option} {field}: neither a recipe nor the method {recipe.method.name} has a "
        f"field {first!r}: {did_you_mean(first, known)}"
    )


def as_kept(recipe: Recipe, source: Source) -> Recipe:
    """The recipe as a run on these samples keeps it."""
    choose = chooser(recipe.data.kind)
    return choose.settle(choose.as_used(recipe), source)


def read_plan(
    folder: Path, what: str, request: Mapping[str, Any]
) -> tuple[str, dict[str, Recipe]] | None:
    """Samples and recipes of the experiment in ``folder``; None if the folder is new.

    Args:
        folder: with the file ``what``.yaml, if any.
        what: the experiment is: "ablation".
        request: what must be the same for it to go on.

    Raises:
        UserError: the folder holds something else, or was made with other settings.
    """
    path = folder / f"{what}.yaml"
    if folder.is_file() or (folder.is_dir() and contents(folder) and not path.exists()):
        raise UserError(f"{folder} is there already and no {what}: give another --out")
    if not path.exists():
        return None
    plan = read_yaml(path)
    try:
        then, images, recipes = dict(plan["request"]), plan["images"], dict(plan["recipes"])
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: give another --out") from error
    other = [name for name in request if then.get(name) != request[name]]
    if other:
        raise UserError(
            f"{folder} holds an {what} that differs in {', '.join(other)}: give another --out, "
            "or the same settings to go on with it"
        )
    return images, {name: parse_recipe(recipe, str(path)) for name, recipe in recipes.items()}


def write_plan(
    folder: Path,
    what: str,
    request: Mapping[str, Any],
    images: Samples[Any],
    recipes: Mapping[str, Recipe],
) -> None:
    """Keep what the next call needs to go on; see :func:`read_plan`."""
    plan = {
        "request": dict(request),
        "images": images.fingerprint(),
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in recipes.items()},
    }
    write_text(folder / f"{what}.yaml", yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))


def folder_name(name: str) -> str:
    """A name as a folder: without blanks, brackets and what a shell would read."""
    text = re.sub(r"[^\w.=,+-]+", "-", re.sub(r"[\[\]]", "", name)).strip("-") or "cell"
    if len(text) <= LONGEST_NAME and not text.startswith("."):
        return text
    return f"{text.lstrip('.')[: LONGEST_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


# --- a run -------------------------------------------------------------------------------------


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the run is there to its end.

    Raises:
        UserError: a run with other settings is there.
    """
    settle(folder)
    path = folder / "recipe.yaml"
    if path.exists():
        reasons: dict[str, Any] = {"reasons": {}}
        if load_recipe(path).changed(**reasons) != recipe.changed(**reasons):
            raise UserError(f"{folder} is a run with other settings: give another --out")
    return (folder / "health.json").exists() and (folder / "embedding.npz").exists()


def train_or_resume(
    images: Samples[Any], data: str, recipe: Recipe, folder: Path, listener: Listener
) -> Run | None:
    """The run, trained from where it stands, stopped where it collapses; None after Ctrl-C."""
    path = folder.joinpath(*CHECKPOINT)
    saved = path.exists()
    with ExitStack() as stack:
        stack.enter_context(training_in(folder, resume=saved, overwrite=not saved))
        if not saved:
            stack.enter_context(replacing_run(folder))
        return train(
            images,
            data,
            recipe,
            folder,
            device=best_device(),
            listener=listener,
            checkpoint=load_checkpoint(path, method=recipe.method.name) if saved else None,
            stop_collapsed=True,
            report=False,
            goes_on="the same command",
        )


def score(
    run: Run, images: Samples[Any], test: Samples[Any] | None, data: str, *, baselines: bool
) -> ScoreTable | None:
    """Accuracies of a run, and of raw numbers and random weights; None where it collapsed to NaN.

    Held-out part and draws are the same for all runs, which are compared.
    """
    entrants = [entrant_of(run.recipe, PRETRAINED_BACKBONE, run.backbone)]
    if baselines:
        entrants.insert(0, entrant_of(run.recipe, RANDOM_BACKBONE, run.untrained()))
    assert images.labels is not None
    if bool((images.labels < 0).any()):
        images = images.subset(images.labels >= 0)
    try:
        return evaluate_entrants(
            entrants,
            (images, test),
            data=data,
            pixels=(images, test) if baselines else None,
            protocols=PROTOCOLS,
            seed=0,
            device=run.device,
        )
    except UserError:
        if run.verdict.state == "collapsed":
            return None
        raise
