"""The receipt of an opt-out: what it took out of a run, what took its place, and what still stands elsewhere.

A receipt is for the author who asked. It lists each file that a target names, with its SWHID and what became of
it; the files of others that were duplicates of these and are kept now in their place; and the copies, equal or
nearly so, that stay in the corpus under other names, because an author may not know of them and the request did
not name them. With an earlier run it also says which results were made anew, by their digests.

It is read from the ledger's tables alone: no text, no addresses, nothing about people but the names of
repositories. Its digest is the SHA-256 of its canonical JSON, so that a copy can be checked (`verify`).

Which files a target names is the policy's to say; the caller passes it in (`Side.matches`).
"""

import dataclasses
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from starsmith.corpus import query
from starsmith.corpus.store import canonical_digest

VERSION = 1
TABLES = ("files", "kept", "decisions", "near_duplicate_pairs")
NUM_SHOWN = 20
"""Files of each list that the text names; the JSON has all."""

_SURVIVOR = "regexp_extract(evidence, '^survivor ([0-9a-f]{40}) ', 1)"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A run, as a receipt needs it."""

    name: str
    tables: query.Tables
    """`TABLES`; one that is not given is empty."""
    matches: pa.Table
    """`file_id`, `target`: every file of the run that each target names."""
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Result (documents, tokens, release, ...) to its digest."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that a target names."""

    repo_name: str
    path: str
    swhid: str
    outcome: str
    """`left out` (by the opt-out), `kept`, or `dropped by` its first rule."""
    was_kept: bool | None
    """In the earlier run; None without one."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one target."""

    target: str
    num_files: int
    """That it names in this run."""
    num_left_out: int
    num_kept: int
    """That are still there: the list of this run did not have the target."""
    num_kept_before: int | None
    """That it names in the earlier run and that were kept there; None without one."""
    files: tuple[File, ...]


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """A file that is kept now, and was dropped as a duplicate while the files that were left out stood."""

    repo_name: str
    path: str
    swhid: str
    relation: str
    """exact_duplicate or near_duplicate."""
    similarity: float | None
    """Jaccard similarity to the survivor, or of the chain between them; 1 for equal bytes. None where the ledger
    has another measure."""
    survivor: str
    """repository:path of the file that stayed in its favour."""
    reason: str
    """`survivor left out`; or `cluster left smaller`: it stands, but a file that joined the two is out."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A kept file that no target names, with the bytes of one that was left out or nearly these."""

    repo_name: str
    path: str
    swhid: str
    similarity: float
    """1 for equal bytes."""
    copy_of: str
    """SWHID of the content that a target names; of several, the most similar."""


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    result: str
    before: str | None
    after: str | None

    @property
    def is_changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True, kw_only=True)
class Receipt:
    run: str
    earlier_run: str | None
    targets: tuple[Outcome, ...]
    promoted: tuple[Promoted, ...]
    """Known with an earlier run only."""
    copies: tuple[Copy, ...]
    results: tuple[Rebuilt, ...]
    explanations: tuple[str, ...]
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the digest of all others under `digest`."""
        body = dataclasses.asdict(self)
        return {**body, "digest": digest(body)}


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a receipt's canonical JSON (sorted keys, no spaces, UTF-8), without `digest` itself."""
    return canonical_digest({name: value for name, value in body.items() if name != "digest"})


def verify(receipt: Mapping[str, Any]) -> bool:
    """Whether a receipt read from JSON is as it was written."""
    return hmac.compare_digest(str(receipt.get("digest")), digest(receipt))


def make(targets: Sequence[str], after: Side, *, before: Side | None = None) -> Receipt:
    """The receipt of some targets.

    Args:
        targets: as text, in the order in which they are reported; those that `matches` does not have name no file.
        after: the run that left them out.
        before: an earlier run over the same sources; without it, what was promoted is not known.
    """
    with query.connect({}) as connection:
        _add_side(connection, "after", after)
        _add_side(connection, "before", before)
        outcomes = tuple(_outcome(connection, target, before is not None) for target in dict.fromkeys(targets))
        promoted = tuple(Promoted(**row) for row in _rows(connection, _PROMOTED_SQL))
        copies = tuple(Copy(**row) for row in _rows(connection, _COPIES_SQL))
    earlier = before.digests if before is not None else {}
    results = tuple(
        Rebuilt(result=name, before=earlier.get(name), after=after.digests.get(name))
        for name in dict.fromkeys((*after.digests, *earlier))
    )
    return Receipt(
        run=after.name,
        earlier_run=None if before is None else before.name,
        targets=outcomes,
        promoted=promoted,
        copies=copies,
        results=results,
        explanations=tuple(_explain(outcomes, promoted, copies, before is not None)),
    )


