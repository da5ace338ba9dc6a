"""An owner opts out of a corpus with duplicates across owners: what goes, what takes its place, what stays."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from decided_corpus import SmallCorpus, decide, hex_id
from hypothesis import example, given, settings
from hypothesis import strategies as st

from starsmith.corpus import query
from starsmith.inspection import receipts
from starsmith.inspection.receipts import Receipt, Side
from starsmith.policies import opt_out
from starsmith.policies.decisions import Policy
from starsmith.policies.opt_out_requests import add, parse_request


def plant(folder: Path) -> Any:
    """ann's files are the survivors everywhere; ben and carol have copies, dora has nothing of hers."""
    corpus = SmallCorpus(folder)
    corpus.add("/only.py", repo="Ann/one", content="only ann's", star_events_count=9)
    corpus.add("/same.py", repo="Ann/one", content="same", star_events_count=9)
    corpus.add("/copied.py", repo="ben/fork", content="same", star_events_count=5)
    corpus.add("/again.py", repo="carol/fork", content="same", star_events_count=1)
    corpus.add("/near.py", repo="Ann/one", content="near", star_events_count=9)
    corpus.add("/changed.py", repo="ben/fork", content="changed", star_events_count=5)
    corpus.add("/more.py", repo="carol/fork", content="changed more", star_events_count=1)
    corpus.pair("near", "changed", 0.9)
    corpus.pair("changed", "changed more", 0.8)
    corpus.pair("near", "changed more", 0.75)
    corpus.add("/long.py", repo="Ann/one", content="long", statistics={"max_line_length": 5000})
    corpus.add("/own.py", repo="dora/own", content="dora's")
    corpus.add(
        "/far.py", repo="dora/own", content="far", language="C"
    )  # another language: no duplicate, yet a copy
    corpus.pair("near", "far", 0.72)
    return corpus


def side(corpus: Any, name: str, targets: str, listed: str | None) -> Side:
    policy = Policy(opt_out_targets=None if listed is None else opt_out.parse(listed))
    tables: query.Tables = decide(corpus, policy)
    return Side(name=name, tables=tables, matches=opt_out.matches(tables, opt_out.parse(targets)))


Decided = Callable[[str | None], query.Tables]


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Decided:
    """The planted corpus under an opt-out list, or without one; decided once a list."""

    @functools.cache
    def tables(listed: str | None) -> query.Tables:
        policy = Policy(opt_out_targets=None if listed is None else opt_out.parse(listed))
        decided: query.Tables = decide(plant(tmp_path_factory.mktemp("corpus")), policy)
        return decided

    return tables


def receipt_of(decided: Decided, targets: Sequence[str], listed: str | None) -> Receipt:
    def side_of(name: str, listed: str | None, documents: str) -> Side:
        tables = decided(listed)
        return Side(
            name=name,
            tables=tables,
            matches=opt_out.matches(tables, opt_out.parse("\n".join(targets))),
            digests={"documents": documents * 64, "tokenizer": "b" * 64},
        )

    return receipts.make(targets, side_of("corpus", listed, "c"), before=side_of("corpus@1", None, "a"))


def place(file: Any) -> str:
    return f"{file.repo_name}:{file.path}"


