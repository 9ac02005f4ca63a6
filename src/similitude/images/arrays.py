"""Images that are numbers already: arrays in memory, ``.npy`` and ``.npz`` files.

Letters: N images, H height, W width, C channels.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt
from torch import Tensor

from similitude.data.cache import free_memory_bytes
from similitude.data.classes import numbered_classes
from similitude.data.parts import PARTS
from similitude.data.source import numbered
from similitude.errors import UserError
from similitude.files.reading import Mapped
from similitude.images.decoding import ValueRange, to_depth
from similitude.images.source import ImageSource
from similitude.images.stored import Look, with_channels

Layout = Literal["NHW", "NHWC", "NCHW"]

_ROWS = 1024  # images looked at in one go, so that a mapped file need not fit in memory
_NO_STEP = 1e-3  # of 255: as far as a byte divided by 255 is from a byte, in floats
_IMAGES = ("images", "x", "{}_images", "x_{}", "{}_x")
_LABELS = ("labels", "y", "{}_labels", "y_{}", "{}_y")


@dataclass(frozen=True, kw_only=True)
class ArraySource(ImageSource):
    """Images in one array, in memory or in an ``.npy`` file.

    Attributes:
        array: Shape as ``layout`` says; uint8, uint16, or float in [0, 1].
        layout: Order of the axes.
        aspect: Width / height of each original if the array holds squashed canvases, shape [N].
        mapped: The file that the array maps, as it was then.
    """

    array: np.ndarray
    layout: Layout
    aspect: Float[Tensor, " N"] | None = None
    mapped: Mapped = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mapped", Mapped(self.array))

    def check_mapped(self) -> None:
        self.mapped.check()

    def decoded_as(self, **fields: Any) -> "ImageSource":
        changed = replace(self, **fields)
        fitting = [changed.channels]
        if changed.channels in (1, 3):  # of what holds no canvases, the fourth is alpha
            fitting = [1, 3] if self.aspect is not None else [1, 3, 4]
        if self._own_channels not in fitting:
            raise UserError(
                f"{self.name} has shape {list(self.array.shape)}, which is {self._own_channels} "
                f"channels, not {changed.channels}: channels={self._own_channels} keeps them"
            )
        return changed

    @property
    def _own_values(self) -> ValueRange | None:
        """Of what the array holds; canvases are in their range already."""
        return self.values if self.aspect is None else None

    @property
    def _own_channels(self) -> int:
        return 1 if self.layout == "NHW" else self.array.shape[3 if self.layout == "NHWC" else 1]

    def look(self, i: int, count: int) -> Look:
        if self.array.dtype == np.uint8 or self.aspect is not None:
            return Look(is_cut=self.array.dtype != np.uint8)
        flat = np.asarray(self.array[i]).reshape(-1)
        flat = flat[:: max(1, len(flat) // count)]
        if flat.dtype == np.uint16:
            return Look(flat)
        steps = flat.astype(np.float32) * 255
        return Look(is_cut=bool((np.abs(steps - steps.round()) > _NO_STEP).any()))

    def read_rows(self, start: int, stop: int) -> UInt[Tensor, "N C H W"]:
        """Images ``start`` to ``stop - 1`` at once; C may be 1 where all channels are equal."""
        self.check_mapped()
        rows = np.asarray(self.array[start:stop])
        if rows.dtype.kind == "f":
            rows = (rows.astype(np.float32) * (2**self.depth - 1)).round().astype(self.dtype)
        elif rows.dtype != self.dtype or self._own_values is not None:
            rows = to_depth(rows, self._own_values, self.depth)
        if self.layout == "NHW":
            rows = rows[:, None]
        elif self.layout == "NHWC":
            rows = rows.transpose(0, 3, 1, 2)
        if not rows.flags.writeable or any(stride < 0 for stride in rows.strides):
            rows = rows.copy()  # torch wants neither a read-only file nor a reversed axis
        if rows.shape[1] != self.channels:
            pixels = rows.transpose(0, 2, 3, 1)
            pixels = with_channels(pixels, self.channels, has_alpha=rows.shape[1] == 4)
            rows = pixels.transpose(0, 3, 1, 2)
        return torch.from_numpy(rows)

    def holds_canvases(self, size: int) -> bool:
        """Whether the array can be used as it is, as canvases of side ``size``."""
        return (
            self.layout == "NCHW"
            and self.array.shape[1:] == (self.channels, size, size)
            and self.array.dtype == self.dtype
            and (self._own_values is None or self.dtype == np.uint8)
            and self.array.flags.c_contiguous
            and self.array.flags.writeable  # not so for a mapped .npy file
        )

    def read(self, i: int, size: int | None = None) -> UInt[Tensor, "C H W"]:
        return self.read_rows(i, i + 1)[0].expand(self.channels, -1, -1)

    def probe_size(self, i: int) -> tuple[int, int]:
        """The one size that all images have; see :meth:`ImageSource.probe_size`."""
        height, width = self.array.shape[2:] if self.layout == "NCHW" else self.array.shape[1:3]
        return width, height

    def fingerprint(self) -> str:
        """A hash of the content, or of an ``.npy`` file's path, length and time."""
        digest = hashlib.sha256(f"{self.array.shape} {self.array.dtype} {self.layout}".encode())
        if (file := self.mapped.file) is not None:
            status = os.stat(file)
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        else:
            for start in range(0, len(self.array), _ROWS):
                digest.update(np.ascontiguousarray(self.array[start : start + _ROWS]).data)
        return digest.hexdigest()


