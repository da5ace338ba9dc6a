"""Repositories as documents: the released text of every kept file, grouped by repository root.

Section 4.3: one training example is one whole repository. A root directory of a repository becomes one document,
its files sorted by path (the order shown in training is drawn later, per epoch). A root whose text exceeds
`max_document_bytes` becomes several documents, cut between files only; a single larger file is a document of its
own. Redactions are applied here and nowhere else, so that what is tokenised is what is released; `released_id` is
the sha1_git of that text.

Texts lie by hash and are wanted by repository. DuckDB orders the narrow columns and joins; it does not sort texts
(measured: 600 MB of text does not sort within a limit of 800 MB). Instead the order of files is cut into buckets
of a fixed size of text, one pass over `contents` copies each text to its bucket's file, and the buckets are read
back one after the other. So memory follows the bucket and the largest document, not the corpus, and the price is
one temporary copy of the kept text on disk.
"""

import hashlib
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from starsmith import recipe
from starsmith.corpus import query, schema
from starsmith.documents.split import validation_repositories
from starsmith.errors import InputError

Finding = tuple[str, int, int]
"""Kind, start and end of one PII finding; offsets are UTF-8 bytes."""

Redact = Callable[[str, list[Finding], str], tuple[str, int]]
"""(text, findings ordered by start, content_id) to (released text, number of redactions)."""

BATCH_BYTES = 32 * 1024 * 1024
"""Text at which a table of documents is handed over; it shapes tables, never documents."""

BUCKET_BYTES = 32 * 1024 * 1024
"""Text that is put in order in memory at a time."""

_ROWS_PER_READ = 64
_RECORD = struct.Struct("<QQ")


def build(
    tables: query.Tables,
    config: recipe.Documents,
    *,
    seed: int,
    redact: Redact,
    memory_limit: str = "800MB",
    spill: Path | None = None,
) -> Iterator[pa.Table]:
    """Yields the documents as tables of `schema.DOCUMENTS`, ordered by repository, root and part.

    Args:
        tables: the parts of `kept`, `contents` and `pii`.
        config: the validation fraction and the size at which a repository is cut.
        seed: keys the choice of the validation repositories.
        redact: applied to every text that has findings.
        memory_limit: DuckDB's own limit.
        spill: where temporary files lie; by default the system's temporary folder.

    Raises:
        InputError: a kept file has no text in `contents`; the tables do not belong together.
    """
    with (
        tempfile.TemporaryDirectory(prefix="documents-", dir=spill) as folder,
        closing(query.connect(tables, memory_limit=memory_limit, spill=Path(folder) / "duckdb")) as connection,
    ):
        buckets = Path(folder) / "buckets"
        buckets.mkdir()
        names = [row[0] for row in connection.sql("SELECT DISTINCT repo_name FROM kept").fetchall()]
        held_out = validation_repositories(names, fraction=config.validation_fraction, seed=seed)
        _plan_buckets(connection)
        _shuffle_texts(connection, buckets)
        files = (_release(row, redact) for row in _read_files(connection, buckets))
        documents = _documents(files, config.max_document_bytes, held_out)
        yield from _tables(documents)


def document_id(repo_name: str, directory_id: str, part: int) -> str:
    """40 hex digits that depend on where a document stands; `part` counts from 0 within its root."""
    return hashlib.sha1("\0".join((repo_name, directory_id, str(part))).encode()).hexdigest()


