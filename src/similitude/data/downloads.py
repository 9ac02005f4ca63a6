"""Fetch files so that a dead network fails within seconds and half a file is never used."""

import concurrent.futures
import http.client
import os
import platform
import socket
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from torchvision.datasets.utils import check_md5
from tqdm import tqdm

from similitude.data.cache import cache_folder, remove_abandoned
from similitude.files.writing import writing_error

CONNECT_SECONDS = 4.0
STALL_SECONDS = 5.0  # longest silence of a server, in the middle of a file too
PATIENCE_SECONDS = 20.0  # before a download may be called slow
SLOWEST = 50_000.0  # bytes in a second, on the whole: Fashion-MNIST takes ten minutes then
_PART = 1 << 16  # bytes

FETCH_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError)


class FetchError(Exception):
    """A download that did not work; the message is the reason in a few words."""


def fetch(url: str, path: Path, *, md5: str, size: int) -> None:
    """Download one file whose size and content are known; over TLS where the server has it.

    Args:
        url: http or https.
        path: where the file goes; nothing is there after an error.
        md5: of the content, which torchvision states.
        size: in bytes, as far as it is known; more is not taken.

    Raises:
        FetchError: the host does not answer, is silent or slow, or sends something else.
    """
    host = urlsplit(url).hostname
    addresses = dict.fromkeys([url.replace("http://", "https://", 1), url])
    problem = f"{host} cannot be reached"
    for address in filter(reachable, addresses):
        try:
            _download(address, path, size)
            if not check_md5(path, md5):
                raise FetchError("it is not the file that was published")
            return
        except (*FETCH_ERRORS, FetchError) as error:
            path.unlink(missing_ok=True)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            problem = f"the download from {host} failed ({reason[:100]})"
    raise FetchError(problem)


def _download(url: str, path: Path, size: int) -> None:
    """Write what a server sends; it may neither stop, nor go on for ever."""
    begin, done = time.monotonic(), 0
    with (
        _answer(url) as response,
        path.open("wb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=path.name, leave=False) as shown,
    ):
        while part := response.read1(_PART):
            done += len(part)
            if done > size:
                raise FetchError(f"it is larger than the {size:,} bytes that were published")
            elapsed = time.monotonic() - begin
            if elapsed > PATIENCE_SECONDS and done < SLOWEST * elapsed:
                raise FetchError(f"{done:,} bytes in {elapsed:.0f} seconds are too slow")
            file.write(part)
            shown.update(len(part))


def _answer(url: str) -> http.client.HTTPResponse:
    """What a server answers, in a thread that can be left behind: a header may have no end."""
    request = urllib.request.Request(url, headers={"User-Agent": "similitude"})
    future: Future[http.client.HTTPResponse] = Future()

    def ask() -> None:
        try:
            future.set_result(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return future.result(PATIENCE_SECONDS)
    except concurrent.futures.TimeoutError as error:
        raise FetchError(str(error) or "it does not answer") from error


def reachable(url: str) -> bool:
    """Whether the host of ``url``, or the proxy that serves it, accepts a connection."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return answered.is_set()


@contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder on the disk of the cache, gone after the block with all that is in it.

    What a process that was killed has left goes too.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder, ".download")
        prefix = f".download-{platform.node()}-{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise writing_error(folder, error) from error


def publish(made: Path, target: Path) -> None:
    """Move the folder ``made`` to ``target``, or its files each at once if that is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(target)
    except OSError:
        for path in sorted(made.iterdir()):
            path.replace(target / path.name)
