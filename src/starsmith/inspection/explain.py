"""Why is this file in or out? The chain of rules for a path, a repository or a SWHID.

A target is resolved against the corpus, never against the network:

    /src/a.py, a.py, src/a.py          a path, or the end of one
    owner/repo:/src/a.py               one path of one repository
    owner/repo, repo, https://...      a repository by its name, the end of its name, or its origin
    swh:1:cnt:<hash>                   a content, at every place where it stands; also dir (a root
                                       directory), rev and snp, with or without `swh:1:`
    <40 hex digits>                    any identifier of the corpus, a `file_id` too

What fits several places is answered with the candidates and their counts; what fits none with the nearest
names. A path that a source refused is answered with that incident: nothing disappears unseen.

What each rule says of a file is asked of the policies by the function that the caller passes in (`Evaluate`);
everything else is read from the corpus's tables. The survivor of a duplicate is the `file_id` with which the
evidence of its ledger row begins.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from starsmith.corpus import query
from starsmith.errors import InputError

Evaluate = Callable[[Sequence[str]], pa.Table]
"""From file_ids to one row per file and rule: `file_id`, `order`, `rule`, `key`, `section`, `title`, `outcome`
(pass, drop, edit, not_applicable, off, not_reached), `value`, `threshold`, `evidence`."""

TABLES = ("files", "kept", "decisions", "file_licenses", "language", "incidents")
NUM_CHAINS = 10
"""Places of one content that are explained in full."""
NUM_CANDIDATES = 20
NUM_EXAMPLES = 3
NUM_DUPLICATES = 20

_IDENTIFIERS = {"cnt": "content_id", "dir": "directory_id", "rev": "revision_id", "snp": "snapshot_id"}
_ANY_IDENTIFIER = ("content_id", "blob_id", "file_id", "directory_id", "revision_id", "snapshot_id")
_SWHID = re.compile(r"(?:swh:1:)?(cnt|dir|rev|snp):([0-9a-f]{40})(?:;.*)?", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)
_PLACE = re.compile(r"(.+?):(/(?!/).*)", re.DOTALL)
_STYLES = {"pass": "green", "drop": "bold red", "edit": "yellow", "not_reached": "dim"}
_SURVIVOR = "regexp_extract(evidence, '^survivor ([0-9a-f]{40}) ', 1)"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One occurrence of a content, and what became of it."""

    file_id: str
    repo_name: str
    path: str
    origin: str
    fate: str
    """`kept`, or `dropped by` its first rule."""

    def __str__(self) -> str:
        return f"{self.repo_name}:{self.path}"


@dataclass(frozen=True, kw_only=True)
class RuleOutcome:
    order: int
    rule: str
    key: str
    section: str
    title: str
    outcome: str
    value: str | None
    threshold: str
    evidence: str | None


@dataclass(frozen=True, kw_only=True)
class FileChain:
    place: Place
    swhid: str
    length_bytes: int
    revision_id: str | None
    language: str | None
    license_type: str | None
    detected_licenses: tuple[str, ...]
    license_evidence: str | None
    outcomes: tuple[RuleOutcome, ...]
    survivor: Place | None
    """For a dropped duplicate, the file that stays instead."""
    num_duplicates: int
    duplicates: tuple[Place, ...]
    """Files dropped in favour of this one, at most `NUM_DUPLICATES`."""

    @property
    def is_kept(self) -> bool:
        return self.place.fate == "kept"


