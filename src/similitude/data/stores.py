"""Files wherever fsspec finds them (s3://, gs://, hf://, http://, a disk), read by ranges of bytes.

What fails on the way is asked for again, for half a minute; then one sentence names the file. A
server that has never answered is given up after a second.
"""

import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem, available_protocols, registry
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from similitude.distributed.threads import cores
from similitude.errors import UserError, did_you_mean

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Requests under way at once: they wait for the network, not for a core.
REQUESTS = 32
# Bytes that a file which is read on asks for at once. Headers of large samples are then read for a
# small part of the bytes; larger ones are faster for each thread, where the network has the room.
BUFFER = 1 << 14
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before what failed is asked for again
_PAUSES_UNHEARD = 1  # so many of them where nobody has ever answered: the address may be wrong
_CONNECT_SECONDS, _SILENT_SECONDS = 10.0, 30.0  # of an http server

# That people mean; fsspec knows others too.
_USUAL = ("s3", "gs", "hf", "https", "http", "file")

# What the file systems call that which changes with a file.
_IDENTITY = (
    *("ETag", "etag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "last_modified"),
    *("generation", "md5Hash", "blob_id", "mtime", "created"),
)
_LISTING = ("hf",)  # lists the folder of a file to say how long it is, and keeps the list
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def is_url(data: object) -> bool:
    """Whether what a user gave names a file system of fsspec's: ``s3://...``."""
    return isinstance(data, str) and re.match(r"[A-Za-z][\w+.-]*://", data) is not None


def expand_braces(text: str) -> Iterator[str]:
    """``x-{000..012}.tar`` as WebDataset has it: every number, with its zeros; ``{a,b}`` too."""
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last, listed = found.groups()
    if listed is None:
        width = len(first) if first.startswith("0") else 0
        parts: Sequence[str] = [f"{n:0{width}d}" for n in range(int(first), int(last) + 1)]
    else:
        parts = listed.split(",")
    for part in parts:
        yield from expand_braces(text[: found.start()] + part + text[found.end() :])


@dataclass(frozen=True)
class Store:
    """A file system of which many threads read at once.

    Attributes:
        fs: fsspec's.
        answered: set once anything was had of it.
    """

    fs: AbstractFileSystem
    answered: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    _listing: "_Listing" = field(default_factory=lambda: _Listing(), repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process asks for itself: what threads share cannot be sent."""
        return Store, (self.fs,)

    @property
    def is_local(self) -> bool:
        """Whether it is a disk of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def readers(self) -> int:
        """Threads that should read and decode at once."""
        return cores() if self.is_local else max(cores(), REQUESTS)

    def shown(self, path: str) -> str:
        """A path as people know it."""
        return path if self.is_local else self.fs.unstrip_protocol(path)

    def listed(self, pattern: str) -> list[str]:
        """The files of a pattern, sorted.

        Raises:
            UserError: the file system does not answer, or does not list.
        """
        found = self._patiently(pattern, lambda: self.fs.glob(pattern))
        return sorted(cast(list[str], found))

    def facts(self, paths: Sequence[str]) -> list[tuple[int, str]]:
        """Length and a stamp of each file, which is another one once the file has changed.

        Raises:
            UserError: a file is not there, or does not say how long it is.
        """
        # the first alone, so that one sentence tells of no network
        facts = [self.facts_of(path) for path in paths[:1]]
        with ThreadPoolExecutor(self.readers, "similitude-files") as threads:
            facts += threads.map(self.facts_of, paths[1:])
        if not self.is_local and facts:
            self.read(paths[0], 0, 1)  # before many threads get whole files in place of ranges
        return facts

    def facts_of(self, path: str, *, now: bool = False) -> tuple[int, str]:
        """Of one file; see :meth:`facts`.

        Args:
            path: Of the file.
            now: Whether a file system that lists the folder has to do so again. Others that keep
                a list say it in other words without one, so that nothing could be compared.
        """
        if self.is_local:
            status = self._patiently(path, Path(path).stat)
            stamp = f"{Path(path).resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n"
            return status.st_size, stamp
        if now and _protocol(self.fs) in _LISTING:
            asked = time.monotonic()
            info = self._patiently(path, lambda: self._listing.info(self.fs, path, asked))
        else:
            info = self._patiently(path, lambda: self.fs.info(path))
        if not isinstance(info.get("size"), int):
            raise UserError(f"{self.shown(path)} does not say how long it is: {_INSTEAD}")
        if info.get("partial") is False:
            raise self._without_ranges(path)
        identity = "\0".join(f"{info[name]}" for name in _IDENTITY if info.get(name) is not None)
        return info["size"], f"{self.shown(path)}\0{info['size']}\0{identity}\n"

    def read(self, path: str, start: int, stop: int) -> bytes:
        """These bytes of a file; fewer where it ends before.

        Raises:
            UserError: it is not there, may not be read, or the network is gone.
        """
        content = self._patiently(path, lambda: self._range(path, start, stop))
        if len(content) > stop - start:
            raise self._without_ranges(path)
        return content

    def _range(self, path: str, start: int, stop: int) -> bytes:
        is_default = type(self.fs).cat_file is AbstractFileSystem.cat_file
        if is_default and not self.fs.async_impl:  # reads megabytes ahead
            with self.fs.open(path, "rb", cache_type="none") as file:
                file.seek(start)
                return cast(bytes, file.read(stop - start))
        return cast(bytes, self.fs.cat_file(path, start=start, end=stop))

    def open(self, path: str, size: int) -> BinaryIO:
        """A file of a known length to be read on, and in which what lies between may be skipped."""
        if self.is_local:
            return self._patiently(path, lambda: Path(path).open("rb"))
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, path, size), BUFFER))

    def _patiently(self, path: str, ask: Callable[[], T]) -> T:
        """What is asked for, asked again while an error may pass."""
        tries = 0
        while True:
            try:
                found = ask()
            except Exception as error:  # whatever a file system raises
                status = _status(error)
                if status == 416:  # nothing at that place of the file
                    return cast(T, b"")
                if isinstance(error, FileNotFoundError) and status in (None, 404, 410):
                    raise UserError(f"there is no file {self.shown(path)}") from error
                unheard = not self.answered.is_set() and _is_nobody_there(error)
                pauses = () if self.is_local else _PAUSES[: _PAUSES_UNHEARD if unheard else None]
                if tries >= len(pauses) or not _may_pass(error, status):
                    raise self._given_up(path, error, unheard=unheard) from error
                told = f"asked again in {pauses[tries]:g} s ({tries + 1} of {len(pauses)})"
                logger.warning("%s: %s; %s", self.shown(path), _reason(error), told)
                time.sleep(pauses[tries])
                tries += 1
            else:
                self.answered.set()
                return found

    def _given_up(self, path: str, error: Exception, *, unheard: bool) -> UserError:
        advice = "" if self.is_local else "; a run that had begun goes on with --resume"
        if unheard:
            advice = "; see that the address is right and the server is up"
        return UserError(f"cannot read {self.shown(path)}: {_reason(error)}{advice}")

    def _without_ranges(self, path: str) -> UserError:
        return UserError(f"the server of {self.shown(path)} gives no ranges of a file: {_INSTEAD}")


