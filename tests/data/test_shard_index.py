"""An index is made once of the headers, and never believed where it is not whole."""

import io
import os
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch

from builders import small_recipe, write_photos
from servers import serving
from similitude import pretrain
from similitude.data import shard_index, stores
from similitude.data.loader import Loader
from similitude.errors import UserError
from similitude.images import loading
from similitude.images.loading import load_images
from similitude.images.opening import open_source


@pytest.fixture
def folder(tmp_path):
    """Three shards of eight images with classes, in two parts that stand among each other."""
    photos = sorted(write_photos(tmp_path / "photos", 24, classes=0).iterdir())
    (tmp_path / "shards").mkdir()
    for s in range(3):
        with tarfile.open(tmp_path / "shards" / f"x{s}.tar", "w") as tar:
            for i in range(8 * s, 8 * s + 8):
                part = "val" if i % 4 == 3 else "train"
                tar.add(photos[i], f"{part}/{i}.png")
                label = tarfile.TarInfo(f"{part}/{i}.cls")
                label.size = 2
                text = "b" if part == "val" else "ab"[i % 2]
                tar.addfile(label, io.BytesIO(f"{text}\n".encode()))
    return tmp_path / "shards"


@pytest.fixture
def reads(monkeypatch):
    """The shards whose headers are read."""
    seen, headers = [], shard_index._headers

    def counting(shards, number, *others):
        seen.append(number)
        return headers(shards, number, *others)

    monkeypatch.setattr(shard_index, "_headers", counting)
    return seen


def the_index(cache):
    (folder,) = (cache / "shards").iterdir()
    return folder


def test_parts_that_stand_among_each_other_have_names_places_and_classes_of_their_own(folder):
    train, val = open_source(folder), open_source(folder, split="test")
    assert (len(train), len(val)) == (18, 6)
    assert train.names[:4] == ["x0.tar/0.png", "x0.tar/1.png", "x0.tar/2.png", "x0.tar/4.png"]
    assert val.names[2:4] == ["x1.tar/11.png", "x1.tar/15.png"]
    assert train.labels.tolist() == [0, 1, 0] * 6
    assert (val.labels.tolist(), val.class_names) == ([0] * 6, ["b"])
    whole = load_images(train)
    alone = load_images(train, 20).subset([3])
    assert torch.equal(alone.pixels[0], whole.pixels[3])


def test_parts_of_one_file_have_canvases_of_their_own(folder, tmp_path):
    train, val = open_source(folder), open_source(folder, split="test")
    assert train.fingerprint() != val.fingerprint()
    for source in (train, val):
        mapped = load_images(source, 8, cache_dir=tmp_path / "canvases", memory_limit_bytes=0)
        assert torch.equal(mapped.pixels, load_images(source, 8).pixels)


def test_headers_are_read_once_until_a_shard_changes(folder, cache, reads):
    before = open_source(folder).names
    assert sorted(reads) == [0, 1, 2]
    assert open_source(folder).names == before
    assert len(reads) == 3
    with (folder / "x1.tar").open("ab") as file:
        file.write(bytes(512))
    assert open_source(folder).names == before
    assert len(reads) == 6
    assert len(list((cache / "shards").iterdir())) == 2


@pytest.mark.parametrize("file", ["places", "names", "bounds", "parts", "labels", "index.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_index_is_made_anew(folder, cache, reads, file, how):
    before = open_source(folder)
    path = the_index(cache) / file
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if how == "flipped" else content[:-1])
    if how == "flipped" and file == "index.json":
        path.write_bytes(content.replace(b"counts", b"county"))
    again = open_source(folder)
    assert len(reads) == 6
    assert again.names == before.names
    assert torch.equal(again.labels, before.labels)
    assert the_index(cache).is_dir()


def test_two_that_make_the_same_index_leave_a_whole_one(folder, cache, monkeypatch):
    numbered = shard_index._number

    def meanwhile(path, numbers):
        monkeypatch.setattr(shard_index, "_number", numbered)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 10**9)
            open_source(folder)
        numbered(path, numbers)

    monkeypatch.setattr(shard_index, "_number", meanwhile)
    source = open_source(folder)
    assert source.labels.tolist() == [0, 1, 0] * 6
    assert [p.name for p in (cache / "shards").iterdir()] == [the_index(cache).name]


def test_no_place_is_held_in_memory(folder):
    source = open_source(folder)
    held = [v for v in vars(source.origin.index).values() if isinstance(v, np.ndarray)]
    assert [len(v) for v in held] == [3]  # one number for each shard
    assert isinstance(source.origin.index.rows("nothing"), range)


def test_processes_read_their_own_images_alone_and_none_twice(folder, tmp_path, monkeypatch):
    """Of more images than are decoded at the start."""
    monkeypatch.setattr(loading, "LAZY_FROM", 10)
    with serving(folder) as server:
        source = open_source(f"{server.url}/x{{0..2}}.tar")
        indices = []
        for part in range(2):
            images = load_images(source, 8, cache_dir=tmp_path / f"canvases{part}")
            server.asked.clear()
            options = {"batch_size": 6, "seed": 0, "total_steps": 3, "part": part, "parts": 2}
            batches = list(Loader(images, **options))
            mine = torch.cat([batch.index for batch in batches])
            places = {source.origin.index.place(int(source.origin.rows[i])) for i in mine}
            asked = [(int(name[1]), first + 512, last) for name, first, last in server.asked]
            assert sorted(asked) == sorted((s, start, start + n) for s, start, n in places)
            indices.append(mine)
        assert sorted(torch.cat(indices).tolist()) == list(range(18))


@pytest.mark.slow
def test_a_run_whose_network_went_goes_on_bit_for_bit(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "LAZY_FROM", 10)
    monkeypatch.setattr(stores, "_PAUSES", (0.01,))
    fixed = {"precision": "float32", "memory_format": "contiguous"}
    recipe = small_recipe("simclr", epochs=4, batch_size=6, canvas_size=8, **fixed)
    whole = pretrain(folder, recipe=recipe, out=tmp_path / "whole", report=False)
    with serving(folder) as server:
        url = f"{server.url}/x{{0..2}}.tar"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        gather = Loader._gather

        def cut(self, index, epoch, beside):
            server.failures = 10**6 if epoch == 2 else 0
            if epoch == 2:
                self.samples.pixels._seen[:] = False  # what is decoded needs no network
            return gather(self, index, epoch, beside)

        monkeypatch.setattr(Loader, "_gather", cut)
        out = tmp_path / "stopped"
        with pytest.raises(UserError, match=r"cannot read http.*begun goes on with --resume"):
            pretrain(url, recipe=recipe, out=out, report=False)
        monkeypatch.setattr(Loader, "_gather", gather)
        server.failures = 0
        resumed = pretrain(url, out=out, resume=True, report=False)
    ours, theirs = resumed.checkpoint.method, whole.checkpoint.method
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_believed(folder, cache):
    code = (
        "import os, signal\n"
        "from similitude.data import shard_index\n"
        "shard_index._number = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from similitude.images.opening import open_source\n"
        f"open_source({str(folder)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert open_source(folder).labels.tolist() == [0, 1, 0] * 6
