import math

import pytest
import torch
import torch.nn.functional as F

from similitude.errors import UserError
from similitude.evaluation import (
    alpha_req,
    cluster_learnability,
    intrinsic_dimension,
    lidar,
    nearest_neighbor_consistency,
)
from similitude.evaluation.label_free import clid, label_free_numbers


def with_spectrum(eigenvalues: torch.Tensor, n: int = 400) -> torch.Tensor:
    """Rows whose covariance has exactly these eigenvalues."""
    x = torch.randn(n, len(eigenvalues), dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0))[0]
    turned = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues)).double())[0]
    return x * (n * eigenvalues).sqrt() @ turned.T + 3


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(alpha: float) -> None:
    x = with_spectrum(torch.arange(1, 41, dtype=torch.float64) ** -alpha)
    assert alpha_req(x) == pytest.approx(alpha, rel=1e-6)
    assert alpha_req(7 * x) == pytest.approx(alpha, rel=1e-6)


def test_only_ranks_above_rounding_are_fitted() -> None:
    x = with_spectrum(torch.arange(1, 21, dtype=torch.float64) ** -1.0)
    wide = torch.cat([x, torch.zeros(400, 30)], dim=1)
    assert alpha_req(wide) == pytest.approx(1.0, rel=1e-6)
    assert math.isnan(alpha_req(torch.ones(9, 4)))


def test_lidar_is_the_formula_of_the_paper() -> None:
    h = torch.randn(6, 50, 5).double() * torch.tensor([1.0, 1, 2, 3, 4]) + torch.randn(50, 5) * 3
    means = h.mean(0)
    apart, noise = means - means.mean(0), (h - means).flatten(0, 1)
    within = noise.T @ noise / 300 + 1e-4 * torch.eye(5).double()
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    found = torch.linalg.eigvalsh(root @ (apart.T @ apart / 50) @ root)
    p = found / found.sum() + 1e-7
    assert lidar(h) == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-9)


def test_lidar_does_not_count_directions_that_are_noise_of_the_views() -> None:
    """What RankMe cannot know: a direction may differ between samples by chance of the view."""
    things = torch.randn(1, 300, 4).expand(20, -1, -1)
    noise = torch.randn(20, 300, 12)
    clean = torch.cat([things, 0.01 * noise], dim=2)
    assert lidar(clean + 1e-3 * torch.randn(20, 300, 16)) == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize("dimension", [1, 3])
def test_the_dimension_of_a_sheet_in_space_is_its_own(dimension: int) -> None:
    x = torch.rand(900, dimension).double() @ torch.randn(dimension, 30).double()
    assert intrinsic_dimension(x) == pytest.approx(dimension, rel=0.15)
    assert intrinsic_dimension(torch.cat([x, x])) == intrinsic_dimension(x)


@pytest.mark.slow  # scikit-learn is imported
def test_clusters_that_lie_apart_are_learned_at_first_sight() -> None:
    places = torch.eye(8)[torch.arange(400) % 8]
    # the first row of each cluster cannot be named
    apart = cluster_learnability(places + 0.01 * torch.randn(400, 8), 8)
    assert apart == pytest.approx(1 - 7 / 399, abs=1e-9)
    assert cluster_learnability(torch.randn(400, 32), 8) < 0.8 * apart
    assert math.isnan(cluster_learnability(torch.ones(9, 4)))


def test_clid_adds_two_standardized_halves() -> None:
    found = clid(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([30.0, 20.0, 10.0]))
    torch.testing.assert_close(found, torch.zeros(3).double())
    assert clid(torch.tensor([0.1, 0.3]), torch.tensor([1.0, 2.0])).argmax() == 1


def test_neighbors_that_stay_are_counted() -> None:
    h = torch.randn(60, 8)
    assert nearest_neighbor_consistency(h, 5 * h) == 1.0
    other = nearest_neighbor_consistency(h, torch.randn(60, 4))
    assert other == pytest.approx(10 / 59, abs=0.08)
    u1, u2 = F.normalize(h, dim=1), F.normalize(h + 0.5 * torch.randn(60, 8), dim=1)
    one = (u1 @ u1.T - 2 * torch.eye(60)).argmax(1)
    two = (u2 @ u2.T - 2 * torch.eye(60)).argmax(1)
    expected = (one == two).double().mean().item()
    assert nearest_neighbor_consistency(u1, u2, k=1) == pytest.approx(expected)


@pytest.mark.slow
def test_a_constant_code_has_the_numbers_that_are_defined() -> None:
    assert label_free_numbers(torch.ones(50, 6)).keys() == {"effective_rank", "uniformity"}
    found = label_free_numbers(torch.randn(200, 16))
    assert len(found) == 5
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_told_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"views \[V, N, D\]"):
        lidar(torch.randn(3, 4))
    with pytest.raises(UserError, match="fewer neighbors than rows"):
        nearest_neighbor_consistency(torch.randn(5, 2), torch.randn(5, 2))
    with pytest.raises(UserError, match="not finite"):
        lidar(torch.full((2, 3, 3), math.inf))
