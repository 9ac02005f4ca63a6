"""Every method, by the name its config carries."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from similitude.errors import UserError, did_you_mean
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput
from similitude.methods.barlow_twins import BarlowTwins, BarlowTwinsConfig, BarlowTwinsHSICConfig
from similitude.methods.byol import BYOL, BYOLConfig
from similitude.methods.byol_a import BYOLA, BYOLAConfig
from similitude.methods.clip import CLIP, CLIPConfig
from similitude.methods.cmc import CMC, CMCConfig
from similitude.methods.cpc_audio import CPCAudio, CPCAudioConfig
from similitude.methods.cpc_v1 import CPCV1, CPCV1Config
from similitude.methods.cpc_v2 import CPCV2, CPCV2Config
from similitude.methods.diet import DIET, DIETConfig
from similitude.methods.dino import DINO, DINOConfig
from similitude.methods.elo import ELo, ELoConfig
from similitude.methods.end_to_end import EndToEnd, EndToEndConfig
from similitude.methods.inst_disc import InstDisc, InstDiscConfig
from similitude.methods.inva_spread import InvaSpread, InvaSpreadConfig
from similitude.methods.lookup import annotated_configs, import_method, loaded_method, place_of
from similitude.methods.memory_bank import MemoryBankConfig, MemoryBankContrast
from similitude.methods.moco import MoCo, MoCoV1Config, MoCoV2Config
from similitude.methods.moco_v3 import MoCoV3, MoCoV3Config
from similitude.methods.raft import RAFT, RAFTConfig
from similitude.methods.simclr import SimCLR, SimCLRConfig
from similitude.methods.simclr_v2 import SimCLRv2, SimCLRv2Config
from similitude.methods.simsiam import SimSiam, SimSiamConfig
from similitude.methods.simtriplet import SimTriplet, SimTripletConfig
from similitude.methods.speech_simclr import SpeechSimCLR, SpeechSimCLRConfig
from similitude.methods.swav import SwAV, SwAVConfig

__all__ = [
    "BYOL",
    "BYOLA",
    "CLIP",
    "CMC",
    "CONFIGS",
    "CPCV1",
    "CPCV2",
    "DIET",
    "DINO",
    "METHODS",
    "RAFT",
    "BYOLAConfig",
    "BYOLConfig",
    "BarlowTwins",
    "BarlowTwinsConfig",
    "BarlowTwinsHSICConfig",
    "Batch",
    "CLIPConfig",
    "CMCConfig",
    "CPCAudio",
    "CPCAudioConfig",
    "CPCV1Config",
    "CPCV2Config",
    "DIETConfig",
    "DINOConfig",
    "ELo",
    "ELoConfig",
    "EndToEnd",
    "EndToEndConfig",
    "InstDisc",
    "InstDiscConfig",
    "InvaSpread",
    "InvaSpreadConfig",
    "MemoryBankConfig",
    "MemoryBankContrast",
    "Method",
    "MethodConfig",
    "MoCo",
    "MoCoV1Config",
    "MoCoV2Config",
    "MoCoV3",
    "MoCoV3Config",
    "Progress",
    "RAFTConfig",
    "SimCLR",
    "SimCLRConfig",
    "SimCLRv2",
    "SimCLRv2Config",
    "SimSiam",
    "SimSiamConfig",
    "SimTriplet",
    "SimTripletConfig",
    "SpeechSimCLR",
    "SpeechSimCLRConfig",
    "StepOutput",
    "SwAV",
    "SwAVConfig",
    "build_method",
    "config_class",
    "given_method",
    "make_config",
    "method_class",
    "name_of",
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
    "inst_disc": InstDisc,
    "cpc_v1": CPCV1,
    "cpc_v2": CPCV2,
    "cmc": CMC,
    "inva_spread": InvaSpread,
    "memory_bank": MemoryBankContrast,
    "end_to_end": EndToEnd,
    "barlow_twins": BarlowTwins,
    "barlow_twins_hsic": BarlowTwins,
    "moco_v3": MoCoV3,
    "raft": RAFT,
    "simtriplet": SimTriplet,
    "diet": DIET,
    "byol_a": BYOLA,
    "speech_simclr": SpeechSimCLR,
    "cpc_audio": CPCAudio,
    "clip": CLIP,
    "elo": ELo,
}

# By what each class says of its config; a name is the default of that config's field ``name``.
CONFIGS: dict[str, type[MethodConfig]] = {
    name: next(k for k in annotated_configs(method) if k.model_fields["name"].default == name)
    for name, method in METHODS.items()
}


def build_method(config: MethodConfig, backbone: nn.Module) -> Method:
    """The method that ``config.name`` names, around ``backbone``."""
    return method_class(config.name)(backbone, config)  # type: ignore[call-arg]


def method_class(name: str) -> type[Method]:
    """A method of METHODS, or a loaded one of the user's own as "module:Class".

    Raises:
        UserError: no method has this name, or its code is not loaded: see :func:`given_method`.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" in name:
        if (method := loaded_method(name)) is not None:
            return method
        raise UserError(
            f"the method is code outside of similitude, {name}, which a file may name but not run: "
            f"if you trust it, give --method {name} (in Python method={name!r}) too"
        )
    raise UserError(
        f"unknown method {name!r}: {did_you_mean(name, METHODS)} (one of your own is MODULE:CLASS)"
    )


def config_class(name: str) -> type[MethodConfig]:
    """The config of the method called ``name``.

    A user's own says it by the annotation of ``config`` in its ``__init__``.

    Raises:
        UserError: no method has this name, or its config is not annotated.
    """
    method = method_class(name)
    if name in CONFIGS:
        return CONFIGS[name]
    kinds = annotated_configs(method)
    if len(kinds) != 1:
        raise UserError(
            f"the method {name} does not say what its config is: annotate it, "
            "def __init__(self, backbone, config: MyConfig), with a subclass of MethodConfig"
        )
    return kinds[0]


def make_config(name: str, settings: Mapping[str, Any]) -> MethodConfig:
    """The config of the method called ``name`` with these settings and defaults for the others.

    Raises:
        UserError: no method has this name.
        pydantic.ValidationError: a setting is unknown or out of range.
    """
    kind = config_class(name)
    named = name in CONFIGS or kind.model_fields["name"].is_required()
    config = kind(**settings, **({"name": name} if named else {}))
    return config.model_copy(update={"name": name})  # by which recipe.yaml finds the class again


def given_method(method: str | type[Method]) -> str:
    """The name of a method that the user gives; one of the user's own is imported.

    Raises:
        UserError: it cannot be imported, or the name is not known.
    """
    if isinstance(method, type):
        return name_of(method)
    if ":" in method:
        import_method(method)
    config_class(method)  # an unknown name is told with the known ones
    return method


def name_of(method: type[Method]) -> str:
    """The name by which recipes find a class: a key of METHODS, or "module:Class".

    Raises:
        UserError: several names share the class, as MoCo v1 and v2 do.
    """
    known = [name for name, kind in METHODS.items() if kind is method]
    if len(known) > 1:
        raise UserError(f"{method.__name__} is the class of {' and '.join(known)}: give the name")
    return known[0] if known else place_of(method)