def test_an_owner_opts_out_by_a_request(decided: Decided, tmp_path: Path) -> None:
    """The whole way: request, list, ledger, receipt."""
    listed = tmp_path / "opt-out.txt"
    add(listed, parse_request(" - all\n - ben/fork\n", author="ann"))
    receipt = receipt_of(decided, ["ann"], listed.read_text())
    (outcome,) = receipt.targets
    assert (outcome.num_files, outcome.num_left_out, outcome.num_kept, outcome.num_kept_before) == (4, 4, 0, 3)
    assert {place(file): (file.outcome, file.was_kept) for file in outcome.files} == {
        "Ann/one:/only.py": ("left out", True),
        "Ann/one:/same.py": ("left out", True),
        "Ann/one:/near.py": ("left out", True),
        "Ann/one:/long.py": ("left out", False),
    }
    assert {(place(file), file.survivor, file.relation, file.similarity) for file in receipt.promoted} == {
        ("ben/fork:/copied.py", "Ann/one:/same.py", "exact_duplicate", 1.0),
        ("ben/fork:/changed.py", "Ann/one:/near.py", "near_duplicate", 0.9),
    }
    assert {file.reason for file in receipt.promoted} == {"survivor left out"}
    near, same = (f"swh:1:cnt:{hex_id(name)}" for name in ("near", "same"))
    assert [(place(file), file.similarity, file.copy_of) for file in receipt.copies] == [
        ("ben/fork:/copied.py", 1.0, same),
        ("ben/fork:/changed.py", 0.9, near),
        ("dora/own:/far.py", 0.72, near),
    ]
    assert [(rebuilt.result, rebuilt.is_changed) for rebuilt in receipt.results] == [
        ("documents", True),
        ("tokenizer", False),
    ]


def test_as_text(decided: Decided) -> None:
    receipt = receipt_of(decided, ["ann"], "ann")
    text = receipts.to_text(receipt)
    for expected in (
        "Opt-out receipt for corpus\ncompared with corpus@1",
        "ann: 4 files, 4 left out by the opt-out",
        "3 of its files were kept before",
        f"Ann/one:/only.py  swh:1:cnt:{hex_id(chr(111) + 'nly ann' + chr(39) + 's')}  left out",
        "Promoted in their place: 2 files",
        "near duplicate of Ann/one:/near.py (similarity 0.90): survivor left out",
        "Copies that stay under other names: 3 files",
        "ask for the content by its SWHID",
        f"documents: made anew, {'a' * 64} before, {'c' * 64} now",
        f"tokenizer: unchanged, {'b' * 64}",
        f"sha256 {receipt.to_dict()['digest']}",
    ):
        assert expected in text, expected


def test_the_digest_covers_everything_and_survives_json(decided: Decided) -> None:
    receipt = receipt_of(decided, ["ann"], "ann")
    written = json.loads(json.dumps(receipt.to_dict(), indent=1))
    assert receipts.verify(written)
    for change in (
        {"run": "another"},
        {"copies": []},
        {"explanations": written["explanations"][1:]},
        {"digest": "0" * 64},
        {"added": True},
    ):
        assert not receipts.verify(written | change), change
    del written["digest"]
    assert not receipts.verify(written)


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    written = []
    for order in (1, -1):
        corpus = plant(tmp_path / str(order))
        tables = decide(corpus, Policy(opt_out_targets=opt_out.parse("ann")))
        tables = corpus.tables(order=order)
        found = opt_out.matches(tables, opt_out.parse("ann"))
        written.append(receipts.make(["ann"], Side(name="run", tables=tables, matches=found)).to_dict())
    assert written[0] == written[1]


def test_a_run_whose_list_had_it_not_says_so(decided: Decided) -> None:
    receipt = receipt_of(decided, ["ann"], "someone-else")
    (outcome,) = receipt.targets
    assert (outcome.num_left_out, outcome.num_kept) == (0, 3)
    assert {file.outcome for file in outcome.files} == {"kept", "dropped by max_line_length"}
    assert any("Still kept under ann: 3 files" in line for line in receipt.explanations)
    assert receipt.promoted == ()


def test_several_targets_of_one_file_and_one_of_none(decided: Decided) -> None:
    same = f"swh:1:cnt:{hex_id('same')}"
    receipt = receipt_of(decided, ["ann/one", same, "nobody", "ann/one"], f"ann/one\n{same}")
    by_target = {outcome.target: outcome for outcome in receipt.targets}
    assert list(by_target) == ["ann/one", same, "nobody"]
    assert by_target["ann/one"].num_left_out == 4
    assert sorted(place(file) for file in by_target[same].files) == [
        "Ann/one:/same.py",
        "ben/fork:/copied.py",
        "carol/fork:/again.py",
    ]
    assert by_target[same].num_left_out == 3
    assert by_target["nobody"].files == ()
    assert any("No file of this run stands under nobody" in line for line in receipt.explanations)
    assert all(file.similarity < 1 for file in receipt.copies), "equal bytes are gone everywhere"


