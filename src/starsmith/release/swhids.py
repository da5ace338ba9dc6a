"""The SWHID list: which contents a release is made of, in identifiers that anyone can resolve and verify.

One line for each released file, a qualified SWHID (ISO/IEC 18670): the core identifier of the content as it was
found, then `origin`, `visit`, `anchor` and `path` in the order of the specification. The same rows stand in a
Parquet file for those who join rather than read.

`origin` must be a URI, so a folder on somebody's disk has none, and neither does its location leave the
machine. `;` and `%` are percent-encoded in `origin` and `path` as the specification asks; so are white
space, which ends an identifier in running text, and characters that do not print, because a name may hold a line
break and the list is read by lines.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith.corpus import query
from starsmith.corpus.store import disk_errors

SWHIDS = pa.schema(
    [
        pa.field("swhid", pa.string(), nullable=False),
        pa.field("qualified_swhid", pa.string(), nullable=False),
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("license_type", pa.string(), nullable=False),
    ]
)

_GROUP_ROWS = 16_384


def qualified(
    content_id: str,
    *,
    path: str,
    origin: str | None = None,
    snapshot_id: str | None = None,
    revision_id: str | None = None,
    directory_id: str | None = None,
) -> str:
    """A content's SWHID with its place: `swh:1:cnt:HEX;origin=...;visit=...;anchor=...;path=...`.

    Args:
        content_id, snapshot_id, revision_id, directory_id: 40 hex digits. The anchor is the revision, or the
            root directory where there is none.
        path: starts with "/", relative to the anchor's root directory.
        origin: left out unless it is a URI.
    """
    parts = [f"swh:1:cnt:{content_id}"]
    if origin is not None and _is_uri(origin):
        parts.append(f"origin={_escape(origin)}")
    if snapshot_id:
        parts.append(f"visit=swh:1:snp:{snapshot_id}")
    if revision_id:
        parts.append(f"anchor=swh:1:rev:{revision_id}")
    elif directory_id:
        parts.append(f"anchor=swh:1:dir:{directory_id}")
    parts.append(f"path={_escape(path)}")
    return ";".join(parts)


def _is_uri(origin: str) -> bool:
    """URLs and package URLs; not paths, and not `file:` URLs, which name a folder on one machine."""
    return ("://" in origin or origin.startswith("pkg:")) and not origin.startswith("file:")


def _escape(value: str) -> str:
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode())
        if char in ";%" or char.isspace() or not char.isprintable()
        else char
        for char in value
    )


def write_swhids(tables: query.Tables, folder: Path, *, memory_limit: str = "400MB") -> dict[str, Any]:
    """Writes `swhids.txt.gz` and `swhids.parquet` for the kept files, sorted; needs the table `kept`.

    Returns the numbers of lines and of distinct contents.

    Raises:
        MachineError: the disk is full.
    """
    with disk_errors(folder), query.connect(tables, memory_limit=memory_limit) as connection:
        folder.mkdir(parents=True, exist_ok=True)
        reader = connection.sql(
            "SELECT content_id, origin, snapshot_id, revision_id, directory_id, path, file_id, license_type "
            "FROM kept ORDER BY content_id, file_id"
        ).to_arrow_reader(_GROUP_ROWS)
        num_files = num_contents = 0
        last = ""
        with (
            (folder / "swhids.txt.gz").open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as text,
            pq.ParquetWriter(folder / "swhids.parquet", SWHIDS, compression="zstd") as parquet,
        ):
            for rows in _groups(reader):
                num_contents += sum(
                    a["swhid"] != b for a, b in zip(rows, [last, *(row["swhid"] for row in rows)], strict=False)
                )
                num_files += len(rows)
                last = rows[-1]["swhid"]
                text.write("".join(row["qualified_swhid"] + "\n" for row in rows).encode())
                parquet.write_table(pa.Table.from_pylist(rows, schema=SWHIDS))
    return {"num_swhids": num_files, "num_contents": num_contents}


def _groups(reader: pa.RecordBatchReader) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups of one size, however the query hands them over."""
    rows: list[dict[str, Any]] = []
    for batch in reader:
        for row in batch.to_pylist():
            file_id, license_type = row.pop("file_id"), row.pop("license_type")
            rows.append(
                {
                    "swhid": f"swh:1:cnt:{row['content_id']}",
                    "qualified_swhid": qualified(**row),
                    "file_id": file_id,
                    "license_type": license_type,
                }
            )
        while len(rows) >= _GROUP_ROWS:
            yield rows[:_GROUP_ROWS]
            rows = rows[_GROUP_ROWS:]
    if rows:
        yield rows
