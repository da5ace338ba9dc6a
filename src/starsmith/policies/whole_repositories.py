"""Survivors chosen so that repositories stay whole: `near_duplicates.survivors = "whole_repository"`.

The default keeps the best file of each cluster (`policies.duplicates`), so popular clusters tear holes into
repositories that are good in all else; users of The Stack could not tell which repositories were complete. Here
whole repositories are chosen first, and a chosen one keeps its file in every cluster that it has files in.

A repository is **whole** when every file of it that the other rules keep stays, or is a copy, exact or near, of
another file of its own that stays. A cluster goes to one repository, so repositories that share a cluster exclude
each other, and the most that can stay whole is a maximum set packing, which has no fast exact solution. The greedy
choice is a pass over the repositories in an order: licence type first, as in the order of survivors; then the
number of repositories that each one excludes, by powers of two (near-copies of one repository exclude about as
many as each other, and are then told apart by what follows); then stars, forks, newest revision, newest visit,
name. A repository whose clusters are all free takes them. A second pass starts from the repositories that the
default would leave whole; the better of the two counts. So **never fewer stay whole than by default**, where each
content has one language; a content with several (a header of C and of C++) makes clusters here larger than they
turn out, and the bound may be missed by such repositories.

Exact copies and near-duplicates are decided one after the other, but by the same choice: clusters here are those
of all copies of near-duplicate contents. Files of repositories that were not chosen keep the default order.

Price: one row for each repository and shared cluster in memory, sorted; each is looked at with at most
`MAX_COUNTED` others.
"""

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from starsmith.corpus import query
from starsmith.corpus.components import connected_components
from starsmith.corpus.kernels import kernel

MAX_COUNTED = 64
"""Repositories of one cluster that are looked at when exclusions are counted; more are counted at least."""

_PLACES = pa.schema([("repo_name", pa.string()), ("directory_id", pa.string()), ("stays_whole", pa.bool_())])


@dataclass(frozen=True, kw_only=True)
class RepositoryCompleteness:
    """Repositories (a name and a root directory) of which the rules before duplicates keep any file."""

    whole: int
    """Nothing is missing but copies of files of its own that stay."""
    whole_with_copies: int
    """Of `whole`, those that lost such copies."""
    holed: int
    """Some files stay, and some are lost to other repositories."""
    gone: int
    """No file stays."""


def repository_completeness(tables: query.Tables, decisions: pa.Table | None = None) -> RepositoryCompleteness:
    """How complete repositories are after duplicates.

    Files that any other rule drops do not count, neither as there nor as missing.

    Args:
        tables: `files` and `decisions`.
        decisions: a ledger to take instead of the table's, to compare options.
    """
    with query.connect({"files": tables["files"]}) as connection:
        if decisions is None:
            entered = query.connect({"decisions": tables["decisions"]})
            decisions = query.fetch(entered, "SELECT file_id, rule, action, evidence FROM decisions")
            entered.close()
        connection.register("ledger", decisions)
        [row] = connection.execute(_COMPLETENESS_SQL).fetchall()
    return RepositoryCompleteness(whole=row[0], whole_with_copies=row[1], holed=row[2], gone=row[3])


_COMPLETENESS_SQL = """
    WITH dropped AS (
        SELECT file_id, bool_or(rule NOT IN ('exact_duplicate', 'near_duplicate')) AS by_another_rule,
            max(regexp_extract(evidence, '^survivor ([0-9a-f]{40}) ', 1))
                FILTER (rule IN ('exact_duplicate', 'near_duplicate')) AS survivor_id
        FROM ledger WHERE action = 'drop' GROUP BY file_id
    ), fates AS (
        SELECT f.repo_name, f.directory_id, d.file_id IS NULL AS stays,
            coalesce(s.repo_name = f.repo_name AND s.directory_id = f.directory_id, false) AS is_own_copy
        FROM files f LEFT JOIN dropped d USING (file_id) LEFT JOIN files s ON s.file_id = d.survivor_id
        WHERE NOT coalesce(d.by_another_rule, false)
    ), repositories AS (
        SELECT bool_or(stays) AS has_any, bool_and(stays OR is_own_copy) AS is_whole, bool_and(stays) AS has_all
        FROM fates GROUP BY repo_name, directory_id
    )
    SELECT count(*) FILTER (has_any AND is_whole), count(*) FILTER (has_any AND is_whole AND NOT has_all),
        count(*) FILTER (has_any AND NOT is_whole), count(*) FILTER (NOT has_any)
    FROM repositories
"""


