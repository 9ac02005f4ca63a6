"""Open what a user names as the start of a training."""

from pathlib import Path

import timm
from torch import Tensor

from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.images.backbones import BackboneConfig
from similitude.images.starts.architecture import image_size, infer, with_heads
from similitude.images.starts.fitting import fit
from similitude.images.starts.layouts import recognize
from similitude.images.starts.published import (
    EFFICIENTNET_LITE0,
    open_efficientnet_lite0,
    open_timm,
)
from similitude.images.starts.reading import SUFFIXES, read_file
from similitude.images.views import ImageFacts
from similitude.nets.start import Start


def open_start(init: str | Path, *, backbone: BackboneConfig | None = None) -> Start:
    """Weights from which a training starts.

    Nothing in a file is run: only tensors are read, and they are read all or not at all.

    Args:
        init: a file of weights (.safetensors, .pth, .pt, .ckpt, .bin, .tar), "timm:NAME"
            for weights of timm, or "efficientnet-lite0".
        backbone: the network that the weights are of; None takes it from timm, or from names and
            shapes of the tensors, which tell plain ResNets and ViTs.

    Raises:
        UserError: there are no such weights, they cannot be fetched or read, or are not exactly
            those of the backbone.
    """
    if init == EFFICIENTNET_LITE0:
        return open_efficientnet_lite0(backbone)
    if isinstance(init, str) and init.startswith("timm:"):
        return open_timm(init.removeprefix("timm:"), backbone)
    path = as_path(init)
    if not path.exists() and timm.models.is_model_pretrained(str(init)):
        raise UserError(
            f"there is no file {init}: for timm's weights of this name give timm:{init}"
        )
    return _open_file(path, backbone)


def of_run(
    *,
    name: str,
    title: str,
    where: str,
    weights: dict[str, Tensor],
    facts: ImageFacts,
    network: BackboneConfig,
    other: BackboneConfig | None,
    report: list[str],
) -> Start:
    """The weights that a run kept, in its own network or in another that they fit.

    Raises:
        UserError: they do not fit it.
    """
    config = other or network
    fitted = fit(weights, config, where)
    return Start(
        name=name,
        title=title,
        backbone=config,
        state=fitted.state,
        image_size=facts.size if other is None else image_size(config, fitted.network),
        mean=facts.mean,
        std=facts.std,
        report=[*fitted.report, *report],
    )


def _open_file(path: Path, backbone: BackboneConfig | None) -> Start:
    content = read_file(path)
    if {"format", "recipe", "method"} <= content.keys():
        raise UserError(f"{path} is the checkpoint of a run: give the run's folder instead")
    layout, weights, taken = recognize(content, str(path))
    assumed: list[str] = []
    if backbone is None:
        config, assumed = infer(weights, layout.heads, str(path))
    else:
        config = with_heads(backbone, layout.heads, str(path))
    fitted = fit(weights, config, str(path))
    if not layout.pixels_known:
        assumed.append(
            "Assumed that images are normalized by ImageNet's mean and std: the file does not say."
        )
    return Start(
        name=_stem(path),
        title=layout.title,
        backbone=config,
        state=fitted.state,
        image_size=image_size(config, fitted.network),
        mean=layout.mean,
        std=layout.std,
        report=[f"{path.name} is {layout.title}.", *fitted.report, *taken, *assumed],
    )


def _stem(path: Path) -> str:
    """The file's name without its endings: "r-50" of "r-50.pth.tar"."""
    name = path.name
    while (end := Path(name).suffix) and end.lower() in SUFFIXES:
        name = name.removesuffix(end)
    return name
