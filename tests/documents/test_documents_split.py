"""The choice of validation repositories: counted, keyed, independent of order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.documents.split import validation_repositories

names = st.lists(st.text(min_size=1, max_size=8), max_size=40)


@settings(max_examples=50, deadline=None)
@given(names=names, fraction=st.floats(0, 1), seed=st.integers(0, 10), data=st.data())
def test_size_and_independence_of_order(names: list[str], fraction: float, seed: int, data: st.DataObject) -> None:
    held_out = validation_repositories(names, fraction=fraction, seed=seed)
    distinct = set(names)
    assert held_out <= distinct
    assert held_out == validation_repositories(data.draw(st.permutations(names)), fraction=fraction, seed=seed)
    if fraction == 1:
        assert held_out == distinct
    elif fraction == 0 or len(distinct) < 2:
        assert not held_out
    else:
        assert 1 <= len(held_out) < len(distinct)
        assert abs(len(held_out) - fraction * len(distinct)) <= 1


def test_seed_changes_the_choice() -> None:
    names = [f"repository-{number}" for number in range(100)]
    chosen = {validation_repositories(names, fraction=0.05, seed=seed) for seed in range(5)}
    assert len(chosen) == 5
    assert all(len(held_out) == 5 for held_out in chosen)


def test_a_new_repository_moves_at_most_one_other() -> None:
    names = [f"repository-{number}" for number in range(100)]
    before = validation_repositories(names, fraction=0.1, seed=1)
    after = validation_repositories([*names, "another"], fraction=0.1, seed=1)
    assert len(before ^ after) <= 2
