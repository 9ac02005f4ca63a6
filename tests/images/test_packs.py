import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from builders import write_photos
from similitude.errors import UserError
from similitude.images.decoder import Decoder
from similitude.images.loading import load_images, pack_images
from similitude.images.opening import open_source
from similitude.images.packs import append_facts, read_facts
from similitude.images.tiles import cut_into_tiles


@pytest.fixture
def photos(tmp_path):
    folder = write_photos(tmp_path / "photos", 12)
    array = np.random.default_rng(0).integers(0, 256, (10, 30, 3), np.uint8)
    Image.fromarray(array).save(folder / "class0" / "wide.png")
    return folder


def test_a_pack_is_what_was_packed(photos, tmp_path):
    source = open_source(photos)
    packed = pack_images(source, tmp_path / "p.pack")
    found = open_source(tmp_path / "p.pack")
    plain, again = load_images(source), load_images(found)
    for images in (packed, again):
        assert torch.equal(images.pixels[:], plain.pixels)
        assert torch.equal(images.aspect, plain.aspect)
        assert torch.equal(images.labels, plain.labels)
        assert (images.names, images.class_names) == (plain.names, plain.class_names)
    assert 3.0 in again.aspect


def test_a_pack_is_mapped_and_not_decoded(photos, tmp_path, monkeypatch):
    pack_images(open_source(photos), tmp_path / "p.pack", 8)

    def never(*args):
        raise AssertionError("decoded")

    monkeypatch.setattr(Decoder, "canvases", never)
    before = (tmp_path / "p.pack").read_bytes()
    images = load_images(open_source(tmp_path / "p.pack"), memory_limit_bytes=1)
    images.pixels[:][0] = 7
    assert (tmp_path / "p.pack").read_bytes() == before


def test_other_sizes_are_made_of_a_pack(photos, tmp_path):
    pack_images(open_source(photos), tmp_path / "p.pack", 16)
    images = load_images(open_source(tmp_path / "p.pack"), 8)
    assert images.size == 8
    assert 3.0 in images.aspect


def test_tiles_keep_their_neighbours(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "photos" / f"{name}.png")
    source = cut_into_tiles(open_source(tmp_path / "photos"), 20)
    packed = pack_images(source, tmp_path / "p.pack")
    assert torch.equal(packed.partners, load_images(source).partners)


def test_unreadable_files_are_told(photos, tmp_path):
    (photos / "class0" / "photo000.png").write_bytes(b"")
    pack_images(open_source(photos), tmp_path / "p.pack")
    found = open_source(tmp_path / "p.pack")
    assert found.notes == ("1 files could not be read when it was packed",)
    assert len(found) == 12


@pytest.mark.parametrize("cut", [0, 5, -1, -30])
def test_a_damaged_pack_is_refused(photos, tmp_path, cut):
    path = tmp_path / "p.pack"
    pack_images(open_source(photos), path, 8)
    path.write_bytes(path.read_bytes()[:cut])
    assert read_facts(path) is None
    with pytest.raises(UserError, match="no whole pack"):
        open_source(path)


@pytest.mark.slow
def test_a_flipped_bit_in_a_pack_is_found(photos, tmp_path):
    path = tmp_path / "p.pack"
    pack_images(open_source(photos), path, 8)
    whole = path.read_bytes()
    for i in range(0, len(whole), len(whole) // 50):
        flipped = bytearray(whole)
        flipped[i] ^= 1 << (i % 8)
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"is damaged|no whole pack"):
            open_source(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("labels"),
        lambda facts: facts.pop("names"),
        lambda facts: facts.update(labels=[300_000_000] * 13),
        lambda facts: facts.update(labels=facts["labels"][:-1]),
        lambda facts: facts.update(names=[1] * 13),
        lambda facts: facts.update(aspect=[-1.0] * 13),
        lambda facts: facts.update(neighbours=[[99]] * 13),
        lambda facts: facts.update(neighbours=[[0]] * 12 + [[]]),
        lambda facts: facts.update(size=-8),
        lambda facts: facts.update(count="13"),
    ],
)
def test_facts_of_somebody_else_are_not_believed(photos, tmp_path, change):
    path = tmp_path / "p.pack"
    pack_images(open_source(photos), path, 8)
    facts = read_facts(path)
    canvases = path.read_bytes()[: facts["count"] * 3 * 64]
    del facts["checksum"]
    with path.open("wb") as file:  # of before there was a checksum: it opens
        file.write(canvases)
        append_facts(file, facts)
    assert len(open_source(path)) == 13
    change(facts)
    with path.open("wb") as file:
        file.write(canvases)
        append_facts(file, facts)
    with pytest.raises(UserError, match="no whole pack"):
        open_source(path)


def test_a_pack_that_changes_in_place_while_it_is_mapped_is_told(photos, tmp_path):
    path = tmp_path / "p.pack"
    pack_images(open_source(photos), path, 8)
    images, plain = load_images(open_source(path)), load_images(open_source(photos), 8)
    other = tmp_path / "q.pack"
    other.write_bytes(path.read_bytes())
    other.replace(path)  # another file of this name: what is mapped stays
    assert torch.equal(images.pixels[:], plain.pixels)
    images = load_images(open_source(path))
    os.truncate(path, 100)
    with pytest.raises(UserError, match="changed while it was in use"):
        images.pixels[:4]
    with pytest.raises(UserError, match="changed while it was in use"):
        images.subset([0])


def test_a_cache_file_is_no_pack(photos, tmp_path):
    """It has no names: they are the source's, which may have got other labels since."""
    load_images(open_source(photos), 8, cache_dir=tmp_path / "c", memory_limit_bytes=1)
    (cached,) = (tmp_path / "c").iterdir()
    assert "names" not in json.dumps(read_facts(cached))
    with pytest.raises(UserError, match="no whole pack"):
        open_source(cached)


def test_bad_names_and_splits_are_told(photos, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.pack"):
        pack_images(open_source(photos), tmp_path / "p.npz")
    assert not (tmp_path / "p.npz").exists()
    pack_images(open_source(photos), tmp_path / "p.pack")
    with pytest.raises(UserError, match="one set of images"):
        open_source(tmp_path / "p.pack", split="test")
