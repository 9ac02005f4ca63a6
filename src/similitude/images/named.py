"""The data sets known by name, each with a split for training and one for testing.

Letters: N images.
"""

import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
import torchvision.datasets
from torchvision.datasets import CIFAR10, CIFAR100, STL10

from similitude.data.cache import cache_folder
from similitude.data.downloads import FetchError, fetch, publish, workshop
from similitude.data.source import numbered
from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.images.arrays import ArraySource, Layout
from similitude.images.fashion_mnist import load_fashion_mnist

NAMES = ("fashion-mnist", "cifar10", "cifar100", "stl10", "digits")

_SIZES = {"cifar10": 170_498_071, "cifar100": 169_001_437, "stl10": 2_640_397_119}  # bytes
_SPLITS = ("train", "test")
_Kind = TypeVar("_Kind", CIFAR10, STL10)
_DIGITS_TRAIN = 1437  # of 1,797: 80 %
_DIGITS_WHITE = 16  # their largest value


def open_named(name: str, split: str | None) -> ArraySource:
    """The images of one of ``NAMES``.

    Args:
        name: One of ``NAMES``.
        split: "train" or "test"; None for what one pretrains on, which is "train", and for stl10
            the 5,000 training images together with the 100,000 unlabeled ones.

    Raises:
        UserError: no such split, or the data set is neither here nor can be downloaded.
    """
    if split is not None and split not in _SPLITS:
        raise UserError(f"{name} has the splits train and test, not {split!r}")
    if name == "fashion-mnist":
        return _open_fashion_mnist(split)
    if name == "digits":
        return _open_digits(split)
    if name == "stl10":
        return _open_stl10(split)
    return _open_cifar(name, split)


def _open_fashion_mnist(split: str | None) -> ArraySource:
    try:
        images, labels = load_fashion_mnist(split or "train")
    except FetchError as error:
        raise UserError(
            f"fashion-mnist is neither on this machine nor can it be downloaded ({error}): put its "
            f"four .gz files into {cache_folder() / 'fashion-mnist'}, or install Debian's package "
            "dataset-fashion-mnist"
        ) from error
    classes = torchvision.datasets.FashionMNIST.classes
    return _source("fashion-mnist", split, images, "NHW", labels, classes)


def _open_digits(split: str | None) -> ArraySource:
    from sklearn.datasets import load_digits  # takes a second to import, and few need it

    values, labels = load_digits(return_X_y=True)
    images = (values.reshape(-1, 8, 8) * (255 / _DIGITS_WHITE)).round().astype(np.uint8)
    # the last part is written by other people than the first, as in MNIST
    part = slice(_DIGITS_TRAIN, None) if split == "test" else slice(_DIGITS_TRAIN)
    classes = [str(digit) for digit in range(10)]
    return _source("digits", split, images[part], "NHW", np.asarray(labels)[part], classes)


def _open_cifar(name: str, split: str | None) -> ArraySource:
    kind = CIFAR10 if name == "cifar10" else CIFAR100
    found = _load(name, kind, lambda root: kind(root, train=split != "test"))
    labels = np.array(found.targets, dtype=np.int64)
    return _source(name, split, found.data, "NHWC", labels, found.classes)


def _open_stl10(split: str | None) -> ArraySource:
    part = split or "train+unlabeled"
    found = _load("stl10", STL10, lambda root: STL10(root, split=part))
    assert found.labels is not None  # all four splits have them, the unlabeled one has -1
    labels = found.labels.astype(np.int64)
    return _source("stl10", split, found.data, "NCHW", labels, found.classes)


def _source(
    name: str,
    split: str | None,
    images: np.ndarray,
    layout: Layout,
    labels: np.ndarray,
    classes: list[str],
) -> ArraySource:
    notes = ()
    if split is None:
        used = "train and unlabeled" if name == "stl10" else "training"
        notes = (f"{name}: the {used} images are used, those for testing are not",)
    return ArraySource(
        name=f"{name} {split or 'train'}",
        names=numbered(len(images)),
        labels=torch.from_numpy(labels),
        class_names=list(classes),
        notes=notes,
        array=images,
        layout=layout,
    )


def _load(name: str, kind: type[_Kind], load: Callable[[str], _Kind]) -> _Kind:
    """A torchvision data set from disk, else from its home page.

    torchvision compares every file's MD5 before it unpickles one.
    """
    target = cache_folder() / name
    places = [target]
    if data := os.environ.get("SIMILITUDE_DATA"):
        places = [as_path(data) / name, as_path(data), target]
    for place in places:
        if (place / kind.base_folder).is_dir():
            try:
                return load(str(place))
            except RuntimeError as error:
                raise UserError(
                    f"{place / kind.base_folder} is incomplete or damaged: delete it and run again"
                ) from error
    try:
        with workshop() as temporary:
            archive = temporary / kind.filename
            fetch(kind.url, archive, md5=kind.tgz_md5, size=_SIZES[name])
            kind(str(temporary), download=True)  # unpacks it
            publish(temporary / kind.base_folder, target / kind.base_folder)
    except FetchError as error:
        raise UserError(
            f"{name} is not on this machine, and {error}: get {kind.url} and unpack it so that "
            f"there is {target / kind.base_folder} (or point SIMILITUDE_DATA to the folder that "
            f"holds {kind.base_folder})"
        ) from error
    return load(str(target))
