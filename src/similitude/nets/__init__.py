"""Small networks shared by methods: heads, targets that follow, and BatchNorm in parts."""

from similitude.nets.batchnorm import (
    SplitBatchNorm2d,
    SyncBatchNorm,
    convert_split_batchnorm,
    convert_sync_batchnorm,
    sync_batch_norm,
)
from similitude.nets.gradients import clip_each_, drop_gradients
from similitude.nets.heads import (
    DINOHead,
    ScaleBatchNorm1d,
    UnitBias,
    WeightNormLinear,
    build_head,
    group_norm,
    mlp,
)
from similitude.nets.multicrop import multi_crop_features
from similitude.nets.outputs import output_readings, output_std, prediction_gap, worst_readings
from similitude.nets.patches import GatedContext, PatchBackbone, ResidualContext
from similitude.nets.targets import ema_update_, frozen_copy, without_drop_path

__all__ = [
    "DINOHead",
    "GatedContext",
    "PatchBackbone",
    "ResidualContext",
    "ScaleBatchNorm1d",
    "SplitBatchNorm2d",
    "SyncBatchNorm",
    "UnitBias",
    "WeightNormLinear",
    "build_head",
    "clip_each_",
    "convert_split_batchnorm",
    "convert_sync_batchnorm",
    "drop_gradients",
    "ema_update_",
    "frozen_copy",
    "group_norm",
    "mlp",
    "multi_crop_features",
    "output_readings",
    "output_std",
    "prediction_gap",
    "sync_batch_norm",
    "without_drop_path",
    "worst_readings",
]
