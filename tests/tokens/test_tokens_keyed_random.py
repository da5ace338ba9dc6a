"""Draws and permutations depend on their identity only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.tokens.keyed_random import Draws, Permutation

GOLDEN_INTEGERS = [301, 229, 464, 40, 211]
GOLDEN_UNIFORM = 0.30173456497727813
GOLDEN_ORDER = [5, 2, 9, 0, 8, 7, 4, 6, 3, 1]


def test_draws_are_fixed_for_ever() -> None:
    """These values must not change with a release of ours or of NumPy, or resumed runs would differ."""
    draws = Draws(42, "fim", 0, "document")
    assert [draws.integer(1000) for _ in range(5)] == GOLDEN_INTEGERS
    assert Draws(42, "fim", 0, "document").uniform() == pytest.approx(GOLDEN_UNIFORM, abs=1e-15)
    permutation = Permutation(10, 42, "permutation", 0)
    assert [permutation[place] for place in range(10)] == GOLDEN_ORDER


def test_identities_are_kept_apart() -> None:
    identities = [(1, "a"), (1, "b"), (2, "a"), ("1", "a"), ("1a",), (1, "a", ""), (1, "a", 0)]
    assert len({Draws(*identity).integer(2**64) for identity in identities}) == len(identities)


def test_draws_are_uniform() -> None:
    values = np.array([Draws("test", number).uniform() for number in range(4000)])
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square, 9 degrees, p = 0.001
    draws = Draws("integers")
    counts = np.bincount([draws.integer(7) for _ in range(7000)], minlength=7)
    assert len(counts) == 7
    assert ((counts - 1000) ** 2 / 1000).sum() < 22.5


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 700), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_a_permutation_visits_everything_once(size: int, seed: int, epoch: int) -> None:
    permutation = Permutation(size, seed, "permutation", epoch)
    assert sorted(permutation[place] for place in range(size)) == list(range(size))
    with pytest.raises(IndexError):
        permutation[size]


def test_every_order_of_few_things_comes_up_about_equally() -> None:
    orders: dict[tuple[int, ...], int] = {}
    for seed in range(2400):
        permutation = Permutation(4, seed)
        found = tuple(permutation[place] for place in range(4))
        orders[found] = orders.get(found, 0) + 1
    assert len(orders) == 24
    assert sum((count - 100) ** 2 / 100 for count in orders.values()) < 49.7  # 23 degrees, p = 0.001


def test_a_permutation_of_nothing_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Permutation(0)
