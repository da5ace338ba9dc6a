r"""Words, shingles and the similarity of their sets, compiled.

Words are the maximal runs of `\w` (Unicode's) in the lower-cased text or, as in the published script, what lies
between two characters that are not `\w`, so that words may be empty. A shingle is `shingle_words` of them in a
row.

A word's hash is the polynomial of its letters, each a keyed random number, modulo 2^64; a shingle's is the
polynomial of its words' hashes with another base, rolled along and then mixed (splitmix64's finisher): O(1) a
word whatever the length of a shingle. Hashes have 64 bits, so among a million shingles two differing ones meet
with probability 3e-8, and depend on a key, so a text cannot be made to collide in advance.

The loop over letters has no branch that depends on the text but for the first character beyond ASCII in a run of
them: words of source code are short, and a branch at their ends is mispredicted every few bytes. Without it the
loop is 1.8 times as fast. Shingles replace the words they start with, so a text needs one array.

Only U+0130 and a final sigma are lower-cased otherwise than by `str.lower` (`code_points.lower_case`).
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import WORD, decode

_LETTER_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORD_BASE = np.uint64(0xD1342543DE82EF95)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_ALL, _ONE, _NONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(1), np.uint64(0)


@kernel
def shingle_hashes(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    shingle_words: int,
    empty_words: bool,
    short_is_whole: bool,
    key: np.uint64,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The shingles of many texts, in the order of the text, repeated ones too.

    Args:
        offsets: see `corpus.buffers.TextBuffers`.
        data: see there.
        shingle_words: words in a shingle.
        empty_words: whether words may be empty.
        short_is_whole: whether fewer words than a shingle has are one shingle, so that short texts are compared
            by all their words; otherwise they are none. No words are no shingles.
        key: of the letters' hashes.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.

    Returns:
        (num_shingles,) hashes, and (num_texts + 1,) where each text's begin.
    """
    num_texts = len(offsets) - 1
    letters, masks = _ascii_letters(key, properties, lower_case)
    num_bytes = offsets[num_texts] - offsets[0]
    # Pages that are not written cost nothing; without empty words a word and what parts it take two bytes.
    room = num_bytes + num_texts + 1 if empty_words else (num_bytes + num_texts) // 2 + 1
    out = np.empty(room, np.uint64)
    starts = np.zeros(num_texts + 1, np.int64)
    for text in range(num_texts):
        words = out[starts[text] :]
        num_words = _write_words(
            data, offsets[text], offsets[text + 1], letters, masks, empty_words, key, properties, lower_case, words
        )
        num_shingles = _roll(words, num_words, shingle_words, short_is_whole, key)
        starts[text + 1] = starts[text] + num_shingles
    return out[: starts[num_texts]], starts


@kernel
def _ascii_letters(
    key: np.uint64, properties: NDArray[np.uint8], lower_case: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(128,) the number of each letter, and all bits where a character is of a word: a mask that ends words."""
    letters = np.zeros(128, np.uint64)
    masks = np.zeros(128, np.uint64)
    for code_point in range(128):
        if properties[code_point] & WORD:
            letters[code_point] = mix(key + np.uint64(lower_case[code_point]))
            masks[code_point] = _ALL
    return letters, masks


@kernel
def _write_words(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    letters: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    empty_words: bool,
    key: np.uint64,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    out: NDArray[np.uint64],
) -> int:
    """Writes the hash of each word of `data[start:stop]` to `out`, and returns their number.

    Places are unsigned: for a signed one each access would ask first whether it is negative.
    """
    always = _ALL if empty_words else _NONE
    num_words = _NONE
    word = _NONE
    before = _NONE
    at = np.uint64(start)
    end = np.uint64(stop)
    while at < end:
        byte = data[at]
        if byte < 128:
            letter, mask = letters[byte], masks[byte]
            at += _ONE
        else:
            code_point, width = decode(data, int(np.int64(at)))
            letter = mix(key + np.uint64(lower_case[code_point]))
            mask = _ALL if properties[code_point] & WORD else _NONE
            at += np.uint64(width)
        out[num_words] = word  # overwritten until the word ends
        num_words += (before | always) & ~mask & _ONE
        word = (word * _LETTER_BASE + letter) & mask
        before = mask
    if before | always:
        out[num_words] = word
        num_words += _ONE
    return int(np.int64(num_words))


@kernel
def _roll(
    words: NDArray[np.uint64], num_words: int, shingle_words: int, short_is_whole: bool, key: np.uint64
) -> int:
    """Replaces words by the hashes of the shingles that start with them, and returns their number.

    The key is added to each word, so that an empty one counts.
    """
    if num_words == 0 or (num_words < shingle_words and not short_is_whole):
        return 0
    leaving_factor = _ONE
    for _ in range(shingle_words):
        leaving_factor *= _WORD_BASE
    window = _NONE
    leaving = _NONE
    for position in range(min(num_words, shingle_words - 1)):
        window = window * _WORD_BASE + words[position] + key
    if num_words < shingle_words:
        words[0] = mix(window)
        return 1
    to_last = np.uint64(shingle_words - 1)
    num_shingles = num_words - shingle_words + 1
    for first in range(np.uint64(num_shingles)):
        window = window * _WORD_BASE + (words[first + to_last] + key - leaving * leaving_factor)
        leaving = words[first] + key
        words[first] = mix(window)
    return num_shingles


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
        sets: set `i` is `sets[offsets[i]:offsets[i + 1]]`, ascending, without repetition; two empty
            ones are alike.
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
        if total == 0:
            similarities[pair] = 1.0
            continue
        if min(a_stop - a, b_stop - b) / max(a_stop - a, b_stop - b) < threshold:
            continue
        shared = 0
        while a < a_stop and b < b_stop:  # without branches: which side moves cannot be predicted
            x, y = sets[a], sets[b]
            shared += x == y
            a += x <= y
            b += y <= x
        similarities[pair] = shared / (total - shared)
    return similarities