def test_without_an_earlier_run(decided: Decided) -> None:
    tables = decided("ann")
    found = opt_out.matches(tables, opt_out.parse("ann"))
    after = Side(name="corpus", tables=tables, matches=found, digests={"documents": "c" * 64})
    receipt = receipts.make(["ann"], after)
    assert receipt.promoted == ()
    assert receipt.targets[0].num_kept_before is None
    assert {file.was_kept for file in receipt.targets[0].files} == {None}
    assert any("only beside an earlier run" in line for line in receipt.explanations)
    assert f"documents: {'c' * 64}" in receipts.to_text(receipt)
    assert receipts.verify(json.loads(json.dumps(receipt.to_dict())))


def test_names_from_archives_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    corpus = SmallCorpus(tmp_path)
    corpus.add("/\x1b[2J\n\u202efile.py", repo="ann/one")
    text = receipts.to_text(receipts.make(["ann"], side(corpus, "run\x07", "ann", "ann")))
    assert "\\x1b[2J\\n\\u202efile.py" in text
    assert all(char.isprintable() or char == "\n" for char in text)


def test_a_cluster_that_only_the_author_held_together(tmp_path: Path) -> None:
    sides = []
    for listed in (None, "ann"):
        corpus = SmallCorpus(tmp_path / str(listed))
        corpus.add("/best.py", repo="ben/one", content="best", star_events_count=9)
        corpus.add("/link.py", repo="ann/one", content="link", star_events_count=5)
        corpus.add("/far.py", repo="carol/one", content="far", star_events_count=1)
        corpus.pair("best", "link", 0.8)
        corpus.pair("link", "far", 0.75)
        sides.append(side(corpus, "run", "ann", listed))
    (promoted,) = receipts.make(["ann"], sides[1], before=sides[0]).promoted
    assert (place(promoted), promoted.survivor) == ("carol/one:/far.py", "ben/one:/best.py")
    assert (promoted.similarity, promoted.reason) == (0.75, "cluster left smaller")


@settings(max_examples=3, deadline=None)
@example(files=[("ben", 0, 9), ("ann", 1, 5), ("carol", 2, 1)], pairs=[(0, 1), (1, 2)])
@given(
    st.lists(
        st.tuples(st.sampled_from(["ann", "ben", "carol"]), st.integers(0, 5), st.integers(0, 9)),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[:2],
    ),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] != pair[1]), max_size=5),
)
def test_what_is_promoted_is_what_the_two_runs_differ_by(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, int, int]], pairs: list[tuple[int, int]]
) -> None:
    """Every file that only the later run keeps is promoted, when the opt-out is all that changed."""
    sides = []
    for listed in (None, "ann"):
        corpus = SmallCorpus(tmp_path_factory.mktemp("corpus"))
        for owner, content, stars in files:
            corpus.add(f"/{content}.py", repo=f"{owner}/repo", content=str(content), star_events_count=stars)
        for left, right in {tuple(sorted(pair)) for pair in pairs}:
            corpus.pair(str(left), str(right), 0.9)
        sides.append(side(corpus, "run", "ann", listed))
    before, after = sides
    receipt = receipts.make(["ann"], after, before=before)
    kept = []
    for tables in (before.tables, after.tables):
        with query.connect({"kept": tables["kept"]}) as connection:
            kept.append(set(connection.execute("SELECT repo_name || ':' || path FROM kept").fetchall()))
    gained = {name for (name,) in kept[1] - kept[0]}
    assert {place(file) for file in receipt.promoted} <= gained
    named = {place(file) for outcome in receipt.targets for file in outcome.files}
    assert not named & {name for (name,) in kept[1]}
    assert {place(file) for file in receipt.promoted if file.relation == "exact_duplicate"} <= {
        place(file) for file in receipt.copies
    }
    assert gained == {place(file) for file in receipt.promoted}
