"""Decoding a source once: the same canvases in memory and in a file, whatever the threads."""

import errno
import itertools
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from similitude.data.cache import free_memory_bytes, remove_leftovers
from similitude.errors import UserError
from similitude.images import decoder, packs
from similitude.images.image_set import ImageSet
from similitude.images.loading import default_size, load_images
from similitude.images.opening import open_source
from similitude.images.packs import read_facts


def same(a: ImageSet, b: ImageSet) -> bool:
    return (
        torch.equal(a.pixels, b.pixels)
        and torch.equal(a.aspect, b.aspect)
        and a.names == b.names
        and a.unreadable == b.unreadable
    )


@pytest.mark.slow
def test_decoding_leaves_the_number_of_threads_alone(photos):
    """In a process that has not used torch before, as one that evaluates."""
    code = f"""
import threading, torch
from similitude.data import load_images, open_source
images = load_images(open_source({str(photos)!r}), 6)
print(torch.get_num_threads())
other = threading.Thread(target=lambda: print(torch.get_num_threads()))
other.start()
other.join()
"""
    names = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "MKL_DYNAMIC": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | names,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["3", "3"]


def test_canvas_is_the_image_squashed_to_a_square(photos):
    source = open_source(photos)
    images = load_images(source, 6)
    assert images.pixels.shape == (12, 3, 6, 6)
    for i in range(12):
        image = source.read(i)
        expected = torch.nn.functional.interpolate(
            image[None].double(), (6, 6), mode="bilinear", antialias=True
        )[0]
        # the integer kernel rounds after each of the two passes
        assert (images.pixels[i] - expected).abs().max() <= 1.1
        assert images.aspect[i] == pytest.approx(image.shape[2] / image.shape[1])


def test_same_bits_for_any_number_of_threads(photos, monkeypatch):
    monkeypatch.setattr(decoder, "_CHUNK", 2)
    source = open_source(photos)
    one = load_images(source, 9, workers=1)
    assert same(one, load_images(source, 9, workers=3))
    monkeypatch.setattr(decoder, "_CHUNK", 5)
    assert same(one, load_images(source, 9))


def test_too_many_for_memory_go_to_a_file_that_is_used_again(photos, tmp_path, monkeypatch):
    source = open_source(photos)
    (photos / "img00.png").write_bytes(b"")
    in_memory = load_images(source, 7)
    mapped = load_images(source, 7, cache_dir=tmp_path / "c", memory_limit_bytes=1000)
    assert same(in_memory, mapped)
    files = sorted((tmp_path / "c").iterdir())
    assert [f.suffix for f in files] == [".pack"]
    assert read_facts(files[0])["kept"] == list(range(1, 12))

    def never(*args):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "to_canvas", never)
        again = load_images(source, 7, cache_dir=tmp_path / "c", memory_limit_bytes=1000)
    assert same(in_memory, again)
    again.pixels[0] = 0  # a private mapping: the file stays as it was
    assert same(
        in_memory, load_images(source, 7, cache_dir=tmp_path / "c", memory_limit_bytes=1000)
    )


@pytest.mark.slow
def test_the_cache_notices_changes(photos, tmp_path, make_image):
    def load(size=7):
        return load_images(
            open_source(photos), size, cache_dir=tmp_path / "c", memory_limit_bytes=1000
        )

    before = load()
    make_image(photos / "img00.png", 99, (10, 20))  # same name and size of the image
    os.utime(photos / "img00.png", (1, 1))
    changed = load()
    assert not torch.equal(before.pixels[0], changed.pixels[0])
    assert load(8).pixels.shape[-1] == 8
    pixels = max((tmp_path / "c").glob("*-7-*.pack"), key=lambda p: p.stat().st_mtime)
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert same(load(), load_images(open_source(photos), 7))


def test_arrays_are_cached_by_content(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (40, 5, 5), np.uint8)

    def load():
        return load_images(open_source(array), 5, cache_dir=tmp_path, memory_limit_bytes=1)

    assert (load().pixels[:, 1].numpy() == array).all()
    array[3] = 0
    assert (load().pixels[:, 1].numpy() == array).all()


