"""How a training stays near the published weights it starts from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

# pyright: reportPrivateImportUsage=false


def parameters_by_depth(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters, grouped from the input on: stem, then block after block.

    The groups are timm's own (``group_matcher``), which it fine-tunes by; a network without them
    is one group.
    """
    names = [name for name, _ in backbone.named_parameters()]
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return [names]
    groups = group_parameters(backbone, matcher(coarse=True))  # depth -> names
    found = [list(groups[depth]) for depth in sorted(groups)]
    # what timm's rules do not name belongs to no depth: it is at the end, where all of it trains
    known = {name for group in found for name in group}
    rest = [name for name in names if name not in known]
    return [group for group in [*found, rest] if group]


def freeze_(backbone: nn.Module, share: float) -> None:
    """Keep the first part of a network as it is: no gradients, BatchNorm in evaluation mode.

    Args:
        backbone: whose parameters; its layers are marked, and ``Method.train`` leaves marked ones
            in evaluation mode.
        share: of the depth, in [0, 1]; a depth is frozen where all of it lies within the share.
    """
    depths = parameters_by_depth(backbone)
    frozen = {name for names in depths[: int(share * len(depths))] for name in names}
    parameters = dict(backbone.named_parameters())
    for name in frozen:
        parameters[name].requires_grad_(False)
    for path, module in backbone.named_modules():
        # not only leaves: timm's BatchNorm may hold its activation
        whole = {f"{path}.{n}".lstrip(".") for n, _ in module.named_parameters()}
        has_own = next(module.parameters(recurse=False), None) is not None
        if has_own and whole <= frozen:
            _keep_evaluating_(module)


def keep_statistics_(backbone: nn.Module) -> None:
    """Keep every BatchNorm in evaluation mode; its scale and shift still learn.

    A layer then computes what it did before the first step, whatever the batch is like.
    """
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _keep_evaluating_(module)


def _keep_evaluating_(module: nn.Module) -> None:
    module.is_frozen = True  # type: ignore[assignment]
    module.training = False


def layer_scales(backbone: nn.Module, decay: float) -> dict[Tensor, float]:
    """What each parameter's rate is multiplied with: ``decay`` for every depth to the output."""
    depths = parameters_by_depth(backbone)
    parameters = dict(backbone.named_parameters())
    return {
        parameters[name]: decay ** (len(depths) - 1 - depth)
        for depth, names in enumerate(depths)
        for name in names
    }


def split_by_scale(
    groups: Sequence[Mapping[str, Any]], scales: Mapping[Tensor, float]
) -> list[dict[str, Any]]:
    """Optimizer groups whose parameters share one scale each; others than those given keep theirs.

    Args:
        groups: as ``Method.param_groups`` gives them.
        scales: of some parameters.
    """
    found = []
    for group in groups:
        by_scale: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            by_scale.setdefault(scales.get(parameter, 1.0), []).append(parameter)
        for scale, parameters in by_scale.items():
            scaled = group.get("lr_scale", 1.0) * scale
            found.append({**group, "params": parameters, "lr_scale": scaled})
    return found


def averaged(
    trained: Mapping[str, Tensor], start: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Weights between the trained ones and their start, running statistics too.

    Half-way back keeps most of what a training brought, and loses most of what it forgot (Wortsman
    et al. 2022, arXiv:2109.01903; measured for continued pretraining in docs/results.md).

    Args:
        trained: state of a network.
        start: state it started from, with the same entries.
        share: of the start, in [0, 1].
    """
    return {
        name: torch.lerp(value, start[name].to(value), share)
        if value.is_floating_point()
        else value
        for name, value in trained.items()
    }
