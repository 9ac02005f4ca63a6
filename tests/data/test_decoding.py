"""Every format and colour mode comes out as the same RGB that the rule in ``decoding`` gives."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from similitude.data import decoding
from similitude.data.decoding import UnreadableImageError, decode, probe_size, read_file, to_canvas

RNG = np.random.default_rng(0)
COLOR = (RNG.random((12, 16, 3)) * 255).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(48) * 2, np.arange(64) * 2)[..., None] + np.array([0, 20, 10])


def encoded(image: Image.Image, suffix: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.fixture(params=["torchvision", "pillow"])
def decoder(request, monkeypatch):
    """Both decoders follow the same rules; the second serves where torchvision has none."""
    if request.param == "pillow":
        monkeypatch.setattr(decoding, "decode_image", None)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("suffix", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"])
def test_lossless_formats_give_the_pixels(suffix):
    options = {"lossless": True} if suffix == "WEBP" else {}
    image = Image.fromarray(COLOR)
    if suffix == "GIF":  # 192 colours fit in its palette
        image = image.quantize(256)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert (as_array(decode(encoded(image, suffix, **options))) == expected).all()


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_what_pillow_shows(mode):
    image = Image.fromarray(SMOOTH.astype(np.uint8)).convert(mode)
    if mode == "CMYK":  # Pillow converts to no black at all
        cyan, magenta, yellow, _ = image.split()
        image = Image.merge("CMYK", (cyan, magenta, yellow, cyan.point(lambda v: v // 2)))
    data = encoded(image, "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    # torchvision carries its own libjpeg, whose inverse transform may round the other way
    assert np.abs(as_array(decode(data)) - expected).max() <= 3


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "PNG"), ("1", "PNG"), ("1", "TIFF"), ("P", "PNG")]
)
def test_grey_bilevel_and_palette(mode, suffix):
    image = Image.fromarray(COLOR).convert(mode)
    decoded = decode(encoded(image, suffix))
    assert (as_array(decoded) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_over_white(mode, suffix):
    alpha = np.linspace(0, 255, 12 * 16).round().reshape(12, 16).astype(np.uint8)
    image = Image.fromarray(COLOR).convert(mode[:-1])
    image.putalpha(Image.fromarray(alpha))
    options = {"lossless": True, "exact": True} if suffix == "WEBP" else {}
    decoded = as_array(decode(encoded(image, suffix, **options)))
    color = np.asarray(Image.fromarray(COLOR).convert(mode[:-1]).convert("RGB")).astype(float)
    share = alpha[..., None] / 255
    assert np.abs(decoded - (color * share + 255 * (1 - share))).max() <= 0.5
    assert (decoded[0, 0] == 255).all()


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_color_of_png_lies_over_white(mode):
    image = Image.new(mode, (4, 4), 0)
    shown = (10,) * 3 if mode == "RGB" else 10
    image.putpixel((1, 2), shown)
    data = encoded(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    decoded = as_array(decode(data))
    assert (decoded[0, 0] == 255).all()
    assert (decoded[2, 1] < 255).any()


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_full_range(suffix):
    deep = np.linspace(0, 65535, 192).round().reshape(12, 16).astype(np.uint16)
    decoded = as_array(decode(encoded(Image.fromarray(deep), suffix)))
    assert np.abs(decoded - deep[..., None] / 257).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("values", "white"), [([[0.0, 0.5], [1.0, 0.25]], 1), ([[0.0, 51], [255, 9]], 255)]
)
def test_float_tiff(values, white):
    image = Image.fromarray(np.array(values, dtype=np.float32))
    expected = (np.array(values) * 255 / white).round()
    assert (as_array(decode(encoded(image, "TIFF")))[..., 0] == expected).all()


def test_float_tiff_with_nan_is_unreadable():
    data = encoded(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match="not numbers"):
        decode(data)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(suffix, orientation, tmp_path):
    image = Image.fromarray(SMOOTH.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, suffix, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = as_array(decode(data))
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected.astype(int)).max() <= 3
    if suffix != "PNG":
        path = tmp_path / "a.bin"
        path.write_bytes(data)
        assert probe_size(path) == (expected.shape[1], expected.shape[0])


def test_first_frame_of_an_animation():
    frames = [Image.new("L", (5, 4), value) for value in (40, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (as_array(decode(data)) == 40).all()


def test_large_jpeg_shrinks_while_decoding_but_not_below_twice_the_canvas():
    ramp = np.add.outer(np.arange(600), np.arange(900)) * 255 / 1500
    data = encoded(Image.fromarray(ramp.astype(np.uint8)).convert("RGB"), "JPEG", quality=95)
    padded = data + b"\0" * 100**2  # long enough to be looked at
    small = decode(padded, size=100)
    assert 200 <= min(small.shape[1:]) < 600
    full = decode(data)
    assert full.shape == (3, 600, 900)
    difference = to_canvas(small, 100).int() - to_canvas(full, 100).int()
    assert difference.abs().max() <= 3
    assert small.shape[2] / small.shape[1] == pytest.approx(1.5, abs=0.02)


JPEG = encoded(Image.fromarray(SMOOTH.astype(np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(COLOR), "PNG")


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am a text file", "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (JPEG[:20], "not an image|truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "not an image|damaged|truncated"),
        (encoded(Image.fromarray(COLOR), "GIF")[:120], "truncated|damaged|not an image"),
    ],
    ids=["empty", "text", "half jpeg", "half png", "header", "fake png", "half gif"],
)
def test_damaged_files_have_a_short_reason(data, reason):
    with pytest.raises(UnreadableImageError, match=reason) as raised:
        decode(data)
    assert len(str(raised.value)) < 80


def test_missing_file(tmp_path):
    with pytest.raises(UnreadableImageError, match="no such file"):
        read_file(tmp_path / "a.jpg")
    assert probe_size(tmp_path / "a.jpg") is None


def test_canvas_is_antialiased_and_square():
    stripes = torch.zeros(3, 60, 120, dtype=torch.uint8)
    stripes[:, :, ::3] = 255
    canvas = to_canvas(stripes, 20)
    assert canvas.shape == (3, 20, 20)
    # the two pixels around the centre of an output pixel would give 127
    assert (canvas[:, :, 1:-1].int() - 85).abs().max() <= 5
    grey = stripes[:1].expand(3, -1, -1)
    assert torch.equal(to_canvas(grey, 20), canvas)
    assert to_canvas(canvas, 20) is canvas
