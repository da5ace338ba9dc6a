"""The released dataset: Parquet in The Stack v2's columns, one folder per language, every row checked.

The columns of section 7.2 come first, in their order, and then ours: `file_id` (what `explain` takes), `split`,
`released_id` (sha1_git of the text as released), `num_redactions` and, unless the recipe says otherwise,
`content`. The Stack v2's successor gave a `content_id` that does not match its redacted text, so nobody could
verify it. Here both digests stand in each row, and both are checked while it is written: `content_id` against
the source text encoded as it was found, `released_id` against the text that is released.

The bytes depend on the tables alone: rows are ordered by repository, root directory and path, row groups are
cut by rows and bytes (never by how the query handed them over), and nothing is read from the clock. The price
is one sort over the released texts, which spills to disk beyond the memory limit.

Licence notices are named in `notices/notices.parquet` by repository, path and SWHID. Their text is not copied:
it is the one thing in a repository that must not be edited, and it often holds names and addresses.
"""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from starsmith import recipe
from starsmith.corpus import query, schema, swhid
from starsmith.corpus.store import disk_errors

STACK_COLUMNS = (
    "blob_id", "directory_id", "path", "content_id", "detected_licenses", "license_type", "repo_name",
    "snapshot_id", "revision_id", "branch_name", "visit_date", "revision_date", "committer_date", "github_id",
    "star_events_count", "fork_events_count", "gha_license_id", "gha_event_created_at", "gha_created_at",
    "gha_language", "src_encoding", "language", "is_vendor", "is_generated", "length_bytes", "extension",
)  # fmt: skip
"""The columns of `bigcode/the-stack-v2`, in its order (section 7.2)."""

