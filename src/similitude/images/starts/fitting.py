"""Weights under a published network's names to the exact state_dict of a backbone."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig
from similitude.images.starts.architecture import empty_backbone
from similitude.images.starts.layouts import CLASSIFIER, listed, tensors_text
from similitude.nets.weights import check_tensor

# What timm calls the functions that know the names of a family's original code.
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


class Fitted(NamedTuple):
    """The state_dict of a backbone."""

    state: dict[str, Tensor]
    network: nn.Module  # names and shapes alone
    report: list[str]


def fit(weights: Mapping[str, Tensor], config: BackboneConfig, where: str) -> Fitted:
    """Bring tensors into the form of ``build_backbone(config).state_dict()``, all or none.

    Args:
        weights: under timm's names or those of the family's original code.
        config: the network.
        where: the file.

    Raises:
        UserError: a tensor is missing, left over, of another shape, not of numbers, or not finite.
    """
    network = empty_backbone(config)
    wanted = network.state_dict()
    for name, tensor in weights.items():
        check_tensor(tensor, name, where)
    named, report = dict(weights), []
    completed = _completed(named, wanted, network)
    # Timm's filters are for foreign names; older ones mistook its own without a classifier.
    if _misfits(named, wanted):
        named, report = _by_timm(weights, network, where)
        completed = _completed(named, wanted, network)
    if wrong := _misfits(named, wanted):
        more = f", and {tensors_text(len(wrong) - 1, 'more ')} do not fit" if wrong[1:] else ""
        raise UserError(
            f"{where} does not hold the backbone {config.name!r}: {wrong[0]}{more}; "
            "give the network it is of with --backbone NAME"
        )
    report += completed
    state = {name: _converted(named[name], wanted[name], name, where) for name in wanted}
    kinds = {named[name].dtype for name in wanted if named[name].is_floating_point()}
    if other := sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32}):
        report.append(f"Converted {', '.join(other)} to float32.")
    numbers = sum(tensor.numel() for tensor in state.values()) / 1e6
    loaded = f"Loaded {tensors_text(len(state))}, {numbers:.1f} million numbers, of {config.name}."
    return Fitted(state, network, [loaded, *report])


def _by_timm(
    weights: Mapping[str, Tensor], network: nn.Module, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Under timm's names, by what timm knows of the family's original code."""
    family = sys.modules[type(network).__module__]
    convert = next((getattr(family, name) for name in _FILTERS if hasattr(family, name)), None)
    if convert is None:
        return dict(weights), []
    named = _called(convert, dict(weights), network, where)
    places = {id(tensor): name for name, tensor in named.items()}
    renamed = [n for n, t in weights.items() if places.get(id(t), n) != n]
    changed = [n for n, t in named.items() if n in weights and t is not weights[n]]
    gone = [n for n, t in weights.items() if n not in named and id(t) not in places]
    report = []
    if renamed:
        first = f"{renamed[0]!r} is {places[id(weights[renamed[0]])]!r}"
        report.append(f"Renamed {tensors_text(len(renamed))} as timm does, the first: {first}.")
    for name in changed:
        before, after = tuple(weights[name].shape), tuple(named[name].shape)
        if name.endswith("patch_embed.proj.weight") and len(before) == 4 and before != after:
            raise UserError(
                f"{where} was trained on patches of {before[-1]} pixels, not of {after[-1]}: give "
                "a network of its patches with --backbone NAME"
            )
        shapes = f", {before} to {after}" if before != after else ""
        report.append(f"Changed {name} as timm does to fit it to this network{shapes}.")
    if gone:
        report.append(f"Left out, as timm does with this family: {listed(gone)}.")
    return named, report


def _called(
    convert: Callable[..., Any], weights: dict[str, Tensor], network: nn.Module, where: str
) -> dict[str, Tensor]:
    try:
        try:
            return dict(convert(weights, network))
        except TypeError:  # some take the weights alone
            return dict(convert(weights))
    except Exception as error:  # of timm's code for names that it does not expect
        raise UserError(
            f"the tensors in {where} are not those of the network that they were taken for "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): "
            "give the right one with --backbone NAME"
        ) from error


def _completed(
    named: dict[str, Tensor], wanted: Mapping[str, Tensor], network: nn.Module
) -> list[str]:
    """Change ``named`` by what every state_dict may have too much or too little; say so."""
    return _drop_classifier(named, wanted, network) + _add_counters(named, wanted)


def _drop_classifier(
    named: dict[str, Tensor], wanted: Mapping[str, Tensor], network: nn.Module
) -> list[str]:
    layers = network.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr]
    layers = (layers,) if isinstance(layers, str) else layers
    gone = [
        name
        for layer in layers
        for name in (f"{layer}.weight", f"{layer}.bias")
        if name in named and name not in wanted
    ]
    for name in gone:
        del named[name]
    return [f"Left out {CLASSIFIER} ({', '.join(gone)})."] if gone else []


def _add_counters(named: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Files older than PyTorch 0.4.1, and converted ones, lack BatchNorm's counters of batches."""
    counters = [name for name in wanted if name.endswith(".num_batches_tracked")]
    if not counters or any(name in named for name in counters):
        return []
    named.update({name: torch.zeros((), dtype=torch.long) for name in counters})
    return [
        f"Set {len(counters)} counters of batches to 0, which the file lacks: nothing is computed "
        "from them."
    ]


def _misfits(named: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [
        *(f"{name!r} is missing" for name in wanted if name not in named),
        *(f"{name!r} is left over" for name in named if name not in wanted),
        *(
            f"{name!r} is {tuple(named[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in named and named[name].shape != tensor.shape
        ),
    ]


def _converted(tensor: Tensor, wanted: Tensor, name: str, where: str) -> Tensor:
    if tensor.is_floating_point() != wanted.is_floating_point() or tensor.dtype == torch.bool:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{where}: tensor {name!r} is of {kind}, which are no weights")
    dtype = torch.float32 if wanted.is_floating_point() else wanted.dtype
    converted = tensor.to(dtype).clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(converted).all():
        raise UserError(
            f"{where}: tensor {name!r} has numbers that are not finite (NaN or infinite): "
            "the training had diverged, or the file is damaged"
        )
    return converted
