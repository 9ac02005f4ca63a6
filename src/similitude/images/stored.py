"""Pictures as they are stored: any number of channels, 16 bits that stay 16 bits, DICOM.

- Three channels are red, green and blue of whatever a file holds, and 1 is gray: transparency is
  laid over white, gray is repeated, and of colors the luma is taken. Any other number is what a
  file has to have: 4 of a PNG are red, green, blue and alpha.
- Channels of a TIFF are samples of its pixels or, of one channel each, its pages.
- Of DICOM rescaled values are read; MONOCHROME1 is turned around.

Letters: C channels, H height, W width.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped, UInt
from PIL import Image, ImageSequence, TiffImagePlugin
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from similitude.data.files import ByteFile, UnreadableError, Wanted
from similitude.images import decoding
from similitude.images.decoding import ValueRange, to_depth

ARRAYS = Wanted("array", (".npy",))  # each is an image, [H, W] or [H, W, C]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# How Pillow has pixels -> the mode of those channels that the file has.
_AS_STORED = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
_KEPT = ("L", "LA", "RGB", "RGBA")
_LUMA = (19595, 38470, 7471)  # Pillow's, in parts of 65,536 (ITU-R 601)


class Stored(NamedTuple):
    """A picture as it is stored.

    Attributes:
        samples: Shape [H, W, C]; uint8, or deep: other integers, or floats.
        has_alpha: Whether the last channel says how much is seen of the others.
        is_inverted: Whether small values are bright.
        orientation: Of EXIF, 1..8.
        window: Which values are to be shown black and white, where the file says it.
    """

    samples: Shaped[np.ndarray, "H W C"]
    has_alpha: bool = False
    is_inverted: bool = False
    orientation: int = 1
    window: ValueRange | None = None


def decode(
    file: ByteFile,
    size: int | None = None,
    values: ValueRange | None = None,
    channels: int = 3,
    depth: int = 8,
) -> UInt[Tensor, "C H W"]:
    """Decode one image; see :func:`decoding.decode`, which does so for RGB of 8 bits.

    Args:
        file: At its beginning.
        size: See there.
        values: See there.
        channels: C.
        depth: Bits that are kept, 8 or 16.

    Raises:
        UnreadableError: as there, or it has other channels.
    """
    kind = _kind(file)
    if (channels, depth) == (3, 8) and kind in ("picture", "tiff"):
        return decoding.decode(file, size, values)
    with decoding.as_unreadable():
        stored = _read(file, kind, size, channels)
        pixels = to_depth(stored.samples, values, depth, is_inverted=stored.is_inverted)
        pixels = with_channels(pixels, channels, has_alpha=stored.has_alpha)
        return decoding.upright(pixels, stored.orientation, channels)


def look(file: ByteFile, channels: int, depth: int, count: int) -> "Look":
    """See what is deep in a picture, without a word on what cannot be read."""
    try:
        kind = _kind(file)
        if (channels, depth) == (3, 8) and kind in ("picture", "tiff"):
            with decoding.opened(file) as image:
                is_cut = decoding.has_cut_colors(image)
            file.seek(0)
            return Look(decoding.deep_values(file, count), is_cut=is_cut)
        stored = _read(file, kind, None, channels)
    except Exception:  # decoding it for good finds the reason
        return Look()
    if stored.samples.dtype == np.uint8:
        return Look()
    flat = stored.samples.reshape(-1)
    return Look(flat[:: max(1, len(flat) // count)], stored.window)


def shown_channels(file: ByteFile) -> int:
    """The channels with which a picture is read to be looked at: 3, or its own if that fails.

    Raises:
        UnreadableError: it cannot be read at all.
    """
    with decoding.as_unreadable():
        stored = _read(file, _kind(file), None, 3)
    own = stored.samples.shape[2]
    return 3 if own in (1, 3) or stored.has_alpha else own


class Look(NamedTuple):
    """What is deep in a picture.

    Attributes:
        values: Some of them, evenly spread; None where there are none.
        window: See :class:`Stored`.
        is_cut: Whether it has colors of 16 bits, of which 8 are kept.
    """

    values: Shaped[np.ndarray, " n"] | None = None
    window: ValueRange | None = None
    is_cut: bool = False


def probe_size(file: ByteFile) -> tuple[int, int] | None:
    """Width and height of an image as it is shown, from its header; None if unreadable."""
    kind = _kind(file)
    if kind == "picture":
        return decoding.probe_size(file)
    try:
        if kind == "array":
            height, width = _array(file).shape[:2]
        elif kind == "dicom":
            found = _pydicom().dcmread(file, stop_before_pixels=True)
            height, width = int(found.Rows), int(found.Columns)
        elif (size := decoding.probe_size(file)) is not None:
            return size
        else:
            file.seek(0)
            with _tifffile().TiffFile(file) as tiff:
                height, width = tiff.pages[0].imagelength, tiff.pages[0].imagewidth
    except Exception:  # decoding it for good finds the reason
        return None
    return width, height


def _kind(file: ByteFile) -> str:
    head = file.read(132)
    file.seek(0)
    if head[128:] == b"DICM":
        return "dicom"
    if head[:6] == b"\x93NUMPY":
        return "array"
    return "tiff" if head[:4] in _TIFF else "picture"


def _read(file: ByteFile, kind: str, size: int | None, channels: int) -> Stored:
    if kind == "dicom":
        return _dicom(file)
    if kind == "array":
        return Stored(_array(file))
    try:
        with decoding.opened(file) as image:
            if not (decoding.has_cut_colors(image) or _has_more_samples(image)):
                return _picture(image, size, channels)
            if image.format == "PPM":
                return _deep_ppm(file, image)
    except UnreadableError:
        if kind != "tiff":
            raise  # Pillow knows TIFFs of few kinds
    file.seek(0)
    return _tiff(file) if kind == "tiff" else _deep_png(file)


def _picture(image: Image.Image, size: int | None, channels: int) -> Stored:
    with decoding.loaded(image, size):
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if pages == channels > 1:
            # copies: every page is read into the same image
            samples = np.stack([np.array(p) for p in ImageSequence.Iterator(image)], axis=-1)
            if samples.ndim == 3:
                return Stored(samples, is_inverted=_is_inverted(image))
            image.seek(0)
        if decoding.is_deep(image):
            return Stored(np.array(image)[..., None], is_inverted=_is_inverted(image))
        mode = _AS_STORED.get(image.mode, image.mode)
        mode = mode if mode in _KEPT else "RGB"
        if image.has_transparency_data and mode in ("L", "RGB"):
            mode = {"L": "LA", "RGB": "RGBA"}[mode]
        samples = np.array(image.convert(mode))
        samples = samples[..., None] if samples.ndim == 2 else samples
        return Stored(samples, mode.endswith("A"), orientation=decoding.orientation(image))


def _has_more_samples(image: Image.Image) -> bool:
    """Whether a TIFF has more to a pixel than Pillow gives."""
    samples = getattr(image, "tag_v2", {}).get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    return image.format == "TIFF" and (samples != len(image.getbands()) or image.mode == "RGBX")


def _is_inverted(image: Image.Image) -> bool:
    return decoding.is_deep(image) and decoding.is_white_zero(image)


def _deep_png(file: ByteFile) -> Stored:
    content = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    samples = decode_image(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return Stored(samples, has_alpha=samples.shape[2] in (2, 4))


def _deep_ppm(file: ByteFile, image: Any) -> Stored:
    _, extents, offset, (_, largest) = image.tile[0]
    width, height = extents[2:]
    file.seek(offset)
    samples = np.frombuffer(file.read(), ">u2", width * height * 3).reshape(height, width, 3)
    return Stored((samples.astype(np.uint32) * 65_535 // largest).astype(np.uint16))


def _tiff(file: ByteFile) -> Stored:
    with _tifffile().TiffFile(file) as tiff:
        page = tiff.pages[0]
        decoding.check_pixels((page.imagewidth, page.imagelength))
        samples, axes = tiff.series[0].asarray(), tiff.series[0].axes
        alpha = any(kind in (1, 2) for kind in page.extrasamples)
    if samples.ndim == 2:
        samples = samples[..., None]
    elif samples.ndim != 3:
        raise UnreadableError(f"a TIFF of the axes {axes}, and an image has height, width, channel")
    elif not axes.endswith("S"):  # channels lie in planes or pages of their own
        samples = samples.transpose(1, 2, 0)
    return Stored(samples, has_alpha=alpha)


def _array(file: ByteFile) -> Shaped[np.ndarray, "H W C"]:
    array = np.load(file, allow_pickle=False)
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "uif":
        raise UnreadableError(
            f"an array of {array.dtype} of shape {list(array.shape)}, and an image is [H, W, C]"
        )
    decoding.check_pixels((array.shape[1], array.shape[0]))
    return array[..., None] if array.ndim == 2 else array


def _dicom(file: ByteFile) -> Stored:
    pydicom = _pydicom()
    found: Any = pydicom.dcmread(file)
    if "PixelData" not in found:
        raise UnreadableError("a DICOM file without an image")
    frames = int(found.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableError(f"a DICOM file of {frames} frames: write each to a file of its own")
    decoding.check_pixels((int(found.Columns), int(found.Rows)))
    light = found.get("PhotometricInterpretation", "MONOCHROME2")
    if light == "PALETTE COLOR":
        raise UnreadableError("a DICOM file of colors in a palette, which is not read")
    syntax = found.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not pydicom.pixels.get_decoder(syntax).is_available:
        raise UnreadableError(
            f"compressed as {syntax.name}, which needs more packages: pip install 'pylibjpeg[all]' "
            "pyjpegls"
        )
    samples = found.pixel_array
    slope, offset = (float(found.get(n, d)) for n, d in _RESCALING)
    if (slope, offset) != (1.0, 0.0):
        samples = samples * slope + offset
        whole = slope.is_integer() and offset.is_integer()
        samples = samples.astype(np.int32 if whole else np.float32)
    samples = samples[..., None] if samples.ndim == 2 else samples
    return Stored(samples, is_inverted=light == "MONOCHROME1", window=_window(found))


_RESCALING = (("RescaleSlope", 1), ("RescaleIntercept", 0))


def _window(found: Any) -> ValueRange | None:
    """The first window of a DICOM file: what is at its ends (PS3.3, C.11.2.1.2)."""
    center, width = (np.atleast_1d(found.get(f"Window{n}") or 0) for n in ("Center", "Width"))
    half, middle = (float(width[0]) - 1) / 2, float(center[0]) - 0.5
    return ValueRange(middle - half, middle + half) if half > 0 else None


def with_channels(
    pixels: UInt[np.ndarray, "*some H W C"], channels: int, *, has_alpha: bool
) -> UInt[np.ndarray, "*some H W ch"]:
    """As many channels as wanted, or one that stands for all.

    Raises:
        UnreadableError: there are others.
    """
    if channels in (1, 3) and has_alpha:
        pixels = decoding.over_white(pixels[..., :-1], pixels[..., -1:])
    own = pixels.shape[-1]
    if channels == 1 and own == 3:
        parts = (pixels[..., i : i + 1].astype(np.uint32) * np.uint32(_LUMA[i]) for i in range(3))
        return ((sum(parts) + np.uint32(1 << 15)) >> 16).astype(pixels.dtype)
    if own != channels and (channels, own) != (3, 1):
        raise UnreadableError(
            f"has {own} channel{'' if own == 1 else 's'}, not {channels}: channels={own} keeps them"
        )
    return pixels


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise UnreadableError(
            "a TIFF of many channels or deep colors needs tifffile: pip install 'similitude[tiff]'"
        ) from error
    return tifffile


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise UnreadableError("DICOM needs pydicom: pip install 'similitude[dicom]'") from error
    return pydicom