_OWN_FIELDS = (
    pa.field("file_id", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("released_id", pa.string(), nullable=False),
    pa.field("num_redactions", pa.int64(), nullable=False),
)

NOTICES = pa.schema(
    [
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("directory_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("licenses", pa.list_(pa.string()), nullable=False),
    ]
)

SHARD_BYTES = 1 << 30
_GROUP_ROWS = 1_000
_GROUP_BYTES = 64 << 20
_UNKNOWN_LANGUAGE = "Unknown"
_CONFIG_FORBIDS = set('<>:/\\|?*"')  # characters that `datasets` refuses in the name of a configuration


def columns(include_text: bool) -> pa.Schema:
    """The schema of the released Parquet files."""
    stack = [schema.KEPT.field(name) for name in STACK_COLUMNS]
    content = [pa.field("content", pa.large_string(), nullable=False)] if include_text else []
    return pa.schema([*stack, *_OWN_FIELDS, *content])


def folder_names(languages: Sequence[str]) -> dict[str, str]:
    """A folder name for each language, of letters, digits and `._+-`, and no two the same.

    `#` and `*` are spelt out (C-Sharp, F-Star), since a `*` in a path is a pattern to whoever loads the data.
    """
    plain = {language: _plain_name(language) for language in languages}
    taken = Counter(name.lower() for name in plain.values())  # lower: some file systems ignore case
    return {
        language: name if taken[name.lower()] == 1 else f"{name}-{swhid.content_id(language.encode())[:8]}"
        for language, name in plain.items()
    }


def _plain_name(language: str) -> str:
    spelt = language.replace("#", "-Sharp").replace("*", "-Star").replace(" ", "_")
    safe = "".join(char if char.isascii() and (char.isalnum() or char in "._+-") else "-" for char in spelt)
    return "_" + safe if safe.startswith(".") or not safe else safe


def config_name(language: str, folder_name: str) -> str:
    """The configuration that `datasets.load_dataset(folder, NAME)` takes: the language where that is allowed."""
    return folder_name if _CONFIG_FORBIDS & set(language) or language == "default" else language


def write_dataset(
    tables: query.Tables,
    folder: Path,
    config: recipe.Release,
    *,
    memory_limit: str = "800MB",
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Writes `data/LANGUAGE/SPLIT-NNNNN-of-NNNNN.parquet` and `notices/notices.parquet` under `folder`.

    The data card (`data_card.render`) belongs beside them as `README.md`; its header names the configurations.

    Args:
        tables: needs `kept`, `documents`, `contents`, `files` and `license_texts`.
        folder: created when absent; `data` and `notices` in it are replaced.
        config: whether the text is released.
        memory_limit: DuckDB's; beyond it, it spills into `folder` for the time of the call.
        shard_bytes: released bytes of text at which the next Parquet file is begun.

    Returns:
        What was written, as plain JSON values: counts and bytes overall, per split, per language (with folder
        and configuration), per licence type and SPDX key, and what the checks covered.

    Raises:
        AssertionError: a digest does not match, a place or a content occurs twice, or a document holds a file
            that the policies did not keep.
        MachineError: the disk is full.
    """
    spill = folder / ".spill"
    with disk_errors(folder):
        for old in (folder / "data", folder / "notices", spill):
            shutil.rmtree(old, ignore_errors=True)
        spill.mkdir(parents=True)
        try:
            with query.connect(tables, memory_limit=memory_limit, spill=spill) as connection:
                identity = _check_identity(connection)
                tally = _Tally(_folders(connection))
                _write_rows(connection, folder / "data", config.include_text, shard_bytes, tally)
                num_notices = _write_notices(connection, folder / "notices")
        except BaseException:
            shutil.rmtree(folder / "data", ignore_errors=True)
            raise
        finally:
            shutil.rmtree(spill, ignore_errors=True)
    return {
        "name": config.dataset_name,
        "include_text": config.include_text,
        "columns": columns(config.include_text).names,
        **identity,
        "num_notices": num_notices,
        **tally.facts(),
    }


_RELEASED = "SELECT split, unnest(files) AS f FROM documents"


def _check_identity(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Asserts that no place and no content is released twice.

    Returns the kept files that have no document, and the texts that only redaction has made equal to another:
    two sources that differ in an e-mail address alone. Those stay, since their content_ids differ.
    """
    connection.execute(
        "CREATE TEMP TABLE placed AS SELECT f.file_id AS file_id, f.content_id AS content_id, "
        "f.released_id AS released_id, k.repo_name, "
        f"k.directory_id, k.path, k.content_id AS kept_content FROM ({_RELEASED}) LEFT JOIN kept k "
        "ON k.file_id = f.file_id"
    )
    for fault, sql in (
        ("documents hold files that were not kept", "SELECT file_id FROM placed WHERE kept_content IS NULL"),
        (
            "documents and policies disagree on a content",
            "SELECT file_id FROM placed WHERE content_id != kept_content",
        ),
        (
            "a place is released twice",
            "SELECT repo_name || path FROM placed GROUP BY repo_name, directory_id, path HAVING count(*) > 1",
        ),
        ("a content is released twice", "SELECT content_id FROM placed GROUP BY content_id HAVING count(*) > 1"),
    ):
        found = connection.sql(f"{sql} ORDER BY 1 LIMIT 3").fetchall()
        assert not found, f"{fault}: {', '.join(row[0] for row in found)}"
    counts = connection.sql(
        "SELECT (SELECT count(*) FROM kept ANTI JOIN placed USING (file_id)), "
        "(SELECT count(*) - count(DISTINCT released_id) FROM placed)"
    ).fetchall()
    return {"kept_without_document": counts[0][0], "equal_after_redaction": counts[0][1]}


def _folders(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.sql("SELECT DISTINCT coalesce(language, '') FROM kept ORDER BY 1").fetchall()
    return folder_names([row[0] or _UNKNOWN_LANGUAGE for row in rows])


def _write_rows(
    connection: duckdb.DuckDBPyConnection, data: Path, include_text: bool, shard_bytes: int, tally: "_Tally"
) -> None:
    stack = ", ".join(f'k."{name}"' for name in STACK_COLUMNS)
    # The source text differs from the released one only in redacted files: elsewhere one text serves both checks.
    reader = connection.sql(
        f"SELECT {stack}, k.file_id, r.split, r.f.released_id AS released_id, "
        "r.f.num_redactions AS num_redactions, r.f.text AS content, "
        "CASE WHEN r.f.num_redactions > 0 THEN c.text END AS source_text "
        f"FROM ({_RELEASED}) r JOIN kept k ON k.file_id = r.f.file_id "
        "LEFT JOIN contents c ON r.f.num_redactions > 0 AND c.content_id = k.content_id "
        "ORDER BY k.language NULLS LAST, r.split, k.repo_name, k.directory_id, k.path"
    ).to_arrow_reader(1_024)
    target = columns(include_text)
    batches = (pa.Table.from_batches([batch]) for batch in reader)
    for (language, split), tables in itertools.groupby(_runs(batches), key=lambda run: run[0]):
        place = data / tally.folder(language)
        with _Shards(place, split, target, shard_bytes) as shards:
            for _, table in tables:
                for row in _checked(table):
                    tally.add(row)
                    shards.cut_after(len(row["content"].encode()))
                shards.take(table.select(target.names).cast(target))
        tally.shards(language, split, shards.num_files)


def _runs(tables: Iterator[pa.Table]) -> Iterator[tuple[tuple[str | None, str], pa.Table]]:
    """Cuts tables where language or split changes."""
    for table in tables:
        keys = zip(table["language"].to_pylist(), table["split"].to_pylist(), strict=True)
        start = 0
        for key, same in itertools.groupby(keys):
            length = sum(1 for _ in same)
            yield key, table.slice(start, length)
            start += length


_CHECKED_COLUMNS = [
    "repo_name", "path", "content_id", "blob_id", "src_encoding", "language", "license_type", "detected_licenses",
    "length_bytes", "split", "released_id", "num_redactions", "content", "source_text",
]  # fmt: skip


def _checked(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries, both digests verified; `source` says how (`exact` or `not_reencodable`)."""
    for row in table.select(_CHECKED_COLUMNS).to_pylist():
        place = f"{row['repo_name']}{row['path']}"
        released = swhid.content_id(row["content"].encode())
        assert released == row["released_id"], f"released_id of {place} is not the hash of its text"
        source = row["content"] if row["num_redactions"] == 0 else row["source_text"]
        assert source is not None, f"the source content of {place} is not in the corpus"
        encoding = row["src_encoding"] or "UTF-8"
        try:
            data = source.encode(encoding)
        except (UnicodeError, LookupError):
            data = b""
        found = (swhid.content_id(data), swhid.blob_id(data), len(data))
        exact = found == (row["content_id"], row["blob_id"], row["length_bytes"])
        # A decoder may lose what its encoder cannot restore (a byte-order mark); UTF-8 loses nothing.
        assert exact or encoding.upper() != "UTF-8", f"content_id of {place} is not the hash of its source"
        yield {**row, "source": "exact" if exact else "not_reencodable"}


class _Shards:
    """Writes one split of one language, cutting row groups and files by the rows alone."""

    def __init__(self, place: Path, split: str, target: pa.Schema, shard_bytes: int) -> None:
        self.num_files = 0
        self._place, self._split, self._target, self._shard_bytes = place, split, target, shard_bytes
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._ends: list[tuple[int, bool]] = []  # rows at which a group ends, counted from the pending start
        self._seen_rows = self._group_rows = self._group_bytes = self._file_bytes = 0

    def __enter__(self) -> "_Shards":
        self._place.mkdir(parents=True, exist_ok=True)
        return self

    def cut_after(self, text_bytes: int) -> None:
        """Accounts for the next row."""
        self._seen_rows += 1
        self._group_rows += 1
        self._group_bytes += text_bytes
        self._file_bytes += text_bytes
        full = self._file_bytes >= self._shard_bytes
        if full or self._group_rows >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._ends.append((self._seen_rows, full))
            self._group_rows = self._group_bytes = 0
            if full:
                self._file_bytes = 0

    def take(self, table: pa.Table) -> None:
        """The rows that were accounted for since the last call."""
        self._pending.append(table)
        if self._ends:
            rows = pa.concat_tables(self._pending)
            start = 0
            for end, full in self._ends:
                self._write(rows.slice(start, end - start))
                start = end
                if full:
                    self._close()
            self._pending = [rows.slice(start)]
            self._seen_rows -= start
            self._ends = []

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._seen_rows:
            self._write(pa.concat_tables(self._pending))
        self._close()
        if kind is None:
            for index in range(self.num_files):
                name = f"{self._split}-{index:05d}-of-{self.num_files:05d}.parquet"
                self._draft(index).rename(self._place / name)

    def _draft(self, index: int) -> Path:
        return self._place / f".{self._split}-{index:05d}.parquet"

    def _write(self, group: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._draft(self.num_files), self._target, compression="zstd")
            self.num_files += 1
        self._writer.write_table(group.combine_chunks(), row_group_size=_GROUP_ROWS)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _write_notices(connection: duckdb.DuckDBPyConnection, place: Path) -> int:
    """Where the licence texts of released repositories stand; returns their number."""
    notices = query.fetch(
        connection,
        "SELECT f.repo_name, f.directory_id, f.path, f.content_id, t.licenses FROM files f "
        "JOIN license_texts t USING (content_id) SEMI JOIN kept k "
        "ON k.repo_name = f.repo_name AND k.directory_id = f.directory_id "
        "WHERE t.kind = 'text' AND len(t.licenses) > 0 ORDER BY f.repo_name, f.directory_id, f.path",
        NOTICES,
    )
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(notices, place / "notices.parquet", compression="zstd", row_group_size=16_384)
    return int(notices.num_rows)


class _Tally:
    """Counts what is written."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = folders
        self._languages: dict[str, Counter[str]] = {}
        self._shards: dict[str, dict[str, int]] = {}
        self._splits: dict[str, Counter[str]] = {}
        self._total: Counter[str] = Counter()
        self._license_types: Counter[str] = Counter()
        self._licenses: Counter[str] = Counter()
        self._repositories: set[str] = set()
        self._sources: Counter[str] = Counter()

    def folder(self, language: str | None) -> str:
        return self._folders[language or _UNKNOWN_LANGUAGE]

    def shards(self, language: str | None, split: str, num_files: int) -> None:
        self._shards.setdefault(language or _UNKNOWN_LANGUAGE, {})[split] = num_files

    def add(self, row: Mapping[str, Any]) -> None:
        amounts = Counter(
            files=1, source_bytes=row["length_bytes"], released_bytes=len(row["content"].encode()),
            redacted_files=int(row["num_redactions"] > 0), redactions=row["num_redactions"],
        )  # fmt: skip
        self._total.update(amounts)
        self._languages.setdefault(row["language"] or _UNKNOWN_LANGUAGE, Counter()).update(amounts)
        self._splits.setdefault(row["split"], Counter()).update(amounts)
        self._license_types[row["license_type"]] += 1
        self._licenses.update(row["detected_licenses"])
        self._repositories.add(row["repo_name"])
        self._sources[row["source"]] += 1

    def facts(self) -> dict[str, Any]:
        return {
            "num_files": self._total["files"],
            "num_repositories": len(self._repositories),
            "source_bytes": self._total["source_bytes"],
            "released_bytes": self._total["released_bytes"],
            "num_redacted_files": self._total["redacted_files"],
            "num_redactions": self._total["redactions"],
            "splits": {split: dict(sorted(amounts.items())) for split, amounts in sorted(self._splits.items())},
            "languages": [
                {
                    "language": language,
                    "folder": self._folders[language],
                    "config": config_name(language, self._folders[language]),
                    "shards": self._shards.get(language, {}),
                    **dict(sorted(amounts.items())),
                }
                for language, amounts in sorted(self._languages.items())
            ],
            "license_types": dict(sorted(self._license_types.items())),
            "licenses": dict(sorted(self._licenses.items(), key=lambda item: (-item[1], item[0]))),
            "verified": {
                "released_id": self._total["files"],
                "content_id": self._sources["exact"],
                "content_id_not_reencodable": self._sources["not_reencodable"],
            },
        }
