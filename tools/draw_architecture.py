"""Draws docs/architecture.svg from the code: `make architecture`.

A box is an entry at the top of the package, a row a layer of import-linter's contract in
pyproject.toml; under a name stand its lines of code and the first sentence it says of itself. An
arrow goes from a row to each row below that it imports, unless a row between does so too.
"""

import ast
import html
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib

HERE = Path(__file__).parents[1]
SOURCE = HERE / "src" / "similitude"
PICTURE = HERE / "docs" / "architecture.svg"
WIDTH, BOX, HEIGHT, GAP, LEFT = 1180, 178, 62, 12, 20


def rooms() -> dict[str, list[Path]]:
    found = {}
    for path in sorted(SOURCE.iterdir()):
        if path.is_dir() and path.name != "__pycache__":
            found[path.name] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py" and not path.stem.startswith("__"):
            found[path.stem] = [path]
    return found


def layers() -> list[list[str]]:
    linter = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["importlinter"]
    rows = next(c["layers"] for c in linter["contracts"] if c["type"] == "layers")
    return [[name.strip().split(".")[1] for name in row.split(":")] for row in rows]


def imports(files: list[Path]) -> set[str]:
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("similitude."):
                found.add(node.module.split(".")[1])
    return found


def said(files: list[Path]) -> str:
    first = next((p for p in files if p.name == "__init__.py"), files[0])
    text = ast.get_docstring(ast.parse(first.read_text())) or ""
    return text.split("\n")[0].rstrip(".")


def lines(files: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in files)


def wrapped(text: str, width: int = 27, most: int = 2) -> list[str]:
    rows, row = [], ""
    for word in text.split():
        if len(row) + len(word) + 1 > width:
            rows.append(row)
            row = word
        else:
            row = f"{row} {word}".strip()
    rows.append(row)
    return rows[:most] if len(rows) <= most else [*rows[: most - 1], rows[most - 1] + " ..."]


def drawn() -> str:
    found, rows = rooms(), layers()
    place: dict[str, int] = {name: i for i, row in enumerate(rows) for name in row}
    tops, top = [], 20
    shapes: list[str] = []
    for row in rows:
        tops.append(top)
        per_line = (WIDTH - LEFT - 150) // (BOX + GAP)
        for i, name in enumerate(row):
            x, y = LEFT + 150 + i % per_line * (BOX + GAP), top + i // per_line * (HEIGHT + GAP)
            files = found[name]
            shapes.append(
                f'<rect x="{x}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
                f'<text x="{x + 9}" y="{y + 18}" class="name">{name}</text>'
                f'<text x="{x + BOX - 9}" y="{y + 18}" class="count">{lines(files):,}</text>'
            )
            for k, text in enumerate(wrapped(said(files))):
                shapes.append(f'<text x="{x + 9}" y="{y + 35 + 14 * k}">{html.escape(text)}</text>')
        top += (1 + (len(row) - 1) // per_line) * (HEIGHT + GAP) + 14
    uses = [
        {place[other] for name in row for other in imports(found[name]) if other in place}
        for row in rows
    ]
    below = [{j for j in used if j > i} for i, used in enumerate(uses)]
    for i in reversed(range(len(rows))):
        covered = set().union(*(below[j] for j in below[i])) if below[i] else set()
        for k, j in enumerate(sorted(below[i] - covered)):
            x = LEFT + 120 - 16 * k
            y1, y2 = tops[i] + HEIGHT / 2, tops[j] + HEIGHT / 2
            shapes.append(
                f'<path d="M{LEFT + 145} {y1} H{x} V{y2} H{LEFT + 143}" '
                'marker-end="url(#end)" class="arrow"/>'
            )
        below[i] |= covered
    total = sum(map(lines, found.values()))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 20}">
<title>The rooms of similitude, {total:,} lines, from the roof down</title>
<style>
text {{ font: 11px sans-serif; fill: #333 }} .name {{ font: bold 13px sans-serif; fill: #111 }}
.count {{ text-anchor: end; fill: #888 }} rect {{ fill: #f4f6f9; stroke: #9aa7b8 }}
.arrow {{ fill: none; stroke: #6b7a8f }}
</style>
<rect width="{WIDTH}" height="{top + 20}" style="fill: #fff; stroke: none"/>
<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
orient="auto"><path d="M0 0L8 4L0 8z" fill="#6b7a8f"/></marker></defs>
{chr(10).join(shapes)}
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(drawn())
    print(PICTURE)
