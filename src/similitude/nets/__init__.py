"""Small networks shared by methods: heads, targets that follow, and BatchNorm in parts."""

from similitude.nets.batchnorm import SplitBatchNorm2d, convert_split_batchnorm
from similitude.nets.heads import ScaleBatchNorm1d, mlp, output_std
from similitude.nets.targets import ema_update_, frozen_copy

__all__ = [
    "ScaleBatchNorm1d",
    "SplitBatchNorm2d",
    "convert_split_batchnorm",
    "ema_update_",
    "frozen_copy",
    "mlp",
    "output_std",
]
