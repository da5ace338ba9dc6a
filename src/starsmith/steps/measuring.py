"""A signal over all contents: partition by partition, a bounded batch at a time, each content measured once.

What a signal says of a content depends on that content alone. So a step takes over the rows of contents that an
earlier result of the same step (same version, same parameters, other inputs) already has, and measures the rest:
a new snapshot costs its new contents, a removed repository costs nothing. The bytes of the result
are those of a fresh run: rows are ordered by identifier, and a content's rows stay in the order in which the
signal gave them.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from starsmith.corpus import schema
from starsmith.corpus.engine import map_parallel
from starsmith.corpus.merging import row_groups
from starsmith.corpus.store import write_parquet
from starsmith.memory import give_back
from starsmith.steps.step import Context, Facts

BATCH_BYTES = 4 * 1024**2

MeasureContents = Callable[[pa.Table], pa.Table]
"""From rows of `schema.CONTENTS` to rows with a content_id, in the order of the contents."""
MeasureFiles = Callable[[pa.Table, pa.Table], pa.Table]
"""From rows of `schema.FILES` and all their contents to one row a file."""


@dataclass(frozen=True)
class Partition:
    """One partition's input and output, on its way to a worker process."""

    contents: tuple[Path, ...]
    files: tuple[Path, ...]
    place: Path
    earlier: tuple["EarlierPartition", ...] = ()


@dataclass(frozen=True)
class EarlierPartition:
    """The same partition in an earlier result."""

    contents: tuple[Path, ...]
    """What had been measured, whether it has rows or not."""
    rows: tuple[Path, ...]


def partitions(context: Context, table: str) -> list[Partition]:
    """The partitions of the step's contents, each with what earlier results hold of it."""
    source = context.inputs["contents"]
    contents, files = source.partitions("contents"), source.partitions("files")
    earlier = [
        (previous.inputs["contents"].partitions("contents"), previous.result.partitions(table))
        for previous in context.earlier
        if "contents" in previous.inputs
        and previous.inputs["contents"].manifest["params"] == source.manifest["params"]
    ]
    return [
        Partition(
            contents=tuple(contents[number]),
            files=tuple(files.get(number, ())),
            place=context.draft.part(table, number),
            earlier=tuple(
                EarlierPartition(tuple(old_contents[number]), tuple(old_rows[number]))
                for old_contents, old_rows in earlier
                if number in old_contents and number in old_rows
            ),
        )
        for number in sorted(contents)
    ]


def measure_contents(context: Context, table: str, measure: MeasureContents) -> Facts:
    """Writes `table`: one signal over every content."""
    jobs = partitions(context, table)
    run = functools.partial(_measure_contents, measure)
    map_parallel(run, jobs, workers=context.workers, progress=context.progress)
    return {"num_rows": num_rows(jobs)}


def measure_files(context: Context, table: str, measure: MeasureFiles) -> Facts:
    """Writes `table`: one signal over every file and its content.

    In processes of its own: go-enry must not be loaded in a process that may fork later.
    """
    jobs = partitions(context, table)
    run = functools.partial(_measure_files, measure)
    map_parallel(run, jobs, workers=context.workers, progress=context.progress, isolated=True)
    return {"num_rows": num_rows(jobs)}


def num_rows(jobs: Iterable[Partition]) -> int:
    return sum(pq.read_metadata(job.place).num_rows for job in jobs)


def batches(parts: Iterable[Path], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of some parts, `BATCH_BYTES` or a little more at a time."""
    waiting: list[pa.Table] = []
    size = 0
    for table in row_groups(parts, columns):
        waiting.append(table)
        size += table.nbytes
        if size >= BATCH_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _measure_contents(measure: MeasureContents, job: Partition) -> None:
    if job.place.is_file():
        return
    known, rows = _measured_before(job)
    for batch in batches(job.contents):
        new = batch.filter(pc.invert(pc.is_in(batch["content_id"], known)))
        if new.num_rows:
            rows.append(measure(new))
    _write(job.place, [measure(schema.CONTENTS.empty_table()), *rows], "content_id")


def _measured_before(job: Partition) -> tuple[pa.Array, list[pa.Table]]:
    """The contents of the partition that earlier results measured, and their rows."""
    known = pa.array([], pa.string())
    rows = []
    if job.earlier:
        present = _column(job.contents, "content_id").combine_chunks()
    for earlier in job.earlier:
        before = _column(earlier.contents, "content_id")
        taken = before.filter(
            pc.and_(pc.is_in(before, present), pc.invert(pc.is_in(before, known)))
        ).combine_chunks()
        rows += [
            table.filter(pc.is_in(table["content_id"], taken))
            for table in (pq.read_table(part) for part in earlier.rows)
        ]
        known = pa.concat_arrays([known, taken])
    return known, rows


def _measure_files(measure: MeasureFiles, job: Partition) -> None:
    if job.place.is_file():
        return
    files = pa.concat_tables([pq.read_table(part) for part in job.files])
    rows: list[pa.Table] = []
    for earlier in job.earlier:
        for part in earlier.rows:
            table = pq.read_table(part)
            taken = table.filter(_pair_is_in(table, files))
            files = files.filter(pc.invert(pc.is_in(files["file_id"], taken["file_id"].combine_chunks())))
            rows.append(taken)
    for batch in batches(job.contents):
        here = files.filter(pc.is_in(files["content_id"], batch["content_id"].combine_chunks()))
        if here.num_rows:
            rows.append(measure(here, batch))
    empty = measure(schema.FILES.empty_table(), schema.CONTENTS.empty_table())
    _write(job.place, [empty, *rows], "file_id")


def _pair_is_in(table: pa.Table, files: pa.Table) -> pa.Array:
    """Which rows have the file_id and content_id of some file."""
    ids = (
        pc.binary_join_element_wise(rows["file_id"], rows["content_id"], " ").combine_chunks()
        for rows in (table, files)
    )
    return pc.is_in(next(ids), next(ids))


def _write(place: Path, tables: list[pa.Table], key: str) -> None:
    rows = pa.concat_tables(tables)
    write_parquet(place, rows.take(pc.sort_indices(rows, [(key, "ascending")])))  # a stable sort
    give_back()  # or a worker's memory grows with the partitions it has seen


def _column(parts: Iterable[Path], name: str) -> pa.ChunkedArray:
    return pa.concat_tables([pq.read_table(part, columns=[name]) for part in parts])[name]
