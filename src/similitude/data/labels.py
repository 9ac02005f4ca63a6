"""Labels from a CSV file, for evaluations of folders that have no class folders.

Letters: N images.
"""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.classes import numbered_classes
from similitude.data.folders import FolderSource, file_names
from similitude.data.source import Source
from similitude.data.tables import read_table
from similitude.errors import UserError
from similitude.files.writing import as_path

_FILE_COLUMNS = ("file", "filename", "file_name", "name", "image", "path", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "y")


def read_labels(csv_path: str | Path, source: Source) -> tuple[Int[Tensor, " N"], list[str]]:
    """Labels of the images of ``source`` from a table with the columns file and label.

    A file is given relative to the folder, or by its bare name where only one image has it. The
    header is optional; a comma, semicolon or tab separates the columns. A row about an image of
    another split of the same folder is left out.

    Args:
        csv_path: The table, in UTF-8.
        source: Whose images are labeled.

    Returns:
        Class of each image, int64 of shape [N], -1 for an image without a row or with an empty
        label; and the names of all classes of the table, in order (by value if they are numbers).

    Raises:
        UserError: no such file, rows that match no image or contradict each other, or no row that
            matches.
    """
    path = as_path(csv_path)
    given, rows = _given(path, source, LABEL_COLUMNS)
    numbers, class_names = numbered_classes(label for _, _, label in rows)
    if numbers is None or class_names is None:
        raise UserError(f"{path} names no class: all its labels are empty or -1")
    number = dict(zip((label for _, _, label in rows), numbers.tolist(), strict=True))
    labels = torch.full((len(source),), -1, dtype=torch.int64)
    for i, label in given.items():
        labels[i] = number[label]
    return labels, class_names


def read_groups(csv_path: str | Path, source: Source, column: str) -> list[str]:
    """What each image belongs to (a slide, a film, a patient), from a column of such a table.

    Args:
        csv_path: See :func:`read_labels`; with a header.
        source: Whose images are grouped.
        column: What the header calls it.

    Returns:
        A text for each image; empty for one without a row.

    Raises:
        UserError: as :func:`read_labels`, or there is no such column.
    """
    given, _ = _given(as_path(csv_path), source, (column.strip().lower(),))
    return [given.get(i, "") for i in range(len(source))]


def columns_of(csv_path: str | Path) -> list[str]:
    """What the first row of such a table says, in small letters."""
    rows = read_table(as_path(csv_path))
    return [cell.strip().lower() for cell in next(rows, (0, []))[1]]


def _given(
    path: Path, source: Source, columns: Sequence[str]
) -> tuple[dict[int, str], list[tuple[int, str, str]]]:
    """The text of each image that has one, and all rows, in the first of these columns."""
    position = _positions(source.names)
    rows = _rows(path, position, columns)
    folder = source.origin
    if isinstance(folder, FolderSource) and folder.folder != folder.base:
        # the table may be relative to the folder above the splits
        below = folder.folder.relative_to(folder.base).as_posix()
        position = _positions(source.names, f"{below}/") | position
    given: dict[int, str] = {}
    unmatched: list[tuple[int, str]] = []
    for line, file, label in rows:
        i = position.get(file)
        if i is None:
            unmatched.append((line, file))
        elif i < 0:
            raise UserError(
                f"{path} line {line}: {file!r} is the name of several samples; write the folder too"
            )
        elif given.setdefault(i, label) != label:
            raise UserError(
                f"{path} line {line}: {file!r} is labeled {label!r} here and {given[i]!r} before"
            )
    if unmatched and isinstance(folder, FolderSource) and folder.folder != folder.base:
        elsewhere = _positions(file_names(folder.base, folder.wanted))
        elsewhere |= {name.split("/", 1)[-1]: 0 for name in elsewhere}
        unmatched = [row for row in unmatched if row[1] not in elsewhere]
    # a table of more than this folder labels all of it; one with a wrong name leaves it without
    if (unmatched and len(given) < len(source)) or not given:
        if not rows:
            raise UserError(f"{path} holds no label: it needs the columns file,label")
        line, file = unmatched[0] if unmatched else (rows[0][0], rows[0][1])
        count = len(unmatched) or len(rows)
        raise UserError(
            f"{path}: {count} of {len(rows)} rows match no sample of {source.name}, the first is "
            f"line {line}: {file!r} (one there is called {source.names[0]!r})"
            + ("; call the columns of a header file,label" if line == 1 and count == 1 else "")
        )
    return given, rows


def _positions(names: Sequence[str], prefix: str = "") -> dict[str, int]:
    """Position by relative name and by bare name; -1 for a bare name of several images."""
    bare: dict[str, int] = {}
    names = [normalize("NFC", name) for name in names]
    for i, name in enumerate(names):
        last = name.rsplit("/", 1)[-1]
        bare[last] = -1 if last in bare else i
    return bare | {prefix + name: i for i, name in enumerate(names)}


def _rows(
    path: Path, position: dict[str, int], columns: Sequence[str]
) -> list[tuple[int, str, str]]:
    """Line number, file and text of each row that is not empty."""
    table = list(read_table(path))
    file_column, label_column = 0, 1
    if table and _is_header(table[0][1], position):
        header = [cell.strip().lower() for cell in table[0][1]]
        file_column = next((i for i, c in enumerate(header) if c in _FILE_COLUMNS), 0)
        named = next((i for i, c in enumerate(header) if c in columns), None)
        if named is None:
            raise UserError(
                f"{path} has no column {columns[0]!r}: its columns are {', '.join(header)}"
            )
        label_column = named
        table = table[1:]
    elif columns is not LABEL_COLUMNS:
        raise UserError(f"{path} has no header that names a column {columns[0]!r}: add one")
    rows = []
    for line, row in table:
        if len(row) <= max(file_column, label_column):
            raise UserError(
                f"{path} line {line} has {len(row)} column(s), but file,label are needed"
            )
        file = normalize("NFC", row[file_column].strip()).replace("\\", "/").removeprefix("./")
        rows.append((line, file, row[label_column].strip()))
    return rows


def _is_header(row: list[str], position: dict[str, int]) -> bool:
    cells = [cell.strip().lower() for cell in row]
    known = any(c in _FILE_COLUMNS for c in cells) or any(c in LABEL_COLUMNS for c in cells)
    return known and not any(cell.strip() in position for cell in row)
