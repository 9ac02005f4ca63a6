"""Any number of channels, 16 bits that stay 16 bits, DICOM."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from similitude.data.files import UnreadableError
from similitude.embeddings.answer import pictures_of
from similitude.errors import UserError
from similitude.images import stored
from similitude.images.decoding import ValueRange
from similitude.images.loading import load_images, pack_images
from similitude.images.opening import open_source

pydicom = pytest.importorskip("pydicom")
tifffile = pytest.importorskip("tifffile")

SIXTEEN = np.arange(6 * 7 * 3, dtype=np.uint16).reshape(6, 7, 3) * 500 + 3


def of(picture, suffix, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, suffix, **options)
    return io.BytesIO(file.getvalue())


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return io.BytesIO(file.getvalue())


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return io.BytesIO(file.getvalue())


def dicom(pixels, **fields):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    found.Rows, found.Columns = pixels.shape[-2:]
    bits = 8 * pixels.itemsize
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(found, name, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, found, enforce_file_format=True)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("channels", [2, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["samples", "planes", "pages", "npy"])
def test_channels_of_a_file_are_those_of_the_picture(channels, dtype, layout):
    size = 6 * 7 * channels
    array = (np.arange(size) * 77 % np.iinfo(dtype).max).astype(dtype).reshape(6, 7, channels)
    planes = np.ascontiguousarray(array.transpose(2, 0, 1))
    file = {
        "samples": lambda: tiff(array, planarconfig="contig"),
        "planes": lambda: tiff(planes, planarconfig="separate"),
        "pages": lambda: tiff(planes),
        "npy": lambda: npy(array),
    }[layout]()
    depth = 8 * array.itemsize

    assert stored.probe_size(file) == (7, 6)
    file.seek(0)
    found = stored.decode(file, None, None, channels, depth)

    assert np.array_equal(found.permute(1, 2, 0).numpy(), array)


@pytest.mark.parametrize("kind", ["tiff", "png", "npy", "ppm"])
def test_sixteen_bits_of_colors_stay_what_they_are(kind):
    cv2 = pytest.importorskip("cv2")
    file = {
        "tiff": lambda: tiff(SIXTEEN, photometric="rgb"),
        "png": lambda: io.BytesIO(cv2.imencode(".png", SIXTEEN[..., ::-1])[1].tobytes()),
        "npy": lambda: npy(SIXTEEN),
        "ppm": lambda: io.BytesIO(b"P6\n7 6\n65535\n" + SIXTEEN.astype(">u2").tobytes()),
    }[kind]()
    if kind in ("png", "ppm"):
        assert stored.look(file, 3, 8, 10).is_cut

    found = stored.decode(file, None, None, 3, 16)

    assert found.dtype == torch.uint16
    assert np.array_equal(found.permute(1, 2, 0).numpy(), SIXTEEN)


def test_bytes_fill_the_range_of_sixteen_bits():
    picture = np.array([[0, 1, 255]], np.uint8)
    found = stored.decode(of(picture, "PNG"), None, None, 1, 16)
    assert found.flatten().tolist() == [0, 257, 65535]


def test_a_range_of_values_is_stretched_over_the_depth():
    file = npy(np.array([[0, 2000, 4095]], np.uint16))
    found = stored.decode(file, None, ValueRange(0, 4095), 1, 16)
    assert found.flatten().tolist() == [0, round(2000 / 4095 * 65535), 65535]


def test_one_channel_is_gray_as_pillow_makes_it():
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    found = stored.decode(of(picture, "PNG"), None, None, 1, 8)
    assert np.array_equal(found[0].numpy(), np.array(Image.fromarray(picture).convert("L")))


def test_four_channels_of_a_png_are_its_alpha_too():
    picture = np.random.default_rng(0).integers(0, 256, (4, 5, 4)).astype(np.uint8)
    found = stored.decode(of(picture, "PNG"), None, None, 4, 8)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), picture)


def test_sixteen_bits_are_the_eight_bits_that_they_are_shown_as():
    """Of every 8-bit kind RGB at depth 16 is RGB at depth 8, times 257."""
    random = np.random.default_rng(0)
    for shape in ((6, 7), (6, 7, 3), (6, 7, 4)):
        file = of(random.integers(0, 256, shape).astype(np.uint8), "PNG")
        eight = stored.decode(file)
        file.seek(0)
        sixteen = stored.decode(file, None, None, 3, 16)
        # what is laid over white is rounded later
        assert (sixteen.int() - 257 * eight.int()).abs().max() <= 129


@pytest.mark.parametrize(
    ("file", "channels", "message"),
    [
        (lambda: of(np.zeros((4, 4, 3), np.uint8), "PNG"), 4, "has 3 channels, not 4: channels=3"),
        (lambda: npy(np.zeros((4, 4, 5), np.uint8)), 3, "has 5 channels, not 3: channels=5"),
        (lambda: npy(np.zeros((4, 4, 5, 2), np.uint8)), 5, r"\[H, W, C\]"),
        (lambda: npy(np.full((4, 4), np.nan)), 1, "not numbers"),
        (lambda: tiff(np.zeros((4, 4, 5), np.uint8), planarconfig="contig"), 3, "channels=5"),
        (lambda: dicom(np.zeros((3, 4, 4), np.uint16), NumberOfFrames=3), 1, "3 frames"),
        (lambda: dicom(np.zeros((4, 4), np.uint8), PhotometricInterpretation="PALETTE COLOR"), 3,
         "palette"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_a_few_words(file, channels, message):
    with pytest.raises(UnreadableError, match=message):
        stored.decode(file(), None, None, channels, 8)


def test_compressed_dicom_names_what_decompresses_it():
    syntax = pydicom.uid.JPEGLSLossless
    if pydicom.pixels.get_decoder(syntax).is_available:
        pytest.skip("this machine decompresses it")
    found = pydicom.dcmread(dicom(np.zeros((4, 4), np.uint8)))
    found.file_meta.TransferSyntaxUID = syntax
    found.PixelData = pydicom.encaps.encapsulate([b"\0" * 16])
    found["PixelData"].VR = "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, found, enforce_file_format=True)
    file.seek(0)
    with pytest.raises(UnreadableError, match=r"JPEG-LS.*pylibjpeg"):
        stored.decode(file)


def test_dicom_is_rescaled_and_its_window_says_what_is_black_and_white(tmp_path):
    """Hounsfield units, of which the window of soft tissue shows -160 to 240."""
    units = np.array([[-1000, -160, 80, 240, 3000]] * 2, np.int16)
    for i in range(3):
        fields = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40.5}
        file = dicom(units + np.int16(1024), WindowWidth=401, **fields)
        (tmp_path / f"{i}.dcm").write_bytes(file.read())

    source = open_source(tmp_path, channels=1)

    assert source.values == (-160, 240)
    assert "windows that 3 files name" in source.notes[-1]
    assert source.probe_size(0) == (5, 2)
    assert source.read(0)[0, 0].tolist() == [0, 0, 153, 255, 255]


def test_small_values_of_monochrome1_are_bright():
    file = dicom(np.array([[0, 200]], np.uint8), PhotometricInterpretation="MONOCHROME1")
    assert stored.decode(file, None, None, 1, 8).flatten().tolist() == [255, 55]
    file = dicom(np.array([[0, 65535]], np.uint16), PhotometricInterpretation="MONOCHROME1")
    assert stored.decode(file, None, None, 1, 16).flatten().tolist() == [65535, 0]


def test_dicom_is_a_gray_picture_of_three_channels_without_a_word():
    file = dicom(np.array([[0, 65535]], np.uint16))
    assert stored.decode(file).tolist() == [[[0, 255]]] * 3


def test_a_folder_of_arrays_is_read_and_notes_say_what_is_kept(tmp_path):
    folder = tmp_path / "fields"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            np.save(folder / name / f"{i}.npy", np.full((6, 6, 4), 1000 * i + 4000, np.uint16))

    eight, sixteen = (open_source(folder, channels=4, depth=depth) for depth in (8, 16))

    assert eight.class_names == ["a", "b"]
    assert "of 4 channels pictures show channels 1-3" in eight.notes
    assert any("8 bits of them are kept, and 16 with depth=16" in note for note in eight.notes)
    assert not any("are kept" in note for note in sixteen.notes)
    assert sixteen.values == eight.values == (0, 8191)
    assert load_images(sixteen).pixels.dtype == torch.uint16


def test_depth_of_sixteen_where_nothing_is_deep_is_told(tmp_path):
    source = open_source(np.zeros((4, 8, 8), np.uint8), channels=1, depth=16)
    assert any("deeper than 8 bits" in note and "depth=8" in note for note in source.notes)


def test_arrays_beside_pictures_stay_unused(tmp_path, make_image):
    """As before there were folders of arrays."""
    for i in range(4):
        make_image(tmp_path / f"{i}.png")
        np.save(tmp_path / f"features{i}.npy", np.zeros(3))
        np.save(tmp_path / f"more{i}.npy", np.zeros(3))
    assert len(open_source(tmp_path)) == 4


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_arrays_of_many_channels(layout):
    array = np.random.default_rng(0).integers(0, 65536, (3, 8, 8, 6)).astype(np.uint16)
    given = array if layout == "NHWC" else array.transpose(0, 3, 1, 2)
    with pytest.raises(UserError, match="6 channels, not 3: channels=6 keeps them"):
        open_source(given)
    images = load_images(open_source(given, channels=6, depth=16, values=(0, 65535)), 8)
    assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), array)


def test_loaded_images_keep_their_form_on_the_way_to_a_run():
    array = np.random.default_rng(0).integers(0, 4096, (3, 8, 8, 2)).astype(np.uint16)
    images = load_images(open_source(array, channels=2, depth=16), 8)
    again = load_images(open_source(images, channels=2, depth=16), 8)
    assert torch.equal(again.pixels, images.pixels)


@pytest.mark.parametrize("limit", [None, 0])
def test_packs_and_caches_keep_channels_and_depth(tmp_path, limit):
    array = np.random.default_rng(0).integers(0, 4096, (5, 8, 8, 4)).astype(np.uint16)
    (tmp_path / "many").mkdir()
    for i, picture in enumerate(array):
        np.save(tmp_path / "many" / f"{i}.npy", picture)
    source = open_source(tmp_path / "many", channels=4, depth=16)
    expected = load_images(source, 8, memory_limit_bytes=limit, cache_dir=tmp_path / "cache")
    again = load_images(source, 8, memory_limit_bytes=limit, cache_dir=tmp_path / "cache")
    packed = pack_images(source, tmp_path / "a.pack", 8)
    opened = open_source(tmp_path / "a.pack", channels=4, depth=16)

    assert torch.equal(again.pixels, expected.pixels)
    assert torch.equal(packed.pixels[:], expected.pixels)
    assert torch.equal(load_images(opened, 8).pixels[:], expected.pixels)
    assert opened.values == source.values
    with pytest.raises(UserError, match="4 channels, not 3"):
        open_source(tmp_path / "a.pack", channels=3)


def test_thumbnails_show_the_first_three_channels_or_gray():
    array = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 5)).astype(np.uint8)
    shown = load_images(open_source(array, channels=5), 8).thumbnails(8)
    assert np.array_equal(shown, array[..., :3])
    shown = load_images(open_source(array[..., :2].copy(), channels=2), 8).thumbnails(8)
    assert np.array_equal(shown, array[..., :1].repeat(3, axis=3))


def test_pictures_of_an_answer_are_shown_without_a_word_on_channels(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 5)).astype(np.uint8)
    for name, write in {
        "many": lambda path, i: np.save(path.with_suffix(".npy"), array[i]),
        "alpha": lambda path, i: Image.fromarray(array[i, ..., :4]).save(path),
    }.items():
        (tmp_path / name).mkdir()
        for i in range(3):
            write(tmp_path / name / f"{i}.png", i)
    shown = pictures_of(tmp_path / "many").of(["1.npy"], tracks=[])
    assert shown["1.npy"].picture.shape == (56, 56, 3)
    assert open_source(tmp_path / "alpha").shown_channels() == 3


def test_large_deep_canvases_are_resized_as_shallow_ones():
    array = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 4)).astype(np.uint8)
    eight = load_images(open_source(array, channels=4), 8).pixels
    sixteen = load_images(open_source(array, channels=4, depth=16), 8).pixels
    assert ((sixteen.float() / 257) - eight.float()).abs().max() <= 1
