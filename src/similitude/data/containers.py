"""Files that hold many samples each, on a disk or at a URL: tar files, or Parquet files."""

from functools import lru_cache
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from similitude.data import row_group_index, row_groups, shard_index, shards
from similitude.data.files import Wanted
from similitude.data.index import Shards
from similitude.data.openers import Found, Opener, is_path
from similitude.data.parts import PARTS
from similitude.data.stores import LOCAL, Store, expand_braces, files_of, is_url, suffix_of
from similitude.errors import UserError
from similitude.files.writing import as_path

_FINDS = {shards.SUFFIX: shards.found, row_groups.SUFFIX: row_groups.found}
_COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_FOLDERS = (*PARTS, "data")  # the last as the hub has it


def opener(wanted: Wanted) -> Opener:
    """Such files of what is wanted, named by a path or a URL."""

    def find(data: Any) -> Found:
        name = str(data)
        if suffix_of(name) in _COMPRESSED:
            raise UserError(f"{name} is compressed, and samples are read in place: decompress it")
        store, paths = _found(data, wanted)
        if not paths:
            kind = suffix_of(name) if suffix_of(name) in _FINDS else " or ".join(_FINDS)
            hub = "; hf:USER/NAME opens all else on the hub" if name.startswith("hf:") else ""
            raise UserError(
                f"no {kind} files at {name}: name them, as s3://bucket/x-{{000..099}}.tar{hub}"
            )
        kinds = sorted({_kind(path) for path in paths})
        if len(kinds) > 1:
            raise UserError(f"{name} has {' and '.join(kinds)} files: name those of one kind")
        return _FINDS[kinds[0]](name, Shards.of(store, paths), wanted)

    def claims(data: Any) -> bool:
        if is_url(data) or not is_path(data):
            return is_url(data)
        path = as_path(data)
        is_compressed = path.suffix.lower() in _COMPRESSED and path.is_file()
        return is_compressed or bool(containers_of(path, wanted))

    return Opener(claims, find)


def begins_with(data: Any, wanted: Wanted) -> bool:
    """Whether the first of the files that a user named is of what is wanted.

    Of a tar file most of the first samples have such a file; of a Parquet file that is declared.

    Raises:
        UserError: a URL where nobody answers, or a Parquet file that is none.
    """
    if not is_url(data) and not is_path(data):
        return False
    look = _look_at_url(data) if is_url(data) else _look(*_found(data, wanted))
    if isinstance(look, list):
        return 2 * sum(any(s in wanted.suffixes for s in sample) for sample in look) > len(look)
    return look == wanted.feature


@lru_cache(8)  # every kind asks, and each would ask the store again
def _look_at_url(url: str) -> list[frozenset[str]] | str | None:
    return _look(*files_of(url, _FINDS, _FOLDERS))


def _look(store: Store, paths: list[str]) -> list[frozenset[str]] | str | None:
    """The suffixes of each of the first samples, or the feature that is declared."""
    first = paths[:1]
    if not first or _kind(first[0]) not in _FINDS:
        return None
    shards_of = Shards.of(store, first)
    if _kind(first[0]) == shards.SUFFIX:
        return shard_index.first_suffixes(shards_of)
    return row_group_index.first_declared(shards_of)


def _found(data: Any, wanted: Wanted) -> tuple[Store, list[str]]:
    if is_url(data):
        return files_of(data, _FINDS, _FOLDERS)
    return LOCAL, [str(path) for path in containers_of(as_path(data), wanted)]


def containers_of(path: Path, wanted: Wanted) -> list[Path]:
    """The files that a path means: itself, those of a pattern, all of a folder of them.

    In a folder they lie side by side or in folders of parts (``train/``, ``val/``). A folder that
    holds samples or other folders too is none of them.
    """
    if not path.is_dir():
        is_one = _is_one(path)
        if is_one and "{" in path.name and not path.is_file():
            # what is missing is told by its name
            return [path.with_name(name) for name in expand_braces(path.name)]
        found = [path] if path.is_file() else path.parent.glob(path.name)
        return sorted(p for p in found if p.is_file()) if is_one else []
    try:
        entries = [p for p in path.iterdir() if not p.name.startswith(".")]
    except OSError:  # who lists the folder next says why
        return []
    if any(p.suffix.lower() in wanted.suffixes for p in entries):
        return []
    folders = sorted(p for p in entries if p.is_dir())
    if not folders:
        return sorted(p for p in entries if _is_one(p) and p.is_file())
    below = [containers_of(p, wanted) if p.name.lower() in _FOLDERS else [] for p in folders]
    return list(chain.from_iterable(below)) if all(below) else []


def _kind(path: str) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix if suffix in _FINDS else suffix_of(path)  # behind it an address may ask for more


def _is_one(path: Path) -> bool:
    return path.suffix.lower() in _FINDS