def test_a_full_disk_is_told_and_leaves_nothing(photos, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_after_some(file, decoder):
        file.write(next(decoder.canvases()).data)
        full()

    for where in ("reserve", "write"):
        with monkeypatch.context() as patch:
            if where == "reserve":
                patch.setattr(os, "posix_fallocate", full, raising=False)
            else:
                patch.setattr(packs, "write_canvases", full_after_some)
            with pytest.raises(UserError, match=r"disk is full: .*\.pack"):
                load_images(open_source(photos), 7, cache_dir=tmp_path / "c", memory_limit_bytes=1)
        assert list((tmp_path / "c").iterdir()) == []


def test_a_really_full_disk(photos):
    full = "/dev/full"
    if not os.path.exists(full):
        pytest.skip("needs /dev/full")
    with open(full, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        packs.write_canvases(file, decoder.Decoder(open_source(photos), 2, workers=1))


def test_leftovers_of_killed_runs_go_after_a_day(tmp_path):
    for name, age in (("old", 2 * 86400), ("young", 60)):
        path = tmp_path / f"{name}.partial"
        path.write_bytes(b"x")
        stamp = path.stat().st_mtime - age
        os.utime(path, (stamp, stamp))
    remove_leftovers(tmp_path, "*.partial")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["young.partial"]


def test_unreadable_files_are_left_out_and_listed(tmp_path, make_image):
    folder = tmp_path / "x"
    for i in range(30):
        make_image(folder / f"{'ab'[i % 2]}/{i:02d}.png", i)
    data = (folder / "a/04.png").read_bytes()
    (folder / "a/04.png").write_bytes(data[: len(data) // 2])
    (folder / "b/05.png").write_bytes(b"")
    (folder / "b/07.png").write_text("not an image at all")
    images = load_images(open_source(folder))
    assert images.unreadable == [
        ("a/04.png", "truncated"),
        ("b/05.png", "empty file"),
        ("b/07.png", "not an image"),
    ]
    assert len(images) == len(images.pixels) == len(images.aspect) == 27
    assert not {"a/04.png", "b/05.png", "b/07.png"} & set(images.names)
    assert images.labels is not None
    assert [images.class_names[c] for c in images.labels] == [n[0] for n in images.names]
    make_image(folder / "b/05.png", 5)
    (folder / "a/06.png").unlink()
    (folder / "a/06.png").symlink_to(tmp_path / "nowhere")
    assert ("a/06.png", "no such file or directory") in load_images(open_source(folder)).unreadable


def test_more_than_a_tenth_unreadable_stops(photos):
    (photos / "img00.png").write_bytes(b"")
    assert len(load_images(open_source(photos), 4)) == 11
    (photos / "img03.bmp").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"2 of 12 files .*the first is img00\.png \(empty file\)"):
        load_images(open_source(photos), 4)


def test_fewer_than_two_images(tmp_path, make_image):
    make_image(tmp_path / "x/a.png")
    with pytest.raises(UserError, match=r"has 1 image.*at least 2"):
        load_images(open_source(tmp_path / "x"))


def test_default_size(tmp_path, make_image):
    for i, size in enumerate([(30, 20), (20, 50), (90, 24)]):
        make_image(tmp_path / f"x/{i}.png", i, size)
    assert default_size(open_source(tmp_path / "x")) == 20
    assert default_size(open_source(np.zeros((4, 40, 28), np.uint8))) == 28
    assert default_size(open_source(np.zeros((4, 400, 300), np.uint8))) == 256
    assert load_images(open_source(tmp_path / "x")).size == 20
    with pytest.raises(UserError, match="at least 1 pixel"):
        load_images(open_source(tmp_path / "x"), 0)


def test_progress_counts_up_to_all(photos, monkeypatch):
    monkeypatch.setattr(decoder, "_CHUNK", 5)
    seen = []
    load_images(open_source(photos), 4, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 12), (10, 12), (12, 12)]


def test_an_error_in_a_thread_reaches_the_caller(photos, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(decoder, "to_canvas", fail)
    with pytest.raises(ZeroDivisionError):
        load_images(open_source(photos), 4)


def test_free_memory_is_plausible():
    assert 10**7 < free_memory_bytes() < 10**14


def test_subset(photos):
    images = load_images(open_source(photos), 4)
    images = ImageSet(
        images.pixels, images.aspect, images.names, torch.arange(12), list("abcdefghijkl")
    )
    part = images.subset([7, 2])
    assert part.names == [images.names[7], images.names[2]]
    assert torch.equal(part.pixels, images.pixels[[7, 2]])
    assert torch.equal(part.aspect, images.aspect[[7, 2]])
    assert part.labels.tolist() == [7, 2]
    mask = torch.zeros(12, dtype=torch.bool)
    mask[[2, 7]] = True
    assert images.subset(mask).labels.tolist() == [2, 7]
    front = images.subset(slice(0, 5))
    assert front.names == images.names[:5]
    assert front.pixels.data_ptr() == images.pixels.data_ptr()


@pytest.mark.usefixtures("unchecked_shapes")
def test_image_set_refuses_what_does_not_fit():
    pixels = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="3 images but"):
        ImageSet(pixels, torch.ones(3), ["a", "b"])
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(pixels.float(), torch.ones(3), ["a", "b", "c"])


def test_real_photographs(shared_data_dir, tmp_path):
    archive = shared_data_dir / "cifar10-images.tar.gz"
    if not archive.is_file():
        pytest.skip(f"needs {archive}")
    with tarfile.open(archive) as tar:
        files = (m for m in tar if m.isfile())
        for member in itertools.islice(files, 60):
            member.name = "/".join(member.name.split("/")[-2:])
            tar.extract(member, tmp_path / "x", filter="data")
    source = open_source(tmp_path / "x")
    images = load_images(source)
    assert images.pixels.shape == (60, 3, 32, 32)
    assert images.unreadable == []
    for i in (0, 59):
        shown = np.asarray(Image.open(source.files.path(i)).convert("RGB")).astype(int)
        assert np.abs(images.pixels[i].permute(1, 2, 0).numpy() - shown).max() <= 4
