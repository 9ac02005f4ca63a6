"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): from wherever it can be had.

Letters: N images.
"""

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torchvision.datasets

from similitude.data.cache import cache_folder
from similitude.data.downloads import fetch, publish, workshop
from similitude.errors import UserError
from similitude.files.writing import as_path

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_SIZES = (26_421_880, 29_515, 4_422_102, 5_148)  # bytes of torchvision's files, in their order
_MOST = 1 << 26  # bytes of an unpacked file; the largest has 47,040,016
_IDX_UINT8 = 0x08


def load_fashion_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split: what is on disk, else torchvision's download.

    A copy on disk is looked for in the folder that the environment variable SIMILITUDE_DATA names
    (its own files, ``fashion-mnist/``, or torchvision's ``FashionMNIST/raw/``), in the cache, and
    where Debian's package is installed. What is downloaded goes to the cache, after it has
    been checked.

    Args:
        split: "train" or "test".

    Returns:
        Images, uint8 of shape [N, 28, 28], and classes, int64 of shape [N].

    Raises:
        FetchError: it is not here and could not be downloaded; the message has the reasons.
        UserError: a file on disk is damaged.
    """
    folder = next((f for f in _places() if _is_complete(f)), None) or _download()
    images, labels = (_read_idx(_existing(folder, name)) for name in _FILES[split])
    return images, labels.astype(np.int64)


def _places() -> Iterator[Path]:
    if data := os.environ.get("SIMILITUDE_DATA"):
        for below in ("fashion-mnist", "FashionMNIST/raw", "."):
            yield as_path(data) / below
    yield cache_folder() / "fashion-mnist"
    yield DEBIAN_FOLDER


def _existing(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() else folder / name


def _is_complete(folder: Path) -> bool:
    return all(_existing(folder, name).is_file() for pair in _FILES.values() for name in pair)


def _download() -> Path:
    target = cache_folder() / "fashion-mnist"
    dataset = torchvision.datasets.FashionMNIST
    with workshop() as temporary:
        made = temporary / "fashion-mnist"
        made.mkdir()
        for (name, md5), size in zip(dataset.resources, _SIZES, strict=True):
            fetch(f"{dataset.mirrors[0]}{name}", made / name, md5=md5, size=size)
        publish(made, target)
    return target


def _read_idx(path: Path) -> np.ndarray:
    """A uint8 array in the idx format of MNIST (LeCun, Cortes, Burges 1998), perhaps gzipped."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MOST)
        zeros, kind, ndim = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{ndim}I", data, 4)
        if zeros != 0 or kind != _IDX_UINT8:
            raise ValueError("not an idx file of bytes")
        # reshape fails where the file is too short or too long; the copy can be written to
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error
