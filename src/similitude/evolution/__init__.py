"""Evolution: numbers of a recipe found by CMA-ES on a fitness that needs no label."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from similitude.distributed.launch import refuse_processes
from similitude.errors import UserError
from similitude.evaluation.zipf import CLUSTERS
from similitude.evolution.findings import Evolution, Individual
from similitude.evolution.search import (
    Range,
    check_installed,
    parse_searches,
    population,
    with_settings,
)
from similitude.evolution.work import Job, Population, Work, evolved, trainer
from similitude.experiment import as_kept, folder_name, open_parts, read_plan, write_plan
from similitude.files.writing import as_path, check_writable, write_text
from similitude.listener import Listener, Silent
from similitude.method import MethodConfig
from similitude.methods import given_method
from similitude.modalities import Modality, chooser
from similitude.recipes import Recipe, dump_recipe, find_recipe, touched_fields
from similitude.recipes.choose import set_num_samples
from similitude.recipes.duration import shorten_warmup
from similitude.report.evolution import write_evolution_page
from similitude.runs.folder import holding
from similitude.runs.run import Run
from similitude.training.choose import choose_for, kind_for, opened_with, too_few_samples
from similitude.training.request import PretrainRequest

__all__ = ["Evolution", "evolve"]

GENERATIONS, POPULATION = 4, 8
SHORTER = 10  # times: an individual's training than the user's own
WHAT = "evolution"


def evolve(
    data: Any,
    *,
    method: str | MethodConfig | None = None,
    search: Sequence[str] = (),
    generations: int = GENERATIONS,
    population: int = POPULATION,
    epochs: int | None = None,
    images: int | None = None,
    processes: int = 1,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    clusters: int = CLUSTERS,
    unit_length: bool = False,
    out: str | Path | None = None,
    listener: Listener | None = None,
) -> Evolution | None:
    """Find numbers of a recipe by evolution, as Evolving Losses does its loss weights.

    Each individual is a run folder as :func:`similitude.pretrain` makes it, trained briefly from
    the same initial weights and with the same draws as all others. Its fitness is measured on a
    fifth of the samples that none is trained on; see
    :func:`similitude.evaluation.zipf.zipf_fitness`. One that collapses or fails is worse than all
    others. CMA-ES (Hansen 2016) makes a generation of the fitnesses before it; the first individual
    is the middle of the ranges. Labels, where there are some, only tell afterwards whether fitness
    and accuracy go together.

    The same call goes on where the last one was stopped, to the same end; generations may be added.

    Args:
        data: whatever :func:`similitude.pretrain` takes.
        method: a name, or a config.
        search: ``["optimizer.base_lr=0.05..2:log", "weights"]``: fields of the recipe or the
            method that are numbers, or tables of numbers, with bounds where they have none of their
            own; by default what the method says.
        generations: that follow each other.
        population: individuals of a generation, at least 4.
        epochs: of an individual; a tenth of what the run itself would have.
        images: samples at most, drawn once.
        processes: that train individuals side by side, each with its share of the threads. With
            equal threads the results are the same bits.
        recipe: as in :func:`similitude.pretrain`; what all individuals start from.
        overrides: as in :func:`similitude.pretrain`; for all individuals.
        seed: of weights, draws, held-out samples, clusters and strategy.
        clusters: of the fitness.
        unit_length: whether the fitness is of features scaled to length 1.
        out: the folder; ``evolutions/NAME``.
        listener: hears how it goes.

    Returns:
        What was found, or None if Ctrl-C stopped it. ``evolution.json``, ``evolution.csv`` and
        ``evolution.html`` in the folder hold it too, and ``best.yaml`` is the recipe of the best
        with the epochs of a run of its own.

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    listener = listener or Silent()
    refuse_processes("evolve")
    check_installed()
    if method is not None:
        given_method(method if isinstance(method, str) else method.name)
    least = {"generations": 1, "population": 4, "epochs": 1, "images": 2, "processes": 1}
    given = (generations, population, epochs, images, processes)
    for (name, most), number in zip(least.items(), given, strict=True):
        if number is not None and number < most:
            raise UserError(f"an evolution needs {name} of at least {most}, not {number}")
    if "seed" in touched_fields(overrides):
        raise UserError("--set seed is not possible: give the evolution's --seed")
    request = {
        "method": method.model_dump(mode="json") if isinstance(method, MethodConfig) else method,
        "recipe": _content(recipe),
        "settings": list(overrides),
        "search": list(search),
        "population": population,
        "epochs": epochs,
        "images": images,
        "seed": seed,
        "clusters": clusters,
        "unit_length": unit_length,
    }
    options = {"method": method, "recipe": recipe, "overrides": tuple(overrides)}
    if out is None:
        of = Path(str(data)).stem if isinstance(data, str | Path) else "images"
        name = method if isinstance(method, str) else getattr(method, "name", "recipe")
        out = Path("evolutions") / folder_name(f"{of}-{name}")
    try:
        with ExitStack() as held:
            return _carry_out(
                request,
                options,
                kind_for(method, data),
                data,
                generations,
                processes,
                as_path(out),
                listener,
                held,
            )
    except (KeyboardInterrupt, SystemExit) as ended:
        listener.say("stopped; the same command goes on with what is not finished")
        if isinstance(ended, SystemExit):
            raise
        return None