def create_choice(
    connection: duckdb.DuckDBPyConnection, candidates: str, pairs_sql: str, *, per_language: bool, order: str
) -> None:
    """The table `whole_repositories`: `repo_name`, `directory_id` and `stays_whole` (always true) of the
    repositories that are chosen among those that share a cluster.

    Args:
        connection: where the table is made.
        candidates: a relation of the files that all other rules keep, with the columns of
            `duplicates.CANDIDATE_COLUMNS`.
        pairs_sql: a query with `content_a` and `content_b` of near-duplicates; other contents may stand in it.
        per_language: whether near-duplicates count between files of one language only.
        order: the default order of survivors, as SQL.
    """
    same_language = "AND a.language IS NOT DISTINCT FROM b.language" if per_language else ""
    pairs = query.fetch(
        connection,
        f"""
        WITH of_language AS (SELECT DISTINCT content_id, language FROM {candidates})
        SELECT DISTINCT p.content_a, p.content_b FROM ({pairs_sql}) p
        JOIN of_language a ON a.content_id = p.content_a JOIN of_language b ON b.content_id = p.content_b
        {same_language}
        """,
    )
    connection.register("joint_clusters", connected_components(pairs["content_a"], pairs["content_b"]))
    connection.execute(_MEMBERS_SQL.format(candidates=candidates, order=order))
    repositories = query.fetch(connection, "SELECT * FROM shared_repositories ORDER BY number")
    members = query.fetch(connection, "SELECT number, cluster FROM shared_members ORDER BY number, cluster")
    chosen = choose(
        np.asarray(members["number"].to_numpy(), np.int64),
        np.asarray(members["cluster"].to_numpy(), np.int64),
        np.asarray(repositories["license_rank"].to_numpy(), np.int64),
        np.asarray(repositories["is_whole_by_default"].to_numpy(zero_copy_only=False), np.bool_),
    )
    rows = repositories.filter(pa.array(chosen)).select(["repo_name", "directory_id"])
    rows = rows.append_column("stays_whole", pa.array(np.ones(len(rows), np.bool_)))
    connection.register("chosen_repositories", rows.cast(_PLACES))
    connection.execute(
        """
        CREATE TEMP TABLE whole_repositories AS SELECT * FROM chosen_repositories;
        DROP TABLE shared_members;
        DROP TABLE shared_repositories;
        """
    )


_MEMBERS_SQL = """
    CREATE TEMP TABLE shared_members AS
    WITH placed AS (
        SELECT f.*, coalesce(c.component, f.content_id) AS cluster
        FROM {candidates} f LEFT JOIN joint_clusters c ON c.id = f.content_id
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY cluster ORDER BY {order}) = 1 AS is_best FROM placed
    ), by_repository AS (
        SELECT repo_name, directory_id, cluster, bool_or(is_best) AS has_best
        FROM ranked GROUP BY repo_name, directory_id, cluster
    ), shared AS (
        SELECT * FROM by_repository QUALIFY count(*) OVER (PARTITION BY cluster) > 1
    ), repositories AS (
        SELECT repo_name, directory_id,
            max(CASE license_type WHEN 'permissive' THEN 0 WHEN 'no_license' THEN 1 ELSE 2 END) AS license_rank,
            max(star_events_count) AS stars, max(fork_events_count) AS forks,
            max(revision_date) AS revision, max(visit_date) AS visit
        FROM {candidates} SEMI JOIN shared USING (repo_name, directory_id) GROUP BY repo_name, directory_id
    ), numbered AS (
        SELECT repo_name, directory_id, license_rank, row_number() OVER (
            ORDER BY stars DESC, forks DESC, revision DESC NULLS LAST, visit DESC NULLS LAST,
                repo_name, directory_id
        ) - 1 AS number
        FROM repositories
    )
    SELECT number, repo_name, directory_id, license_rank, has_best,
        dense_rank() OVER (ORDER BY cluster) - 1 AS cluster
    FROM shared JOIN numbered USING (repo_name, directory_id);

    CREATE TEMP TABLE shared_repositories AS
    SELECT number, repo_name, directory_id, license_rank, bool_and(has_best) AS is_whole_by_default
    FROM shared_members GROUP BY number, repo_name, directory_id, license_rank
"""


