"""Which copy stays: exact and near-duplicates among the files that every other rule keeps (section 3.1).

Filters come before duplicates, so that no file is dropped in favour of one that does not make it either; when
a survivor is taken out (an opt-out, a stricter filter), deciding again promotes the next one.

The order of survivors is the published code's: licence type (permissive, no_license, non_permissive), stars,
forks, newest revision, newest visit; it is made total by the content's and the file's identifier.

Near-duplicates are connected components of the pairs that are found, among contents that are still there; with
`per_language`, a pair counts when the two copies that stay have the same language. Where candidates were verified,
a pair counts from the threshold on; the unverified preset joins whatever shares a band, whatever the estimate of
its similarity is. The similarity recorded for a dropped file is that to its survivor where the pair is known, else
that of the chain between them: the largest value that every link of some chain reaches.

With `survivors = "whole_repository"`, files of the repositories that `policies.whole_repositories` chooses come
before all others, among exact copies and among near-duplicates.

Price: the components, and the pairs of components whose members are not all paired with their survivor, are held
in memory; chains take one pass over these pairs, sorted by similarity.
"""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.corpus import query
from starsmith.corpus.components import connected_components
from starsmith.corpus.kernels import kernel
from starsmith.policies import whole_repositories
from starsmith.policies.rules import Rule

SURVIVOR_ORDER = """
    CASE license_type WHEN 'permissive' THEN 0 WHEN 'no_license' THEN 1 ELSE 2 END,
    star_events_count DESC, fork_events_count DESC, revision_date DESC NULLS LAST, visit_date DESC NULLS LAST,
    content_id, file_id
"""

CANDIDATE_COLUMNS = (
    "file_id, content_id, repo_name, directory_id, path, length_bytes, language, license_type, star_events_count, "
    "fork_events_count, revision_date, visit_date"
)
"""What these rules ask of a candidate: the columns of `facts` that are worth copying."""

_SURVIVOR = "'survivor ' || survivor_id || ' is ' || survivor_place"
"""How evidence names the file that stays: its file_id first, so that a reader can follow it."""

_LINKS = pa.schema([("content_a", pa.string()), ("content_b", pa.string()), ("jaccard", pa.float64())])


def exact_rule(config: recipe.NearDuplicates) -> Rule:
    return Rule(
        name="exact_duplicate",
        key="",
        section="1.2",
        title="no better file has the same bytes",
        allowed="1 copy",
        value="num_copies || ' copies'",
        drops="place > 1",
        evidence=_SURVIVOR + _whole(config),
        relation="exact_copies",
    )


def near_rule(config: recipe.NearDuplicates) -> Rule:
    return Rule(
        name="near_duplicate",
        key="near_duplicates.threshold",
        section="3.1",
        title="no better file is nearly the same",
        allowed=f"similarity < {config.threshold}" if config.verification != "none" else "no band in common",
        value="similarity",
        drops="place > 1",
        evidence=f"{_SURVIVOR}{_whole(config)} || "
        "if(is_direct, '; similarity to it', '; similarity of the chain to it') || '; cluster of ' || num_members",
        enabled=config.enabled,
        relation="near_copies",
    )


def _whole(config: recipe.NearDuplicates) -> str:
    """SQL that continues a survivor's name with why its repository came first."""
    if config.survivors == "best_file":
        return ""
    return " || if(coalesce(survivor_stays_whole, false), ', of a repository that stays whole', '')"


def create_choice(connection: duckdb.DuckDBPyConnection, candidates: str, config: recipe.NearDuplicates) -> None:
    """The table `whole_repositories`, which the two relations below need: empty unless they are to stay whole.

    Args:
        connection: with `near_duplicate_pairs`.
        candidates: `CANDIDATE_COLUMNS` of `facts`, all files that no rule before duplicates drops.
        config: `survivors`, and what makes a pair.
    """
    if config.survivors == "best_file":
        connection.execute(
            "CREATE TEMP TABLE whole_repositories (repo_name VARCHAR, directory_id VARCHAR, stays_whole BOOLEAN)"
        )
        return
    whole_repositories.create_choice(
        connection, candidates, _pairs_sql(config), per_language=config.per_language, order=SURVIVOR_ORDER
    )


def _pairs_sql(config: recipe.NearDuplicates) -> str:
    """SQL: what joins two contents."""
    if not config.enabled:
        return "SELECT * FROM near_duplicate_pairs WHERE false"
    if config.verification == "none":
        return "SELECT * FROM near_duplicate_pairs"
    return f"SELECT * FROM near_duplicate_pairs WHERE jaccard >= {config.threshold!r}::DOUBLE"


def create_exact_copies(connection: duckdb.DuckDBPyConnection, candidates: str) -> None:
    """The table `exact_copies`: every file of `candidates` (`CANDIDATE_COLUMNS` of `facts`) whose content stands
    more than once among them, with its place in the order of survivors. Needs `create_choice`."""
    connection.execute(
        f"""
        CREATE TEMP TABLE exact_copies AS
        SELECT file_id, content_id, row_number() OVER best AS place,
            count(*) OVER (PARTITION BY content_id) AS num_copies,
            first_value(file_id) OVER best AS survivor_id,
            first_value(repo_name || ':' || path) OVER best AS survivor_place,
            first_value(stays_whole) OVER best AS survivor_stays_whole
        FROM {candidates} LEFT JOIN whole_repositories USING (repo_name, directory_id)
        WINDOW best AS (PARTITION BY content_id ORDER BY stays_whole NULLS LAST, {SURVIVOR_ORDER})
        QUALIFY num_copies > 1
        """
    )


