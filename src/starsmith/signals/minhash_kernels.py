"""MinHash signatures, their bands, and the pairs of a band's buckets, compiled.

The hash family is multiply-add-shift: the high 32 bits of `a * x + b + 2^63` modulo 2^64, for the high 32 bits
x of a shingle's hash and random 64-bit a and b. For 32-bit x it is strongly universal (Dietzfelbinger 1996: 63
bits of arithmetic are needed, 64 are used), and minima behave as if the functions were random, because x is
already mixed. The published script multiplies modulo 2^32 instead, where the low bits of a product depend on
the low bits of x alone: no universal family, and a measured bias of +0.008.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.shingle_kernels import mix, shingle_hashes, word_hashes

_S32 = np.uint64(32)
_SIGN = np.uint64(1 << 63)
"""2^63 is in the family because machines compare signed 64-bit numbers faster: the minimum of `a * x + b` as a
signed number, with its sign turned, is the minimum of `a * x + b + 2^63`. Its high half is that of the halves."""
_BLOCK = 1024
_RECENT = 2048


@kernel
def signatures(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    shingle_words: int,
    key: np.uint64,
    multipliers: NDArray[np.int64],
    addends: NDArray[np.int64],
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The signatures of many texts.

    Args:
        offsets: see `corpus.buffers.TextBuffers`.
        data: see there.
        shingle_words: words in a shingle.
        key: of the words' hashes.
        multipliers: (num_permutations,) random bits.
        addends: (num_permutations,) random bits.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.

    Returns:
        (num_texts, num_permutations), and (num_texts,) whether the text has any word.
    """
    num_texts = len(offsets) - 1
    out = np.zeros((num_texts, len(multipliers)), np.uint32)
    has_words = np.zeros(num_texts, np.bool_)
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    words = np.empty((longest + 1) // 2, np.uint64)
    shingles = np.empty((longest + 1) // 2, np.uint64)
    recent = np.empty(_RECENT, np.uint64)
    block = np.empty(_BLOCK, np.uint32)
    for text in range(num_texts):
        num_words = word_hashes(data, offsets[text], offsets[text + 1], key, properties, lower_case, words)
        num_shingles = shingle_hashes(words[:num_words], shingle_words, shingles)
        has_words[text] = num_shingles > 0
        num_shingles = _drop_recent(shingles[:num_shingles], recent)
        _write_minima(shingles[:num_shingles], multipliers, addends, block, out[text])
    return out, has_words


@kernel
def _drop_recent(shingles: NDArray[np.uint64], recent: NDArray[np.uint64]) -> int:
    """Drops, in place, shingles that were seen shortly before: a minimum does not change by repetition."""
    recent[:] = 0
    kept = 0
    for shingle in shingles:
        slot = shingle & np.uint64(_RECENT - 1)
        if recent[slot] != shingle or shingle == 0:
            recent[slot] = shingle
            shingles[kept] = shingle
            kept += 1
    return kept


@kernel
def _write_minima(
    shingles: NDArray[np.uint64],
    multipliers: NDArray[np.int64],
    addends: NDArray[np.int64],
    block: NDArray[np.uint32],
    signature: NDArray[np.uint32],
) -> None:
    """One permutation at a time over a block that stays in the first cache, so that a block's loop is a plain
    reduction, which the compiler vectorises: 3 times as fast as one shingle at a time."""
    signature[:] = 0xFFFFFFFF
    for start in range(0, len(shingles), len(block)):
        length = min(len(block), len(shingles) - start)
        for number in range(length):
            block[number] = shingles[start + number] >> _S32
        for permutation in range(len(multipliers)):
            multiplier, addend = multipliers[permutation], addends[permutation]
            minimum = np.int64(0x7FFFFFFFFFFFFFFF)
            for number in range(length):
                minimum = min(minimum, multiplier * np.int64(block[number]) + addend)
            high = np.uint32((np.uint64(minimum) ^ _SIGN) >> _S32)
            signature[permutation] = min(signature[permutation], high)


@kernel
def band_hashes(signatures: NDArray[np.uint32], bands: int, rows: int) -> NDArray[np.uint64]:
    """(num_texts, bands): a 64-bit hash of each band's rows; permutations beyond `bands * rows` are unused."""
    hashes = np.empty((len(signatures), bands), np.uint64)
    for text in range(len(signatures)):
        for band in range(bands):
            value = np.uint64(0)
            for row in range(band * rows, (band + 1) * rows):
                value = mix(value ^ np.uint64(signatures[text, row]) + np.uint64(1))
            hashes[text, band] = value
    return hashes


@kernel
def bucket_pairs(
    hashes: NDArray[np.uint64], members: NDArray[np.int64], full: int, num_first: int, num_previous: int
) -> NDArray[np.uint64]:
    """The pairs to verify among texts that share a bucket.

    In a bucket of up to `full` members these are all pairs. In a larger one, each member is paired with the
    `num_first` smallest members and the `num_previous` that stand before it: O(members), not its square.

    Args:
        hashes: (num_texts,) ascending; equal ones are a bucket.
        members: (num_texts,) the texts in the order of `hashes`, below 2^32.

    Returns:
        (num_pairs,) smaller text * 2^32 + larger text, with repetitions.
    """
    num_pairs = 0
    for fill in range(2):  # once to count, once to write
        pairs = np.empty(num_pairs, np.uint64)
        num_pairs = 0
        start = 0
        while start < len(hashes):
            stop = start + 1
            while stop < len(hashes) and hashes[stop] == hashes[start]:
                stop += 1
            is_full = stop - start <= full
            smallest = members[:0] if is_full else np.sort(members[start:stop])[:num_first]
            for later in range(start, stop):
                first = start if is_full else max(start, later - num_previous)
                if fill:
                    for earlier in range(first, later):
                        pairs[num_pairs + earlier - first] = _pair(members[earlier], members[later])
                    for number in range(len(smallest)):
                        pairs[num_pairs + later - first + number] = _pair(smallest[number], members[later])
                num_pairs += later - first + len(smallest)
            start = stop
    return pairs


@kernel
def _pair(a: int, b: int) -> np.uint64:
    return np.uint64(min(a, b)) << _S32 | np.uint64(max(a, b))
