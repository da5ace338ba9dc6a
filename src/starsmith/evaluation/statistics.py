"""Estimates with intervals.

pass@k is the unbiased estimator of Chen et al. 2021 (1 - C(n-c, k) / C(n, k)) in its product form, which does
not overflow. Its interval, and those of other means, come from a bootstrap over problems: samples of one
problem are not independent, so the problem is the unit that is drawn. Where every problem has one sample the
value is a proportion, and Wilson's interval is used: unlike the bootstrap it does not collapse to a point at
0 of n, which is what a small model scores.

Two models that answered the same problems are compared problem by problem: their difference varies far less than
either value, since a hard problem is hard for both. The interval of the difference is a bootstrap that draws
problems with both answers; where every problem has one answer that is right or wrong, McNemar's exact test asks
whether those that only one of the two solved split as a fair coin would.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from starsmith.errors import InputError
from starsmith.evaluation.contract import Estimate

Z_95 = 1.959963984540054
NUM_RESAMPLES = 2_000
_DRAWS_AT_ONCE = 200_000


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What two models scored on the same problems, and the difference (new minus old) with its interval."""

    old: float
    new: float
    difference: Estimate
    p_value: float
    """Two-sided: how often a difference of this size or more would arise if there were none."""
    test: str
    """bootstrap or mcnemar"""


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """The probability that at least one of k samples passes, estimated from n samples of which c passed.

    Raises:
        InputError: k is not in 1..n (fewer samples than k give no unbiased estimate), or c is not in 0..n.
    """
    if not 1 <= k <= num_samples:
        raise InputError(
            f"pass@{k} needs at least {max(k, 1)} samples of each problem, got {num_samples}; "
            f"raise evaluation.samples or ask for a smaller k"
        )
    if not 0 <= num_passed <= num_samples:
        raise InputError(f"{num_passed} of {num_samples} samples cannot have passed")
    if num_samples - num_passed < k:
        return 1.0
    terms = 1.0 - k / np.arange(num_samples - num_passed + 1, num_samples + 1)
    return float(1.0 - np.prod(terms))


def wilson(num_passed: int, num_problems: int) -> Estimate:
    """A proportion with Wilson's 95 % interval; without problems, 0 within [0, 1]."""
    if num_problems == 0:
        return Estimate(value=0.0, low=0.0, high=1.0, n=0)
    share, n = num_passed / num_problems, num_problems
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    low = 0.0 if num_passed == 0 else centre - half
    high = 1.0 if num_passed == num_problems else centre + half
    return Estimate(value=share, low=low, high=high, n=n)


def bootstrap_ratio(values: Sequence[float], weights: Sequence[float], *, seed: int) -> Estimate:
    """sum(values) / sum(weights) with the 95 % percentile interval of a bootstrap over the pairs.

    With weights of 1 this is a mean. The pairs are drawn in the order given, so callers order them by
    identifier. Without pairs, or with weights that sum to 0, the value is 0 and n is 0.
    """
    value = np.asarray(values, dtype=np.float64)
    weight = np.asarray(weights, dtype=np.float64)
    if len(value) == 0 or weight.sum() == 0:
        return Estimate(value=0.0, low=0.0, high=0.0, n=0)
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _DRAWS_AT_ONCE // len(value))
    totals = np.concatenate(
        [
            np.stack([value[draw].sum(axis=1), weight[draw].sum(axis=1)], axis=1)
            for start in range(0, NUM_RESAMPLES, rows)
            for draw in [generator.integers(0, len(value), size=(min(rows, NUM_RESAMPLES - start), len(value)))]
        ]
    )
    ratios = totals[totals[:, 1] > 0, 0] / totals[totals[:, 1] > 0, 1]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(value=float(value.sum() / weight.sum()), low=float(low), high=float(high), n=len(value))


def bootstrap_of_sums(
    table: NDArray[np.float64], value: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, seed: int
) -> Estimate:
    """A measure of the sums of a table's columns, with the 95 % percentile interval of a bootstrap over its rows.

    Args:
        table: counts of one problem in each row, ordered by problem.
        value: of sums along the last axis.
        seed: of the draws.
    """
    if len(table) == 0:
        return Estimate(value=0.0, low=0.0, high=0.0, n=0)
    generator = np.random.Generator(np.random.PCG64(seed))
    shares = np.full(len(table), 1 / len(table))
    rows = max(1, _DRAWS_AT_ONCE // len(table))
    # How often each row is drawn is all that sums depend on.
    sums = np.concatenate(
        [
            generator.multinomial(len(table), shares, size=min(rows, NUM_RESAMPLES - start)) @ table
            for start in range(0, NUM_RESAMPLES, rows)
        ]
    )
    low, high = np.quantile(value(sums), [0.025, 0.975])
    return Estimate(value=float(value(table.sum(axis=0))), low=float(low), high=float(high), n=len(table))


def estimate_pass_at_k(counts: Sequence[tuple[int, int]], k: int, *, seed: int) -> Estimate:
    """The mean pass@k over problems given as (samples, passed), ordered by problem.

    Raises:
        InputError: a problem has fewer than k samples.
    """
    if all(samples == 1 for samples, _ in counts) and k == 1:
        return wilson(sum(passed for _, passed in counts), len(counts))
    values = [pass_at_k(samples, passed, k) for samples, passed in counts]
    return bootstrap_ratio(values, [1.0] * len(values), seed=seed)


def paired_bootstrap(
    old: Sequence[tuple[float, float]], new: Sequence[tuple[float, float]], *, seed: int
) -> Paired:
    """Compares sum(value) / sum(weight) of two models over problems given as (value, weight), in one order.

    The interval holds the middle 95 % of the resampled differences. The p-value is twice the smaller share of
    them on either side of 0, and never less than its resolution, 2 / (resamples + 1).

    Raises:
        InputError: the lists differ in length, are empty, or a model's weights sum to 0.
    """
    if len(old) != len(new) or not old:
        raise InputError(f"a paired test needs the same problems, got {len(old)} and {len(new)}")
    table = np.asarray([[*first, *second] for first, second in zip(old, new, strict=True)], dtype=np.float64)
    totals = table.sum(axis=0)
    if totals[1] <= 0 or totals[3] <= 0:
        raise InputError("a paired test needs problems of some weight")
    generator = np.random.Generator(np.random.PCG64(seed))
    count = len(table)
    rows = max(1, _DRAWS_AT_ONCE // count)
    sizes = [min(rows, NUM_RESAMPLES - start) for start in range(0, NUM_RESAMPLES, rows)]
    drawn = np.concatenate([table[generator.integers(0, count, size=(size, count))].sum(axis=1) for size in sizes])
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    differences = drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(differences, [0.025, 0.975])
    on_a_side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    before, after = float(totals[0] / totals[1]), float(totals[2] / totals[3])
    return Paired(
        old=before,
        new=after,
        difference=Estimate(value=after - before, low=float(low), high=float(high), n=len(table)),
        p_value=min(1.0, 2 * (on_a_side + 1) / (len(differences) + 1)),
        test="bootstrap",
    )


def mcnemar(only_old: int, only_new: int) -> float:
    """The exact two-sided p-value for problems that only one of two models solved."""
    total, fewer = only_old + only_new, min(only_old, only_new)
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**total))
