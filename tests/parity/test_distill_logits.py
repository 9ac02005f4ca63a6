"""Distillation against the notebook of SimCLR v2's authors."""

import pytest

from similitude.losses import distill_logits


@pytest.mark.golden("simclrv2_distill")
def test_distill_logits(vectors, close):
    teacher = vectors["teacher_logits"].requires_grad_()
    student = vectors["student_logits"].requires_grad_()
    temperature = vectors["temperature"]
    plain = distill_logits(
        teacher, student, temperature=temperature, scale_by_temperature_squared=False
    )
    close(plain.item(), vectors["loss_plain"])
    scaled = distill_logits(
        teacher.detach(), student, temperature=temperature, scale_by_temperature_squared=True
    )
    close(scaled.item(), vectors["loss_with_tau_squared"])
    scaled.backward()
    close(student.grad, vectors["grad_student_with_tau_squared"])
