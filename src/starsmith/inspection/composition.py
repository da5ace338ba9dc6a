"""What a corpus is made of, as plain numbers: languages, licences, duplicates, personal data, contamination.

Each part compares what arrived with what was kept, in files and source bytes, and is one query over the
tables. Long tails are cut after `top` rows and summed in a last row named "other", so that totals stay true.
The report page and the data card are both filled from these values.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from starsmith.corpus import query
from starsmith.corpus.components import connected_components

OTHER = "other"
UNKNOWN = "unknown"
_HISTOGRAM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class Share:
    """One value of a column: how much of it arrived, and how much was kept."""

    name: str
    arrived_files: int
    arrived_bytes: int
    kept_files: int
    kept_bytes: int


@dataclass(frozen=True, kw_only=True)
class DuplicatePair:
    jaccard: float
    path_a: str
    path_b: str
    swhid_a: str
    swhid_b: str
    kept_a: bool
    kept_b: bool


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    exact_files: int
    """Files whose content stands elsewhere too, beyond the first of each."""
    exact_bytes: int
    num_pairs: int
    """Verified pairs of near-duplicate contents."""
    num_clusters: int
    cluster_sizes: tuple[tuple[int, int], ...]
    """(contents in the cluster, clusters of that size), ascending."""
    similarity_edges: tuple[float, ...]
    similarity_counts: tuple[int, ...]
    """Pairs in each bin; one fewer than edges."""
    examples: tuple[DuplicatePair, ...]


@dataclass(frozen=True, kw_only=True)
class PiiKind:
    kind: str
    findings: int
    contents: int
    kept_findings: int
    """Findings in contents that were kept: what redaction has replaced, for the kinds it is set to."""
    detectors: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Contaminated:
    benchmark: str
    files: int
    contents: int
    problems: int
    parts: tuple[tuple[str, int], ...]
    """(part of the problem, contents that hold it)."""


@dataclass(frozen=True, kw_only=True)
class DocumentSplit:
    split: str
    repositories: int
    documents: int
    files: int
    text_bytes: int
    redactions: int


@dataclass(frozen=True, kw_only=True)
class Composition:
    num_repositories: int
    kept_repositories: int
    kept_languages: int
    """All of them; `languages` names only the largest."""
    languages: tuple[Share, ...]
    license_types: tuple[Share, ...]
    licenses: tuple[Share, ...]
    """SPDX keys; a file with several counts under each."""
    statuses: tuple[tuple[str, int, int], ...]
    """(status, distinct contents, bytes)."""
    license_texts: tuple[tuple[str, int], ...]
    """(outcome of the scan, texts)."""
    duplicates: Duplicates
    pii: tuple[PiiKind, ...]
    contamination: tuple[Contaminated, ...]
    documents: tuple[DocumentSplit, ...]


_NEEDED = (
    "contents", "files", "language", "license_texts", "pii", "contamination", "near_duplicate_pairs",
    "file_licenses", "kept", "documents",
)  # fmt: skip


def compose(tables: query.Tables, *, seed: int = 42, top: int = 20) -> Composition:
    """Measures a corpus; tables that are missing count as empty."""
    with query.connect({name: tables.get(name, ()) for name in _NEEDED}) as connection:
        repositories = connection.sql(
            "SELECT (SELECT count(DISTINCT repo_name) FROM files), count(DISTINCT repo_name), "
            "count(DISTINCT language) FROM kept"
        ).fetchall()[0]
        return Composition(
            num_repositories=repositories[0],
            kept_repositories=repositories[1],
            kept_languages=repositories[2],
            languages=_shares(
                connection,
                f"SELECT file_id, coalesce(language, '{UNKNOWN}') AS name "
                "FROM files LEFT JOIN language USING (file_id)",
                top,
            ),
            license_types=_shares(connection, "SELECT file_id, license_type AS name FROM file_licenses", top),
            licenses=_shares(
                connection, "SELECT file_id, unnest(detected_licenses) AS name FROM file_licenses", top
            ),
            statuses=tuple(
                connection.sql(
                    "SELECT status, count(*) AS n, sum(length_bytes)::BIGINT FROM contents "
                    "GROUP BY status ORDER BY n DESC, status"
                ).fetchall()
            ),
            license_texts=tuple(
                connection.sql(
                    "SELECT kind || ' ' || status AS what, count(*) AS n FROM license_texts "
                    "GROUP BY what ORDER BY n DESC, what"
                ).fetchall()
            ),
            duplicates=_duplicates(connection, seed),
            pii=_pii(connection),
            contamination=_contamination(connection),
            documents=_documents(connection),
        )


def _shares(connection: duckdb.DuckDBPyConnection, named: str, top: int) -> tuple[Share, ...]:
    """Amounts by name, the largest first; `named` gives `file_id` and `name`."""
    rows = connection.sql(f"""
        SELECT name, count(*), sum(f.length_bytes)::BIGINT AS size,
            count(k.file_id), coalesce(sum(f.length_bytes) FILTER (WHERE k.file_id IS NOT NULL), 0)::BIGINT
        FROM ({named}) n JOIN files f USING (file_id) LEFT JOIN kept k USING (file_id)
        GROUP BY name ORDER BY size DESC, name
    """).fetchall()
    shares = [
        Share(name=name, arrived_files=files, arrived_bytes=size, kept_files=kept, kept_bytes=kept_size)
        for name, files, size, kept, kept_size in rows
    ]
    return (*shares[:top], *_other(shares[top:]))


def _other(tail: Sequence[Share]) -> tuple[Share, ...]:
    if not tail:
        return ()
    return (
        Share(
            name=f"{OTHER} ({len(tail)})",
            arrived_files=sum(share.arrived_files for share in tail),
            arrived_bytes=sum(share.arrived_bytes for share in tail),
            kept_files=sum(share.kept_files for share in tail),
            kept_bytes=sum(share.kept_bytes for share in tail),
        ),
    )


def _duplicates(connection: duckdb.DuckDBPyConnection, seed: int) -> Duplicates:
    exact = connection.sql(
        "SELECT coalesce(sum(n - 1), 0)::BIGINT, coalesce(sum((n - 1) * size), 0)::BIGINT "
        "FROM (SELECT count(*) AS n, min(length_bytes) AS size FROM files GROUP BY content_id)"
    ).fetchall()[0]
    pairs = query.fetch(
        connection, "SELECT content_a, content_b, jaccard FROM near_duplicate_pairs ORDER BY content_a, content_b"
    )
    sizes: Counter[int] = Counter()
    if pairs.num_rows:
        members = connected_components(pairs["content_a"], pairs["content_b"])
        sizes = Counter(Counter(members["component"].to_pylist()).values())
    edges, counts = _histogram(pairs["jaccard"].to_pylist())
    return Duplicates(
        exact_files=exact[0],
        exact_bytes=exact[1],
        num_pairs=pairs.num_rows,
        num_clusters=sum(sizes.values()),
        cluster_sizes=tuple(sorted(sizes.items())),
        similarity_edges=edges,
        similarity_counts=counts,
        examples=_pair_examples(connection, seed),
    )


def _histogram(values: Sequence[float]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Equal bins from the smallest value, rounded down to a tenth, to 1; the last bin is closed."""
    low = min((int(value * 10) / 10 for value in values), default=0.0)
    low = min(low, 0.9)
    width = (1.0 - low) / _HISTOGRAM_BINS
    counts = [0] * _HISTOGRAM_BINS
    for value in values:
        counts[min(int((value - low) / width), _HISTOGRAM_BINS - 1)] += 1
    return tuple(round(low + index * width, 6) for index in range(_HISTOGRAM_BINS + 1)), tuple(counts)


