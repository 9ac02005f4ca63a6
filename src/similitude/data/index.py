"""What is known of files that hold many samples each: made once, kept in the cache, checked.

index.json    facts, and the checksums of them and of the other files
"""

import hashlib
import json
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from similitude.data.cache import cache_folder
from similitude.data.stores import Store
from similitude.distributed import first_then_others
from similitude.errors import UserError
from similitude.files.writing import checksum, new_folder, remove_temporaries

T = TypeVar("T")


@dataclass(frozen=True)
class Shards:
    """Files of many samples each, and what tells one content of them from the next.

    Attributes:
        store: Where they lie.
        paths: Each in the store.
        sizes: Bytes of each.
        stamps: Of each; another one once it has changed.
    """

    store: Store
    paths: list[str]
    sizes: list[int]
    stamps: list[str]

    @classmethod
    def of(cls, store: Store, paths: Sequence[str]) -> "Shards":
        """Those at these paths, which are looked for."""
        facts = store.facts(paths)
        return cls(store, list(paths), [size for size, _ in facts], [stamp for _, stamp in facts])

    def some(self, numbers: Sequence[int]) -> "Shards":
        """Those of these numbers."""
        return Shards(
            self.store,
            [self.paths[n] for n in numbers],
            [self.sizes[n] for n in numbers],
            [self.stamps[n] for n in numbers],
        )

    def shown(self, number: int) -> str:
        """The path of one, as people know it."""
        return self.store.shown(self.paths[number])

    def has_changed(self, number: int) -> bool:
        """Whether one is another now than when it was looked for."""
        return self.store.facts_of(self.paths[number], now=True)[1] != self.stamps[number]

    def fingerprint(self) -> str:
        """A hash of every shard's place, length and time."""
        stamps = "".join(self.stamps).encode(errors="surrogateescape")
        return hashlib.sha256(stamps).hexdigest()

    def each(self, read: Callable[[int, threading.Event], T], title: str) -> Iterator[T]:
        """What is read of every shard, some at once, in their order.

        Args:
            read: Given the number of a shard, and what is set once nobody waits any more.
            title: Of the progress bar.
        """
        left = iter(range(len(self.paths)))
        waiting: deque[Future[T]] = deque()
        left_off = threading.Event()
        with (
            ThreadPoolExecutor(self.store.readers, "similitude-headers") as threads,
            tqdm(total=len(self.paths), desc=title, delay=2, leave=False) as shown,
        ):
            try:
                while True:
                    while len(waiting) < 2 * self.store.readers:
                        if (number := next(left, None)) is None:
                            break
                        waiting.append(threads.submit(read, number, left_off))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
                    shown.update()
            finally:
                left_off.set()
                for future in waiting:
                    future.cancel()


def kept_index(
    key: str, columns: Sequence[str], write: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """The folder and the facts of an index, made now or found in the cache.

    Args:
        key: Another one wherever the index would be another.
        columns: Names of its files.
        write: Writes them to a folder, and returns the facts, which JSON can hold.

    Raises:
        UserError: as ``write``, or no room on the disk.
    """
    folder = cache_folder() / "shards" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def ready() -> dict[str, Any]:
        facts = _read_facts(folder, columns)
        return _write(folder, columns, write) if facts is None else facts

    return folder, first_then_others(ready)


def _write(
    folder: Path, columns: Sequence[str], write: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    remove_temporaries(folder.parent)
    if folder.exists():  # damaged
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with new_folder(folder) as temporary:
            facts = write(temporary)
            checksums = _checksums(temporary, columns, facts)
            text = json.dumps({"facts": facts, "checksums": checksums})
            (temporary / "index.json").write_text(text, encoding="utf-8")
    except UserError:
        if (made := _read_facts(folder, columns)) is not None:  # by another run, meanwhile
            return made
        raise
    return facts


def _read_facts(folder: Path, columns: Sequence[str]) -> dict[str, Any] | None:
    """The facts of an index; None if there is none, or not a whole one."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        is_whole = _checksums(folder, columns, index["facts"]) == index["checksums"]
        return index["facts"] if is_whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _checksums(folder: Path, columns: Sequence[str], facts: dict[str, Any]) -> list[int | str]:
    found: list[int | str] = [hashlib.sha256(json.dumps(facts).encode()).hexdigest()]
    for column in columns:
        path = folder / column
        with path.open("rb") as file:
            found.append(checksum(file, path.stat().st_size))
    return found
