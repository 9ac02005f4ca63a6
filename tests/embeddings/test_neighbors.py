"""The nearest rows are those of the whole matrix, whatever the tiles."""

import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from similitude.embeddings.neighbors import (
    build_index,
    check_approximate,
    neighbors,
    outlier_distance,
    unit_rows,
)
from similitude.errors import UserError
from similitude.evaluation import knn
from similitude.listener import Silent


def unit(rows: int, dim: int) -> torch.Tensor:
    return normalize(torch.randn(rows, dim), dim=1)


def test_tiles_find_what_the_whole_matrix_has(monkeypatch):
    bank, queries = unit(101, 6), unit(23, 6)
    monkeypatch.setattr(knn, "BANK_TILE", 16)
    monkeypatch.setattr(knn, "MAX_SIMILARITIES", 160)
    similar, found = build_index(bank).search(queries, 7, Silent())
    order = (queries @ bank.T).argsort(dim=1, descending=True)[:, :7]
    assert torch.equal(found, order)
    torch.testing.assert_close(similar, (queries @ bank.T).gather(1, order))


def test_no_row_is_its_own_neighbor_even_among_equal_ones():
    x = torch.cat([unit(1, 4).expand(6, 4), unit(5, 4)])
    similar, found = neighbors(x, 3)
    assert found.shape == (11, 3)
    assert not bool((found == torch.arange(11)[:, None]).any())
    torch.testing.assert_close(similar[:6], torch.ones(6, 3))


def test_as_many_neighbors_as_there_are():
    assert build_index(unit(4, 3)).search(unit(2, 3), 9, Silent())[1].shape == (2, 4)


def test_an_outlier_is_far_from_its_kth_neighbor():
    x = unit(40, 3)
    distances = torch.cdist(x.double(), x.double()).sort(dim=1).values
    torch.testing.assert_close(outlier_distance(x, 5).double(), distances[:, 5], atol=1e-3, rtol=0)


def test_rows_are_of_unit_norm_in_place_and_zeros_stay():
    x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    found = unit_rows(x)
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert x[0, 0] == found[0, 0]


@pytest.mark.slow
def test_an_approximate_search_finds_nearly_all():
    pytest.importorskip("usearch")
    x = unit(3000, 16)
    _, exact = neighbors(x, 10)
    similar, found = neighbors(x, 10, approximate=True)
    both = (exact[:, :, None] == found[:, None]).any(dim=2)
    recall = both.float().mean()
    assert recall > 0.95
    torch.testing.assert_close(similar[:, 0], (x * x[found[:, 0]]).sum(1), atol=1e-4, rtol=0)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    with pytest.raises(UserError, match=r"pip install 'similitude\[search\]'"):
        check_approximate()
