"""Every cause of a change, and that the counts add up."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from decided_corpus import SmallCorpus, decide, hex_id
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from starsmith import recipe
from starsmith.corpus import query
from starsmith.inspection import diff
from starsmith.inspection.diff import Diff
from starsmith.policies import opt_out
from starsmith.policies.decisions import Policy


def causes(difference: Diff) -> dict[tuple[str, str], int]:
    assert difference.num_kept_new == difference.num_kept_old + difference.num_added - difference.num_removed
    assert difference.num_kept_old == difference.num_unchanged + difference.num_changed + difference.num_removed
    json.dumps(difference.to_dict())
    return {(cause.change, cause.cause): cause.num_files for cause in difference.causes}


def shown(difference: Diff) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200, color_system=None).print(diff.render(difference))
    return stream.getvalue()


def test_a_changed_policy_over_the_same_sources(tmp_path: Path) -> None:
    sides = []
    for side, policy in (
        ("old", Policy()),
        (
            "new",
            Policy(
                filters=recipe.Filters(max_line_length=2000, min_alpha_fraction=0.6),
                pii=recipe.Pii(kinds=("EMAIL",)),
                opt_out_targets=opt_out.parse("gone"),
            ),
        ),
    ):
        corpus = SmallCorpus(tmp_path / side)
        corpus.add("/same.py")
        corpus.add("/long.py", statistics={"max_line_length": 1500})
        corpus.add("/digits.py", statistics={"alpha_fraction": 0.5})
        corpus.add("/worse.py", statistics={"max_line_length": 1500, "alpha_fraction": 0.5})
        corpus.add("/secret.py", content="secret")
        corpus.finding("secret", "KEY")
        corpus.add("/a.py", repo="gone/repo", content="shared", star_events_count=9)
        corpus.add("/b.py", content="shared")
        sides.append(decide(corpus, policy))
    difference = diff.diff(*sides)
    assert causes(difference) == {
        ("added", "no longer dropped by max_line_length"): 1,
        ("added", "no longer dropped by exact_duplicate"): 1,
        ("removed", "now dropped by min_alpha_fraction"): 1,
        ("removed", "now dropped by opt_out"): 1,
        ("changed", "edits"): 1,
    }
    assert difference.num_unchanged == 1
    (example,) = next(cause for cause in difference.causes if cause.cause.endswith("max_line_length")).examples
    assert (example.place, example.detail) == ("owner/repo:/long.py", "1500 (then allowed: <= 1000)")
    text = shown(difference)
    assert "now dropped by opt_out" in text
    assert "pii KEY 1 to none" in text
    backwards = diff.diff(*sides[::-1])
    assert backwards.num_added == difference.num_removed
    assert backwards.num_removed == difference.num_added
    assert backwards.num_changed == difference.num_changed


def test_changed_sources_under_the_same_policy(tmp_path: Path) -> None:
    old = SmallCorpus(tmp_path / "old")
    new = SmallCorpus(tmp_path / "new")
    for corpus, root in ((old, "root one"), (new, "root two")):  # a new commit: every file_id changes
        corpus.add("/same.py", root=root, content="same")
        corpus.add("/edited.py", root=root, content=f"edited at {root}")
        corpus.add(
            "/relicensed.py",
            root=root,
            content="relicensed",
            detected=("MIT",) if corpus is old else ("Apache-2.0",),
        )
        corpus.add("/renamed.py", root=root, content="renamed", language="C" if corpus is old else "C++")
        long = {"max_line_length": 80 if corpus is old else 5000}
        corpus.add("/grown.py", root=root, content=f"grown at {root}", statistics=long)
    old.add("/left.py", root="root one")
    old.add("/a.py", repo="closed/repo")
    new.add("/arrived.py", root="root two")
    new.add("/a.py", repo="opened/repo")
    difference = diff.diff(decide(old), decide(new))
    assert causes(difference) == {
        ("added", "new file in a known repository"): 1,
        ("added", "new repository"): 1,
        ("removed", "file gone from its repository"): 1,
        ("removed", "repository gone"): 1,
        ("removed", "now dropped by max_line_length"): 1,
        ("changed", "content"): 1,
        ("changed", "licence"): 1,
        ("changed", "language"): 1,
    }
    assert difference.num_unchanged == 1
    details = {cause.cause: cause.examples[0].detail for cause in difference.causes}
    assert details["content"] == f"was swh:1:cnt:{hex_id('edited at root one')}"
    assert details["licence"] == "permissive [MIT] to permissive [Apache-2.0]"
    assert details["language"] == "C to C++"


def test_two_versions_of_one_package_are_told_apart(tmp_path: Path) -> None:
    old = SmallCorpus(tmp_path / "old")
    new = SmallCorpus(tmp_path / "new")
    for corpus in (old, new):
        for version in ("1", "2"):
            corpus.add("/a.py", root=f"version {version}", content=f"a {version}")
    new.add("/a.py", root="version 3", content="a 3")
    difference = diff.diff(decide(old), decide(new))
    assert causes(difference) == {("added", "new file in a known repository"): 1}
    assert difference.num_unchanged == 2


def test_a_corpus_and_itself_and_nothing(tmp_path: Path) -> None:
    corpus = SmallCorpus(tmp_path / "one")
    for number in range(7):
        corpus.add(f"/{number}.py")
    tables = decide(corpus)
    same = diff.diff(tables, tables)
    assert causes(same) == {}
    assert same.num_unchanged == 7
    assert "7 the same" in shown(same)
    arrived = diff.diff({}, tables)
    assert causes(arrived) == {("added", "new repository"): 7}
    assert len(arrived.causes[0].examples) == diff.NUM_EXAMPLES
    assert "and 2 more" in shown(arrived)
    assert causes(diff.diff(tables, {})) == {("removed", "repository gone"): 7}


OCCURRENCE = st.tuples(
    st.sampled_from("ab"), st.sampled_from(("r1", "r2", "r3")), st.sampled_from("xyz"), st.integers(0, 3)
)


@settings(max_examples=10, deadline=None)
@example(
    before=[("b", "r1", "x", 0), ("b", "r2", "x", 0)],
    after=[("b", "r1", "x", 3), ("b", "r3", "x", 0)],
)
@given(st.lists(OCCURRENCE, max_size=10), st.lists(OCCURRENCE, max_size=10))
def test_the_counts_always_add_up(
    tmp_path_factory: pytest.TempPathFactory, before: list[Any], after: list[Any]
) -> None:
    sides = [_decided(tmp_path_factory.mktemp("side"), occurrences) for occurrences in (before, after)]
    difference = diff.diff(*sides)
    causes(difference)
    assert not [cause for cause in difference.causes if "no decision" in cause.cause]


def _decided(folder: Path, occurrences: list[Any]) -> query.Tables:
    """Tables in which a content 3 is dropped, written without asking a policy."""
    corpus = SmallCorpus(folder)
    for (repo, root, path), content in {occurrence[:3]: occurrence[3] for occurrence in occurrences}.items():
        file_id = corpus.add(f"/{path}.py", repo=repo, root=root, content=f"c{content}")
        kept = corpus.rows["files"][-1] | {"is_vendor": False, "is_generated": False, "detected_licenses": []}
        if content != 3:
            corpus.rows["kept"].append(kept | {"license_type": "permissive"})
            continue
        corpus.rows["decisions"].append(
            {"file_id": file_id, "content_id": hex_id("c3"), "order": 1, "rule": "some_rule", "action": "drop"}
            | {"value": "3", "threshold": "2", "evidence": ""}
        )
    tables: query.Tables = corpus.tables()
    return tables
