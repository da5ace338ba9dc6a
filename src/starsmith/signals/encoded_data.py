r"""Matches of the three encoded-data expressions, by state machines over UTF-8 bytes.

The expressions are those of rule 4 of section 1.4 (`text_definitions.ENCODED_DATA`); the results are exactly
those of `re.finditer`, at some hundred times its speed. Why each machine is right:

* A match consists of the bytes of its expression's alphabet alone and has a least length (64, 23 and 48).
  `_next_run` finds the runs of such bytes that are long enough by looking at every 64th, 23rd or 48th byte
  and around it when that byte belongs, so most of a source file is never touched.
* base64: a run is the match.
* unicode: units are six bytes that start with a backslash, which occurs nowhere else in a unit. So units
  cannot overlap, a chain of them starts in one place only, and a chain too short holds no longer one.
* hex: a unit is determined by where it starts (its prefix, its comma and the whitespace after it leave no
  second way that could be continued: no unit starts with a comma or whitespace). A `\b` stands before the
  digits of a unit or before its backslash, and inside a unit there is none before a digit; so again no chain
  starts inside a unit of another, and the search continues at the end of a chain whether it was long enough
  or not.

Both ends of every step move forward: each byte is looked at a bounded number of times. `\b` and `\s` are
Unicode's, by the tables of `code_points`.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import SPACE, WORD, character_start, decode

_MIN_UNITS = 8
_MIN_BASE64_BYTES = 64
_MIN_UNICODE_BYTES = 6 * _MIN_UNITS
_MIN_HEX_BYTES = 3 * _MIN_UNITS - 1  # two digits and a separator each; the last needs no separator


def _alphabet(characters: str, *, non_ascii: bool = False) -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(characters.encode("ascii"))] = True
    table[128:] = non_ascii
    return table


_HEX_DIGITS = "0123456789abcdefABCDEF"
BASE64_BYTES = _alphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\n=")
UNICODE_BYTES = _alphabet("\\u" + _HEX_DIGITS)
HEX_BYTES = _alphabet("\\x," + _HEX_DIGITS + "\t\n\v\f\r \x1c\x1d\x1e\x1f", non_ascii=True)
"""Whitespace beyond ASCII may stand in a match, so every byte beyond ASCII is a candidate."""
_HEX_DIGIT = _alphabet(_HEX_DIGITS)

_BACKSLASH, _COMMA, _ZERO, _U, _X = (ord(character) for character in "\\,0ux")


@kernel
def encoded_data(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], properties: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """(num_texts, 6): longest match and characters in all matches, for base64, hex and unicode in turn."""
    num_texts = len(offsets) - 1
    spans = np.zeros((num_texts, 6), np.int64)
    for text in range(num_texts):
        start, stop = offsets[text], offsets[text + 1]
        spans[text, 0], spans[text, 1] = _base64(data, start, stop)
        spans[text, 2], spans[text, 3] = _hex(data, start, stop, properties)
        spans[text, 4], spans[text, 5] = _unicode(data, start, stop)
    return spans


@kernel
def _next_run(
    data: NDArray[np.uint8], at: int, stop: int, alphabet: NDArray[np.bool_], min_bytes: int
) -> tuple[int, int]:
    """The first run of at least `min_bytes` bytes of the alphabet; (stop, stop) if there is none.

    The byte before `at`, if any, is not of the alphabet.
    """
    probe = at + min_bytes - 1
    while probe < stop:
        end = probe
        if alphabet[data[probe]]:
            first = probe
            while first > at and alphabet[data[first - 1]]:
                first -= 1
            end = probe + 1
            while end < stop and alphabet[data[end]]:
                end += 1
            if end - first >= min_bytes:
                return first, end
        at = end + 1
        probe = at + min_bytes - 1
    return stop, stop


@kernel
def _base64(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int]:
    longest = 0
    total = 0
    first, end = _next_run(data, start, stop, BASE64_BYTES, _MIN_BASE64_BYTES)
    while first < stop:
        longest = max(longest, end - first)
        total += end - first
        first, end = _next_run(data, end, stop, BASE64_BYTES, _MIN_BASE64_BYTES)
    return longest, total


@kernel
def _unicode(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int]:
    longest = 0
    total = 0
    first, end = _next_run(data, start, stop, UNICODE_BYTES, _MIN_UNICODE_BYTES)
    while first < stop:
        at = first
        while at < end:
            num_units = 0
            while _is_unicode_unit(data, at, end):
                num_units += 1
                at += 6
            if num_units >= _MIN_UNITS:
                longest = max(longest, 6 * num_units)
                total += 6 * num_units
            elif num_units == 0:
                at += 1
        first, end = _next_run(data, end, stop, UNICODE_BYTES, _MIN_UNICODE_BYTES)
    return longest, total


@kernel
def _is_unicode_unit(data: NDArray[np.uint8], at: int, end: int) -> bool:
    if at + 6 > end or data[at] != _BACKSLASH or data[at + 1] != _U:
        return False
    digits = data[at + 2 : at + 6]
    return bool(
        _HEX_DIGIT[digits[0]] and _HEX_DIGIT[digits[1]] and _HEX_DIGIT[digits[2]] and _HEX_DIGIT[digits[3]]
    )


@kernel
def _hex(data: NDArray[np.uint8], start: int, stop: int, properties: NDArray[np.uint8]) -> tuple[int, int]:
    longest = 0
    total = 0
    first, end = _next_run(data, start, stop, HEX_BYTES, _MIN_HEX_BYTES)
    while first < stop:
        at = first
        while at < end:
            num_units = 0
            num_chars = 0
            unit_bytes, unit_chars = _hex_unit(data, at, start, stop, properties)
            while unit_bytes:
                num_units += 1
                num_chars += unit_chars
                at += unit_bytes
                unit_bytes, unit_chars = _hex_unit(data, at, start, stop, properties)
            if num_units >= _MIN_UNITS:
                longest = max(longest, num_chars)
                total += num_chars
            elif num_units == 0:
                at += 1
        first, end = _next_run(data, end, stop, HEX_BYTES, _MIN_HEX_BYTES)
    return longest, total


@kernel
def _hex_unit(
    data: NDArray[np.uint8], at: int, start: int, stop: int, properties: NDArray[np.uint8]
) -> tuple[int, int]:
    """The bytes and characters of the unit that starts at `at`; (0, 0) if none does."""
    if at + 2 > stop:
        return 0, 0
    digits = at
    starts_with_word = True
    if data[at] == _BACKSLASH:
        if data[at + 1] != _X:
            return 0, 0
        digits += 2
        starts_with_word = False
    elif not _HEX_DIGIT[data[at]]:
        return 0, 0
    elif data[at] == _ZERO and data[at + 1] == _X:
        digits += 2
    after = digits + 2
    if after > stop or not _HEX_DIGIT[data[digits]] or not _HEX_DIGIT[data[digits + 1]]:
        return 0, 0
    if _is_word_before(data, at, start, properties) == starts_with_word:
        return 0, 0
    num_chars = after - at
    if after < stop and data[after] == _COMMA:
        return num_chars + 1, num_chars + 1
    if after < stop and properties[decode(data, after)[0]] & WORD:
        return 0, 0
    while after < stop:
        code_point, width = decode(data, after)
        if not properties[code_point] & SPACE:
            break
        after += width
        num_chars += 1
    return after - at, num_chars


@kernel
def _is_word_before(data: NDArray[np.uint8], at: int, start: int, properties: NDArray[np.uint8]) -> bool:
    if at == start:
        return False
    code_point = decode(data, character_start(data, at - 1))[0]
    return bool(properties[code_point] & WORD)
