"""The basic filters' measurements, all in one pass, beside datatrove and beside `re`; CPU time of one core.

Ours is `text_statistics.measure`, from contents in memory (Arrow) to columns: lines, letters and digits, markers,
the three encoded-data expressions and the visible text of HTML. Targets: 100 MB/s a core, ten times datatrove.

* datatrove works document by document in Python. It has no block for code; set beside us are the same rules as
  its users write them (`LambdaFilter`, nothing computed that a rule does not need, without the HTML rule), and
  the nearest blocks it ships (`LineStats`, `DocStats`, `RegexFilter`); see `peer_scripts/filters_datatrove.py`.
* `re` runs the three published expressions; our machines must find the same.
* Equality is a row of its own: contents of the sample of which any column differs from the plain-Python
  definitions (`text_definitions`), and the target is none.

The whole corpus is timed for ours alone; the peers, and ours beside them, run on every 16th content of it.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import cache, corpora, peers, table
from starsmith.corpus.buffers import text_buffers
from starsmith.errors import MachineError
from starsmith.signals import encoded_data, text_definitions, text_statistics
from starsmith.signals.code_points import properties

TARGET_MB = 100.0
TARGET_RATIO = 10.0
_SAMPLED = {"full": 16, "small": 2}
"""Every so many contents are in the sample."""
_SECONDS = 600.0


def main() -> None:
    chosen = table.options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    text_statistics.measure(pq.read_table(corpus.contents[0]).slice(0, 100))  # compiles
    seconds = sum(_measure_seconds(pq.read_table(part)) for part in corpus.contents)
    whole = corpus.text_bytes / 1e6 / seconds
    rows = [table.row("all filters, whole corpus", whole, "MB/s a core", target=TARGET_MB, direction="at least")]
    rows += compare(sample(corpus, _SAMPLED[chosen.scale]))
    table.publish(rows, ("numpy", "numba", "pyarrow"), chosen.json)


def sample(corpus: corpora.BenchmarkCorpus, every: int) -> pa.Table:
    """Every so many contents of each part, as one table."""
    parts = (pq.read_table(part) for part in corpus.contents)
    return pa.concat_tables([part.take(list(range(0, part.num_rows, every))) for part in parts]).combine_chunks()


def compare(contents: pa.Table) -> list[table.Row]:
    """Ours beside datatrove and `re`, and whether the results are equal."""
    megabytes = pc.sum(pc.binary_length(contents["text"])).as_py() / 1e6
    texts: list[str] = contents["text"].to_pylist()
    speed = megabytes / _measure_seconds(contents)
    machines = megabytes / _machines_seconds(contents)
    expressions = megabytes / _expressions_seconds(texts)
    defined = (
        {"content_id": name} | text_definitions.measurements(text)
        for name, text in zip(contents["content_id"].to_pylist(), texts, strict=True)
    )
    measured = text_statistics.measure(contents).to_pylist()
    differing = sum(ours != theirs for ours, theirs in zip(measured, defined, strict=True))
    return [
        *_beside_datatrove(contents, speed, megabytes),
        table.row("encoded-data rules", machines, "MB/s a core", peer=expressions, peer_name="re"),
        table.row("contents measured unlike the definitions", differing, "contents", target=0),
        table.row("contents compared with the definitions", len(texts), "contents"),
    ]


def _beside_datatrove(contents: pa.Table, ours: float, megabytes: float) -> Iterator[table.Row]:
    names = {"lambda": "all filters, rules as lambdas", "own": "all filters, its own blocks"}
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        place = Path(folder) / "sample.parquet"
        pq.write_table(contents.select(["content_id", "text"]), place)
        try:
            seconds = peers.run(
                "datatrove", "filters_datatrove.py", str(place), f"{folder}/statistics", timeout_seconds=_SECONDS
            )
        except MachineError as error:
            print(f"datatrove is absent: {error}")
            seconds = {}
    for way, name in names.items():
        if way in seconds:
            peer = megabytes / seconds[way]
            yield table.row(
                name,
                ours,
                "MB/s a core",
                peer=peer,
                peer_name="datatrove",
                target=TARGET_RATIO,
                direction="at least",
            )
        else:
            yield table.row(f"{name}: datatrove absent", ours, "MB/s a core")


def _measure_seconds(contents: pa.Table) -> float:
    started = time.process_time()
    text_statistics.measure(contents)
    return time.process_time() - started


def _machines_seconds(contents: pa.Table) -> float:
    started = time.process_time()
    encoded_data.encoded_data(*text_buffers(contents["text"]), properties())
    return time.process_time() - started


def _expressions_seconds(texts: list[str]) -> float:
    started = time.process_time()
    for text in texts:
        for kind in text_definitions.ENCODED_DATA:
            text_definitions.encoded_data(text, kind)
    return time.process_time() - started


if __name__ == "__main__":
    main()
