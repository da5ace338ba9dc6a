"""Which copy stays: exact and near-duplicates among the files that every other rule keeps (section 3.1).

Filters come before duplicates, so that no file is dropped in favour of one that does not make it either; when
a survivor is taken out (an opt-out, a stricter filter), deciding again promotes the next one.

The order of survivors is the published code's: licence type (permissive, no_license, non_permissive), stars,
forks, newest revision, newest visit; it is made total by the content's and the file's identifier.

Near-duplicates are connected components of verified pairs of contents that are still there; with
`per_language`, a pair counts when the two copies that stay have the same language. The similarity recorded for a
dropped file is that to its survivor where the pair is known, else that of the chain between them: the largest
value that every link of some chain reaches.

Price: the components, and the pairs of components whose members are not all paired with their survivor, are held
in memory.
"""

import heapq
from collections import defaultdict

import duckdb
import pyarrow as pa

from starsmith import recipe
from starsmith.corpus import query
from starsmith.corpus.components import connected_components
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

_LINKS = pa.schema(
    [("content_id", pa.string()), ("other_id", pa.string()), ("jaccard", pa.float64()), ("survivor", pa.string())]
)


def exact_rule() -> Rule:
    return Rule(
        name="exact_duplicate",
        key="",
        section="1.2",
        title="no better file has the same bytes",
        allowed="1 copy",
        value="num_copies || ' copies'",
        drops="place > 1",
        evidence=_SURVIVOR,
        relation="exact_copies",
    )


def near_rule(config: recipe.NearDuplicates) -> Rule:
    return Rule(
        name="near_duplicate",
        key="near_duplicates.threshold",
        section="3.1",
        title="no better file is nearly the same",
        allowed=f"similarity < {config.threshold}",
        value="similarity",
        drops="place > 1",
        evidence=f"{_SURVIVOR} || if(is_direct, '; similarity to it', '; similarity of the chain to it') || "
        "'; cluster of ' || num_members",
        enabled=config.enabled,
        relation="near_copies",
    )


def create_exact_copies(connection: duckdb.DuckDBPyConnection, candidates: str) -> None:
    """The table `exact_copies`: every file of `candidates` (`CANDIDATE_COLUMNS` of `facts`) whose content stands
    more than once among them, with its place in the order of survivors."""
    connection.execute(
        f"""
        CREATE TEMP TABLE exact_copies AS
        SELECT file_id, content_id, row_number() OVER best AS place,
            count(*) OVER (PARTITION BY content_id) AS num_copies,
            first_value(file_id) OVER best AS survivor_id,
            first_value(repo_name || ':' || path) OVER best AS survivor_place
        FROM {candidates}
        WINDOW best AS (PARTITION BY content_id ORDER BY {SURVIVOR_ORDER})
        QUALIFY num_copies > 1
        """
    )


def create_near_copies(
    connection: duckdb.DuckDBPyConnection, candidates: str, config: recipe.NearDuplicates
) -> None:
    """The table `near_copies`: every file of `candidates` that stands in a cluster.

    Args:
        connection: with `near_duplicate_pairs`.
        candidates: `CANDIDATE_COLUMNS` of `facts`, one row per content.
        config: `threshold` and `per_language`.
    """
    same_language = "AND a.language IS NOT DISTINCT FROM b.language" if config.per_language else ""
    connection.execute(
        f"""
        CREATE TEMP TABLE near_pairs AS
        SELECT p.content_a, p.content_b, p.jaccard FROM near_duplicate_pairs p
        JOIN {candidates} a ON a.content_id = p.content_a JOIN {candidates} b ON b.content_id = p.content_b
        WHERE p.jaccard >= {config.threshold!r}::DOUBLE {same_language}
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
            first_value(repo_name || ':' || path) OVER best AS survivor_place
        FROM (SELECT f.*, c.component FROM {candidates} f JOIN clusters c ON c.id = f.content_id)
        WINDOW best AS (PARTITION BY component ORDER BY {SURVIVOR_ORDER});

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
        ), members AS (
            SELECT content_id, survivor_content_id FROM near_members SEMI JOIN incomplete USING (component)
        )
        SELECT p.content_a AS content_id, p.content_b AS other_id, p.jaccard, m.survivor_content_id AS survivor
        FROM near_pairs p JOIN members m ON m.content_id = p.content_a
        ORDER BY survivor, p.content_a, p.content_b
        """,
        _LINKS,
    )
    neighbours: dict[str, list[tuple[float, str]]] = defaultdict(list)
    survivors: dict[str, None] = {}
    for link in links.to_pylist():
        neighbours[link["content_id"]].append((link["jaccard"], link["other_id"]))
        neighbours[link["other_id"]].append((link["jaccard"], link["content_id"]))
        survivors[link["survivor"]] = None
    found: dict[str, float] = {}
    for survivor in survivors:
        found.update(widest_chains(neighbours, survivor))
    return pa.table(
        {"content_id": pa.array(found.keys(), pa.string()), "similarity": pa.array(found.values(), pa.float64())}
    )


def widest_chains(neighbours: dict[str, list[tuple[float, str]]], start: str) -> dict[str, float]:
    """For each node that can be reached, the largest similarity that every link of some chain from `start`
    reaches."""
    widths: dict[str, float] = {}
    queue = [(-1.0, start)]
    while queue:
        width, node = heapq.heappop(queue)
        if node in widths:
            continue
        widths[node] = -width
        for similarity, other in neighbours[node]:
            if other not in widths:
                heapq.heappush(queue, (max(width, -similarity), other))
    return widths
