"""The individuals of an evolution: trained, resumed or read, one by one or in several processes."""

import json
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from pydantic import TypeAdapter, ValidationError
from torch import nn

from similitude.distributed.launch import end_with_parent
from similitude.errors import UserError, WritingError
from similitude.evaluation import effective_rank, extract_features
from similitude.evaluation.comparison import PRETRAINED_BACKBONE, RANDOM_BACKBONE
from similitude.evaluation.draws import held_out
from similitude.evaluation.zipf import zipf_fitness
from similitude.evolution.findings import FITNESS, RANK, Individual
from similitude.evolution.search import Range, Settings, population, with_settings
from similitude.experiment import (
    FAILED,
    as_kept,
    is_finished,
    load,
    open_parts,
    scorable,
    score,
    some,
    train_or_resume,
)
from similitude.files.reading import damaged, read_json
from similitude.files.writing import write_text
from similitude.listener import Listener, Silent, Titled, end, hearing
from similitude.modalities import modality
from similitude.recipes import Recipe
from similitude.runs.folder import refuse_links
from similitude.runs.run import Run
from similitude.runs.scoring import entrant_of
from similitude.sample import DataConfig, Samples

HELD_OUT = 0.2  # of the samples, for the fitness
RESULT = "individual.json"  # in the folder of each
Task = tuple[Individual, Recipe]  # what is not known yet is empty


def evolved(
    ranges: Sequence[Range],
    generations: int,
    size: int,
    seed: int,
    evaluate: Callable[[int, list[Settings]], list[Individual]],
) -> list[Individual]:
    """The individuals of an evolution, as ``evaluate`` finds those of one generation."""
    found: list[list[Individual]] = []
    for generation in range(generations):
        told = [[one.told for one in before] for before in found]
        found.append(evaluate(generation, population(ranges, size, seed, told)))
    return [one for generation in found for one in generation]


@dataclass(frozen=True)
class Job:
    """What a process must know to train an individual."""

    folder: Path
    kind: str  # of data
    data: Any  # as the user gave it
    config: DataConfig
    count: int  # of samples at most
    seed: int
    clusters: int
    unit_length: bool


class Work:
    """Trains and measures individuals on the same samples.

    Training gets no labels, not even for the curve of kNN, on which the verdict might lean.
    """

    def __init__(self, job: Job, listener: Listener, sources: tuple[Any, Any] | None = None):
        self.job, self.listener = job, listener
        kind = modality(job.kind)
        self.origin, test_source = sources or open_parts(kind, job.data, job.config)
        self.data = self.origin.name
        self.samples = some(load(kind, self.origin, job.config, listener), job.count)
        out = held_out(torch.zeros(len(self.samples), dtype=torch.int64), HELD_OUT, job.seed)
        self.training, self.held_out = self.samples.subset(~out), self.samples.subset(out)
        test = self.held_out
        if test_source is not None:
            test = load(kind, test_source, job.config, listener)
        known = test.labels is not None and bool((test.labels >= 0).any())
        # with labels, which the evolution does not see
        self.test: Samples[Any] | None = test if known and scorable(self.training) else None

    def individual(self, task: Task) -> Individual:
        """An individual, trained from where it stands, and measured.

        Raises:
            KeyboardInterrupt: Ctrl-C stopped it.
        """
        begin = time.perf_counter()
        one, recipe = task
        folder = self.job.folder / one.folder
        try:
            if is_finished(folder, recipe):
                run = Run(folder)
            else:
                title = f"generation {one.generation}, individual {one.number}"
                ears = Titled(self.listener, title)
                run = train_or_resume(
                    self.training.without_labels(), self.data, recipe, folder, ears
                )
            if run is None:
                raise KeyboardInterrupt
            values = self.measured(run, run.backbone)
            if self.test is not None and math.isfinite(values.get(FITNESS, math.nan)):
                table = score(run, self.training, self.test, self.data, baselines=False)
                rows = {} if table is None else table.rows[PRETRAINED_BACKBONE]
                values |= {name: found.mean for name, found in rows.items()}
            verdict = run.verdict
        except WritingError:  # a full disk says nothing of the individual: it is tried again
            raise
        except Exception as error:  # whatever it is, it says nothing of the others
            said = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            return replace(one, state=FAILED, reason=said)
        seconds = time.perf_counter() - begin
        found = replace(
            one, state=verdict.state, reason=verdict.sentence, values=values, seconds=seconds
        )
        keep(self.job.folder, found)
        return found

    def measured(self, run: Run, backbone: nn.Module) -> dict[str, float]:
        """Fitness and RankMe on the samples held out; nothing of features that are no numbers."""
        entrant = entrant_of(run.recipe, PRETRAINED_BACKBONE, backbone)
        x = extract_features(
            backbone,
            self.held_out,
            run.facts,
            device=run.device,
            autocast_dtype=entrant.autocast_dtype,
            channels_last=entrant.channels_last,
        ).x
        if not bool(x.isfinite().all()):
            return {}
        job = self.job
        fitness = zipf_fitness(x, clusters=job.clusters, unit_length=job.unit_length, seed=job.seed)
        return {FITNESS: fitness.value, "distance": fitness.distance, RANK: effective_rank(x)}

    def baselines(self, run: Run) -> dict[str, dict[str, float]]:
        """The same numbers of random weights, and accuracies of raw numbers, beside the run's."""
        found = {RANDOM_BACKBONE: self.measured(run, run.untrained())}
        if self.test is None:
            return found
        table = score(run, self.training, self.test, self.data, baselines=True)
        rows = {} if table is None else table.rows
        for name in (name for name in rows if name != PRETRAINED_BACKBONE):
            means = {column: found.mean for column, found in rows[name].items()}
            found[name] = found.get(name, {}) | means
        return found


