"""What the indices of needles are made of, compiled: whole hashes, windows, n-grams, filters."""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import ALPHABETIC
from starsmith.signals.contamination_hashes import (
    BASE,
    filter_bits,
    joined,
    letter_at,
    mix,
    power,
    text_hash,
    word_at,
)

_S64 = np.uint64(64)


@kernel
def whole_hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(num_needles,) `text_hash` of each needle, and the power of the base by which it moves."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    powers = np.empty(len(offsets) - 1, np.uint64)
    for needle in range(len(offsets) - 1):
        hashes[needle] = text_hash(data, offsets[needle], offsets[needle + 1])
        powers[needle] = power(offsets[needle + 1] - offsets[needle])
    return hashes, powers


@kernel
def filter_words(hashes: NDArray[np.uint64], word_bits: int) -> NDArray[np.uint64]:
    """(2^word_bits,) `HashTable.bits` of some hashes."""
    words = np.zeros(1 << word_bits, np.uint64)
    for value in hashes:
        words[value >> (_S64 - np.uint64(word_bits))] |= filter_bits(value)
    return words


@kernel
def ngrams(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    size: int,
    least_distinct: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The n-grams of many texts that name something: at least `least_distinct` distinct words with a letter.

    Returns:
        (num_ngrams,) their hashes as `find_ngrams` computes them, with repetitions; (num_texts + 1,) where each
        text's begin.
    """
    num_texts = len(offsets) - 1
    hashes = np.empty((offsets[num_texts] - offsets[0] + 1) // 2 + 1, np.uint64)
    begins = np.zeros(num_texts + 1, np.int64)
    words = np.zeros(size, np.uint64)  # 0 stands for none
    named = np.zeros(size, np.uint64)  # the same, 0 for words without a letter
    num_hashes = 0
    for text in range(num_texts):
        at = offsets[text]
        stop = offsets[text + 1]
        num_words = 0
        while at < stop:
            word = np.uint64(0)
            has_letter = False
            letter, width = letter_at(data, at, stop, properties, lower_case)
            while letter:
                has_letter |= properties[letter] & ALPHABETIC != 0
                word = joined(word, mix(letter))
                at += width
                letter, width = letter_at(data, at, stop, properties, lower_case)
            if word:
                slot = num_words % size
                words[slot] = mix(word)
                named[slot] = mix(word) if has_letter else np.uint64(0)
                num_words += 1
                if num_words >= size and _num_distinct(named) >= least_distinct:
                    window = np.uint64(0)
                    for number in range(num_words - size, num_words):
                        window = window * BASE + words[number % size]
                    hashes[num_hashes] = mix(window)
                    num_hashes += 1
            at += width
        begins[text + 1] = num_hashes
    return hashes[:num_hashes], begins


@kernel
def _num_distinct(values: NDArray[np.uint64]) -> int:
    """Distinct values that are not 0."""
    ordered = np.sort(values)
    count = 0
    for number in range(len(ordered)):
        if ordered[number] and (number == 0 or ordered[number] != ordered[number - 1]):
            count += 1
    return count


@kernel
def window_hashes(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    window_bytes: int,
    stride: int,
    is_wide: bool,
    sketch_bits: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The windows by which each needle is found: `stride` consecutive ones, the rarest that it has.

    Many needles begin alike (imports, a set's own phrases), and so does what they would be found in. The rarest
    are those whose most frequent window is least frequent among all windows of all needles, and of equals the
    first; frequencies are counted by `sketch_bits` bits of the hash.

    Returns:
        (num_needles * stride,) hashes, and where in the needle each window starts.
    """
    num_needles = len(offsets) - 1
    shift = _S64 - np.uint64(sketch_bits)
    frequencies = np.zeros(1 << sketch_bits, np.int32)
    hashes = np.zeros(offsets[num_needles] + 1, np.uint64)
    for needle in range(num_needles):
        for at in range(offsets[needle], offsets[needle + 1] - window_bytes + 1):
            value = np.uint64(0)
            if is_wide:
                for word in range(at, at + window_bytes, 8):
                    value = value * BASE + word_at(data, word)
            else:
                value = text_hash(data, at, at + window_bytes)
            hashes[at] = mix(value)
            frequencies[hashes[at] >> shift] += 1
    chosen = np.empty(num_needles * stride, np.uint64)
    places = np.empty(num_needles * stride, np.int64)
    for needle in range(num_needles):
        best = offsets[needle]
        least = np.int32(0x7FFFFFFF)
        at = best
        while least > 1 and at + window_bytes + stride - 1 <= offsets[needle + 1]:
            most = np.int32(0)
            after = at + 1
            for number in range(stride):
                frequency = frequencies[hashes[at + number] >> shift]
                most = max(most, frequency)
                if frequency >= least:  # so are all stretches with this window
                    after = at + number + 1
            if most < least:
                best, least = at, most
            at = after
        for number in range(stride):
            chosen[needle * stride + number] = hashes[best + number]
            places[needle * stride + number] = best + number - offsets[needle]
    return chosen, places
