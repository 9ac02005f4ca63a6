"""Small networks shared by methods: heads, targets that follow, and BatchNorm in parts."""

from similitude.nets.batchnorm import (
    SplitBatchNorm2d,
    SyncBatchNorm,
    convert_split_batchnorm,
    convert_sync_batchnorm,
    sync_batch_norm,
)
from similitude.nets.color import ColorSplit, rgb_to_lab, rgb_to_ycbcr
from similitude.nets.convolution import SmallMapConv2d, convert_convolutions
from similitude.nets.gradients import clip_each_, drop_gradients
from similitude.nets.heads import (
    DINOHead,
    ScaleBatchNorm1d,
    WeightNormLinear,
    mlp,
    output_std,
    plain_projector,
)
from similitude.nets.multicrop import multi_crop_features
from similitude.nets.patches import GatedContext, PatchBackbone, ResidualContext
from similitude.nets.positions import set_sincos_positions_, sincos_positions, xavier_init_
from similitude.nets.targets import ema_update_, frozen_copy, without_drop_path

__all__ = [
    "ColorSplit",
    "DINOHead",
    "GatedContext",
    "PatchBackbone",
    "ResidualContext",
    "ScaleBatchNorm1d",
    "SmallMapConv2d",
    "SplitBatchNorm2d",
    "SyncBatchNorm",
    "WeightNormLinear",
    "clip_each_",
    "convert_convolutions",
    "convert_split_batchnorm",
    "convert_sync_batchnorm",
    "drop_gradients",
    "ema_update_",
    "frozen_copy",
    "mlp",
    "multi_crop_features",
    "output_std",
    "plain_projector",
    "rgb_to_lab",
    "rgb_to_ycbcr",
    "set_sincos_positions_",
    "sincos_positions",
    "sync_batch_norm",
    "without_drop_path",
    "xavier_init_",
]
