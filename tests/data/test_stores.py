"""Shards behind a URL are those on the disk: the same samples, the same run, whatever breaks."""

import io
import socket
import tarfile

import fsspec
import pytest
import torch

from builders import small_recipe, write_photos
from servers import serving
from similitude import pretrain
from similitude.data import stores
from similitude.data.stores import expand_braces, is_url
from similitude.errors import UserError
from similitude.images.loading import load_images
from similitude.images.opening import open_parts, open_source

SHARDS = "/train-{000..003}.tar"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(stores, "_PAUSES", (0.01, 0.01, 0.01))


@pytest.fixture
def folder(tmp_path):
    """Four shards of six images with classes."""
    photos = sorted(write_photos(tmp_path / "photos", 24, classes=0).iterdir())
    (tmp_path / "shards").mkdir()
    for s in range(4):
        with tarfile.open(tmp_path / "shards" / f"train-{s:03d}.tar", "w") as tar:
            for photo in photos[6 * s : 6 * s + 6]:
                tar.add(photo, photo.name)
                label = tarfile.TarInfo(f"{photo.stem}.cls")
                label.size = 1
                tar.addfile(label, io.BytesIO(str(s % 2).encode()))
    return tmp_path / "shards"


@pytest.fixture
def server(folder):
    with serving(folder) as served:
        yield served


def test_braces_are_those_of_webdataset():
    assert list(expand_braces("a{08..11}b")) == ["a08b", "a09b", "a10b", "a11b"]
    assert list(expand_braces("a{8..10}")) == ["a8", "a9", "a10"]
    assert list(expand_braces("{x,y}/{0..1}")) == ["x/0", "x/1", "y/0", "y/1"]
    assert list(expand_braces("plain{a}.tar")) == ["plain{a}.tar"]


def test_a_url_is_none_of_these():
    assert [is_url(s) for s in ("s3://b/x", "memory://x", "C:\\x", "hf:name", "x/y.tar", 3)] == [
        *(True, True),
        *(False,) * 4,
    ]


def test_images_behind_a_url_are_those_on_the_disk(server, folder):
    far, near = (open_source(f"{place}{SHARDS}") for place in (server.url, folder))
    assert far.names == near.names
    assert torch.equal(far.labels, near.labels)
    assert far.class_names == near.class_names == ["0", "1"]
    ours, theirs = load_images(far), load_images(near)
    assert torch.equal(ours.pixels, theirs.pixels)
    assert ours.fingerprint() == theirs.fingerprint()  # a run may go on with either


def test_headers_are_read_once_and_then_only_the_images_themselves(server):
    open_source(server.url + SHARDS)
    server.asked.clear()
    source = open_source(server.url + SHARDS)
    load_images(source, 8)
    lengths = sorted(last - first for _, first, last in server.asked)
    assert lengths[0] == 1  # whether there are ranges
    assert len({range_ for range_ in server.asked if range_[2] - range_[1] > 1}) == 24
    assert lengths[-1] < 3000


def test_other_file_systems_list_and_have_parts(folder, tmp_path):
    fs = fsspec.filesystem("memory")
    for path in folder.iterdir():
        for part in ("train", "val"):
            fs.pipe(f"/stored/{part}/{path.name}", path.read_bytes())
    try:
        train, val = open_parts("memory://stored")
        assert len(train) == len(val) == 24
        assert len(open_source("memory://stored/train/train-*2.tar")) == 6
        test = open_source("memory://stored/{train,val}/train-000.tar", split="test")
        assert len(test) == 6
        with pytest.raises(UserError, match=r"no \.tar files at memory://nowhere"):
            open_source("memory://nowhere/x-*.tar")
        with pytest.raises(UserError, match=r"there is no file memory:///nowhere/x.tar"):
            open_source("memory://nowhere/x.tar")
    finally:
        fs.rm("/stored", recursive=True)


def test_what_is_not_there_is_named(server, folder):
    (folder / "train-002.tar").unlink()
    for place in (server.url, folder):
        with pytest.raises(UserError, match=r"there is no file .*train-002\.tar"):
            open_source(f"{place}{SHARDS}")
    with pytest.raises(UserError, match="a range goes from the smaller number to the larger"):
        open_source(f"{server.url}/train-{{3..0}}.tar")
    with pytest.raises(UserError, match=r"no protocol 'abc'; choose from s3, gs, hf, https, http"):
        open_source("abc://x.tar")
    with pytest.raises(UserError, match=r"no protocol 'htpp'; did you mean http"):
        open_source("htpp://host/x.tar")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(stores, "url_to_fs", missing)
    with pytest.raises(UserError, match=r"Install s3fs.*pip install 'similitude\[remote\]'"):
        open_source("s3://bucket/x-{0..3}.tar")