def _pair_examples(
    connection: duckdb.DuckDBPyConnection, seed: int, num_examples: int = 8
) -> tuple[DuplicatePair, ...]:
    """Pairs of which one side is kept, then others, drawn by a keyed hash; of a content in many places, the kept
    or else the first one is shown."""
    rows = connection.sql(f"""
        WITH drawn AS (
            SELECT p.* FROM near_duplicate_pairs p
            ORDER BY (content_a IN (SELECT content_id FROM kept)) = (content_b IN (SELECT content_id FROM kept)),
                md5('{seed:d}' || content_a || content_b) LIMIT {num_examples}
        ), places AS (
            SELECT f.content_id, f.repo_name || f.path AS place, k.file_id IS NOT NULL AS is_kept
            FROM files f LEFT JOIN kept k USING (file_id)
            WHERE f.content_id IN (SELECT content_a FROM drawn UNION SELECT content_b FROM drawn)
            QUALIFY row_number() OVER (
                PARTITION BY f.content_id ORDER BY k.file_id IS NULL, f.repo_name, f.path, f.file_id
            ) = 1
        )
        SELECT d.jaccard, a.place, b.place, d.content_a, d.content_b, a.is_kept, b.is_kept
        FROM drawn d JOIN places a ON a.content_id = d.content_a JOIN places b ON b.content_id = d.content_b
        ORDER BY d.jaccard DESC, d.content_a, d.content_b
    """).fetchall()
    return tuple(
        DuplicatePair(
            jaccard=jaccard,
            path_a=place_a,
            path_b=place_b,
            swhid_a=f"swh:1:cnt:{content_a}",
            swhid_b=f"swh:1:cnt:{content_b}",
            kept_a=kept_a,
            kept_b=kept_b,
        )
        for jaccard, place_a, place_b, content_a, content_b, kept_a, kept_b in rows
    )