_INSTEAD = "download the files, and name them on the disk"


class _Listing:
    """What a file system says that lists a folder to answer, listed again.

    All threads that wait meanwhile have one list: it tells of every file of the folder. The file
    system's own list is looked at by others, so nothing is dropped there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, dict[str, dict[str, Any]]]] = {}

    def info(self, fs: AbstractFileSystem, path: str, asked: float) -> dict[str, Any]:
        """Of a file, as it was after ``asked``."""
        folder = cast(str, fs._parent(path))
        with self._lock:
            began, files = self._known.get(folder, (-1.0, {}))
            if began < asked:
                began = time.monotonic()
                files = {file["name"]: file for file in fs.ls(folder, detail=True, refresh=True)}
                self._known[folder] = began, files
        return files[path] if path in files else fs.info(path)


def _protocol(fs: AbstractFileSystem) -> str:
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


class _Ranges(io.RawIOBase):
    """A file of a store, each read of which is a range of bytes."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        self._store, self._path, self._size, self._at = store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._size, self._at + len(buffer))
        if stop <= self._at:
            return 0
        content = self._store.read(self._path, self._at, stop)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


LOCAL = Store(LocalFileSystem(skip_instance_cache=True))


def open_url(url: str) -> tuple[Store, str]:
    """The file system that a URL names, and the path in it.

    Raises:
        UserError: there is no such file system, or what it needs is not installed.
    """
    protocol = url.partition("://")[0]
    if protocol not in {*available_protocols(), *registry}:
        meant = did_you_mean(protocol, _USUAL)
        raise UserError(f"cannot open {url}: there is no protocol {protocol!r}; {meant}")
    try:
        fs, path = url_to_fs(url, **_options(protocol))
    except ImportError as error:
        raise UserError(
            f"{url} needs a package that is not there ({_reason(error)}): pip install "
            "'similitude[remote]'"
        ) from error
    except Exception as error:  # of many kinds: wrong settings
        raise UserError(f"cannot open {url}: {_reason(error)}") from error
    return Store(fs), path


