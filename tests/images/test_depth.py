"""One range of values for all deep pictures of a data set, measured on them and said."""

import numpy as np
import pytest
import torch
from PIL import Image

import similitude as sim
from builders import Ears
from similitude.images.depth import value_range
from similitude.images.loading import load_images, pack_images
from similitude.images.opening import open_parts, open_source


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 4031], np.uint16), (0, 4095)),  # 12 bits in 16
        (np.array([0, 65535], np.uint16), (0, 65535)),
        (np.array([7, 200], np.int32), (0, 255)),
        (np.array([0.0, 1.004], np.float32), (0, 1)),  # resampling overshoots
        (np.array([-0.02, 0.6], np.float32), (0, 1)),
        (np.array([0.0, 251.5], np.float32), (0, 255)),
        (np.array([5.0, 5.0], np.float32), (5, 6)),
        (np.array([np.nan, np.inf], np.float32), (0, 1)),
    ],
)
def test_range_of_values(values, expected):
    assert value_range(values) == expected


def test_values_of_a_scanner_are_shown_without_their_extremes():
    values = np.linspace(-1000, 3000, 10_001)
    values[-1] = 1e6  # one hot pixel
    black, white = value_range(values)
    assert -1000 <= black < -990
    assert 2990 < white <= 3000
    black, white = value_range(np.linspace(-1000, 3000, 10_001).astype(np.int16))
    assert -1000 <= black < -990


def save(folder, pictures):
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.tif")


def test_all_pictures_are_shown_in_one_range_and_a_note_says_which(tmp_path):
    """A dark picture stays dark beside a bright one."""
    dark, bright = np.full((8, 8), 100, np.uint16), np.full((8, 8), 4000, np.uint16)
    save(tmp_path / "photos", [dark, bright])
    source = open_source(tmp_path / "photos")
    assert any("0 is shown black and 4095 white" in note for note in source.notes)
    pixels = load_images(source).pixels[:]
    assert pixels[0].unique().tolist() == [round(100 / 4095 * 255)]
    assert pixels[1].unique().tolist() == [round(4000 / 4095 * 255)]


def test_the_test_part_is_shown_as_the_training_part(tmp_path):
    save(tmp_path / "photos/train", [np.full((8, 8), v, np.float32) for v in (-3.0, 9.0)])
    save(tmp_path / "photos/test", [np.full((8, 8), v, np.float32) for v in (0.0, 1.0)])
    train, test = open_parts(tmp_path / "photos")
    assert train.values == test.values
    assert test.values.black < -2


def test_another_range_is_another_file_of_canvases(tmp_path):
    save(tmp_path / "photos", [np.full((8, 8), 1000 * i, np.uint16) for i in range(1, 4)])
    source = open_source(tmp_path / "photos")
    first = load_images(source, 8, cache_dir=tmp_path / "cache").pixels[:].clone()
    wider = source.with_values(type(source.values)(0, 65535))
    second = load_images(wider, 8, cache_dir=tmp_path / "cache").pixels[:]
    assert (first > second).all()


def test_pictures_of_eight_bits_have_no_range(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i}.png")
    source = open_source(folder)
    assert source.values is None
    assert not source.notes


def test_a_pack_keeps_the_range(tmp_path):
    save(tmp_path / "photos", [np.full((8, 8), v, np.uint16) for v in (0, 4000)])
    source = open_source(tmp_path / "photos")
    pack_images(source, tmp_path / "a.pack")
    assert open_source(tmp_path / "a.pack").values == source.values == (0, 4095)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_exports")
def test_a_run_shows_later_pictures_as_those_it_learned_from(tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path / "photos", list(rng.integers(0, 4096, (24, 16, 16)).astype(np.uint16)))
    save(tmp_path / "dark", list(rng.integers(0, 200, (4, 16, 16)).astype(np.uint16)))
    fast = ["backbone.base_width=4", "precision=float32", "memory_format=contiguous"]
    options = {"epochs": 1, "batch_size": 8, "overrides": fast, "report": False}
    run = sim.pretrain(tmp_path / "photos", out=tmp_path / "run", **options)
    assert run.recipe.data.value_range == (0, 4095)
    ears = Ears()
    features = run.embed(tmp_path / "dark", listener=ears)
    sim.embed(run, tmp_path / "dark", tmp_path / "dark.npz", listener=ears)
    streamed = sim.embeddings.read_embeddings(tmp_path / "dark.npz")
    torch.testing.assert_close(streamed.x, features.x)
    alone = sim.embeddings.SimilitudeEncoder(run).fit_transform(list((tmp_path / "dark").iterdir()))
    assert sorted(alone[:, 0]) == pytest.approx(sorted(features.x[:, 0].tolist()), abs=1e-5)
    assert not any("black" in sentence for sentence in ears.sentences)  # no range of its own
    shown = load_images(open_source(tmp_path / "dark", values=run.recipe.data.value_range)).pixels[
        :
    ]
    assert shown.max() <= 13
    assert "4095" in run.export(tmp_path / "w.safetensors")