def _pii(connection: duckdb.DuckDBPyConnection) -> tuple[PiiKind, ...]:
    detectors = _grouped(
        connection.sql(
            "SELECT kind, detector, count(*) AS n FROM pii GROUP BY kind, detector ORDER BY kind, n DESC, detector"
        ).fetchall()
    )
    rows = connection.sql("""
        SELECT kind, count(*) AS n, count(DISTINCT content_id),
            count(*) FILTER (WHERE content_id IN (SELECT content_id FROM kept))
        FROM pii GROUP BY kind ORDER BY n DESC, kind
    """).fetchall()
    return tuple(
        PiiKind(kind=kind, findings=n, contents=contents, kept_findings=kept, detectors=detectors[kind])
        for kind, n, contents, kept in rows
    )


def _contamination(connection: duckdb.DuckDBPyConnection) -> tuple[Contaminated, ...]:
    parts = _grouped(
        connection.sql(
            "SELECT benchmark, part, count(DISTINCT content_id) AS n FROM contamination "
            "GROUP BY benchmark, part ORDER BY benchmark, n DESC, part"
        ).fetchall()
    )
    rows = connection.sql("""
        SELECT benchmark, count(DISTINCT f.file_id) AS n, count(DISTINCT c.content_id), count(DISTINCT c.problem)
        FROM contamination c JOIN files f USING (content_id) GROUP BY benchmark ORDER BY n DESC, benchmark
    """).fetchall()
    return tuple(
        Contaminated(benchmark=benchmark, files=n, contents=contents, problems=problems, parts=parts[benchmark])
        for benchmark, n, contents, problems in rows
    )


def _grouped(rows: Sequence[tuple[str, str, int]]) -> Mapping[str, tuple[tuple[str, int], ...]]:
    groups: dict[str, tuple[tuple[str, int], ...]] = {}
    for key, name, count in rows:
        groups[key] = (*groups.get(key, ()), (name, count))
    return groups


def _documents(connection: duckdb.DuckDBPyConnection) -> tuple[DocumentSplit, ...]:
    rows: list[tuple[Any, ...]] = connection.sql("""
        SELECT split, count(DISTINCT repo_name), count(*), sum(len(files))::BIGINT,
            sum(list_sum(list_transform(files, lambda f: strlen(f.text))))::BIGINT,
            sum(list_sum(list_transform(files, lambda f: f.num_redactions)))::BIGINT
        FROM documents GROUP BY split ORDER BY split
    """).fetchall()
    return tuple(
        DocumentSplit(
            split=split,
            repositories=repositories,
            documents=documents,
            files=files,
            text_bytes=text_bytes or 0,
            redactions=redactions or 0,
        )
        for split, repositories, documents, files, text_bytes, redactions in rows
    )
