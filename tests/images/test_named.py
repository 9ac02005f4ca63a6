"""Data sets by name: what is on disk is used, what is not is downloaded whole or not at all."""

import contextlib
import gzip
import hashlib
import http.server
import io
import pickle
import platform
import socket
import struct
import subprocess
import tarfile
import threading
import time
from functools import partial

import numpy as np
import pytest
import torchvision.datasets

from similitude.data import downloads
from similitude.data.downloads import FetchError
from similitude.errors import UserError
from similitude.images import fashion_mnist
from similitude.images.loading import load_images
from similitude.images.opening import open_parts, open_source

REAL_REACHABLE = downloads.reachable
RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(0, 256, (6, 28, 28), np.uint8),
    "t10k": RNG.integers(0, 256, (4, 28, 28), np.uint8),
}
LABELS = {"train": np.array([9, 0, 1, 2, 3, 4], np.uint8), "t10k": np.array([5, 6, 7, 8], np.uint8)}


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for name, array in (
            (f"{part}-images-idx3-ubyte", IMAGES[part]),
            (f"{part}-labels-idx1-ubyte", LABELS[part]),
        ):
            data = gzip.compress(idx(array), mtime=0) if packed else idx(array)
            (folder / f"{name}{'.gz' if packed else ''}").write_bytes(data)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test reaches the world: each turns on what it needs."""
    monkeypatch.setattr(
        fashion_mnist, "DEBIAN_FOLDER", tmp_path / "usr/share/datasets/fashion-mnist"
    )
    monkeypatch.setattr(downloads, "reachable", lambda url: url.startswith("http://127.0.0.1:"))
    for proxy in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(proxy, raising=False)


@pytest.fixture
def serve(tmp_path):
    """A web server over a folder; yields its address and the list of what was asked for."""
    folder, asked = tmp_path / "www", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def fashion_server(serve, monkeypatch):
    folder, url, asked = serve
    write_fashion(folder)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [url])
    resources = [
        (p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in sorted(folder.iterdir())
    ]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    return folder, asked


def assert_is_fashion(split="train"):
    part = {"train": "train", "test": "t10k"}[split]
    source = open_source("fashion-mnist", split=split)
    assert source.name == f"fashion-mnist {split}"
    assert source.names[1] == "00001"
    assert source.labels is not None
    assert source.labels.tolist() == LABELS[part].tolist()
    assert source.class_names is not None
    assert source.class_names[9] == "Ankle boot"
    assert (load_images(source).pixels[:, 2].numpy() == IMAGES[part]).all()


@pytest.mark.parametrize("below", [".", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_that_is_there_already(tmp_path, monkeypatch, below, packed):
    write_fashion(tmp_path / "data" / below, packed)
    monkeypatch.setenv("SIMILITUDE_DATA", str(tmp_path / "data"))
    assert_is_fashion("train")
    assert_is_fashion("test")
    assert "training images are used" in open_source("fashion-mnist").notes[0]


def test_fashion_mnist_of_an_installed_debian_package():
    write_fashion(fashion_mnist.DEBIAN_FOLDER)
    assert_is_fashion()


def test_fashion_mnist_is_downloaded_once(fashion_server, cache):
    _, asked = fashion_server
    assert_is_fashion("train")
    assert len(set(asked)) == 4
    count = len(asked)
    assert_is_fashion("test")
    assert len(asked) == count
    assert sorted(p.name for p in cache.iterdir()) == ["fashion-mnist"]  # nothing temporary
    assert len(list((cache / "fashion-mnist").iterdir())) == 4


@pytest.mark.parametrize("damage", ["half", "other"])
def test_a_broken_download_is_not_used(fashion_server, cache, damage):
    folder, _ = fashion_server
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100] if damage == "half" else gzip.compress(b"junk"))
    with pytest.raises(UserError, match=r"download from 127\.0\.0\.1 failed"):
        open_source("fashion-mnist")
    assert list(cache.iterdir()) == []


def test_fashion_mnist_that_cannot_be_had_is_not_another_set():
    with pytest.raises(UserError, match=r"cannot be reached.*dataset-fashion-mnist"):
        open_source("fashion-mnist", split="test")


def test_a_damaged_file_in_the_cache_is_named(cache):
    write_fashion(cache / "fashion-mnist")
    path = cache / "fashion-mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is damaged .*delete it"):
        open_source("fashion-mnist")


@pytest.mark.slow
def test_digits():
    train, test = open_source("digits", split="train"), open_source("digits", split="test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.probe_sizes(1) == [(8, 8)]
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.bincount().min() > 130
    assert test.labels.bincount().min() > 30
    images = load_images(train)
    assert images.pixels.max() == 255
    assert "training images are used" in open_source("digits").notes[0]
    assert len(open_parts("digits")) == 2
    with pytest.raises(UserError, match="splits train and test, not 'val'"):
        open_source("digits", split="val")


def pickled_cifar(kind):
    """Archive and checksums of a tiny CIFAR in the original's format."""
    fine = kind is torchvision.datasets.CIFAR100
    files, sums = {}, {}
    names = ["train", "test"] if fine else [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names):
        entry = {
            "data": RNG.integers(0, 256, (2, 3072), np.uint8),
            "fine_labels" if fine else "labels": [number, 9],
        }
        files[name] = pickle.dumps(entry)
    meta = "meta" if fine else "batches.meta"
    key = "fine_label_names" if fine else "label_names"
    files[meta] = pickle.dumps({key: [f"class{i}" for i in range(10)]})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            sums[name] = hashlib.md5(data).hexdigest()
    return buffer.getvalue(), files, sums, meta


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(name, serve, monkeypatch, cache):
    folder, url, asked = serve
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[
        name
    ]
    archive, files, sums, meta = pickled_cifar(kind)
    (folder / "c.tar.gz").write_bytes(archive)
    for field, value in {
        "url": f"{url}c.tar.gz",
        "tgz_md5": hashlib.md5(archive).hexdigest(),
        "train_list": [[n, s] for n, s in sums.items() if n.startswith(("data", "train"))],
        "test_list": [[n, s] for n, s in sums.items() if n.startswith("test")],
        "meta": kind.meta | {"filename": meta, "md5": sums[meta]},
    }.items():
        monkeypatch.setattr(kind, field, value)
    train, test = open_source(name), open_source(name, split="test")
    assert len(train) == (2 if name == "cifar100" else 10)
    first = pickle.loads(files["train" if name == "cifar100" else "data_batch_1"])["data"][0]
    assert (train.read(0).numpy() == first.reshape(3, 32, 32)).all()
    assert train.class_names is not None
    assert train.class_names[9] == "class9"
    assert len(test) == 2
    assert len(set(asked)) == 1
    assert [p.name for p in cache.iterdir()] == [name]
    assert [p.name for p in (cache / name).iterdir()] == [kind.base_folder]  # the archive is gone
    damaged = next(p for p in (cache / name / kind.base_folder).iterdir() if "test" in p.name)
    damaged.write_bytes(pickle.dumps({"data": 0}))  # never unpickled: its checksum is wrong
    with pytest.raises(UserError, match="incomplete or damaged: delete it"):
        open_source(name)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_unreachable_says_where_to_put_the_files(name, cache):
    with pytest.raises(
        UserError, match=r"cannot be reached: get http.*\.tar\.gz and unpack"
    ) as error:
        open_source(name)
    assert str(cache / name) in str(error.value)


