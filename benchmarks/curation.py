"""Whole curation: from contents in a store to the ledger, in MB of text a second of one core, part by part.

The road is that of `benchmarks.road`: language, text statistics, personal data, contamination (HumanEval),
near-duplicates, licence decisions and the policy, without licence scanning and malware. Targets: 15 MB/s, better
30. There is no peer that does the whole.

Processor time is that of this process and of all it starts, which counts importing packages in the two workers
that go-enry gets. Compiling kernels is not counted: a few contents go the whole road first. `read` is a part for
comparison only: the texts read from the same Parquet, which every signal does for itself.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import table

TARGET_MB = 15.0


def main() -> None:
    # worker processes import this module again: as on the command line, they load only what they run
    from benchmarks import cache, corpora, road

    chosen = table.options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        few, whole = Path(folder) / "few", Path(folder) / "whole"
        road.contents_of(corpus, few, road.a_few)
        road.contents_of(corpus, whole)
        for _ in road.run(few):  # compiles the kernels
            pass
        parts = list(road.run(whole))
    megabytes = corpus.text_bytes / 1e6
    rows = [table.row(part.name, megabytes / part.cpu_seconds, "MB/s a core") for part in parts]
    rows.append(table.row("read (of every signal)", megabytes / _read_seconds(corpus.contents), "MB/s a core"))
    total = sum(part.cpu_seconds for part in parts)
    rows.append(
        table.row("whole curation", megabytes / total, "MB/s a core", target=TARGET_MB, direction="at least")
    )
    rows += [table.row(f"share of {part.name}", 100 * part.cpu_seconds / total, "%") for part in parts]
    table.publish(rows, ("duckdb", "enry-python", "numba", "pyarrow"), chosen.json)


def _read_seconds(parts: Sequence[Path]) -> float:
    import pyarrow.parquet as pq

    started = time.process_time()
    for part in parts:
        pq.read_table(part, columns=["content_id", "status", "text"])
    return time.process_time() - started


if __name__ == "__main__":
    main()
