"""The licence of every file, with its chain of evidence (The Stack v2, section 1.2 and Figure 1).

What may speak for a file is the recipe's `licenses.evidence`:

* its own **header**, for this file alone;
* licence-like **texts** and package **manifests**, for their own directory and everything below it in the same
  root directory: a root LICENSE covers the whole repository and nested ones add to it. The metadata that lie in
  a folder `*.dist-info` or `*.egg-info` speak for the directory of that folder, where the package's files are;
* GHArchive's word on the **repository**, which comes first.

With repository and texts alone the decision is the published one. All evidence together is one set of licences,
judged by the same algorithm: permissive, neutral (a contributor agreement, a disclaimer) and the rest. So a
header under another licence than its repository's LICENSE makes the file `non_permissive` if either is of the
rest: what is nearer does not overrule what is above, since we cannot know which holds. A permissive word of
GHArchive decides alone, as published, even against a header. Both cases are flagged: `has_conflict` says that
permissive evidence and evidence of the rest have met, GHArchive's included.

One case is ours, because the paper has no name for it: evidence that could not be read (`timeout`, `too_large`,
`failed`). It is never taken for "no licence": what was read judges alone, and when that names no licence the
file is `non_permissive`, as for GHArchive's NOASSERTION (a licence exists, unknown which). The chain of evidence
names the unread file in any case.

Only distinct directories are expanded into their ancestors and joined by equality; files then look up their
directory. No text is read here, so that a kind of evidence that is left out is left out without scanning.
"""

import duckdb
import pyarrow as pa

from starsmith import recipe
from starsmith.corpus import query, schema
from starsmith.corpus.license_paths import LICENSE_PATH, MANIFEST_PATH, METADATA_FOLDER, UNKNOWN_REFERENCE
from starsmith.policies.license_categories import NEUTRAL_LICENSES, permissive_licenses

VERSION = 2

NUM_SHOWN_TEXTS = 8
"""Texts and manifests named in one file's evidence; the others are counted."""
NUM_SHOWN_LICENSES = 6
"""Licences named for one text."""

_NAME = "regexp_extract(path, '[^/]*$')"
_DIRECTORY = f"left(path, length(path) - length({_NAME}))"


def file_licenses(
    tables: query.Tables, config: recipe.Licenses, *, memory_limit: str = "800MB", threads: int = 1
) -> pa.Table:
    """The licences that hold for each file, the type they add up to, and why.

    Args:
        tables: `files` and `license_texts`.
        config: what may speak; its limits are quoted where a text was not read.

    Returns:
        `schema.FILE_LICENSES`, one row per file, sorted by `file_id`. The evidence goes from the nearest to the
        farthest: header, texts and manifests up the tree, repository.
    """
    present = {name: tables.get(name, ()) for name in ("files", "license_texts")}
    with query.connect(present, memory_limit=memory_limit, threads=threads) as connection:
        _judge_contents(connection, config)
        _judge_directories(connection)
        return query.fetch(connection, _files_sql(config), schema.FILE_LICENSES)


