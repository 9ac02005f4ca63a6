"""From the bytes of an image file to uint8 RGB, one rule for every format and color mode.

What is not for Pillow, or keeps more than that, is in ``stored.py``.

- The EXIF orientation is applied.
- Transparency is laid over white, as browsers and papers' figures show it.
- Integers of 16 and 32 bits and floats are deep: a :class:`ValueRange` says which of their values
  are black and white, one for all pictures of a data set.
- Of an animation or a multi-page file the first frame counts.
- Only the formats of ``SUFFIXES`` are tried, known by their first bytes. Of a picture of more than
  ``MAX_PIXELS`` nothing but the header is read.

Letters: C channels, H height, W width, S side of a canvas in pixels.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Shaped, UInt, UInt8
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from similitude.data.files import ByteFile, UnreadableError, Wanted

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".dcm")
IMAGES = Wanted("image", SUFFIXES, "Image")
MAX_PIXELS = 2**27  # of a picture
_TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.0f} million pixels"

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_EXIF_ORIENTATION = 0x0112
# What to do with the axes: whether to swap height and width, then the steps along both.
_ORIENTATIONS = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_SIDEWAYS = tuple(value for value, (swap, *_) in _ORIENTATIONS.items() if swap)
# a JPEG this many times larger than the canvas is shrunk by a power of two while decoding
_DRAFT_MARGIN = 2
_STRIP = 2**22  # pixels that are converted at once, so that no second copy of a picture is held
_LARGE = 2**24  # pixels: larger pictures are decoded one at a time, whatever the number of threads
_one_at_a_time = threading.Lock()

# Its warnings name no file; what matters in them is an error here.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class ValueRange(NamedTuple):
    """The values of deep pictures that are shown black and white, those between in proportion."""

    black: float
    white: float


SIXTEEN_BITS = ValueRange(0.0, 65535.0)
UNIT = ValueRange(0.0, 1.0)
DTYPES: dict[int, type[Any]] = {8: np.uint8, 16: np.uint16}  # bits of a pixel -> how it is kept


def decode(
    file: ByteFile, size: int | None = None, values: ValueRange | None = None
) -> UInt8[Tensor, "3 H W"]:
    """Decode one image.

    Args:
        file: At its beginning; its first bytes say what it is.
        size: If given, a large JPEG may come out smaller than it is, though never below
            twice this short side: much faster when a canvas of that size is made next.
        values: Of deep pictures; 16 bits for integers and [0, 1] for floats if not given.

    Raises:
        UnreadableError: empty, truncated, too large, not an image.
    """
    with as_unreadable(), opened(file) as image, loaded(image, size):
        if is_deep(image):
            stored = np.asarray(image)[..., None]
            pixels = to_depth(stored, values, 8, is_inverted=is_white_zero(image))
        else:
            pixels = _colors(image)
        return upright(pixels, orientation(image), 3)


@contextmanager
def as_unreadable() -> Iterator[None]:
    """Say in a few words why a file cannot be read, whatever a decoder raises."""
    try:
        yield
    except UnreadableError:
        raise
    # Pillow's decoders raise almost anything on damaged files: SyntaxError, struct.error, ...
    except Exception as error:
        raise UnreadableError(_reason(error)) from error


@contextmanager
def loaded(image: Image.Image, size: int | None) -> Iterator[None]:
    """The pixels of an image in memory, those of a large JPEG shrunk; see :func:`decode`."""
    if size is not None and image.format == "JPEG":
        image.draft(None, (_DRAFT_MARGIN * size, _DRAFT_MARGIN * size))
    with _one_at_a_time if _is_large(image) else nullcontext():
        image.load()
        yield


def probe_size(file: ByteFile) -> tuple[int, int] | None:
    """Width and height of an image as it is shown, from its header; None if unreadable."""
    try:
        with opened(file) as image:
            width, height = image.size
            # of TIFF Pillow gives the size as shown; of PNG it would have to decode the pixels
            has_exif = image.format in ("JPEG", "MPO", "WEBP")
            if has_exif and orientation(image) in _SIDEWAYS:
                width, height = height, width
    except Exception:  # Pillow raises almost anything on damaged files
        return None
    return width, height


def deep_values(file: ByteFile, count: int) -> np.ndarray | None:
    """About ``count`` values of a deep picture, evenly spread, as they are stored; else None."""
    try:
        with opened(file) as image:
            if not is_deep(image):
                return None
            flat = np.asarray(image).reshape(-1)
    except Exception:  # decoding it for good finds the reason
        return None
    return flat[:: max(1, len(flat) // count)]


def opened(file: ByteFile) -> Image.Image:
    """The image with its header read, and checked before any memory is taken for pixels."""
    head = file.read(32)
    file.seek(0)
    if not head:
        raise UnreadableError("empty file")
    check_pixels(_webp_canvas(head))
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableError(_unknown(file, head)) from error
    check_pixels(image.size)
    return image


def check_pixels(size: tuple[int, int]) -> None:
    """Refuse more pixels than ``MAX_PIXELS``.

    Args:
        size: Width and height.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableError(_TOO_LARGE)


def _webp_canvas(head: bytes) -> tuple[int, int]:
    """The size in an extended or lossless WebP's header; Pillow takes memory for it at once."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    bits = int.from_bytes(head[21:25], "little")
    match head[12:16]:
        case b"VP8X":
            wide, high = head[24:27], head[27:30]
            return int.from_bytes(wide, "little") + 1, int.from_bytes(high, "little") + 1
        case b"VP8L":
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    wide, high = head[26:28], head[28:30]
    return int.from_bytes(wide, "little") & 0x3FFF, int.from_bytes(high, "little") & 0x3FFF


def orientation(image: Image.Image) -> int:
    """1 where the picture has no EXIF, or a damaged one: its pixels may be whole all the same."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # SyntaxError, struct.error, ...
        return 1