@pytest.mark.parametrize("where", ["file", "header"])
def test_a_shard_that_is_cut_off_is_told(server, folder, where):
    path = folder / "train-001.tar"
    with tarfile.open(path) as tar:
        member = tar.getmembers()[4]
    path.write_bytes(path.read_bytes()[: getattr(member, f"offset{'_data' * (where == 'file')}")])
    with path.open("ab") as file:
        file.write(b"x" * 100)
    with pytest.raises(UserError, match=r"cannot read http.*train-001\.tar: "):
        open_source(server.url + SHARDS)


def test_a_shard_that_may_be_cut_off_is_told(folder):
    path = folder / "train-001.tar"
    with tarfile.open(path) as tar:
        member = tar.getmembers()[4]
    path.write_bytes(path.read_bytes()[: member.offset])
    source = open_source(folder)
    assert len(source) == 24 - 4
    assert "train-001.tar may be cut off: there is no mark of an end" in source.notes[0]


def test_a_server_without_ranges_is_told_before_anything_is_read(server):
    server.has_ranges = False
    with pytest.raises(UserError, match=r"gives no ranges of a file: download the files"):
        open_source(server.url + SHARDS)


def test_a_network_that_comes_back_is_waited_for(server, folder):
    source = open_source(server.url + SHARDS)
    expected = [open_source(folder).origin.file(i).read() for i in range(24)]
    for i in range(24):
        server.failures = i % 3
        assert source.origin.file(i).read() == expected[i]


def test_every_try_says_its_number_and_the_pause_before_it(server, caplog):
    source = open_source(server.url + SHARDS)
    server.failures = 10**6
    with pytest.raises(UserError):
        source.origin.file(7)
    told = [record.getMessage().partition("; ")[2] for record in caplog.records]
    assert told == [f"asked again in 0.01 s ({n} of 3)" for n in (1, 2, 3)]


def test_a_server_that_never_answered_is_given_up_soon_and_by_one(caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=r"train-000\.tar: .*is right and the server is up$"):
        open_source(url + SHARDS)
    (told,) = caplog.records
    assert told.getMessage().endswith("asked again in 0.01 s (1 of 1)")
    store, path = stores.open_url(f"{url}/x.tar")
    store.answered.set()  # once: it may come back
    with pytest.raises(UserError, match=r"cannot read .*goes on with --resume"):
        store.read(path, 0, 1)
    assert caplog.records[-1].getMessage().endswith("(3 of 3)")


def test_a_network_that_is_gone_is_told(server):
    source = open_source(server.url + SHARDS)
    server.failures = 10**6
    with pytest.raises(
        UserError, match=r"cannot read http://.*/train-001\.tar: .*goes on with --resume"
    ):
        source.origin.file(7)
    with pytest.raises(UserError, match=r"cannot read http://.*/train-000\.tar: "):
        open_source(server.url + SHARDS)


@pytest.mark.parametrize("change", ["order", "end"])
def test_a_shard_that_changes_under_a_run_is_told(server, folder, change):
    source = open_source(server.url + SHARDS)
    before = source.fingerprint()
    path = folder / "train-001.tar"
    content = path.read_bytes()
    path.write_bytes(content[1024:] if change == "order" else content[:4000])
    with pytest.raises(UserError, match=r"train-001\.tar has changed .* train-001\.tar/photo011"):
        source.origin.file(11)
    path.write_bytes(content + bytes(512))
    assert open_source(server.url + SHARDS).fingerprint() != before


@pytest.mark.slow
def test_a_run_over_the_network_has_the_weights_of_one_on_the_disk(server, folder, tmp_path):
    """Also one that stopped where the network was gone, and went on when it was back."""
    fixed = {"precision": "float32", "memory_format": "contiguous"}
    recipe = small_recipe("simclr", epochs=3, batch_size=8, canvas_size=8, **fixed)
    options = {"recipe": recipe, "report": False}
    near = pretrain(f"{folder}{SHARDS}", out=tmp_path / "near", **options)
    far = pretrain(server.url + SHARDS, out=tmp_path / "far", **options)
    ours, theirs = far.checkpoint.method, near.checkpoint.method
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