def choose(
    members: NDArray[np.int64],
    clusters: NDArray[np.int64],
    license_ranks: NDArray[np.int64],
    is_whole_by_default: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which repositories stay whole: no two of them share a cluster, and no other could be added.

    Args:
        members: (num_members,) repositories, ascending; a repository's number is its place among equals.
        clusters: (num_members,) the cluster that each shares, ascending for each repository.
        license_ranks: (num_repositories,)
        is_whole_by_default: (num_repositories,) repositories that share no cluster with each other.

    Returns:
        (num_repositories,)
    """
    num_repositories = len(license_ranks)
    num_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    offsets = np.searchsorted(members, np.arange(num_repositories + 1))
    by_cluster = members[np.lexsort((members, clusters))]
    cluster_offsets = np.concatenate([[0], np.cumsum(np.bincount(clusters, minlength=num_clusters))])
    excluded = _count_excluded(offsets, clusters, cluster_offsets.astype(np.int64), by_cluster, MAX_COUNTED)
    places = np.arange(num_repositories)
    order = np.lexsort((places, np.floor(np.log2(1 + excluded)), license_ranks))
    default_first = order[np.argsort(~is_whole_by_default[order], kind="stable")]
    ours, theirs = (_take(way, offsets, clusters, num_clusters) for way in (order, default_first))
    return theirs if theirs.sum() > ours.sum() else ours


@kernel
def _count_excluded(
    offsets: NDArray[np.int64],
    clusters: NDArray[np.int64],
    cluster_offsets: NDArray[np.int64],
    by_cluster: NDArray[np.int64],
    max_counted: int,
) -> NDArray[np.int64]:
    """The other repositories that share a cluster with each one: distinct ones, or the largest cluster's where
    more than `max_counted` share it."""
    num_repositories = len(offsets) - 1
    counts = np.zeros(num_repositories, np.int64)
    last_seen = np.full(num_repositories, -1, np.int64)
    for repository in range(num_repositories):
        distinct = 0
        largest = 0
        last_seen[repository] = repository
        for place in range(offsets[repository], offsets[repository + 1]):
            first, stop = cluster_offsets[clusters[place]], cluster_offsets[clusters[place] + 1]
            largest = max(largest, stop - first - 1)
            for other in by_cluster[first : min(stop, first + max_counted)]:
                if last_seen[other] != repository:
                    last_seen[other] = repository
                    distinct += 1
        counts[repository] = max(distinct, largest)
    return counts


@kernel
def _take(
    order: NDArray[np.int64], offsets: NDArray[np.int64], clusters: NDArray[np.int64], num_clusters: int
) -> NDArray[np.bool_]:
    is_taken = np.zeros(num_clusters, np.bool_)
    chosen = np.zeros(len(order), np.bool_)
    for repository in order:
        own = clusters[offsets[repository] : offsets[repository + 1]]
        is_free = True
        for cluster in own:
            is_free = is_free and not is_taken[cluster]
        if is_free:
            chosen[repository] = True
            for cluster in own:
                is_taken[cluster] = True
    return chosen
