"""Whether a backbone is any good: probes, baselines, geometry and a verdict."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from similitude.evaluation.evaluate import (
        PROTOCOLS,
        Entrant,
        check_protocols,
        evaluate_entrants,
        probe_features,
    )
    from similitude.evaluation.features import (
        Features,
        centered,
        extract_features,
        raw_features,
        split_features,
    )
    from similitude.evaluation.few_labels import few_label_accuracies, few_label_skips
    from similitude.evaluation.geometry import (
        alignment,
        effective_rank,
        feature_std,
        spectrum,
        uniformity,
    )
    from similitude.evaluation.knn import KNNProbe
    from similitude.evaluation.label_free import (
        alpha_req,
        clid,
        cluster_learnability,
        intrinsic_dimension,
        label_free_numbers,
        lidar,
        nearest_neighbor_consistency,
    )
    from similitude.evaluation.linear import LinearProbe
    from similitude.evaluation.scores import Score, ScoreTable, read_scores
    from similitude.evaluation.verdict import Readings, Verdict, diagnose
    from similitude.evaluation.zipf import zipf_fitness

# Imported on first use: the report reads scores without PyTorch, which takes seconds.
_PLACES = {
    "evaluate": (
        *("PROTOCOLS", "Entrant", "check_protocols", "evaluate_entrants", "probe_features"),
    ),
    "features": (*("Features", "centered", "extract_features", "raw_features", "split_features"),),
    "few_labels": ("few_label_accuracies", "few_label_skips"),
    "geometry": ("alignment", "effective_rank", "feature_std", "spectrum", "uniformity"),
    "verdict": ("Readings", "Verdict", "diagnose"),
    "knn": ("KNNProbe",),
    "label_free": (
        *("alpha_req", "clid", "cluster_learnability", "intrinsic_dimension"),
        *("label_free_numbers", "lidar", "nearest_neighbor_consistency"),
    ),
    "linear": ("LinearProbe",),
    "scores": ("Score", "ScoreTable", "read_scores"),
    "zipf": ("zipf_fitness",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "PROTOCOLS",
    "Entrant",
    "Features",
    "KNNProbe",
    "LinearProbe",
    "Readings",
    "Score",
    "ScoreTable",
    "Verdict",
    "alignment",
    "alpha_req",
    "centered",
    "check_protocols",
    "clid",
    "cluster_learnability",
    "diagnose",
    "effective_rank",
    "evaluate_entrants",
    "extract_features",
    "feature_std",
    "few_label_accuracies",
    "few_label_skips",
    "intrinsic_dimension",
    "label_free_numbers",
    "lidar",
    "nearest_neighbor_consistency",
    "probe_features",
    "raw_features",
    "read_scores",
    "spectrum",
    "split_features",
    "uniformity",
    "zipf_fitness",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
