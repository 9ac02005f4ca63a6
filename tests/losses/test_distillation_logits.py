"""What a student's loss is, from its equation."""

import math

import pytest
import torch

from similitude.losses import distill_logits, nt_xent, nt_xent_with_queue

PLAIN = {"temperature": 0.5, "scale_by_temperature_squared": False}


def logits(n=6, k=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator, dtype=torch.float64)


def test_the_equation():
    teacher, student, t = logits(), logits(seed=1), 0.3
    target = (teacher / t).exp() / (teacher / t).exp().sum(1, keepdim=True)
    log_p = (student / t) - (student / t).exp().sum(1, keepdim=True).log()
    loss = distill_logits(teacher, student, temperature=t, scale_by_temperature_squared=False)
    torch.testing.assert_close(loss, -(target * log_p).sum(1).mean())


def test_temperature_squared_is_a_factor():
    teacher, student = logits(), logits(seed=1)
    plain = distill_logits(teacher, student, **PLAIN)
    scaled = distill_logits(teacher, student, temperature=0.5, scale_by_temperature_squared=True)
    torch.testing.assert_close(scaled, 0.25 * plain)


def test_a_student_that_knows_nothing_is_at_log_k():
    assert distill_logits(logits(), torch.zeros(6, 4), **PLAIN).item() == pytest.approx(math.log(4))


def test_the_teacher_is_the_best_student():
    teacher = logits()
    student = teacher.clone().requires_grad_()
    distill_logits(teacher, student, **PLAIN).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher))


def test_the_roles_are_not_exchangeable():
    a, b = logits(), logits(seed=1)
    assert not torch.isclose(distill_logits(a, b, **PLAIN), distill_logits(b, a, **PLAIN))


def test_extreme_logits_stay_finite():
    teacher, student = 1e4 * logits().float(), 1e4 * logits(seed=1).float()
    assert distill_logits(teacher, student, **PLAIN).isfinite()


def test_gradients_are_right():
    inputs = (logits().requires_grad_(), logits(seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda t, s: distill_logits(t, s, **PLAIN), inputs)


def unit_rows(n, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def test_an_empty_queue_leaves_nt_xent():
    z1, z2 = 3 * unit_rows(4, 0), 2 * unit_rows(4, 1)
    loss = nt_xent_with_queue(z1, z2, unit_rows(0, 2), temperature=0.2)
    torch.testing.assert_close(loss, nt_xent(z1, z2, temperature=0.2))


def test_queued_keys_join_the_candidates_of_every_view():
    z1, z2, queue, t = unit_rows(3, 0), unit_rows(3, 1), unit_rows(5, 2), 0.2
    z = torch.cat([z1, z2])
    terms = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        candidates = torch.cat([z[others] @ z[i], queue @ z[i]]) / t
        terms.append(candidates.exp().sum().log() - z[(i + 3) % 6] @ z[i] / t)
    loss = nt_xent_with_queue(z1, z2, queue, temperature=t)
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_all_alike_is_the_log_of_the_number_of_candidates():
    ones = torch.nn.functional.normalize(torch.ones(4, 5), dim=1)
    loss = nt_xent_with_queue(ones, ones, ones.repeat(3, 1), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(2 * 4 - 1 + 12), abs=1e-5)
