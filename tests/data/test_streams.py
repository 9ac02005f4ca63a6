import io

import numpy as np
import pytest
import torch
from PIL import Image

import similitude as sim
from builders import write_photos
from similitude.data import streams
from similitude.errors import UserError
from similitude.images import decoder
from similitude.images.loading import load_images, pack_images
from similitude.images.opening import open_source, open_stream


@pytest.fixture
def files(tmp_path):
    """The bytes of 12 images of 20 px, in the order in which a folder lists them."""
    folder = write_photos(tmp_path / "photos", 12, classes=2)
    return [(folder / name).read_bytes() for name in open_source(folder).names]


@pytest.mark.parametrize("block", [1, 5, 12, 100])
def test_a_pack_of_a_stream_holds_its_images_in_their_order(files, tmp_path, block, monkeypatch):
    monkeypatch.setattr(streams, "_BLOCK", block)
    pairs = ((data, i % 2) for i, data in enumerate(files))
    packed = pack_images(open_stream(pairs), tmp_path / "s.pack")
    plain = load_images(open_source(tmp_path / "photos"))
    assert torch.equal(packed.pixels[:], plain.pixels)
    assert packed.names == [f"{i:05d}" for i in range(12)]
    assert packed.labels.tolist() == [0, 1] * 6


def test_it_is_not_read_ahead_by_more_than_a_block(files, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_BLOCK", 3)
    drawn, done = [], []

    def stream():
        for i, data in enumerate(files):
            drawn.append(i)
            yield data

    def progress(count, total):
        done.append((count, total))
        assert len(drawn) <= count + 3

    pack_images(open_stream(stream()), tmp_path / "s.pack", on_progress=progress)
    assert done == [(3, 0), (6, 0), (9, 0), (12, 0)]


def test_images_without_a_class_have_no_labels(files, tmp_path):
    assert pack_images(open_stream(iter(files)), tmp_path / "s.pack").labels is None


def test_unreadable_ones_are_left_out_and_listed(files, tmp_path):
    images = pack_images(open_stream(iter([*files, b"no image"])), tmp_path / "s.pack", 8)
    assert len(images) == 12
    assert images.size == 8
    assert open_source(tmp_path / "s.pack").notes == (
        "1 files could not be read when it was packed",
    )


def test_too_many_unreadable_ones_end_it_and_leave_no_file(files, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "_FEW", 10)
    broken = iter([*files, b"?", b"?"])
    with pytest.raises(UserError, match=r"2 of 14 files looked at .* is 00012 \(not an image\)"):
        pack_images(open_stream(broken), tmp_path / "s.pack")
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_what_is_no_image_is_told_by_its_place(files, tmp_path):
    for wrong in (np.zeros(3), (files[0], "cat"), "name.jpg"):
        with pytest.raises(UserError, match="item 12 of the stream is no image"):
            pack_images(open_stream(iter([*files, wrong])), tmp_path / "s.pack")
    with pytest.raises(UserError, match="the stream has no images"):
        pack_images(open_stream(iter([])), tmp_path / "s.pack")
    with pytest.raises(UserError, match="has 1 readable"):
        pack_images(open_stream(iter(files[:1])), tmp_path / "s.pack")
    assert not (tmp_path / "s.pack").exists()


def test_an_error_of_the_stream_is_told_as_such(files, tmp_path):
    """And not as one of writing the pack, whose errors are of the same type."""

    def dropped():
        yield from files
        raise ConnectionResetError("the server has gone")

    message = "the stream ended with an error after image 0: ConnectionResetError: the server"
    with pytest.raises(UserError, match=message):
        pack_images(open_stream(dropped()), tmp_path / "s.pack")
    assert not (tmp_path / "s.pack").exists()


def test_learning_from_an_iterator_says_how(files):
    with pytest.raises(UserError, match="make a file of it"):
        sim.pretrain(iter(files))


def test_pack_takes_a_stream(files, tmp_path):
    path = sim.pack(iter(files), tmp_path / "s.pack", size=16)
    assert load_images(open_source(path)).pixels.shape == (12, 3, 16, 16)


def test_the_size_is_that_of_the_first_images(files, tmp_path):
    large = io.BytesIO()
    Image.new("RGB", (60, 50)).save(large, "PNG")
    assert (
        pack_images(open_stream(iter([*files, large.getvalue()])), tmp_path / "s.pack").size == 20
    )
