import errno
import os

import numpy as np
import pytest
import torch
from torch import nn

from builders import small_recipe, write_photos
from similitude import pretrain
from similitude.data.loader import Loader
from similitude.errors import UserError
from similitude.evaluation import extract_features
from similitude.evaluation.features import raw_features
from similitude.images import lazy
from similitude.images import loading as canvases
from similitude.images.lazy import LazyCanvases
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.images.tiles import cut_into_tiles
from similitude.images.views import ImageFacts


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 24)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(canvases, "LAZY_FROM", 10)


@pytest.fixture
def eager(photos, few_are_many, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(canvases, "LAZY_FROM", 1000)
        return load_images(open_source(photos), 8)


def count_reads(monkeypatch, source):
    seen, read = [], type(source).read

    def counting(self, i, size=None):
        seen.append(i)
        return read(self, i, size)

    monkeypatch.setattr(type(source), "read", counting)
    return seen


def load(photos, tmp_path, **options):
    return load_images(open_source(photos), 8, cache_dir=tmp_path / "cache", **options)


def fill_the_disk(monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)


@pytest.fixture(params=["file", "memory"])
def way(request, monkeypatch):
    """Where canvases are kept: in a file, or in memory where the disk has no room for one."""
    if request.param == "memory":
        fill_the_disk(monkeypatch)
    return request.param


@pytest.mark.slow
def test_canvases_are_those_of_decoding_all_at_once(photos, eager, tmp_path, way):
    images = load(photos, tmp_path)
    assert isinstance(images.pixels, LazyCanvases)
    assert isinstance(images.pixels.kept, np.memmap) == (way == "file")
    index = torch.tensor([5, 2, 2, 23])
    assert torch.equal(images.pixels[index], eager.pixels[index])
    assert torch.equal(images.pixels[3:20:4], eager.pixels[3:20:4])
    part = images.subset(index)
    assert torch.equal(part.aspect, eager.aspect[index])
    assert part.names == [eager.names[i] for i in index]
    for ours, theirs in zip(
        Loader(images, batch_size=8, seed=0, total_steps=6),
        Loader(eager, batch_size=8, seed=0, total_steps=6),
        strict=True,
    ):
        assert torch.equal(ours.rows.pixels, theirs.rows.pixels)
        assert torch.equal(ours.rows.aspect, theirs.rows.aspect)


def test_only_what_is_asked_for_is_decoded_and_only_once(photos, tmp_path, monkeypatch, way):
    images = load(photos, tmp_path)
    seen = count_reads(monkeypatch, open_source(photos))
    for index in ([1, 2, 3], [3, 4], [1, 4]):
        images.pixels[torch.tensor(index)]
    assert sorted(seen) == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_complete_file_is_used_again(photos, eager, tmp_path, monkeypatch):
    load(photos, tmp_path).pixels[:]
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".pack"]
    seen = count_reads(monkeypatch, open_source(photos))
    again = load(photos, tmp_path)
    assert torch.equal(again.pixels, eager.pixels)
    assert torch.equal(again.aspect, eager.aspect)
    assert seen == []


@pytest.mark.slow
def test_two_that_complete_the_same_file_leave_a_whole_one(photos, eager, tmp_path):
    first, second = (load(photos, tmp_path) for _ in range(2))
    first.pixels[:]
    second.pixels[:]
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".pack"]
    assert torch.equal(load(photos, tmp_path).pixels, eager.pixels)
    assert torch.equal(second.pixels[:], eager.pixels)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_what_stands_for_an_unreadable_image_is_scored_nowhere(
    photos, eager, tmp_path, monkeypatch, again
):
    """Neither when it is decoded nor when it comes from the complete file."""
    lost = (3, 23)
    for i in lost:
        (photos / eager.names[i]).write_bytes(b"no image")
    monkeypatch.setattr(lazy, "_LOOKED_AT", 100)
    images = load(photos, tmp_path)
    if again:
        images.pixels[:]
        images = load(photos, tmp_path)
    names = [name for i, name in enumerate(eager.names) if i not in lost]
    spec = ImageFacts(8, (0.5,) * 3, (0.5,) * 3)
    assert len(images) == 24
    assert extract_features(Flat(), images, spec).names == names
    assert raw_features(images).names == names
    part = images.subset(range(24))
    assert part.names == names
    assert torch.equal(part.pixels, eager.pixels[[i for i in range(24) if i not in lost]])
    assert images.is_substitute.nonzero().flatten().tolist() == list(lost)


