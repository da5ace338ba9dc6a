r"""Letters and hashes that needles and contents must agree on, compiled.

Kernels of other files are compiled with these in them and are not compiled anew when these change
(`corpus.kernels`): who changes a definition here deletes the cache of compiled kernels.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import WORD, decode

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Of all polynomials."""
ONE = np.uint64(1)
SIX_BITS = np.uint64(63)

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S6, _S8, _S11, _S12, _S27, _S30, _S31, _S53 = (np.uint64(bits) for bits in (6, 8, 11, 12, 27, 30, 31, 53))


def _splitmix64(value: int) -> int:
    value = (value ^ (value >> 30)) * int(_MIX_1) % 2**64
    value = (value ^ (value >> 27)) * int(_MIX_2) % 2**64
    return value ^ (value >> 31)


def _ascii_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint64]]:
    lower, kept, words = (np.zeros(256, np.uint8) for _ in range(3))
    for code_point in range(128):
        character = chr(code_point)
        lower[code_point] = ord(character.lower())
        kept[code_point] = not character.isspace()
        words[code_point] = ord(character.lower()) if character.isalnum() or character == "_" else 0
    words[128:] = 255
    return lower, kept, words, np.array([_splitmix64(letter) for letter in words.tolist()], np.uint64)


LOWER, KEPT, _WORDS, LETTERS = _ascii_tables()
"""Of each ASCII byte: its lower case, whether it is kept, and for word characters the lower case and its hash."""


@kernel
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64-bit numbers that moves half of the output by each bit of the input (splitmix64)."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@kernel
def text_hash(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """The polynomial of the bytes `data[start:stop]`."""
    value = np.uint64(0)
    for at in range(start, stop):
        value = value * BASE + np.uint64(data[at]) + ONE
    return value


@kernel
def power(exponent: int) -> np.uint64:
    """The base of `text_hash` to a power."""
    value = ONE
    for _ in range(exponent):
        value *= BASE
    return value


@kernel
def joined(word: np.uint64, letter: np.uint64) -> np.uint64:
    """The hash of a word with one more letter, by the letter's hash.

    A cyclic polynomial: it waits less for the letter before than a multiplication would, and only swapping
    letters that stand 64 apart leaves it the same.
    """
    return ((word << _S11) | (word >> _S53)) + letter


@kernel
def letter_at(
    data: NDArray[np.uint8],
    at: int,
    stop: int,
    properties: NDArray[np.uint8],
    lower_case: NDArray[np.uint32],
) -> tuple[np.uint64, int]:
    """The lower-cased character at a place, 0 where it is not of a word, and its bytes, 0 beyond the text."""
    if at >= stop:
        return np.uint64(0), 0
    letter = np.uint64(_WORDS[data[at]])
    if letter != 255:
        return letter, 1
    code_point, width = decode(data, at)
    if properties[code_point] & WORD:
        return np.uint64(lower_case[code_point]), width
    return np.uint64(0), width


@kernel
def filter_bits(value: np.uint64) -> np.uint64:
    """Three bits of a word, by the last 18 bits of a hash."""
    first, second, third = value & SIX_BITS, (value >> _S6) & SIX_BITS, (value >> _S12) & SIX_BITS
    return (ONE << first) | (ONE << second) | (ONE << third)


@kernel
def word_at(data: NDArray[np.uint8], at: int) -> np.uint64:
    """Eight bytes as the number that they are in the memory of a little-endian machine, as numba's all are."""
    value = np.uint64(0)
    for number in range(7, -1, -1):
        value = (value << _S8) | np.uint64(data[at + number])
    return value
