r"""Searching benchmark texts in contents, compiled: one pass over the bytes of each text, and linear time.

**Whole texts.** A text is normalised (lower-cased, white space dropped, exactly as `str.lower` and `str.isspace`
say) into a buffer. Every needle contributes the hashes of `stride` consecutive windows, and the text is probed at
each multiple of `stride` only: wherever a needle lies, one of its windows starts at a probed place. A bit set
answers almost all probes; what passes it is looked up in a sorted table, and a needle that could be there is
compared. Long comparisons are decided by a hash of the whole needle first, so that a text made to fail late
costs no more than any other: time is linear in the text, times the needles that share one window.

Hashes of substrings come from hashes of prefixes kept at every 32nd byte, made only for texts that need them.

**n-grams.** Words are maximal runs of `\w`, lower-cased code point by code point, hashed as they are read; the
hash of `size` words in a row rolls along. n-grams are compared by their 64-bit hashes: the chance that a text
of a million words meets a million n-grams wrongly is 5e-8.

Two characters have a lower case that is no single code point or depends on what follows: U+0130 and the capital
sigma. `find` hands texts with them back, to be lower-cased by Python itself.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import SPACE, WORD, character_start, decode
from starsmith.signals.contamination_hashes import (
    BASE,
    KEPT,
    LETTERS,
    LOWER,
    ONE,
    filter_bits,
    joined,
    letter_at,
    mix,
    power,
    text_hash,
    word_at,
)

CAPITAL_SIGMA = 0x03A3
CAPITAL_I_WITH_DOT = 0x0130

_BLOCK_BYTES = 8192
"""Read at once: its words stay in the first cache, and memory does not grow with their number."""
_CHECKPOINT_BYTES = 32
_COMPARED_BYTES = 64
"""Compared directly before hashes are asked: most candidates differ sooner."""


class HashTable(NamedTuple):
    """Sorted hashes with a bit set before them and a directory of their first bits."""

    hashes: NDArray[np.uint64]
    """(num_entries,) ascending; repetitions are allowed."""
    starts: NDArray[np.int64]
    """(2^k + 1,) where the hashes with each value of their first k bits begin."""
    bits: NDArray[np.uint64]
    """(2^j,) word h has the three bits of each hash that begins with the j bits h set (`filter_bits`)."""
    shift: np.uint64
    """64 - k"""
    bit_shift: np.uint64
    """64 - j"""


class TextIndex(NamedTuple):
    """The normalised needles, and where to find them."""

    data: NDArray[np.uint8]
    """All needles in UTF-8, one after the other."""
    offsets: NDArray[np.int64]
    """(num_needles + 1,)"""
    hashes: NDArray[np.uint64]
    """(num_needles,) `text_hash` of each."""
    powers: NDArray[np.uint64]
    """(num_needles,) the base of the hash to the power of its length."""
    window_bytes: int
    stride: int
    is_wide: bool
    """Both are multiples of 8, and windows are hashed eight bytes at a time."""
    table: HashTable
    """Of the windows."""
    needles: NDArray[np.int64]
    """(num_entries,) the needle of each window."""
    places: NDArray[np.int64]
    """(num_entries,) the byte in the needle at which the window starts."""


class NgramIndex(NamedTuple):
    """The n-grams of the needles."""

    size: int
    """Words in an n-gram."""
    table: HashTable
    """Distinct n-grams."""
    offsets: NDArray[np.int64]
    """(num_ngrams + 1,) n-gram g is in the needles `needles[offsets[g]:offsets[g + 1]]`."""
    needles: NDArray[np.int64]
    counts: NDArray[np.int64]
    """(num_needles,) n-grams of each needle."""
    least: NDArray[np.int64]
    """(num_needles,) n-grams of it that a text holds at least to be found."""


@kernel
def _scan(
    data: NDArray[np.uint8],
    at: int,
    stop: int,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    out: NDArray[np.uint8],
    length: np.int64,
    word: np.uint64,
    words: NDArray[np.uint64],
    stops: NDArray[np.int64],
    num_words: int,
) -> tuple[int, np.int64, np.uint64, np.int64, bool]:
    """Normalises `data[at:stop]` and hashes the words that end in it.

    There is no branch on what an ASCII character is: a wrongly predicted branch costs more than the few
    operations that are done in vain, and source code has a word's end every few bytes.

    Args:
        data: UTF-8.
        at: where a character starts.
        stop: where to stop; the character that goes beyond it is read too.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.
        out: the normalised text; room for three bytes for every two, and four more.
        length: bytes in `out`.
        word: hash of the word's part before `at`, 0 outside a word.
        words: hashes of words are written here; room for one more than end in these bytes.
        stops: where they end in `data`, likewise.
        num_words: words in `words`.

    Returns:
        at, length, word, num_words, and whether a character was met that only `str.lower` lower-cases.
    """
    is_irregular = False
    length_, number = np.uint64(length), np.uint64(num_words)  # numba checks signed indices for being negative
    while at < stop:
        byte = data[np.uint64(at)]
        if byte < 0x80:
            width = 1
            out[length_] = LOWER[byte]
            length_ += np.uint64(KEPT[byte])
            letter = LETTERS[byte]
        else:
            code_point, width = decode(data, at)
            is_irregular |= code_point in (CAPITAL_SIGMA, CAPITAL_I_WITH_DOT)
            lowered = np.int64(lower_case[code_point])
            if not properties[code_point] & SPACE:
                length_ += np.uint64(_encode(lowered, out, np.int64(length_)))
            letter = mix(np.uint64(lowered)) if properties[code_point] & WORD else np.uint64(0)
        words[number] = word
        stops[number] = at
        number += np.uint64((letter == 0) & (word != 0))
        word = joined(word, letter) if letter else np.uint64(0)
        at += width
    return at, np.int64(length_), word, np.int64(number), is_irregular


@kernel
def _encode(code_point: np.int64, out: NDArray[np.uint8], at: np.int64) -> int:
    """Writes a code point beyond U+007F or an ASCII one in UTF-8, and returns its number of bytes."""
    if code_point < 0x80:  # the Kelvin sign's lower case is the letter k
        out[at] = code_point
        return 1
    if code_point < 0x800:
        out[at] = 0xC0 | (code_point >> 6)
        out[at + 1] = 0x80 | (code_point & 0x3F)
        return 2
    if code_point < 0x10000:
        out[at] = 0xE0 | (code_point >> 12)
        out[at + 1] = 0x80 | ((code_point >> 6) & 0x3F)
        out[at + 2] = 0x80 | (code_point & 0x3F)
        return 3
    out[at] = 0xF0 | (code_point >> 18)
    out[at + 1] = 0x80 | ((code_point >> 12) & 0x3F)
    out[at + 2] = 0x80 | ((code_point >> 6) & 0x3F)
    out[at + 3] = 0x80 | (code_point & 0x3F)
    return 4


@kernel
def source_places(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    wanted: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The characters that bytes of the normalised text come from.

    Args:
        data: UTF-8.
        start: of the text in `data`.
        stop: likewise.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.
        wanted: (num_places,) ascending places in the normalised text.

    Returns:
        (num_places, 2): where the character of each starts and ends, in bytes from `start`.
    """
    places = np.empty((len(wanted), 2), np.int64)
    number = 0
    length = 0
    at = start
    while at < stop and number < len(wanted):
        code_point, width = decode(data, at)
        if not properties[code_point] & SPACE:
            length += 3 if code_point == CAPITAL_I_WITH_DOT else _utf8_bytes(np.int64(lower_case[code_point]))
        while number < len(wanted) and wanted[number] < length:
            places[number, 0] = at - start
            places[number, 1] = at + width - start
            number += 1
        at += width
    return places


