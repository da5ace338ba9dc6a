"""Signatures of sets of shingles, their bands, and the pairs of a band's buckets, compiled.

Two families of our own, equal in what they estimate (the share of equal values in two signatures is the Jaccard
similarity of the sets, without bias):

* **Fast similarity sketching** (Dahlgaard, Knudsen and Thorup, FOCS 2017), the default, with one round. Each
  shingle falls into one value of the signature, which keeps the smallest that fell there. A value where none fell
  is the minimum of a hash function of its own over all shingles, as in MinHash. Whether two sets agree in a value
  is decided by one shingle of their union, so the estimate is unbiased. The paper goes on with rounds before it
  comes to that; but a round is a random walk through memory, and a minimum is eight hashes at a time: one
  round is 3 times as fast for texts of all lengths. Long texts need one hash a shingle, others up to `k / e`.
* **Multiply-add-shift MinHash**: the high 32 bits of `a * x + b + 2^63` modulo 2^64, for the high 32 bits x of a
  shingle's hash and random 64-bit a and b. For 32-bit x it is strongly universal (Dietzfelbinger 1996: 63 bits
  of arithmetic are needed, 64 are used), and minima behave as if the functions were random, because x is already
  mixed. The published script multiplies modulo 2^32 instead, where the low bits of a product depend on the low
  bits of x alone: no universal family, and a measured bias of +0.008.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.shingle_kernels import mix

_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_EMPTY = np.uint64(0xFFFFFFFF00000000)
"""Above all hashes; what it holds below is the hash that a value has instead."""
_SIGN = np.uint64(1 << 63)
"""2^63 is in the family because machines compare signed 64-bit numbers faster: the minimum of `a * x + b` as a
signed number, with its sign turned, is the minimum of `a * x + b + 2^63`. Its high half is that of the halves."""
_ROUND = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1024
_RECENT = 2048
_MANY_PER_VALUE = 16
"""With so many distinct shingles to each value of a signature, the first round leaves none empty but once in
ten thousand texts; so a text with an empty one repeats itself."""


@kernel
def fast_similarity(
    shingles: NDArray[np.uint64], starts: NDArray[np.int64], num_values: int
) -> NDArray[np.uint32]:
    """(num_texts, num_values): the fast similarity sketch of each text; all ones for one without shingles.

    Args:
        shingles: hashes, text `i` has `shingles[starts[i]:starts[i + 1]]`; repetition changes nothing.
        starts: (num_texts + 1,)
        num_values: of a signature.
    """
    num_texts = len(starts) - 1
    out = np.empty((num_texts, num_values), np.uint32)
    values = np.empty(num_values, np.uint64)
    recent = np.empty(_RECENT, np.uint64)
    block = np.empty(_BLOCK, np.uint32)
    for text in range(num_texts):
        own = shingles[starts[text] : starts[text + 1]]
        values[:] = _EMPTY | _LOW
        for shingle in own:
            place = _place(shingle, num_values)
            values[place] = min(values[place], shingle & _LOW)
        is_empty = False
        for value in values:
            is_empty |= bool(value >= _EMPTY)
        if is_empty and len(own):
            _fill(_distinct(own, num_values, recent), values, block)
        for number in range(num_values):
            out[text, number] = np.uint32(values[number] & _LOW)
    return out


@kernel
def _place(value: np.uint64, num_values: int) -> np.uint64:
    return (value >> _S32) * np.uint64(num_values) >> _S32  # unsigned, so that no access asks for its sign


@kernel
def _distinct(shingles: NDArray[np.uint64], num_values: int, recent: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The shingles with fewer repetitions, and with none where there are many: what is left is bounded by what
    can leave a value empty."""
    if len(shingles) <= num_values:
        return shingles
    kept = shingles.copy()
    kept = kept[: _drop_recent(kept, recent)]
    if len(kept) > _MANY_PER_VALUE * num_values:
        kept.sort()
        num_kept = 1
        for number in range(1, len(kept)):
            if kept[number] != kept[num_kept - 1]:
                kept[num_kept] = kept[number]
                num_kept += 1
        kept = kept[:num_kept]
    return kept


@kernel
def _fill(shingles: NDArray[np.uint64], values: NDArray[np.uint64], block: NDArray[np.uint32]) -> None:
    """Gives each empty value the minimum of its own hash function over all shingles.

    The function is `a * x + b` modulo 2^32 for an odd a: a permutation of x, which is mixed, so that each shingle
    is the smallest as often as any other.
    """
    for start in range(0, len(shingles), len(block)):
        length = min(len(block), len(shingles) - start)
        for number in range(length):
            block[number] = np.uint32(shingles[start + number] >> _S32)
        for place in range(len(values)):
            if values[place] < _EMPTY:
                continue
            random = mix(np.uint64(place + 1) * _ROUND)
            multiplier, addend = np.uint32(random >> _S32 | _ONE), np.uint32(random)
            smallest = _smallest(block, length, multiplier, addend)
            values[place] = min(values[place], _EMPTY | np.uint64(smallest))


@kernel
def _smallest(block: NDArray[np.uint32], length: int, multiplier: np.uint32, addend: np.uint32) -> np.uint32:
    smallest = np.uint32(0xFFFFFFFF)
    for number in range(length):
        smallest = min(smallest, np.uint32(block[number] * multiplier + addend))
    return smallest


