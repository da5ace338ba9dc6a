"""Near-deduplication end to end beside its peers: the time it takes, and the recall that the time buys.

Ours is `near_duplicates.verified_pairs` and the components of its pairs, in one process and one thread, from the
Parquet parts of contents to clusters. All seconds are of processors (wall time stands beside ours): peers start
threads that cannot be turned off, and a machine is never quite idle. What every process does once (imports, the
first call of a compiled kernel) is not counted, for anyone.

* **Only reading** is pyarrow's pass over the same two columns of the same parts, in one thread and a row group at
  a time, as ours reads: the fastest way there is. It is measured in turn with ours, so that both meet the same
  machine, and of each the best counts.
* **The peers** read the same parts, each with its defaults or, where it has none, with its guide's: 5-grams of
  words and a similarity of 0.7 for all. What differs is said in `peer_scripts/near_duplicates_*.py`. Daft gets
  the whole corpus; the others would need hours for it, so they, and ours beside them, get every sixteenth part.
* **Recall** is the share of pairs with an exact Jaccard similarity of 0.7 or more that stand in one cluster: a
  sample of contents compared exactly with all (`near_duplicate_quality`), by the shingles that ours defines.
  rensa's are the same; for the others words differ (Daft's and Data-Juicer's lie between spaces, datatrove's are
  spaCy's), so a low number says as much about the words as about the search. `merged below 0.7` is the share of
  the pairs in one cluster that are less alike: what joining without verification costs, and chains.

The ratio is our time to the peer's: at most a fifth of it, and at most three times that of reading.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import cache, corpora, peers, table
from starsmith.corpus import schema
from starsmith.corpus.components import connected_components
from starsmith.corpus.merging import row_groups
from starsmith.errors import MachineError
from starsmith.recipe import NearDuplicates
from starsmith.signals import near_duplicate_quality, near_duplicates

TARGET_OF_PEER = 0.2
TARGET_OF_READING = 3.0
TARGET_RECALL = 0.99
CONFIG = NearDuplicates()

_SEED = 42
_SECONDS = 240.0
_REPEATS = 3
_EVERY = {"full": 16, "small": 4}
"""Slow peers get every so many parts."""


class _Peer(NamedTuple):
    title: str
    environment: str
    script: str
    is_slow: bool


PEERS = (
    _Peer("Daft", "daft", "near_duplicates_daft.py", False),
    _Peer("rensa", "rensa", "near_duplicates_rensa.py", True),
    _Peer("datatrove", "datatrove-spacy", "near_duplicates_datatrove.py", True),
    _Peer("text-dedup", "text-dedup", "near_duplicates_text_dedup.py", True),
    _Peer("Data-Juicer", "data-juicer", "near_duplicates_data_juicer.py", True),
)


class _Measured(NamedTuple):
    cpu_seconds: float
    wall_seconds: float
    pairs: pa.Table
    """`schema.NEAR_DUPLICATE_PAIRS`: what is joined."""


class _Quality(NamedTuple):
    recall: float
    merged_below: float
    num_pairs: int


def main() -> None:
    chosen = table.options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    near_duplicates.verified_pairs(corpus.contents[:1], CONFIG, _SEED)  # compiles
    rows = list(_rows(corpus.contents, _EVERY[chosen.scale]))
    table.publish(rows, ("numpy", "numba", "pyarrow"), chosen.json)


def _rows(parts: Sequence[Path], every: int) -> Iterator[table.Row]:
    megabytes = text_bytes(parts) / 1e6
    ours, reading = measure_ours(parts)
    yield table.row("text", megabytes, "MB")
    yield table.row("end to end, speed", megabytes / ours.cpu_seconds, "MB/s a core")
    yield table.row("end to end, on the clock", ours.wall_seconds, "s")
    yield table.row(
        "end to end", ours.cpu_seconds, "CPU s", peer=reading, peer_name="only reading", target=TARGET_OF_READING
    )
    quality = quality_of(parts, ours.pairs)
    yield table.row("recall", quality.recall, "of pairs >= 0.7", target=TARGET_RECALL, direction="at least")
    yield table.row("merged below 0.7", quality.merged_below, "of joined pairs")
    yield table.row("recall is measured on", quality.num_pairs, "pairs")
    for is_slow in (False, True):
        some = list(parts[::every]) if is_slow else list(parts)
        beside, known = (measure_ours(some)[0], None) if is_slow else (ours, quality)
        own = known or quality_of(some, beside.pairs)
        for peer in (peer for peer in PEERS if peer.is_slow is is_slow):
            yield from _beside(peer, some, beside, own)


def _beside(peer: _Peer, parts: Sequence[Path], ours: _Measured, own: _Quality) -> Iterator[table.Row]:
    what = f"{text_bytes(parts) / 1e6:.0f} MB"
    try:
        theirs = measure_peer(peer, parts)
    except MachineError as error:
        print(f"{peer.title} is absent: {error}")
        yield table.row(f"{peer.title} is absent; {what}", ours.cpu_seconds, "CPU s")
        return
    quality = quality_of(parts, theirs.pairs)
    yield table.row(
        f"{what}, time", ours.cpu_seconds, "CPU s", peer=theirs.cpu_seconds, peer_name=peer.title,
        target=TARGET_OF_PEER,
    )  # fmt: skip
    yield table.row(
        f"{what}, recall", own.recall, "of pairs >= 0.7", peer=quality.recall, peer_name=peer.title, target=1.0,
        direction="at least",
    )  # fmt: skip
    yield table.row(
        f"{what}, merged below 0.7", own.merged_below, "of joined pairs", peer=quality.merged_below,
        peer_name=peer.title,
    )  # fmt: skip


def text_bytes(parts: Sequence[Path]) -> int:
    return sum(
        pc.sum(pq.read_table(part, columns=["length_bytes"])["length_bytes"]).as_py() or 0 for part in parts
    )


def measure_ours(parts: Sequence[Path]) -> tuple[_Measured, float]:
    """The best of some runs, and the processor seconds of the best pass over the identifiers and texts between
    them; scratch lies in the cache's folder."""
    runs, passes = [], []
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        for _ in range(_REPEATS):
            pairs: list[pa.Table] = []

            def work(pairs: list[pa.Table] = pairs) -> None:
                pairs.append(near_duplicates.verified_pairs(parts, CONFIG, _SEED, scratch=Path(folder)))
                connected_components(pairs[0]["content_a"], pairs[0]["content_b"])

            passes.append(_seconds(lambda: _read(parts))[0])
            runs.append(_Measured(*_seconds(work), pairs[0]))
    return min(runs, key=lambda run: run.cpu_seconds), min(passes)


