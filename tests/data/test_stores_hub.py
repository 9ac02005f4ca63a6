"""Data in a repository of the hub, as its own file system reads them of a server."""

import hashlib
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as hub
import pytest
import torch
from huggingface_hub import HfFileSystem

from builders import write_photos
from servers import Server
from similitude.errors import UserError
from similitude.images.loading import load_images
from similitude.images.opening import open_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

REPOSITORY = "datasets/me/photos"


def digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


class Hub(Server):
    """The files of a folder as one repository, with as much of the hub's interface as is asked.

    Attributes:
        listed: how often a list of its files was asked for.
    """

    listed = 0

    def answer(self, handler: BaseHTTPRequestHandler, *, with_content: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        content, below, name = path.partition(f"/{REPOSITORY}/resolve/main/")
        if below and not content:
            handler.path = name
            super().answer(handler, with_content=with_content)
        elif path.startswith(f"/api/{REPOSITORY}"):
            told = path.removeprefix(f"/api/{REPOSITORY}").split("/")
            # a file is known by the hash of its content
            self.listed += "tree" in told
            files = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": digest(f)}
                for f in sorted(self.folder.iterdir())
            ]
            found = files if "tree" in told else {"id": "me/photos", "sha": "0" * 40}
            content = json.dumps(found).encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        else:
            handler.send_response(404)
            handler.send_header("X-Error-Code", "RepoNotFound")
            handler.send_header("Content-Length", "0")
            handler.end_headers()


@pytest.fixture
def shards(tmp_path):
    photos = sorted(write_photos(tmp_path / "photos", 12, classes=0).iterdir())
    (tmp_path / "shards").mkdir()
    for s in range(2):
        with tarfile.open(tmp_path / "shards" / f"train-{s}.tar", "w") as tar:
            for photo in photos[s::2]:
                tar.add(photo, photo.name)
    return tmp_path / "shards"


@pytest.fixture
def repository(shards, monkeypatch):
    server = Hub(shards)
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():
        monkeypatch.setattr(hub, name, value)
    HfFileSystem.clear_instance_cache()
    yield server
    HfFileSystem.clear_instance_cache()
    server.close()


def test_row_groups_of_the_hub_are_read_in_place(repository, shards, cache):
    pixels = [photo.read_bytes() for photo in sorted((shards.parent / "photos").iterdir())]
    table = pa.table({"image": [{"bytes": content, "path": None} for content in pixels]})
    pq.write_table(table, shards / "train-0.parquet", row_group_size=5)
    source = open_source(f"hf://{REPOSITORY}/*.parquet")
    photos = load_images(open_source(shards.parent / "photos")).pixels[:]
    assert torch.equal(load_images(source).pixels[:], photos)
    size = (shards / "train-0.parquet").stat().st_size
    groups = [ask for ask in repository.asked if ask[2] - ask[1] > 1 and ask[2] < size]
    assert len(groups) == len(set(groups)) == 3


def test_a_file_of_the_hub_that_changes_under_a_run_is_told(repository, shards, cache):
    pixels = [photo.read_bytes() for photo in sorted((shards.parent / "photos").iterdir())]
    for name in ("train-0", "train-1"):
        table = pa.table({"image": pixels})
        pq.write_table(table, shards / f"{name}.parquet", row_group_size=1)
    source = open_source(f"hf://{REPOSITORY}/*.parquet", values=None).origin
    before = repository.listed
    source.read_ahead(range(24))
    with ThreadPoolExecutor(24) as threads:
        contents = list(threads.map(lambda i: source.file(i).read(), range(24)))
    assert contents == [*pixels, *pixels]
    assert 1 <= repository.listed - before <= 24
    source.read_ahead(())
    path = shards / "train-1.parquet"
    path.write_bytes(path.read_bytes().replace(b"parquet-cpp", b"parquet-CPP"))  # no other length
    assert source.file(3).read() == pixels[3]
    with pytest.raises(UserError, match=r"hf://.*train-1\.parquet has changed since its footer"):
        source.file(20)


@pytest.mark.parametrize("named", ["train-{0..1}.tar", "*.tar", ""])
def test_shards_of_the_hub_are_read_in_place(named, repository, shards, cache):
    source = open_source(f"hf://{REPOSITORY}/{named}")
    assert source.names == open_source(shards).names
    before = len(repository.asked)
    assert torch.equal(load_images(source).pixels[:], load_images(open_source(shards)).pixels[:])
    asked = repository.asked[before:]
    assert len(asked) <= 24  # once to see how large they are
    assert max(stop - start for _, start, stop in asked) < 4_000


def test_what_is_not_there_is_named(repository, cache):
    with pytest.raises(UserError, match=r"there is no file hf://datasets/me/photos/test-0\.tar"):
        open_source(f"hf://{REPOSITORY}/test-0.tar")
    with pytest.raises(UserError, match="hf://datasets/you/photos"):
        open_source("hf://datasets/you/photos")
