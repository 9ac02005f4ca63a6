"""Samples in files and in rows, whatever they are of; a modality decodes them.

What people call first, such as ``load_images``, is found here too, whatever modality it is of.
"""

from importlib import import_module
from typing import Any

from similitude.modalities import DATA


def __getattr__(name: str) -> Any:
    if name in DATA:
        return getattr(import_module(DATA[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *DATA])
