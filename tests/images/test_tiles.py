"""Large images in tiles: every pixel of the grid once, and each tile knows those beside it."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from similitude.data.loader import Loader, draw_partners
from similitude.errors import UserError
from similitude.images import tiles
from similitude.images.image_set import ImageSet, partners_among
from similitude.images.loading import load_images
from similitude.images.opening import open_source
from similitude.images.source import EncodedSource
from similitude.images.tiles import cut_into_tiles


@pytest.fixture
def folder(tmp_path, make_image):
    """A grid of 2 x 3 tiles of 8 px with a rest, one tile alone, and an image too small for one."""
    place = tmp_path / "slides"
    pixels = {
        "a.png": make_image(place / "a.png", 1, size=(8 * 3 + 5, 8 * 2 + 4)),
        "b.png": make_image(place / "b.png", 2, size=(8, 8)),
        "c.png": make_image(place / "c.png", 3, size=(40, 7)),
    }
    return place, pixels


NAMES = [*(f"a.png#r{r}c{c}" for r in range(2) for c in range(3)), "b.png#r0c0", "c.png"]


def named(images: ImageSet) -> dict[str, set[str]]:
    """The names beside each name."""
    assert images.partners is not None
    return {
        name: {images.names[j] for j in row if j >= 0}
        for name, row in zip(images.names, images.partners.tolist(), strict=True)
    }


def test_tiles_are_the_pixels_of_a_centered_grid(folder):
    place, pixels = folder
    source = cut_into_tiles(open_source(place), 8)
    assert source.names == NAMES
    for i, name in enumerate(NAMES[:6]):
        r, c = i // 3, i % 3
        # 4 px are left over in height and 5 in width: 2 above, 2 at the left
        expected = pixels["a.png"][2 + 8 * r : 10 + 8 * r, 2 + 8 * c : 10 + 8 * c]
        assert np.array_equal(source.read(i).permute(1, 2, 0).numpy(), expected), name
    assert np.array_equal(source.read(6).permute(1, 2, 0).numpy(), pixels["b.png"])
    assert np.array_equal(source.read(7).permute(1, 2, 0).numpy(), pixels["c.png"])  # whole


def test_sizes_and_notes_say_what_was_done(folder):
    source = cut_into_tiles(open_source(folder[0]), 8)
    assert [source.probe_size(i) for i in (0, 6, 7)] == [(8, 8), (8, 8), (40, 7)]
    assert source.probe_sizes(8) == [(8, 8)] * 7 + [(40, 7)]
    assert "2 images are cut into 7 tiles of 8 px" in source.notes[-2]
    assert "1 images are smaller than a tile" in source.notes[-1]
    assert "in tiles of 8 px" in source.name


def test_neighbours_share_an_edge_and_an_image(folder):
    beside = named(load_images(cut_into_tiles(open_source(folder[0]), 8), 8))
    a = {(r, c): f"a.png#r{r}c{c}" for r in range(2) for c in range(3)}
    assert beside[a[0, 0]] == {a[0, 1], a[1, 0]}
    assert beside[a[1, 1]] == {a[0, 1], a[1, 0], a[1, 2]}
    assert beside["b.png#r0c0"] == beside["c.png"] == set()


def test_neighbours_are_symmetric_and_four_inside_a_grid(tmp_path, make_image):
    make_image(tmp_path / "x" / "one.png", size=(35, 28))
    make_image(tmp_path / "x" / "two.png", size=(21, 14))
    images = load_images(cut_into_tiles(open_source(tmp_path / "x"), 7), 7)
    beside = named(images)
    assert all(name in beside[other] for name in beside for other in beside[name])
    assert all(
        other.split("#")[0] == name.split("#")[0] for name in beside for other in beside[name]
    )
    assert len(beside["one.png#r1c2"]) == 4
    edges = sum(len(others) for others in beside.values()) / 2
    assert edges == (4 * 4 + 3 * 5) + (2 * 2 + 1 * 3)


def test_labels_go_with_the_tiles(tmp_path, make_image):
    for name, size in {"cat/1": (16, 8), "dog/1": (8, 8), "dog/2": (8, 24)}.items():
        make_image(tmp_path / "pets" / f"{name}.png", size=size)
    source = cut_into_tiles(open_source(tmp_path / "pets"), 8)
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert source.class_names == ["cat", "dog"]


def test_each_image_is_decoded_once_in_a_row(folder, monkeypatch):
    read, calls = EncodedSource.read, []
    monkeypatch.setattr(
        EncodedSource, "read", lambda self, i, size=None: calls.append(i) or read(self, i, size)
    )
    load_images(cut_into_tiles(open_source(folder[0]), 8), 8, workers=1)
    assert calls == [0, 1, 2]


def test_two_sources_do_not_take_each_others_images(tmp_path, make_image):
    for i, name in enumerate("ab"):
        make_image(tmp_path / name / "x.png", i, size=(16, 8))
    a, b = (cut_into_tiles(open_source(tmp_path / name), 8) for name in "ab")
    first = a.read(0)
    assert not torch.equal(first, b.read(0))
    assert torch.equal(first, a.read(0))


def test_damaged_images_leave_no_hole_in_the_table(folder, make_image):
    place, _ = folder
    for i in range(9):
        make_image(place / f"d{i}.png", i, size=(16, 8))
    data = (place / "d0.png").read_bytes()
    (place / "d0.png").write_bytes(data[: len(data) // 2])  # the header is fine, the pixels are not
    images = load_images(cut_into_tiles(open_source(place), 8), 8)
    assert [name for name, _ in images.unreadable] == ["d0.png#r0c0", "d0.png#r0c1"]
    assert named(images)["d1.png#r0c0"] == {"d1.png#r0c1"}
    assert named(images)["a.png#r0c0"] == {"a.png#r0c1", "a.png#r1c0"}


def test_a_file_without_a_header_is_told_as_unreadable(folder):
    place, _ = folder
    for i in range(9):
        Image.new("RGB", (16, 8)).save(place / f"d{i}.png")
    (place / "e.png").write_bytes(b"nothing")
    images = load_images(cut_into_tiles(open_source(place), 8), 8)
    assert [name for name, _ in images.unreadable] == ["e.png"]


def test_an_image_that_is_not_as_large_as_its_header_says_is_left_out(folder, monkeypatch):
    source = cut_into_tiles(open_source(folder[0]), 8)
    monkeypatch.setattr(EncodedSource, "read", lambda *_: torch.zeros(3, 12, 30, dtype=torch.uint8))
    assert source.read(0).shape == (3, 8, 8)
    with pytest.raises(tiles.UnreadableError, match="header"):
        source.read(3)


def test_tiles_in_a_file_are_those_in_memory(folder, tmp_path):
    source = cut_into_tiles(open_source(folder[0]), 8)
    memory = load_images(source, 8)
    for _ in range(2):  # written, then read again
        cached = load_images(source, 8, memory_limit_bytes=0, cache_dir=tmp_path / "cache")
        assert torch.equal(cached.pixels, memory.pixels)
        assert named(cached) == named(memory)
    other = cut_into_tiles(open_source(folder[0]), 4)
    assert other.fingerprint() != source.fingerprint()


def test_arrays_are_cut_too():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    source = cut_into_tiles(open_source(images), 4)
    assert len(source) == 3 * 2 * 3
    assert np.array_equal(source.read(5).permute(1, 2, 0).numpy(), images[0, 4:8, 8:12])


def test_a_subset_keeps_the_neighbours_that_are_in_it(folder):
    images = load_images(cut_into_tiles(open_source(folder[0]), 8), 8)
    some = images.subset([4, 1, 7, 0])
    assert named(some) == {
        "a.png#r1c1": {"a.png#r0c1"},
        "a.png#r0c1": {"a.png#r1c1", "a.png#r0c0"},
        "c.png": set(),
        "a.png#r0c0": {"a.png#r0c1"},
    }
    assert named(images.subset(slice(0, 2)))["a.png#r0c0"] == {"a.png#r0c1"}
    mask = torch.tensor([True, True] + [False] * 6)
    assert named(images.subset(mask)) == named(images.subset([0, 1]))
    assert images.has_partners
    assert not images.subset([0, 5, 6]).has_partners
    assert named(load_images(open_source(images), 8)) == named(images)  # through open_source


def test_the_table_without_some_images():
    table = torch.tensor([[1, -1], [0, 2], [1, -1]])
    assert partners_among(table, torch.tensor([2, 1])).tolist() == [[1, -1], [-1, 0]]


@pytest.mark.parametrize(
    ("size", "words"), [(0, "at least 1"), (41, "no image in .* as large as a tile of 41 px")]
)
def test_a_tile_size_that_cuts_nothing_is_refused(folder, size, words):
    with pytest.raises(UserError, match=words):
        cut_into_tiles(open_source(folder[0]), size)


def test_squashed_canvases_are_not_cut(folder):
    images = load_images(open_source(folder[0]), 8)
    with pytest.raises(UserError, match="squashed"):
        cut_into_tiles(open_source(images), 4)


def test_a_tiled_source_can_be_sent_to_another_process(folder):
    source = cut_into_tiles(open_source(folder[0]), 8)
    source.read(0)
    assert torch.equal(pickle.loads(pickle.dumps(source)).read(4), source.read(4))


# --- drawing one neighbor ---------------------------------------------------------------------


def grid_table(rows=5, columns=6):
    images = np.zeros((1, rows, columns, 3), np.uint8)
    return cut_into_tiles(open_source(images), 1).partners


@pytest.mark.slow
def test_a_drawn_neighbour_is_one_and_every_one_comes_as_often():
    table = grid_table()
    index = torch.arange(30)
    drawn = torch.stack([draw_partners(table, index, seed=0, epoch=e) for e in range(800)])
    for i in range(30):
        there = {j for j in table[i].tolist() if j >= 0}
        counts = torch.bincount(drawn[:, i], minlength=30)
        assert set(counts.nonzero()[:, 0].tolist()) == there
        assert counts[sorted(there)].min() > 0.75 * 800 / len(there)


def test_a_drawn_neighbour_depends_on_seed_epoch_and_position_alone():
    table = grid_table()
    index = torch.arange(30)
    drawn = draw_partners(table, index, seed=3, epoch=7)
    order = torch.randperm(30)
    assert torch.equal(draw_partners(table, order, seed=3, epoch=7), drawn[order])
    assert not torch.equal(draw_partners(table, index, seed=3, epoch=8), drawn)
    assert not torch.equal(draw_partners(table, index, seed=4, epoch=7), drawn)


def test_an_image_alone_is_its_own_neighbour():
    table = torch.tensor([[-1, -1], [-1, 2], [1, -1]])
    drawn = draw_partners(table, torch.tensor([2, 0, 1]), seed=0, epoch=0)
    assert drawn.tolist() == [1, 0, 2]


@pytest.fixture
def slides():
    pixels = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(30, 3, 4, 4)
    return ImageSet(
        pixels.contiguous(),
        1 + torch.arange(30) / 10,
        [str(i) for i in range(30)],
        partners=grid_table(),
    )


def test_the_loader_gives_a_neighbour_of_every_image(slides):
    options = {"batch_size": 8, "seed": 1, "total_steps": 6}
    batches = list(Loader(slides, **options, partners=True))
    for batch in batches:
        beside = draw_partners(slides.partners, batch.index, seed=1, epoch=batch.epoch)
        assert torch.equal(batch.partners.pixels, slides.pixels[beside])
        assert torch.equal(batch.partners.aspect, slides.aspect[beside])
    assert all(batch.partners is None for batch in Loader(slides, **options))


def test_a_resumed_loader_and_parts_of_a_batch_give_the_same_neighbours(slides):
    options = {"batch_size": 8, "seed": 1, "total_steps": 6, "partners": True}
    whole = list(Loader(slides, **options))
    resumed = list(Loader(slides, **options, first_step=4))
    assert torch.equal(resumed[0].partners.pixels, whole[4].partners.pixels)
    halves = [list(Loader(slides, **options, part=part, parts=2)) for part in (0, 1)]
    for step, batch in enumerate(whole):
        together = torch.cat([half[step].partners.pixels for half in halves])
        assert torch.equal(together, batch.partners.pixels)