def _add_side(connection: duckdb.DuckDBPyConnection, prefix: str, side: Side | None) -> None:
    for name in TABLES:
        parts = side.tables.get(name, ()) if side is not None else ()
        if parts:
            files = ", ".join(query.literal(str(part)) for part in parts)
            connection.execute(f"CREATE VIEW {prefix}_{name} AS SELECT * FROM read_parquet([{files}])")
        else:
            connection.register(f"{prefix}_{name}", query.SCHEMAS[name].empty_table())
    empty = pa.table({"file_id": pa.array([], pa.string()), "target": pa.array([], pa.string())})
    connection.register(f"{prefix}_matches", empty if side is None else side.matches.select(empty.column_names))
    connection.execute(
        f"""
        CREATE TEMP TABLE {prefix}_named AS
        SELECT f.file_id, f.repo_name, f.path, f.content_id FROM {prefix}_files f
        WHERE f.file_id IN (SELECT file_id FROM {prefix}_matches)
        """
    )


def _outcome(connection: duckdb.DuckDBPyConnection, target: str, has_before: bool) -> Outcome:
    this = query.literal(target)
    files = tuple(
        File(**row) if has_before else File(**(row | {"was_kept": None}))
        for row in _rows(connection, _FILES_SQL.format(target=this))
    )
    ((num_before,),) = connection.execute(
        f"""
        SELECT count(DISTINCT file_id) FROM before_matches SEMI JOIN before_kept USING (file_id)
        WHERE target = {this}
        """
    ).fetchall()
    return Outcome(
        target=target,
        num_files=len(files),
        num_left_out=sum(file.outcome == "left out" for file in files),
        num_kept=sum(file.outcome == "kept" for file in files),
        num_kept_before=num_before if has_before else None,
        files=files,
    )


_FILES_SQL = """
    WITH drops AS (
        SELECT file_id, arg_min(rule, "order") AS first_rule, bool_or(rule = 'opt_out') AS is_opted_out
        FROM after_decisions SEMI JOIN after_named USING (file_id) WHERE action = 'drop' GROUP BY file_id
    )
    SELECT f.repo_name, f.path, 'swh:1:cnt:' || f.content_id AS swhid,
        CASE WHEN d.is_opted_out THEN 'left out' WHEN d.first_rule IS NOT NULL THEN 'dropped by ' || d.first_rule
             ELSE 'kept' END AS outcome,
        f.file_id IN (SELECT file_id FROM before_kept) AS was_kept
    FROM after_named f LEFT JOIN drops d USING (file_id)
    WHERE f.file_id IN (SELECT file_id FROM after_matches WHERE target = {target})
    ORDER BY f.repo_name, f.path, f.file_id
"""

_PROMOTED_SQL = f"""
    WITH beaten AS (
        SELECT file_id, rule, value, {_SURVIVOR} AS survivor_id,
            file_id IN (SELECT file_id FROM before_named) AS is_named
        FROM before_decisions WHERE rule IN ('exact_duplicate', 'near_duplicate')
    ), joined AS (
        SELECT DISTINCT survivor_id FROM beaten WHERE is_named AND rule = 'near_duplicate'
    )
    SELECT k.repo_name, k.path, 'swh:1:cnt:' || k.content_id AS swhid, b.rule AS relation,
        CASE b.rule WHEN 'exact_duplicate' THEN 1.0 ELSE try_cast(b.value AS DOUBLE) END AS similarity,
        s.repo_name || ':' || s.path AS survivor,
        if(n.file_id IS NULL, 'cluster left smaller', 'survivor left out') AS reason
    FROM after_kept k JOIN beaten b USING (file_id) JOIN before_files s ON s.file_id = b.survivor_id
    LEFT JOIN before_named n ON n.file_id = b.survivor_id
    LEFT JOIN joined j ON j.survivor_id = b.survivor_id
    ANTI JOIN after_named a ON a.file_id = k.file_id
    WHERE n.file_id IS NOT NULL OR (b.rule = 'near_duplicate' AND j.survivor_id IS NOT NULL)
    ORDER BY k.repo_name, k.path, k.file_id
"""

