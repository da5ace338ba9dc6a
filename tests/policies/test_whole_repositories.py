"""Repositories that stay whole: never fewer than by default, one file a cluster, whatever the order of rows."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SmallCorpus

from starsmith import recipe
from starsmith.policies import decisions
from starsmith.policies.decisions import Policy
from starsmith.policies.whole_repositories import RepositoryCompleteness, choose, repository_completeness

WHOLE = Policy(near_duplicates=recipe.NearDuplicates(survivors="whole_repository"))


def completeness(corpus: SmallCorpus, policy: Policy) -> RepositoryCompleteness:
    tables = corpus.tables()
    return repository_completeness(tables, decisions.decide(tables, policy).decisions)


def counts(found: RepositoryCompleteness) -> tuple[int, int, int, int]:
    return found.whole, found.whole_with_copies, found.holed, found.gone


def test_popular_files_tear_holes_unless_repositories_stay_whole(corpus: SmallCorpus) -> None:
    """Two repositories with three shared files each: the stars of each file decide one by one, or once."""
    for number, (first, second) in enumerate([(9, 1), (1, 9), (9, 1)]):
        corpus.add(f"/{number}.py", repo="a/a", content=f"a{number}", star_events_count=first)
        corpus.add(f"/{number}.py", repo="b/b", content=f"b{number}", star_events_count=second)
        corpus.pair(f"a{number}", f"b{number}", 0.9)
    corpus.add("/own.py", repo="b/b", content="own")
    assert counts(completeness(corpus, Policy())) == (0, 0, 2, 0)
    assert counts(completeness(corpus, WHOLE)) == (1, 0, 1, 0)
    decided = decisions.decide(corpus.tables(), WHOLE)
    assert {row["repo_name"] for row in decided.kept.to_pylist() if row["path"] != "/own.py"} == {"a/a"}
    assert {row["repo_name"] for row in decided.kept.to_pylist() if row["path"] == "/own.py"} == {"b/b"}
    for row in decided.decisions.to_pylist():
        assert ", of a repository that stays whole; similarity to it" in row["evidence"]


def test_exact_copies_follow_the_same_choice(corpus: SmallCorpus) -> None:
    corpus.add("/shared.py", repo="a/a", content="same", star_events_count=1)
    corpus.add("/shared.py", repo="b/b", content="same", star_events_count=2)
    corpus.add("/near.py", repo="a/a", content="near a", star_events_count=2)
    corpus.add("/near.py", repo="b/b", content="near b", star_events_count=1)
    corpus.pair("near a", "near b", 0.8)
    assert counts(completeness(corpus, Policy())) == (0, 0, 2, 0)
    assert counts(completeness(corpus, WHOLE)) == (1, 0, 0, 1)


def test_one_popular_repository_gives_way_to_many(corpus: SmallCorpus) -> None:
    for number in range(4):
        corpus.add(f"/{number}.py", repo="hub/hub", content=f"hub{number}", star_events_count=99)
        corpus.add("/a.py", repo=f"leaf/{number}", content=f"leaf{number}")
        corpus.pair(f"hub{number}", f"leaf{number}", 0.9)
    assert counts(completeness(corpus, Policy())) == (1, 0, 0, 4)
    assert counts(completeness(corpus, WHOLE)) == (4, 0, 0, 1)


def test_a_better_licence_comes_first_and_forks_are_told_apart_by_stars(corpus: SmallCorpus) -> None:
    for name, stars, license_type in (
        ("old", 50, "no_license"),
        ("good", 7, "permissive"),
        ("fork", 2, "permissive"),
    ):
        for number in range(3):
            corpus.add(
                f"/{number}.py", repo=f"{name}/x", content=f"{number}", star_events_count=stars,
                license_type=license_type,
            )  # fmt: skip
    kept = decisions.decide(corpus.tables(), WHOLE).kept
    assert set(kept["repo_name"].to_pylist()) == {"good/x"}


def test_own_copies_do_not_break_a_repository(corpus: SmallCorpus) -> None:
    for path in ("/a.py", "/b.py"):
        corpus.add(path, repo="a/a", content="same")
    corpus.add("/c.py", repo="a/a", content="near")
    corpus.pair("same", "near", 0.9)
    corpus.add("/dropped.py", repo="a/a", statistics={"max_line_length": 5000})
    assert counts(completeness(corpus, WHOLE)) == (1, 1, 0, 0)
    ledger = decisions.decide(corpus.tables(), WHOLE).decisions
    corpus.write("decisions", ledger)
    assert counts(repository_completeness(corpus.tables())) == (1, 1, 0, 0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_never_fewer_whole_and_one_file_a_cluster(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    generator = random.Random(seed)
    corpus = SmallCorpus(tmp_path_factory.mktemp("random"))
    for number in range(generator.randrange(2, 25)):
        corpus.add(
            f"/{number}.py",
            repo=f"r/{generator.randrange(8)}",
            content=f"c{generator.randrange(12)}",
            star_events_count=generator.randrange(4),
            license_type=generator.choice(["permissive", "no_license"]),
        )
    for left, right in generator.sample([(a, b) for b in range(12) for a in range(b)], 6):
        corpus.pair(f"c{left}", f"c{right}", 0.9)
    by_default = completeness(corpus, Policy())
    decided = decisions.decide(corpus.tables(), WHOLE)
    assert repository_completeness(corpus.tables(), decided.decisions).whole >= by_default.whole
    assert decided.kept.num_rows == decisions.decide(corpus.tables(), Policy()).kept.num_rows  # one a cluster
    for rows in corpus.rows.values():
        generator.shuffle(rows)
    again = decisions.decide(corpus.tables(), WHOLE, threads=2)
    assert again.kept.equals(decided.kept)
    assert again.decisions.equals(decided.decisions)


@settings(max_examples=50, deadline=None)
@given(
    memberships=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1),
    ranks=st.lists(st.integers(0, 2), min_size=10, max_size=10),
    preferred=st.permutations(range(10)),
)
def test_a_choice_is_a_packing_that_nothing_can_join(
    memberships: set[tuple[int, int]], ranks: list[int], preferred: list[int]
) -> None:
    clusters_of = {repo: {cluster for r, cluster in memberships if r == repo} for repo in range(10)}
    by_default, taken = np.zeros(10, np.bool_), set[int]()
    for repo in preferred:
        if not clusters_of[repo] & taken:
            by_default[repo] = True
            taken |= clusters_of[repo]
    members, clusters = (np.array(side, np.int64) for side in zip(*sorted(memberships), strict=True))
    chosen = choose(members, clusters, np.array(ranks), by_default)
    used = [cluster for repo in np.flatnonzero(chosen) for cluster in clusters_of[int(repo)]]
    assert len(used) == len(set(used))
    assert all(clusters_of[int(repo)] & set(used) for repo in np.flatnonzero(~chosen))
    assert chosen.sum() >= by_default.sum()


def test_work_is_bounded_in_a_cluster_of_all_repositories() -> None:
    num_repositories, num_clusters = 20_000, 5
    members = np.repeat(np.arange(num_repositories), num_clusters)
    clusters = np.tile(np.arange(num_clusters), num_repositories)
    chosen = choose(members, clusters, np.zeros(num_repositories, np.int64), np.zeros(num_repositories, np.bool_))
    assert np.flatnonzero(chosen).tolist() == [0]
