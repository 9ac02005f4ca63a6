"""Weights from which a training starts, or which stand frozen beside it: published, or a run's."""

from collections.abc import Sequence
from pathlib import Path

from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.listener import Listener
from similitude.modalities import DEFAULT_KIND, Modality, modality
from similitude.nets.start import Start
from similitude.runs.checkpoint import kept_alone, kept_weights, load_checkpoint, read_start
from similitude.runs.folder import CHECKPOINT, settle
from similitude.sample import DataConfig, NetworkConfig


def open_start(
    init: str | Path, *, backbone: NetworkConfig | None = None, kind: str = DEFAULT_KIND
) -> Start:
    """Weights from which a training starts.

    Nothing in a file is run: only tensors are read, and they are read all or not at all.

    Args:
        init: a file of weights (.safetensors, .pth, .pt, .ckpt, .bin, .tar), the folder of a run,
            "timm:NAME" for weights of timm, or "efficientnet-lite0".
        backbone: the network that the weights are of; None takes it from the run, from timm, or
            from names and shapes of the tensors, which tell plain ResNets and ViTs.
        kind: of the data.

    Raises:
        UserError: there are no such weights, they cannot be fetched or read, or are not exactly
            those of the backbone.
    """
    if ":" not in str(init):
        path = as_path(init)
        settle(path)
        if path.name == "last.ckpt" and path.parent.name == "checkpoints":
            path = path.parent.parent
        if path.joinpath(*CHECKPOINT).exists():
            return _of_run(path, backbone)
    its = modality(kind)
    if its.starts is None:
        raise UserError(f"there are no published weights for {its.noun}: leave out --init")
    return its.starts.open_start(init, backbone=backbone)


def opened(against: Sequence[str | Path | Start]) -> list[Start]:
    """What ``evaluate --against`` names: published weights by name, a file, or a run."""
    return [open_start(given) if isinstance(given, str | Path) else given for given in against]


def fitted(
    starts: Sequence[Start], its: Modality, config: DataConfig | None, listener: Listener
) -> list[Start]:
    """Starts as samples of a config need them; what is changed is told.

    Raises:
        UserError: one does not fit such samples.
    """
    found = [its.start_for(start, config) for start in starts]
    for before, after in zip(starts, found, strict=True):
        if after is not before:
            listener.say(f"{after.name}: {after.report[-1]}")
    return found


def _of_run(folder: Path, backbone: NetworkConfig | None) -> Start:
    checkpoint = load_checkpoint(folder.joinpath(*CHECKPOINT), own_methods=False)
    recipe, method = checkpoint.recipe, checkpoint.recipe.method.name
    everything = kept_weights(checkpoint, read_start(folder, recipe))
    (network, data, facts, _), weights = kept_alone(recipe, everything)
    if weights.keys() != network.build().state_dict().keys():
        raise UserError(
            f"the run {folder} keeps the backbone as {method} wraps it, with tensors that "
            f"{network.name} does not have: start from a run of another method"
        )
    told = f"They are what {method} kept after {checkpoint.step} steps."
    its = modality(data.kind)
    if its.starts is None:
        raise UserError(f"a run on {its.noun} is no start of another: leave out --init")
    return its.starts.of_run(
        name=folder.resolve().name,
        title=f"a run of {method}",
        where=f"the run {folder}",
        weights=weights,
        facts=facts,
        network=network,
        other=backbone,
        report=[told],
    )