class Population:
    """Evaluates generations: finished individuals are read, all others trained."""

    def __init__(self, work: Work, recipe: Recipe, total: int, train: Any) -> None:
        self.work, self.recipe, self.total = work, recipe, total
        self.train: Callable[[list[Task]], Iterable[Individual]] = train
        self.done = 0
        self.begun: float | None = None  # when the first was trained
        self.trained = 0

    def evaluate(self, generation: int, asked: list[Settings]) -> list[Individual]:
        """The individuals with these settings.

        Raises:
            UserError: all of them failed, or the folder holds others.
            KeyboardInterrupt: Ctrl-C stopped one.
        """
        folder = self.work.job.folder
        found: dict[int, Individual] = {}
        tasks: list[Task] = []
        for number, settings in enumerate(asked):
            one = Individual(generation, number, settings, "", "", {})
            known = kept(folder, one)
            if known is None:
                try:
                    recipe = as_kept(with_settings(self.recipe, settings), self.work.origin)
                except UserError as error:  # numbers that do not go together
                    found[number] = replace(one, state=FAILED, reason=str(error))
                    continue
                refuse_links(folder, f"generation-{generation}", one.folder)
                is_finished(folder / one.folder, recipe)  # says where another run is there
                tasks.append((one, recipe))
            else:
                found[number] = known
        self.done += len(found)
        self.begun = self.begun or time.perf_counter()
        for one in self.train(tasks):
            found[one.number] = one
            self._tell(one)
        individuals = [found[number] for number in range(len(asked))]
        failed = [one for one in individuals if one.state == FAILED]
        if len(failed) == len(individuals):
            raise UserError(
                f"every individual of generation {generation} failed; {failed[0].reason}"
            )
        for one in failed:  # the next generations are made of what this one was told
            keep(folder, one)
        return individuals

    def _tell(self, one: Individual) -> None:
        self.done += 1
        self.trained += 1
        assert self.begun is not None
        each = (time.perf_counter() - self.begun) / self.trained
        left = math.ceil((self.total - self.done) * each / 60)
        said = f"{one.numbers}: {one.reason}" if one.state == FAILED else one.numbers
        more = f", about {left} min left" if left else ""
        name = f"generation {one.generation}, individual {one.number}"
        self.work.listener.say(f"{self.done}/{self.total} {name}: {said}{more}")


def keep(folder: Path, one: Individual) -> None:
    """Write what is known of an individual into its folder, in one piece."""
    write_text(folder / one.folder / RESULT, json.dumps(asdict(one), indent=2) + "\n")


def kept(folder: Path, one: Individual) -> Individual | None:
    """What is known of an individual from before; None if nothing is.

    Raises:
        UserError: it has other settings, or the file is damaged.
    """
    path = folder / one.folder / RESULT
    if not path.exists():
        return None
    try:
        found = TypeAdapter(Individual).validate_python(read_json(path))
    except ValidationError as error:
        raise damaged(path, "it is no individual") from error
    if found.settings != one.settings:
        raise UserError(f"{path} is of an individual with other settings: give another --out")
    return replace(found, settings=one.settings)


# --- several processes -------------------------------------------------------------------------


@contextmanager
def trainer(work: Work, processes: int) -> Iterator[Callable[[list[Task]], Iterable[Individual]]]:
    """What trains individuals, in this process or in as many others, each with its own samples.

    Whatever ends the block ends them: after Ctrl-C and SIGTERM they save what they train.

    Raises:
        UserError: what the user gave cannot be sent to them, or one of them died.
    """
    if processes == 1:
        yield lambda tasks: map(work.individual, tasks)
        return
    try:
        job = pickle.dumps(work.job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"what was given cannot be sent to other processes ({error}): define its class in a "
            "module, or leave processes out"
        ) from error
    others = mp.active_children()  # of whoever calls
    pool = ProcessPoolExecutor(
        processes,
        mp_context=mp.get_context("spawn"),
        initializer=_begin,
        initargs=(job, max(1, torch.get_num_threads() // processes)),
    )

    def train(tasks: list[Task]) -> Iterator[Individual]:
        waiting, running = list(tasks), set()
        while waiting or running:
            while waiting and len(running) < processes:  # no more, as none is to begin after Ctrl-C
                with _unheard():
                    running.add(pool.submit(_individual, waiting.pop(0)))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)

    with hearing(lambda number: end(number, told=True)):
        try:
            yield train
        except BrokenProcessPool as error:
            raise UserError(
                "a process ended without a result; if nothing above says why, the memory may not "
                f"hold {processes}: give fewer --processes"
            ) from error
        except (KeyboardInterrupt, SystemExit):
            for child in mp.active_children():
                if child not in others and child.pid is not None:
                    os.kill(child.pid, signal.SIGTERM)  # it saves what it trains
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _unheard() -> Iterator[None]:
    """Processes that begin in the block do not hear Ctrl-C; the one that starts them does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_work: Work  # of a process that trains for another


def _begin(job: bytes, threads: int) -> None:
    global _work
    os.setpgrp()  # a terminal's Ctrl-C comes through the parent alone
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _work = Work(pickle.loads(job), Silent())


def _individual(task: Task) -> Individual:
    return _work.individual(task)
