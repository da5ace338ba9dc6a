"""Whole curation: from contents in a store to the ledger, in MB of text a second of one core, part by part.

What runs are the steps of `steps/data.py` as a run of a recipe with its default values has them, one after the
other and with one worker, from the Parquet of contents and files to the Parquet of signals, ledger and kept files:
language, text statistics, personal data, contamination (HumanEval), near-duplicates, licence decisions and the
policy. Left out, with empty tables in their place, are licence scanning and malware, whose time is that of the
programs they ask. Targets: 15 MB/s, better 30. There is no peer that does the whole.

Processor time is that of this process and of all it starts, which counts importing the packages in the two workers
that go-enry gets. Compiling kernels is not counted: a few contents go the whole road first. `read` is a part for
comparison only: the texts read from the same Parquet, which every signal does for itself.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import cache, corpora, table
from starsmith import recipe as recipes
from starsmith.corpus import query
from starsmith.corpus.merging import write_contents
from starsmith.corpus.store import Result, Store
from starsmith.memory import PeakMemory
from starsmith.steps import data
from starsmith.steps.step import Context, Step

TARGET_MB = 15.0
WITHOUT = ("signals/license_texts", "signals/malware")
"""Steps whose table is empty here."""
_KEY = "benchmark"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one step of the road took."""

    name: str
    cpu_seconds: float
    peak_bytes: int


def main() -> None:
    chosen = table.options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        few, whole = Path(folder) / "few", Path(folder) / "whole"
        contents_of(corpus, few, a_few)
        contents_of(corpus, whole)
        for _ in road(few):  # compiles the kernels
            pass
        parts = list(road(whole))
    megabytes = corpus.text_bytes / 1e6
    rows = [table.row(part.name, megabytes / part.cpu_seconds, "MB/s a core") for part in parts]
    rows.append(table.row("read (of every signal)", megabytes / _read_seconds(corpus.contents), "MB/s a core"))
    total = sum(part.cpu_seconds for part in parts)
    rows.append(
        table.row("whole curation", megabytes / total, "MB/s a core", target=TARGET_MB, direction="at least")
    )
    rows += [table.row(f"share of {part.name}", 100 * part.cpu_seconds / total, "%") for part in parts]
    table.publish(rows, ("duckdb", "enry-python", "numba", "pyarrow"), chosen.json)


def a_few(contents: pa.Table) -> pa.Array:
    """Identifiers for `contents_of`."""
    return contents["content_id"].combine_chunks().slice(0, 20)


def contents_of(
    corpus: corpora.BenchmarkCorpus, folder: Path, choose: Callable[[pa.Table], pa.Array] | None = None
) -> None:
    """Commits a result of the step `contents` to the store in `folder`.

    Args:
        corpus: whose contents and files it holds.
        folder: where the store lies.
        choose: the identifiers to take of each partition's contents; all, if None.
    """
    draft = Store(folder / "store").draft("contents", _KEY)
    for number, (contents, files) in enumerate(zip(corpus.contents, corpus.files, strict=True)):
        rows, occurrences = pq.read_table(contents), pq.read_table(files)
        if choose is not None:
            chosen = choose(rows)
            rows, occurrences = (
                table.filter(pc.is_in(table["content_id"], chosen)) for table in (rows, occurrences)
            )
        write_contents(draft.part("contents", number), [rows])
        draft.write("files", number, occurrences)
    draft.commit({"step": "contents", "version": 0, "params": {}, "inputs": {}, "key": _KEY}, {})


def road(folder: Path) -> Iterator[Part]:
    """Runs the steps from contents to the ledger in the store in `folder`; one `Part` for each as it ends."""
    sources = [{"type": "folder", "path": str(folder)}]
    recipe = recipes.parse({"run": {"name": "benchmark", "folder": str(folder), "workers": 1}, "sources": sources})
    results = {"contents": Store(folder / "store").get("contents", _KEY)}
    for step in data.steps(recipe, []):
        if step.name in WITHOUT:
            results[step.name] = _empty(step, folder)
        elif step.name.startswith(("signals/", "policies/")):
            before = cpu_seconds()
            with PeakMemory() as peak:
                results[step.name] = _run(step, results, folder)
            yield Part(name=step.name, cpu_seconds=cpu_seconds() - before, peak_bytes=peak.bytes)


def _run(step: Step, results: dict[str, Result], folder: Path) -> Result:
    draft = Store(folder / "store").draft(step.name, _KEY)
    inputs = {name: results[name] for name in step.inputs}
    facts = step.run(Context(inputs=inputs, draft=draft, workers=1))
    return draft.commit(step.identity(dict.fromkeys(step.inputs, _KEY)) | {"key": _KEY}, facts)


def _empty(step: Step, folder: Path) -> Result:
    draft = Store(folder / "store").draft(step.name, _KEY)
    name = step.name.rpartition("/")[2]
    draft.write(name, 0, query.SCHEMAS[name].empty_table())
    return draft.commit(step.identity(dict.fromkeys(step.inputs, _KEY)) | {"key": _KEY}, {})


def cpu_seconds() -> float:
    """Processor time so far of this process and of all it has started, those that have ended included."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _read_seconds(parts: Sequence[Path]) -> float:
    started = time.process_time()
    for part in parts:
        pq.read_table(part, columns=["content_id", "status", "text"])
    return time.process_time() - started


if __name__ == "__main__":
    main()
