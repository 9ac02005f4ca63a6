"""Reference vectors: a test runs once per file of the family its ``golden`` marker names."""

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(os.environ.get("SIMILITUDE_SHARED", Path(__file__).parents[3] / "shared")) / "golden"
MISSING = "no files"


def pytest_configure(config):
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
def close():
    """Equality of the promise: float64, relative 1e-7."""
    return partial(torch.testing.assert_close, rtol=1e-7, atol=1e-9)
