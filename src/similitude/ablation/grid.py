"""What ``--vary`` means: fields, their values, and the product of all of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from similitude.errors import UserError
from similitude.experiment import FIXED, field_path, folder_name
from similitude.files.reading import parse_yaml
from similitude.recipes import Recipe, override


@dataclass(frozen=True)
class Variation:
    """A field of the recipe and the values it takes."""

    field: str  # as it was given: a path such as optimizer.base_lr, or a field of the method
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Planned:
    """A cell whose every setting is known."""

    name: str  # of a grid: "stop_gradient=true,predictor=mlp"
    settings: dict[str, Any]  # what varies, as given -> value; empty in a study
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Where its runs go, in the folder of the ablation."""
        return folder_name(self.name)


def parse_variations(given: Sequence[str] | Mapping[str, Sequence[Any]]) -> list[Variation]:
    """The variations behind ``["ema_decay=0,0.99", "crop_scale=[0.2,1],[0.5,1]"]``.

    Values are YAML, separated by commas; a mapping of fields to lists of values says the same.

    Raises:
        UserError: a text without "=", values that are not YAML, or fewer than two values.
    """
    variations = []
    if not isinstance(given, Mapping):
        parsed = [_parse(text) for text in given]
    else:
        parsed = [(field, list(values)) for field, values in given.items()]
    for field, values in parsed:
        texts = [value_text(value) for value in values]
        if len(set(texts)) < 2 or len(set(texts)) < len(texts):
            raise UserError(
                f"--vary {field} needs two or more different values, such as "
                f"--vary {field}=A,B; it has {', '.join(texts) or 'none'}"
            )
        if field in (*FIXED, "method.name"):
            instead = "--seeds" if field == "seed" else "one command for each method"
            raise UserError(f"--vary {field} is not possible: use {instead}")
        if field in (variation.field for variation in variations):
            raise UserError(f"--vary {field} is given twice: name all its values once")
        variations.append(Variation(field, tuple(values)))
    return variations


def _parse(text: str) -> tuple[str, list[Any]]:
    field, equals, values = text.partition("=")
    if not equals or not field.strip():
        raise UserError(f"--vary {text!r} has no values; write it as FIELD=A,B,C")
    return field.strip(), parse_yaml(f"[{values}]", f"--vary {text!r}: the list of values")


def grid(variations: Sequence[Variation], recipe: Recipe) -> list[Planned]:
    """Every combination of the values in a recipe, the last field changing fastest.

    Raises:
        UserError: a field that the recipe does not have, or a value that it does not take.
    """
    paths = [field_path(variation.field, recipe, "--vary") for variation in variations]
    cells = []
    for values in product(*(variation.values for variation in variations)):
        settings = {v.field: value for v, value in zip(variations, values, strict=True)}
        name = ",".join(f"{field}={value_text(value)}" for field, value in settings.items())
        # JSON is YAML, and unlike YAML's own writer it never breaks a line
        assignments = [f"{p}={json.dumps(value)}" for p, value in zip(paths, values, strict=True)]
        cells.append(Planned(name, settings, override(recipe, assignments, option="--vary")))
    return cells


def value_text(value: Any) -> str:
    """A value as one would type it: true, 0.2, mlp, [0.2,1]."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
