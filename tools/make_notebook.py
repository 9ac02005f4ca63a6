"""Writes docs/tutorial.ipynb, the page docs/tutorial.md as a notebook: `make pictures`.

A block of Python is a cell, and one of the shell a cell whose lines begin with "!"; what stands
between them is text.
"""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")
CODE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """The page in parts: ("text", "python" or "sh", content)."""
    parts, end = [], 0
    for match in CODE.finditer(page):
        parts += [("text", page[end : match.start()]), (match[1], match[2])]
        end = match.end()
    parts.append(("text", page[end:]))
    return [(kind, content.strip()) for kind, content in parts if content.strip()]


def notebook(page: str) -> str:
    """The page as the JSON of a notebook (nbformat 4)."""
    cells: list[dict[str, Any]] = []
    for number, (kind, content) in enumerate(blocks(page)):
        if kind == "sh":
            content = "\n".join(f"!{line}" for line in content.split("\n"))
        cell: dict[str, Any] = {"id": f"part-{number}", "metadata": {}}
        cell["source"] = content.splitlines(keepends=True)
        code = {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append(cell | ({"cell_type": "markdown"} if kind == "text" else code))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps({"cells": cells, **whole}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text()))
    print(NOTEBOOK)
