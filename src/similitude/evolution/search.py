"""Where an evolution searches, and which points it asks for: CMA-ES on a unit cube.

Hansen 2016, arXiv:1604.00772, by the library ``cma``.
"""

import json
import math
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from similitude.errors import UserError
from similitude.experiment import FIXED, field_path
from similitude.recipes import Recipe, override

SPREAD = 0.25  # of the first generation, in widths of the ranges
UNSEARCHED = ("epochs", "data")
Settings = dict[str, float]  # path in a recipe -> value


@dataclass(frozen=True)
class Range:
    """One number of a recipe, and between which bounds it is searched."""

    path: str
    low: float
    high: float
    log: bool = False
    whole: bool = False  # an integer

    def value(self, place: float) -> float:
        """The number at a place in [0, 1], to four digits, so that what is printed is what was."""
        if self.log:
            found = self.low * (self.high / self.low) ** place
        else:
            found = self.low + (self.high - self.low) * place
        if self.whole:
            return round(found)
        return min(max(float(f"{found:.4g}"), self.low), self.high)


def parse_searches(given: Sequence[str], recipe: Recipe) -> list[Range]:
    """The ranges behind ``["optimizer.base_lr=0.05..2:log", "weights"]``.

    Args:
        given: fields, as paths or of the method, with bounds where they have none of their own; a
            table of numbers stands for its entries. Without any: what the method searches.
        recipe: of which the numbers are.

    Raises:
        UserError: a field that is not there, is no number or may not be searched, or bounds that
            are missing or that it does not take.
    """
    given = given or recipe.method.searched
    if not given:
        raise UserError(
            f"{recipe.method.name} does not say what to search: give --search FIELD=LOW..HIGH, "
            "such as --search optimizer.base_lr=0.05..2:log"
        )
    ranges = [found for text in given for found in _parse(text, recipe)]
    paths = [found.path for found in ranges]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"--search {path} is given twice: give its bounds once")
    for place in (0.0, 1.0):  # says where a bound is beyond what a field takes
        with_settings(recipe, {found.path: found.value(place) for found in ranges})
    return ranges


def _parse(text: str, recipe: Recipe) -> list[Range]:
    field, equals, said = (part.strip() for part in text.partition("="))
    path = field_path(field, recipe, "--search")
    if path in FIXED or path.partition(".")[0] in UNSEARCHED:
        raise UserError(f"--search {field} is not possible: it is the same in all runs")
    value, own = _looked_up(recipe, path, field)
    bounds, log = _bounds(text, said) if equals else (own, False)
    table = value if isinstance(value, dict) else None
    numbers = {path: value} if table is None else {f"{path}.{name}": v for name, v in table.items()}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"--search {field}: {name} is no number")
    if not numbers:
        raise UserError(f"--search {field}: there is no number in it")
    if bounds is None:
        raise UserError(f"--search {field} needs bounds, as --search {field}=LOW..HIGH")
    return [Range(name, *bounds, log, isinstance(v, int)) for name, v in numbers.items()]


def _looked_up(recipe: Recipe, path: str, field: str) -> tuple[Any, tuple[float, float] | None]:
    """The value at a path, and the bounds that its field has of its own; of a table's: 0 and 1."""
    value: Any = recipe
    bounds = None
    for key in path.split("."):
        inside = value if isinstance(value, dict) else dict(value) if _is_config(value) else {}
        if key not in inside:
            raise UserError(f"--search {field}: there is no {key!r} in the recipe")
        bounds = (0.0, 1.0) if isinstance(value, dict) else _own_bounds(value, key)
        value = inside[key]
    return value, (0.0, 1.0) if isinstance(value, dict) else bounds


def _is_config(value: Any) -> bool:
    return hasattr(type(value), "model_fields")


def _own_bounds(config: Any, field: str) -> tuple[float, float] | None:
    """Both inclusive bounds of a field, where it has them."""
    notes = type(config).model_fields[field].metadata
    low = [note.ge for note in notes if hasattr(note, "ge")]
    high = [note.le for note in notes if hasattr(note, "le")]
    return (low[0], high[0]) if low and high else None


def _bounds(text: str, said: str) -> tuple[tuple[float, float], bool]:
    span, colon, scale = said.partition(":")
    try:
        low, high = map(float, span.split(".."))
        if colon and scale != "log":
            raise ValueError(scale)
    except ValueError as error:
        raise UserError(
            f"--search {text!r} has no bounds; write it as FIELD=LOW..HIGH[:log]"
        ) from error
    if not -math.inf < low < high < math.inf or (colon and low <= 0):
        above = "0 < LOW < HIGH" if colon else "LOW < HIGH"
        raise UserError(f"--search {text!r}: bounds must be {above}")
    return (low, high), bool(colon)


def assignments(settings: Mapping[str, float]) -> list[str]:
    """The settings as after ``--set``."""
    return [f"{path}={json.dumps(value)}" for path, value in settings.items()]


def with_settings(recipe: Recipe, settings: Mapping[str, float]) -> Recipe:
    """The recipe with these settings.

    Raises:
        UserError: a value that a field does not take.
    """
    return override(recipe, assignments(settings), option="--search")


def as_options(settings: Mapping[str, float]) -> str:
    """The settings as a shell takes them: "--set method.weights.order=0.31 --set ..."."""
    return " ".join(f"--set {shlex.quote(text)}" for text in assignments(settings))


def check_installed() -> None:
    """Refuse to begin without the library.

    Raises:
        UserError: it is not there.
    """
    _strategy()


def _strategy() -> Callable[..., Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it could not plot
            from cma import CMAEvolutionStrategy
    except ImportError as error:
        raise UserError("an evolution needs cma: pip install 'similitude[evolve]'") from error
    return CMAEvolutionStrategy


def population(
    ranges: Sequence[Range], size: int, seed: int, told: Sequence[Sequence[float]]
) -> list[Settings]:
    """The settings of the next generation: a pure function of what the ones before were told.

    The first individual of all is the middle of the ranges. The strategy is replayed from its
    beginning, with random numbers of its own, so that nothing of it has to be kept.

    Args:
        ranges: of the settings.
        size: of a generation, at least 2.
        seed: of the strategy.
        told: for each generation before, the fitness of its individuals; less is better. Only
            their ranks matter, so infinity is worse than all.
    """
    dim = max(len(ranges), 2)  # a strategy in one dimension is not supported: one more, unused
    middle = np.full(dim, 0.5)
    options = {
        "bounds": [0.0, 1.0],
        "popsize": size,
        "randn": np.random.RandomState(seed).randn,
        "seed": np.nan,  # it has no other random numbers
        "verbose": -9,
    }
    strategy = _strategy()(middle, SPREAD, options)
    strategy.inject([middle], force=True)
    for fitness in told:
        strategy.tell(strategy.ask(), rankdata(fitness))
    asked: Float[np.ndarray, "size dim"] = np.clip(strategy.ask(), 0.0, 1.0)
    return [{r.path: r.value(x) for r, x in zip(ranges, row, strict=False)} for row in asked]