def _read(parts: Sequence[Path]) -> None:
    for _ in row_groups(parts, ["content_id", "text"]):
        pass


def measure_peer(peer: _Peer, parts: Sequence[Path]) -> _Measured:
    """Raises MachineError where the peer cannot be installed or fails."""
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        place = Path(folder) / "clusters.json"
        arguments = (str(place), *(str(part.absolute()) for part in parts))
        answer = peers.run(peer.environment, peer.script, *arguments, timeout_seconds=_SECONDS)
        joined = json.loads(place.read_text())
    pairs = pa.table(
        [
            pa.array([min(pair) for pair in joined], pa.string()),
            pa.array([max(pair) for pair in joined], pa.string()),
            pa.array([1.0] * len(joined), pa.float64()),
        ],
        schema=schema.NEAR_DUPLICATE_PAIRS,
    )
    return _Measured(answer["cpu_seconds"], answer["wall_seconds"], pairs)


def quality_of(parts: Sequence[Path], pairs: pa.Table) -> _Quality:
    """Recall at the threshold, and the share of joined pairs that are below it, by the certificate."""
    certificate = near_duplicate_quality.certify(list(parts), pairs, CONFIG, _SEED).to_pylist()
    floor, threshold = near_duplicate_quality.FLOOR, CONFIG.threshold
    rows = {(row["lower"], row["upper"]): row for row in certificate}
    at_least = rows[threshold, 1.0]
    num_below = rows[0.0, floor]["num_joined"] + rows[floor, threshold]["num_joined"]
    joined = at_least["num_joined"] + num_below
    recall = at_least["num_joined"] / at_least["num_pairs"] if at_least["num_pairs"] else 1.0
    return _Quality(recall, num_below / joined if joined else 0.0, at_least["num_pairs"])


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """(processor seconds, seconds on the clock)"""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - used, time.perf_counter() - started


if __name__ == "__main__":
    main()
