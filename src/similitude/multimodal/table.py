"""A table that names what each sample consists of: CSV, TSV or Parquet.

A column whose cells are files of one kind is a sensor of that kind; a column of other words is a
sensor of texts. ``name``, ``label`` and ``split`` are no sensors. An empty cell is a missing entry.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.classes import numbered_classes
from similitude.data.files import Wanted
from similitude.data.folders import FolderSource
from similitude.data.openers import Found, Opener, is_path
from similitude.data.parts import parts_of
from similitude.data.row_group_index import holds_files
from similitude.data.source import FileSource, Source, numbered
from similitude.errors import UserError, visible
from similitude.files.reading import MAX_LIST, read_bytes
from similitude.files.writing import as_path
from similitude.modalities import KINDS, modality

_MARKS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
SUFFIXES = (".csv", ".tsv", ".parquet")
NAME, LABEL, SPLIT = ("name", "id"), ("label", "class"), ("split", "part")
SOUND = ("sound", "audio")  # columns in which a video stands for its sound
_NOT_SENSORS = {*NAME, *LABEL, *SPLIT}


@dataclass(frozen=True, kw_only=True)
class TableSource(Source):
    """The rows of a table, or of one part of it.

    Attributes:
        folder: What the files of its cells are relative to.
        files: What the cells of all columns name, where somebody has them already.
        kinds: Kind of data of each sensor, in the order of the columns.
        cells: A file or a text of each sample for each sensor; empty where it is missing.
        stamp: Hash of the table.
    """

    folder: Path = Path()
    files: FileSource | None = None
    kinds: dict[str, str]
    cells: dict[str, list[str]]
    stamp: str

    def fingerprint(self) -> str:
        """A hash of the table, and of length and time of every file that it names."""
        digest = hashlib.sha256(f"{self.name}\0{self.stamp}".encode())
        for sensor in self.kinds:
            named = self._files(sensor) or self.column(sensor)
            digest.update(named.fingerprint().encode())
        return digest.hexdigest()

    def column(self, sensor: str, config: Any | None = None) -> Source:
        """The samples of one sensor, each once, in the order of their names.

        Args:
            sensor: a column's name.
            config: of its data, where a recipe is known already.
        """
        kind, files = modality(self.kinds[sensor]), self._files(sensor)
        if files is None:
            return kind.of_texts(self._name(sensor), self._values(sensor))
        return kind.of_files(files, sensor, config)

    def _files(self, sensor: str) -> FileSource | None:
        """What the cells of a column name, or None where they are texts."""
        kind, values = modality(self.kinds[sensor]), self._values(sensor)
        if not kind.suffixes:
            return None
        if self.files is not None:
            return self.files
        return FolderSource(
            name=self._name(sensor),
            names=[visible(value) for value in values],
            folder=self.folder,
            files=values,
            base=self.folder,
            wanted=Wanted(kind.kind, kind.suffixes),
        )

    def _name(self, sensor: str) -> str:
        return f"{self.name}, column {sensor}"

    def _values(self, sensor: str) -> list[str]:
        return sorted({cell for cell in self.cells[sensor] if cell})

    def rows_of(self, sensor: str, names: Sequence[str]) -> Int[Tensor, " N"]:
        """Position of each sample's entry among loaded ones of these names, -1 where missing."""
        at = {visible(name): i for i, name in enumerate(names)}
        found = [at.get(visible(cell), -1) if cell else -1 for cell in self.cells[sensor]]
        return torch.tensor(found, dtype=torch.int64)


def table_of(source: Source, kinds: Mapping[str, str]) -> TableSource:
    """Files seen by several sensors or with texts beside them, as a table: each row names one.

    Args:
        source: of the files.
        kinds: kind of data of each sensor, by its name.
    """
    files, names, notes = source.origin, list(source.names), source.notes
    assert isinstance(files, FileSource)
    repeated, times = Counter(names).most_common(1)[0]
    if times > 1:  # entries are found again by their names
        raise UserError(
            f"{source.name} has {times} samples that are called {repeated}, and each needs a name "
            "of its own: rename the files, or name them in a table"
        )
    cells = dict.fromkeys(kinds, names)
    if sensors := [sensor for sensor, kind in kinds.items() if not modality(kind).suffixes]:
        cells |= dict.fromkeys(sensors, files.texts())
        of = files.texts_of
        notes += (f"texts are those of {of}" if of else "nothing is written beside its samples",)
    return TableSource(
        name=source.name,
        names=names,
        labels=source.labels,
        class_names=source.class_names,
        notes=notes,
        files=files,
        kinds=dict(kinds),
        cells=cells,
        stamp=source.fingerprint(),
    )


def is_table(data: Any) -> bool:
    """Whether a user named a table; a Parquet file that holds files itself is none."""
    if not is_path(data):
        return False
    path = as_path(data)
    is_there = path.suffix.lower() in SUFFIXES and path.is_file()
    return is_there and not (path.suffix.lower() == ".parquet" and holds_files(path))


def _find(data: Any) -> Found:
    path = as_path(data)
    whole, splits = _read(path)
    parts = parts_of(set(splits))

    def part(name: str | None) -> TableSource:
        if name is None:
            return whole
        rows = [i for i, split in enumerate(splits) if split == name]
        if not rows:
            raise UserError(f"{path} has no rows of the part {name!r}: that takes a column split")
        return _some_rows(whole, rows, f"{path} {name}")

    return Found(part, parts, parts.get("train"))


