"""Which copy stays, in every order of the input, and what the ledger says of the others."""

import datetime
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import DAY, SmallCorpus

from starsmith import recipe
from starsmith.policies import decisions, duplicates, opt_out
from starsmith.policies.decisions import Policy

LATER = DAY + datetime.timedelta(days=1)

# each file is better than all after it
RANKING: list[dict[str, Any]] = [
    {"license_type": "permissive", "star_events_count": 0},
    {"license_type": "no_license", "star_events_count": 9},
    {"license_type": "no_license", "star_events_count": 8, "fork_events_count": 5},
    {"license_type": "no_license", "star_events_count": 8, "fork_events_count": 4, "revision_date": LATER},
    {"license_type": "no_license", "star_events_count": 8, "fork_events_count": 4, "revision_date": DAY}
    | {"visit_date": LATER},
    {"license_type": "no_license", "star_events_count": 8, "fork_events_count": 4, "revision_date": DAY}
    | {"visit_date": DAY},
    {"license_type": "no_license", "star_events_count": 8, "fork_events_count": 4, "revision_date": DAY},
    {"license_type": "no_license", "star_events_count": 8, "fork_events_count": 4, "visit_date": LATER},
    {"license_type": "non_permissive", "star_events_count": 99},
]
ALL_TYPES = Policy(licenses=recipe.Licenses(keep=("permissive", "no_license", "non_permissive")))


@settings(max_examples=8, deadline=None)
@given(chosen=st.sets(st.integers(0, len(RANKING) - 1), min_size=2), shuffled=st.randoms(use_true_random=False))
def test_the_best_copy_stays_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, chosen: set[int], shuffled: Any
) -> None:
    corpus = SmallCorpus(tmp_path_factory.mktemp("copies"))
    places = list(chosen)
    shuffled.shuffle(places)
    ids = {place: corpus.add(f"/{place}.py", content="same", **RANKING[place]) for place in places}
    near = {place: corpus.add(f"/near{place}.py", content=f"n{place}", **RANKING[place]) for place in places}
    best = min(chosen)
    for place in chosen - {best}:
        corpus.pair(f"n{best}", f"n{place}", 0.9)
    decided = decisions.decide(corpus.tables(), ALL_TYPES)
    assert set(decided.kept["file_id"].to_pylist()) == {ids[best], near[best]}
    for row in decided.decisions.to_pylist():
        survivor = ids[best] if row["rule"] == "exact_duplicate" else near[best]
        assert row["evidence"].startswith(f"survivor {survivor} is owner/repo:/")


def test_equal_copies_fall_back_to_the_identifier(corpus: SmallCorpus) -> None:
    ids = [corpus.add(f"/{number}.py", content="same") for number in range(5)]
    (kept,) = decisions.decide(corpus.tables(), Policy()).kept["file_id"].to_pylist()
    assert kept == min(ids)


def test_evidence_of_an_exact_duplicate(corpus: SmallCorpus) -> None:
    best = corpus.add("/best.py", repo="big/one", content="same", star_events_count=7)
    corpus.add("/worse.py", content="same")
    corpus.add("/alone.py", content="other")
    (row,) = decisions.decide(corpus.tables(), Policy()).decisions.to_pylist()
    assert (row["rule"], row["value"], row["threshold"]) == ("exact_duplicate", "2 copies", "1 copy")
    assert row["evidence"] == f"survivor {best} is big/one:/best.py"


def test_a_file_is_not_dropped_for_one_that_does_not_make_it_either(corpus: SmallCorpus) -> None:
    corpus.add("/famous.py", content="same", star_events_count=9, license_type="non_permissive")
    stays = corpus.add("/modest.py", content="same")
    corpus.add("/near.py", content="near", star_events_count=99, license_type="non_permissive")
    corpus.pair("same", "near", 0.95)
    assert decisions.decide(corpus.tables(), Policy()).kept["file_id"].to_pylist() == [stays]


def test_an_opt_out_promotes_the_next_survivor(corpus: SmallCorpus) -> None:
    first = corpus.add("/a.py", repo="gone/repo", content="same", star_events_count=9)
    second = corpus.add("/a.py", repo="next/repo", content="same", star_events_count=5)
    corpus.add("/a.py", repo="last/repo", content="near")
    corpus.pair("same", "near", 0.8)
    tables = corpus.tables()
    assert decisions.decide(tables, Policy()).kept["file_id"].to_pylist() == [first]
    without = decisions.decide(tables, Policy(opt_out_targets=opt_out.parse("GONE/repo")))
    assert without.kept["file_id"].to_pylist() == [second]
    assert {row["rule"] for row in without.decisions.to_pylist()} == {"opt_out", "near_duplicate"}


def test_near_duplicates_name_survivor_similarity_and_cluster(corpus: SmallCorpus) -> None:
    # a - b - c - d: only b is paired with the survivor a; d hangs on c by a weak link, and on b by a weaker one
    best = corpus.add("/a.py", content="a", star_events_count=9)
    others = {name: corpus.add(f"/{name}.py", content=name) for name in "bcd"}
    for left, right, jaccard in (("a", "b", 0.9), ("b", "c", 0.85), ("c", "d", 0.75), ("b", "d", 0.72)):
        corpus.pair(left, right, jaccard)
    decided = decisions.decide(corpus.tables(), Policy())
    assert decided.kept["file_id"].to_pylist() == [best]
    rows = {row["file_id"]: row for row in decided.decisions.to_pylist()}
    assert {name: rows[file]["value"] for name, file in others.items()} == {"b": "0.9", "c": "0.85", "d": "0.75"}
    assert rows[others["b"]]["evidence"] == (
        f"survivor {best} is owner/repo:/a.py; similarity to it; cluster of 4"
    )
    assert rows[others["d"]]["evidence"] == (
        f"survivor {best} is owner/repo:/a.py; similarity of the chain to it; cluster of 4"
    )
    assert rows[others["d"]]["threshold"] == "similarity < 0.7"


