"""Merging sorted parts of contents into one, each content once, in flat memory.

Every source writes its contents sorted by content_id. Here at most `FAN_IN` such parts are merged at a time, and
of each only one row group is in memory: the rows up to the smallest of the last identifiers in memory can be
put in order and written, then the next row groups are read. More parts are merged in several rounds through
scratch files. Contents with one identifier have the same bytes, so whichever comes first stays.

Row groups are cut by bytes of text, at places that depend on the rows alone, so that the same contents
give the same file however they arrived.
"""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith.corpus import schema
from starsmith.corpus.store import parquet_writer

FAN_IN = 64
ROW_GROUP_BYTES = 2 * 1024**2
"""Text in a row group, the last row's excess aside."""
ROW_GROUP_ROWS = 4_096


def merge_contents(parts: Sequence[Path], place: Path, scratch: Path) -> None:
    """Writes the distinct contents of some parts, sorted.

    Args:
        parts: Parquet parts of `schema.CONTENTS`, each sorted by content_id.
        place: the part to write; it is there whole or not at all.
        scratch: an existing folder, used when there are more than `FAN_IN` parts.
    """
    with tempfile.TemporaryDirectory(prefix="merging-", dir=scratch) as folder:
        rounds = itertools.count()
        while len(parts) > FAN_IN:
            round_ = next(rounds)
            merged = []
            for first in range(0, len(parts), FAN_IN):
                merged.append(Path(folder) / f"{round_}-{first}.parquet")
                write_contents(merged[-1], _merged(parts[first : first + FAN_IN]))
            parts = merged
        write_contents(place, _merged(parts))


def write_contents(place: Path, tables: Iterable[pa.Table]) -> None:
    """Writes rows of `schema.CONTENTS` with row groups of bounded size."""
    with parquet_writer(place, schema.CONTENTS) as writer:
        waiting = schema.CONTENTS.empty_table()
        for table in tables:
            waiting = pa.concat_tables([waiting, table])
            *whole, last = _row_group_ends(waiting)
            start = 0
            for end in whole:
                writer.write_table(waiting.slice(start, end - start).combine_chunks())
                start = end
            waiting = waiting.slice(start, last - start)
        if waiting.num_rows:
            writer.write_table(waiting.combine_chunks())


def row_groups(parts: Iterable[Path], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of some parts, a row group at a time."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns, use_threads=False)


def _row_group_ends(rows: pa.Table) -> list[int]:
    """Where row groups end, counted from the first row; the last one may still grow."""
    lengths = pc.fill_null(pc.binary_length(rows["text"]), 0).to_numpy()
    totals: NDArray[np.int64] = np.cumsum(lengths)
    ends: list[int] = []
    start, before = 0, 0
    while start < rows.num_rows:
        end = min(int(np.searchsorted(totals, before + ROW_GROUP_BYTES)) + 1, start + ROW_GROUP_ROWS)
        if end > rows.num_rows:
            break
        ends.append(end)
        start, before = end, int(totals[end - 1])
    return [*ends, rows.num_rows]


def _merged(parts: Sequence[Path]) -> Iterator[pa.Table]:
    """Sorted runs of distinct rows, each run above the one before."""
    streams = [row_groups([part]) for part in parts]
    heads: list[pa.Table | None] = [_next(stream) for stream in streams]
    while any(head is not None for head in heads):
        limit = min(head["content_id"][-1].as_py() for head in heads if head is not None)
        runs = []
        for number, head in enumerate(heads):
            if head is None:
                continue
            count = pc.sum(pc.less_equal(head["content_id"], limit)).as_py()
            runs.append(head.slice(0, count))
            rest = head.slice(count)
            heads[number] = rest if rest.num_rows else _next(streams[number])
        rows = pa.concat_tables(runs)
        order = pc.array_sort_indices(rows["content_id"].combine_chunks())
        ids = rows["content_id"].take(order).to_numpy()
        first = np.concatenate([[True], ids[1:] != ids[:-1]])
        yield rows.take(order.filter(pa.array(first)))


def _next(stream: Iterator[pa.Table]) -> pa.Table | None:
    """The next rows of a stream, or None at its end."""
    return next((table for table in stream if table.num_rows), None)
