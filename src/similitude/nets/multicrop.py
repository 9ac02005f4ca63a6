"""Views of several sizes through one backbone (SwAV's multi-crop).

N samples, C channels, V views, D features.

A large view costs as much as several small ones, and the small ones show parts of the whole.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from similitude.nets.views import joined


def multi_crop_features(backbone: nn.Module, views: Sequence[Any]) -> Float[Tensor, "VN D"]:
    """Features of all views, one pass of the backbone for each run of views of equal size.

    Args:
        backbone: images [M, C, H, W] of any size, or what else a view is, to features [M, D]; a
            ViT interpolates its position embedding.
        views: V of them, those of equal size side by side, e.g. two global ones and then eight
            local ones: two passes.

    Returns:
        Rows of view 1, then of view 2, ...; ``chunk(V)`` parts them again.
    """
    sizes = groupby(views, key=lambda view: view.shape[-2:] if isinstance(view, Tensor) else None)
    return torch.cat([backbone(joined(list(same))) for _, same in sizes])
