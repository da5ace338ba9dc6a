"""Peak memory of whole curation on a corpus and on a quarter of it: the target is that it stays within 10 %.

The road is that of `benchmarks.road` (one worker, default recipe), from contents in a store to the ledger.
Both corpora have the 16 partitions of a default recipe, so those of the whole are four times as large, as they
are when a corpus grows; the quarter is the contents whose second hex digit is 0 to 3, which is as good as drawn,
and each partition's longest two.

Each road runs in a process of its own, started anew, in which a few contents go first so that all is loaded;
the peak is of proportional set size, over that process and all it starts, sampled twice a second.

`ours` of a step's row is its peak on the whole corpus, and its peer is itself on the quarter.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import table

Outcome = TypeVar("Outcome")

TARGET_RATIO = 1.10


def main() -> None:
    # worker processes import this module again: as on the command line, they load only what they run
    from benchmarks import cache, corpora, road

    chosen = table.options(__doc__ or "")
    corpora.build(chosen.scale)
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as name:
        folder = Path(name)
        _in_own_process(road.prepare_sizes, chosen.scale, folder)
        quarter, whole = (_in_own_process(road.peaks, folder, size) for size in ("quarter", "whole"))
    rows = [_row(name, whole[name], quarter[name]) for name in whole]
    rows.append(_row("whole curation", max(whole.values()), max(quarter.values()), target=TARGET_RATIO))
    table.publish(rows, ("duckdb", "enry-python", "numba", "pyarrow"), chosen.json)


def _row(name: str, whole: int, quarter: int, target: float | None = None) -> table.Row:
    return table.row(name, whole / 1e6, "MB", peer=quarter / 1e6, peer_name="a quarter", target=target)


def _in_own_process(function: Callable[..., Outcome], *arguments: Any) -> Outcome:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    main()
