"""What changed between two corpora, by cause: files added, removed and changed.

A file is found again by its `file_id`; when its repository has a new root directory (a new commit, a new
release) by repository, path and content, then by repository and path. Several roots of one repository are
paired in the order of their identifiers. What is then kept on one side only has a cause:

* the first rule that dropped it on the other side (`no longer dropped by`, `now dropped by`), or
* the sources: the repository or the file is new, or gone.

What is kept on both sides is `changed` when its content, licences, language or edits differ. Causes come from
the two ledgers; no text is read, and nothing is decided again.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import duckdb
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from starsmith.corpus import query

NUM_EXAMPLES = 5
_TABLES = ("files", "kept", "decisions")


@dataclass(frozen=True, kw_only=True)
class Example:
    place: str
    """repository:path"""
    content_id: str
    """On the side where the file is kept; the new one when it is kept on both."""
    detail: str
    """Value and threshold of the rule, or what differs."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    change: str
    """added, removed or changed"""
    cause: str
    num_files: int
    num_bytes: int
    """Of the new file, or of the old one where it is removed."""
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Diff:
    num_kept_old: int
    num_kept_new: int
    num_bytes_old: int
    num_bytes_new: int
    num_added: int
    num_removed: int
    num_changed: int
    num_unchanged: int
    causes: tuple[Cause, ...]
    """Sorted by change, then by number of files; each file has one cause."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def diff(old: query.Tables, new: query.Tables) -> Diff:
    """Compares two corpora.

    Args:
        old: `files`, `kept` and `decisions`; a table that is not given is empty.
        new: the same.
    """
    with query.connect({}) as connection:
        for side, tables in (("old", old), ("new", new)):
            for name in _TABLES:
                _view(connection, f"{side}_{name}", name, tables)
        connection.execute("CREATE TEMP TABLE files_pairs (old_id VARCHAR, new_id VARCHAR)")
        _pair_rest(connection, "files")
        # Two files that are each other's partner are so in both tables: else one could be said to be gone
        # although its partner is kept.
        connection.execute(
            """
            CREATE TEMP TABLE kept_pairs AS SELECT old_id, new_id FROM files_pairs
            WHERE old_id IN (SELECT file_id FROM old_kept) AND new_id IN (SELECT file_id FROM new_kept)
            """
        )
        _pair_rest(connection, "kept")
        connection.execute(_CHANGES_SQL)
        return _summarise(connection)


def _view(connection: duckdb.DuckDBPyConnection, view: str, name: str, tables: query.Tables) -> None:
    parts = tables.get(name, ())
    if parts:
        files = ", ".join(query.literal(str(part)) for part in parts)
        connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet([{files}])")
    else:
        connection.register(view, query.SCHEMAS[name].empty_table())


def _pair_rest(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Completes `<name>_pairs` (`old_id`, `new_id`): every row of both sides at most once, in the order of the
    module."""
    for keys in ("file_id", "repo_name, path, content_id", "repo_name, path"):
        sides = [
            f"""(SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY directory_id, file_id) AS place
                FROM {side}_{name} ANTI JOIN {name}_pairs ON {name}_pairs.{side}_id = {side}_{name}.file_id)"""
            for side in ("old", "new")
        ]
        connection.execute(
            f"""
            INSERT INTO {name}_pairs
            SELECT o.file_id, n.file_id FROM {sides[0]} o JOIN {sides[1]} n USING ({keys}, place)
            """
        )


