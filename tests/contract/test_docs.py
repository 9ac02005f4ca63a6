"""What the pages say is what the code does: links, commands, options, defaults, examples."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown.extensions.toc import slugify
from pydantic import BaseModel
from typer.main import get_command

import similitude as sim
from contract.test_anatomy import KNOWN
from similitude.ablation.grid import grid, parse_variations
from similitude.ablation.studies import STUDIES
from similitude.cli import app
from similitude.errors import UserError
from similitude.evaluation import verdict_rules as rules
from similitude.evolution.search import parse_searches
from similitude.images.backbones import BackboneConfig
from similitude.images.config import ImageData
from similitude.images.views import ImageViewConfig
from similitude.methods import CONFIGS, METHODS, anatomy
from similitude.recipes import RECIPES, OptimizerConfig, Recipe, find_recipe, override
from similitude.recipes.recipe import InitConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted(DOCS.rglob("*.md"))
CLASSES: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (Recipe, OptimizerConfig, ImageData, BackboneConfig, ImageViewConfig)
}

_FENCE = re.compile(r"(<!-- runnable -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", text_of(page))


def blocks(language: str) -> list[tuple[Path, str, bool]]:
    """(page, content, marked as runnable) of every fenced block in a language."""
    found = [(page, match) for page in PAGES for match in _FENCE.finditer(text_of(page))]
    return [(page, m[3], m[1] is not None) for page, m in found if m[2] == language]


def label(value: Any) -> str:
    """What a parameter is called in the name of a test: a page or a line, never a whole block."""
    if isinstance(value, Path):
        return value.relative_to(ROOT).as_posix()
    return "block" if "\n" in str(value) else str(value)


# --- links -------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {slugify(heading.replace("`", ""), "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page):
    for link in _LINK.findall(prose_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_tests_and_benchmarks_that_are_named_exist(page):
    named = re.findall(r"\b(?:tests|benchmarks)/[\w/]+\.py\b", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_floors_of_dependencies_have_the_reasons_that_are_given():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    floors = re.findall(r"\| `([a-z-]+>=[0-9.]+)` \|", (ROOT / "docs/security.md").read_text())
    assert len(floors) >= 9
    assert [floor for floor in floors if f'"{floor}"' not in project] == []


def test_every_page_is_in_the_menu():
    config = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))

    def files(entry: Any) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        inner = entry.values() if isinstance(entry, dict) else entry
        return {file for value in inner for file in files(value)}

    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert files(config["nav"]) == pages


@pytest.mark.slow
def test_the_site_is_built_and_fetches_nothing_while_it_is_read(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tag = re.compile(
        r"<(?:script|img|iframe|link(?! rel=\"?canonical))[^>]*(?:src|href)=\"?(?:https?:)?//"
    )
    assert [page for page in tmp_path.rglob("*.html") if tag.search(text_of(page))] == []


# --- methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_and_a_row_in_the_readme(name):
    pages = [p for p in (DOCS / "methods").glob("*.md") if f"`{name}`" in text_of(p)[:600]]
    assert len(pages) == 1
    assert f"[`{name}`](docs/methods/{pages[0].name})" in text_of(ROOT / "README.md")
    assert f"[`{name}`]({pages[0].name})" in text_of(DOCS / "methods" / "index.md")


def test_the_table_of_parts_is_the_known_one():
    """Which `test_anatomy.py` measures."""
    after = text_of(ROOT / "README.md").partition("<!-- anatomy -->")[2]
    header, rows = next(tables(after))
    assert header == ["method", *anatomy.column_names()]
    parts = [field.name for field in fields(anatomy.Anatomy)]
    assert [[_CODE.findall(row[0])[0], *row[1:]] for row in rows] == [
        [name, *("yes" if part in KNOWN[name] else "-" for part in parts)] for name in CONFIGS
    ]


# --- tables of defaults ------------------------------------------------------------------------


def tables(text: str):
    """(header, rows) of every table, cells as stripped text."""
    for match in re.finditer(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in match[0].strip().split("\n")]
        header, _, *rows = [[cell.strip() for cell in line] for line in lines]
        yield header, rows


def plain(value: Any) -> Any:
    """As YAML would give it back."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def default(kind: type[BaseModel], field: str) -> Any:
    info = kind.model_fields[field]
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    return "see below" if isinstance(default, BaseModel) else plain(default)


def actual(column: str, path: str) -> Any:
    """What the code has: ``column`` is a method, a recipe or a class with fields."""
    if column in CLASSES:
        return default(CLASSES[column], path)
    value: Any = CONFIGS[column]() if column in CONFIGS else RECIPES[column]()
    for key in path.split("."):
        value = getattr(value, key)
    return plain(value)


def settings() -> list[tuple[Path, str, str, str]]:
    """(page, column, field, cell) of every table with a column named after what it describes."""
    known = {*CONFIGS, *RECIPES, *CLASSES}
    return [
        (page, column.strip("`"), row[0].strip("`"), row[i])
        for page in PAGES
        for header, rows in tables(prose_of(page))
        if header[0].startswith("field")
        for i, column in enumerate(header)
        if column.startswith("`") and column.strip("`") in known
        for row in rows
    ]


