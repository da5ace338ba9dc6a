r"""Signatures of the published script of The Stack v2, bit by bit (section 3.1).

The script is `near_deduplication/bigcode-v2/intra_dedup.py` of bigcode-project/bigcode-dataset. What it does, and
what is repeated here, oddities included:

* The text is lower-cased by `str.lower` and split at every character that is not `\w`: n such characters make n
  + 1 words, empty ones included. A shingle is its words joined by a space, hashed by xxh32 (seed 0) as UTF-8.
* A permutation is `((h * a + b) mod 2^32) mod 4294967291`: the arrays are 32-bit, so the product wraps before the
  prime is reached. `a` and then `b` are drawn by `numpy.random.RandomState(42)`, whatever the recipe's seed is.
* A text of fewer than 5 words has no shingles; its signature is all ones, and all such texts share every band.

Since a joined shingle is a run of the text whose separators have become spaces, each text is written once in that
form and the shingles are hashed in place.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import WORD, decode
from starsmith.signals.shingle_kernels import encode

SEED = 42
MODULUS = 4294967291

_MODULUS = np.uint32(MODULUS)
_BLOCK = 1024
_PRIME_1, _PRIME_2, _PRIME_3 = np.uint32(2654435761), np.uint32(2246822519), np.uint32(3266489917)
_PRIME_4, _PRIME_5 = np.uint32(668265263), np.uint32(374761393)


@functools.cache
def permutations(num_permutations: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The script's factors in 1..p-1 and addends in 0..p-1, (num_permutations,) each."""
    random = np.random.RandomState(SEED)  # its stream is frozen across versions of NumPy, unlike a Generator's
    factors = random.randint(1, MODULUS, size=(num_permutations,), dtype=np.uint32)
    return factors, random.randint(0, MODULUS, size=(num_permutations,), dtype=np.uint32)


@kernel
def signatures(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    shingle_words: int,
    empty_words: bool,
    short_is_whole: bool,
    factors: NDArray[np.uint32],
    addends: NDArray[np.uint32],
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The signatures of many texts.

    Args:
        offsets: see `corpus.buffers.TextBuffers`.
        data: see there; what `code_points.lower_case` does not lower-case as `str.lower` does is already so.
        shingle_words: words in a shingle.
        empty_words: whether words may be empty, as in the script.
        short_is_whole: whether fewer words than a shingle has are one shingle; otherwise they are none.
        factors: of `permutations`.
        addends: likewise.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.

    Returns:
        (num_texts, num_permutations), all ones for a text without shingles; and (num_texts,) its words.
    """
    num_texts = len(offsets) - 1
    out = np.full((num_texts, len(factors)), 0xFFFFFFFF, np.uint32)
    counts = np.zeros(num_texts, np.int64)
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    joined = np.empty(2 * longest + 1, np.uint8)  # lower case takes up to 3 bytes for 2
    begins = np.empty(longest + 2, np.int64)
    block = np.empty(_BLOCK, np.uint32)
    for text in range(num_texts):
        num_words = _join_words(
            data, offsets[text], offsets[text + 1], empty_words, properties, lower_case, joined, begins
        )
        counts[text] = num_words
        size = min(shingle_words, num_words)
        if num_words == 0 or (num_words < shingle_words and not short_is_whole):
            continue
        num_shingles = num_words - size + 1
        for start in range(0, num_shingles, _BLOCK):
            length = min(_BLOCK, num_shingles - start)
            for number in range(length):
                first = start + number
                block[number] = xxh32(joined, begins[first], begins[first + size] - 1)
            _lower_minima(block[:length], factors, addends, out[text])
    return out, counts


@kernel
def _join_words(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    empty_words: bool,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    joined: NDArray[np.uint8],
    begins: NDArray[np.int64],
) -> int:
    """Writes the lower-cased words of `data[start:stop]` with one space after each, and where each begins (and
    where one after the last would); returns their number."""
    num_words = 0
    length = 0
    begins[0] = 0
    at = start
    while at <= stop:
        is_word = False
        if at == stop:
            at += 1  # the end of the text ends a word
        else:
            code_point, width = decode(data, at)
            at += width
            code_point = np.int64(lower_case[code_point])
            is_word = properties[code_point] & WORD != 0
        if is_word:
            length = encode(int(code_point), joined, length)
        elif empty_words or length > begins[num_words]:
            joined[length] = 32
            length += 1
            num_words += 1
            begins[num_words] = length
    return num_words


@kernel
def xxh32(data: NDArray[np.uint8], start: int, stop: int) -> np.uint32:
    """xxHash's 32-bit hash of `data[start:stop]` with seed 0 (specification 0.1.1)."""
    at = start
    if stop - start >= 16:
        first = np.uint32(_PRIME_1 + _PRIME_2)
        second = _PRIME_2
        third = np.uint32(0)
        fourth = np.uint32(np.uint32(0) - _PRIME_1)
        while at + 16 <= stop:
            first = _round(first, _lane(data, at))
            second = _round(second, _lane(data, at + 4))
            third = _round(third, _lane(data, at + 8))
            fourth = _round(fourth, _lane(data, at + 12))
            at += 16
        value = np.uint32(_rotate(first, 1) + _rotate(second, 7) + _rotate(third, 12) + _rotate(fourth, 18))
    else:
        value = _PRIME_5
    value = np.uint32(value + np.uint32(stop - start))
    while at + 4 <= stop:
        value = np.uint32(_rotate(np.uint32(value + _lane(data, at) * _PRIME_3), 17) * _PRIME_4)
        at += 4
    while at < stop:
        value = np.uint32(_rotate(np.uint32(value + np.uint32(data[at]) * _PRIME_5), 11) * _PRIME_1)
        at += 1
    value = np.uint32((value ^ value >> np.uint32(15)) * _PRIME_2)
    value = np.uint32((value ^ value >> np.uint32(13)) * _PRIME_3)
    return np.uint32(value ^ value >> np.uint32(16))


@kernel
def _round(accumulator: np.uint32, lane: np.uint32) -> np.uint32:
    return np.uint32(_rotate(np.uint32(accumulator + lane * _PRIME_2), 13) * _PRIME_1)


@kernel
def _lane(data: NDArray[np.uint8], at: int) -> np.uint32:
    low = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
    return np.uint32(low | np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24))


@kernel
def _rotate(value: np.uint32, by: int) -> np.uint32:
    return np.uint32(np.uint32(value << np.uint32(by)) | value >> np.uint32(32 - by))


@kernel
def _lower_minima(
    hashes: NDArray[np.uint32],
    factors: NDArray[np.uint32],
    addends: NDArray[np.uint32],
    signature: NDArray[np.uint32],
) -> None:
    """One permutation at a time, so that the inner loop is a reduction that the compiler vectorises."""
    for permutation in range(len(factors)):
        factor, addend = factors[permutation], addends[permutation]
        smallest = signature[permutation]
        for number in range(len(hashes)):
            value = np.uint32(hashes[number] * factor + addend)
            # The only multiple of the prime below 2^32 is itself; a value below it becomes huge by wrapping.
            smallest = min(smallest, min(value, np.uint32(value - _MODULUS)))
        signature[permutation] = smallest