def sha1_git(text: str) -> str:
    """The hex content identifier of a released text."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _plan_buckets(connection: Any) -> None:
    """Numbers the kept files in document order (table `placed`) and cuts that order into buckets of text."""
    connection.execute(
        f"""
        CREATE TEMP TABLE placed AS
        SELECT row_number() OVER place AS number,
               (sum(length_bytes) OVER (place ROWS UNBOUNDED PRECEDING) // {BUCKET_BYTES})::BIGINT AS bucket,
               repo_name, directory_id, path, file_id, content_id, language, license_type, detected_licenses
        FROM kept
        WINDOW place AS (ORDER BY repo_name, directory_id, path, file_id)
        """
    )


def _shuffle_texts(connection: Any, folder: Path) -> None:
    """Copies each kept text to its bucket's file, as records of number, length and UTF-8 bytes.

    Files are opened for each flush, not held open: the number of buckets has no limit of its own.
    """
    # Left to itself DuckDB builds its hash table on the side with fewer rows, which may be the one with the texts.
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    texts = connection.sql(
        """SELECT placed.number, placed.bucket, contents.text
           FROM contents JOIN placed USING (content_id) WHERE contents.text IS NOT NULL"""
    )
    waiting: dict[int, list[bytes]] = {}
    waiting_bytes = 0
    for batch in texts.to_arrow_reader(_ROWS_PER_READ):
        for row in batch.to_pylist():
            data = row["text"].encode()
            waiting.setdefault(row["bucket"], []).append(_RECORD.pack(row["number"], len(data)) + data)
            waiting_bytes += len(data)
        if waiting_bytes > BUCKET_BYTES:
            _flush(waiting, folder)
            waiting, waiting_bytes = {}, 0
    _flush(waiting, folder)


def _flush(waiting: dict[int, list[bytes]], folder: Path) -> None:
    for bucket, records in waiting.items():
        with (folder / str(bucket)).open("ab") as file:
            file.writelines(records)


def _take_bucket(path: Path) -> dict[int, str]:
    """The texts of one bucket by file number; its file is removed."""
    texts: dict[int, str] = {}
    if path.exists():
        with path.open("rb") as file:
            while head := file.read(_RECORD.size):
                number, length = _RECORD.unpack(head)
                texts[number] = file.read(length).decode()
        path.unlink()
    return texts


def _read_files(connection: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """Kept files with text and findings, ordered by repository, root and path."""
    rows = connection.sql(
        """
        SELECT placed.*, found.findings
        FROM placed LEFT JOIN (
            SELECT content_id,
                   list(struct_pack(kind := kind, "start" := "start", "end" := "end")
                        ORDER BY "start", "end", kind) AS findings
            FROM pii GROUP BY content_id
        ) found USING (content_id)
        ORDER BY number
        """
    )
    bucket, texts = -1, dict[int, str]()
    for batch in rows.to_arrow_reader(_ROWS_PER_READ):
        for row in batch.to_pylist():
            if row["bucket"] != bucket:
                bucket, texts = row["bucket"], _take_bucket(folder / str(row["bucket"]))
            text = texts.pop(row["number"], None)
            if text is None:
                raise InputError(
                    f"kept file {row['repo_name']}:{row['path']} has no text in `contents` "
                    f"(swh:1:cnt:{row['content_id']}). Both tables must come from one run; "
                    "run the corpus steps again."
                )
            yield row | {"text": text}


def _release(row: dict[str, Any], redact: Redact) -> dict[str, Any]:
    """One file with its released text in place of its text and findings."""
    text, num_redactions = row["text"], 0
    if row["findings"]:
        findings = [(found["kind"], found["start"], found["end"]) for found in row["findings"]]
        text, num_redactions = redact(text, findings, row["content_id"])
    return row | {"text": text, "num_redactions": num_redactions, "released_id": sha1_git(text)}


def _documents(
    files: Iterable[dict[str, Any]], max_document_bytes: int, held_out: frozenset[str]
) -> Iterator[tuple[dict[str, Any], int]]:
    """Groups ordered files into documents; each comes with its bytes of text."""
    root: tuple[str, str] | None = None
    members: list[dict[str, Any]] = []
    part, num_bytes = 0, 0

    def finished() -> tuple[dict[str, Any], int]:
        assert root is not None
        document = {
            "document_id": document_id(*root, part),
            "repo_name": root[0],
            "directory_id": root[1],
            "split": "validation" if root[0] in held_out else "train",
            "files": members,
        }
        return document, num_bytes

    for file in files:
        file_root = (file["repo_name"], file["directory_id"])
        file_bytes = len(file["text"].encode())
        if members and (file_root != root or num_bytes + file_bytes > max_document_bytes):
            yield finished()
            part = part + 1 if file_root == root else 0
            members, num_bytes = [], 0
        root = file_root
        members.append(file)
        num_bytes += file_bytes
    if members:
        yield finished()


def _tables(documents: Iterable[tuple[dict[str, Any], int]]) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for document, document_bytes in documents:
        if rows and num_bytes + document_bytes > BATCH_BYTES:
            yield pa.Table.from_pylist(rows, schema=schema.DOCUMENTS)
            rows, num_bytes = [], 0
        rows.append(document)
        num_bytes += document_bytes
    if rows:
        yield pa.Table.from_pylist(rows, schema=schema.DOCUMENTS)
