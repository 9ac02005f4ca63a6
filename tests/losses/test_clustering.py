import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from similitude.errors import UserError
from similitude.losses import sinkhorn, swapped_prediction

sizes = st.tuples(st.integers(1, 9), st.integers(2, 7), st.integers(0, 2**31))


def draw(n, k, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator, dtype=torch.float64).div(4).tanh().to(dtype)


def reference(scores, epsilon, iterations):
    """Algorithm 1 of the paper in plain numbers: prototypes first, then samples."""
    q = (scores / epsilon).exp()
    for _ in range(iterations):
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
    return q / q.sum(dim=1, keepdim=True)


@settings(deadline=None, max_examples=30)
@given(sizes, st.integers(1, 5), st.sampled_from([0.03, 0.05, 1.0]))
def test_sinkhorn_is_the_papers_algorithm(size, iterations, epsilon):
    scores = draw(*size)
    q = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    torch.testing.assert_close(q, reference(scores, epsilon, iterations))


def test_many_iterations_share_the_samples_out_evenly():
    q = sinkhorn(draw(12, 4), epsilon=0.05, iterations=500)
    torch.testing.assert_close(q.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(q.sum(dim=1), torch.ones(12, dtype=torch.float64))


def test_a_popular_prototype_is_shared_out():
    """All samples like prototype 0 best; a softmax gives it to all, Sinkhorn to its share."""
    scores = draw(40, 4) / 10
    scores[:, 0] += 0.8
    q = sinkhorn(scores, epsilon=0.05, iterations=3)
    assert (scores / 0.05).softmax(dim=1)[:, 0].mean() > 0.99
    assert q[:, 0].mean().item() == pytest.approx(0.25, abs=0.01)


def test_samples_that_are_all_alike_get_even_codes():
    q = sinkhorn(draw(1, 5).expand(6, 5), epsilon=0.05, iterations=3)
    torch.testing.assert_close(q, torch.full((6, 5), 0.2, dtype=torch.float64))


def test_without_iterations_the_whole_matrix_is_a_distribution_of_the_samples():
    scores = draw(6, 4)
    q = sinkhorn(scores, epsilon=0.5, iterations=0)
    torch.testing.assert_close(q, 6 * (scores / 0.5).flatten().softmax(dim=0).view(6, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tiny_epsilon_does_not_overflow(dtype):
    """exp(0.9 / 0.005) = exp(180) is infinite in float32."""
    scores = draw(16, 8, dtype=dtype)
    scores[:, 0] = 0.9
    q = sinkhorn(scores, epsilon=0.005, iterations=3)
    assert q.dtype == torch.float32
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(dim=1), torch.ones(16))


def test_codes_follow_a_new_order_of_the_samples_and_do_not_depend_on_a_shift():
    scores, order = draw(9, 5), torch.randperm(9)
    q = sinkhorn(scores, epsilon=0.05, iterations=3)
    torch.testing.assert_close(sinkhorn(scores[order], epsilon=0.05, iterations=3), q[order])
    torch.testing.assert_close(sinkhorn(scores + 30.0, epsilon=0.05, iterations=3), q)


def test_codes_of_a_part_need_the_whole_batch():
    """Why methods gather the scores of all processes first."""
    scores = draw(8, 4)
    whole = sinkhorn(scores, epsilon=0.05, iterations=3)[:4]
    assert (sinkhorn(scores[:4], epsilon=0.05, iterations=3) - whole).abs().max() > 0.01


def codes(n, k, seed):
    return draw(n, k, seed).mul(5).softmax(dim=1)


def test_swapped_prediction_is_equation_2_for_two_views():
    s1, s2 = draw(5, 4, 1), draw(5, 4, 2)
    q1, q2 = codes(5, 4, 3), codes(5, 4, 4)
    rows = [
        -(b * (a / 0.1).log_softmax(dim=0)).sum()
        for s, q in ((s1, q2), (s2, q1))
        for a, b in zip(s, q, strict=True)
    ]
    loss = swapped_prediction([s1, s2], [q1, q2], temperature=0.1)
    torch.testing.assert_close(loss, torch.stack(rows).sum() / 5 / 2)


def test_swapped_prediction_is_equation_6_for_many_views():
    """Every view predicts every assigned one but itself; local views are not assigned."""
    scores = [draw(3, 4, seed) for seed in range(5)]
    targets = [codes(3, 4, seed) for seed in (7, 8)]
    pairs = [
        -(q * (s / 0.2).log_softmax(dim=1)).sum(dim=1).mean()
        for i, q in enumerate(targets)
        for v, s in enumerate(scores)
        if v != i
    ]
    assert len(pairs) == 2 * 4
    loss = swapped_prediction(scores, targets, temperature=0.2)
    torch.testing.assert_close(loss, torch.stack(pairs).mean())


def test_chance_is_log_k():
    scores = [torch.full((6, 5), 0.3, dtype=torch.float64)] * 3
    loss = swapped_prediction(scores, [codes(6, 5, 0)] * 2, temperature=0.1)
    assert loss.item() == pytest.approx(math.log(5))


def test_gradients():
    scores = [draw(3, 4, seed).requires_grad_() for seed in range(3)]
    targets = [codes(3, 4, seed).requires_grad_() for seed in (5, 6)]

    def loss(*parts):
        return swapped_prediction(list(parts[:3]), list(parts[3:]), temperature=0.5)

    torch.autograd.gradcheck(loss, (*scores, *targets))
    torch.autograd.gradcheck(
        lambda s: sinkhorn(s, epsilon=0.5, iterations=2), draw(3, 4).requires_grad_()
    )


def test_low_precision_scores_give_the_loss_of_full_precision():
    scores = [draw(8, 6, seed, torch.bfloat16) for seed in range(2)]
    targets = [codes(8, 6, seed).float() for seed in (2, 3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = swapped_prediction(scores, targets, temperature=0.1)
    assert loss.dtype == torch.float32
    expected = swapped_prediction([s.float() for s in scores], targets, temperature=0.1)
    assert torch.equal(loss, expected)


@pytest.mark.parametrize(("views", "targets"), [(0, 0), (1, 1), (2, 0), (2, 3)])
def test_too_few_views_are_refused_instead_of_a_loss_that_is_not_a_number(views, targets):
    with pytest.raises(UserError, match=f"{views} views and {targets} targets"):
        swapped_prediction([draw(3, 4)] * views, [codes(3, 4, 0)] * targets, temperature=0.1)