def test_stl10(monkeypatch, tmp_path):
    kind = torchvision.datasets.STL10
    folder = tmp_path / "data" / kind.base_folder
    folder.mkdir(parents=True)
    images = RNG.integers(0, 256, (6, 3, 96, 96), np.uint8)
    parts = {"train": images[:2], "unlabeled": images[2:5], "test": images[5:]}
    for part, array in parts.items():
        array.transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")  # stored column by column
    np.array([1, 10], np.uint8).tofile(folder / "train_y.bin")
    np.array([3], np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"class{i}" for i in range(10)))
    for field in ("train_list", "test_list"):
        names = [n for n, _ in getattr(kind, field)]
        value = [[n, hashlib.md5((folder / n).read_bytes()).hexdigest()] for n in names]
        monkeypatch.setattr(kind, field, value)
    monkeypatch.setenv("SIMILITUDE_DATA", str(tmp_path / "data"))
    everything = open_source("stl10")
    assert everything.labels is not None
    assert everything.labels.tolist() == [0, 9, -1, -1, -1]
    assert "train and unlabeled" in everything.notes[0]
    assert (load_images(everything).pixels.numpy() == images[:5]).all()
    assert len(open_source("stl10", split="train")) == 2
    test = open_source("stl10", split="test")
    assert (test.read(0).numpy() == images[5]).all()


