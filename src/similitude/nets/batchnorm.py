"""BatchNorm in parts of a batch, and over processes. N samples, C channels, S splits."""

from typing import Any, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from similitude.distributed import gather, sum_over_processes, world_size
from similitude.errors import UserError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def sync_batch_norm(
    x: Float[Tensor, "N C ..."],
    running_mean: Float[Tensor, " C"] | None,
    running_var: Float[Tensor, " C"] | None,
    weight: Float[Tensor, " C"] | None,
    bias: Float[Tensor, " C"] | None,
    momentum: float,
    eps: float,
) -> Float[Tensor, "N C ..."]:
    """``F.batch_norm`` in training, with the statistics of the samples of all processes.

    Forward and backward equal those of one process that holds all samples, on any device
    (``torch.nn.SyncBatchNorm`` refuses CPUs). Running statistics are moved in place.

    Args:
        x: as many samples in every process.
        running_mean: None keeps none.
        running_var: None keeps none.
        weight: None: 1.
        bias: None: 0.
        momentum: share of the new value in the running statistics.
        eps: added to the variance.
    """
    y, mean, var = _SyncBatchNorm.apply(x, weight, bias, eps)  # type: ignore[misc]
    if running_mean is not None and running_var is not None:
        count = x.numel() // x.shape[1] * world_size()
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var), momentum)
    return y


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # PyTorch's kernels choose the dtype of statistics by that of the running ones
        running = torch.zeros(2, x.shape[1], dtype=_wide(x.dtype), device=x.device)
        mean, var = torch.batch_norm_update_stats(x, running[0], running[1], 0.0)
        # every process holds as many samples, so averages of averages are exact
        means, variances = gather(torch.stack([mean, var])[None]).unbind(1)
        mean = means.mean(dim=0)
        var = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.mark_non_differentiable(mean, var)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> Any:  # type: ignore[override]
        x, weight, mean, var = ctx.saved_tensors
        inverse_std = (var + ctx.eps).rsqrt()
        scale = torch.ones_like(mean) if weight is None else weight
        # PyTorch's kernel makes the sums (on GPUs only where there is a weight); the gradient that
        # it would make of its own samples is not ours.
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, scale, mean, var, mean, inverse_std, True, ctx.eps, [False, True, True]
        )
        scale = scale * inverse_std
        sums = sum_over_processes(torch.stack([grad_bias, grad_weight]))
        common, along = sums * (-scale / (x.numel() // x.shape[1] * world_size()))
        # scale (grad - mean of grad - x^ mean of (grad x^)), in passes that round only at their end
        grad_x = F.batch_norm(x, mean, var, along, common, False, 0.0, ctx.eps)
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        grad_x += F.batch_norm(grad, zero, one, scale, None, False, 0.0, 0.0)
        has_weight, has_bias = ctx.needs_input_grad[1:3]
        return grad_x, grad_weight if has_weight else None, grad_bias if has_bias else None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the samples of all processes; in one process, and in eval mode, the plain one.

    Made by :func:`convert_sync_batchnorm`, which keeps parameters, buffers and their names.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C, ...] by the statistics of all processes."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        assert self.momentum is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return sync_batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.momentum,
            self.eps,
        )

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions: one class stands for BatchNorm1d, 2d and 3d."""


def convert_sync_batchnorm(module: ModuleT) -> ModuleT:
    """Let every BatchNorm inside ``module`` use the samples of all processes. In place.

    :class:`SplitBatchNorm2d` does so already: its parts are parts of the whole batch.

    Raises:
        UserError: a layer is a kind of BatchNorm that cannot be converted.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if isinstance(layer, SyncBatchNorm | SplitBatchNorm2d | nn.SyncBatchNorm):
            continue
        if type(layer).forward is not nn.modules.batchnorm._BatchNorm.forward:
            raise UserError(
                f"layer {name!r} is a {type(layer).__name__}, whose statistics cannot be shared "
                "between processes; choose a backbone with plain BatchNorm (e.g. a ResNet) or "
                "without any (a ViT), or train in one process"
            )
        if layer.momentum is None:
            raise UserError(
                f"layer {name!r} averages its running statistics over all batches, which cannot be "
                "shared between processes; give it a momentum, or train in one process"
            )
        layer.__class__ = SyncBatchNorm  # keeps identity: optimizers may hold its weights
    return module


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics come from S parts of the batch, as on S devices (MoCo).

    Split s holds samples s, s + S, ...; running statistics are the mean over the splits, each with
    its unbiased variance. In eval mode, and in its state dict, it is an ordinary BatchNorm2d. From
    the authors' CIFAR notebook. Over several processes a split is a part of the whole batch.
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
        self.grouped = False  # True: the batch comes with the samples of each split together

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Normalize every split by its own statistics.

        Raises:
            UserError: the batch does not divide into the splits.
        """
        splits = self.num_splits
        together = world_size() > 1
        if not self.training or (splits == 1 and not together):
            return super().forward(input)
        n, c, h, w = input.shape
        if n % splits:
            raise UserError(
                f"a batch of {n} does not divide into {splits} BatchNorm splits; choose a batch "
                f"size that is a multiple of {splits}, or fewer splits"
            )
        mean, var = self._tiled(self.running_mean), self._tiled(self.running_var)
        momentum = self._momentum_of_this_call()
        batch = input if self.grouped else _group(input, splits)
        if together:
            # Of [N / S, S C, H, W] a split is a set of channels.
            parts = _ungroup(batch, splits).reshape(n // splits, splits * c, h, w)
            weight, bias = self._tiled(self.weight), self._tiled(self.bias)
            output = sync_batch_norm(parts, mean, var, weight, bias, momentum, self.eps)
            output = _group(output.reshape(n, c, h, w), splits)
        else:
            output = torch.cat(
                [
                    F.batch_norm(part, m, v, self.weight, self.bias, True, momentum, self.eps)
                    for part, m, v in zip(
                        batch.chunk(splits), self._rows(mean), self._rows(var), strict=True
                    )
                ]
            )
        if mean is not None and var is not None:
            self._set_running(mean, var)
        return output if self.grouped else _ungroup(output, splits)

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

    In place: parameters, buffers and state dict stay as they are. With one split nothing changes,
    and layers without BatchNorm2d (a ViT) are left alone. While it trains, the module sorts its
    batch once, so that every layer finds the samples of a split together, and its output back.

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
            layer.grouped = True  # type: ignore[assignment]
        elif isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm) and num_splits > 1:
            raise UserError(
                f"layer {name!r} is a {type(layer).__name__}, which cannot be split; choose a "
                "backbone with plain BatchNorm2d (e.g. a ResNet), or 1 split"
            )
    if not any(isinstance(layer, SplitBatchNorm2d) for layer in module.modules()):
        return module
    if not hasattr(module, "num_splits_of_batch"):
        module.register_forward_pre_hook(_sort_batch)
        module.register_forward_hook(_sort_back)
    module.num_splits_of_batch = num_splits  # type: ignore[assignment]
    return module


def _sort_batch(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    splits: int = module.num_splits_of_batch  # type: ignore[assignment]
    if not module.training or splits == 1 or len(args[0]) % splits:
        return None  # a batch that does not divide is refused by the layers
    x = args[0]
    if isinstance(x, Tensor):
        return _group(x, splits), *args[1:]
    order = _group(torch.arange(len(x)), splits)  # of several sensors
    return x.rows_at(order), *args[1:]


def _sort_back(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    splits: int = module.num_splits_of_batch  # type: ignore[assignment]
    return _ungroup(output, splits) if module.training and splits > 1 else None


def _group(x: Shaped[Tensor, "N ..."], splits: int) -> Shaped[Tensor, "N ..."]:
    """Samples s, s + S, ... of every split s together, the splits one after the other."""
    return _swapped(x, len(x) // splits, splits)


def _ungroup(x: Shaped[Tensor, "N ..."], splits: int) -> Shaped[Tensor, "N ..."]:
    """What :func:`_group` made back in its order."""
    return _swapped(x, splits, len(x) // splits)


def _swapped(x: Tensor, rows: int, columns: int) -> Tensor:
    channels_last = x.ndim == 4 and not x.is_contiguous()
    y = x.permute(0, 2, 3, 1) if channels_last else x  # whatever the layout, samples stay whole
    y = y.reshape(rows, columns, *y.shape[1:]).transpose(0, 1).reshape(y.shape)
    return y.permute(0, 3, 1, 2) if channels_last else y
