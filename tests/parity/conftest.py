"""Reference vectors: a test runs once per file of the family its ``golden`` marker names."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES

GOLDEN = Path(os.environ.get("SIMILITUDE_SHARED", Path(__file__).parents[3] / "shared")) / "golden"
MISSING = "no files"
DIFFERENCES = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser):
    parser.addoption("--parity-page", help="write the table of docs/parity.md to this file")


def pytest_configure(config):
    config.stash[DIFFERENCES] = {}
    config.addinivalue_line("markers", "golden(family): the family of reference vectors")


def pytest_generate_tests(metafunc):
    if "vectors" in metafunc.fixturenames:
        family = metafunc.definition.get_closest_marker("golden").args[0]
        name = re.compile(rf"{family}_[a-z0-9]+\.npz")  # not those of lars_no_exclusions for lars
        names = sorted(path.name for path in GOLDEN.glob("*.npz") if name.fullmatch(path.name))
        metafunc.parametrize("vectors", names or [MISSING], indirect=True)


@pytest.fixture
def vectors(request, golden_dir):
    """The arrays of one file: float64 tensors, Python numbers for scalars, lists for text."""
    assert request.param != MISSING, f"the family of {request.node.name} is not in {golden_dir}"
    with np.load(golden_dir / request.param, allow_pickle=False) as file:
        return {name: _value(file[name]) for name in file.files}


def _value(array):
    if array.ndim == 0:
        return array.item()
    return torch.from_numpy(array.copy()) if array.dtype.kind in "fi" else array.tolist()


@pytest.fixture
def close(request):
    """Equality of the promise: float64, relative 1e-7."""
    family = request.node.get_closest_marker("golden").args[0]
    differences = request.config.stash[DIFFERENCES]

    def compare(actual, expected):
        difference = _relative_difference(actual, expected)
        differences[family] = max(differences.get(family, 0.0), difference)
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-9)

    return compare


def _relative_difference(actual, expected):
    """The largest difference, in parts of the largest number expected; 0 where all are noise."""
    ours, theirs = (torch.as_tensor(x).detach().double() for x in (actual, expected))
    numbers = theirs.isfinite()
    if ours.shape != theirs.shape or not numbers.any():
        return 0.0
    largest = float(theirs[numbers].abs().max())
    return float((ours - theirs)[numbers].abs().max()) / largest if largest > 1e-9 else 0.0


def pytest_sessionfinish(session, exitstatus):
    target = session.config.getoption("--parity-page", default=None)
    if target is not None and exitstatus == 0:
        Path(target).write_text(_page(session.config.stash[DIFFERENCES]), encoding="utf-8")


def _page(differences):
    lines = [
        "# Parity",
        "",
        "Every formula against its authors' own code, executed on the same numbers in float64. The",
        "last column is the largest difference over all files of a family, in parts of the largest",
        "number of its array; tests allow 1e-7. A dash: layers or names are compared, not numbers.",
        "Made by `make parity`.",
        "",
        "| method or part | compared | family | source and revision | largest difference |",
        "|---|---|---|---|---|",
    ]
    for name, family in sorted(FAMILIES.items(), key=lambda item: (item[1].what, item[0])):
        shown = f"{differences[name]:.0e}" if name in differences else "-"
        lines.append(f"| {family.what} | {family.formula} | `{name}` | {family.source} | {shown} |")
    return "\n".join([*lines, ""])
