"""Heads of the papers. N samples, P projection size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LastNorm = Literal["none", "affine", "scale", "plain"]


def mlp(
    dims: Sequence[int],
    *,
    norm: bool = True,
    last_norm: LastNorm = "none",
    hidden_bias: bool | None = None,
    last_bias: bool | None = None,
) -> nn.Sequential:
    """Linear-BatchNorm-ReLU blocks, ending in a Linear and perhaps one more BatchNorm.

    The heads of the papers::

        SimCLR              mlp([d, d, 128], last_norm="scale")
        MoCo v2             mlp([d, d, 128], norm=False)
        BYOL                mlp([d, 4096, 256], hidden_bias=True, last_bias=False)
        SimSiam, projector  mlp([d, 2048, 2048, 2048], last_norm="plain", last_bias=True)
        SimSiam, predictor  mlp([2048, 512, 2048])

    Args:
        dims: sizes from input to output, at least two.
        norm: BatchNorm before every ReLU.
        last_norm: BatchNorm at the end: "none"; "affine" with scale and offset; "scale" without
            offset; "plain" with neither.
        hidden_bias: bias of the Linears before a ReLU; None: where no BatchNorm cancels it.
        last_bias: bias of the last Linear; None: where no BatchNorm cancels it.
    """
    layers: list[nn.Module] = []
    *hidden, (d_in, d_out) = pairwise(dims)
    for d, width in hidden:
        layers.append(nn.Linear(d, width, bias=not norm if hidden_bias is None else hidden_bias))
        if norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU(inplace=True))
    layers.append(
        nn.Linear(d_in, d_out, bias=last_norm == "none" if last_bias is None else last_bias)
    )
    if last_norm == "scale":
        layers.append(ScaleBatchNorm1d(d_out))
    elif last_norm != "none":
        layers.append(nn.BatchNorm1d(d_out, affine=last_norm == "affine"))
    return nn.Sequential(*layers)


class ScaleBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm with a trained scale and no offset, the end of SimCLR's projector."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Running statistics of an unseen batch, and scale 1."""
        self.reset_running_stats()
        nn.init.ones_(self.weight)


@torch.no_grad()
def output_std(z: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
    """How far the rows spread over the sphere (SimSiam, arXiv:2011.10566, Sec. 4.1), detached.

    Returns:
        Standard deviation over the batch of the unit rows, mean over channels, times sqrt(P):
        about 1 for directions spread evenly, 0 when all rows point the same way (collapsed).
    """
    return F.normalize(z.float(), dim=1).std(dim=0).mean() * z.shape[1] ** 0.5
