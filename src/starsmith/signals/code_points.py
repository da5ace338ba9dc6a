"""What Python knows about each Unicode code point, as tables that compiled kernels can index.

`str.isalpha`, `str.lower`, `\\b` and `\\s` are defined over all of Unicode. A kernel that only knew ASCII would
measure Chinese comments as "not alphabetic" and find word boundaries inside French names. The tables are
built from Python's own methods at first use (about 0.3 seconds, 5.5 MB), so the two cannot differ; a new
Python with a newer Unicode is a new result, which the version of a signal has to tell.
"""

import functools
import sys

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel

NUM_CODE_POINTS = sys.maxunicode + 1

ALPHABETIC = 1
"""`str.isalpha`"""
ALPHANUMERIC = 2
"""`str.isalnum`"""
WORD = 4
"""`\\w`: alphanumeric or the low line"""
SPACE = 8
"""`\\s` and `str.isspace`"""


@functools.cache
def properties() -> NDArray[np.uint8]:
    """(NUM_CODE_POINTS,): the sum of the properties above that each code point has."""
    characters = [chr(code_point) for code_point in range(NUM_CODE_POINTS)]
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    for has_property, value in (
        (str.isalpha, ALPHABETIC),
        (str.isalnum, ALPHANUMERIC | WORD),
        (str.isspace, SPACE),
    ):
        table[np.fromiter(map(has_property, characters), np.bool_, NUM_CODE_POINTS)] |= value
    table[ord("_")] |= WORD
    return table


@functools.cache
def lower_case() -> NDArray[np.uint32]:
    """(NUM_CODE_POINTS,): the lower case of each code point where that is one code point, else itself.

    Only U+0130 has a longer one. `str.lower` also writes a capital sigma at the end of a word as the final
    sigma; here it is the same letter everywhere.
    """
    lowered = (chr(code_point).lower() for code_point in range(NUM_CODE_POINTS))
    codes = (ord(text) if len(text) == 1 else code_point for code_point, text in enumerate(lowered))
    return np.fromiter(codes, np.uint32, NUM_CODE_POINTS)


@kernel
def decode(data: NDArray[np.uint8], at: int) -> tuple[np.int64, int]:
    """The code point that starts at byte `at` of valid UTF-8, and its number of bytes."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | (data[at + 1] & 0x3F), 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | np.int64(data[at + 1] & 0x3F) << 6 | (data[at + 2] & 0x3F), 3
    high = (first & 0x07) << 18 | np.int64(data[at + 1] & 0x3F) << 12
    return high | np.int64(data[at + 2] & 0x3F) << 6 | (data[at + 3] & 0x3F), 4


@kernel
def character_start(data: NDArray[np.uint8], at: int) -> int:
    """The byte at which the character that holds byte `at` starts."""
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return at
