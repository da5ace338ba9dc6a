"""Randomness that depends on what it is for, and on nothing else.

Each use names its identity, such as (seed, "fim", epoch, document, file). A BLAKE2b hash of the identity keys
Philox, a counter-based generator; so a draw does not depend on the order of other draws, on workers or on where a
run was resumed. Only Philox's raw 64-bit words are used, which NumPy keeps stable from version to version, and
turned into numbers here; the methods of `numpy.random.Generator` carry no such promise.
"""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

Identity = str | int


def _key(identity: tuple[Identity, ...], num_bytes: int) -> bytes:
    """JSON keeps ("a", "b") and ("ab",), and 1 and "1", apart."""
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=num_bytes).digest()


class Draws:
    """A sequence of draws that belongs to one identity."""

    def __init__(self, *identity: Identity) -> None:
        self._words = np.random.Philox(key=int.from_bytes(_key(identity, 16), "little"))

    def uniform(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return float(int(self._words.random_raw()) >> 11) * 2.0**-53

    def integer(self, bound: int) -> int:
        """A whole number in [0, bound); the bias is below bound / 2**64."""
        return (int(self._words.random_raw()) * bound) >> 64

    def order(self, count: int) -> NDArray[np.int64]:
        """A random order of `count` things."""
        return np.argsort(self._words.random_raw(count), kind="stable").astype(np.int64)


class Permutation:
    """A random order of 0 .. size-1 that is computed at any place without being stored.

    A Feistel network over the next even number of bits, keyed by the identity; values beyond the size are sent
    through again until they fall inside (cycle walking), fewer than four times on average. Memory is constant and
    so is the time to resume, however many documents there are.
    """

    _ROUNDS = 8

    def __init__(self, size: int, *identity: Identity) -> None:
        if size < 1:
            raise ValueError(f"a permutation needs at least one element, got {size}")
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half_bits) - 1
        self._key = _key(identity, 32)

    def __getitem__(self, position: int) -> int:
        """The element at a position in [0, size)."""
        if not 0 <= position < self.size:
            raise IndexError(position)
        value = self._scramble(position)
        while value >= self.size:
            value = self._scramble(value)
        return value

    def _scramble(self, value: int) -> int:
        left, right = value >> self._half_bits, value & self._mask
        for number in range(self._ROUNDS):
            message = number.to_bytes(1, "little") + right.to_bytes(8, "little")
            word = hashlib.blake2b(message, key=self._key, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(word, "little") & self._mask)
        return (left << self._half_bits) | right
