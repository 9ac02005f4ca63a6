"""BatchNorm in parts of a batch, and over processes. N samples, C channels, S splits."""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.errors import UserError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


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
