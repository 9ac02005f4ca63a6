"""Heads of the papers. N samples, P projection size."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# pyright: reportPrivateImportUsage=false
# torch._weight_norm is what PyTorch's own weight_norm runs on.

LastNorm = Literal["none", "affine", "scale", "plain"]
Norm = bool | Literal["group"]


def mlp(
    dims: Sequence[int],
    *,
    norm: Norm = True,
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
        norm: BatchNorm before every ReLU; "group": GroupNorm, in which samples do not meet.
        last_norm: the same at the end: "none"; "affine" with scale and offset; "scale", BatchNorm
            alone, without offset; "plain" with neither.
        hidden_bias: bias of the Linears before a ReLU; None: where no BatchNorm cancels it.
        last_bias: bias of the last Linear; None: where no BatchNorm cancels it.
    """
    layers: list[nn.Module] = []
    *hidden, (d_in, d_out) = pairwise(dims)
    for d, width in hidden:
        layers.append(nn.Linear(d, width, bias=not norm if hidden_bias is None else hidden_bias))
        if norm:
            layers.append(group_norm(width) if norm == "group" else nn.BatchNorm1d(width))
        layers.append(nn.ReLU(inplace=True))
    layers.append(
        nn.Linear(d_in, d_out, bias=last_norm == "none" if last_bias is None else last_bias)
    )
    if last_norm == "scale":
        layers.append(ScaleBatchNorm1d(d_out))
    elif last_norm != "none":
        make = group_norm if norm == "group" else nn.BatchNorm1d
        layers.append(make(d_out, affine=last_norm == "affine"))
    return nn.Sequential(*layers)


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm of 16 groups (arXiv:2010.10241); fewer where one had under 4 channels."""
    return nn.GroupNorm(math.gcd(64, channels) // 4 or 1, channels, affine=affine)


def build_head(
    kind: Literal["mlp", "linear", "none"],
    features: int,
    dim: int,
    make_mlp: Callable[[], nn.Module] | None = None,
) -> tuple[nn.Module, int]:
    """A projector or predictor, and the size P of what it gives.

    Args:
        kind: "mlp", "linear" (one layer, as in InstDisc) or "none".
        features: what goes in.
        dim: P, unless the kind is "none": then P is ``features``.
        make_mlp: makes that of kind "mlp"; by default two layers without BatchNorm, as in MoCo v2.
    """
    if kind == "none":
        return nn.Identity(), features
    if kind == "linear":
        return nn.Linear(features, dim), dim
    return mlp([features, features, dim], norm=False) if make_mlp is None else make_mlp(), dim


class ScaleBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm with a trained scale and no offset, the end of SimCLR's projector."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Running statistics of an unseen batch, and scale 1."""
        self.reset_running_stats()
        nn.init.ones_(self.weight)


class UnitBias(nn.Module):
    """A predictor of a single vector, p = unit(z) + b with b from 0 (arXiv:2203.16262, Sec. 4).

    Args:
        dim: P.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, z: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
        """Unit rows, moved by b."""
        return F.normalize(z, dim=1) + self.bias


class WeightNormLinear(nn.Module):
    """Linear without bias whose rows are g v / |v| (Salimans & Kingma, 2016, arXiv:1602.07868).

    With unit rows and unit inputs its outputs are cosines. Names of parameters are those of
    PyTorch's older ``weight_norm``, as in DINO's published weights.

    Args:
        in_features: P.
        out_features: K.
        train_scale: learn g; otherwise every row keeps length 1, and g is a buffer.
    """

    weight_g: Tensor

    def __init__(self, in_features: int, out_features: int, *, train_scale: bool) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(in_features, out_features, bias=False).weight.data)
        ones = torch.ones(out_features, 1)
        if train_scale:
            self.weight_g = nn.Parameter(ones)
        else:
            self.register_buffer("weight_g", ones)

    @property
    def weight(self) -> Float[Tensor, "K P"]:
        """The rows g v / |v|."""
        # PyTorch's own kernel: with K = 65,536 forward and backward in a fifth of the time
        return torch._weight_norm(self.weight_v, self.weight_g, 0)

    def forward(self, x: Float[Tensor, "N P"]) -> Float[Tensor, "N K"]:
        """The product of every input with every row."""
        return F.linear(x, self.weight)


class DINOHead(nn.Module):
    """MLP with GELU, a bottleneck of unit length, a weight-normalized last layer (DINO, App. C).

    Linears of the MLP start from a normal distribution of std 0.02 cut at +-2, with bias 0.

    Args:
        in_features: of the backbone.
        out_features: K, classes that the network invents; 65,536 in the paper.
        hidden_dim: width of the MLP.
        bottleneck_dim: P, length of the unit vectors.
        layers: Linears of the MLP; 3 in the paper, at least 1.
        norm: BatchNorm before every GELU; not with a ViT.
        norm_last_layer: rows of the last layer keep length 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        layers: int = 3,
        norm: bool = False,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        *hidden, last = pairwise([in_features, *[hidden_dim] * (layers - 1), bottleneck_dim])
        blocks: list[nn.Module] = []
        for d, width in hidden:
            blocks.append(nn.Linear(d, width))
            if norm:
                blocks.append(nn.BatchNorm1d(width))
            blocks.append(nn.GELU())
        self.mlp = nn.Sequential(*blocks, nn.Linear(*last))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormLinear(
            bottleneck_dim, out_features, train_scale=not norm_last_layer
        )

    def bottleneck(self, h: Float[Tensor, "N D"]) -> Float[Tensor, "N P"]:
        """What the last layer sees; unit rows."""
        return F.normalize(self.mlp(h), dim=1)

    def forward(self, h: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Logits; cosines in [-1, 1] with ``norm_last_layer``."""
        return self.last_layer(self.bottleneck(h))
