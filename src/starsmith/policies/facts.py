"""`facts`: one row per file with everything that per-file rules may ask, and no text.

The rules are expressions over this one relation, so a new fact is a column here and a new rule is a value
elsewhere. Before it is built, the tables are checked against each other: a text without statistics or a file
without a language row would slip through every rule unseen.
"""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from starsmith.corpus import query
from starsmith.policies import opt_out

TABLES = (
    "files",
    "contents",
    "language",
    "text_statistics",
    "file_licenses",
    "contamination",
    "malware",
    "quality",
    "near_duplicate_pairs",
    "pii",
    "decisions",
)
"""What policies query; a table that is not given is empty."""


def connect(tables: query.Tables, *, memory_limit: str = "800MB", threads: int = 1) -> duckdb.DuckDBPyConnection:
    """A connection with the tables of `TABLES` as views."""
    present = {name: tables.get(name, ()) for name in TABLES}
    return query.connect(present, memory_limit=memory_limit, threads=threads)


def build(
    connection: duckdb.DuckDBPyConnection,
    targets: opt_out.Targets | None,
    *,
    file_ids: Sequence[str] | None = None,
) -> None:
    """Creates the table `facts`, of all files or of some.

    Raises:
        ValueError: the tables do not belong together (a file's content, language, licence or statistics row
            is missing).
    """
    connection.execute("CREATE TEMP VIEW chosen_files AS SELECT * FROM files")
    if file_ids is not None:
        connection.register("chosen", pa.table({"file_id": pa.array(sorted(set(file_ids)), pa.string())}))
        connection.execute(
            "CREATE OR REPLACE TEMP VIEW chosen_files AS "
            "SELECT * FROM files WHERE file_id IN (SELECT file_id FROM chosen)"
        )
    opt_out.register(connection, targets)
    connection.execute(_FACTS_SQL)
    _check(connection)


_FACTS_SQL = """
    CREATE TEMP TABLE facts AS
    WITH chosen_contents AS (
        SELECT DISTINCT content_id FROM chosen_files
    ), statuses AS (
        SELECT content_id, status, src_encoding FROM contents SEMI JOIN chosen_contents USING (content_id)
    ), contaminated AS (
        SELECT content_id,
            list({'benchmark': benchmark, 'problem': problem, 'part': part, 'method': method, 'score': score,
                  'start': start, 'end': "end"}
                 ORDER BY method = 'text' DESC, score DESC, benchmark, problem, part) AS contaminations
        FROM (
            SELECT * FROM contamination SEMI JOIN chosen_contents USING (content_id)
            QUALIFY row_number() OVER (
                PARTITION BY content_id, benchmark, problem, part
                ORDER BY method = 'text' DESC, score DESC, start, "end"
            ) = 1
        ) GROUP BY content_id
    ), infected AS (
        SELECT content_id, list({'engine': engine, 'signature': signature} ORDER BY engine, signature) AS malware
        FROM (SELECT DISTINCT * FROM malware SEMI JOIN chosen_contents USING (content_id)) GROUP BY content_id
    )
    SELECT f.file_id, f.content_id, f.repo_name, f.directory_id, f.path,
        regexp_extract(f.path, '[^/]*$') AS name, f.length_bytes,
        f.star_events_count, f.fork_events_count, f.revision_date, f.visit_date,
        c.status, c.src_encoding,
        l.file_id IS NOT NULL AS has_language_row, l.name AS language_name,
        l.language, l.is_vendor, l.is_generated, l.is_documentation,
        s.* EXCLUDE (content_id),
        p.detected_licenses, p.license_type, p.evidence AS license_evidence,
        x.contaminations, v.malware,
        q.comment_fraction, q.parse_error_fraction, q.score AS quality_score,
        o.target AS opt_out_target
    FROM chosen_files f
    LEFT JOIN statuses c USING (content_id)
    LEFT JOIN language l ON l.file_id = f.file_id
    LEFT JOIN text_statistics s ON s.content_id = f.content_id
    LEFT JOIN file_licenses p ON p.file_id = f.file_id
    LEFT JOIN contaminated x ON x.content_id = f.content_id
    LEFT JOIN infected v ON v.content_id = f.content_id
    LEFT JOIN quality q ON q.content_id = f.content_id AND q.language = l.language
    LEFT JOIN opted_out o ON o.file_id = f.file_id
"""


def _check(connection: duckdb.DuckDBPyConnection) -> None:
    (row,) = connection.execute(
        """
        SELECT count(*) - count(DISTINCT file_id), count(*) FILTER (status IS NULL),
            count(*) FILTER (status = 'text' AND num_chars IS NULL),
            count(*) FILTER (status = 'text' AND NOT has_language_row), count(*) FILTER (license_type IS NULL)
        FROM facts
        """
    ).fetchall()
    faults = (
        "more rows than files",
        "without a content",
        "without text statistics",
        "without a language row",
        "without a licence row",
    )
    found = [f"{count} {fault}" for count, fault in zip(row, faults, strict=True) if count]
    if found:
        raise ValueError(f"the tables do not belong together; files: {', '.join(found)}")
