"""What an evolution found: every individual, the best, and whether the fitness says anything."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy.stats import permutation_test, rankdata, zscore

from similitude.errors import visible
from similitude.evolution.search import Range, Settings, as_options
from similitude.experiment import FAILED, PROTOCOLS
from similitude.files.writing import write_text

FITNESS, RANK = "fitness", "effective_rank"
MEASURES = (FITNESS, RANK, *PROTOCOLS)
PAIRINGS: Any = {"permutation_type": "pairings", "random_state": 0}
FEWEST = 4  # individuals of which a rank correlation is given


@dataclass(frozen=True)
class Individual:
    """One run of an evolution.

    Attributes:
        generation: from 0.
        number: in its generation, from 0.
        settings: path in the recipe -> value.
        state: the verdict: healthy, doubtful, collapsed; or failed.
        reason: of the verdict, or the error.
        values: "fitness", "effective_rank", "distance", and where there are labels "knn", "linear".
        seconds: of training and scoring.
    """

    generation: int
    number: int
    settings: Settings
    state: str
    reason: str
    values: dict[str, float]
    seconds: float = 0.0

    @property
    def folder(self) -> str:
        """Of its run, in that of the evolution."""
        return f"generation-{self.generation}/individual-{self.number}"

    @property
    def is_sound(self) -> bool:
        """Whether it neither collapsed nor failed; only then its fitness says something."""
        return self.state not in ("collapsed", FAILED) and math.isfinite(self.measured(FITNESS))

    @property
    def told(self) -> float:
        """The fitness that the strategy is told: infinity, worse than all, unless it is sound."""
        return self.measured(FITNESS) if self.is_sound else math.inf

    def measured(self, measure: str) -> float:
        """One of its values or settings, NaN where it has none."""
        return self.values.get(measure, self.settings.get(measure, math.nan))

    @property
    def numbers(self) -> str:
        """What came out, in a few words."""
        names = {FITNESS: "fitness", "knn": "kNN", "linear": "linear"}
        parts = [
            f"{name} {100 * value:.1f}" if key in PROTOCOLS else f"{name} {value:.4f}"
            for key, name in names.items()
            if math.isfinite(value := self.measured(key))
        ]
        return ", ".join([*parts, self.state])


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over the sound individuals.

    p is two-sided, of 9,999 random pairings, or of all where there are fewer.
    """

    of: str
    with_: str
    rho: float
    p: float
    count: int

    @property
    def sentence(self) -> str:
        """In words: "fitness and linear: rank correlation -0.59 (p 0.012) over 17 individuals"."""
        of = "RankMe" if self.of == RANK else self.of
        numbers = f"{self.rho:+.2f} (p {self.p:.2g}) over {self.count} individuals"
        return f"{of} and {self.with_}: rank correlation {numbers}"


