"""Whether a backbone is any good: probes, baselines, geometry and a verdict."""

from similitude.evaluation.baselines import (
    PROTOCOLS,
    Entrant,
    check_protocols,
    evaluate_backbone,
    evaluate_entrants,
    score_features,
)
from similitude.evaluation.features import (
    Features,
    centered,
    extract_features,
    raw_features,
    split_features,
)
from similitude.evaluation.few_labels import few_label_scores, few_label_skips
from similitude.evaluation.geometry import (
    alignment,
    effective_rank,
    feature_std,
    spectrum,
    uniformity,
)
from similitude.evaluation.health import Readings, Verdict, diagnose
from similitude.evaluation.knn import KNNProbe
from similitude.evaluation.linear import LinearProbe
from similitude.evaluation.scores import Score, ScoreTable, read_scores

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
    "centered",
    "check_protocols",
    "diagnose",
    "effective_rank",
    "evaluate_backbone",
    "evaluate_entrants",
    "extract_features",
    "feature_std",
    "few_label_scores",
    "few_label_skips",
    "raw_features",
    "read_scores",
    "score_features",
    "spectrum",
    "split_features",
    "uniformity",
]
