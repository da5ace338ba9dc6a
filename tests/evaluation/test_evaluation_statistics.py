import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.errors import InputError
from starsmith.evaluation.statistics import (
    bootstrap_ratio,
    estimate_pass_at_k,
    mcnemar,
    paired_bootstrap,
    pass_at_k,
    wilson,
)


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


@pytest.mark.parametrize(
    ("only_old", "only_new", "expected"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (5, 5, 1.0), (400, 600, 2.7e-10)],
)
def test_mcnemar_is_the_exact_binomial_test(only_old: int, only_new: int, expected: float) -> None:
    assert mcnemar(only_old, only_new) == pytest.approx(expected, rel=0.05)
    assert mcnemar(only_new, only_old) == mcnemar(only_old, only_new)


def test_pairing_sees_what_unpaired_intervals_hide() -> None:
    generator = np.random.default_rng(1)
    hardness = generator.random(200)
    old = [(float(value), 1.0) for value in hardness]
    new = [
        (float(value) + 0.01 + 0.01 * float(noise), 1.0)
        for value, noise in zip(hardness, generator.random(200), strict=True)
    ]
    found = paired_bootstrap(old, new, seed=3)
    assert 0.01 < found.difference.low < found.difference.value < found.difference.high < 0.02
    assert found.p_value < 0.002
    first, second = (bootstrap_ratio([v for v, _ in side], [1.0] * 200, seed=3) for side in (old, new))
    assert first.high > second.low, "unpaired, nothing could be said"


def test_equal_models_do_not_differ() -> None:
    side = [(float(n % 2), 1.0) for n in range(50)]
    found = paired_bootstrap(side, side, seed=3)
    assert found.difference.value == 0.0 == found.difference.low == found.difference.high
    assert found.p_value == 1.0


def test_a_paired_interval_covers_the_truth() -> None:
    generator, hits = np.random.default_rng(7), 0
    for trial in range(200):
        both = generator.random(80)
        old = [(float(value < 0.4), 1.0) for value in both]
        new = [(float(value < 0.5), 1.0) for value in both]
        found = paired_bootstrap(old, new, seed=trial)
        hits += found.difference.low <= 0.1 <= found.difference.high
    assert hits / 200 > 0.88


def test_a_paired_test_needs_pairs() -> None:
    with pytest.raises(InputError, match="same problems"):
        paired_bootstrap([(1.0, 1.0)], [], seed=1)
    with pytest.raises(InputError, match="some weight"):
        paired_bootstrap([(1.0, 0.0)], [(1.0, 0.0)], seed=1)
