"""Networks that follow the trained ones."""

from copy import deepcopy
from typing import TypeVar

import torch
from timm.layers import DropPath
from torch import nn

from similitude.distributed.sharding import own_part

# pyright: reportPrivateImportUsage=false
# torch._foreach_* (what torch.optim itself runs on) moves all tensors in one call.

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def frozen_copy(module: ModuleT) -> ModuleT:
    """An identical copy that receives no gradient."""
    return deepcopy(module).requires_grad_(False)


def without_drop_path(module: ModuleT) -> ModuleT:
    """Switch off stochastic depth inside ``module``, in place: DINO's target never drops a path."""
    for layer in module.modules():
        if isinstance(layer, DropPath):
            layer.drop_prob = 0.0
    return module


@torch.no_grad()
def ema_update_(target: nn.Module, online: nn.Module, decay: float) -> None:
    """Move every parameter: target <- decay * target + (1 - decay) * online.

    Buffers stay the target's own: its BatchNorm runs in train mode on its own batches, as in the
    code of MoCo, BYOL, MoCo v3 and DINO.

    Args:
        target: moves.
        online: of the same structure; unchanged.
        decay: weight of the old value, in [0, 1]; 0 copies, 1 leaves the target where it is.
    """
    pairs = list(zip(target.parameters(), online.parameters(), strict=True))
    if any(t.shape != o.shape for t, o in pairs):
        raise ValueError("target and online networks differ in the shape of a parameter")
    if pairs:
        targets, onlines = zip(*((own_part(t), own_part(o)) for t, o in pairs), strict=True)
        torch._foreach_lerp_(targets, onlines, 1 - decay)
