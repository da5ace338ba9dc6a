import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.errors import InputError
from starsmith.evaluation.statistics import bootstrap_ratio, estimate_pass_at_k, pass_at_k, wilson


def by_enumeration(samples: int, passed: int, k: int) -> float:
    """pass@k as it is defined: the share of k-subsets that hold a passing sample."""
    outcomes = [True] * passed + [False] * (samples - passed)
    subsets = list(itertools.combinations(outcomes, k))
    return sum(map(any, subsets)) / len(subsets)


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets(samples: int) -> None:
    for passed in range(samples + 1):
        for k in range(1, samples + 1):
            assert pass_at_k(samples, passed, k) == pytest.approx(by_enumeration(samples, passed, k))


def test_pass_at_k_does_not_overflow() -> None:
    assert pass_at_k(10_000, 100, 100) == pytest.approx(1 - np.prod(1 - 100 / np.arange(9_901, 10_001)))
    assert 0.6 < pass_at_k(10_000, 100, 100) < 0.7


@pytest.mark.parametrize(("samples", "k"), [(1, 2), (9, 10), (5, 0)])
def test_too_few_samples_are_refused(samples: int, k: int) -> None:
    with pytest.raises(InputError, match=f"pass@{k}"):
        pass_at_k(samples, 0, k)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError):
        pass_at_k(3, 4, 1)


def test_wilson_of_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for passed, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)
    ):  # fmt: skip
        estimate = wilson(passed, n)
        assert (estimate.value, estimate.n) == (passed / n, n)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0).n == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_value(counts: tuple[int, int]) -> None:
    estimate = wilson(*counts)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_bootstrap_covers_the_truth_about_95_times_in_100() -> None:
    draw = np.random.Generator(np.random.PCG64(1))
    hits = 0
    for seed in range(100):
        values = draw.exponential(2.0, size=100)
        estimate = bootstrap_ratio(values.tolist(), [1.0] * 100, seed=seed)
        hits += estimate.low <= 2.0 <= estimate.high
    assert 86 <= hits <= 99


def test_bootstrap_is_a_ratio_of_sums_and_repeats() -> None:
    estimate = bootstrap_ratio([10.0, 90.0], [10.0, 30.0], seed=3)
    assert estimate.value == 2.5 and estimate.low == 1.0 and estimate.high == 3.0
    assert estimate == bootstrap_ratio([10.0, 90.0], [10.0, 30.0], seed=3)
    assert bootstrap_ratio([], [], seed=1).n == 0
    assert bootstrap_ratio([0.0], [0.0], seed=1).n == 0


def test_bootstrap_memory_does_not_grow_with_its_resamples() -> None:
    estimate = bootstrap_ratio([1.0] * 20_000, [1.0] * 20_000, seed=1)
    assert (estimate.low, estimate.value, estimate.high) == (1.0, 1.0, 1.0)


def test_pass_at_1_of_single_samples_is_a_proportion() -> None:
    assert estimate_pass_at_k([(1, 0)] * 164, 1, seed=1) == wilson(0, 164)
    several = estimate_pass_at_k([(4, 4), (4, 0)], 1, seed=1)
    assert several.value == 0.5 and several.low == 0.0 and several.high == 1.0
