"""What a study is: cells, and published directions that can be checked on their numbers."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from similitude.evaluation.scores import mean_score

# What an expectation may be about: name for people, factor to the unit, unit. All other numbers
# that a run measures go by the name of their column in metrics.csv.
MEASURES = {
    "knn": ("kNN", 100.0, " points"),
    "linear": ("linear probe", 100.0, " points"),
    "finetuned": ("fine-tuning", 100.0, " points"),
    "effective_rank": ("effective rank", 1.0, ""),
    "relative_std": ("feature spread", 1.0, ""),
    "projection_std": ("spread of the projections", 1.0, ""),
}
ACCURACIES = ("knn", "linear", "finetuned")
COLLAPSED = "collapsed"  # the share of a cell's runs with this verdict
_STATEMENT = re.compile(r"(.+?): (\w+) (above|below) (.+?)(?: by (\S+))?")


@dataclass(frozen=True)
class Cell:
    """One row of a study: a recipe by its name, and what is changed in it."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()  # as after --set


@dataclass(frozen=True)
class Expectation:
    """A published direction as a statement over the cells' means that can be checked.

    Attributes:
        cell: the cell it is about.
        measure: "knn", "linear", "finetuned", "collapsed", or any number a run measures.
        relation: where the cell's mean lies, from ``than`` on.
        than: another cell, or a number in the measure's unit.
        by: the least difference, in the measure's unit (accuracies: points); below 0 the most that
            the cell may lie on the other side.
        published: the paper's own numbers, and where they stand.
    """

    cell: str
    measure: str
    relation: Literal["above", "below"]
    than: str | float
    by: float = 0.0
    published: str = ""

    @property
    def sentence(self) -> str:
        """The statement in words: "no predictor: kNN more than 5 points below SimSiam"."""
        if self.measure == COLLAPSED:
            return f"{self.cell} {'collapses' if self.relation == 'above' else 'does not collapse'}"
        name, _, unit = _measure(self.measure)
        if self.by < 0:
            side = "below" if self.relation == "above" else "above"
            return f"{self.cell}: {name} less than {-self.by:g}{unit} {side} {self.than}"
        more = f"more than {self.by:g}{unit} " if self.by else ""
        than = self.than if isinstance(self.than, str) else f"{self.than:.3g}{unit}"
        return f"{self.cell}: {name} {more}{self.relation} {than}"


@dataclass(frozen=True)
class Judgement:
    """Whether an expectation shows (None: it could not be measured), and the numbers behind it."""

    sentence: str
    shows: bool | None
    numbers: str
    published: str

    @property
    def line(self) -> str:
        """For the end of the table."""
        verdict = {True: "shows", False: "does not show at this size", None: "not measured"}
        source = f" Published: {self.published}." if self.published else ""
        return f"{verdict[self.shows]}: {self.sentence} ({self.numbers}).{source}"


@dataclass(frozen=True)
class Study:
    """A question, the cells that answer it, and what the papers found.

    Attributes:
        title: what is varied.
        question: ends with a question mark.
        recipe: what the cells start from, by its name.
        changes: the cells, and what each sets in the recipe, as after --set.
        published: directions, "CELL: MEASURE above|below CELL or number [by DIFFERENCE]" as
            in :class:`Expectation`, and the papers' own numbers, or "".
        others: further cells, of other recipes.
        settings: of all cells, before their own.
        images: training images, at most.
        epochs: over so many images; as many steps where there are fewer.
        seeds: runs of each cell.
        minutes: all of it on two cores, from the time of single steps.
        label_fraction: of the labels every run is fine-tuned on as well, and scored as "finetuned";
            0: it is not.
        from_layer: layers of the projector that this keeps.
    """

    title: str
    question: str
    recipe: str
    changes: Mapping[str, tuple[str, ...]]
    published: Mapping[str, str]
    others: tuple[Cell, ...] = ()
    settings: tuple[str, ...] = ()
    images: int = 10_000
    epochs: int = 5
    seeds: int = 2
    minutes: float = 10.0
    label_fraction: float = 0.0
    from_layer: int = 0

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All rows of the study."""
        own = (Cell(name, self.recipe, settings) for name, settings in self.changes.items())
        return (*own, *self.others)

    @property
    def expected(self) -> tuple[Expectation, ...]:
        """What was published, as statements that can be checked."""
        return tuple(self._expectation(*said) for said in self.published.items())

    def _expectation(self, statement: str, published: str) -> Expectation:
        match = _STATEMENT.fullmatch(statement)
        assert match is not None, statement
        parts: tuple[Any, ...] = match.groups()
        cell, measure, relation, than, by = parts
        other = than if than in {cell.name for cell in self.cells} else float(than)
        return Expectation(cell, measure, relation, other, float(by or 0), published)


def judge(
    expectation: Expectation, values: Mapping[str, Mapping[str, Sequence[float]]]
) -> Judgement:
    """Check an expectation on what was measured.

    Args:
        expectation: the statement.
        values: cell -> measure -> one number for each seed, the seeds in the same order in all
            cells; NaN where a run has none.
    """
    name, scale, _ = _measure(expectation.measure)
    digits = ".1f" if expectation.measure in ACCURACIES else ".4g"

    def numbers(cell: str) -> list[float]:
        return [scale * value for value in values.get(cell, {}).get(expectation.measure, [])]

    def judged(shows: bool | None, text: str) -> Judgement:
        return Judgement(expectation.sentence, shows, text, expectation.published)

    ours = numbers(expectation.cell)
    found = [value for value in ours if math.isfinite(value)]
    if not found:
        return judged(None, f"{expectation.cell} has no {name}")
    mean = sum(found) / len(found)
    sign = 1 if expectation.relation == "above" else -1
    if not isinstance(expectation.than, str):
        shows = sign * (mean - expectation.than) > expectation.by
        if expectation.measure == COLLAPSED:
            return judged(shows, f"{sum(found):.0f} of {len(found)} runs collapsed")
        return judged(shows, f"{mean:{digits}}")
    theirs = [value for value in numbers(expectation.than) if math.isfinite(value)]
    if not theirs:
        return judged(None, f"{expectation.than} has no {name}")
    other = sum(theirs) / len(theirs)
    pairs = zip(ours, numbers(expectation.than), strict=False)
    differences = [a - b for a, b in pairs if math.isfinite(a - b)]
    paired = mean_score(differences) if len(differences) > 1 else None
    difference = mean - other if paired is None else paired.mean
    beyond = sign * difference - expectation.by
    text = f"{mean:{digits}} against {other:{digits}}, a difference of {difference:+{digits}}"
    if paired is not None:
        margin = (paired.high or 0.0) - paired.mean
        noise = ", within the noise of so few seeds" if abs(beyond) < margin else ""
        text += f" ± {margin:{digits}}{noise}"
    if missing := len(ours) + len(numbers(expectation.than)) - len(found) - len(theirs):
        text += f"; runs without a number: {missing}, so seeds that have both are compared"
    return judged(beyond > 0, text)


def _measure(measure: str) -> tuple[str, float, str]:
    return MEASURES.get(measure, (measure.replace("_", " "), 1.0, ""))
