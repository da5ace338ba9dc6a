r"""Words, shingles and the similarity of their sets, compiled.

Words are the maximal runs of `\w` (Unicode's) in the lower-cased text or, as in the published script, what lies
between two characters that are not `\w`, so that words may be empty. A shingle is `shingle_words` of them in a
row.

A word's hash mixes the eight-byte pieces of its UTF-8 with a key; a shingle's is the polynomial of its words'
hashes modulo 2^64, rolled along and then mixed once more: O(1) a word whatever the length of a shingle. Hashes
have 64 bits, so among a million shingles two differing ones meet with probability 3e-8. The key is the seed's:
who does not know it cannot try out which texts collide.

What costs time is the end of a word: words of source code are short, and a branch there is mispredicted every few
bytes. So a window of text goes through stages, none of which has a branch that depends on where words end, and
which take eight bytes at a time: lower-case and replace what is beyond ASCII (`_normalise`); one bit a byte,
whether it is of a word (`_classify`, which the compiler vectorises); the places where these bits change, by a
table of the set bits of a byte (`_mark`); a hash for each pair of places, by two loads under masks, as all but 4 %
of the words have at most 16 bytes (`_hash_words`). One stage over letters took twice the time.

Only U+0130 and a final sigma are lower-cased otherwise than by `str.lower` (`code_points.lower_case`).
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import WORD, decode

WINDOW_BYTES = 8192
"""Of a text at a time: its stages stay in the first cache, and memory does not grow with a text."""

_ROOM = 128
"""Bytes after the window that stages may touch."""
_WINDOW = np.uint64(WINDOW_BYTES)
_BLOCK_GROUPS = np.uint64(32)
"""Groups of eight bytes whose places fit in a byte."""
_HALF_WINDOW = np.uint64(WINDOW_BYTES // 2)

_AT_ONCE = 3
"""Numbers of a bucket that are always looked at."""

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_TO_BITS = np.uint64(0x0102040810204080)
"""Multiplied by eight bytes of 0 or 1, these are the highest eight bits."""
_WORD_BASE = np.uint64(0xD1342543DE82EF95)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S24, _S27, _S30 = np.uint64(24), np.uint64(27), np.uint64(30)
_S31, _S32, _S40, _S48, _S56 = np.uint64(31), np.uint64(32), np.uint64(40), np.uint64(48), np.uint64(56)
_NONE, _ONE, _2, _3, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
_5, _6, _7, _8, _16 = np.uint64(5), np.uint64(6), np.uint64(7), np.uint64(8), np.uint64(16)
_17, _64, _BYTE = np.uint64(17), np.uint64(64), np.uint64(0xFF)


def room(offsets: NDArray[np.int64], empty_words: bool) -> int:
    """The most words that texts can have; without empty ones, a word and what parts it take two bytes."""
    num_bytes, num_texts = int(offsets[-1] - offsets[0]), len(offsets) - 1
    return num_bytes + num_texts if empty_words else (num_bytes + num_texts) // 2


@kernel
def word_hashes(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    empty_words: bool,
    key: np.uint64,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    out: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of the words of many texts, in the order of the text.

    Args:
        offsets: see `corpus.buffers.TextBuffers`.
        data: see there.
        empty_words: whether words may be empty.
        key: of the words' hashes.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.
        out: room for the words of all texts, `room(offsets, empty_words)` of them; overwritten.

    Returns:
        (num_words,) hashes, a part of `out`, and (num_texts + 1,) where each text's begin.
    """
    num_texts = len(offsets) - 1
    masks = _masks()
    set_bits, num_set = _bits_of_bytes()
    window = np.zeros(WINDOW_BYTES + _ROOM, np.uint8)
    bits = np.zeros((WINDOW_BYTES + _ROOM) // 8, np.uint8)
    block = np.zeros(8 * 32 + 8, np.uint8)
    marks = np.zeros(WINDOW_BYTES + _ROOM, np.uint32)
    stride = _ONE if empty_words else _2
    starts = np.zeros(num_texts + 1, np.int64)
    for text in range(num_texts):
        words = out[starts[text] :]
        at, stop = np.uint64(offsets[text]), np.uint64(offsets[text + 1])
        num_words, held, begun = _NONE, _NONE, _NONE
        while True:
            at, filled = _normalise(data, at, stop, properties, lower_case, window, held)
            num_groups = (filled >> _3) + _ONE
            _classify(window, num_groups, bits)
            last = filled if at == stop else filled - _ONE  # a text's end ends a word, a window's does not
            num_found = _mark(bits, num_groups, empty_words, last, set_bits, num_set, block, marks)
            _hash_words(window, marks, num_found, stride, masks, key, begun, words[num_words:])
            num_words += num_found
            if at == stop:
                break
            if num_found:
                begun = _NONE
            held, begun = _hold(window, np.uint64(marks[stride * num_found]), filled, masks, key, begun)
        starts[text + 1] = starts[text] + np.int64(num_words)
    return out[: starts[num_texts]], starts


@kernel
def _normalise(
    data: NDArray[np.uint8],
    at: np.uint64,
    stop: np.uint64,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    out: NDArray[np.uint8],
    filled: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    """Writes `data[at:stop]` from `out[filled]` on, as far as the window goes, and bytes of 0 after it.

    ASCII stays as it is; a letter beyond becomes its lower case, and what is not of a word becomes a space.

    Returns:
        Where it stands in `data` and in `out`.
    """
    while at < stop and filled < _WINDOW:
        while at + _64 <= stop and filled < _WINDOW and _copy_ascii(data, at, out, filled):
            at += _64
            filled += _64
        end = min(at + _64, stop)
        while at < end and filled < _WINDOW:
            if at + _8 <= stop:
                eight = _load(data, at)
                _store(out, filled, eight)
                if not eight & _HIGH:
                    at += _8
                    filled += _8
                    continue
                while data[at] < 128:
                    at += _ONE
                    filled += _ONE
            elif data[at] < 128:
                out[filled] = data[at]
                at += _ONE
                filled += _ONE
                continue
            code_point, width = decode(data, int(np.int64(at)))
            if properties[code_point] & WORD:
                filled = np.uint64(encode(int(lower_case[code_point]), out, int(np.int64(filled))))
            else:
                out[filled] = 32
                filled += _ONE
            at += np.uint64(width)
    _store(out, filled, _NONE)
    return at, filled


@kernel
def _copy_ascii(data: NDArray[np.uint8], at: np.uint64, out: NDArray[np.uint8], filled: np.uint64) -> bool:
    """Copies 64 bytes, if they are all ASCII."""
    a, b = _load(data, at), _load(data, at + _8)
    c, d = _load(data, at + _16), _load(data, at + _S24)
    e, f = _load(data, at + _S32), _load(data, at + _S40)
    g, h = _load(data, at + _S48), _load(data, at + _S56)
    if (a | b | c | d | e | f | g | h) & _HIGH:
        return False
    _store(out, filled, a)
    _store(out, filled + _8, b)
    _store(out, filled + _16, c)
    _store(out, filled + _S24, d)
    _store(out, filled + _S32, e)
    _store(out, filled + _S40, f)
    _store(out, filled + _S48, g)
    _store(out, filled + _S56, h)
    return True


@kernel
def encode(code_point: int, out: NDArray[np.uint8], at: int) -> int:
    """Writes a code point as UTF-8 and returns where the next goes."""
    if code_point < 0x80:
        out[at] = code_point
        return at + 1
    if code_point < 0x800:
        out[at] = 0xC0 | code_point >> 6
        out[at + 1] = 0x80 | code_point & 0x3F
        return at + 2
    if code_point < 0x10000:
        out[at] = 0xE0 | code_point >> 12
        out[at + 1] = 0x80 | code_point >> 6 & 0x3F
        out[at + 2] = 0x80 | code_point & 0x3F
        return at + 3
    out[at] = 0xF0 | code_point >> 18
    out[at + 1] = 0x80 | code_point >> 12 & 0x3F
    out[at + 2] = 0x80 | code_point >> 6 & 0x3F
    out[at + 3] = 0x80 | code_point & 0x3F
    return at + 4


@kernel
def _classify(window: NDArray[np.uint8], num_groups: np.uint64, bits: NDArray[np.uint8]) -> None:
    """Lower-cases ASCII in groups of eight bytes, and writes a bit a byte: whether it is of a word."""
    for group in range(num_groups):
        eight = _load(window, group * _8)
        high = eight & _HIGH
        low = eight & ~_HIGH
        low |= (_between(low, 65, 90) & ~high) >> _2
        _store(window, group * _8, low | high)
        is_word = _between(low, 97, 122) | _between(low, 48, 57) | _between(low, 95, 95) | high
        bits[group] = np.uint8((is_word >> _7) * _TO_BITS >> _S56)


@kernel
def _between(eight: np.uint64, smallest: int, largest: int) -> np.uint64:
    """The highest bit of each of eight bytes below 128 that is between two others: a sum carries into it."""
    reaches = eight + np.uint64(128 - smallest) * _ONES
    exceeds = eight + np.uint64(127 - largest) * _ONES
    return reaches & ~exceeds & _HIGH


@kernel
def _mark(
    bits: NDArray[np.uint8],
    num_groups: np.uint64,
    empty_words: bool,
    last: np.uint64,
    set_bits: NDArray[np.uint64],
    num_set: NDArray[np.uint64],
    block: NDArray[np.uint8],
    marks: NDArray[np.uint32],
) -> np.uint64:
    """Writes where words begin and end to `marks`.

    Word `i` is from `marks[2 * i]` to `marks[2 * i + 1]`; or, with empty words, from `marks[i]` to the byte
    before `marks[i + 1]`.

    Returns:
        The number of words that end at `last` or before; one that does not begins at the mark after them, which
        is `last + 1` or more where there is none.
    """
    num_marks = _NONE
    if empty_words:
        marks[0] = 0
        num_marks = _ONE
    carried = _NONE
    for first in range(_NONE, num_groups, _BLOCK_GROUPS):
        found = _NONE
        for group in range(min(_BLOCK_GROUPS, num_groups - first)):
            own = np.uint64(bits[first + group])
            wanted = (~own if empty_words else own ^ (own << _ONE | carried)) & _BYTE
            carried = own >> _7
            _store(block, found, set_bits[wanted] + group * _8 * _ONES)
            found += num_set[wanted]
        base = np.uint32(first * _8) + np.uint32(empty_words)
        for number in range(found):
            marks[num_marks + number] = base + np.uint32(block[number])
        num_marks += found
    if empty_words:
        while num_marks > _ONE and marks[num_marks - _ONE] > last + _ONE:
            num_marks -= _ONE
        return num_marks - _ONE
    marks[num_marks] = last + _ONE
    num_words = num_marks >> _ONE
    return num_words - _ONE if num_words and marks[num_marks - _ONE] > last else num_words


@kernel
def _hash_words(
    window: NDArray[np.uint8],
    marks: NDArray[np.uint32],
    num_words: np.uint64,
    stride: np.uint64,
    masks: NDArray[np.uint64],
    key: np.uint64,
    begun: np.uint64,
    out: NDArray[np.uint64],
) -> None:
    """Writes the hash of each word between marks; the first continues `begun`, if that is not 0."""
    parting = stride & _ONE
    for word in range(num_words):
        start = np.uint64(marks[stride * word])
        length = np.uint64(marks[stride * word + _ONE]) - parting - start
        out[word] = _extended(_hash_of_16(window, start, length, masks, key), window, start, _16, length, masks)
    if num_words and begun:
        out[0] = _extended(begun, window, np.uint64(marks[0]), _NONE, np.uint64(marks[1]) - parting, masks)


@kernel
def _hash_of_16(
    window: NDArray[np.uint8], start: np.uint64, length: np.uint64, masks: NDArray[np.uint64], key: np.uint64
) -> np.uint64:
    """Of the first 16 bytes of a word, or of all if it has less."""
    size = min(length, _16)
    value: np.uint64 = ((_load(window, start) & masks[size]) + key) * (key | _ONE)
    value = (value ^ value >> _S32) * _MIX_1
    value = (value + (_load(window, start + _8) & masks[size + _17])) * _MIX_2
    return value ^ value >> _S32


@kernel
def _extended(
    value: np.uint64,
    window: NDArray[np.uint8],
    start: np.uint64,
    done: np.uint64,
    length: np.uint64,
    masks: NDArray[np.uint64],
) -> np.uint64:
    """A word's hash, from that of its first `done` bytes."""
    while done < length:
        value = mix(value + (_load(window, start + done) & masks[min(length - done, _16)]))
        done += _8
    return value


@kernel
def _hold(
    window: NDArray[np.uint8],
    start: np.uint64,
    filled: np.uint64,
    masks: NDArray[np.uint64],
    key: np.uint64,
    begun: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    """Moves a word that has not ended to the front; of a long one only what is not hashed yet, which is not
    empty, so that it is a word.

    Returns:
        The number of bytes moved, and the hash of those before them; 0 where there are none.
    """
    length = filled - min(start, filled)
    done = _NONE
    if length > _HALF_WINDOW:
        done = (length - _ONE) >> _3 << _3
        if begun:
            begun = _extended(begun, window, start, _NONE, done, masks)
        else:
            begun = _extended(_hash_of_16(window, start, _16, masks, key), window, start, _16, done, masks)
    for number in range(length - done):
        window[number] = window[start + done + number]
    return length - done, begun


@kernel
def roll(
    words: NDArray[np.uint64], starts: NDArray[np.int64], shingle_words: int, short_is_whole: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The shingles of many texts, in the order of the text, repeated ones too, in the place of their words.

    Args:
        words: of `word_hashes`; overwritten.
        starts: (num_texts + 1,) where each text's begin.
        shingle_words: words in a shingle.
        short_is_whole: whether fewer words than a shingle has are one shingle, so that short texts are compared
            by all their words; otherwise they are none. No words are no shingles.

    Returns:
        (num_shingles,) hashes, a part of `words`, and (num_texts + 1,) where each text's begin.
    """
    rolled = np.zeros(len(starts), np.int64)
    for text in range(len(starts) - 1):
        own, out = words[starts[text] : starts[text + 1]], words[rolled[text] :]
        rolled[text + 1] = rolled[text] + _roll(own, shingle_words, short_is_whole, out)
    return words[: rolled[-1]], rolled


@kernel
def _roll(words: NDArray[np.uint64], shingle_words: int, short_is_whole: bool, out: NDArray[np.uint64]) -> int:
    """Writes the hash of the shingle that starts with each word, where there is one, and returns their number.

    `out` may be the memory of the words, or before it.
    """
    num_words = len(words)
    if num_words == 0 or (num_words < shingle_words and not short_is_whole):
        return 0
    leaving_factor = _ONE
    for _ in range(shingle_words):
        leaving_factor *= _WORD_BASE
    window = _NONE
    leaving = _NONE
    for position in range(min(num_words, shingle_words - 1)):
        window = window * _WORD_BASE + words[position]
    if num_words < shingle_words:
        out[0] = (window ^ window >> _S32) * _MIX_1
        return 1
    to_last = np.uint64(shingle_words - 1)
    num_shingles = num_words - shingle_words + 1
    for first in range(np.uint64(num_shingles)):
        window = window * _WORD_BASE + (words[first + to_last] - leaving * leaving_factor)
        leaving = words[first]
        out[first] = (window ^ window >> _S32) * _MIX_1
    return num_shingles


@kernel
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64-bit numbers after which every bit of the input moves half of the output."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@kernel
def _load(data: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    """Eight bytes as a number, the first lowest. The compiler makes one instruction of it."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + _ONE]) << _8
        | np.uint64(data[at + _2]) << _16
        | np.uint64(data[at + _3]) << _S24
        | np.uint64(data[at + _4]) << _S32
        | np.uint64(data[at + _5]) << _S40
        | np.uint64(data[at + _6]) << _S48
        | np.uint64(data[at + _7]) << _S56
    )


@kernel
def _store(data: NDArray[np.uint8], at: np.uint64, eight: np.uint64) -> None:
    data[at] = np.uint8(eight)
    data[at + _ONE] = np.uint8(eight >> _8)
    data[at + _2] = np.uint8(eight >> _16)
    data[at + _3] = np.uint8(eight >> _S24)
    data[at + _4] = np.uint8(eight >> _S32)
    data[at + _5] = np.uint8(eight >> _S40)
    data[at + _6] = np.uint8(eight >> _S48)
    data[at + _7] = np.uint8(eight >> _S56)


@kernel
def _masks() -> NDArray[np.uint64]:
    """(34,): by the length of a word, up to 16, what is its own of its first eight bytes; and 17 on, of its
    second eight."""
    masks = np.zeros(34, np.uint64)
    for length in range(17):
        for byte in range(length):
            masks[length + 17 * (byte >> 3)] |= _BYTE << np.uint64(8 * (byte & 7))
    return masks


@kernel
def _bits_of_bytes() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(256,) the places of the bits that are set in a byte, as bytes of a number, and (256,) their number."""
    set_bits = np.zeros(256, np.uint64)
    num_set = np.zeros(256, np.uint64)
    for byte in range(256):
        for place in range(8):
            if byte >> place & 1:
                set_bits[byte] |= np.uint64(place) << num_set[byte] * _8
                num_set[byte] += _ONE
    return set_bits, num_set


@kernel
def drop_repeated(ordered: NDArray[np.uint64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Moves what is distinct in each run of `ordered`, which is ascending in each, to the front of all.

    Returns:
        (num_runs + 1,) where each run begins then.
    """
    offsets = np.zeros(len(starts), np.int64)
    kept = 0
    for run in range(len(starts) - 1):
        offsets[run] = kept
        before = ~ordered[starts[run]] if starts[run] < starts[run + 1] else _NONE
        for number in range(starts[run], starts[run + 1]):
            own = ordered[number]
            ordered[kept] = own
            kept += own != before
            before = own
    offsets[len(starts) - 1] = kept
    return offsets


@kernel
def jaccards(
    sets: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.float64]:
    """The exact Jaccard similarity of pairs of sets; 0 where their sizes alone rule out the threshold.

    Pairs in a row with the same left side are faster: what is looked up is that one.

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
    buckets, padded = np.empty(0, np.int64), np.empty(0, np.uint64)
    indexed, num_bits = -1, 0
    for pair in range(len(left)):
        a = sets[offsets[left[pair]] : offsets[left[pair] + 1]]
        b = sets[offsets[right[pair]] : offsets[right[pair] + 1]]
        if len(a) + len(b) == 0:
            similarities[pair] = 1.0
            continue
        if len(a) == 0 or len(b) == 0 or min(len(a), len(b)) / max(len(a), len(b)) < threshold:
            continue
        if left[pair] != indexed:
            indexed, num_bits = left[pair], 1
            while (1 << num_bits) < 2 * len(a):
                num_bits += 1
            if len(padded) < len(a) + _AT_ONCE:
                buckets, padded = (
                    np.empty((2 << num_bits) + 1, np.int64),
                    np.empty(2 * len(a) + _AT_ONCE, np.uint64),
                )
            _index(a, num_bits, buckets, padded)
        shared = _num_shared(b, num_bits, buckets, padded)
        similarities[pair] = shared / (len(a) + len(b) - shared)
    return similarities


@kernel
def _index(
    numbers: NDArray[np.uint64], num_bits: int, buckets: NDArray[np.int64], padded: NDArray[np.uint64]
) -> None:
    """Writes where the numbers that begin with the same bits lie to `buckets`, and the numbers to `padded`.

    Hashes are spread evenly, so few begin with the same.
    """
    shift = np.uint64(64 - num_bits)
    bucket = 0
    for number in range(len(numbers)):
        padded[number] = numbers[number]
        while bucket <= np.int64(numbers[number] >> shift):
            buckets[bucket] = number
            bucket += 1
    while bucket <= 1 << num_bits:
        buckets[bucket] = len(numbers)
        bucket += 1
    padded[len(numbers) : len(numbers) + _AT_ONCE] = numbers[0]  # who finds it here has found it there


@kernel
def _num_shared(
    numbers: NDArray[np.uint64], num_bits: int, buckets: NDArray[np.int64], padded: NDArray[np.uint64]
) -> int:
    """How many of the numbers are among the indexed ones; without a branch but for the longest buckets."""
    shift = np.uint64(64 - num_bits)
    num_shared = 0
    for number in numbers:
        bucket = number >> shift
        at, end = np.uint64(buckets[bucket]), np.uint64(buckets[bucket + _ONE])
        is_shared = padded[at] == number
        is_shared |= padded[at + _ONE] == number
        is_shared |= padded[at + _2] == number
        while at + _3 < end:
            is_shared |= padded[at + _3] == number
            at += _ONE
        num_shared += is_shared
    return num_shared