def _judge_contents(connection: duckdb.DuckDBPyConnection, config: recipe.Licenses) -> None:
    """`license_judgements`: what each content says, per kind of evidence: its licences by class, and the words.

    `place` orders what decides: the rest (0), what was not read (1), permissive and neutral (2), nothing (3).
    """
    keys = sorted(key.lower() for key in permissive_licenses())  # SPDX identifiers ignore case
    connection.register("permissive_keys", pa.table({"key": pa.array(sorted(set(keys)), pa.string())}))
    connection.register("neutral_keys", pa.table({"key": sorted(NEUTRAL_LICENSES)}))
    kinds = [name.removesuffix("s") for name in config.evidence if name != "repository"]
    wanted = ", ".join(map(query.literal, kinds)) or "NULL"
    connection.execute(
        f"""
        CREATE TEMP TABLE license_judgements AS
        WITH spoken AS (
            SELECT * FROM license_texts WHERE kind IN ({wanted})
        ), classes AS (
            SELECT DISTINCT license,
                CASE WHEN lower(license) IN (SELECT key FROM permissive_keys) THEN 'permissive'
                     WHEN license IN (SELECT key FROM neutral_keys) THEN 'neutral'
                     WHEN license = {query.literal(UNKNOWN_REFERENCE)} THEN 'reference'
                     ELSE 'rest' END AS class
            FROM (SELECT unnest(licenses) AS license FROM spoken)
        ), judged AS (
            SELECT content_id, kind, list(DISTINCT class) AS classes
            FROM (SELECT content_id, kind, unnest(licenses) AS license FROM spoken) JOIN classes USING (license)
            GROUP BY content_id, kind
        )
        SELECT content_id, kind, status, licenses, coalesce(classes, []) AS classes,
            CASE status
                WHEN 'scanned' THEN {_shown_licenses()}
                WHEN 'timeout' THEN 'not read (timeout: no answer in {config.deadline_seconds} s)'
                WHEN 'too_large' THEN 'not read (too_large: more than {config.max_text_bytes} bytes)'
                ELSE 'not read (' || status || coalesce(': ' || reason, '') || ')' END AS words,
            CASE WHEN list_has_any(coalesce(classes, []), ['rest', 'reference']) THEN 0
                 WHEN status <> 'scanned' THEN 1 WHEN len(licenses) > 0 THEN 2 ELSE 3 END AS place
        FROM spoken LEFT JOIN judged USING (content_id, kind)
        """
    )


def _shown_licenses() -> str:
    more = f"len(licenses) - {NUM_SHOWN_LICENSES}"
    return (
        f"array_to_string(licenses[1:{NUM_SHOWN_LICENSES}], ', ') || "
        f"CASE WHEN {more} > 0 THEN ' and ' || ({more}) || ' more' ELSE '' END"
    )


def _judge_directories(connection: duckdb.DuckDBPyConnection) -> None:
    """`directory_licenses`: for each directory that holds files, what texts and manifests in it and above say.

    Where there are too many to show, those that decide are shown, the nearest first.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE license_places AS
        SELECT repo_name, directory_id, path, {_DIRECTORY} AS directory, status, licenses, classes, place, kind,
            words || ' at ' || path AS line
        FROM files JOIN license_judgements USING (content_id)
        WHERE kind = 'text' AND regexp_full_match({_NAME}, {query.literal(LICENSE_PATH)})
        UNION ALL
        SELECT repo_name, directory_id, path,
            regexp_replace({_DIRECTORY}, {query.literal(METADATA_FOLDER)}, '') AS directory,
            status, licenses, classes, place, kind, words || ' in the manifest ' || path AS line
        FROM files JOIN license_judgements USING (content_id)
        WHERE kind = 'manifest' AND regexp_full_match({_NAME}, {query.literal(MANIFEST_PATH)});

        CREATE TEMP TABLE directory_licenses AS
        WITH directories AS (
            SELECT DISTINCT repo_name, directory_id, {_DIRECTORY} AS directory FROM files
        ), ancestors AS (
            SELECT *, string_split(directory, '/') AS parts,
                unnest([{{'ancestor': array_to_string(parts[1:i], '/') || '/', 'above': len(parts) - i}}
                        FOR i IN range(1, len(parts))], recursive := true)
            FROM directories
        )
        SELECT a.repo_name, a.directory_id, a.directory,
            list_sort(list_distinct(flatten(list(p.licenses)))) AS licenses,
            list_distinct(flatten(list(p.classes))) AS classes,
            bool_or(p.status <> 'scanned') AS has_unread,
            [x.line FOR x IN list_sort(
                list({{'above': a.above, 'path': p.path, 'line': p.line}}
                     ORDER BY p.place, a.above, p.path, p.line) FILTER (p.place < 3)[1:{NUM_SHOWN_TEXTS}]
            )] AS lines,
            count(*) FILTER (p.place < 3) AS num_lines,
            count(*) FILTER (p.place = 3 AND p.kind = 'text') AS num_silent_texts,
            count(*) FILTER (p.place = 3 AND p.kind = 'manifest') AS num_silent_manifests
        FROM ancestors a JOIN license_places p
            ON p.repo_name = a.repo_name AND p.directory_id = a.directory_id AND p.directory = a.ancestor
        GROUP BY ALL
        """
    )


