"""Ingest: what the sources bring, and each distinct content once.

Each target of a source (a folder, a repository at a revision, a version of a package) is a step of its own, so a
target that did not change is not read again. `contents` then merges them by partition.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from starsmith import sources
from starsmith.corpus import query, schema
from starsmith.corpus.arrivals import Target
from starsmith.corpus.contents import Tabulator
from starsmith.corpus.engine import map_parallel
from starsmith.corpus.merging import merge_contents, write_contents
from starsmith.corpus.store import Result, write_parquet
from starsmith.errors import InputError
from starsmith.recipe import Limits, Recipe
from starsmith.steps.step import Context, Facts, Step

_CHUNK_BYTES = 64 * 1024**2


def steps(recipe: Recipe, targets: Sequence[Target]) -> list[Step]:
    """A step for each target, and the one that merges them."""
    ingest = [_ingest_step(recipe, target) for target in targets]
    return [
        *ingest,
        Step(
            name="contents",
            version=2,
            run=_merge_contents,
            about="each distinct content once, every occurrence",
            reads="text",
            inputs=tuple(step.name for step in ingest),
            params={"partitions": recipe.corpus.partitions},
        ),
    ]


def targets_of(recipe: Recipe) -> list[Target]:
    """What all sources of the recipe would read, with fingerprints.

    Raises:
        InputError: a target stands twice in the recipe, or a source's table is wrong.
        MachineError: a registry or repository cannot be reached.
    """
    targets: dict[str, Target] = {}
    for spec in recipe.sources:
        for target in sources.resolve(spec, cache=recipe.run.cache, limits=recipe.corpus.limits):
            if target.label in targets:
                raise InputError(f"the sources name {target.origin} twice (as {target.label}); remove one")
            targets[target.label] = target
    return list(targets.values())


def _ingest_step(recipe: Recipe, target: Target) -> Step:
    return Step(
        name=f"ingest/{target.label}",
        version=2,
        run=_Ingest(target, recipe.run.cache, recipe.corpus.limits, recipe.corpus.partitions),
        about=f"read {target.origin}",
        reads="sources",
        params={
            "origin": target.origin,
            "fingerprint": target.fingerprint,
            "limits": recipe.corpus.limits.model_dump(),
            "partitions": recipe.corpus.partitions,
        },
        group="ingest",
    )


@dataclass(frozen=True)
class _Ingest:
    """Reads one target; an object because it travels to worker processes."""

    target: Target
    cache: Path
    limits: Limits
    partitions: int

    def __call__(self, context: Context) -> Facts:
        context.draft.clear()
        tabulator = Tabulator()
        chunk = 0
        num_contents = 0
        for arrival in sources.read(self.target, cache=self.cache, limits=self.limits):
            tabulator.add(arrival)
            if tabulator.text_bytes >= _CHUNK_BYTES:
                num_contents += self._write(context, tabulator.take_contents(), chunk)
                chunk += 1
        num_contents += self._write(context, tabulator.take_contents(), chunk)
        files, incidents = tabulator.files(), tabulator.incidents()
        for partition, rows in _by_partition(files, self.partitions):
            context.draft.write("files", partition, rows)
        context.draft.write("incidents", 0, incidents)
        return {
            "origin": self.target.origin,
            "num_files": files.num_rows,
            "num_contents": num_contents,
            "num_incidents": incidents.num_rows,
            "bytes": pc.sum(files["length_bytes"]).as_py() or 0,
        }

    def _write(self, context: Context, contents: pa.Table, chunk: int) -> int:
        for partition, rows in _by_partition(contents, self.partitions):
            write_contents(context.draft.part("contents", partition, chunk), [rows])
        return int(contents.num_rows)


def _by_partition(rows: pa.Table, partitions: int) -> list[tuple[int, pa.Table]]:
    numbers = pa.array(
        [schema.partition_of(identifier, partitions) for identifier in rows["content_id"].to_pylist()],
        pa.int32(),
    )
    found = pc.unique(numbers).to_pylist()
    return [(number, rows.filter(pc.equal(numbers, number))) for number in sorted(found)]


_UNIQUE_FILES_SQL = """
    SELECT * FROM files
    QUALIFY row_number() OVER (PARTITION BY file_id ORDER BY origin, content_id) = 1 ORDER BY file_id
"""


@dataclass(frozen=True)
class _Merge:
    """What all sources brought for one partition, and where it goes."""

    contents: tuple[Path, ...]
    files: tuple[Path, ...]
    contents_place: Path
    files_place: Path
    scratch: Path


def _merge_contents(context: Context) -> Facts:
    """Each content once; files in the partition of their content, so that both join without a shuffle.

    A file that two sources bring stands in one partition: its identifier covers the root directory's hash, and
    with it the content.
    """
    arrived = {
        table: _by_number(result.partitions(table) for result in context.inputs.values())
        for table in ("contents", "files")
    }
    with context.draft.scratch() as scratch:
        jobs = [
            _Merge(
                contents=tuple(parts),
                files=tuple(arrived["files"].get(partition, ())),
                contents_place=context.draft.part("contents", partition),
                files_place=context.draft.part("files", partition),
                scratch=scratch,
            )
            for partition, parts in sorted(arrived["contents"].items())
        ]
        counts = map_parallel(_merge_partition, jobs, workers=context.workers, progress=context.progress)
    incidents = pa.concat_tables([result.read("incidents") for result in context.inputs.values()])
    context.draft.write("incidents", 0, incidents)
    return {
        "num_files": sum(num_files for num_files, _, _ in counts),
        "num_contents": sum(num_contents for _, num_contents, _ in counts),
        "num_incidents": incidents.num_rows,
        "bytes": sum(num_bytes for _, _, num_bytes in counts),
        "sources": [_source(name, result) for name, result in context.inputs.items()],
    }


def _by_number(partitions: Iterable[Mapping[int, Sequence[Path]]]) -> dict[int, list[Path]]:
    numbers: dict[int, list[Path]] = {}
    for parts_of in partitions:
        for number, parts in parts_of.items():
            numbers.setdefault(number, []).extend(parts)
    return numbers


def _merge_partition(job: _Merge) -> tuple[int, int, int]:
    """Returns the numbers of files and contents, and the files' bytes."""
    if not job.contents_place.is_file():
        merge_contents(job.contents, job.contents_place, job.scratch)
    if not job.files_place.is_file():
        with query.connect({"files": job.files}) as connection:
            write_parquet(job.files_place, query.fetch(connection, _UNIQUE_FILES_SQL, schema.FILES))
    lengths = pq.read_table(job.files_place, columns=["length_bytes"])["length_bytes"]
    num_contents = pq.read_metadata(job.contents_place).num_rows
    return len(lengths), num_contents, pc.sum(lengths).as_py() or 0


def _source(name: str, result: Result) -> dict[str, Any]:
    """What the report and the cards tell of one source."""
    return {
        "label": name.removeprefix("ingest/"),
        "fingerprint": result.manifest["params"]["fingerprint"],
        **result.facts,
    }
