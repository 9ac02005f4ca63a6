"""What is chosen to be labeled, against the papers' definitions."""

import pytest
import torch
from torch.nn.functional import normalize

from similitude.embeddings.selection import diverse, typical
from similitude.errors import UserError

NONE = torch.empty(0, dtype=torch.int64)


def test_every_pick_is_the_farthest_from_all_before():
    x = normalize(torch.randn(80, 5), dim=1)
    labeled = torch.tensor([3, 11])
    found, distance = diverse(x, 10, labeled)
    distances = torch.cdist(x.double(), x.double())
    taken = labeled.tolist()
    for pick, told in zip(found.tolist(), distance.tolist(), strict=True):
        nearest = distances[:, taken].amin(1)
        assert nearest[pick] == pytest.approx(nearest.max().item(), abs=1e-3)
        assert told == pytest.approx(nearest[pick].item(), abs=1e-3)
        taken.append(pick)
    assert len(set(taken)) == 12
    assert (distance.diff() <= 1e-6).all()  # the radius of what is covered only falls


def test_without_labels_diversity_begins_in_the_middle():
    x = normalize(torch.randn(50, 4) + torch.tensor([2.0, 0, 0, 0]), dim=1)
    found, distance = diverse(x, 3, NONE)
    assert int(found[0]) == int((x @ x.mean(0)).argmax())
    assert distance[0] == torch.inf


def test_equal_rows_are_chosen_last_but_never_twice():
    x = normalize(torch.randn(3, 4), dim=1)[[0, 0, 1, 1, 2]]
    found, _ = diverse(x, 5, NONE)
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]
    assert len({(i + 1) // 2 if i < 4 else 9 for i in found[:3].tolist()} | {9}) >= 2


def test_the_most_typical_of_each_cluster_the_largest_first(clouds):
    x = normalize(clouds.x[:60], dim=1)
    found, typicality = typical(x, 3, NONE)
    assert [clouds.names[i][0] for i in found.tolist()] == ["a", "b", "c"]
    for pick, told, (first, last) in zip(
        found.tolist(), typicality.tolist(), ((0, 30), (30, 50), (50, 60)), strict=True
    ):
        inside = torch.cdist(x[first:last].double(), x[first:last].double())
        k = min(20, (last - first) // 2)
        values = 1 / inside.sort(dim=1).values[:, 1 : k + 1].mean(1)
        assert pick - first == int(values.argmax())
        assert told == pytest.approx(float(values.max()), rel=1e-3)


def test_clusters_with_labels_come_last(clouds):
    x = normalize(clouds.x[:60], dim=1)
    labeled = torch.tensor([0, 5])  # both in the largest; five clusters, some of which split clouds
    found, _ = typical(x, 3, labeled)
    assert {"b", "c"} <= {clouds.names[i][0] for i in found.tolist()}
    assert not set(found.tolist()) & set(labeled.tolist())


def test_a_copy_of_what_is_chosen_is_not_typical_any_more(clouds):
    x = normalize(clouds.x[:30], dim=1)
    first = typical(x, 1, NONE)[0]
    x = torch.cat([x, x[first]])
    found, _ = typical(x, 1, NONE)
    again, _ = typical(x, 1, found)
    assert sorted({*found.tolist(), *again.tolist()}) != sorted([int(first), 30])


def test_too_few_rows_for_a_cluster_are_told():
    with pytest.raises(UserError, match="no cluster of more than 5"):
        typical(normalize(torch.randn(8, 3), dim=1), 4, NONE)


def test_the_same_seed_chooses_the_same(clouds):
    x = normalize(clouds.x, dim=1)
    assert torch.equal(typical(x, 6, NONE, seed=1)[0], typical(x, 6, NONE, seed=1)[0])