@pytest.mark.slow
def test_tiles_are_not_decoded_one_by_one(photos, tmp_path):
    """Their order in training is not that of the images they are cut from."""
    tiles = cut_into_tiles(open_source(photos), 10)
    assert len(tiles) > canvases.LAZY_FROM
    assert not isinstance(load_images(tiles, 8).pixels, LazyCanvases)


@pytest.mark.slow
def test_two_processes_share_the_file(photos, eager, tmp_path):
    first = load(photos, tmp_path)
    first.pixels[:6]
    second = load(photos, tmp_path)
    second.pixels[6:9]
    assert torch.equal(first.pixels[:6], eager.pixels[:6])
    assert torch.equal(second.pixels[:9], eager.pixels[:9])


def test_without_room_images_are_decoded_again(photos, eager, tmp_path, monkeypatch):
    fill_the_disk(monkeypatch)
    images = load(photos, tmp_path, memory_limit_bytes=1)
    assert images.pixels.kept is None
    for _ in range(2):
        assert torch.equal(images.pixels[4:9], eager.pixels[4:9])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_replaced_by_memory(photos, eager, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    images = load(photos, tmp_path)
    assert torch.equal(images.pixels[:], eager.pixels)
    assert "canvases are kept in memory" in caplog.text


def test_a_file_that_cannot_be_completed_does_not_end_the_run(
    photos, eager, tmp_path, monkeypatch, caplog
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(canvases, "append_facts", full)
    images = load(photos, tmp_path)
    assert torch.equal(images.pixels[:], eager.pixels)
    assert "the next run decodes again" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []
    assert torch.equal(images.pixels[:], eager.pixels)


@pytest.mark.slow
def test_who_finds_no_room_leaves_the_file_of_another(photos, eager, tmp_path, monkeypatch):
    first = load(photos, tmp_path)
    first.pixels[:6]
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        load(photos, tmp_path)
    first.pixels[:]
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".pack"]
    assert torch.equal(load(photos, tmp_path).pixels, eager.pixels)


@pytest.mark.slow
def test_an_unreadable_image_gives_its_place_to_the_next(photos, eager, tmp_path, monkeypatch):
    for i in (3, 4, 23):
        (photos / eager.names[i]).write_bytes(b"no image")
    monkeypatch.setattr(lazy, "_LOOKED_AT", 100)
    images = load(photos, tmp_path)
    pixels = images.pixels[:]
    assert torch.equal(pixels[3], eager.pixels[5])
    assert torch.equal(pixels[4], eager.pixels[5])
    assert torch.equal(pixels[23], eager.pixels[0])
    assert {name for name, _ in images.unreadable} == {eager.names[i] for i in (3, 4, 23)}
    assert len(images.unreadable) == 3
    features = extract_features(Flat(), images, ImageFacts(8, (0.5,) * 3, (0.5,) * 3), batch_size=5)
    assert features.names == [n for i, n in enumerate(eager.names) if i not in (3, 4, 23)]


def test_many_unreadable_images_end_the_run(photos, eager, tmp_path, monkeypatch):
    for name in eager.names[:5]:
        (photos / name).write_bytes(b"no image")
    monkeypatch.setattr(lazy, "_LOOKED_AT", 30)
    with pytest.raises(UserError, match=r"4 of 4 files looked at .* cannot be read"):
        load(photos, tmp_path, workers=1).pixels[:]


class Flat(nn.Module):
    num_features = 192

    def forward(self, x):
        return x.flatten(1)


@pytest.mark.slow
def test_a_run_lists_what_it_could_not_read(photos, eager, tmp_path):
    (photos / eager.names[3]).write_bytes(b"no image")
    recipe = small_recipe("simclr", epochs=1, batch_size=8, canvas_size=8)
    run = pretrain(photos, recipe=recipe, out=tmp_path / "run", report=False)
    assert (run.path / "unreadable.txt").read_text() == f"{eager.names[3]}\tnot an image\n"


@pytest.mark.slow
def test_a_run_has_the_same_weights(photos, eager, tmp_path):
    fixed = {"precision": "float32", "memory_format": "contiguous"}
    recipe = small_recipe("simclr", epochs=2, batch_size=8, canvas_size=8, **fixed)
    runs = [
        pretrain(data, recipe=recipe, out=tmp_path / str(i), report=False)
        for i, data in enumerate((eager, photos))
    ]
    ours, theirs = (run.checkpoint.method for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert np.isfinite(runs[1].checkpoint.seconds)