def _options(protocol: str) -> dict[str, Any]:
    """A server that is silent is left within seconds; others have such limits by themselves."""
    if protocol not in ("http", "https"):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
    return {"client_kwargs": {"timeout": timeout}}


def files_of(
    url: str, suffixes: Collection[str], folders: Collection[str] = ()
) -> tuple[Store, list[str]]:
    """The files that a URL means: its brace ranges, its pattern, or those of a folder.

    Args:
        url: Braces are expanded everywhere, ``*`` where the file system lists files.
        suffixes: Of the files of a folder.
        folders: Names of those in which files of a folder may lie too, in small letters.

    Raises:
        UserError: as :func:`open_url`, or nothing is listed.
    """
    urls = list(expand_braces(url))
    if not urls:
        raise UserError(f"{url} names no file: a range goes from the smaller number to the larger")
    store, _ = open_url(urls[0])
    strip = type(store.fs)._strip_protocol
    paths = [cast(str, strip(one)) for one in urls]
    if suffix_of(url) not in suffixes:
        folder, ends = [p.rstrip("/") for p in paths], tuple(suffixes)
        listed = [(store.listed(f"{p}/*"), store.listed(f"{p}/*/*")) for p in folder]
        below = [[f for f in beside if f.lower().endswith(ends)] for beside, _ in listed]
        below += [
            [f for f in deeper if f.lower().endswith(ends) and _folder(f) in folders]
            for _, deeper in listed
        ]
    else:
        below = [store.listed(p) if "*" in p else [p] for p in paths]
    return store, list(chain.from_iterable(below))


def suffix_of(url: str) -> str:
    """In small letters; without what is asked for at an http address."""
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def _folder(path: str) -> str:
    return PurePosixPath(path).parent.name.lower()


def _status(error: BaseException) -> int | None:
    """The number with which a server refused; 0 where none answered, None where nothing is known.

    fsspec takes all for a missing file where it asks an http server for the length of one.
    """
    answer = getattr(error, "response", None)  # of requests, httpx; others have it themselves
    if isinstance(answer, Mapping):  # of botocore
        number = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return number if isinstance(number, int) else None
    for where, name in ((error, "status"), (answer, "status_code"), (error, "code")):
        if isinstance(number := getattr(where, name, None), int):
            return number
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _status(error.__cause__) or 0
    return None


def _is_nobody_there(error: BaseException | None) -> bool:
    """Whether a connection was refused, or no machine has the name."""
    while error is not None:
        inner = getattr(error, "os_error", None)  # of aiohttp
        if any(isinstance(e, ConnectionRefusedError | socket.gaierror) for e in (error, inner)):
            return True
        error = error.__cause__
    return False


def _may_pass(error: Exception, status: int | None) -> bool:
    """Whether the same may work in a moment: no mistake in what was asked, or in who asks."""
    if status is not None:
        return status == 0 or status >= 500 or status in (408, 429)
    kinds = (PermissionError, ImportError, TypeError, ValueError, AttributeError, LookupError)
    return not isinstance(error, (*kinds, NotImplementedError, UserError)) and (
        "Credentials" not in type(error).__name__
    )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        return _reason(error.__cause__)
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0][:200]