def test_languages_are_kept_apart_unless_asked(corpus: SmallCorpus) -> None:
    corpus.add("/a.c", content="a", language="C")
    corpus.add("/a.h", content="b", language="C++")
    corpus.pair("a", "b", 0.99)
    tables = corpus.tables()
    assert decisions.decide(tables, Policy()).kept.num_rows == 2
    together = Policy(near_duplicates=recipe.NearDuplicates(per_language=False))
    assert decisions.decide(tables, together).kept.num_rows == 1


def test_pairs_below_the_threshold_and_a_rule_switched_off(corpus: SmallCorpus) -> None:
    for name in "abc":
        corpus.add(f"/{name}.py", content=name)
    corpus.pair("a", "b", 0.7)
    corpus.pair("b", "c", 0.6999)
    tables = corpus.tables()
    assert decisions.decide(tables, Policy()).kept.num_rows == 2
    strict = Policy(near_duplicates=recipe.NearDuplicates(threshold=0.8))
    assert decisions.decide(tables, strict).kept.num_rows == 3
    off = Policy(near_duplicates=recipe.NearDuplicates(enabled=False))
    assert decisions.decide(tables, off).kept.num_rows == 3


def test_unverified_pairs_join_whatever_their_estimate(corpus: SmallCorpus) -> None:
    for name in "ab":
        corpus.add(f"/{name}.py", content=name)
    corpus.pair("a", "b", 0.3)
    tables = corpus.tables()
    assert decisions.decide(tables, Policy()).kept.num_rows == 2
    config = recipe.NearDuplicates.model_validate({"preset": "stack-v2"})
    (row,) = decisions.decide(tables, Policy(near_duplicates=config)).decisions.to_pylist()
    assert (row["value"], row["threshold"]) == ("0.3", "no band in common")


def test_a_pair_through_a_dropped_content_joins_nothing(corpus: SmallCorpus) -> None:
    corpus.add("/a.py", content="a")
    corpus.add("/bridge.py", content="b", license_type="non_permissive")
    corpus.add("/c.py", content="c")
    corpus.pair("a", "b", 0.9)
    corpus.pair("b", "c", 0.9)
    assert set(decisions.decide(corpus.tables(), Policy()).kept["path"].to_pylist()) == {"/a.py", "/c.py"}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda pair: pair[0] < pair[1]),
        st.sampled_from([0.7, 0.75, 0.8, 0.9, 1.0]),
        max_size=14,
    )
)
def test_widest_chain_equals_trying_every_threshold(pairs: dict[tuple[int, int], float]) -> None:
    links = sorted(pairs)
    neighbours: dict[str, list[tuple[float, str]]] = {str(node): [] for node in range(7)}
    for (left, right), similarity in pairs.items():
        neighbours[str(left)].append((similarity, str(right)))
        neighbours[str(right)].append((similarity, str(left)))

    def reached(threshold: float) -> set[str]:
        seen, queue = {"0"}, ["0"]
        while queue:
            for similarity, other in neighbours[queue.pop()]:
                if similarity >= threshold and other not in seen:
                    seen.add(other)
                    queue.append(other)
        return seen

    found = duplicates.widest_chains(
        np.array([left for left, _ in links], np.int64),
        np.array([right for _, right in links], np.int64),
        np.array([pairs[link] for link in links], np.float64),
        np.arange(7) == 0,
    )
    widths = {str(node): width for node, width in enumerate(found.tolist()) if width >= 0}
    assert set(widths) == reached(0.0)
    for node in set(widths) - {"0"}:
        assert node in reached(widths[node])
        assert node not in reached(widths[node] + 1e-9)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_permuting_rows_changes_nothing(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    shuffled = random.Random(seed)
    corpus = SmallCorpus(tmp_path_factory.mktemp("permuted"))
    for number in range(16):
        corpus.add(
            f"/{number}.py",
            repo=f"owner/{number % 3}",
            content=f"c{number % 11}",
            language="C" if number % 11 % 4 else "Rust",
            star_events_count=number % 2,
            license_type=("permissive", "no_license", "non_permissive")[number % 3],
        )
        corpus.finding(f"c{number % 11}", "EMAIL", start=number)
    for left, right in shuffled.sample([(a, b) for b in range(11) for a in range(b)], 9):
        corpus.pair(f"c{left}", f"c{right}", 0.7 + (left * 11 + right) / 500)
    expected = decisions.decide(corpus.tables(), Policy())
    for rows in corpus.rows.values():
        shuffled.shuffle(rows)
    found = decisions.decide(corpus.tables(), Policy(), threads=2)
    assert _bytes(found.decisions) == _bytes(expected.decisions)
    assert _bytes(found.kept) == _bytes(expected.kept)


def test_no_pairs_at_all(tmp_path: Path) -> None:
    corpus = SmallCorpus(tmp_path)
    corpus.add("/a.py")
    tables = {name: parts for name, parts in corpus.tables().items() if name != "near_duplicate_pairs"}
    assert decisions.decide(tables, Policy()).kept.num_rows == 1


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
