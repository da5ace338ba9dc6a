"""The mixture: who belongs to which part, and streams in proportion to shares."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starsmith.errors import InputError
from starsmith.recipe import MixturePart
from starsmith.tokens.mixture import deal, part_of


def part(name: str, *repositories: str) -> MixturePart:
    return MixturePart(name=name, repositories=repositories, share=0.1)


def owners(names: list[str], *parts: MixturePart) -> list[int]:
    return part_of(pa.chunked_array([names[:2], names[2:]], type=pa.string()), parts).tolist()


def test_the_first_part_that_names_a_repository_has_it() -> None:
    names = ["numpy/numpy", "numpy/doc", "a/b", "x/numpy/numpy", "NUMPY/NUMPY", ""]
    parts = (part("exact", "numpy/numpy"), part("prefix", "numpy/*", "a/b"), part("all", "?", "*/*"))
    assert owners(names, *parts[:2]) == [0, 1, 1, 2, 2, 2]
    assert owners(names, *parts) == [0, 1, 1, 2, 2, 3]
    assert owners(names, *reversed(parts)) == [0, 0, 0, 0, 0, 3]
    assert owners(names) == [0] * 6


def test_only_a_star_is_special() -> None:
    names = ["a.b/c", "axb/c", "a[x]", "ax", "a+", "aa", "ab\nc", "x|y"]
    found = owners(names, part("p", "a.b/*", "a[x]", "a+", "ab*", "x|y"))
    assert found == [0, 1, 0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("shares", "num_streams", "expected"),
    [
        ({"only": 1.0}, 4, [0, 0, 0, 0]),
        ({"a": 0.5, "b": 0.5}, 4, [0, 1, 0, 1]),
        ({"a": 0.25, "b": 0.75}, 4, [1, 0, 1, 1]),
        ({"a": 0.34, "b": 0.33, "c": 0.33}, 4, [0, 1, 2, 0]),
    ],
)
def test_small_deals_written_out(shares: dict[str, float], num_streams: int, expected: list[int]) -> None:
    assert deal(shares, num_streams).tolist() == expected


weights = st.lists(st.integers(1, 100), min_size=1, max_size=6)


@given(weights=weights, num_streams=st.integers(1, 300), window=st.integers(1, 64))
def test_shares_hold_over_all_streams_and_nearly_in_every_batch(
    weights: list[int], num_streams: int, window: int
) -> None:
    shares = {str(number): weight / sum(weights) for number, weight in enumerate(weights)}
    try:
        dealt = deal(shares, num_streams)
    except InputError:
        assert any(share * num_streams < 1 for share in shares.values())
        return
    assert len(dealt) == num_streams
    for number, share in enumerate(shares.values()):
        mine = dealt == number
        assert abs(mine.sum() - share * num_streams) < 1
        exact = mine.sum() / num_streams
        bound = 1 + exact * len(shares)
        for start in range(0, num_streams - window + 1, window):
            assert abs(mine[start : start + window].sum() - exact * window) <= bound


@given(weights=weights, num_streams=st.integers(1, 50))
def test_a_part_without_a_stream_is_refused_and_the_advice_helps(weights: list[int], num_streams: int) -> None:
    shares = {f"p{number}": weight / sum(weights) for number, weight in enumerate(weights)}
    try:
        deal(shares, num_streams)
    except InputError as error:
        assert f"{num_streams} streams are too few" in str(error)
        needed = int(str(error).split("at least ")[1].split(",")[0])
        assert len(set(deal(shares, needed).tolist())) == len(shares)