@dataclass(frozen=True, kw_only=True)
class RuleCount:
    rule: str
    action: str
    num_files: int
    """Files whose first drop this is (for an edit, files edited)."""
    num_broken: int
    """Files that break the rule, dropped earlier or not."""
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class IncidentCount:
    kind: str
    num_incidents: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RepositorySummary:
    repo_names: tuple[str, ...]
    origins: tuple[str, ...]
    directory_ids: tuple[str, ...]
    num_files: int
    num_bytes: int
    num_kept: int
    num_bytes_kept: int
    license_types: dict[str, int]
    rules: tuple[RuleCount, ...]
    incidents: tuple[IncidentCount, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One of: chains of files, the summary of a repository, candidates, or what a source refused."""

    target: str
    num_matches: int
    """Files that fit the target, shown or not."""
    files: tuple[FileChain, ...] = ()
    repository: RepositorySummary | None = None
    candidates: tuple[Place, ...] = ()
    """Files of which the target names several."""
    repositories: dict[str, int] = field(default_factory=dict)
    """Repositories of which the target names several, with their number of files."""
    incidents: tuple[IncidentCount, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def explain(tables: query.Tables, target: str, evaluate: Evaluate) -> Explanation:
    """Explains a target.

    Args:
        tables: those of `TABLES`; one that is not given is empty.
        target: see the module.
        evaluate: asks the rules of the policy that made these tables.

    Raises:
        InputError: the target is empty or malformed, or nothing in the corpus fits it.
    """
    with query.connect({name: tables.get(name, ()) for name in TABLES}) as connection:
        is_group = _resolve(connection, target.strip())
        (num_matches, num_contents) = _row(connection, "SELECT count(*), count(DISTINCT content_id) FROM matched")
        if num_matches == 0:
            incidents = _incidents(connection, *_incident_condition(target.strip()))
            if not incidents:
                raise InputError(_unknown(connection, target.strip()))
            return Explanation(target=target, num_matches=0, incidents=incidents)
        names = _repository_names(connection) if is_group else {}
        if len(names) > 1:
            return Explanation(target=target, num_matches=num_matches, repositories=names)
        if is_group:
            return Explanation(target=target, num_matches=num_matches, repository=_summary(connection))
        if num_contents > 1 or (num_matches > 1 and _HEX.search(target) is None):
            places = _places(connection, "SELECT file_id FROM matched", NUM_CANDIDATES)
            return Explanation(target=target, num_matches=num_matches, candidates=places)
        chosen = _places(connection, "SELECT file_id FROM matched", NUM_CHAINS)
        evaluated = evaluate([place.file_id for place in chosen])
        chains = tuple(_chain(connection, place, evaluated) for place in chosen)
        return Explanation(target=target, num_matches=num_matches, files=chains)


# ---- resolving


def _resolve(connection: duckdb.DuckDBPyConnection, target: str) -> bool:
    """Creates `matched` (rows of `files`) and says whether they are a group (a repository, a tree)."""
    if not target:
        raise InputError("nothing to explain: give a path, a repository or a SWHID")
    if match := _SWHID.fullmatch(target):
        kind = match[1].lower()
        _match(connection, f"{_IDENTIFIERS[kind]} = ?", match[2].lower())
        return kind != "cnt"
    if target.lower().startswith("swh:"):
        raise InputError(f"{target!r} is no SWHID of the corpus; allowed: swh:1:(cnt|dir|rev|snp):<40 hex digits>")
    if _HEX.fullmatch(target):
        columns = (column for column in _ANY_IDENTIFIER if _match(connection, f"{column} = ?", target.lower()))
        return next(columns, "content_id") in ("directory_id", "revision_id", "snapshot_id")
    if match := _PLACE.fullmatch(target):
        _match(connection, "lower(repo_name) = lower(?) AND path = ?", match[1], match[2])
        return False
    if target.startswith("/") and _match(connection, "path = ?", target):
        return False
    name = target.rstrip("/")
    is_repository = not target.startswith("/") and (
        _match(connection, "lower(repo_name) = lower(?)", name)
        or _match(connection, "origin = ? OR origin = ? || '/' OR origin = ? || '.git'", name, name, name)
        or _match(connection, "ends_with(lower(repo_name), '/' || lower(?))", name)
    )
    if not is_repository:
        _match(connection, "ends_with(path, ?)", "/" + target.lstrip("/"))
    return is_repository


def _match(connection: duckdb.DuckDBPyConnection, condition: str, *values: str) -> bool:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE matched AS SELECT * FROM files WHERE {condition}", values)
    return bool(_row(connection, "SELECT count(*) > 0 FROM matched")[0])


def _repository_names(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return dict(
        connection.execute(
            f"""
            SELECT repo_name, count(*) FROM matched GROUP BY repo_name ORDER BY repo_name LIMIT {NUM_CANDIDATES}
            """
        ).fetchall()
    )


def _incident_condition(target: str) -> tuple[str, list[str]]:
    if match := _PLACE.fullmatch(target):
        return "lower(repo_name) = lower(?) AND path = ?", [match[1], match[2]]
    return "path = ? OR ends_with(path, ?) OR lower(repo_name) = lower(?)", [
        target,
        "/" + target.lstrip("/"),
        target,
    ]


def _unknown(connection: duckdb.DuckDBPyConnection, target: str) -> str:
    """The message for a target that fits nothing, with the nearest names."""
    wanted = target.rpartition(":")[2] if _PLACE.fullmatch(target) else target
    names = connection.execute(
        """
        SELECT name FROM (
            SELECT repo_name AS name, jaro_winkler_similarity(lower(repo_name), lower($1)) AS likeness
            FROM (SELECT DISTINCT repo_name FROM files)
            UNION ALL
            SELECT path, greatest(
                jaro_winkler_similarity(lower(path), lower($2)),
                jaro_winkler_similarity(lower(regexp_extract(path, '[^/]*$')), lower(regexp_extract($2, '[^/]*$')))
            ) FROM (SELECT DISTINCT path FROM files WHERE contains($2, '/') OR contains($2, '.'))
        ) WHERE likeness > 0.7 ORDER BY likeness DESC, name LIMIT 4
        """,
        [target, wanted],
    ).fetchall()
    near = f"; near it: {', '.join(_printable(name) for (name,) in names)}" if names else ""
    return (
        f"nothing in this corpus fits {target!r}{near}\n"
        "allowed: a path, owner/repo, owner/repo:/path, swh:1:(cnt|dir|rev|snp):<hash>, or 40 hex digits"
    )


# ---- gathering


def _places(connection: duckdb.DuckDBPyConnection, file_ids: str, limit: int) -> tuple[Place, ...]:
    """Places of the files that a query names, kept ones first."""
    rows = connection.execute(
        f"""
        SELECT f.file_id, f.repo_name, f.path, f.origin,
            CASE WHEN k.file_id IS NOT NULL THEN 'kept'
                 ELSE 'dropped by ' || coalesce(d.rule, 'no rule') END AS fate
        FROM files f LEFT JOIN (SELECT file_id FROM kept) k USING (file_id) LEFT JOIN (
            SELECT file_id, arg_min(rule, "order") AS rule FROM decisions WHERE action = 'drop' GROUP BY file_id
        ) d USING (file_id)
        WHERE f.file_id IN ({file_ids})
        ORDER BY fate <> 'kept', f.repo_name, f.path, f.file_id LIMIT {limit:d}
        """
    ).fetchall()
    names = ("file_id", "repo_name", "path", "origin", "fate")
    return tuple(Place(**dict(zip(names, row, strict=True))) for row in rows)


def _chain(connection: duckdb.DuckDBPyConnection, place: Place, evaluated: pa.Table) -> FileChain:
    this = query.literal(place.file_id)
    content_id, length_bytes, revision_id, language, license_type, detected, evidence = _row(
        connection,
        f"""
        SELECT f.content_id, f.length_bytes, f.revision_id, l.language, p.license_type,
            coalesce(p.detected_licenses, []), p.evidence
        FROM files f LEFT JOIN language l USING (file_id) LEFT JOIN file_licenses p USING (file_id)
        WHERE f.file_id = {this}
        """,
    )
    survivors = _places(connection, f"SELECT {_SURVIVOR} FROM decisions WHERE file_id = {this}", 1)
    beaten = f"SELECT file_id FROM decisions WHERE {_SURVIVOR} = {this}"
    names = [field.name for field in dataclasses.fields(RuleOutcome)]
    rows = [row for row in evaluated.to_pylist() if row["file_id"] == place.file_id]
    return FileChain(
        place=place,
        swhid=f"swh:1:cnt:{content_id}",
        length_bytes=length_bytes,
        revision_id=revision_id,
        language=language,
        license_type=license_type,
        detected_licenses=tuple(detected),
        license_evidence=evidence,
        outcomes=tuple(
            RuleOutcome(**{name: row[name] for name in names})
            for row in sorted(rows, key=lambda row: int(row["order"]))
        ),
        survivor=survivors[0] if survivors else None,
        num_duplicates=_row(connection, f"SELECT count(*) FROM ({beaten})")[0],
        duplicates=_places(connection, beaten, NUM_DUPLICATES),
    )


def _summary(connection: duckdb.DuckDBPyConnection) -> RepositorySummary:
    names, origins, roots, num_files, num_bytes, num_kept, num_bytes_kept = _row(
        connection,
        """
        SELECT list_sort(list(DISTINCT repo_name)), list_sort(list(DISTINCT origin)),
            list_sort(list(DISTINCT directory_id)), count(*), sum(length_bytes)::BIGINT,
            count(*) FILTER (is_kept), coalesce(sum(length_bytes) FILTER (is_kept), 0)::BIGINT
        FROM (SELECT *, file_id IN (SELECT file_id FROM kept) AS is_kept FROM matched)
        """,
    )
    types = connection.execute(
        "SELECT license_type, count(*) FROM file_licenses SEMI JOIN matched USING (file_id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    rules = connection.execute(
        f"""
        WITH entered AS (
            SELECT d.*, m.path, row_number() OVER (PARTITION BY d.file_id, d.action ORDER BY d."order") AS place
            FROM decisions d JOIN matched m USING (file_id)
        )
        SELECT rule, action, count(*) FILTER (place = 1), count(*),
            list(path ORDER BY place > 1, path, file_id)[1:{NUM_EXAMPLES}]
        FROM entered GROUP BY rule, action ORDER BY min("order"), rule
        """
    ).fetchall()
    condition = "repo_name IN (SELECT repo_name FROM matched) AND origin IN (SELECT origin FROM matched)"
    return RepositorySummary(
        repo_names=tuple(names),
        origins=tuple(origins),
        directory_ids=tuple(roots),
        num_files=num_files,
        num_bytes=num_bytes,
        num_kept=num_kept,
        num_bytes_kept=num_bytes_kept,
        license_types=dict(types),
        rules=tuple(
            RuleCount(rule=rule, action=action, num_files=first, num_broken=num, examples=tuple(examples))
            for rule, action, first, num, examples in rules
        ),
        incidents=_incidents(connection, condition, []),
    )


def _incidents(
    connection: duckdb.DuckDBPyConnection, condition: str, values: list[str]
) -> tuple[IncidentCount, ...]:
    rows = connection.execute(
        f"""
        SELECT kind, count(*), list(place ORDER BY place)[1:{NUM_EXAMPLES}]
        FROM (SELECT kind, repo_name || ':' || path || ' (' || detail || ')' AS place
              FROM incidents WHERE {condition})
        GROUP BY kind ORDER BY kind
        """,
        values,
    ).fetchall()
    return tuple(
        IncidentCount(kind=kind, num_incidents=num, examples=tuple(examples)) for kind, num, examples in rows
    )


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    (row,) = connection.execute(sql).fetchall()
    return tuple(row)


# ---- for people


def render(explanation: Explanation) -> RenderableType:
    """What `rich` prints. Names from archives are shown with their control characters escaped."""
    parts: list[RenderableType] = [_render_chain(chain) for chain in explanation.files]
    hidden = explanation.num_matches - len(explanation.files) - len(explanation.candidates)
    if explanation.repository is not None or explanation.repositories:
        hidden = 0
    if explanation.repository is not None:
        parts.append(_render_repository(explanation.repository))
    if explanation.repositories:
        parts.append(Text(f"several repositories fit {_printable(explanation.target)!r}; name one:"))
        parts += [_text(f"  {name}  {num:,} files") for name, num in explanation.repositories.items()]
    if explanation.candidates:
        parts.append(Text(f"{explanation.num_matches} files fit {_printable(explanation.target)!r}; name one:"))
        table = _table("place", "fate", "file_id")
        for place in explanation.candidates:
            table.add_row(_text(str(place)), _text(place.fate), place.file_id)
        parts.append(table)
    if explanation.incidents:
        parts += [Text("not in the corpus: refused at its source"), _incident_table(explanation.incidents)]
    if hidden > 0:
        parts.append(Text(f"and {hidden} more places", style="dim"))
    return Group(*parts)


def _render_chain(chain: FileChain) -> RenderableType:
    head = Text.assemble(
        (_printable(str(chain.place)), "bold"),
        "  ",
        (chain.place.fate, "bold green" if chain.is_kept else "bold red"),
        f"\n{chain.swhid}  {chain.length_bytes:,} bytes  {chain.language or 'unknown language'}",
        f"\n{chain.license_type or 'licence not judged'}: {_printable(chain.license_evidence or 'no evidence')}",
    )
    table = _table("rule", "outcome", "value", "allowed", "section", "evidence")
    for outcome in chain.outcomes:
        if outcome.outcome in ("off", "not_applicable"):
            continue
        table.add_row(
            outcome.rule,
            Text(outcome.outcome.replace("_", " "), style=_STYLES.get(outcome.outcome, "")),
            _text(outcome.value or ""),
            _text(outcome.threshold),
            outcome.section,
            _text(outcome.evidence or ""),
        )
    parts: list[RenderableType] = [head, table]
    for kind, words in (("not_applicable", "not applicable"), ("off", "switched off")):
        names = [outcome.rule for outcome in chain.outcomes if outcome.outcome == kind]
        if names:
            parts.append(Text(f"{words}: {', '.join(names)}", style="dim"))
    if chain.survivor is not None:
        parts.append(_text(f"stays instead: {chain.survivor} ({chain.survivor.fate})"))
    if chain.num_duplicates:
        parts.append(Text(f"dropped in favour of it: {chain.num_duplicates}"))
        parts += [_text(f"  {place}") for place in chain.duplicates]
    return Group(*parts)


def _render_repository(summary: RepositorySummary) -> RenderableType:
    head = Text.assemble(
        (_printable(", ".join(summary.repo_names)), "bold"),
        f"\n{summary.num_kept:,} of {summary.num_files:,} files kept "
        f"({summary.num_bytes_kept:,} of {summary.num_bytes:,} bytes)",
        f"\nfrom {_printable(', '.join(summary.origins))}",
        "\nlicences: " + (", ".join(f"{name} {num:,}" for name, num in summary.license_types.items()) or "none"),
    )
    table = _table("rule", "action", "files", "break it", "examples")
    for rule in summary.rules:
        examples = _text(", ".join(rule.examples))
        table.add_row(rule.rule, rule.action, f"{rule.num_files:,}", f"{rule.num_broken:,}", examples)
    parts: list[RenderableType] = [head, table]
    if summary.incidents:
        parts += [Text("refused at the source:"), _incident_table(summary.incidents)]
    return Group(*parts)


def _incident_table(incidents: Sequence[IncidentCount]) -> Table:
    table = _table("incident", "count", "examples")
    for incident in incidents:
        table.add_row(incident.kind, f"{incident.num_incidents:,}", _text("\n".join(incident.examples)))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(text: str) -> Text:
    return Text(_printable(text))


def _printable(text: str) -> str:
    """Text whose control characters cannot act on a terminal."""
    shown = (char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
    return "".join(shown)
