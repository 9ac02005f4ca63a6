"""Every method, by the name its config carries."""

import difflib

from torch import nn

from similitude.errors import UserError
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput
from similitude.methods.byol import BYOL, BYOLConfig
from similitude.methods.dino import DINO, DINOConfig
from similitude.methods.moco import MoCo, MoCoV1Config, MoCoV2Config
from similitude.methods.simclr import SimCLR, SimCLRConfig
from similitude.methods.simclr_v2 import SimCLRv2, SimCLRv2Config
from similitude.methods.simsiam import SimSiam, SimSiamConfig
from similitude.methods.swav import SwAV, SwAVConfig

__all__ = [
    "BYOL",
    "CONFIGS",
    "DINO",
    "METHODS",
    "BYOLConfig",
    "Batch",
    "DINOConfig",
    "Method",
    "MethodConfig",
    "MoCo",
    "MoCoV1Config",
    "MoCoV2Config",
    "Progress",
    "SimCLR",
    "SimCLRConfig",
    "SimCLRv2",
    "SimCLRv2Config",
    "SimSiam",
    "SimSiamConfig",
    "StepOutput",
    "SwAV",
    "SwAVConfig",
    "build_method",
    "config_class",
]

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco_v1": MoCo,
    "moco_v2": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "simclr_v2": SimCLRv2,
    "swav": SwAV,
    "dino": DINO,
}

CONFIGS: dict[str, type[MethodConfig]] = {
    "simclr": SimCLRConfig,
    "moco_v1": MoCoV1Config,
    "moco_v2": MoCoV2Config,
    "byol": BYOLConfig,
    "simsiam": SimSiamConfig,
    "simclr_v2": SimCLRv2Config,
    "swav": SwAVConfig,
    "dino": DINOConfig,
}


def build_method(config: MethodConfig, backbone: nn.Module) -> Method:
    """The method that ``config.name`` names, around ``backbone``."""
    return METHODS[config.name](backbone, config)  # type: ignore[call-arg]


def config_class(name: str) -> type[MethodConfig]:
    """The config of the method called ``name``.

    Raises:
        UserError: no method has this name.
    """
    if name not in CONFIGS:
        near = difflib.get_close_matches(name, CONFIGS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown method {name!r}; {hint}known methods: {', '.join(CONFIGS)}")
    return CONFIGS[name]
