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


def test_warm_up_stable_decay():
    config = Training(
        steps=100, warmup_steps=10, schedule="wsd", decay_steps=40, learning_rate=1e-3, min_learning_rate=1e-4
    )
    assert learning_rate(5, config) == pytest.approx(5e-4)
    assert {learning_rate(step, config) for step in range(10, 61)} == {1e-3}
    assert learning_rate(80, config) == pytest.approx((1e-3 + 1e-4) / 2)
    assert learning_rate(70, config) == pytest.approx(1e-3 - 9e-4 / 4)
    assert learning_rate(100, config) == pytest.approx(1e-4)


@bounded(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(0, 400))
def test_wsd_decays_over_a_fifth_by_default_and_never_before_the_warm_up_ends(steps, warmup_steps):
    config = Training(
        steps=steps, warmup_steps=warmup_steps, schedule="wsd", learning_rate=1e-3, min_learning_rate=1e-4
    )
    rates = [learning_rate(step, config) for step in range(1, steps + 1)]
    stable = [step for step, rate in enumerate(rates, start=1) if rate == 1e-3]
    if warmup_steps < steps:
        assert rates[-1] == pytest.approx(1e-4)
    if 1 <= warmup_steps <= steps // 2:
        assert stable == list(range(warmup_steps, steps - math.ceil(steps / 5) + 1))


@bounded(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 100))
def test_the_stable_part_of_wsd_does_not_depend_on_the_end(steps, more):
    short, long = (
        Training(steps=number, warmup_steps=10, schedule="wsd", decay_steps=0) for number in (steps, steps + more)
    )
    assert [learning_rate(step, short) for step in range(1, steps + 1)] == [
        learning_rate(step, long) for step in range(1, steps + 1)
    ]


def test_refuses_a_decay_that_has_no_place():
    with pytest.raises(InputError, match=r"decay_steps is 5, but a cosine decays"):
        check(Training(decay_steps=5))
    with pytest.raises(InputError, match=r"warmup_steps 60 and training.decay_steps 41 are more than .* 100"):
        check(Training(steps=100, warmup_steps=60, decay_steps=41, schedule="wsd"))
    check(Training(steps=100, warmup_steps=60, decay_steps=40, schedule="wsd"))
