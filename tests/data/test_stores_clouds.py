"""Data in S3 and in Google Cloud Storage: real clients, and servers that imitate the clouds.

Both need more packages than all other tests together, so whoever changes the stores installs them.
"""

import os
import socket
import subprocess
import sys
import tarfile
import time

import fsspec
import pytest
import torch

from builders import write_photos
from similitude.errors import UserError
from similitude.images.loading import load_images
from similitude.images.opening import open_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NEEDED = "needs pip install 'similitude[remote]' 'moto[s3,server]' gcp-storage-emulator"
GOOGLE = "from gcp_storage_emulator.server import create_server as c"
CLOUDS = {
    "s3": (
        ("s3fs", "moto", "flask_cors"),
        "from moto.server import main; main(['-p', '{port}'])",
        {"AWS_ENDPOINT_URL": "{url}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"},
    ),
    "gs": (
        ("gcsfs", "gcp_storage_emulator"),
        f"{GOOGLE}; c('127.0.0.1', {{port}}, in_memory=True, default_bucket='bucket').run()",
        {"STORAGE_EMULATOR_HOST": "{url}"},
    ),
}


@pytest.fixture(params=list(CLOUDS))
def cloud(request, monkeypatch):
    """The protocol of a cloud that is served, and has an empty bucket."""
    packages, program, environment = CLOUDS[request.param]
    for package in packages:
        pytest.importorskip(package, reason=NEEDED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(url=f"http://127.0.0.1:{port}"))
    words = [sys.executable, "-c", program.format(port=port)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(words, env=dict(os.environ), **silent)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
        fs = fsspec.filesystem(request.param)
        if request.param == "s3":
            fs.mkdir("bucket")
        yield request.param, fs
        type(fs).clear_instance_cache()
    finally:
        server.kill()
        server.wait()


def test_files_are_listed_and_read_in_place(cloud, tmp_path, cache):
    protocol, fs = cloud
    photos = sorted(write_photos(tmp_path / "photos", 12, classes=0).iterdir())
    (tmp_path / "shards").mkdir()
    for s in range(2):
        path = tmp_path / "shards" / f"train-{s}.tar"
        with tarfile.open(path, "w") as tar:
            for photo in photos[s::2]:
                tar.add(photo, photo.name)
        fs.pipe_file(f"bucket/{path.name}", path.read_bytes())
    with fs.open("bucket/rows/train-0.parquet", "wb") as file:
        contents = [{"bytes": photo.read_bytes(), "path": None} for photo in photos]
        pq.write_table(pa.table({"image": contents}), file, row_group_size=5)
    rows, files = open_source(f"{protocol}://bucket/rows"), open_source(tmp_path / "photos")
    assert torch.equal(load_images(rows).pixels[:], load_images(files).pixels[:])
    local = open_source(tmp_path / "shards")
    for named in ("/train-{0..1}.tar", "/*.tar", ""):
        source = open_source(f"{protocol}://bucket{named}")
        assert source.names == local.names
    assert torch.equal(load_images(source).pixels[:], load_images(local).pixels[:])
    begun = time.monotonic()
    for missing in ("bucket/no.tar", "nowhere/train-0.tar"):
        with pytest.raises(UserError, match=rf"(there is no file|cannot read) .*{missing}"):
            open_source(f"{protocol}://{missing}")
    assert time.monotonic() - begun < 10  # what is missing is not asked for again
