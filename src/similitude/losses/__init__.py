"""Losses: pure functions of tensors. No parameters, no state, no collectives, no detach."""

from similitude.losses.contrastive import in_batch_info_nce, info_nce, nt_xent
from similitude.losses.regression import negative_cosine, normalized_regression

__all__ = [
    "in_batch_info_nce",
    "info_nce",
    "negative_cosine",
    "normalized_regression",
    "nt_xent",
]
