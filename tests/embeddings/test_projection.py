"""The plane is that of the largest variance."""

import sys

import numpy as np
import pytest

from similitude.embeddings.projection import check_projection, project
from similitude.errors import UserError


def test_pca_keeps_the_two_directions_that_vary_most():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spreads = np.array([5, 3, 0.1, 0.1, 0.1, 0.1])
    x = (rng.normal(size=(400, 6)) * spreads) @ directions + 7
    plane = project(x.astype(np.float32), "pca")
    centered = x - x.mean(0)
    left, strength, _ = np.linalg.svd(centered, full_matrices=False)
    expected = left[:, :2] * strength[:2]
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), atol=1e-2)


def test_one_number_for_each_sample_has_a_map_too():
    assert project(np.arange(4, dtype=np.float32)[:, None], "pca").shape == (4, 2)


def test_unknown_and_missing_ones_are_told(monkeypatch):
    with pytest.raises(UserError, match="unknown projection 'umpa': did you mean umap"):
        check_projection("umpa")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"pip install 'similitude\[umap\]'"):
        check_projection("umap")
