"""Small networks shared by methods: heads, moving averages, and BatchNorm in parts.

N samples, C channels, P projection size, S splits of a batch.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.errors import UserError

# pyright: reportPrivateImportUsage=false
# torch._foreach_* (what torch.optim itself runs on) moves all tensors in one call.

ModuleT = TypeVar("ModuleT", bound=nn.Module)

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


def frozen_copy(module: ModuleT) -> ModuleT:
    """An identical copy that receives no gradient."""
    return deepcopy(module).requires_grad_(False)


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
        torch._foreach_lerp_([t for t, _ in pairs], [o for _, o in pairs], 1 - decay)


@torch.no_grad()
def output_std(z: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
    """How far the rows spread over the sphere (SimSiam, arXiv:2011.10566, Sec. 4.1), detached.

    Returns:
        Standard deviation over the batch of the unit rows, mean over channels, times sqrt(P):
        about 1 for directions spread evenly, 0 when all rows point the same way (collapsed).
    """
    return F.normalize(z.float(), dim=1).std(dim=0).mean() * z.shape[1] ** 0.5


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics come from S parts of the batch, as on S devices (MoCo).

    Split s holds samples s, s + S, ...; running statistics are the mean over the splits, each with
    its unbiased variance. In eval mode, and in its state dict, it is an ordinary BatchNorm2d. From
    the authors' CIFAR notebook.
    """

    def __init__(
        self,
        num_features: int,
        num_splits: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.num_splits = num_splits

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Normalise every split by its own statistics.

        Raises:
            UserError: the batch does not divide into the splits.
        """
        splits = self.num_splits
        if splits == 1 or not self.training:
            return super().forward(input)
        n, c, h, w = input.shape
        if n % splits:
            raise UserError(
                f"a batch of {n} does not divide into {splits} BatchNorm splits; choose a batch "
                f"size that is a multiple of {splits}, or fewer splits"
            )
        mean, var = self._tiled(self.running_mean), self._tiled(self.running_var)
        momentum = self._momentum_of_this_call()
        if input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous():
            output = self._forward_channels_last(input, mean, var, momentum)
        else:
            # Row r of the reshaped batch is samples rS .. rS + S - 1: a split is a set of channels.
            batch = input.reshape(n // splits, splits * c, h, w)
            weight, bias = self._tiled(self.weight), self._tiled(self.bias)
            output = F.batch_norm(batch, mean, var, weight, bias, True, momentum, self.eps)
            output = output.view(n, c, h, w)
        if mean is not None and var is not None:
            self._set_running(mean, var)
        return output

    def _forward_channels_last(
        self, input: Tensor, mean: Tensor | None, var: Tensor | None, momentum: float
    ) -> Tensor:
        """The same, three times as fast in this layout: splits made contiguous, one at a time."""
        n, c, h, w = input.shape
        samples = input.permute(0, 2, 3, 1).view(-1, self.num_splits, h, w, c)
        parts = samples.transpose(0, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
        outputs = torch.cat(
            [
                F.batch_norm(part, m, v, self.weight, self.bias, True, momentum, self.eps)
                for part, m, v in zip(
                    parts.chunk(self.num_splits), self._rows(mean), self._rows(var), strict=True
                )
            ]
        )
        back = outputs.permute(0, 2, 3, 1).view(self.num_splits, -1, h, w, c).transpose(0, 1)
        return back.reshape(n, h, w, c).permute(0, 3, 1, 2)

    def _rows(self, statistics: Tensor | None) -> list[Tensor] | list[None]:
        if statistics is None:
            return [None] * self.num_splits
        return list(statistics.view(self.num_splits, -1))

    def _tiled(self, per_channel: Tensor | None) -> Tensor | None:
        return None if per_channel is None else per_channel.repeat(self.num_splits)

    def _momentum_of_this_call(self) -> float:
        """Counts the call; ``momentum=None`` means a plain average over all calls."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum

    @torch.no_grad()
    def _set_running(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.copy_(mean.view(self.num_splits, -1).mean(dim=0))
        self.running_var.copy_(var.view(self.num_splits, -1).mean(dim=0))

    def extra_repr(self) -> str:
        """Arguments, for print."""
        return f"{super().extra_repr()}, num_splits={self.num_splits}"


def convert_split_batchnorm(module: ModuleT, num_splits: int) -> ModuleT:
    """Give every BatchNorm2d inside ``module`` its statistics from ``num_splits`` parts.

    In place: parameters, buffers, hooks and state dict stay as they are. With one split nothing
    changes, and layers without BatchNorm2d (a ViT) are left alone.

    Args:
        module: changed and returned.
        num_splits: at least 1; 8 in MoCo's CIFAR notebook.

    Raises:
        UserError: a layer is a kind of BatchNorm that cannot be split.
    """
    if num_splits < 1:
        raise UserError(f"BatchNorm in {num_splits} splits; give at least 1")
    for name, layer in module.named_modules():
        if type(layer) is nn.BatchNorm2d or isinstance(layer, SplitBatchNorm2d):
            layer.__class__ = SplitBatchNorm2d  # keeps identity: optimizers may hold its weights
            layer.num_splits = num_splits  # type: ignore[assignment]
        elif isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm) and num_splits > 1:
            raise UserError(
                f"layer {name!r} is a {type(layer).__name__}, which cannot be split; choose a "
                "backbone with plain BatchNorm2d (e.g. a ResNet), or 1 split"
            )
    return module