@dataclass(frozen=True)
class Evolution:
    """Everything an evolution found.

    Attributes:
        path: the folder, with ``evolution.json``, ``.csv``, ``.html``, and ``best.yaml``.
        title: whose settings, on what.
        notes: on samples and fitness, in plain sentences.
        ranges: what was searched, and between which bounds.
        baselines: "raw ..." and "random backbone" -> its values, where there are labels.
        individuals: in the order of generations.
    """

    path: Path
    title: str
    notes: list[str]
    ranges: list[Range]
    baselines: dict[str, dict[str, float]]
    individuals: list[Individual]

    @property
    def fields(self) -> list[str]:
        """What was searched: paths in the recipe."""
        return [found.path for found in self.ranges]

    @property
    def sound(self) -> list[Individual]:
        """Those that neither collapsed nor failed."""
        return [one for one in self.individuals if one.is_sound]

    @property
    def best(self) -> Individual | None:
        """The one of the least fitness, the first of several; None where none is sound."""
        return min(self.sound, key=lambda one: one.told, default=None)

    def correlation(self, of: str, with_: str) -> Correlation | None:
        """Between two measures or settings; None where too few have both, or one is constant."""
        pairs = [(one.measured(of), one.measured(with_)) for one in self.sound]
        pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
        if len(pairs) < FEWEST or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
            return None
        one, other = (zscore(rankdata(side)) for side in zip(*pairs, strict=True))
        found: Any = permutation_test(
            (one,), lambda ranks, axis=-1: (ranks * other).mean(axis), vectorized=True, **PAIRINGS
        )
        return Correlation(of, with_, float(found.statistic), float(found.pvalue), len(pairs))

    @cached_property
    def correlations(self) -> list[Correlation]:
        """Of fitness and RankMe with the probes, and of every setting with fitness and probes."""
        pairs = [(of, probe) for of in (FITNESS, RANK) for probe in PROTOCOLS]
        pairs += [(field, with_) for field in self.fields for with_ in (FITNESS, *PROTOCOLS)]
        return [found for pair in pairs if (found := self.correlation(*pair)) is not None]

    @property
    def lines(self) -> list[str]:
        """What it comes to, in sentences."""
        said = [one.sentence for one in self.correlations if one.of in (FITNESS, RANK)]
        if self.best is None:
            return [*said, "No individual is sound: there is no best one."]
        first, best = self.individuals[0], self.best
        than = f", {first.told:.4f} of the middle" if first.is_sound else ""
        said.append(f"best: {best.folder}, fitness {best.told:.4f}{than}")
        return [*said, as_options(best.settings)]

    def render(self) -> Group:
        """For the terminal: generations, notes, and what it comes to."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("generation")
        titles = {FITNESS: "best", "mean": "mean", "knn": "kNN of the best", "linear": "linear"}
        shown = [t for t in titles if t not in PROTOCOLS or self._has(t)]
        for title in shown:
            table.add_column(titles[title], justify="right")
        table.add_column("sound", justify="right")
        for generation in self.generations:
            sound = [one for one in generation if one.is_sound]
            best = min(sound, key=lambda one: one.told, default=None)
            texts = ["-"] * len(shown)
            if best is not None:
                mean = sum(one.told for one in sound) / len(sound)
                numbers = [mean if key == "mean" else best.measured(key) for key in shown]
                texts = [number_text(n, key) for n, key in zip(numbers, shown, strict=True)]
            count = f"{len(sound)} of {len(generation)}"
            table.add_row(str(generation[0].generation), *texts, count)
        lines = (Text(visible(line)) for line in (*self.notes, *self.lines))
        return Group(Text(visible(self.title), "bold"), table, *lines)

    @property
    def generations(self) -> list[list[Individual]]:
        """The individuals of each."""
        last = self.individuals[-1].generation
        return [[one for one in self.individuals if one.generation == g] for g in range(last + 1)]

    def _has(self, measure: str) -> bool:
        return any(measure in one.values for one in self.individuals)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings; what is not finite is left out."""
        return {
            "title": self.title,
            "notes": self.notes,
            "lines": self.lines,
            "ranges": [asdict(found) for found in self.ranges],
            "baselines": self.baselines,
            "best": None if self.best is None else self.best.folder,
            "options": "" if self.best is None else as_options(self.best.settings),
            "individuals": [
                {**asdict(one), "folder": one.folder, "sound": one.is_sound}
                for one in self.individuals
            ],
            "correlations": [asdict(found) for found in self.correlations],
        }

    def to_csv(self) -> str:
        """One row for each individual."""
        measures = [measure for measure in MEASURES if self._has(measure)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["generation", "individual", "verdict", *measures, "seconds", *self.fields])
        for one in self.individuals:
            numbers = _texts(one.measured(measure) for measure in measures)
            settings = _texts(one.settings.values())
            facts = [one.generation, one.number, one.state]
            writer.writerow([*facts, *numbers, f"{one.seconds:.1f}", *settings])
        return text.getvalue()

    def write(self) -> None:
        """Write evolution.json and evolution.csv, each in one piece."""
        facts = json.dumps(self.to_json(), indent=2, allow_nan=False)
        write_text(self.path / "evolution.json", facts + "\n")
        write_text(self.path / "evolution.csv", self.to_csv())


def number_text(number: float, measure: str) -> str:
    """A number as a table shows it: accuracies in per cent; a hyphen where there is none."""
    if not math.isfinite(number):
        return "-"
    return f"{100 * number:.1f}" if measure in PROTOCOLS else f"{number:.4f}"


def _texts(numbers: Iterable[float]) -> Sequence[str]:
    return ["" if math.isnan(number) else f"{number:.8g}" for number in numbers]