@pytest.mark.slow
def test_a_silent_server_does_not_hang(monkeypatch, cache):
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [url])
        start = time.perf_counter()
        with pytest.raises(UserError, match=r"download from 127\.0\.0\.1 failed"):
            open_source("fashion-mnist")
        assert time.perf_counter() - start < 5
    assert socket.getdefaulttimeout() is None


class Misbehaving(http.server.BaseHTTPRequestHandler):
    """Sends what ``parts`` yields, and never says how much it will be."""

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        try:
            for part in self.parts():
                self.wfile.write(part)
        except OSError:
            self.server.gone.set()


@pytest.fixture
def misbehave(monkeypatch):
    servers = []

    def serve(parts):
        handler = type("Handler", (Misbehaving,), {"parts": staticmethod(parts)})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.gone = threading.Event()
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [url])
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_that_never_ends_is_left_at_the_known_size(misbehave, monkeypatch, cache):
    monkeypatch.setattr(fashion_mnist, "_SIZES", (3_000_000, 1, 1, 1))
    server = misbehave(lambda: iter(lambda: bytes(1 << 20), b""))
    with pytest.raises(UserError) as refused:
        open_source("fashion-mnist", split="test")
    note = str(refused.value)
    assert "larger than the 3,000,000 bytes" in note
    assert server.gone.wait(5)
    assert list(cache.iterdir()) == []


@pytest.mark.slow
def test_a_server_that_drips_is_left_after_some_patience(misbehave, monkeypatch, cache):
    monkeypatch.setattr(downloads, "PATIENCE_SECONDS", 0.3)

    def drops():
        while True:
            time.sleep(0.05)
            yield b"x"

    misbehave(drops)
    start = time.perf_counter()
    with pytest.raises(UserError) as refused:
        open_source("fashion-mnist", split="test")
    note = str(refused.value)
    assert time.perf_counter() - start < 5
    assert "too slow" in note
    assert list(cache.iterdir()) == []


@pytest.mark.slow
def test_a_header_without_an_end_is_left_too(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "PATIENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        start = time.perf_counter()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(FetchError, match="failed"):
            downloads.fetch(url, tmp_path / "x", md5="0", size=9)
        assert time.perf_counter() - start < 3
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_tried_over_tls_first(monkeypatch, tmp_path):
    tried = []

    def download(url, path, size):
        tried.append(url)
        path.write_bytes(b"half")
        if url.startswith("https"):
            raise OSError("wrong version number")

    monkeypatch.setattr(downloads, "reachable", lambda url: True)
    monkeypatch.setattr(downloads, "_download", download)
    path, right = tmp_path / "x", hashlib.md5(b"half").hexdigest()
    downloads.fetch("http://a.org/x", path, md5=right, size=4)
    assert tried == ["https://a.org/x", "http://a.org/x"]
    with pytest.raises(FetchError, match="not the file that was published"):
        downloads.fetch("http://a.org/x", path, md5="0", size=4)
    assert not path.exists()


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path, monkeypatch, cache):
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout.strip()
    for pid, stays in ((ended, False), ("1", True)):
        left = cache / f".download-{platform.node()}-{pid}-abc"
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"x")
        with downloads.workshop():
            assert left.exists() == stays


@pytest.mark.slow
def test_a_black_hole_does_not_hang(monkeypatch):
    monkeypatch.setattr(downloads, "CONNECT_SECONDS", 0.3)

    def never(*args, **kwargs):
        time.sleep(3)  # neither the look-up of a name nor the connection ends
        raise OSError

    monkeypatch.setattr(socket, "create_connection", never)
    start = time.perf_counter()
    assert not REAL_REACHABLE("http://example.org/")
    assert time.perf_counter() - start < 2


def test_reachable_asks_the_proxy_where_there_is_one(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert REAL_REACHABLE(f"http://127.0.0.1:{port}/x")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        assert REAL_REACHABLE("http://no-such-host.invalid/x")
    monkeypatch.delenv("http_proxy")
    assert not REAL_REACHABLE(f"http://127.0.0.1:{port}/x")


def test_a_name_wins_over_a_folder_of_the_same_name(tmp_path, monkeypatch, make_image):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        make_image(tmp_path / f"digits/{i}.png", i)
    assert len(open_source("digits")) == 1437
    assert len(open_source("./digits")) == 2
