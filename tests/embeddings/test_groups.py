"""Near duplicates are the connected components of close pairs."""

import pytest
import torch
from torch.nn.functional import normalize

from similitude.embeddings import groups
from similitude.embeddings.groups import duplicate_groups
from similitude.evaluation import knn


def naive(x: torch.Tensor, threshold: float) -> list[list[int]]:
    close = x @ x.T >= threshold
    found, seen = [], set()
    for i in range(len(x)):
        group, border = {i}, {i}
        while border:
            border = {j for k in border for j in close[k].nonzero()[:, 0].tolist()} - group
            group |= border
        if len(group) > 1 and i not in seen:
            found.append(sorted(group))
        seen |= group
    return found


@pytest.mark.parametrize("pairs", [3, 10**6])
def test_groups_are_components_whatever_the_tiles(monkeypatch, pairs):
    monkeypatch.setattr(knn, "BANK_TILE", 16)
    monkeypatch.setattr(knn, "MAX_SIMILARITIES", 80)
    monkeypatch.setattr(groups, "_MAX_PAIRS", pairs)
    x = normalize(torch.randn(70, 3), dim=1)
    expected = naive(x, 0.97)
    assert 1 < len(expected) < 30
    assert duplicate_groups(x, 0.97) == expected


def test_equal_rows_and_no_others_are_found_at_one():
    x = normalize(torch.randn(20, 5), dim=1)
    x[7] = x[18]
    assert duplicate_groups(x, 1.0) == [[7, 18]]
    assert duplicate_groups(x[:15], 1.0) == []


def test_a_chain_is_one_group_though_its_ends_differ():
    angles = torch.arange(9) * 0.1
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert duplicate_groups(x, 0.99) == [list(range(9))]
    assert float(x[0] @ x[8]) < 0.8


def test_an_approximate_search_finds_the_same_pairs():
    pytest.importorskip("usearch")
    x = normalize(torch.randn(60, 8), dim=1)
    x[40:] = normalize(x[:20] + 0.01 * torch.randn(20, 8), dim=1)
    expected = duplicate_groups(x, 0.99)
    assert len(expected) == 20
    assert duplicate_groups(x, 0.99, approximate=True) == expected
