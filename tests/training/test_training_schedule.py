import math

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from starsmith.errors import InputError
from starsmith.recipe import Training
from starsmith.training.schedule import check, learning_rate


def test_the_paper_s_shape():
    config = Training(steps=101_000, warmup_steps=1_000, learning_rate=3e-4, min_learning_rate=3e-5)
    assert learning_rate(1, config) == pytest.approx(3e-7)
    assert learning_rate(500, config) == pytest.approx(1.5e-4)
    assert learning_rate(1_000, config) == pytest.approx(3e-4)
    assert learning_rate(51_000, config) == pytest.approx((3e-4 + 3e-5) / 2)
    assert learning_rate(26_000, config) == pytest.approx(3e-5 + 2.7e-4 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(101_000, config) == pytest.approx(3e-5)


@bounded(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(0, 400))
def test_rises_then_falls_within_its_bounds(steps, warmup_steps):
    config = Training(steps=steps, warmup_steps=warmup_steps, learning_rate=1e-3, min_learning_rate=1e-4)
    rates = [learning_rate(step, config) for step in range(1, steps + 1)]
    peak = min(warmup_steps, steps)
    assert all(0 < rate <= 1e-3 * (1 + 1e-12) for rate in rates)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if warmup_steps < steps:
        assert rates[-1] == pytest.approx(1e-4)


def test_refuses_a_minimum_above_the_peak():
    with pytest.raises(InputError, match=r"min_learning_rate 0.001 is above training.learning_rate 0.0001"):
        check(Training(learning_rate=1e-4, min_learning_rate=1e-3))
