r"""Words, shingles and their sets, compiled.

Words are the maximal runs of `\w` (Unicode's) in the lower-cased text; a shingle is `shingle_words` of them in
a row. A word's hash is FNV-1a over its code points followed by a mixing step (splitmix64's), a shingle's is
the polynomial of its words' hashes, rolled along and mixed again: O(1) a word whatever the length of a
shingle. Hashes have 64 bits, so among a million shingles two differing ones meet with probability 3e-8, and
depend on a key, so a text cannot be made to collide in advance.

Only U+0130 and a final sigma are lower-cased otherwise than by `str.lower` (`code_points.lower_case`).
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import WORD, decode

_FNV_PRIME = np.uint64(0x00000100000001B3)
_ROLL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)


def _ascii_words() -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for code_point in range(128):
        character = chr(code_point)
        if character.isalnum() or character == "_":
            table[code_point] = ord(character.lower())
    table[128:] = 255
    return table


_ASCII_WORDS = _ascii_words()
"""Lower-cased word bytes; 0 for other ASCII, 255 where a longer character starts."""


@kernel
def word_hashes(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    key: np.uint64,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    out: NDArray[np.uint64],
) -> int:
    """Writes the hash of each word of `data[start:stop]` to `out`, and returns their number.

    `out` has room for `(stop - start + 1) // 2` words, for a word and what parts it from the next take two
    bytes.
    """
    num_words = 0
    is_inside = False
    word = key
    at = start
    while at < stop:
        letter = np.uint64(_ASCII_WORDS[data[at]])
        width = 1
        if letter == 255:
            code_point, width = decode(data, at)
            letter = np.uint64(lower_case[code_point]) if properties[code_point] & WORD else np.uint64(0)
        at += width
        if letter:
            word = (word ^ letter) * _FNV_PRIME
            is_inside = True
        elif is_inside:
            out[num_words] = mix(word)
            num_words += 1
            word = key
            is_inside = False
    if is_inside:
        out[num_words] = mix(word)
        num_words += 1
    return num_words


@kernel
def shingle_hashes(words: NDArray[np.uint64], shingle_words: int, out: NDArray[np.uint64]) -> int:
    """Writes the hash of each shingle to `out`, repeated ones too, and returns their number.

    Fewer words than a shingle has are one shingle, so that short texts are compared by all their words; no
    words are no shingles. `out` is as long as `words`.
    """
    leaving_factor = np.uint64(1)
    for _ in range(min(shingle_words, len(words))):
        leaving_factor *= _ROLL
    num_shingles = 0
    window = np.uint64(0)
    for position in range(len(words)):
        window = window * _ROLL + words[position]
        if position >= shingle_words:
            window -= words[position - shingle_words] * leaving_factor
        if position >= shingle_words - 1:
            out[num_shingles] = mix(window)
            num_shingles += 1
    if num_shingles == 0 and len(words) > 0:
        out[0] = mix(window)
        num_shingles = 1
    return num_shingles


@kernel
def shingle_set(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    shingle_words: int,
    key: np.uint64,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
) -> NDArray[np.uint64]:
    """The distinct shingles of `data[start:stop]`, ascending."""
    words = np.empty((stop - start + 1) // 2, np.uint64)
    shingles = np.empty((stop - start + 1) // 2, np.uint64)
    num_words = word_hashes(data, start, stop, key, properties, lower_case, words)
    num_shingles = shingle_hashes(words[:num_words], shingle_words, shingles)
    shingles = np.sort(shingles[:num_shingles])
    num_distinct = 0
    for number in range(num_shingles):
        if number == 0 or shingles[number] != shingles[number - 1]:
            shingles[num_distinct] = shingles[number]
            num_distinct += 1
    return shingles[:num_distinct]


@kernel
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64-bit numbers after which every bit of the input moves half of the output."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@kernel
def jaccards(
    sets: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.float64]:
    """The exact Jaccard similarity of pairs of sets; 0 where their sizes alone rule out the threshold.

    Args:
        sets: set `i` is `sets[offsets[i]:offsets[i + 1]]`, ascending, without repetition, not empty.
        offsets: (num_sets + 1,)
        left: (num_pairs,) numbers of sets.
        right: (num_pairs,)
        threshold: what a pair must reach to be of interest.

    Returns:
        (num_pairs,)
    """
    similarities = np.zeros(len(left), np.float64)
    for pair in range(len(left)):
        a, a_stop = offsets[left[pair]], offsets[left[pair] + 1]
        b, b_stop = offsets[right[pair]], offsets[right[pair] + 1]
        total = (a_stop - a) + (b_stop - b)
        if min(a_stop - a, b_stop - b) / max(a_stop - a, b_stop - b) < threshold:
            continue
        shared = 0
        while a < a_stop and b < b_stop:
            if sets[a] == sets[b]:
                shared += 1
                a += 1
                b += 1
            elif sets[a] < sets[b]:
                a += 1
            else:
                b += 1
        similarities[pair] = shared / (total - shared)
    return similarities
