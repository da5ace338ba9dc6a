"""Needles prepared for searching: which windows and which n-grams of them are looked up.

**Whole texts** are found by windows that are shorter than the shortest needle, so that a text need only be probed
at every `stride`-th place (`contamination_kernels`). For needles of 40 bytes and more that is one probe of 24
bytes for every 16.

**n-grams** stand for their needle only where they are its own. Left out are

* n-grams of fewer than `MIN_DISTINCT_WORDS` distinct words that have a letter: rows of numbers and repeated
  words (`0 0 0 1 0 ...`, `int int int`) are alike in any data;
* n-grams that more than `MAX_PROBLEMS` problems of one set share: imports and class heads of translated
  prompts, the phrases in which a set puts all of its questions. They say that a text talks like the set, not that
  it holds one of its problems.

A needle with fewer than `MIN_NGRAMS` n-grams left is matched as a whole only: a run of 20 words is a sentence or
two, which is little enough to be written twice; below that, a common loop or a usual signature is a match.
"""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from starsmith.corpus.buffers import text_buffers
from starsmith.signals import contamination_index_kernels as kernels
from starsmith.signals.code_points import lower_case, properties
from starsmith.signals.contamination_kernels import HashTable, NgramIndex, TextIndex

MIN_DISTINCT_WORDS = 6
MAX_PROBLEMS = 4
MIN_NGRAMS = 8

_BITS_PER_HASH = 16
"""Of the filter, at least: about one lookup in a hundred that finds nothing goes on to the table."""
_MAX_SKETCH_BITS = 22
_MAX_COVERED_BYTES = 40
"""Bytes of a needle that its windows cover at most: longer windows are slower to hash and find no more."""


def text_index(needles: Sequence[bytes]) -> TextIndex:
    """The index of distinct, normalised, non-empty needles in UTF-8."""
    data = np.frombuffer(b"".join(needles), np.uint8)
    offsets = np.concatenate(([0], np.cumsum([len(needle) for needle in needles], dtype=np.int64)))
    shortest = min(int(np.diff(offsets).min()), _MAX_COVERED_BYTES)
    is_wide = shortest >= 15
    unit = 8 if is_wide else 1
    stride = max(1, shortest * 2 // 5 // unit) * unit
    window_bytes = (shortest - stride + 1) // unit * unit
    sketch_bits = min(_MAX_SKETCH_BITS, len(data).bit_length() + 1)
    windows, places = kernels.window_hashes(data, offsets, window_bytes, stride, is_wide, sketch_bits)
    order = np.argsort(windows, kind="stable")
    hashes, powers = kernels.whole_hashes(data, offsets)
    return TextIndex(
        data=data,
        offsets=offsets,
        hashes=hashes,
        powers=powers,
        window_bytes=window_bytes,
        stride=stride,
        is_wide=is_wide,
        table=_table(windows[order]),
        needles=order // stride,
        places=places[order],
    )


def no_ngrams() -> NgramIndex:
    """The index that finds nothing."""
    return ngram_index((), (), size=1, floor=1.0)


def ngram_index(
    texts: Sequence[str], uses: Sequence[Sequence[tuple[str, str]]], *, size: int, floor: float
) -> NgramIndex:
    """The index of distinct texts.

    Args:
        texts: the needles as their sets have them.
        uses: (num_texts,) the sets and problems that each belongs to.
        size: words in an n-gram.
        floor: share of a needle's n-grams that a text must hold to be found.

    Returns:
        An index in which the needle `i` is `texts[i]`; it is never found when it has too few n-grams.
    """
    hashes, owners = _distinct_ngrams(texts, size)
    kept = ~np.isin(hashes, _shared_ngrams(hashes, owners, uses))
    counts = np.bincount(owners[kept], minlength=len(texts)).astype(np.int64)
    kept &= counts[owners] >= MIN_NGRAMS
    counts[counts < MIN_NGRAMS] = 0
    hashes, owners = hashes[kept], owners[kept]  # ascending by hash
    distinct, begins = np.unique(hashes, return_index=True)
    return NgramIndex(
        size=size,
        table=_table(distinct),
        offsets=np.append(begins, len(hashes)).astype(np.int64),
        needles=owners,
        counts=counts,
        least=np.array([max(1, math.ceil(floor * count)) for count in counts.tolist()], np.int64),
    )


def _distinct_ngrams(texts: Sequence[str], size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(num_pairs,) hash and text of each distinct pair, ascending by both."""
    buffers = text_buffers(pa.array(texts, pa.large_string()))
    least = min(size, MIN_DISTINCT_WORDS)
    hashes, begins = kernels.ngrams(*buffers, properties(), lower_case(), size, least)
    owners = np.repeat(np.arange(len(texts)), np.diff(begins))
    return _distinct_pairs(hashes, owners)


def _distinct_pairs(
    hashes: NDArray[np.uint64], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    order = np.lexsort((numbers, hashes))
    hashes, numbers = hashes[order], numbers[order]
    is_first = np.ones(len(hashes), np.bool_)
    is_first[1:] = (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])
    return hashes[is_first], numbers[is_first]


def _shared_ngrams(
    hashes: NDArray[np.uint64], owners: NDArray[np.int64], uses: Sequence[Sequence[tuple[str, str]]]
) -> NDArray[np.uint64]:
    """The n-grams that more than `MAX_PROBLEMS` problems of one set have."""
    shared = [np.zeros(0, np.uint64)]
    problems_of: dict[str, dict[str, int]] = {}
    uses_of: dict[str, list[tuple[int, int]]] = {}
    for text, places in enumerate(uses):
        for benchmark, problem in places:
            numbers = problems_of.setdefault(benchmark, {})
            uses_of.setdefault(benchmark, []).append((text, numbers.setdefault(problem, len(numbers))))
    order = np.argsort(owners, kind="stable")
    begins = np.searchsorted(owners[order], np.arange(len(uses) + 1))
    for pairs in uses_of.values():
        found = [hashes[order[begins[text] : begins[text + 1]]] for text, _ in pairs]
        numbers_ = np.repeat([problem for _, problem in pairs], [len(part) for part in found])
        ngrams, _ = _distinct_pairs(np.concatenate(found), numbers_)
        distinct, num_problems = np.unique(ngrams, return_counts=True)
        shared.append(distinct[num_problems > MAX_PROBLEMS])
    return np.unique(np.concatenate(shared))


def _table(hashes: NDArray[np.uint64]) -> HashTable:
    directory_bits = max(1, len(hashes).bit_length())
    word_bits = max(1, (_BITS_PER_HASH * len(hashes) // 64).bit_length())
    parts = hashes >> np.uint64(64 - directory_bits)
    starts = np.searchsorted(parts, np.arange((1 << directory_bits) + 1, dtype=np.uint64))
    return HashTable(
        hashes=hashes,
        starts=starts.astype(np.int64),
        bits=kernels.filter_words(hashes, word_bits),
        shift=np.uint64(64 - directory_bits),
        bit_shift=np.uint64(64 - word_bits),
    )
