"""Which files, documents and licences every step was trained on, and back.

Each step leaves one row per span of its batch. Rows are kept until `checkpoint_steps` steps are complete and then
written as one Parquet part, named by its first and last step. A checkpoint between these borders (a run told to
stop) carries the rows along instead: the parts are the same whether a run was interrupted or not.

A step whose loss or gradient was not finite is recorded with `trained` false: it saw its batch and learned
nothing from it.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from starsmith.corpus import query
from starsmith.corpus.store import write_parquet
from starsmith.errors import InputError

TABLE = "lineage"

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),  # from 1, as in the metrics
        pa.field("trained", pa.bool_(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),  # of the batch
        pa.field("start", pa.int32(), nullable=False),  # tokens of the row
        pa.field("end", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # code, path, repo_name, special
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("content_id", pa.string()),  # null where the span belongs to no file
        pa.field("released_id", pa.string()),
        pa.field("path", pa.string(), nullable=False),
        pa.field("license_type", pa.string(), nullable=False),
        pa.field("detected_licenses", pa.list_(pa.string()), nullable=False),
    ]
)
_SPAN_FIELDS = [name for name in SCHEMA.names if name not in ("step", "trained", "detected_licenses")]


class Span(Protocol):
    """What the loader says of some tokens of a row."""

    @property
    def row(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def document_id(self) -> str: ...
    @property
    def repo_name(self) -> str: ...
    @property
    def content_id(self) -> str | None: ...
    @property
    def released_id(self) -> str | None: ...
    @property
    def path(self) -> str: ...
    @property
    def license_type(self) -> str: ...
    @property
    def detected_licenses(self) -> tuple[str, ...]: ...


class LineageLog:
    """Gathers the rows of steps and writes them part by part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / TABLE
        self._steps: list[pa.Table] = []
        self._first = 1

    def append(self, step: int, spans: Iterable[Span], *, trained: bool) -> None:
        listed = list(spans)
        columns = {name: [getattr(span, name) for span in listed] for name in _SPAN_FIELDS}
        columns["step"] = [step] * len(listed)
        columns["trained"] = [trained] * len(listed)
        columns["detected_licenses"] = [list(span.detected_licenses) for span in listed]
        self._steps.append(pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA))

    def pending(self) -> pa.Table:
        """The rows that are in no part yet."""
        return pa.concat_tables([SCHEMA.empty_table(), *self._steps]).combine_chunks()

    def flush(self, last_step: int) -> None:
        """Writes the pending rows as the part that ends with `last_step`."""
        if last_step >= self._first:
            write_parquet(self._folder / f"{self._first:08d}-{last_step:08d}.parquet", self.pending())
        self._steps, self._first = [], last_step + 1

    def rewind(self, last_step: int, pending: pa.Table) -> None:
        """Goes back to a checkpoint: drops the parts after it and takes up its pending rows."""
        self._first = 1
        for part, (_, last) in _parts(self._folder.parent).items():
            if last > last_step:
                part.unlink()
            else:
                self._first = last + 1
        self._steps = [pending.cast(SCHEMA)]


def lineage(folder: Path, step: int) -> pa.Table:
    """What one step saw, one row per file (or per document, for tokens that belong to no file).

    Columns: document_id, repo_name, path, content_id, released_id, license_type, detected_licenses, trained,
    num_tokens, rows (of the batch). Ordered by document, path and content; shares of tokens are of inputs and
    the last target of each row.

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
            FROM {TABLE} WHERE step = {step:d}
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
            WHERE content_id = {identifier} OR released_id = {identifier} OR document_id = {identifier}
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
