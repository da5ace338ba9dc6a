"""The funnel: what arrived, what each rule took, what stayed, with examples; from the ledger alone.

A file can break several rules, and the ledger has a row for each. So that the sums come out (arrived = kept +
dropped), a dropped file is attributed to the first of its rules in the policy's order; beside it stands how
many files the rule would drop if it stood alone, which is what a change of its threshold can win back at most.

Examples are drawn by a keyed hash of the file, not by order of arrival: the same corpus shows the same ones,
and a rule shows files from all over the corpus. Decisive ones (no earlier rule had dropped the file) come
first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from starsmith.corpus import query

EXAMPLES_PER_RULE = 5


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A number of files, and their source bytes."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Example:
    repo_name: str
    path: str
    swhid: str
    value: str
    threshold: str
    evidence: str

    @property
    def content_id(self) -> str:
        return self.swhid.rpartition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Rule:
    order: int
    """The place of the rule in the policy."""
    name: str
    dropped: Amount
    """Files whose first dropping rule this is."""
    alone: Amount
    """Files that this rule would drop whatever the others say."""
    edited: Amount
    """Files that were kept and edited by it."""
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class IncidentKind:
    kind: str
    count: int
    bytes: int
    """Known bytes; some incidents have no length."""
    examples: tuple[Mapping[str, Any], ...]
    """`repo_name`, `path`, `detail` and `length_bytes` of up to five."""


@dataclass(frozen=True, kw_only=True)
class Funnel:
    arrived: Amount
    dropped: Amount
    kept: Amount
    edited: Amount
    unaccounted: Amount
    """Files neither kept nor dropped by a rule, or both; anything but zero is a defect."""
    rules: tuple[Rule, ...]
    """In the policy's order."""
    incidents: tuple[IncidentKind, ...]
    """What never became a file, most frequent first."""


def funnel(tables: query.Tables, *, seed: int = 42) -> Funnel:
    """Counts the way of all files; needs `files`, `decisions`, `kept` and `incidents`."""
    needed = {name: tables[name] for name in ("files", "decisions", "kept", "incidents")}
    with query.connect(needed) as connection:
        connection.execute(_ATTRIBUTED)
        return Funnel(
            arrived=_amount(connection, "files"),
            dropped=_amount(connection, "files SEMI JOIN attributed USING (file_id)"),
            kept=_amount(connection, "files SEMI JOIN kept USING (file_id)"),
            edited=_amount(
                connection,
                "files SEMI JOIN (SELECT file_id FROM decisions WHERE action = 'edit') USING (file_id) "
                "SEMI JOIN kept USING (file_id)",
            ),
            unaccounted=_amount(
                connection,
                "files LEFT JOIN (SELECT file_id, 1 AS dropped FROM attributed) USING (file_id) "
                "LEFT JOIN (SELECT file_id, 1 AS kept FROM kept) USING (file_id) "
                "WHERE coalesce(dropped, 0) + coalesce(kept, 0) != 1",
            ),
            rules=_rules(connection, seed),
            incidents=_incidents(connection, seed),
        )


_ATTRIBUTED = """
CREATE TEMP TABLE attributed AS
SELECT file_id, arg_min(rule, ("order", rule)) AS rule
FROM decisions WHERE action = 'drop' GROUP BY file_id
"""


def _amount(connection: duckdb.DuckDBPyConnection, relation: str) -> Amount:
    [row] = connection.sql(f"SELECT count(*), coalesce(sum(length_bytes), 0)::BIGINT FROM {relation}").fetchall()
    return Amount(files=row[0], bytes=row[1])


def _rules(connection: duckdb.DuckDBPyConnection, seed: int) -> tuple[Rule, ...]:
    rows = connection.sql("""
        SELECT min(d."order") AS place, d.rule,
            count(*) FILTER (WHERE d.action = 'drop' AND a.rule = d.rule),
            coalesce(sum(f.length_bytes) FILTER (WHERE d.action = 'drop' AND a.rule = d.rule), 0)::BIGINT,
            count(*) FILTER (WHERE d.action = 'drop'),
            coalesce(sum(f.length_bytes) FILTER (WHERE d.action = 'drop'), 0)::BIGINT,
            count(*) FILTER (WHERE d.action = 'edit' AND a.rule IS NULL),
            coalesce(sum(f.length_bytes) FILTER (WHERE d.action = 'edit' AND a.rule IS NULL), 0)::BIGINT
        FROM (SELECT DISTINCT file_id, "order", rule, action FROM decisions) d
        JOIN files f USING (file_id) LEFT JOIN attributed a USING (file_id)
        GROUP BY d.rule ORDER BY place, d.rule
    """).fetchall()
    examples = _rule_examples(connection, seed)
    return tuple(
        Rule(
            order=row[0],
            name=row[1],
            dropped=Amount(files=row[2], bytes=row[3]),
            alone=Amount(files=row[4], bytes=row[5]),
            edited=Amount(files=row[6], bytes=row[7]),
            examples=tuple(examples.get(row[1], ())),
        )
        for row in rows
    )


def _rule_examples(connection: duckdb.DuckDBPyConnection, seed: int) -> dict[str, list[Example]]:
    rows = connection.sql(f"""
        SELECT d.rule, f.repo_name, f.path, f.content_id, d.value, d.threshold, d.evidence, row_number() OVER (
            PARTITION BY d.rule
            ORDER BY coalesce(a.rule, d.rule) != d.rule, md5('{seed:d}' || d.rule || d.file_id), d.value
        ) AS place
        FROM decisions d JOIN files f USING (file_id) LEFT JOIN attributed a USING (file_id)
        QUALIFY place <= {EXAMPLES_PER_RULE}
        ORDER BY d.rule, place
    """).fetchall()
    examples: dict[str, list[Example]] = {}
    for rule, repo_name, path, content_id, value, threshold, evidence, _ in rows:
        example = Example(
            repo_name=repo_name,
            path=path,
            swhid=f"swh:1:cnt:{content_id}",
            value=value,
            threshold=threshold,
            evidence=evidence,
        )
        examples.setdefault(rule, []).append(example)
    return examples


def _incidents(connection: duckdb.DuckDBPyConnection, seed: int) -> tuple[IncidentKind, ...]:
    kinds = connection.sql(
        "SELECT kind, count(*) AS n, coalesce(sum(length_bytes), 0)::BIGINT FROM incidents "
        "GROUP BY kind ORDER BY n DESC, kind"
    ).fetchall()
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, repo_name, path, detail, length_bytes, _ in connection.sql(f"""
        SELECT kind, repo_name, path, detail, length_bytes, row_number() OVER (
            PARTITION BY kind ORDER BY md5('{seed:d}' || repo_name || path), repo_name, path, detail
        ) AS place
        FROM incidents QUALIFY place <= {EXAMPLES_PER_RULE} ORDER BY kind, place
    """).fetchall():
        found.setdefault(kind, []).append(
            {"repo_name": repo_name, "path": path, "detail": detail, "length_bytes": length_bytes}
        )
    return tuple(
        IncidentKind(kind=kind, count=count, bytes=size, examples=tuple(found.get(kind, ())))
        for kind, count, size in kinds
    )
