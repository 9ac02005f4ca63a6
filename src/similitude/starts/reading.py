"""Open a file of weights that a stranger made, without running anything in it."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from similitude.errors import UserError

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


# Torch opens it, and it takes as much memory as the file says; no checkpoint of tensors has one.
_CLAIM = b"bytearray"


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
    _check_zip(path)
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


def check_tensor(tensor: Tensor, name: str, where: str) -> None:
    """Refuse what is no plain array of numbers, or claims more numbers than its file holds.

    Raises:
        UserError: says which tensor.
    """
    strange = (
        tensor.layout is not torch.strided
        or tensor.is_quantized
        or tensor.is_complex()
        or tensor.device.type != "cpu"
    )
    if strange or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{where}: tensor {name!r} is no plain array of numbers of its own")


def _check_outside(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder and no run (it has no checkpoints/last.ckpt): "
            "give a run's folder or a file of weights"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is no file of weights: known endings are {', '.join(SUFFIXES)}; "
            "weights of timm are timm:NAME"
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from error
    if size == 0:
        raise UserError(f"{path} is empty: fetch it again")


def _check_zip(path: Path) -> None:
    """Torch stores its records plainly; a compressed one could fill the memory when read."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # torch's older format, which cannot compress
                file.seek(0)
                claims, records = any(_CLAIM in part for part in _overlapping(file)), []
            else:
                archive = zipfile.ZipFile(file)
                records = archive.infolist()
                texts = [r for r in records if r.filename.endswith(".pkl") and not r.compress_type]
                claims = any(_CLAIM in archive.read(record) for record in texts)
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from error
    except Exception as error:  # BadZipFile, and whatever else a damaged directory leads to
        raise UserError(f"{path} is cut or damaged: fetch it again") from error
    _refuse_claim(claims, path)
    plain = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    # records that lie over each other hold more together than the file
    if not plain or sum(record.file_size for record in records) > path.stat().st_size:
        raise UserError(
            f"{path} is compressed, which torch's checkpoints are not: unpack it, or save its "
            "state_dict as .safetensors"
        )


def _overlapping(file: IO[bytes], size: int = 1 << 24) -> Iterator[bytes]:
    """The file in parts, each with the end of the one before."""
    before = b""
    while part := file.read(size):
        yield before + part
        before = part[-len(_CLAIM) :]


def _refuse_claim(claims: bool, path: Path) -> None:
    if claims:
        raise UserError(
            f"{path} holds an object of 'bytearray', which may claim any amount of memory: save "
            "its state_dict alone, where you trust it, as .safetensors"
        )