_COPIES_SQL = """
    WITH named_contents AS (
        SELECT DISTINCT content_id FROM after_named
    ), links AS (
        SELECT content_id, content_id AS copy_of, 1.0::DOUBLE AS similarity FROM named_contents
        UNION ALL
        SELECT content_b, content_a, jaccard FROM after_near_duplicate_pairs
        WHERE content_a IN (SELECT content_id FROM named_contents)
        UNION ALL
        SELECT content_a, content_b, jaccard FROM after_near_duplicate_pairs
        WHERE content_b IN (SELECT content_id FROM named_contents)
    ), best AS (
        SELECT * FROM links
        QUALIFY row_number() OVER (
            PARTITION BY content_id ORDER BY content_id = copy_of DESC, similarity DESC, copy_of) = 1
    )
    SELECT k.repo_name, k.path, 'swh:1:cnt:' || k.content_id AS swhid, b.similarity,
        'swh:1:cnt:' || b.copy_of AS copy_of
    FROM after_kept k JOIN best b USING (content_id)
    ANTI JOIN after_named a ON a.file_id = k.file_id
    ORDER BY b.similarity DESC, k.repo_name, k.path, k.file_id
"""


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return rows


def _explain(
    outcomes: Sequence[Outcome], promoted: Sequence[Promoted], copies: Sequence[Copy], has_before: bool
) -> list[str]:
    """What a reader must know to read the lists rightly."""
    said = []
    for outcome in outcomes:
        if not outcome.num_files:
            said.append(
                f"No file of this run stands under {outcome.target}. Names are compared as their host compares "
                "them; a directory's SWHID is known for root directories only."
            )
        if outcome.num_kept:
            said.append(
                f"Still kept under {outcome.target}: {_files(outcome.num_kept)}; the opt-out list of this run "
                "did not have it."
            )
    if promoted:
        said.append(
            "The promoted files stand under other names. Each was dropped as a duplicate of one that is left out "
            "now, or was a duplicate of another by way of one; it is kept in its own right."
        )
    if not has_before:
        said.append("Which files took a place that became free can be said only beside an earlier run.")
    if copies:
        said.append(
            "The copies have the same bytes as files named here, or nearly the same, and stand under names that "
            "the request does not cover. To have equal bytes left out wherever they stand, ask for the content by "
            "its SWHID; to have a repository left out, its owner must ask."
        )
    return said


# ---- for people


def to_text(receipt: Receipt) -> str:
    """The receipt as text to send; names from archives have their control characters escaped."""
    lines = [f"Opt-out receipt for {receipt.run}"]
    if receipt.earlier_run is not None:
        lines.append(f"compared with {receipt.earlier_run}")
    for outcome in receipt.targets:
        lines += [
            "",
            f"{outcome.target}: {_files(outcome.num_files)}, {outcome.num_left_out:,} left out by the opt-out",
        ]
        if outcome.num_kept_before is not None:
            lines.append(f"  {outcome.num_kept_before:,} of its files were kept before")
        lines += _listed([f"{file.repo_name}:{file.path}  {file.swhid}  {file.outcome}" for file in outcome.files])
    if receipt.promoted:
        lines += ["", f"Promoted in their place: {_files(len(receipt.promoted))}"]
        lines += _listed(
            [
                f"{file.repo_name}:{file.path}  {file.swhid}  {file.relation.replace('_', ' ')} of "
                f"{file.survivor} (similarity {_number(file.similarity)}): {file.reason}"
                for file in receipt.promoted
            ]
        )
    lines += ["", f"Copies that stay under other names: {_files(len(receipt.copies))}"]
    lines += _listed(
        [
            f"{file.repo_name}:{file.path}  {file.swhid}  "
            + ("same bytes" if file.similarity == 1 else f"similarity {file.similarity:.2f}")
            + ("" if file.swhid == file.copy_of else f" to {file.copy_of}")
            for file in receipt.copies
        ]
    )
    if receipt.results:
        lines += ["", "Results"]
        lines += [f"  {_result(rebuilt, receipt.earlier_run is not None)}" for rebuilt in receipt.results]
    lines += ["", *receipt.explanations] if receipt.explanations else []
    lines += ["", f"Digest of this receipt: sha256 {digest(dataclasses.asdict(receipt))}"]
    return "\n".join(_printable(line) for line in lines) + "\n"


def _files(number: int) -> str:
    return f"{number:,} file" + ("" if number == 1 else "s")


def _number(similarity: float | None) -> str:
    return "not known" if similarity is None else f"{similarity:.2f}"


def _listed(lines: list[str]) -> list[str]:
    more = len(lines) - NUM_SHOWN
    return [*(f"  {line}" for line in lines[:NUM_SHOWN]), *([f"  and {more:,} more"] if more > 0 else [])]


def _result(rebuilt: Rebuilt, has_before: bool) -> str:
    if not has_before:
        return f"{rebuilt.result}: {rebuilt.after or 'none'}"
    if not rebuilt.is_changed:
        return f"{rebuilt.result}: unchanged, {rebuilt.after or 'none'}"
    return f"{rebuilt.result}: made anew, {rebuilt.before or 'none'} before, {rebuilt.after or 'none'} now"


def _printable(text: str) -> str:
    """Text whose control characters cannot act on a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
