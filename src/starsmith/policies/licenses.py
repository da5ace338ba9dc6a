"""The licence of every file, with its chain of evidence (The Stack v2, section 1.2 and Figure 1).

A licence-like file speaks for its own directory and everything below it in the same root directory, so a root
LICENSE covers the whole repository and nested ones add to it. GHArchive's word on the repository comes first.
What is detected is judged by three kinds: permissive, neutral (a contributor agreement, a disclaimer) and
the rest.

One case is ours, because the paper has no name for it: a licence-like text that could not be read (`timeout`,
`too_large`, `failed`). It is never taken for "no licence": the texts that were read judge alone, and when they
name no licence the file is `non_permissive`, as for GHArchive's NOASSERTION (a licence exists, unknown which).
The evidence names the unread text in any case.

Only distinct directories are expanded into their ancestors and joined by equality; files then look up their
directory. No text is read here.
"""

import duckdb
import pyarrow as pa

from starsmith import recipe
from starsmith.corpus import query, schema
from starsmith.corpus.license_paths import LICENSE_PATH
from starsmith.policies.license_categories import NEUTRAL_LICENSES, UNKNOWN_REFERENCE, permissive_licenses

VERSION = 1

NUM_SHOWN_TEXTS = 8
"""Texts named in one file's evidence; the others are counted."""
NUM_SHOWN_LICENSES = 6
"""Licences named for one text."""


def file_licenses(
    tables: query.Tables, config: recipe.Licenses, *, memory_limit: str = "800MB", threads: int = 1
) -> pa.Table:
    """The licences that hold for each file, the type they add up to, and why.

    Args:
        tables: `files` and `license_texts`.
        config: its limits are quoted where a text was not read.

    Returns:
        `schema.FILE_LICENSES`, one row per file, sorted by `file_id`.
    """
    present = {name: tables.get(name, ()) for name in ("files", "license_texts")}
    with query.connect(present, memory_limit=memory_limit, threads=threads) as connection:
        _judge_texts(connection, config)
        _judge_directories(connection)
        return query.fetch(connection, _FILES_SQL, schema.FILE_LICENSES)


def _judge_texts(connection: duckdb.DuckDBPyConnection, config: recipe.Licenses) -> None:
    """`license_judgements`: per licence-like content its licences by kind, and the words for the evidence."""
    keys = sorted(key.lower() for key in permissive_licenses())  # SPDX identifiers ignore case
    connection.register("permissive_keys", pa.table({"key": pa.array(sorted(set(keys)), pa.string())}))
    connection.register("neutral_keys", pa.table({"key": sorted(NEUTRAL_LICENSES)}))
    connection.execute(
        f"""
        CREATE TEMP TABLE license_judgements AS
        WITH classes AS (
            SELECT DISTINCT license,
                CASE WHEN lower(license) IN (SELECT key FROM permissive_keys) THEN 'permissive'
                     WHEN license IN (SELECT key FROM neutral_keys) THEN 'neutral'
                     WHEN license = {query.literal(UNKNOWN_REFERENCE)} THEN 'reference'
                     ELSE 'rest' END AS kind
            FROM (SELECT unnest(licenses) AS license FROM license_texts)
        ), kinds AS (
            SELECT content_id, list(DISTINCT kind) AS kinds
            FROM (SELECT content_id, unnest(licenses) AS license FROM license_texts) JOIN classes USING (license)
            GROUP BY content_id
        )
        SELECT content_id, status, licenses, coalesce(kinds, []) AS kinds,
            CASE status
                WHEN 'scanned' THEN {_shown_licenses()}
                WHEN 'timeout' THEN 'not read (timeout: no answer in {config.deadline_seconds} s)'
                WHEN 'too_large' THEN 'not read (too_large: more than {config.max_text_bytes} bytes)'
                ELSE 'not read (' || status || ')' END AS words
        FROM license_texts LEFT JOIN kinds USING (content_id)
        """
    )


def _shown_licenses() -> str:
    more = f"len(licenses) - {NUM_SHOWN_LICENSES}"
    return (
        f"array_to_string(licenses[1:{NUM_SHOWN_LICENSES}], ', ') || "
        f"CASE WHEN {more} > 0 THEN ' and ' || ({more}) || ' more' ELSE '' END"
    )


