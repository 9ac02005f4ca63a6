import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from similitude.schedules import cosine, linear, step_decay, warmup_cosine

values = st.floats(-10, 10)
fractions = st.floats(0, 1)


@given(values, values)
def test_both_reach_their_ends_and_stay_there(start, end):
    for schedule in (linear, cosine):
        for fraction in (0.0, -0.5):
            assert schedule(start, end, fraction) == pytest.approx(start, abs=1e-12)
        for fraction in (1.0, 1.5):
            assert schedule(start, end, fraction) == pytest.approx(end, abs=1e-12)


@given(fractions)
def test_cosine_mirrors_about_the_middle_and_linear_is_a_line(fraction):
    assert cosine(3.0, 1.0, fraction) + cosine(3.0, 1.0, 1 - fraction) == pytest.approx(4.0)
    assert linear(3.0, 1.0, fraction) == pytest.approx(3.0 - 2.0 * fraction)


def test_cosine_by_hand():
    assert cosine(1.0, 0.0, 0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert cosine(0.996, 1.0, 0.5) == pytest.approx(0.998)


@given(st.floats(0.01, 0.99), fractions)
def test_warmup_rises_to_the_peak_then_falls_to_the_end(warmup, fraction):
    rate = warmup_cosine(2.0, 0.5, warmup, fraction)
    if fraction < warmup:
        assert rate == pytest.approx(2.0 * fraction / warmup)
    else:
        assert rate == pytest.approx(cosine(2.0, 0.5, (fraction - warmup) / (1 - warmup)))


def test_warmup_starts_at_zero_peaks_once_and_may_be_absent_or_all_there_is():
    rates = [warmup_cosine(2.0, 0.0, 0.2, step / 10) for step in range(11)]
    assert rates[0] == 0
    assert [rate for rate in rates if rate == 2.0] == [rates[2]]
    assert rates[10] == pytest.approx(0.0)
    assert warmup_cosine(2.0, 0.0, 0.0, 0.0) == 2.0
    assert warmup_cosine(2.0, 0.0, 1.0, 0.5) == 1.0
    assert warmup_cosine(2.0, 0.0, 1.0, 1.0) == 2.0


def test_a_run_past_its_plan_keeps_the_last_value():
    assert warmup_cosine(2.0, 0.5, 0.1, 1.7) == pytest.approx(0.5)
    assert step_decay(1.0, (0.6, 0.8), 0.1, 1.7) == pytest.approx(0.01)


def test_step_decay_drops_at_the_milestone_itself():
    """MoCo v1: 0.03, times 0.1 from epochs 120 and 160 of 200 on; fractions of steps agree."""
    milestones = (120 / 200, 160 / 200)
    rates = [step_decay(0.03, milestones, 0.1, epoch / 200) for epoch in (0, 119, 120, 159, 160)]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003])
    steps_per_epoch = 5004
    first = step_decay(0.03, milestones, 0.1, 120 * steps_per_epoch / (200 * steps_per_epoch))
    last = step_decay(0.03, milestones, 0.1, (120 * steps_per_epoch - 1) / (200 * steps_per_epoch))
    assert (last, first) == pytest.approx((0.03, 0.003))


def test_a_warm_up_may_begin_above_zero_and_a_cosine_end_there():
    assert warmup_cosine(1.0, 0.1, 0.5, 0.0, start=0.3) == pytest.approx(0.3)
    assert warmup_cosine(1.0, 0.1, 0.5, 0.25, start=0.3) == pytest.approx(0.65)
    assert warmup_cosine(1.0, 0.1, 0.5, 1.0, start=0.3) == pytest.approx(0.1)
