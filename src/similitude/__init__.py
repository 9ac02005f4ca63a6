"""similitude: learn representations from unlabeled data by comparing views of the same thing.

    import similitude as sim

    run = sim.pretrain("photos/", method="byol")
    run.backbone, run.embed("photos/")

The parts work alone too: ``sim.methods``, ``sim.losses``, ``sim.views``, ``sim.evaluation``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from similitude import (
        data,
        embeddings,
        evaluation,
        images,
        losses,
        memory,
        methods,
        nets,
        optimizers,
        recipes,
        report,
        schedules,
    )
    from similitude.ablation import ablate, studies
    from similitude.api import draw_views, load, pack, pretrain
    from similitude.decision import decide
    from similitude.embeddings import embed
    from similitude.errors import UserError
    from similitude.evolution import evolve
    from similitude.images import backbones, views
    from similitude.runs import starts
    from similitude.runs.run import Run
    from similitude.transfer import Classifier, distill, finetune

__version__ = "0.1.0"

# Imported on first use: ``import similitude`` takes milliseconds, torch takes seconds.
_FUNCTIONS = {
    "Classifier": "similitude.transfer",
    "Run": "similitude.runs.run",
    "UserError": "similitude.errors",
    "ablate": "similitude.ablation",
    "decide": "similitude.decision",
    "distill": "similitude.transfer",
    "draw_views": "similitude.api",
    "embed": "similitude.embeddings",
    "evolve": "similitude.evolution",
    "finetune": "similitude.transfer",
    "load": "similitude.api",
    "pack": "similitude.api",
    "pretrain": "similitude.api",
}
_MODULES = {
    "backbones": "similitude.images.backbones",
    "data": "similitude.data",
    "embeddings": "similitude.embeddings",
    "evaluation": "similitude.evaluation",
    "images": "similitude.images",
    "losses": "similitude.losses",
    "memory": "similitude.memory",
    "methods": "similitude.methods",
    "nets": "similitude.nets",
    "optimizers": "similitude.optimizers",
    "recipes": "similitude.recipes",
    "report": "similitude.report",
    "schedules": "similitude.schedules",
    "starts": "similitude.runs.starts",
    "studies": "similitude.ablation.studies",
    "views": "similitude.images.views",
}

__all__ = [
    "Classifier",
    "Run",
    "UserError",
    "ablate",
    "backbones",
    "data",
    "decide",
    "distill",
    "draw_views",
    "embed",
    "embeddings",
    "evaluation",
    "evolve",
    "finetune",
    "images",
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
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'similitude' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, *_MODULES])
