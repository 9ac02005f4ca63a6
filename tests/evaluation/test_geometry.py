import math

import pytest
import torch

from similitude.errors import UserError
from similitude.evaluation import alignment, effective_rank, feature_std, spectrum, uniformity
from similitude.evaluation import geometry as geometry_module


def test_std_of_directions_that_fill_the_space_is_one_over_sqrt_d() -> None:
    x = torch.randn(5000, 64)
    assert feature_std(x) == pytest.approx(1 / 8, rel=0.01)
    assert feature_std(100 * x) == pytest.approx(feature_std(x))


def test_std_of_a_constant_code_is_zero() -> None:
    row = torch.randn(1, 16)
    assert feature_std(row * (torch.rand(50, 1) + 0.5)) < 1e-7


def test_std_by_hand() -> None:
    # Unit rows (1, 0) and (0, 1): std (unbiased) of {0, 1} is sqrt(1/2) in both channels.
    assert feature_std(torch.tensor([[2.0, 0.0], [0.0, 5.0]])) == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(("n", "d"), [(8, 8), (40, 8), (8, 40)])
def test_rank_of_equal_singular_values_is_their_number(n: int, d: int) -> None:
    r = min(n, d)
    q, _ = torch.linalg.qr(torch.randn(max(n, d), r).double())
    assert effective_rank(q if n >= d else q.T) == pytest.approx(r, rel=1e-5)


@pytest.mark.slow
def test_rank_one_reads_one_even_when_it_is_wide() -> None:
    x = torch.randn(3000, 1) @ torch.randn(1, 2048)
    assert effective_rank(x) == pytest.approx(1.0, abs=0.01)
    assert effective_rank(torch.zeros(5, 3)) == 1.0


def test_rank_is_the_published_formula() -> None:
    x = torch.randn(60, 12).double() * torch.logspace(0, -3, 12)
    sigma = torch.linalg.svdvals(x)
    p = sigma / sigma.sum() + 1e-7
    assert effective_rank(x) == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-9)
    # Not centered: a common offset is a direction of its own and lowers the rank.
    assert effective_rank(x + 100) < 0.5 * effective_rank(x)


def test_spectrum_is_the_std_along_the_principal_axes() -> None:
    x = torch.randn(400, 6).double() * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    x = x @ torch.linalg.qr(torch.randn(6, 6).double())[0] + 7
    expected = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0).sqrt()
    torch.testing.assert_close(spectrum(x), expected)
    assert spectrum(torch.randn(4, 10)).shape == (10,)
    assert spectrum(torch.randn(4, 10))[4:].max() == 0


def test_alignment_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert alignment(a, 3 * a) == pytest.approx(0.0, abs=1e-12)
    assert alignment(a, -a) == pytest.approx(4.0)
    assert alignment(a, a.flip(0)) == pytest.approx(2.0)


def test_uniformity_by_hand() -> None:
    # Three points: squared distances 2, 2 and 4.
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(x) == pytest.approx(expected, rel=1e-9)
    assert uniformity(x, t=0.5) == pytest.approx(math.log((2 * math.exp(-1) + math.exp(-2)) / 3))
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0.0, abs=1e-9)
    assert uniformity(torch.randn(1000, 512)) == pytest.approx(-4.0, abs=0.05)


def test_uniformity_in_tiles_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(50, 6).double()
    u = x / x.norm(dim=1, keepdim=True)
    expected = torch.pdist(u).pow(2).mul(-2).exp().mean().log().item()
    for tile in (1, 7, 49, 50, 64):
        monkeypatch.setattr(geometry_module, "_TILE", tile)
        assert uniformity(x) == pytest.approx(expected, rel=1e-9)


def test_rows_left_out_are_a_fixed_choice_that_no_period_can_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(geometry_module, "MAX_ROWS", 500)
    x = torch.randn(5000, 10)
    x[::10] = 0.01  # every tenth row: an even spacing would see only these, or none
    assert feature_std(x) == feature_std(x)
    chosen = geometry_module.some_rows(x, 500)
    share = (chosen[:, 0] == chosen[:, 1]).double().mean().item()
    assert 0.05 < share < 0.15


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_told_in_a_sentence() -> None:
    with pytest.raises(UserError, match="at least two rows"):
        feature_std(torch.randn(1, 4))
    with pytest.raises(UserError, match="row by row"):
        alignment(torch.randn(3, 2), torch.randn(4, 2))
    with pytest.raises(UserError, match="not finite"):
        effective_rank(torch.full((3, 3), math.inf))
