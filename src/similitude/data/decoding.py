"""From the bytes of an image file to uint8 RGB, one rule for every format and colour mode.

- The EXIF orientation is applied.
- Transparency is laid over white, as browsers and papers' figures show it.
- 16-bit values keep their full range (65535 is white); 32-bit integers are taken as 16-bit ones;
  floats are in [0, 1], or in [0, 255] if any is above 1.
- Of an animation or a multi-page file the first frame counts.

Letters: C channels, H height, W width, S side of a canvas in pixels.
"""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:  # deprecated since torchvision 0.29: Pillow then decodes everything
    ImageReadMode = decode_image = None

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
# a JPEG this many times larger than the canvas is shrunk by a power of two while decoding
_DRAFT_MARGIN = 2


class UnreadableImageError(Exception):
    """A file that is no image, or not a whole one; the message is the reason in a few words."""


def read_file(path: str | Path, size: int | None = None) -> UInt8[Tensor, "3 H W"]:
    """Decode one image file.

    Args:
        path: The file; its suffix does not matter, its first bytes do.
        size: If given, a large JPEG may come out smaller than it is, though never below
            twice this short side: much faster when a canvas of that size is made next.

    Raises:
        UnreadableImageError: missing, empty, truncated, not an image.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UnreadableImageError((error.strerror or str(error)).lower()) from error
    return decode(data, size)


def decode(data: bytes, size: int | None = None) -> UInt8[Tensor, "3 H W"]:
    """Decode the bytes of an image file; see :func:`read_file`."""
    if not data:
        raise UnreadableImageError("empty file")
    if data.startswith(_JPEG) or _is_plain_png(data):
        image = _decode_fast(data, size)
        if image is not None:
            return image
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if size is not None and opened.format == "JPEG":
                opened.draft(None, (_DRAFT_MARGIN * size, _DRAFT_MARGIN * size))
            return _from_pil(opened)
    except UnreadableImageError:
        raise
    # Pillow's decoders raise almost anything on damaged files: SyntaxError, struct.error, ...
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def _is_plain_png(data: bytes) -> bool:
    """Whether a PNG holds 8-bit grey or colour, with or without a channel of transparency."""
    return (
        data.startswith(_PNG)
        and data[24:25] == b"\x08"
        and data[25:26] in (b"\x00", b"\x02", b"\x04", b"\x06")
        and b"tRNS" not in data[: max(0, data.find(b"IDAT"))]
    )


def _decode_fast(data: bytes, size: int | None) -> UInt8[Tensor, "3 H W"] | None:
    """Decode with torchvision, which needs no interpreter lock; None where Pillow has to."""
    if ImageReadMode is None or decode_image is None:
        return None
    # a file of fewer bytes is not large enough to gain: no need to read the header
    if size is not None and data.startswith(_JPEG) and len(data) > size * size:
        try:
            with Image.open(io.BytesIO(data)) as opened:  # the header only
                if min(opened.size) >= 2 * _DRAFT_MARGIN * size:
                    return None
        except Exception:  # a damaged header; the caller finds out the reason
            return None
    try:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        image = decode_image(buffer, ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    except (RuntimeError, DeprecationWarning):  # the latter where warnings are errors
        return None
    channels = image.shape[0]
    if image.dtype != torch.uint8 or (channels == 4 and data.startswith(_JPEG)):  # CMYK
        return None
    if channels in (2, 4):
        image = over_white(image[:-1], image[-1:])
    return image.expand(3, -1, -1)


def over_white(
    color: UInt8[Tensor, "C H W"], alpha: UInt8[Tensor, "1 H W"]
) -> UInt8[Tensor, "C H W"]:
    """Colours laid over white; ``alpha`` is 0 where nothing is seen of them, 255 where all is."""
    alpha32 = alpha.to(torch.int32)
    blend = color.to(torch.int32) * alpha32 + 255 * (255 - alpha32)
    return ((blend + 127) // 255).to(torch.uint8)


def _from_pil(opened: Image.Image) -> UInt8[Tensor, "3 H W"]:
    opened.load()
    image = ImageOps.exif_transpose(opened)
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(np.asarray(image))
    if image.has_transparency_data:
        pixels = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)
        return over_white(pixels[:3], pixels[3:])
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _from_deep_grey(values: np.ndarray) -> UInt8[Tensor, "3 H W"]:
    scaled = values.astype(np.float64)
    if values.dtype.kind == "f":
        if not np.isfinite(scaled).all():
            raise UnreadableImageError("holds values that are not numbers")
        scaled = scaled * 255 if scaled.max() <= 1 else scaled
    else:
        scaled = scaled / 257
    grey = torch.from_numpy(scaled.round().clip(0, 255).astype(np.uint8))
    return grey.expand(3, -1, -1)


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if "truncated" in text.lower() or "not enough" in text.lower():
        return "truncated"
    if isinstance(error, Image.DecompressionBombError):
        return "more than 178 million pixels"
    return f"damaged: {text.splitlines()[0][:60]}" if text else "damaged"


def probe_size(file: str | Path | io.BytesIO) -> tuple[int, int] | None:
    """Width and height of an image as it is shown, from its header; None if unreadable."""
    try:
        with Image.open(file) as opened:
            width, height = opened.size
            # of TIFF Pillow gives the size as shown; of PNG it would have to decode the pixels
            has_exif = opened.format in ("JPEG", "MPO", "WEBP")
            if has_exif and opened.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS:
                width, height = height, width
    except Exception:  # Pillow raises almost anything on damaged files
        return None
    return width, height


def to_canvas(image: UInt8[Tensor, "3 H W"], size: int) -> UInt8[Tensor, "3 S S"]:
    """Resize to a square of side ``size``, bilinear, anti-aliased where it shrinks."""
    if image.shape[1:] == (size, size):
        return image
    if image.stride(0) == 0:  # grey: resize one channel, show it three times
        return to_canvases(image[None, :1], size)[0].expand(3, -1, -1)
    return to_canvases(image[None], size)[0]


def to_canvases(images: UInt8[Tensor, "N C H W"], size: int) -> UInt8[Tensor, "N C S S"]:
    """Resize a batch to squares of side ``size``; see :func:`to_canvas`."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