def create_near_copies(
    connection: duckdb.DuckDBPyConnection, candidates: str, config: recipe.NearDuplicates
) -> None:
    """The table `near_copies`: every file of `candidates` that stands in a cluster. Needs `create_choice`.

    Args:
        connection: with `near_duplicate_pairs`.
        candidates: `CANDIDATE_COLUMNS` of `facts`, one row per content.
        config: what makes a pair: `threshold`, `verification` and `per_language`.
    """
    same_language = "AND a.language IS NOT DISTINCT FROM b.language" if config.per_language else ""
    connection.execute(
        f"""
        CREATE TEMP TABLE near_pairs AS
        SELECT p.content_a, p.content_b, p.jaccard FROM ({_pairs_sql(config)}) p
        JOIN {candidates} a ON a.content_id = p.content_a
        JOIN {candidates} b ON b.content_id = p.content_b {same_language}
        """
    )
    pairs = query.fetch(connection, "SELECT content_a, content_b FROM near_pairs")
    connection.register("clusters", connected_components(pairs["content_a"], pairs["content_b"]))
    connection.execute(
        f"""
        CREATE TEMP TABLE near_members AS
        SELECT file_id, content_id, component, row_number() OVER best AS place,
            count(*) OVER (PARTITION BY component) AS num_members,
            first_value(file_id) OVER best AS survivor_id,
            first_value(content_id) OVER best AS survivor_content_id,
            first_value(repo_name || ':' || path) OVER best AS survivor_place,
            first_value(stays_whole) OVER best AS survivor_stays_whole
        FROM (SELECT f.*, c.component FROM {candidates} f JOIN clusters c ON c.id = f.content_id)
        LEFT JOIN whole_repositories USING (repo_name, directory_id)
        WINDOW best AS (PARTITION BY component ORDER BY stays_whole NULLS LAST, {SURVIVOR_ORDER});

        CREATE TEMP TABLE direct_similarities AS
        SELECT m.content_id, max(p.jaccard) AS similarity
        FROM near_members m JOIN near_pairs p
            ON p.content_a = least(m.content_id, m.survivor_content_id)
            AND p.content_b = greatest(m.content_id, m.survivor_content_id)
        GROUP BY m.content_id
        """
    )
    connection.register("chain_similarities", _chain_similarities(connection))
    connection.execute(
        """
        CREATE TEMP TABLE near_copies AS
        SELECT m.*, coalesce(d.similarity, c.similarity) AS similarity, d.similarity IS NOT NULL AS is_direct
        FROM near_members m LEFT JOIN direct_similarities d USING (content_id)
        LEFT JOIN chain_similarities c USING (content_id)
        """
    )


def _chain_similarities(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """`content_id`, `similarity` for members of clusters in which some member has no pair with the survivor."""
    links = query.fetch(
        connection,
        """
        WITH incomplete AS (
            SELECT DISTINCT component FROM near_members ANTI JOIN direct_similarities USING (content_id)
            WHERE place > 1
        )
        SELECT p.content_a, p.content_b, p.jaccard
        FROM near_pairs p JOIN near_members m ON m.content_id = p.content_a SEMI JOIN incomplete USING (component)
        """,
        _LINKS,
    )
    survivors = query.fetch(connection, "SELECT DISTINCT survivor_content_id FROM near_members")
    ids = pc.unique(pa.chunked_array([*links["content_a"].chunks, *links["content_b"].chunks], pa.string()))
    left, right = (
        np.asarray(pc.index_in(links[side], value_set=ids).to_numpy(), np.int64)
        for side in ("content_a", "content_b")
    )
    is_survivor = pc.is_in(ids, value_set=survivors["survivor_content_id"])
    widths = widest_chains(
        left,
        right,
        np.asarray(links["jaccard"].to_numpy(), np.float64),
        np.asarray(is_survivor.to_numpy(zero_copy_only=False), np.bool_),
    )
    return pa.table({"content_id": ids, "similarity": widths})


def widest_chains(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    similarities: NDArray[np.float64],
    is_start: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """For each node, the largest similarity that every link of some chain from its component's start reaches.

    Args:
        left: (num_links,) nodes.
        right: (num_links,) nodes.
        similarities: (num_links,)
        is_start: (num_nodes,) one node of each component.

    Returns:
        (num_nodes,) 1 for a start, and -1 for a node of a component without one.
    """
    order = np.argsort(-similarities, kind="stable")
    return _widest_chains(left[order], right[order], similarities[order], is_start)


@kernel
def _widest_chains(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    similarities: NDArray[np.float64],
    is_start: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Links join components from the most similar on: when a component meets that of the start, the link that does
    it is the narrowest of the widest chain of all its nodes. Smaller components are relabelled, so a node is at
    most log2(num_nodes) times."""
    num_nodes = len(is_start)
    component = np.arange(num_nodes)
    following = np.full(num_nodes, -1, np.int64)  # a component is a list of nodes
    last = np.arange(num_nodes)
    sizes = np.ones(num_nodes, np.int64)
    has_start = is_start.copy()
    widths = np.where(is_start, 1.0, -1.0)
    for link in range(len(left)):
        large, small = component[left[link]], component[right[link]]
        if large == small:
            continue
        if sizes[large] < sizes[small]:
            large, small = small, large
        if has_start[large] != has_start[small]:
            node = small if has_start[large] else large
            while node >= 0:
                widths[node] = similarities[link]
                node = following[node]
        node = small
        while node >= 0:
            component[node] = large
            node = following[node]
        following[last[large]] = small
        last[large] = last[small]
        sizes[large] += sizes[small]
        has_start[large] = has_start[large] or has_start[small]
    return widths