def _judge_directories(connection: duckdb.DuckDBPyConnection) -> None:
    """`directory_licenses`: for each directory that holds files, what the texts in it and above it say.

    Texts whose licences go against keeping come first in the evidence, then unread ones, then permissive ones.
    """
    name = "regexp_extract(path, '[^/]*$')"
    connection.execute(
        f"""
        CREATE TEMP TABLE license_places AS
        SELECT repo_name, directory_id, path, left(path, length(path) - length({name})) AS directory,
            status, licenses, kinds, words || ' at ' || path AS line,
            CASE WHEN list_has_any(kinds, ['rest', 'reference']) THEN 0 WHEN status <> 'scanned' THEN 1
                 WHEN len(licenses) > 0 THEN 2 ELSE 3 END AS place
        FROM files JOIN license_judgements USING (content_id)
        WHERE regexp_full_match({name}, {query.literal(LICENSE_PATH)});

        CREATE TEMP TABLE directory_licenses AS
        WITH directories AS (
            SELECT DISTINCT repo_name, directory_id, left(path, length(path) - length({name})) AS directory
            FROM files
        ), ancestors AS (
            SELECT *, string_split(directory, '/') AS parts,
                unnest([array_to_string(parts[1:i], '/') || '/' FOR i IN range(1, len(parts))]) AS ancestor
            FROM directories
        )
        SELECT a.repo_name, a.directory_id, a.directory,
            list_sort(list_distinct(flatten(list(p.licenses)))) AS detected,
            list_distinct(flatten(list(p.kinds))) AS kinds,
            bool_or(p.status <> 'scanned') AS has_unread,
            list(p.line ORDER BY p.place, p.path) FILTER (p.place < 3) AS lines,
            count(*) FILTER (p.place = 3) AS num_silent
        FROM ancestors a JOIN license_places p
            ON p.repo_name = a.repo_name AND p.directory_id = a.directory_id AND p.directory = a.ancestor
        GROUP BY ALL
        """
    )


_FILES_SQL = f"""
    WITH joined AS (
        SELECT f.file_id, nullif(trim(f.gha_license_id), '') AS gha,
            coalesce(d.detected, []) AS detected, coalesce(d.kinds, []) AS kinds,
            coalesce(d.has_unread, false) AS has_unread, coalesce(d.lines, []) AS lines,
            coalesce(d.num_silent, 0) AS num_silent
        FROM files f LEFT JOIN directory_licenses d
            ON f.repo_name = d.repo_name AND f.directory_id = d.directory_id
            AND d.directory = left(f.path, length(f.path) - length(regexp_extract(f.path, '[^/]*$')))
    )
    SELECT file_id, detected AS detected_licenses,
        CASE
            WHEN lower(gha) IN (SELECT key FROM permissive_keys) THEN 'permissive'
            WHEN gha IS NOT NULL AND gha <> 'NOASSERTION' THEN 'non_permissive'
            WHEN len(detected) = 0 AND (gha IS NOT NULL OR has_unread) THEN 'non_permissive'
            WHEN len(detected) = 0 THEN 'no_license'
            WHEN list_contains(kinds, 'rest') THEN 'non_permissive'
            WHEN list_contains(kinds, 'permissive') THEN 'permissive'
            WHEN list_contains(kinds, 'reference') OR has_unread THEN 'non_permissive'
            ELSE 'no_license'
        END AS license_type,
        CASE WHEN gha IS NULL THEN '' ELSE 'GHArchive says ' || gha || '; ' END ||
        CASE
            WHEN len(lines) > 0 THEN array_to_string(lines[1:{NUM_SHOWN_TEXTS}], '; ') ||
                CASE WHEN len(lines) > {NUM_SHOWN_TEXTS}
                     THEN '; and ' || (len(lines) - {NUM_SHOWN_TEXTS}) || ' more texts' ELSE '' END
            WHEN num_silent > 0 THEN num_silent || ' licence-like text' || if(num_silent = 1, '', 's')
                || ' without a licence'
            ELSE 'no licence-like file in its directory or above'
        END AS evidence
    FROM joined
    ORDER BY file_id
"""