def _is_large(image: Image.Image) -> bool:
    return image.size[0] * image.size[1] > _LARGE


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow gives one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def is_white_zero(image: Image.Image) -> bool:
    """Whether small values of a TIFF are bright; Pillow turns those of 8 bits around itself."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def has_cut_colors(image: Image.Image) -> bool:
    """Whether the file has colors of 16 bits, of which Pillow gives 8."""
    tiles = getattr(image, "tile", None)  # of those that are read from a file
    args: Any = tiles[0].args if tiles else ""
    if image.format == "PPM" and image.mode == "RGB":
        return args[-1] > 255  # the largest value
    return not is_deep(image) and ";16" in str(args if isinstance(args, str) else args[:1])


def _strips(height: int, width: int) -> list[tuple[int, int]]:
    """First and last row of parts that are converted one after the other."""
    rows = max(1, _STRIP // width)
    return [(top, min(height, top + rows)) for top in range(0, height, rows)]


def _colors(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, bottom in _strips(image.height, image.width):
        strip = np.asarray(image.crop((0, top, image.width, bottom)).convert(mode))
        if mode == "RGBA":
            strip = over_white(strip[..., :3], strip[..., 3:])
        pixels[top:bottom] = strip
    return pixels


def to_depth(
    stored: Shaped[np.ndarray, "H W *C"],
    values: ValueRange | None,
    depth: int,
    *,
    is_inverted: bool = False,
) -> UInt[np.ndarray, "H W *C"]:
    """Stored numbers as integers of 8 or 16 bits.

    Args:
        stored: uint8 are in 0..255, all others deep.
        values: Of deep ones; see :func:`decode`.
        depth: 8 or 16.
        is_inverted: Whether small ones are bright.

    Raises:
        UnreadableError: some are no numbers.
    """
    dtype, largest = DTYPES[depth], 2**depth - 1
    if stored.dtype == np.uint8:
        stored = 255 - stored if is_inverted else stored
        return stored if depth == 8 else stored.astype(dtype) * dtype(257)
    black, white = values or (UNIT if stored.dtype.kind == "f" else SIXTEEN_BITS)
    if is_inverted:
        black, white = white, black
    pixels = np.empty(stored.shape, dtype)
    for top, bottom in _strips(len(stored), stored[0].size):
        strip = stored[top:bottom].astype(np.float64)
        if not np.isfinite(strip).all():
            raise UnreadableError("holds values that are not numbers")
        shown = (strip - black) * (largest / (white - black))
        pixels[top:bottom] = shown.round().clip(0, largest)
    return pixels


def over_white(
    color: UInt[np.ndarray, "... C"], alpha: UInt[np.ndarray, "... 1"]
) -> UInt[np.ndarray, "... C"]:
    """Colors laid over white; ``alpha`` is 0 where nothing is seen of them, white where all is."""
    largest = np.iinfo(color.dtype).max
    share = alpha.astype(np.uint16 if largest == 255 else np.uint32)
    return ((color * share + largest * (largest - share) + largest // 2) // largest).astype(
        color.dtype
    )


def upright(
    pixels: UInt[np.ndarray, "H W C"], orientation: int, channels: int
) -> UInt[Tensor, "ch A B"]:
    """The pixels as they are shown, by their EXIF orientation; gray is shown in each channel."""
    if orientation in _ORIENTATIONS:
        swap, down, right = _ORIENTATIONS[orientation]
        pixels = np.ascontiguousarray((pixels.swapaxes(0, 1) if swap else pixels)[::down, ::right])
    return torch.from_numpy(pixels).permute(2, 0, 1).expand(channels, -1, -1)


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, Image.DecompressionBombError):
        return _TOO_LARGE
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if "truncated" in text.lower() or "not enough" in text.lower():
        return "truncated"
    return f"damaged: {text.splitlines()[0][:60]}" if text else "damaged"


def _unknown(file: ByteFile, head: bytes) -> str:
    """Why Pillow does not take a file for an image."""
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return "not an image"
    try:
        file.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits = tags[TiffImagePlugin.BITSPERSAMPLE]
        kind = {1: "", 2: "signed ", 3: "float "}[tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]]
        return f"a TIFF of {len(bits)} x {kind}{bits[0]} bits, read with channels={len(bits)}"
    except Exception:  # a damaged TIFF
        return "not an image"


def to_canvas(image: UInt[Tensor, "C H W"], size: int) -> UInt[Tensor, "C S S"]:
    """Resize to a square of side ``size``, bilinear, anti-aliased where it shrinks."""
    if image.shape[1:] == (size, size):
        return image
    if image.stride(0) == 0:  # grey: resize one channel, show it in all
        return to_canvases(image[None, :1], size)[0].expand(len(image), -1, -1)
    return to_canvases(image[None], size)[0]


def to_canvases(images: Shaped[Tensor, "N C H W"], size: int) -> Shaped[Tensor, "N C S S"]:
    """Resize a batch to squares of side ``size``; see :func:`to_canvas`."""
    if images.shape[2:] == (size, size):
        return images
    if images.dtype == torch.uint16:  # which torch does not resize
        return to_canvases(images.float(), size).round().to(torch.uint16)
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
