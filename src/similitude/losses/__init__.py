"""Losses: pure functions of tensors. No parameters, no state, no collectives."""

from similitude.losses.classification import index_cross_entropy
from similitude.losses.clustering import sinkhorn, swapped_prediction
from similitude.losses.contrastive import (
    bank_softmax,
    in_batch_info_nce,
    info_nce,
    instance_nce,
    instance_normalizer,
    instance_softmax,
    invariant_spread,
    nt_xent,
    nt_xent_with_queue,
    repulsion,
)
from similitude.losses.cross_modal import matched_sigmoid, matched_softmax
from similitude.losses.decorrelation import barlow_twins, barlow_twins_hsic
from similitude.losses.distillation import (
    distill_logits,
    self_distillation,
    self_distillation_before_logits,
)
from similitude.losses.predictive import cpc_info_nce, cpc_shared_info_nce
from similitude.losses.regression import (
    channel_cross_entropy,
    negative_cosine,
    normalized_regression,
)
from similitude.losses.tiles import mean_in_tiles, mean_over_bank_rows

__all__ = [
    "bank_softmax",
    "barlow_twins",
    "barlow_twins_hsic",
    "channel_cross_entropy",
    "cpc_info_nce",
    "cpc_shared_info_nce",
    "distill_logits",
    "in_batch_info_nce",
    "index_cross_entropy",
    "info_nce",
    "instance_nce",
    "instance_normalizer",
    "instance_softmax",
    "invariant_spread",
    "matched_sigmoid",
    "matched_softmax",
    "mean_in_tiles",
    "mean_over_bank_rows",
    "negative_cosine",
    "normalized_regression",
    "nt_xent",
    "nt_xent_with_queue",
    "repulsion",
    "self_distillation",
    "self_distillation_before_logits",
    "sinkhorn",
    "swapped_prediction",
]
