import math

import pytest
import torch
import torch.nn.functional as F

from builders import vote_scores
from similitude.errors import UserError
from similitude.evaluation import Features, KNNProbe
from similitude.evaluation import knn as knn_module


def naive_votes(
    bank: torch.Tensor, labels: torch.Tensor, x: torch.Tensor, k: int, temperature: float
) -> torch.Tensor:
    similarity = F.normalize(x, dim=1) @ F.normalize(bank, dim=1).T
    best, index = similarity.topk(k, dim=1)
    one_hot = F.one_hot(labels[index], int(labels.max()) + 1).to(x.dtype)
    return ((best / temperature).exp()[..., None] * one_hot).sum(1)


def test_tiles_give_the_votes_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, x = torch.randn(101, 7).double(), torch.randn(53, 7).double()
    labels = torch.randint(0, 4, (101,))
    expected = naive_votes(bank, labels, x, 30, 0.1)
    # 16 rows of the bank at a time: fewer than k, and the last tile is shorter.
    monkeypatch.setattr(knn_module, "BANK_TILE", 16)
    monkeypatch.setattr(knn_module, "MAX_SIMILARITIES", 16 * 10)
    probe = KNNProbe(30, 0.1).fit(bank, labels)
    torch.testing.assert_close(vote_scores(probe, x), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(probe.predict(x), expected.argmax(1))


def test_no_matrix_larger_than_the_limit_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    top_k = knn_module._top_k

    def spy(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(values.numel())
        return top_k(values, k)

    monkeypatch.setattr(knn_module, "_top_k", spy)
    monkeypatch.setattr(knn_module, "MAX_SIMILARITIES", 1000)
    monkeypatch.setattr(knn_module, "BANK_TILE", 200)
    KNNProbe(3).fit(torch.randn(500, 4), torch.arange(500) % 3).predict(torch.randn(90, 4))
    assert max(sizes) <= 1000


def test_real_digits(digits: tuple[Features, Features]) -> None:
    train, test = digits
    assert KNNProbe().fit(train.x, train.y).score(test.x, test.y) > 0.93


def test_small_temperature_does_not_overflow() -> None:
    # One very near neighbor of class 1 against two less near of class 0.
    bank = torch.tensor([[1.0, 0.2], [1.0, -0.2], [1.0, 0.0]])
    probe = KNNProbe(3, temperature=1e-4).fit(bank, torch.tensor([0, 0, 1]))
    assert probe.predict(torch.tensor([[1.0, 0.0]])).tolist() == [1]
    assert torch.isinf(vote_scores(probe, torch.tensor([[1.0, 0.0]]))).any()
    # At a high temperature the majority wins: the votes are a sum, not a maximum.
    probe = KNNProbe(3, temperature=10.0).fit(bank, torch.tensor([0, 0, 1]))
    assert probe.predict(torch.tensor([[1.0, 0.0]])).tolist() == [0]


def test_scale_of_the_features_does_not_matter() -> None:
    bank, x, y = torch.randn(50, 5).double(), torch.randn(20, 5).double(), torch.arange(50) % 3
    scale = torch.rand(50, 1).double() + 0.5
    expected = vote_scores(KNNProbe(7).fit(bank, y), x)
    torch.testing.assert_close(vote_scores(KNNProbe(7).fit(bank * scale, y), 3 * x), expected)


def test_classes_come_from_the_fitted_labels_only() -> None:
    # Classes 3 and 7; the test rows have only class 7, and one class nobody has seen.
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    probe = KNNProbe(2).fit(bank, torch.tensor([3, 3, 7, 7]))
    x = torch.tensor([[0.0, 1.0], [0.05, 1.0]])
    assert probe.predict(x).tolist() == [7, 7]
    assert probe.score(x, torch.tensor([7, 99])) == 0.5
    assert vote_scores(probe, x).shape == (2, 2)


def test_rows_without_a_label_neither_vote_nor_count() -> None:
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
    probe = KNNProbe(1).fit(bank, torch.tensor([-1, 0, 1]))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert probe.predict(x).tolist() == [0, 1]
    assert probe.score(x, torch.tensor([-1, 1])) == 1.0


@pytest.mark.parametrize("labels", [[2, 0, 1], [1, 2, 0], [0, 1, 2]])
def test_equal_neighbors_and_equal_votes_give_the_lowest_class(labels: list[int]) -> None:
    same = torch.ones(3, 2)
    y = torch.tensor(labels)
    for k in (1, 2, 3):
        assert KNNProbe(k).fit(same, y).predict(torch.ones(1, 2)).tolist() == [0]


def test_ties_do_not_depend_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    # Few distinct directions, so that nearly every row has a tie at the k-th neighbor.
    bank = torch.randint(-1, 2, (80, 2)).double() + torch.tensor([0.0, 0.25]).double()
    y, x = torch.randint(0, 5, (80,)), torch.randn(30, 2).double()
    expected = vote_scores(KNNProbe(9).fit(bank, y), x)
    monkeypatch.setattr(knn_module, "BANK_TILE", 11)
    torch.testing.assert_close(vote_scores(KNNProbe(9).fit(bank, y), x), expected)


def test_float64_is_kept() -> None:
    bank = torch.randn(10, 3).double()
    assert vote_scores(KNNProbe(2).fit(bank, torch.arange(10) % 2), bank).dtype == torch.float64


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_told_in_a_sentence() -> None:
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, -1])
    with pytest.raises(UserError, match=r"k = 5 .* there are 4"):
        KNNProbe(5).fit(x, y)
    with pytest.raises(UserError, match="temperature"):
        KNNProbe(temperature=0.0)
    with pytest.raises(UserError, match="k must be"):
        KNNProbe(0)
    with pytest.raises(UserError, match="none of the rows has a label"):
        KNNProbe(1).fit(x, torch.full((5,), -1))
    with pytest.raises(UserError, match="3 features, the fitted ones 2"):
        KNNProbe(1).fit(x, y).predict(torch.randn(2, 3))
    x[1, 1] = math.nan
    with pytest.raises(UserError, match="1 of 5 rows of features are not finite"):
        KNNProbe(1).fit(x, y)