def _files_sql(config: recipe.Licenses) -> str:
    repository = "nullif(trim(gha_license_id), '')" if "repository" in config.evidence else "NULL::VARCHAR"
    looked_for = " or ".join(
        words
        for name, words in (("texts", "licence-like file"), ("manifests", "manifest"))
        if name in config.evidence
    )
    nothing = f"no {looked_for} in its directory or above" if looked_for else "no evidence of a licence"
    return f"""
    WITH placed AS (
        SELECT file_id, content_id, repo_name, directory_id, {_DIRECTORY} AS directory, {repository} AS gha,
            lower(gha) IN (SELECT key FROM permissive_keys) AS gha_is_permissive
        FROM files
    ), joined AS (
        SELECT f.file_id, gha, gha_is_permissive,
            list_sort(list_distinct(list_concat(coalesce(h.licenses, []), coalesce(d.licenses, [])))) AS detected,
            list_concat(coalesce(h.classes, []), coalesce(d.classes, [])) AS classes,
            coalesce(d.has_unread, false) OR coalesce(h.status <> 'scanned', false) AS has_unread,
            list_concat(if(h.place < 3, [h.words || ' in its header'], []), coalesce(d.lines, [])) AS lines,
            coalesce(d.num_lines, 0) - len(coalesce(d.lines, [])) AS num_more,
            coalesce(d.num_silent_texts, 0) AS num_silent_texts,
            coalesce(d.num_silent_manifests, 0) AS num_silent_manifests
        FROM placed f
        LEFT JOIN directory_licenses d USING (repo_name, directory_id, directory)
        LEFT JOIN license_judgements h ON h.kind = 'header' AND h.content_id = f.content_id
    ), spoken AS (
        SELECT *,
            gha_is_permissive IS TRUE OR list_contains(classes, 'permissive') AS is_permissive,
            (gha <> 'NOASSERTION' AND NOT gha_is_permissive) IS TRUE OR list_contains(classes, 'rest') AS is_rest
        FROM joined
    )
    SELECT file_id, detected AS detected_licenses,
        CASE
            WHEN gha_is_permissive THEN 'permissive'
            WHEN gha IS NOT NULL AND gha <> 'NOASSERTION' THEN 'non_permissive'
            WHEN len(detected) = 0 AND (gha IS NOT NULL OR has_unread) THEN 'non_permissive'
            WHEN len(detected) = 0 THEN 'no_license'
            WHEN list_contains(classes, 'rest') THEN 'non_permissive'
            WHEN list_contains(classes, 'permissive') THEN 'permissive'
            WHEN list_contains(classes, 'reference') OR has_unread THEN 'non_permissive'
            ELSE 'no_license'
        END AS license_type,
        CASE
            WHEN len(lines) > 0 THEN array_to_string(lines, '; ')
                || CASE WHEN num_more > 0 THEN '; and ' || num_more || ' more texts' ELSE '' END
            WHEN num_silent_texts + num_silent_manifests > 0 THEN array_to_string([
                {_counted("num_silent_texts", "licence-like text")}, {_counted("num_silent_manifests", "manifest")}
            ], ' and ') || ' without a licence'
            ELSE {query.literal(nothing)}
        END
            || CASE WHEN gha IS NULL THEN '' ELSE '; GHArchive says ' || gha END
            || CASE WHEN is_permissive AND is_rest THEN '; these are in conflict' ELSE '' END AS evidence,
        is_permissive AND is_rest AS has_conflict
    FROM spoken
    ORDER BY file_id
    """


def _counted(column: str, noun: str) -> str:
    """SQL: a number and a noun, null when the number is 0."""
    return f"CASE WHEN {column} > 0 THEN {column} || ' {noun}' || if({column} = 1, '', 's') END"
