"""The fitness of Evolving Losses on clusters of known sizes."""

import math

import pytest
import torch

from similitude.errors import UserError
from similitude.evaluation.zipf import cluster_posterior, zipf_divergence, zipf_fitness

ZIPF = [2520 // i for i in range(1, 11)]  # exactly 1/i of the first


def clusters(sizes, apart=20.0):
    """Tight clusters at the corners of a simplex, in no order."""
    centers = apart * torch.eye(len(sizes), dtype=torch.float64)
    which = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    noise = 0.01 * torch.randn(len(which), len(sizes), generator=torch.manual_seed(0))
    return (centers[which] + noise)[torch.randperm(len(which), generator=torch.manual_seed(1))]


@pytest.mark.parametrize(
    ("sizes", "value"), [(ZIPF, 0.0), ([100] * 10, 0.283), (ZIPF[::-1], 0.0)], ids=str
)
def test_sizes_that_follow_zipf_give_0_and_equal_ones_0_283(sizes, value):
    assert zipf_fitness(clusters(sizes)).value == pytest.approx(value, abs=5e-4)


def test_a_collapse_looks_like_balance():
    """So the fitness goes with a verdict."""
    assert zipf_fitness(torch.ones(50, 4)).value == pytest.approx(0.283, abs=5e-4)
    assert zipf_divergence(torch.full((50, 10), 0.1)) == pytest.approx(0.283, abs=5e-4)


def test_the_divergence_is_its_formula_and_at_most_ln_h():
    posterior = torch.tensor([[0.2, 0.8, 0.0], [0.4, 0.6, 0.0]])
    q = [6 / 11, 3 / 11, 2 / 11]
    expected = 0.7 * math.log(0.7 / q[0]) + 0.3 * math.log(0.3 / q[1])
    assert zipf_divergence(posterior) == pytest.approx(expected, rel=1e-6)
    one = torch.tensor([[0.0, 1.0, 0.0]])
    assert zipf_divergence(one) == pytest.approx(math.log(11 / 6))
    assert zipf_divergence(one, exponent=2.0) == pytest.approx(math.log(1 + 1 / 4 + 1 / 9))


def test_the_posterior_has_the_width_of_the_paper():
    x, centroids = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    posterior = cluster_posterior(x, centroids)
    assert posterior[0, 0].item() == pytest.approx(1 / (1 + math.exp(1 - 4)))


@pytest.mark.slow
def test_the_value_depends_on_the_scale_unless_rows_have_unit_length():
    x = clusters(ZIPF)
    small = zipf_fitness(0.01 * x)
    assert small.value > 0.1
    assert small.distance == pytest.approx(1e-4 * zipf_fitness(x).distance)
    unit = [zipf_fitness(factor * x, unit_length=True).value for factor in (1.0, 0.01)]
    assert unit[0] == pytest.approx(unit[1])


@pytest.mark.parametrize(("samples", "k"), [(9, 10), (50, 1)])
def test_too_few_samples_or_clusters_are_told(samples, k):
    with pytest.raises(UserError, match=f"{k} clusters of {samples} samples"):
        zipf_fitness(torch.randn(samples, 3), clusters=k)