@kernel
def multiply_shift(
    shingles: NDArray[np.uint64],
    starts: NDArray[np.int64],
    multipliers: NDArray[np.int64],
    addends: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """(num_texts, num_permutations): the MinHash signature of each text; all ones for one without shingles.

    Args:
        shingles: hashes, text `i` has `shingles[starts[i]:starts[i + 1]]`; repetition changes nothing.
        starts: (num_texts + 1,)
        multipliers: (num_permutations,) random bits.
        addends: (num_permutations,) random bits.
    """
    num_texts = len(starts) - 1
    out = np.empty((num_texts, len(multipliers)), np.uint32)
    recent = np.empty(_RECENT, np.uint64)
    block = np.empty(_BLOCK, np.uint32)
    for text in range(num_texts):
        own = shingles[starts[text] : starts[text + 1]].copy()
        own = own[: _drop_recent(own, recent)]
        _write_minima(own, multipliers, addends, block, out[text])
    return out


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
    """(bands, num_texts): a 64-bit hash of each band's rows; permutations beyond `bands * rows` are unused."""
    hashes = np.empty((bands, len(signatures)), np.uint64)
    for text in range(len(signatures)):
        for band in range(bands):
            value = np.uint64(0)
            for row in range(band * rows, (band + 1) * rows):
                value = value * _ROUND + np.uint64(signatures[text, row])
            hashes[band, text] = mix(value)
    return hashes


@kernel
def maybe_shared(hashes: NDArray[np.uint64], seen: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The texts whose hash another may have: all that do, and few others.

    Args:
        hashes: (num_texts,) mixed.
        seen: a table of places, a power of two of them; overwritten.

    Returns:
        Numbers of texts, ascending.
    """
    last = np.uint64(len(seen) - 1)
    seen[:] = 0
    for value in hashes:
        place = value & last
        seen[place] = min(seen[place] + 1, 2)
    out = np.empty(len(hashes), np.int64)
    num_shared = 0
    for text in range(len(hashes)):
        out[num_shared] = text
        num_shared += seen[hashes[text] & last] == 2
    return out[:num_shared]


@kernel
def bucket_pairs(
    hashes: NDArray[np.uint64], members: NDArray[np.int64], full: int, num_first: int, num_previous: int
) -> NDArray[np.uint64]:
    """The pairs to verify among texts that share a bucket.

    In a bucket of up to `full` members these are all pairs. In a larger one, each member is paired with the
    `num_first` smallest members and the `num_previous` that stand before it: O(members), not its square.

    Args:
        hashes: (num_texts,) ascending; equal ones are a bucket.
        members: (num_texts,) the texts in the order of `hashes`, below 2^32; within a bucket they are brought
            into ascending order, in place.

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
            if stop - start == 1:
                start = stop
                continue
            if not fill:
                members[start:stop].sort()
            is_full = stop - start <= full
            smallest = 0 if is_full else num_first
            for later in range(start, stop):
                first = start if is_full else max(start + smallest, later - num_previous)
                num_smallest = min(smallest, later - start)
                if fill:
                    for number in range(num_smallest):
                        pairs[num_pairs + number] = _pair(members[start + number], members[later])
                    for earlier in range(first, later):
                        pairs[num_pairs + num_smallest + earlier - first] = _pair(members[earlier], members[later])
                num_pairs += num_smallest + max(0, later - first)
            start = stop
    return pairs


@kernel
def _pair(smaller: int, larger: int) -> np.uint64:
    return np.uint64(smaller) << _S32 | np.uint64(larger)


@kernel
def pair_blocks(
    left: NDArray[np.int64], right: NDArray[np.int64], sizes: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """Cuts pairs, in their order, into blocks that need no more than `limit` or are one pair.

    Args:
        left: (num_pairs,) numbers of things.
        right: (num_pairs,)
        sizes: (num_things,) what a block needs for each thing in it, once.
        limit: for a block.

    Returns:
        (num_blocks + 1,) where each block begins.
    """
    starts = np.zeros(len(left) + 1, np.int64)
    held_by = np.zeros(len(sizes), np.int64)
    num_blocks, total = 0, 0
    for pair in range(len(left)):
        a, b = left[pair], right[pair]
        for attempt in range(2):
            added = sizes[a] if held_by[a] != num_blocks else 0
            if b != a and held_by[b] != num_blocks:
                added += sizes[b]
            if num_blocks and total + added <= limit:
                break
            if not attempt:
                starts[num_blocks] = pair
                num_blocks += 1
                total = 0
        held_by[a], held_by[b] = num_blocks, num_blocks
        total += added
    starts[num_blocks] = len(left)
    return starts[: num_blocks + 1]


@kernel
def agreements(
    signatures: NDArray[np.uint32], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(num_pairs,): how many values the signatures `left[i]` and `right[i]` have in common."""
    counts = np.empty(len(left), np.int64)
    for pair in range(len(left)):
        a, b = signatures[left[pair]], signatures[right[pair]]
        equal = 0
        for value in range(len(a)):
            equal += a[value] == b[value]
        counts[pair] = equal
    return counts
