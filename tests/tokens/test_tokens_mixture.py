"""The mixture: who belongs to which part, and streams in proportion to shares."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_documents import MIXTURE, make_document, open_loader

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


def test_a_mixture_deals_rows_in_proportion(write_folder: Callable[..., Path]) -> None:
    folder = write_folder([make_document(f"r{number}", ["x = 1\n" * 9]) for number in range(8)])
    loader = open_loader(folder, batch_size=20, config={"streams": 20, "mixture": MIXTURE})
    described = [(part.name, part.share, part.num_documents, part.num_streams) for part in loader.parts]
    assert described == [
        ("even", 0.25, 3, 5), ("five", 0.2, 2, 4), ("rest", pytest.approx(0.55), 3, 11),
    ]  # fmt: skip
    for _ in range(5):
        spans = loader.next_batch().spans.to_pylist()
        rows = Counter(name for name, _ in {(span["repo_name"], span["row"]) for span in spans})
        by_part = [{"r0", "r2", "r4"}, {"r5", "r1"}, {"r3", "r6", "r7"}]
        assert all(name in set.union(*by_part) for name in rows)
        numbers = [{span["row"] for span in spans if span["repo_name"] in names} for names in by_part]
        assert [len(found) for found in numbers] == [5, 4, 11]


def test_documents_of_no_part_are_counted_when_nothing_is_left_for_them(write_folder: Callable[..., Path]) -> None:
    folder = write_folder([make_document(f"r{number}", ["x = 1\n" * 9]) for number in range(4)])
    parts = [{"name": name, "repositories": [name], "share": 0.5} for name in ("r0", "r3")]
    loader = open_loader(folder, config={"mixture": parts})
    assert [(part.name, part.num_documents, part.num_streams) for part in loader.parts] == [
        ("r0", 1, 4), ("r3", 1, 4), ("rest", 2, 0),
    ]  # fmt: skip
    seen = {name for _ in range(9) for name in loader.next_batch().spans["repo_name"].to_pylist()}
    assert seen == {"r0", "r3"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([("a", "nothing/*", 0.5)], "part 'a' of the mixture has a share of 0.5 and no documents"),
        ([("a", "*", 0.5)], "part 'rest' of the mixture has a share of 0.5 and no documents"),
        ([("a", "r0", 0.5), ("b", "r1", 0.6)], "must add up to at most 1"),
        ([("a", "r0", 0.2), ("a", "r1", 0.2)], "names differ from each other"),
        ([("rest", "r0", 0.2)], "names differ from each other and from 'instructions' and 'rest'"),
        ([("a", "r0", 0.01)], r"8 streams are too few .* 'a' \(0\.01\)\. Set tokens\.streams to at least 100"),
    ],
)
def test_a_mixture_that_cannot_be_made_is_refused(
    write_folder: Callable[..., Path], parts: list[tuple[str, str, float]], message: str
) -> None:
    folder = write_folder([make_document(f"r{number}", ["x = 1\n"]) for number in range(4)])
    described = [{"name": name, "repositories": [pattern], "share": share} for name, pattern, share in parts]
    with pytest.raises(InputError, match=message):
        open_loader(folder, config={"mixture": described})
