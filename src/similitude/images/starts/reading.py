"""Open a file of weights that a stranger made, without running anything in it."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from similitude.errors import UserError
from similitude.files.reading import check_archive

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")

# What published checkpoints hold beside their weights: options of the command line (DINO), of
# Lightning and of OmegaConf (solo-learn), NumPy's numbers, and a function of Barlow Twins' and
# VICReg's optimizer. The file only names them; inert classes of these names take their places.
_STANDS_IN = (
    "__main__.exclude_bias_and_norm",
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "pathlib.WindowsPath",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "typing.Any",
)


class _Inert:
    """Stands where a checkpoint has an object that is no weight; keeps nothing of it."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _stand_ins() -> list[type]:
    places = [name.rpartition(".") for name in _STANDS_IN]
    return [
        type(name, (_Inert,), {"__module__": module, "__qualname__": name})
        for module, _, name in places
    ]


def read_file(path: Path) -> dict[str, Any]:
    """What a file of weights holds: tensors by name, or entries some of which hold them.

    Raises:
        UserError: there is no such file, it is cut, damaged or compressed, holds objects that only
            running its code could open, or no mapping.
    """
    _check_outside(path)
    if path.suffix.lower() == ".safetensors":
        try:
            return dict(load_file(path))
        except Exception as error:  # of the library's own class, which is not an OSError
            raise UserError(
                f"{path} is cut, damaged or no .safetensors file: fetch it again"
            ) from error
    check_archive(
        path, "fetch it again, or save its state_dict alone, where you trust it, as .safetensors"
    )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins()):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of what is refused or checked below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds an object of {found[1]!r}, which only running the file's code could "
                "open: save its state_dict alone, where you trust it, as .safetensors"
            ) from error
        raise UserError(f"{path} is cut, damaged or no checkpoint of tensors") from error
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise UserError(
            f"{path} holds no tensors by name: save the state_dict of the network instead"
        )
    return dict(content)


def _check_outside(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder and no run (it has no checkpoints/last.ckpt): "
            "give a run's folder or a file of weights"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is no file of weights: known endings are {', '.join(SUFFIXES)}; "
            "weights of timm are timm:NAME, and efficientnet-lite0 is ImageNet's"
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from error
    if size == 0:
        raise UserError(f"{path} is empty: fetch it again")