def from_array(data: np.ndarray | Tensor, name: str = "array") -> ArraySource:
    """A source over an array, after a check of its shape, type and range.

    Args:
        data: Shape [N, H, W], [N, H, W, C] or [N, C, H, W]; channels are what there are 1, 3 or 4
            of (where both could be meant the last), else the shorter of both axes; uint8, uint16,
            or float in [0, 1].
        name: What errors call it.

    Raises:
        UserError: it is something else.
    """
    array = data
    if isinstance(data, Tensor):  # NumPy has no bfloat16
        low = data.dtype == torch.bfloat16
        array = (data.float() if low else data).detach().cpu().numpy()
    assert isinstance(array, np.ndarray)
    if array.ndim == 3 and (array.shape[2] in (3, 4) or array.shape[0] == 3):
        raise UserError(
            f"{name} has shape {list(array.shape)}, which looks like one picture: several are "
            "[N, H, W, C]; add an axis with array[None] for one picture, with array[..., None] for "
            "gray ones"
        )
    layout = _layout(array.shape)
    if layout is None:
        raise UserError(
            f"{name} has shape {list(array.shape)}, but images must be [N, H, W], [N, H, W, C] or "
            "[N, C, H, W], none of them 0"
        )
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise UserError(
            f"{name} holds {array.dtype}, but images must be uint8, uint16 or float in [0, 1]: "
            f"convert them, for values up to 255 with .astype('uint8')"
        )
    if array.dtype.kind == "f":
        _check_range(array, name)
    return ArraySource(name=name, names=numbered(len(array)), array=array, layout=layout)


def open_file(path: Path, part: str | None) -> ArraySource:
    """The images of an ``.npy`` file, or of an ``.npz`` file with keys such as images and labels.

    Args:
        path: The file. In an ``.npz`` the images are called ``images`` or ``x`` and the labels
            ``labels`` or ``y``; of a part ``x_PART``, ``y_PART`` or ``PART_images``,
            ``PART_labels``.
        part: Its name; None for a file without parts.

    Raises:
        UserError: the file is damaged or holds no images.
    """
    if path.suffix.lower() == ".npy":
        if part is not None:
            raise UserError(f"{path} has no split {part!r}: an .npy file is a single array")
        return from_array(_load(path), str(path))
    with _open_npz(path) as archive:
        images_key = _key(archive.files, _IMAGES, part)
        if images_key is None:
            wanted = "images or x" if part is None else f"x_{part} or {part}_images"
            raise UserError(
                f"{path} holds no array called {wanted}, only {', '.join(archive.files) or 'none'}"
            )
        labels_key = _key(archive.files, _LABELS, part)
        _check_memory(path, archive, [images_key, *([labels_key] if labels_key else [])])
        try:
            images = archive[images_key]
            raw_labels = None if labels_key is None else archive[labels_key]
        except Exception as error:  # of NumPy, zipfile and zlib, and MemoryError of claims
            raise _damaged(path, error) from error
    source = from_array(images, str(path) if part is None else f"{path} {part}")
    if raw_labels is None:
        return source
    labels, class_names = _labels(raw_labels, source)
    return replace(source, labels=labels, class_names=class_names)


