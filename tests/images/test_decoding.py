"""Every format and color mode comes out as the same RGB that the rule in ``decoding`` gives."""

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from similitude.data.files import MAX_BYTES, UnreadableError, open_regular
from similitude.images import decoding
from similitude.images.decoding import ValueRange, to_canvas

RNG = np.random.default_rng(0)
COLOR = (RNG.random((12, 16, 3)) * 255).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(48) * 2, np.arange(64) * 2)[..., None] + np.array([0, 20, 10])


def encoded(image: Image.Image, suffix: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def decode(data: bytes, size: int | None = None, values: ValueRange | None = None) -> torch.Tensor:
    return decoding.decode(io.BytesIO(data), size, values)


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("suffix", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"])
def test_lossless_formats_give_the_pixels(suffix):
    options = {"lossless": True} if suffix == "WEBP" else {}
    image = Image.fromarray(COLOR)
    if suffix == "GIF":  # 192 colors fit in its palette
        image = image.quantize(256)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert (as_array(decode(encoded(image, suffix, **options))) == expected).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_what_pillow_shows(mode):
    image = Image.fromarray(SMOOTH.astype(np.uint8)).convert(mode)
    if mode == "CMYK":  # Pillow converts to no black at all
        cyan, magenta, yellow, _ = image.split()
        image = Image.merge("CMYK", (cyan, magenta, yellow, cyan.point(lambda v: v // 2)))
    data = encoded(image, "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert (as_array(decode(data)) == expected).all()


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "PNG"), ("1", "PNG"), ("1", "TIFF"), ("P", "PNG")]
)
def test_grey_bilevel_and_palette(mode, suffix):
    image = Image.fromarray(COLOR).convert(mode)
    decoded = decode(encoded(image, suffix))
    assert (as_array(decoded) == np.asarray(image.convert("RGB"))).all()


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


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_color_of_png_lies_over_white(mode):
    image = Image.new(mode, (4, 4), 0)
    shown = (10,) * 3 if mode == "RGB" else 10
    image.putpixel((1, 2), shown)
    data = encoded(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    decoded = as_array(decode(data))
    assert (decoded[0, 0] == 255).all()
    assert (decoded[2, 1] < 255).any()


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_full_range(suffix):
    deep = np.linspace(0, 65535, 192).round().reshape(12, 16).astype(np.uint16)
    decoded = as_array(decode(encoded(Image.fromarray(deep), suffix)))
    assert np.abs(decoded - deep[..., None] / 257).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([[0.0, 0.5], [1.0, 1.004]], ValueRange(0, 1)),
        ([[0.0, 51], [255, 9]], ValueRange(0, 255)),
        ([[-1000.0, 0], [250, 3000]], ValueRange(-1000, 1000)),
    ],
)
def test_float_tiff_is_shown_in_the_range_of_its_data_set(values, shown):
    image = Image.fromarray(np.array(values, dtype=np.float32))
    share = (np.array(values) - shown.black) / (shown.white - shown.black)
    expected = (share * 255).round().clip(0, 255)
    decoded = as_array(decode(encoded(image, "TIFF"), values=shown))[..., 0]
    assert np.abs(decoded - expected).max() <= 1e-9
    if shown == (0, 1):
        assert torch.equal(
            decode(encoded(image, "TIFF")), decode(encoded(image, "TIFF"), None, shown)
        )


def test_white_is_zero_in_deep_pictures_too():
    deep = np.array([[0, 4095], [1000, 2000]], dtype=np.uint16)
    data = bytearray(encoded(Image.fromarray(deep), "TIFF"))
    tag = data.index(struct.pack("<HHI", 262, 3, 1))
    data[tag + 8 : tag + 10] = struct.pack("<H", 0)
    shown = as_array(decode(bytes(data), values=ValueRange(0, 4095)))[..., 0]
    assert (shown == (255 - deep / 4095 * 255).round()).all()


def test_float_tiff_with_nan_is_unreadable():
    data = encoded(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF")
    with pytest.raises(UnreadableError, match="not numbers"):
        decode(data)


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(suffix, orientation):
    image = Image.fromarray(SMOOTH.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, suffix, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = as_array(decode(data))
    assert decoded.shape == expected.shape
    assert (decoded == expected).all()
    if suffix != "PNG":
        assert decoding.probe_size(io.BytesIO(data)) == (expected.shape[1], expected.shape[0])


def test_a_damaged_exif_does_not_cost_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(SMOOTH.astype(np.uint8)), "JPEG", exif=exif)
    place = data.index(b"Exif\0\0") + 6
    broken = data[:place] + bytes(8) + data[place + 8 :]
    assert decode(broken).shape == (3, 48, 64)
    assert decoding.probe_size(io.BytesIO(broken)) == (64, 48)


def test_first_frame_of_an_animation():
    frames = [Image.new("L", (5, 4), value) for value in (40, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (as_array(decode(data)) == 40).all()


def test_large_jpeg_shrinks_while_decoding_but_not_below_twice_the_canvas():
    ramp = np.add.outer(np.arange(600), np.arange(900)) * 255 / 1500
    data = encoded(Image.fromarray(ramp.astype(np.uint8)).convert("RGB"), "JPEG", quality=95)
    small = decode(data, size=100)
    assert 200 <= min(small.shape[1:]) < 600
    full = decode(data)
    assert full.shape == (3, 600, 900)
    difference = to_canvas(small, 100).int() - to_canvas(full, 100).int()
    assert difference.abs().max() <= 3
    assert small.shape[2] / small.shape[1] == pytest.approx(1.5, abs=0.02)


JPEG = encoded(Image.fromarray(SMOOTH.astype(np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(COLOR), "PNG")


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
    with pytest.raises(UnreadableError, match=reason) as raised:
        decode(data)
    assert len(str(raised.value)) < 80


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    reasons = {}
    for name in ("pipe", "zero", "loop", "folder", "missing"):
        with pytest.raises(UnreadableError) as raised:
            open_regular(tmp_path / f"{name}.jpg")
        reasons[name] = str(raised.value)
    assert reasons["pipe"] == reasons["zero"] == reasons["folder"] == "not a regular file"
    assert "symbolic links" in reasons["loop"]
    assert "no such file" in reasons["missing"]


def test_a_file_of_an_insane_length_is_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UnreadableError, match="larger than 1 GB"):
        open_regular(tmp_path / "a.jpg")


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def webp(kind: bytes, content: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


SIDE = 12_000  # of more than 2**27 pixels
TOO_LARGE = {
    "PNG": png(SIDE, SIDE, b"\0" * 1000),
    "GIF": b"GIF89a"
    + struct.pack("<HHBBB", SIDE, SIDE, 0xF0, 0, 0)
    + bytes(6)
    + b","
    + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0)
    + b"\x02\x02\x4c\x01\0;",
    "BMP": encoded(Image.new("L", (2, 2)), "BMP").replace(
        struct.pack("<ii", 2, 2), struct.pack("<ii", SIDE, SIDE), 1
    ),
    "PPM": b"P6 12000 12000 255\n" + bytes(100),
    "TIFF": encoded(Image.new("L", (999, 997)), "TIFF").replace(
        struct.pack("<I", 999), struct.pack("<I", 999 * SIDE)
    ),
    "JPEG": JPEG.replace(struct.pack(">HH", 48, 64), struct.pack(">HH", SIDE, SIDE), 1),
    "lossless WebP": webp(
        b"VP8L", b"\x2f" + struct.pack("<I", SIDE - 1 | (SIDE - 1) << 14) + bytes(8)
    ),
    "lossy WebP": webp(
        b"VP8 ", b"\x30\x01\0\x9d\x01\x2a" + struct.pack("<HH", SIDE, SIDE) + bytes(8)
    ),
    "extended WebP": webp(b"VP8X", bytes(4) + (SIDE - 1).to_bytes(3, "little") * 2 + bytes(8)),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_one_limit_of_pixels_is_for_all_formats_and_checked_before_memory_is_taken(
    kind, monkeypatch
):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(UnreadableError, match="more than 134 million pixels"):
        decode(TOO_LARGE[kind])


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decoding, "_LARGE", 100)
    inside, most = [], []
    load = ImageFile.ImageFile.load

    def watched(image):
        inside.append(image)
        most.append(len(inside))
        threading.Event().wait(0.01)
        inside.pop()
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    threads = [threading.Thread(target=decode, args=(PNG,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "F"])
def test_strips_give_the_same_pixels(mode, monkeypatch):
    image = Image.fromarray(COLOR).convert("L" if mode == "F" else mode)
    if mode == "F":
        image = image.convert("F").point(lambda v: v / 255)
    data = encoded(image, "TIFF" if mode == "F" else "PNG")
    whole = decode(data)
    monkeypatch.setattr(decoding, "_STRIP", 5 * 16)
    assert torch.equal(decode(data), whole)


def test_a_damaged_png_is_one_unreadable_file():
    """Every byte of a PNG changed in turn: read, or a reason; never the end of the process."""
    for place in range(len(PNG)):
        data = bytearray(PNG)
        data[place] ^= 0x55
        try:
            assert decode(bytes(data)).dtype == torch.uint8
        except UnreadableError as error:
            assert str(error)


def test_a_picture_in_another_language_runs_no_other_program(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started"))
    postscript = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(UnreadableError, match="not an image"):
        decode(postscript)


@pytest.mark.parametrize(
    ("bits", "kind", "said"),
    [((32, 32, 32), 3, "3 x float 32"), ((16,) * 5, 1, "5 x 16"), ((64,), 3, "float 64")],
)
def test_a_tiff_of_another_kind_says_which(bits, kind, said):
    entries = [
        (256, 4, 4),
        (257, 4, 4),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, len(bits)),
        (279, 4, 16 * sum(bits) // 8),
        (339, 3, (kind,) * len(bits)),
    ]
    ifd, later = b"", b""
    start = 8 + 2 + 12 * len(entries) + 4
    for tag, type_, value in entries:
        values = value if isinstance(value, tuple) else (value,)
        raw = struct.pack(f"<{len(values)}{'H' if type_ == 3 else 'I'}", *values)
        if len(raw) > 4:
            raw, later = struct.pack("<I", start + len(later)), later + raw
        ifd += struct.pack("<HHI", tag, type_, len(values)) + raw.ljust(4, b"\0")
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + ifd + bytes(4) + later + bytes(2000)
    with pytest.raises(UnreadableError, match=f"a TIFF of .*{said}"):
        decode(data)


def test_canvas_is_antialiased_and_square():
    stripes = torch.zeros(3, 60, 120, dtype=torch.uint8)
    stripes[:, :, ::3] = 255
    canvas = to_canvas(stripes, 20)
    assert canvas.shape == (3, 20, 20)
    # the two pixels around the center of an output pixel would give 127
    assert (canvas[:, :, 1:-1].int() - 85).abs().max() <= 5
    grey = stripes[:1].expand(3, -1, -1)
    assert torch.equal(to_canvas(grey, 20), canvas)
    assert to_canvas(canvas, 20) is canvas
