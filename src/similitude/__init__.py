"""similitude: learn representations from unlabeled images by comparing views of the same thing.

    import similitude as sim

    run = sim.pretrain("photos/", method="byol")
    run.backbone, run.embed("photos/")

The parts work alone too: ``sim.methods``, ``sim.losses``, ``sim.views``, ``sim.evaluation``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from similitude import (
        backbones,
        data,
        evaluation,
        losses,
        memory,
        methods,
        nets,
        optimizers,
        recipes,
        report,
        schedules,
        starts,
        studies,
        views,
    )
    from similitude.ablation import ablate
    from similitude.api import draw_views, load, pack, pretrain
    from similitude.errors import UserError
    from similitude.runs import Run
    from similitude.transfer import Classifier, distill, finetune

__version__ = "0.1.0"

# Imported on first use: ``import similitude`` takes milliseconds, torch takes seconds.
_FUNCTIONS = {
    "Classifier": "similitude.transfer",
    "Run": "similitude.runs",
    "UserError": "similitude.errors",
    "ablate": "similitude.ablation",
    "distill": "similitude.transfer",
    "draw_views": "similitude.api",
    "finetune": "similitude.transfer",
    "load": "similitude.api",
    "pack": "similitude.api",
    "pretrain": "similitude.api",
}
_MODULES = (
    "backbones",
    "data",
    "evaluation",
    "losses",
    "memory",
    "methods",
    "nets",
    "optimizers",
    "recipes",
    "report",
    "schedules",
    "starts",
    "studies",
    "views",
)

__all__ = [
    "Classifier",
    "Run",
    "UserError",
    "ablate",
    "backbones",
    "data",
    "distill",
    "draw_views",
    "evaluation",
    "finetune",
    "load",
    "losses",
    "memory",
    "methods",
    "nets",
    "optimizers",
    "pack",
    "pretrain",
    "recipes",
    "report",
    "schedules",
    "starts",
    "studies",
    "views",
]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return import_module(f"similitude.{name}")
    raise AttributeError(f"module 'similitude' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, *_MODULES])