OPENER = Opener(is_table, _find)


def _some_rows(source: TableSource, rows: list[int], name: str) -> TableSource:
    return replace(
        source,
        name=name,
        names=[source.names[i] for i in rows],
        labels=None if source.labels is None else source.labels[rows],
        cells={s: [cells[i] for i in rows] for s, cells in source.cells.items()},
    )


def _read(path: Path) -> tuple[TableSource, list[str]]:
    header, rows, stamp = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    known = {name.lower(): name for name in header}

    def special(names: tuple[str, ...]) -> list[str] | None:
        return next((columns[known[name]] for name in names if name in known), None)

    kinds: dict[str, str] = {}
    notes = []
    for name, cells in columns.items():
        if name.lower() in _NOT_SENSORS:
            continue
        if (kind := _kind_of(name, cells)) is None:
            notes.append(f"column {visible(name)} of {path} is not used: it has numbers alone")
        else:
            kinds[name] = kind
    for name in kinds:
        if hasattr(torch.nn.ModuleDict(), name) or not set(name).isdisjoint(".="):
            raise UserError(
                f"the column {visible(name)!r} of {path} gives its name to a network and its "
                "settings, which cannot have this one: rename it"
            )
    if not kinds:
        raise UserError(
            f"{path} has no column of files or texts: a row names the files of a sample"
        )
    cells = {name: columns[name] for name in kinds}
    cells = {s: _there(path, s, values, kinds[s]) for s, values in cells.items()}
    kept = [i for i in range(len(rows)) if any(values[i] for values in cells.values())]
    if not kept:
        raise UserError(f"no row of {path} has an entry: a row names the files of a sample")
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} rows of {path} are left out: they have no entry")
    labels, class_names = numbered_classes(special(LABEL) or [])
    names = special(NAME) or numbered(len(rows))
    repeated = [name for name, n in Counter(names).most_common(1) if n > 1]
    if repeated:
        raise UserError(f"{path} has the name {visible(repeated[0])!r} more than once")
    whole = TableSource(
        name=str(path),
        names=[visible(name) for name in names],
        labels=labels,
        class_names=class_names,
        notes=tuple(notes),
        folder=path.parent,
        kinds=kinds,
        cells=cells,
        stamp=stamp,
    )
    splits = [split.strip() for split in special(SPLIT) or [""] * len(rows)]
    return _some_rows(whole, kept, str(path)), [splits[i] for i in kept]


def _kind_of(name: str, cells: Sequence[str]) -> str | None:
    """The kind of data most of whose files have such suffixes; texts, or None for numbers."""
    suffixes = Counter(Path(cell).suffix.lower() for cell in cells if cell)
    for kind in KINDS:
        wanted = modality(kind).suffixes
        if wanted and 2 * sum(suffixes[suffix] for suffix in wanted) > suffixes.total():
            return "audio" if kind == "video" and name.lower() in SOUND else kind
    return None if all(_is_number(cell) for cell in cells if cell) else "text"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _there(path: Path, column: str, cells: list[str], kind: str) -> list[str]:
    """The cells, without the files that are not there."""
    if not modality(kind).suffixes:
        return cells
    there = [cell if cell and (path.parent / cell).is_file() else "" for cell in cells]
    if not any(there):
        named = [cell for cell in cells if cell]
        raise UserError(
            f"none of the {len(named):,} files in column {visible(column)} of {path} is there, the "
            f"first is {visible(named[0])!r}: paths are relative to {path.parent}"
        )
    return there


def _csv(path: Path) -> tuple[list[str], list[list[str]], str]:
    content = read_bytes(path, MAX_LIST)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8, as a table of CSV is") from error
    first = text.partition("\n")[0]
    mark = max("\t;,", key=first.count)
    try:
        found = [row for row in csv.reader(io.StringIO(text), delimiter=mark, strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path} is no table: {error}") from error
    header, rows = [cell.strip() for cell in found[0]] if found else [], found[1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(
                f"row {number} of {path} has {len(row)} cells, and the header has {len(header)}: "
                f"cells are separated by {_MARKS[mark]}, which a text has to hold in quotes"
            )
    _check_header(path, header, len(rows))
    stripped = [[cell.strip() for cell in row] for row in rows]
    return header, stripped, hashlib.sha256(content).hexdigest()


def _parquet(path: Path) -> tuple[list[str], list[list[str]], str]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise UserError(
            "a Parquet file needs pyarrow: pip install 'similitude[parquet]'"
        ) from error
    try:
        table = read_table(path)
        found = [table.column(name).to_pylist() for name in table.column_names]
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is no Parquet file: {error}") from error
    _check_header(path, table.column_names, table.num_rows)
    columns = [["" if cell is None else str(cell).strip() for cell in column] for column in found]
    rows = [list(row) for row in zip(*columns, strict=True)]
    stamp = hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()
    return list(table.column_names), rows, stamp


def _check_header(path: Path, header: Sequence[str], rows: int) -> None:
    if not rows:
        raise UserError(
            f"{path} has no rows: a header names the columns, a row each sample's files"
        )
    if any(not name for name in header):
        raise UserError(f"a column of {path} has no name in the header")
    if len({name.lower() for name in header}) < len(header):
        raise UserError(f"two columns of {path} have one name")