@pytest.mark.parametrize("page", sorted({page for page, *_ in settings()}), ids=label)
def test_tables_show_the_values_of_the_code(page):
    wrong = [
        f"{field} of {column} is {actual(column, field)!r}, the page says {cell}"
        for where, column, field, cell in settings()
        if where == page and actual(column, field) != yaml.safe_load(cell.strip("`"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [*CONFIGS, *CLASSES])
def test_every_field_is_in_a_table(name):
    kind = CONFIGS[name] if name in CONFIGS else CLASSES[name]
    shown = {field.partition(".")[0] for _, column, field, _ in settings() if column == name}
    fields = set(kind.model_fields) - {"kind"} - ({"name"} if name in CONFIGS else set())
    assert fields == shown


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named(name):
    assert f"`{name}`" in text_of(DOCS / "recipes.md")


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ("feature std", (rules.LOW_STD, rules.CONSTANT_STD)),
        ("projection std", (rules.CONSTANT_STD,)),
        ("target entropy", (100 * rules.TARGET_MARGIN, rules.WARM_UP_STEPS)),
        ("prototypes in use", (rules.FEWEST_PROTOTYPES, rules.WARM_UP_STEPS)),
        ("effective rank", (rules.LOW_RANK, 100 * rules.LOW_RANK_SHARE, rules.COLLAPSED_RANK)),
        ("loss beside chance", (rules.WARM_UP_STEPS, 100 * rules.CHANCE_MARGIN)),
        ("steps", (rules.FEW_STEPS,)),
        ("images", (rules.FEW_IMAGES,)),
        ("unreadable files", (100 * rules.UNREADABLE_SHARE,)),
    ],
)
def test_rules_of_the_verdict_show_their_thresholds(rule, numbers):
    rows = {
        row[0]: " ".join(row[1:])
        for header, rows in tables(text_of(DOCS / "evaluation.md"))
        if header[0] == "rule"
        for row in rows
    }
    text = next(text for name, text in rows.items() if name.startswith(rule))
    shown = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
    assert set(map(float, numbers)) <= shown


# --- commands ----------------------------------------------------------------------------------


@cache
def commands() -> dict[str, Any]:
    return get_command(app).commands  # type: ignore[attr-defined]


def options_of(name: str) -> set[str]:
    return {option for parameter in commands()[name].params for option in parameter.opts}


def lines_of_shell() -> list[tuple[Path, str]]:
    lines = [(page, line) for page, block, _ in blocks("sh") for line in block.splitlines()]
    return [(page, line) for page, line in lines if line.strip()]


@pytest.mark.parametrize(("page", "line"), lines_of_shell(), ids=label)
def test_command_lines_are_accepted(page, line):
    program, *words = shlex.split(line)
    if program == "make":
        targets = [word for word in words if "=" not in word]
        makefile = text_of(ROOT / "Makefile")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif program == "similitude":
        name, *arguments = words
        given = commands()[name].make_context(name, arguments).params
        recipe, method = given.get("recipe"), given.get("method")
        if recipe is not None and not recipe.endswith(".yaml"):
            find_recipe(recipe)
        own = method is not None and ":" in method
        assert method is None or own or method in METHODS
        kinds = list(METHODS) if method is None or own else [method]
        if name == "ablate":
            assert given["study"] is None or given["study"] in STUDIES
            varied = RECIPES.get(recipe or f"cifar10.{given['first']}", RECIPES["cifar10.simclr"])
            grid(parse_variations(given["vary"] or ()), varied())
        if name == "evolve" and given["search"]:
            parse_searches(given["search"], RECIPES[recipe or f"cifar10.{method}"]())
        for assignment in given.get("settings") or ():
            assert any(_accepts(f"cifar10.{kind}", assignment) for kind in kinds), assignment


def _accepts(recipe: str, assignment: str) -> bool:
    init = InitConfig(name="some", fingerprint="0")  # with --init there are its fields
    try:
        override(RECIPES[recipe]().model_copy(update={"init": init}), [assignment])
    except UserError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_commands_and_options_in_the_text_exist(page):
    everywhere = {option for name in commands() for option in options_of(name)}
    everywhere |= {option for parameter in get_command(app).params for option in parameter.opts}
    for code in _CODE.findall(prose_of(page)):
        if code.startswith("similitude "):
            name, *words = code.split()[1:]
            assert name in commands(), code
            assert {w for w in words if w.startswith("-")} <= options_of(name), code
        elif code.startswith("--"):
            assert code.split()[0] in everywhere, code


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_is_shown(name):
    assert any(line.startswith(f"similitude {name} ") for _, line in lines_of_shell()) or (
        f"`similitude {name}`" in text_of(ROOT / "README.md")
    )


def test_every_option_of_pretrain_is_explained():
    together = "".join(text_of(page) for page in PAGES)
    for option in options_of("pretrain") - {"--help", "-h"}:
        assert option in together, option


# --- examples ----------------------------------------------------------------------------------

PYTHON = blocks("python")


def _name(node: ast.AST) -> str:
    """``sim.a.b`` of a chain of attributes, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := _name(node.value)):
        return f"{inner}.{node.attr}"
    return ""


@pytest.mark.parametrize(("page", "code", "runnable"), PYTHON, ids=label)
def test_names_and_keywords_in_examples_exist(page, code, runnable):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        first, *rest = _name(node).split(".")
        if isinstance(node, ast.Attribute) and first == "sim":
            value: Any = sim
            for part in rest:
                value = getattr(value, part)
        elif isinstance(node, ast.Attribute) and first == "run":
            assert hasattr(sim.Run, rest[0]), f"run.{rest[0]}"
        if isinstance(node, ast.Call) and first == "":
            called = _name(node.func).split(".")
            if called[0] == "sim" and len(called) == 2:
                keywords = {keyword.arg for keyword in node.keywords}
                assert keywords <= set(inspect.signature(getattr(sim, called[1])).parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "code"), [(page, code) for page, code, runnable in PYTHON if runnable], ids=label
)
def test_runnable_examples_run(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
    assert not list(tmp_path.iterdir())


def test_the_readme_has_a_place_for_the_measured_table():
    text = text_of(ROOT / "README.md")
    assert text.index("<!-- quickstart table -->") < text.index("<!-- /quickstart table -->")
