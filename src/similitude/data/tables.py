"""Tables of text: CSV files of somebody else's, row by row."""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from similitude.errors import UserError
from similitude.files.reading import MAX_LIST, read_bytes


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its line.

    A comma, semicolon or tab separates the cells.

    Args:
        path: Text in UTF-8, or UTF-16 with its mark.

    Raises:
        UserError: No such file, no text, or a quotation mark that is not closed.
    """
    text = _text(path)
    line = 0
    try:
        # the comma where none occurs; a separator inside quotes is none
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=lambda d: len(next(csv.reader([first], delimiter=d), ())))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in reader:
            if any("\n" in cell for cell in row):
                raise csv.Error("a quotation mark is not closed")
            if any(cell.strip() for cell in row):
                line = reader.line_num
                yield line, row
    except csv.Error as error:
        raise UserError(f"{path} line {line + 1} cannot be read: {error}") from error


def _text(path: Path) -> str:
    content = read_bytes(path, MAX_LIST)
    try:
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: save it as CSV in UTF-8") from error
