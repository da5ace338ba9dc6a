"""The road of whole curation, from contents in a store to the ledger, step by step with its time and memory.

What runs are the steps of `steps/data.py` as a run of a recipe with its default values has them, one after the
other and with one worker, from the Parquet of contents and files to the Parquet of signals, ledger and kept files.
Licence scanning and malware are left out, with empty tables in their place: their time is that of the programs
they ask.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import corpora
from starsmith import recipe as recipes
from starsmith.corpus import query
from starsmith.corpus.merging import write_contents
from starsmith.corpus.store import Result, Store
from starsmith.memory import PeakMemory, be_frugal, give_back
from starsmith.steps import data
from starsmith.steps.step import Context, Step

WITHOUT = ("signals/license_texts", "signals/malware")
"""Steps whose table is empty here."""
_KEY = "benchmark"
_QUARTER = "0123"
"""Second hex digits of the identifiers in the quarter; the first are the partition."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one step of the road took."""

    name: str
    cpu_seconds: float
    peak_bytes: int


def a_few(contents: pa.Table) -> pa.Array:
    """Identifiers for `contents_of`."""
    return contents["content_id"].combine_chunks().slice(0, 20)


def a_quarter(contents: pa.Table) -> pa.Array:
    """The identifiers of a keyed quarter of some contents, and of the longest two: a batch takes what its longest
    text takes, and how long that is must not be what differs."""
    identifiers = contents["content_id"].combine_chunks()
    digits = pc.utf8_slice_codeunits(identifiers, 1, 2)
    longest = pc.select_k_unstable(contents["length_bytes"].combine_chunks(), 2, [("", "descending")])
    chosen = pa.concat_arrays(
        [identifiers.filter(pc.is_in(digits, pa.array(list(_QUARTER)))), identifiers.take(longest)]
    )
    return pc.unique(chosen)


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


def run(folder: Path) -> Iterator[Part]:
    """Runs the steps from contents to the ledger in the store in `folder`; one `Part` for each as it ends."""
    be_frugal()  # as a run does
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


def prepare_sizes(scale: corpora.Scale, folder: Path) -> None:
    """Stores of the contents: apart from the measuring, since what has read a corpus keeps memory of it."""
    corpus = corpora.build(scale)
    contents_of(corpus, folder / "few", a_few)
    contents_of(corpus, folder / "quarter", a_quarter)
    contents_of(corpus, folder / "whole")


def peaks(folder: Path, size: str) -> dict[str, int]:
    """Peak bytes of each step of the road, by its name."""
    for _ in run(folder / "few"):
        pass
    return {part.name: part.peak_bytes for part in run(folder / size)}


def _run(step: Step, results: dict[str, Result], folder: Path) -> Result:
    give_back()
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
        with contextlib.suppress(psutil.NoSuchProcess):  # its time is then with the one that waited for it
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