@kernel
def _utf8_bytes(code_point: np.int64) -> int:
    if code_point < 0x80:
        return 1
    if code_point < 0x800:
        return 2
    return 3 if code_point < 0x10000 else 4


@kernel
def _may_hold(bits: NDArray[np.uint64], bit_shift: np.uint64, value: np.uint64) -> np.bool_:
    asked = filter_bits(value)
    held: np.bool_ = bits[value >> bit_shift] & asked == asked
    return held


@kernel
def _first(table: HashTable, value: np.uint64) -> int:
    """The place of the first hash that is not smaller than `value`, in its part of the directory."""
    part = value >> table.shift
    place = int(table.starts[part])
    while place < table.starts[part + ONE] and table.hashes[place] < value:
        place += 1
    return place


@kernel
def find(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    texts: TextIndex,
    ngrams: NgramIndex,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The needles that are in each text.

    Args:
        offsets: see `corpus.buffers.TextBuffers`.
        data: see there.
        properties: `code_points.properties()`.
        lower_case: `code_points.lower_case()`.
        texts: of the needles.
        ngrams: likewise; an index without n-grams finds none.

    Returns:
        (num_found, 3): text, needle, first byte of its first occurrence in the normalised text;
        (num_found_by_ngrams, 5): text, needle, how many of its n-grams are there, where the first of them starts
        and the last ends in bytes from the start of the text;
        (num_texts,) which texts were not searched for whole needles, because only `str.lower` lower-cases them.
    """
    num_texts = len(offsets) - 1
    found = np.empty((256, 3), np.int64)
    found_ngrams = np.empty((256, 5), np.int64)
    num_found = 0
    num_found_ngrams = 0
    is_left = np.zeros(num_texts, np.bool_)
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    out = np.empty((longest + longest // 2 + 4 + 7) // 8 * 8, np.uint8)
    prefixes = np.empty(len(out) // _CHECKPOINT_BYTES + 1, np.uint64)
    firsts = np.full(len(texts.hashes), -1, np.int64)
    size = ngrams.size
    leaving = power(size)
    words = np.empty(size + _BLOCK_BYTES + 4, np.uint64)
    stops = np.empty(size + _BLOCK_BYTES + 4, np.int64)
    windows = np.empty(len(words), np.uint64)
    candidates = np.empty(max(len(words), len(out) // texts.stride + 1), np.int64)
    num_ngrams = len(ngrams.table.hashes)
    ngram_starts = np.empty(num_ngrams, np.int64)
    ngram_stops = np.full(num_ngrams, -1, np.int64)
    seen = np.empty(num_ngrams, np.int64)
    held = np.zeros(len(ngrams.counts), np.int64)
    for text in range(num_texts):
        at, stop = offsets[text], offsets[text + 1]
        length = np.int64(0)
        num_seen = 0
        word = np.uint64(0)
        window = np.uint64(0)
        words[:size] = 0
        while at < stop:
            block_stop = min(stop, at + _BLOCK_BYTES)
            at, length, word, num_words, is_irregular = _scan(
                data, at, block_stop, properties, lower_case, out, length, word, words, stops, size
            )
            is_left[text] |= is_irregular
            if at == stop and word:
                words[num_words] = word
                stops[num_words] = stop
                num_words += 1
            if num_ngrams == 0:
                continue
            window, num_seen = _roll(
                data, offsets[text], properties, lower_case, words, stops, windows, candidates, num_words,
                window, leaving, ngrams,
                ngram_starts, ngram_stops, seen, num_seen,
            )  # fmt: skip
            for number in range(size):
                words[number] = words[num_words - size + number]
                stops[number] = stops[num_words - size + number]
        if num_seen:
            found_ngrams, num_found_ngrams = _score(
                text, seen[:num_seen], ngram_starts, ngram_stops, ngrams, held, found_ngrams, num_found_ngrams
            )
        if not is_left[text]:
            found, num_found = _probe(text, out, length, texts, candidates, prefixes, firsts, found, num_found)
    return found[:num_found], found_ngrams[:num_found_ngrams], is_left


@kernel
def _probe(
    text: int,
    data: NDArray[np.uint8],
    length: np.int64,
    index: TextIndex,
    candidates: NDArray[np.int64],
    prefixes: NDArray[np.uint64],
    firsts: NDArray[np.int64],
    found: NDArray[np.int64],
    num_found: int,
) -> tuple[NDArray[np.int64], int]:
    """Adds the needles in the normalised text `data[:length]` to `found`, and returns it with its length.

    `candidates` and `prefixes` are scratch; `firsts` is -1 for every needle, and is so again in the end.
    """
    before = num_found
    has_prefixes = False
    if index.is_wide:
        num_candidates = _wide_candidates(
            data.view(np.uint64), length, index.window_bytes >> 3, index.stride >> 3, index.table.bits,
            index.table.bit_shift, candidates,
        )  # fmt: skip
    else:
        num_candidates = np.int64(0)
        for first in range(0, length - index.window_bytes + 1, index.stride):
            candidates[num_candidates] = first
            num_candidates += 1
    for candidate in candidates[:num_candidates]:
        place = int(candidate)
        value = _window_hash(data, place, index.window_bytes, index.is_wide)
        entry = _first(index.table, value)
        while entry < len(index.table.hashes) and index.table.hashes[entry] == value:
            needle = index.needles[entry]
            start = place - index.places[entry]
            entry += 1
            stop = start + index.offsets[needle + 1] - index.offsets[needle]
            if start < 0 or stop > length or 0 <= firsts[needle] <= start:
                continue
            compared = min(stop, start + _COMPARED_BYTES)
            if not _is_equal(data, start, compared, index.data, index.offsets[needle]):
                continue
            if compared < stop:
                if not has_prefixes:
                    _write_prefixes(data, length, prefixes)
                    has_prefixes = True
                whole = _prefix(data, prefixes, stop) - _prefix(data, prefixes, start) * index.powers[needle]
                if whole != index.hashes[needle]:
                    continue
                rest = index.offsets[needle] + compared - start
                if not _is_equal(data, compared, stop, index.data, rest):
                    continue
            if firsts[needle] < 0:
                if num_found == len(found):
                    found = _doubled(found)
                found[num_found, 0] = text
                found[num_found, 1] = needle
                num_found += 1
            firsts[needle] = start
    for number in range(before, num_found):
        found[number, 2] = firsts[found[number, 1]]
        firsts[found[number, 1]] = -1
    return found, num_found


@kernel
def _wide_candidates(
    words: NDArray[np.uint64],
    length: np.int64,
    window_words: int,
    stride_words: int,
    bits: NDArray[np.uint64],
    bit_shift: np.uint64,
    candidates: NDArray[np.int64],
) -> np.int64:
    """Writes the places whose windows a needle may have to `candidates`, and returns their number.

    `words` is the normalised text of `length` bytes, eight at a time; so are a window and a stride. This is the
    loop that reads everything, so it takes arrays and numbers only, and three words have a branch of their own.
    """
    num_candidates = np.uint64(0)
    for first in range(0, (length >> 3) - window_words + 1, stride_words):
        place = np.uint64(first)
        if window_words == 3:
            value = (words[place] * BASE + words[place + ONE]) * BASE + words[place + ONE + ONE]
        else:
            value = np.uint64(0)
            for number in range(window_words):
                value = value * BASE + words[first + number]
        candidates[num_candidates] = first << 3
        num_candidates += np.uint64(_may_hold(bits, bit_shift, mix(value)))
    return np.int64(num_candidates)


@kernel
def _window_hash(data: NDArray[np.uint8], place: int, window_bytes: int, is_wide: bool) -> np.uint64:
    """Of the window at `place`, as in the index."""
    if not is_wide:
        return mix(text_hash(data, place, place + window_bytes))
    value = np.uint64(0)
    for at in range(place, place + window_bytes, 8):
        value = value * BASE + word_at(data, at)
    return mix(value)


@kernel
def _is_equal(a: NDArray[np.uint8], start: int, stop: int, b: NDArray[np.uint8], b_start: int) -> bool:
    at = int(start)
    while at < stop and a[at] == b[b_start + at - start]:
        at += 1
    return at == stop


@kernel
def _write_prefixes(data: NDArray[np.uint8], length: np.int64, prefixes: NDArray[np.uint64]) -> None:
    value = np.uint64(0)
    for at in range(length + 1):
        if at % _CHECKPOINT_BYTES == 0:
            prefixes[at // _CHECKPOINT_BYTES] = value
        if at < length:
            value = value * BASE + np.uint64(data[at]) + ONE


@kernel
def _prefix(data: NDArray[np.uint8], prefixes: NDArray[np.uint64], stop: int) -> np.uint64:
    """`text_hash(data, 0, stop)`."""
    value: np.uint64 = prefixes[stop // _CHECKPOINT_BYTES]
    for at in range(stop - stop % _CHECKPOINT_BYTES, stop):
        value = value * BASE + np.uint64(data[at]) + ONE
    return value


@kernel
def _doubled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    larger = np.empty((2 * len(rows), rows.shape[1]), np.int64)
    for row in range(len(rows)):  # assigning a slice would compile for seconds: its errors are strings
        for column in range(rows.shape[1]):
            larger[row, column] = rows[row, column]
    return larger


@kernel
def _roll(
    data: NDArray[np.uint8],
    text_start: int,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
    words: NDArray[np.uint64],
    stops: NDArray[np.int64],
    windows: NDArray[np.uint64],
    candidates: NDArray[np.int64],
    num_words: np.int64,
    window: np.uint64,
    leaving: np.uint64,
    index: NgramIndex,
    ngram_starts: NDArray[np.int64],
    ngram_stops: NDArray[np.int64],
    seen: NDArray[np.int64],
    num_seen: int,
) -> tuple[np.uint64, int]:
    """Looks up the n-grams that end with `words[size:num_words]`, and returns the rolling hash and `num_seen`.

    The first `size` words are those before, already mixed; 0 stands for none. `seen[:num_seen]` are the text's
    n-grams so far; for them `ngram_starts` has where the first occurrence starts and `ngram_stops` where the last
    ends, and `ngram_stops` is -1 for the others. `windows` and `candidates` are scratch, as long as `words`: the
    filter is asked for all n-grams before the table is for any, so that memory is waited for once.
    """
    size = index.size
    behind = np.uint64(size)
    for number in range(np.uint64(size), np.uint64(num_words)):
        words[number] = mix(words[number])
        window = window * BASE + words[number] - words[number - behind] * leaving
        windows[number] = mix(window)
    bits, bit_shift = index.table.bits, index.table.bit_shift
    num_candidates = np.uint64(0)
    for number in range(np.uint64(size), np.uint64(num_words)):
        candidates[num_candidates] = number
        is_whole = words[number - behind + ONE] != 0
        num_candidates += np.uint64(is_whole & _may_hold(bits, bit_shift, windows[number]))
    for number in candidates[:num_candidates]:
        ngram = _first(index.table, windows[number])
        if ngram < len(index.table.hashes) and index.table.hashes[ngram] == windows[number]:
            if ngram_stops[ngram] < 0:
                first = _word_start(data, text_start, stops[number - size + 1], properties, lower_case)
                ngram_starts[ngram] = first - text_start
                seen[num_seen] = ngram
                num_seen += 1
            ngram_stops[ngram] = stops[number] - text_start
    return window, num_seen


@kernel
def _word_start(
    data: NDArray[np.uint8],
    text_start: int,
    stop: int,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
) -> int:
    """Where the word that ends at `stop` starts, by the rule of `_scan` read backwards."""
    start = stop
    while start > text_start:
        before = character_start(data, start - 1)
        letter, _ = letter_at(data, before, stop, properties, lower_case)
        if not letter:
            break
        start = before
    return start


@kernel
def _score(
    text: int,
    seen: NDArray[np.int64],
    ngram_starts: NDArray[np.int64],
    ngram_stops: NDArray[np.int64],
    index: NgramIndex,
    held: NDArray[np.int64],
    found: NDArray[np.int64],
    num_found: int,
) -> tuple[NDArray[np.int64], int]:
    """Adds the needles of which `seen` has enough to `found`, and returns it with its length.

    `held` is 0 for every needle and `ngram_stops` is -1 for every n-gram in the end.
    """
    before = num_found
    for ngram in seen:
        for place in range(index.offsets[ngram], index.offsets[ngram + 1]):
            needle = index.needles[place]
            held[needle] += 1
            if held[needle] == index.least[needle]:
                if num_found == len(found):
                    found = _doubled(found)
                found[num_found, 0] = text
                found[num_found, 1] = needle
                num_found += 1
    for row in range(before, num_found):
        needle = found[row, 1]
        found[row, 2] = held[needle]
        found[row, 3] = 0x7FFFFFFFFFFFFFFF
        found[row, 4] = 0
        held[needle] = -1 - row
    for ngram in seen:
        for place in range(index.offsets[ngram], index.offsets[ngram + 1]):
            row = -1 - held[index.needles[place]]
            if row >= 0:
                found[row, 3] = min(found[row, 3], ngram_starts[ngram])
                found[row, 4] = max(found[row, 4], ngram_stops[ngram])
    for ngram in seen:
        ngram_stops[ngram] = -1
        for place in range(index.offsets[ngram], index.offsets[ngram + 1]):
            held[index.needles[place]] = 0
    return found, num_found
