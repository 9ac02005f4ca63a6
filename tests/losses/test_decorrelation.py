"""The losses on the correlation of features: values that follow from their definition."""

import pytest
import torch

from similitude.losses import barlow_twins, barlow_twins_hsic

LOSSES = [barlow_twins, barlow_twins_hsic]
N, P = 64, 5


def projections(seed=0, n=N, p=P):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, p, generator=generator, dtype=torch.float64)


def by_hand(z1, z2, weight, target):
    """The definition, entry by entry, with biased variance and 1e-5 under the root."""
    loss = torch.zeros((), dtype=torch.float64)
    n, p = z1.shape

    def standard(column):
        centered = column - column.mean()
        return centered / (centered.square().sum() / n + 1e-5).sqrt()

    for i in range(p):
        for j in range(p):
            c = (standard(z1[:, i]) * standard(z2[:, j])).sum() / n
            loss = loss + ((1 - c) ** 2 if i == j else weight * (target - c) ** 2)
    return loss


@pytest.mark.parametrize(("loss_of", "target"), [(barlow_twins, 0.0), (barlow_twins_hsic, -1.0)])
def test_sums_over_the_correlation_matrix(loss_of, target):
    z1, z2 = 3 * projections() + 1
    found = loss_of(z1, z2, off_diagonal_weight=0.3)
    torch.testing.assert_close(found, by_hand(z1, z2, 0.3, target))


def orthogonal(p=4):
    """Features with mean 0 and variance 1 that do not correlate: columns of a Hadamard matrix."""
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < 2 * p:
        h = torch.cat([torch.cat([h, h], dim=1), torch.cat([h, -h], dim=1)])
    return h[:, 1 : p + 1]


def test_equal_views_without_redundancy_reach_zero():
    z = 1000 * orthogonal()  # large, so that the 1e-5 under the root do not count
    assert barlow_twins(z, z, off_diagonal_weight=1.0) < 1e-9
    # for HSIC every pair of the 4 features is 1 away from its target of -1
    assert barlow_twins_hsic(z, z, off_diagonal_weight=0.5).item() == pytest.approx(0.5 * 4 * 3)


def test_two_opposed_features_are_what_hsic_wants():
    z = 1000 * orthogonal(1)
    opposed = torch.cat([z, -z], dim=1)
    assert barlow_twins_hsic(opposed, opposed, off_diagonal_weight=1.0) < 1e-9
    assert barlow_twins(opposed, opposed, off_diagonal_weight=1.0).item() == pytest.approx(2.0)


@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_a_constant_code_is_at_chance(constant):
    z = torch.full((N, P), constant)
    assert barlow_twins(z, z, off_diagonal_weight=0.1).item() == pytest.approx(P)
    hsic = barlow_twins_hsic(z, z, off_diagonal_weight=0.1).item()
    assert hsic == pytest.approx(P + 0.1 * P * (P - 1))


def test_without_the_second_term_a_code_of_one_feature_is_perfect():
    """The ablation: invariance alone is satisfied by the same feature P times."""
    z = 100 * projections()[0][:, :1].expand(-1, P)
    assert barlow_twins(z, z, off_diagonal_weight=0.0) < 1e-9
    assert barlow_twins(z, z, off_diagonal_weight=1.0).item() == pytest.approx(
        P * (P - 1), rel=1e-4
    )


@pytest.mark.parametrize("loss_of", LOSSES)
def test_scale_offset_and_order_of_the_samples_do_not_matter(loss_of):
    z1, z2 = 1000 * projections()
    order = torch.randperm(N)
    scale, offset = 1 + torch.rand(P, dtype=torch.float64), torch.randn(P, dtype=torch.float64)
    base = loss_of(z1, z2, off_diagonal_weight=0.2)
    moved = loss_of((z1 * scale + 1000 * offset)[order], z2[order], off_diagonal_weight=0.2)
    torch.testing.assert_close(moved, base, rtol=1e-6, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("loss_of", LOSSES)
def test_both_views_learn_and_nothing_is_changed(loss_of):
    z1, z2 = (z.requires_grad_() for z in projections(n=6))
    copies = z1.clone(), z2.clone()

    def loss(a, b):
        return loss_of(a, b, off_diagonal_weight=0.4)

    assert torch.autograd.gradcheck(loss, (z1, z2))
    assert torch.equal(z1, copies[0])
    assert torch.equal(z2, copies[1])


@pytest.mark.parametrize("loss_of", LOSSES)
def test_half_precision_is_computed_in_full(loss_of):
    z1, z2 = projections().bfloat16()
    found = loss_of(z1, z2, off_diagonal_weight=0.2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss_of(z1.float(), z2.float(), off_diagonal_weight=0.2))
