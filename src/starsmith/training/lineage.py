"""Which files, documents and licences every step was trained on, and back.

Each step leaves one row per span of its batch. Rows are kept until `checkpoint_steps` steps are complete and then
written as one Parquet part, named by its first and last step. A checkpoint between these borders (a run told to
stop) carries the rows along instead: the parts are the same whether a run was interrupted or not.

Every rank keeps the spans of its own rows, compressed (about a tenth of their size as a table). Where a part is
due, all ranks' are gathered and ordered by step, row and place, and the first rank writes them: a part has the
same bytes at every world size.

A step whose loss or gradient was not finite is recorded with `trained` false: it saw its batch and learned
nothing from it.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from starsmith.corpus import query
from starsmith.corpus.store import write_parquet
from starsmith.errors import InputError
from starsmith.tokens.packing import SPANS

TABLE = "lineage"

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),  # from 1, as in the metrics
        pa.field("trained", pa.bool_(), nullable=False),
        *SPANS,
    ]
)

_ORDER = [("step", "ascending"), ("row", "ascending"), ("start", "ascending")]

Pieces = list[bytes]
"""Tables of `SCHEMA`, compressed."""


def _alone(pieces: Pieces) -> list[Pieces]:
    return [pieces]


class LineageLog:
    """Gathers the rows of steps and writes them part by part. On many ranks, `pending` and `flush` are called by
    all of them at the same step."""

    def __init__(
        self, folder: Path, *, gather: Callable[[Pieces], Sequence[Pieces]] = _alone, is_first: bool = True
    ) -> None:
        """
        Args:
            folder: of the run.
            gather: every rank's pieces, on every rank.
            is_first: whether this rank writes.
        """
        self._folder = folder / TABLE
        self._gather = gather
        self._is_first = is_first
        self._pieces: Pieces = []
        self._first = 1

    def append(self, step: int, spans: pa.Table, *, trained: bool) -> None:
        """Takes in what this rank saw at a step: `packing.SPANS`, rows numbered in the global batch."""
        columns = [
            pa.repeat(pa.scalar(step), len(spans)),
            pa.repeat(pa.scalar(trained), len(spans)),
            *spans.columns,
        ]
        self._pieces.append(_compress(pa.Table.from_arrays(columns, schema=SCHEMA)))

    def pending(self) -> pa.Table:
        """The rows of all ranks that are in no part yet."""
        return _merge(self._gather(self._pieces))

    def flush(self, last_step: int) -> None:
        """Writes the pending rows of all ranks as the part that ends with `last_step`."""
        gathered = self._gather(self._pieces)
        if self._is_first and last_step >= self._first:
            write_parquet(self._folder / f"{self._first:08d}-{last_step:08d}.parquet", _merge(gathered))
        self._pieces, self._first = [], last_step + 1

    def rewind(self, last_step: int, pending: pa.Table) -> None:
        """Goes back to a checkpoint: drops the parts after it and takes up its pending rows."""
        self._first, self._pieces = 1, []
        if not self._is_first:
            return
        for part, (_, last) in _parts(self._folder.parent).items():
            if last > last_step:
                part.unlink()
            else:
                self._first = last + 1
        if len(pending):
            self._pieces = [_compress(pending.cast(SCHEMA))]


def _merge(gathered: Sequence[Pieces]) -> pa.Table:
    tables = [pa.ipc.open_stream(piece).read_all() for pieces in gathered for piece in pieces]
    return pa.concat_tables([SCHEMA.empty_table(), *tables]).sort_by(_ORDER).combine_chunks()


def _compress(table: pa.Table) -> bytes:
    """As a stream of Arrow's; identifiers, names and paths repeat from span to span and so cost little."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    whole: bytes = sink.getvalue().to_pybytes()
    return whole


def lineage(folder: Path, step: int) -> pa.Table:
    """What one step saw, one row per file (or per document, for tokens that belong to no file).

    Columns: document_id, repo_name, path, content_id, released_id, license_type, detected_licenses, trained,
    num_tokens, rows (of the batch). Ordered by document, path and content; shares of tokens are of inputs and
    the last target of each row, without padding.

    Raises:
        InputError: no such step was recorded.
    """
    parts = [part for part, (first, last) in _parts(folder).items() if first <= step <= last]
    if not parts:
        raise InputError(f"no lineage of step {step} in {folder}: {_known(folder)}")
    with query.connect({TABLE: parts}) as connection:
        return query.fetch(
            connection,
            f"""
            SELECT document_id, repo_name, path, content_id, released_id, license_type, detected_licenses,
                   trained, CAST(sum("end" - start) AS BIGINT) AS num_tokens,
                   list_sort(list(DISTINCT "row")) AS rows
            FROM {TABLE} WHERE step = {step:d} AND kind <> 'padding'
            GROUP BY document_id, repo_name, path, content_id, released_id, license_type, detected_licenses,
                     trained
            ORDER BY document_id, path, content_id NULLS FIRST, released_id
            """,
        )


def steps_of(folder: Path, swhid: str) -> pa.Table:
    """The steps that saw a content or a document: columns step, trained, num_tokens; ordered by step.

    Args:
        swhid: `swh:1:cnt:...` or the bare 40 hex digits of a content before or after redaction, or a document's
            identifier. No rows when it was never seen.

    Raises:
        InputError: not an identifier, or no lineage at all.
    """
    matched = re.fullmatch(r"(?:swh:1:cnt:)?([0-9a-f]{8,64})", swhid.strip())
    if matched is None:
        raise InputError(
            f"{swhid!r} is no content SWHID (swh:1:cnt: and 40 hex digits) and no document identifier"
        )
    parts = list(_parts(folder))
    if not parts:
        raise InputError(f"no lineage in {folder}: {_known(folder)}")
    identifier = query.literal(matched[1])
    with query.connect({TABLE: parts}) as connection:
        return query.fetch(
            connection,
            f"""
            SELECT step, trained, CAST(sum("end" - start) AS BIGINT) AS num_tokens FROM {TABLE}
            WHERE (content_id = {identifier} OR released_id = {identifier} OR document_id = {identifier})
              AND kind <> 'padding'
            GROUP BY step, trained ORDER BY step
            """,
        )


def _parts(folder: Path) -> dict[Path, tuple[int, int]]:
    """The parts, in order, with their first and last step."""
    found = {}
    for part in sorted((folder / TABLE).glob("*.parquet")):
        matched = re.fullmatch(r"(\d+)-(\d+)", part.stem)
        if matched:
            found[part] = (int(matched[1]), int(matched[2]))
    return found


def _known(folder: Path) -> str:
    ranges = list(_parts(folder).values())
    return f"steps 1 to {ranges[-1][1]} are recorded" if ranges else "nothing was trained there"