def part_names(path: Path) -> list[str]:
    """The parts that an ``.npz`` file has images of."""
    with _open_npz(path) as archive:
        return [part for part in PARTS if _key(archive.files, _IMAGES, part) is not None]


def _key(keys: list[str], patterns: tuple[str, ...], split: str | None) -> str | None:
    by_name = {key.lower(): key for key in reversed(keys)}
    chosen = [p for p in patterns if ("{}" in p) == (split is not None)]
    return next((by_name[key] for p in chosen if (key := p.format(split)) in by_name), None)


def _layout(shape: tuple[int, ...]) -> Layout | None:
    if len(shape) == 3 and 0 not in shape:
        return "NHW"
    if len(shape) == 4 and 0 not in shape:
        if shape[3] in (1, 3, 4):
            return "NHWC"
        return "NCHW" if shape[1] in (1, 3, 4) or shape[1] < shape[3] else "NHWC"
    return None


def _check_range(array: np.ndarray, name: str) -> None:
    for start in range(0, len(array), _ROWS):
        rows = array[start : start + _ROWS]
        low, high = float(rows.min()), float(rows.max())
        if not (low >= 0 and high <= 1):  # also true for NaN
            advice = "divide by 255" if 1 < high <= 255 and low >= 0 else "rescale them"
            raise UserError(
                f"{name} holds floats from {low:g} to {high:g}, but they must be in [0, 1]: "
                f"{advice}"
            )


def _load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header makes NumPy raise nearly anything
        raise _damaged(path, error) from error


def _open_npz(path: Path) -> np.lib.npyio.NpzFile:
    loaded = _load(path)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise UserError(f"{path} is an .npy file by content: rename it")
    return loaded


def _check_memory(path: Path, archive: np.lib.npyio.NpzFile, keys: list[str]) -> None:
    """Refuse arrays that unpack to more than the free memory."""
    assert archive.zip is not None
    records = {r.filename.removesuffix(".npy"): r.file_size for r in archive.zip.infolist()}
    size, free = sum(records.get(key, 0) for key in keys), free_memory_bytes()
    if size > free:
        raise UserError(
            f"{path} unpacks to {size:,} bytes, more than the {free:,} of memory that are free: "
            "save its images as an .npy file, which is not read at once"
        )


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read {path}: {str(error).splitlines()[0] if str(error) else 'damaged'}"
    )


def _labels(
    raw: np.ndarray, source: ArraySource
) -> tuple[Int[Tensor, " N"] | None, list[str] | None]:
    flat = raw.reshape(-1)
    if len(flat) != len(source):
        raise UserError(f"{source.name} has {len(source)} images but {len(flat)} labels")
    if flat.dtype.kind not in "iuSU" or (flat.dtype.kind == "i" and flat.min(initial=0) < -1):
        raise UserError(
            f"{source.name} has labels of type {flat.dtype}: use class numbers from 0 "
            f"(-1 for unknown) or class names"
        )
    if flat.dtype.kind == "S":
        flat = np.char.decode(flat, "utf-8", "replace")
    texts, places = np.unique(flat.astype(str), return_inverse=True)
    labels, class_names = numbered_classes(texts.tolist())
    return None if labels is None else labels[torch.from_numpy(places)], class_names
