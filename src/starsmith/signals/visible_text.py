"""The visible text of HTML, by one pass over its bytes (definition: `text_definitions.visible_chars`).

The HTML rule of section 1.4 asks how much of a page a reader would see. A tree builder answers more than is
asked and pays for it: on nested unclosed elements its time grows with the square of the length. Here each byte is
read once and nothing is kept.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import SPACE, decode

_RAW_TEXT = np.array([list(b"script"), [*b"style", 0]], np.uint8)
"""Elements whose content is not text, padded with 0."""
_LESS, _GREATER, _SLASH, _BANG, _QUESTION, _EQUALS, _AMPERSAND, _HASH, _SEMICOLON = b"<>/!?=&#;"
_DASH, _QUOTE, _APOSTROPHE, _X = b"-\"'x"
_MAX_NAME_BYTES, _MAX_DECIMAL_BYTES, _MAX_HEX_BYTES = 32, 7, 6


@kernel
def visible_chars(data: NDArray[np.uint8], start: int, stop: int, properties: NDArray[np.uint8]) -> int:
    """The number of visible characters of the HTML in `data[start:stop]`."""
    visible = 0
    spaces = 0  # since the last visible character: they count only if another one follows
    at = start
    while at < stop:
        if data[at] == _LESS:
            after = _skip_markup(data, at, stop)
            if after > at:
                at = after
                continue
        code_point, width = decode(data, at)
        at += width
        if properties[code_point] & SPACE:
            spaces += visible > 0
        else:
            visible += spaces + 1
            spaces = 0
            if code_point == _AMPERSAND:
                at += _reference_bytes(data, at, stop)
    return visible


@kernel
def _skip_markup(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """Where the markup that opens at `at` ends; `at` itself when the sign is text."""
    if at + 1 >= stop:
        return at
    second = data[at + 1]
    if _is_letter(second):
        after = _tag_end(data, at + 1, stop)
        for name in _RAW_TEXT:
            if _is_element(data, at + 1, stop, name):
                return _raw_text_end(data, after, stop, name)
        return after
    if second == _SLASH and at + 2 < stop and _is_letter(data[at + 2]):
        return _tag_end(data, at + 2, stop)
    if second == _BANG and at + 3 < stop and data[at + 2] == _DASH and data[at + 3] == _DASH:
        return _comment_end(data, at + 4, stop)
    if second in (_BANG, _QUESTION, _SLASH):
        at += 2
        while at < stop and data[at] != _GREATER:
            at += 1
        return min(at + 1, stop)
    return at


@kernel
def _tag_end(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """After the ">" of a tag; a quotation counts only as the value of an attribute."""
    after_equals = False
    while at < stop:
        byte = data[at]
        at += 1
        if byte == _GREATER:
            break
        if after_equals and byte in (_QUOTE, _APOSTROPHE):
            while at < stop and data[at] != byte:
                at += 1
            at = min(at + 1, stop)
            after_equals = False
        else:
            after_equals = byte == _EQUALS or (after_equals and _is_blank(byte))
    return at


@kernel
def _comment_end(data: NDArray[np.uint8], at: int, stop: int) -> int:
    while at + 2 < stop:
        if data[at] == _DASH and data[at + 1] == _DASH and data[at + 2] == _GREATER:
            return at + 3
        at += 1
    return stop


@kernel
def _raw_text_end(data: NDArray[np.uint8], at: int, stop: int, name: NDArray[np.uint8]) -> int:
    """The "<" of the end tag of a raw-text element; it is then skipped as any tag."""
    while at + 2 < stop:
        if data[at] == _LESS and data[at + 1] == _SLASH and _is_element(data, at + 2, stop, name):
            return at
        at += 1
    return stop


@kernel
def _is_element(data: NDArray[np.uint8], at: int, stop: int, name: NDArray[np.uint8]) -> bool:
    for letter in name:
        if letter == 0:
            break
        if at >= stop or (data[at] | 32) != letter:
            return False
        at += 1
    return at < stop and (data[at] == _GREATER or data[at] == _SLASH or _is_blank(data[at]))


@kernel
def _reference_bytes(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """The bytes of the character reference whose "&" stands before `at`; 0 if it is none."""
    first = at
    is_number = first < stop and data[first] == _HASH
    is_hex = is_number and first + 1 < stop and (data[first + 1] | 32) == _X
    first += is_number + is_hex
    limit = _MAX_HEX_BYTES if is_hex else _MAX_DECIMAL_BYTES if is_number else _MAX_NAME_BYTES
    end = first
    while end < stop and end - first < limit:
        byte = data[end]
        is_digit = 48 <= byte <= 57
        if is_hex:
            belongs = is_digit or (97 <= (byte | 32) <= 102)
        elif is_number:
            belongs = is_digit
        else:
            belongs = _is_letter(byte) or (is_digit and end > first)
        if not belongs:
            break
        end += 1
    return end + 1 - at if end > first and end < stop and data[end] == _SEMICOLON else 0


@kernel
def _is_letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@kernel
def _is_blank(byte: int) -> bool:
    return byte in (9, 10, 12, 13, 32)