def _content(recipe: str | Path | Recipe | None) -> dict[str, Any] | None:
    """A recipe as it is now: a file may change."""
    if recipe is None:
        return None
    return (recipe if isinstance(recipe, Recipe) else find_recipe(recipe)).model_dump(mode="json")


def _carry_out(
    request: dict[str, Any],
    options: dict[str, Any],
    kind: Modality,
    data: Any,
    generations: int,
    processes: int,
    folder: Path,
    listener: Listener,
    held: ExitStack,
) -> Evolution:
    check_writable(folder, "evolution.json")
    stored = read_plan(folder, WHAT, request)
    asked = PretrainRequest(None, overrides=options["overrides"])
    sources = open_parts(kind, data, opened_with(asked, chooser(kind.kind)))
    source, seed = sources[0], request["seed"]
    count = min(len(source), request["images"] or len(source))
    if stored is None:
        own = choose_for(kind, source, count, **options).changed(seed=seed)
        if request["search"]:  # what the method says may hang on the samples
            parse_searches(request["search"], own)
    else:
        own = stored[1][""]
    if own.data.told_cut is not None:
        raise UserError("an evolution takes images whole: leave tile_size out")
    clusters, unit_length = request["clusters"], request["unit_length"]
    job = Job(folder, kind.kind, data, own.data, count, seed, clusters, unit_length)
    work = Work(job, listener, sources)
    if stored is None:
        own = set_num_samples(own, len(work.samples))
        if options["recipe"] is None:
            given = touched_fields(options["overrides"])
            fit = chooser(kind.kind).fit
            own = fit(own, work.samples, given, pixels=True, views=False)
    elif stored[0] != work.samples.fingerprint():
        raise UserError(f"{folder} holds an evolution on other images: give another --out")
    ranges = parse_searches(request["search"], own)
    brief = _brief(own, request["epochs"], work)
    middle = with_settings(brief, population(ranges, request["population"], seed, [])[0])
    largest = with_settings(brief, {found.path: found.value(1.0) for found in ranges}).batch_size
    if len(work.training) < largest:
        raise too_few_samples(len(work.training), f"{source.name}, for training,", largest)
    if len(work.held_out) < clusters:
        raise UserError(
            f"{len(work.held_out)} held-out images are fewer than {clusters} clusters: add images, "
            "or give fewer --clusters"
        )
    choose_for(kind, source, len(work.training), recipe=middle)  # says what does not fit
    if stored is None:
        write_plan(folder, WHAT, request, work.samples, {"": own})
    held.enter_context(holding(folder))
    size = request["population"]
    listener.say(
        f"{generations} x {size} individuals of {_epochs(brief)} on "
        f"{len(work.training):,} {work.samples.noun} of {source.name}, in {folder}"
    )
    with trainer(work, processes) as train:
        each = Population(work, brief, generations * size, train)
        individuals = evolved(ranges, generations, size, seed, each.evaluate)
    return _told(work, own, brief, ranges, individuals)


def _brief(own: Recipe, epochs: int | None, work: Work) -> Recipe:
    """The recipe of an individual, but for what is searched."""
    number = len(work.training)
    batch_size = number if own.batch_size == len(work.samples) else own.batch_size  # all are all
    fewer = epochs or max(1, round(own.epochs / SHORTER))
    brief = set_num_samples(own, number).changed(epochs=fewer, batch_size=batch_size)
    return shorten_warmup(brief)


def _epochs(recipe: Recipe) -> str:
    return f"{recipe.epochs} {'epoch' if recipe.epochs == 1 else 'epochs'}"


def _told(
    work: Work, own: Recipe, brief: Recipe, ranges: Sequence[Range], individuals: list[Individual]
) -> Evolution:
    """What was found, and its files."""
    folder = work.job.folder
    sound = [one for one in individuals if one.is_sound]
    found = Evolution(
        folder,
        f"{own.method.name} on {work.origin.name}: {', '.join(r.path for r in ranges)}",
        _notes(work, brief),
        list(ranges),
        work.baselines(Run(folder / sound[0].folder)) if sound else {},
        individuals,
    )
    if found.best is not None:
        reason = f"the best of {len(individuals)} individuals, fitness {found.best.told:.4f}"
        reasons = own.reasons | dict.fromkeys(found.best.settings, reason)
        best = with_settings(own, found.best.settings).changed(reasons=reasons)
        write_text(folder / "best.yaml", dump_recipe(as_kept(best, work.origin)))
    found.write()
    write_evolution_page(folder)
    return found


def _notes(work: Work, brief: Recipe) -> list[str]:
    """What a reader of the numbers must know."""
    job, nouns = work.job, work.samples.noun
    scale = "scaled to length 1" if job.unit_length else "as they are"
    notes = [
        f"{len(work.training):,} {nouns} trained on for {_epochs(brief)}.",
        f"Fitness, less is better: the divergence of the sizes of {job.clusters} clusters of "
        f"{len(work.held_out):,} other {nouns} from Zipf's law; features {scale}, 2 sigma^2 = 1.",
        "A collapse has the fitness of clusters of equal size: the verdict tells them apart.",
    ]
    if work.test is None:
        return [*notes, "They have no labels, so nothing is scored."]
    return [*notes, f"Scored on the labels of {len(work.test):,} {nouns} not trained on."]
