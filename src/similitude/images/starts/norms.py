"""Published networks with GroupNorm (Big Transfer's) as networks with BatchNorm.

Some methods are published with BatchNorm in the network, and want it: ``Method.wants_batchnorm``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.starts.architecture import empty_backbone
from similitude.nets.start import Start
from similitude.sample import Samples

NUM_MEASURED = 1024  # images whose activations give the new statistics
BATCH_SIZE = 64


def unfit_norm(method: Any, start: Start) -> str | None:
    """A sentence on a start whose norms are in the method's way, and what to do."""
    layers = empty_backbone(start.backbone).modules()
    if not method.wants_batchnorm or not any(isinstance(m, nn.GroupNorm) for m in layers):
        return None
    return (
        f"{start.name} has GroupNorm, and {method.__name__} is published with BatchNorm in the "
        "network: GroupNorm is known to be in its way (arXiv:2103.03166). "
        "--set init.norm=batch makes BatchNorm of it"
    )


def with_batchnorm(start: Start, images: Samples[Any], facts: Any) -> Start:
    """A start whose GroupNorm layers have become BatchNorm.

    GroupNorm and BatchNorm do not compute the same, so no choice of numbers keeps every feature.
    Kept are, of every layer and channel, the mean and the variance of the output over ``images``;
    standardized convolutions stay. Other layers are untouched.

    Args:
        start: With a network that timm also builds with ``norm_layer="batchnorm2d"``.
        images: Of the training; at most 1,024 of them, evenly chosen, are measured.
        facts: Their size and normalization.

    Raises:
        UserError: The network has no GroupNorm, or cannot be built with BatchNorm in its place.
    """
    options = {**start.backbone.options, "norm_layer": "batchnorm2d"}
    config = start.backbone.changed(options=options)
    before = start.build()
    groups = {n: m for n, m in before.named_modules() if isinstance(m, nn.GroupNorm)}
    if not groups:
        raise UserError(
            f"{start.name} has no GroupNorm that could become BatchNorm: leave out init.norm"
        )
    after = _with_the_same_layers(before, config, start.name)

    some = images.spread(NUM_MEASURED)
    parts = [
        some.clean(some.take(slice(i, i + BATCH_SIZE)), facts)
        for i in range(0, len(some), BATCH_SIZE)
    ]

    state = dict(start.state)
    for name, (mean, std) in _moments_of_normalized(before, groups, parts).items():
        weight = state[f"{name}.weight"]
        state[f"{name}.bias"] = state[f"{name}.bias"] + weight * mean
        state[f"{name}.weight"] = weight * std
    wanted = after.state_dict()
    after.load_state_dict({name: state.get(name, wanted[name]) for name in wanted})
    _measure_statistics_(after, parts)
    return dataclasses.replace(
        start,
        backbone=config,
        state={name: tensor.clone() for name, tensor in after.state_dict().items()},
        report=[
            *start.report,
            f"Made BatchNorm of {len(groups)} GroupNorm layers, with the statistics of "
            f"{len(some):,} images; features are near the published ones, not equal.",
        ],
    )


def _with_the_same_layers(before: nn.Module, config: BackboneConfig, name: str) -> nn.Module:
    """The network with BatchNorm where the first has GroupNorm, and else of the same layers."""
    refusal = UserError(f"{name} cannot be built with BatchNorm in place of its GroupNorm")
    try:
        with torch.random.fork_rng(devices=[]):
            after = build_backbone(config)
    except UserError as error:
        raise refusal from error
    new = dict(after.named_modules())
    for path, layer in before.named_modules():
        if isinstance(layer, nn.GroupNorm):
            fits = isinstance(new.get(path), nn.BatchNorm2d)
        elif list(layer.parameters(recurse=False)):
            fits = type(new.get(path)) is type(layer)
        else:
            continue
        if not fits:
            raise refusal
    return after


def _moments_of_normalized(
    network: nn.Module, groups: dict[str, nn.GroupNorm], parts: list[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every layer: mean and std of each channel after normalization, before scale and offset."""
    sums: dict[str, Tensor] = {}

    def measuring(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, nn.GroupNorm)
            y = F.group_norm(inputs[0], layer.num_groups, eps=layer.eps).transpose(0, 1).flatten(1)
            count = len(inputs[0])
            both = torch.stack([y.mean(1), y.square().mean(1)]).double() * count
            sums[name] = sums.get(name, 0) + both

        return measure

    hooks = [m.register_forward_pre_hook(measuring(name)) for name, m in groups.items()]
    with torch.no_grad():
        for part in parts:
            network(part)
    for hook in hooks:
        hook.remove()
    count = sum(len(part) for part in parts)
    found = {}
    for name, total in sums.items():
        mean, square = total / count
        std = (square - mean.square()).clamp_min(0).sqrt()
        found[name] = (mean.float(), std.float())
    return found


def _measure_statistics_(network: nn.Module, parts: list[Tensor]) -> None:
    """Give all BatchNorm layers the mean of the batches' statistics."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None  # the plain mean over batches
        layer.reset_running_stats()
    network.train()
    with torch.no_grad():
        for part in parts:
            network(part)
    network.eval()
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
