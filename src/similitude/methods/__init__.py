"""Every method, by the name its config carries."""

import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from similitude.errors import UserError
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput
from similitude.methods.barlow_twins import BarlowTwins, BarlowTwinsConfig, BarlowTwinsHSICConfig
from similitude.methods.byol import BYOL, BYOLConfig
from similitude.methods.cmc import CMC, CMCConfig
from similitude.methods.cpc_v1 import CPCV1, CPCV1Config
from similitude.methods.cpc_v2 import CPCV2, CPCV2Config
from similitude.methods.dino import DINO, DINOConfig
from similitude.methods.end_to_end import EndToEnd, EndToEndConfig
from similitude.methods.inst_disc import InstDisc, InstDiscConfig
from similitude.methods.inva_spread import InvaSpread, InvaSpreadConfig
from similitude.methods.memory_bank import MemoryBankConfig, MemoryBankContrast
from similitude.methods.moco import MoCo, MoCoV1Config, MoCoV2Config
from similitude.methods.moco_v3 import MoCoV3, MoCoV3Config
from similitude.methods.raft import RAFT, RAFTConfig
from similitude.methods.simclr import SimCLR, SimCLRConfig
from similitude.methods.simclr_v2 import SimCLRv2, SimCLRv2Config
from similitude.methods.simsiam import SimSiam, SimSiamConfig
from similitude.methods.simtriplet import SimTriplet, SimTripletConfig
from similitude.methods.swav import SwAV, SwAVConfig

__all__ = [
    "BYOL",
    "CMC",
    "CONFIGS",
    "CPCV1",
    "CPCV2",
    "DINO",
    "METHODS",
    "RAFT",
    "BYOLConfig",
    "BarlowTwins",
    "BarlowTwinsConfig",
    "BarlowTwinsHSICConfig",
    "Batch",
    "CMCConfig",
    "CPCV1Config",
    "CPCV2Config",
    "DINOConfig",
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
    "StepOutput",
    "SwAV",
    "SwAVConfig",
    "build_method",
    "config_class",
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
    "inst_disc": InstDiscConfig,
    "cpc_v1": CPCV1Config,
    "cpc_v2": CPCV2Config,
    "cmc": CMCConfig,
    "inva_spread": InvaSpreadConfig,
    "memory_bank": MemoryBankConfig,
    "end_to_end": EndToEndConfig,
    "barlow_twins": BarlowTwinsConfig,
    "barlow_twins_hsic": BarlowTwinsHSICConfig,
    "moco_v3": MoCoV3Config,
    "raft": RAFTConfig,
    "simtriplet": SimTripletConfig,
}


def build_method(config: MethodConfig, backbone: nn.Module) -> Method:
    """The method that ``config.name`` names, around ``backbone``."""
    return method_class(config.name)(backbone, config)  # type: ignore[call-arg]


def method_class(name: str) -> type[Method]:
    """A method of METHODS, or one of a user's own as "module:Class".

    Raises:
        UserError: no method has this name.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" in name:
        return _import_method(name)
    near = difflib.get_close_matches(name, METHODS, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(
        f"unknown method {name!r}; {hint}known methods: {', '.join(METHODS)}; "
        "one of your own is MODULE:CLASS"
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
    kind = get_type_hints(method.__init__).get("config")
    if not (isinstance(kind, type) and issubclass(kind, MethodConfig)):
        raise UserError(
            f"the method {name} does not say what its config is: annotate it, "
            "def __init__(self, backbone, config: MyConfig), with a subclass of MethodConfig"
        )
    return kind


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


def name_of(method: type[Method]) -> str:
    """The name by which recipes find a class: a key of METHODS, or "module:Class".

    Raises:
        UserError: several names share the class, as MoCo v1 and v2 do.
    """
    known = [name for name, kind in METHODS.items() if kind is method]
    if len(known) > 1:
        raise UserError(f"{method.__name__} is the class of {' and '.join(known)}: give the name")
    if known:
        return known[0]
    module = method.__module__
    if module in ("__main__", "__mp_main__"):  # a script, which others import by its file's name
        module = Path(getattr(sys.modules[module], "__file__", module)).stem
    return f"{module}:{method.__qualname__}"


def _import_method(name: str) -> type[Method]:
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise UserError(f"{name!r} is not a method of your own: write MODULE:CLASS")
    main = sys.modules.get("__main__")
    if Path(getattr(main, "__file__", None) or "").stem == module_name and hasattr(
        main, class_name
    ):
        module = main  # the script that runs: importing it again would run it again
    else:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)  # a module beside the photos is found as by python -m
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UserError(f"cannot import {module_name!r} of method {name!r}: {error}") from error
    method = getattr(module, class_name, None)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(f"{module_name!r} has no subclass of Method called {class_name!r}")
    return method