_CHANGES_SQL = """
    CREATE TEMP TABLE old_drops AS
        SELECT file_id, arg_min(rule, "order") AS rule, arg_min(value, "order") AS value,
            arg_min(threshold, "order") AS threshold
        FROM old_decisions WHERE action = 'drop' GROUP BY file_id;
    CREATE TEMP TABLE new_drops AS
        SELECT file_id, arg_min(rule, "order") AS rule, arg_min(value, "order") AS value,
            arg_min(threshold, "order") AS threshold
        FROM new_decisions WHERE action = 'drop' GROUP BY file_id;
    CREATE TEMP TABLE old_edits AS
        SELECT file_id, string_agg(rule || ' ' || value, '; ' ORDER BY "order") AS edits
        FROM old_decisions WHERE action = 'edit' GROUP BY file_id;
    CREATE TEMP TABLE new_edits AS
        SELECT file_id, string_agg(rule || ' ' || value, '; ' ORDER BY "order") AS edits
        FROM new_decisions WHERE action = 'edit' GROUP BY file_id;

    CREATE TEMP TABLE changes AS
    SELECT 'added' AS change, k.file_id, k.repo_name, k.path, k.content_id, k.length_bytes,
        CASE WHEN d.rule IS NOT NULL THEN 'no longer dropped by ' || d.rule
             WHEN p.old_id IS NOT NULL THEN 'there before, with no decision'
             WHEN k.repo_name IN (SELECT repo_name FROM old_files) THEN 'new file in a known repository'
             ELSE 'new repository' END AS cause,
        CASE WHEN d.rule IS NULL THEN '' ELSE d.value || ' (then allowed: ' || d.threshold || ')' END AS detail
    FROM new_kept k ANTI JOIN kept_pairs ON kept_pairs.new_id = k.file_id
    LEFT JOIN files_pairs p ON p.new_id = k.file_id LEFT JOIN old_drops d ON d.file_id = p.old_id
    UNION ALL
    SELECT 'removed', k.file_id, k.repo_name, k.path, k.content_id, k.length_bytes,
        CASE WHEN d.rule IS NOT NULL THEN 'now dropped by ' || d.rule
             WHEN p.new_id IS NOT NULL THEN 'still there, with no decision'
             WHEN k.repo_name IN (SELECT repo_name FROM new_files) THEN 'file gone from its repository'
             ELSE 'repository gone' END,
        CASE WHEN d.rule IS NULL THEN '' ELSE d.value || ' (allowed: ' || d.threshold || ')' END
    FROM old_kept k ANTI JOIN kept_pairs ON kept_pairs.old_id = k.file_id
    LEFT JOIN files_pairs p ON p.old_id = k.file_id LEFT JOIN new_drops d ON d.file_id = p.new_id
    UNION ALL
    SELECT 'changed', n.file_id, n.repo_name, n.path, n.content_id, n.length_bytes,
        CASE WHEN o.content_id <> n.content_id THEN 'content'
             WHEN o.license_type <> n.license_type OR o.detected_licenses <> n.detected_licenses THEN 'licence'
             WHEN o.language IS DISTINCT FROM n.language THEN 'language'
             WHEN a.edits IS DISTINCT FROM b.edits THEN 'edits' END AS cause,
        CASE cause WHEN 'content' THEN 'was swh:1:cnt:' || o.content_id
             WHEN 'licence' THEN o.license_type || ' [' || array_to_string(o.detected_licenses, ', ') || '] to '
                 || n.license_type || ' [' || array_to_string(n.detected_licenses, ', ') || ']'
             WHEN 'language' THEN coalesce(o.language, 'unknown') || ' to ' || coalesce(n.language, 'unknown')
             ELSE coalesce(a.edits, 'none') || ' to ' || coalesce(b.edits, 'none') END
    FROM kept_pairs p JOIN old_kept o ON o.file_id = p.old_id JOIN new_kept n ON n.file_id = p.new_id
    LEFT JOIN old_edits a ON a.file_id = p.old_id LEFT JOIN new_edits b ON b.file_id = p.new_id
    WHERE cause IS NOT NULL
"""


def _summarise(connection: duckdb.DuckDBPyConnection) -> Diff:
    ((num_old, bytes_old, num_new, bytes_new, num_paired),) = connection.execute(
        """
        SELECT (SELECT count(*) FROM old_kept), (SELECT coalesce(sum(length_bytes), 0)::BIGINT FROM old_kept),
            (SELECT count(*) FROM new_kept), (SELECT coalesce(sum(length_bytes), 0)::BIGINT FROM new_kept),
            (SELECT count(*) FROM kept_pairs)
        """
    ).fetchall()
    rows = connection.execute(
        f"""
        SELECT change, cause, count(*) AS num_files, sum(length_bytes)::BIGINT,
            list({{'place': repo_name || ':' || path, 'content_id': content_id, 'detail': detail}}
                ORDER BY repo_name, path, file_id)[1:{NUM_EXAMPLES}]
        FROM changes GROUP BY change, cause ORDER BY change, num_files DESC, cause
        """
    ).fetchall()
    causes = tuple(
        Cause(
            change=change,
            cause=cause,
            num_files=num_files,
            num_bytes=num_bytes,
            examples=tuple(Example(**example) for example in examples),
        )
        for change, cause, num_files, num_bytes, examples in rows
    )
    totals = dict.fromkeys(("added", "removed", "changed"), 0)
    for cause in causes:
        totals[cause.change] += cause.num_files
    return Diff(
        num_kept_old=num_old,
        num_kept_new=num_new,
        num_bytes_old=bytes_old,
        num_bytes_new=bytes_new,
        num_added=totals["added"],
        num_removed=totals["removed"],
        num_changed=totals["changed"],
        num_unchanged=num_paired - totals["changed"],
        causes=causes,
    )


def render(difference: Diff) -> RenderableType:
    """What `rich` prints. Names from archives are shown with their control characters escaped."""
    head = Text(
        f"{difference.num_kept_old:,} files ({difference.num_bytes_old:,} bytes) before, "
        f"{difference.num_kept_new:,} files ({difference.num_bytes_new:,} bytes) now: "
        f"{difference.num_added:,} added, {difference.num_removed:,} removed, {difference.num_changed:,} changed, "
        f"{difference.num_unchanged:,} the same"
    )
    if not difference.causes:
        return head
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("change", "cause", "files", "bytes", "examples"):
        table.add_column(column, overflow="fold", justify="right" if column in ("files", "bytes") else "left")
    for cause in difference.causes:
        examples = "\n".join(
            _printable(f"{example.place}  {example.detail}".rstrip()) for example in cause.examples
        )
        if cause.num_files > len(cause.examples):
            examples += f"\nand {cause.num_files - len(cause.examples):,} more"
        table.add_row(cause.change, cause.cause, f"{cause.num_files:,}", f"{cause.num_bytes:,}", Text(examples))
    return Group(head, table)


def _printable(text: str) -> str:
    """Text whose control characters cannot act on a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
