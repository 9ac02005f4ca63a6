"""Fetch files so that a dead network fails within seconds and half a file is never used."""

import http.client
import logging
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from similitude.data.cache import cache_folder
from similitude.storage import writing_error

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 4.0
STALL_SECONDS = 5.0  # longest silence of a server, in the middle of a file too
_APT_SECONDS = 600.0

FETCH_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError)


class FetchError(Exception):
    """A download that did not work; the message is the reason in a few words."""


@contextmanager
def fetching(url: str) -> Iterator[None]:
    """Let torchvision's downloader run within the block, but not wait for a silent server.

    Its code sets no time-out, so the default one of new sockets is set, and put back. That default
    does not cover the look-up of the host's name, so the host is tried first, in a thread that can
    be left behind.

    Raises:
        FetchError: the host does not answer, or the block failed.
    """
    if not reachable(url):
        raise FetchError(f"{urlsplit(url).hostname} cannot be reached")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    except FETCH_ERRORS as error:
        reason = str(error).strip().splitlines()
        raise FetchError(
            f"the download from {urlsplit(url).hostname} failed "
            f"({reason[-1][:100] if reason else type(error).__name__})"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


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
    """A temporary folder on the disk of the cache, gone after the block with all that is in it."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise writing_error(folder, error) from error


def publish(made: Path, target: Path) -> None:
    """Move the checked files of the folder ``made`` to the folder ``target``, each at once."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(made.iterdir()):
        path.replace(target / path.name)


def fetch_debian_package(package: str, folder: Path) -> Path:
    """Unpack a Debian package below ``folder``, without root and without installing it.

    The lists of packages of the system are used; where they are missing or too old, lists of our
    own are made. apt checks the archive's signature and the package's hash.

    Raises:
        FetchError: no Debian, no network, no such package.
    """
    state, downloaded, unpacked = folder / "apt", folder / "package", folder / "unpacked"
    for path in (state / "lists/partial", state / "cache/archives/partial", downloaded):
        path.mkdir(parents=True)
    options = ["-o", f"Acquire::http::Timeout={STALL_SECONDS:.0f}", "-o", "Acquire::Retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # apt's own user may not write in a temporary folder of root's
        options += ["-o", "APT::Sandbox::User=root"]
    own = [
        *options,
        *("-o", f"Dir::State::lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"),
        *("-o", "APT::Update::Post-Invoke-Success=", "-o", "APT::Update::Post-Invoke="),
    ]
    try:
        _run("apt-get", *options, "download", package, folder=downloaded)
    except FetchError as error:
        if not _has_command(error):
            raise
        logger.info("%s; trying with fresh lists of packages", error)
        _run("apt-get", *own, "update", folder=downloaded)
        _run("apt-get", *own, "download", package, folder=downloaded)
    archive = next(downloaded.glob(f"{package}_*.deb"), None)
    if archive is None:
        raise FetchError(f"apt-get downloaded no {package}")
    _run("dpkg-deb", "-x", str(archive), str(unpacked), folder=downloaded)
    return unpacked


def _has_command(error: FetchError) -> bool:
    return not isinstance(error.__cause__, FileNotFoundError)


def _run(*command: str, folder: Path) -> None:
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_SECONDS,
        )
    except FileNotFoundError as error:
        raise FetchError(f"there is no {command[0]} here") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{command[0]} failed ({error})") from error
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise FetchError(f"{command[0]} failed ({reason[:150]})")
