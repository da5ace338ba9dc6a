"""The hashed words of texts in less than half their room, for the shingles that comparisons ask for, compiled.

Signing leaves the shingles of every text behind, and comparisons read back those of a quarter. Eight bytes a
shingle are nearly the size of the text; and fresh pages, in which a system keeps what is written to a file, cost
more processor time than anything that is done with the shingles (on a virtual machine up to 2.5 ns a byte). So
what is left are the words that shingles are rolled from, and a word that the text has had is two bytes: the place
where a small table holds it. That is 3.5 bytes a word of source code, for 1.7 ns.

A table is a function of the words before, so whoever unpacks fills the same one. It has a place for each value of
a hash's highest bits, and is as large as the text needs, up to the first cache. Nothing is lost: words come back
bit by bit.

A record is the codes, four to a number, then the words that were not in the table, one to a number.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel

_MOST_BITS = 12
_FEWEST_BITS = 4
_NEW = np.uint16(0xFFFF)
_LAST = np.uint16((1 << _MOST_BITS) - 1)
_ONE = np.uint64(1)


def room(num_words: int, num_texts: int) -> int:
    """The most numbers that the records of texts take."""
    return num_words + num_words // 4 + num_texts


@kernel
def pack(words: NDArray[np.uint64], starts: NDArray[np.int64], out: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Writes a record for each text to `out`.

    Args:
        words: hashes, text `i` has `words[starts[i]:starts[i + 1]]`.
        starts: (num_texts + 1,)
        out: room for the records, `room(...)` numbers.

    Returns:
        (num_texts,) numbers of each record; they follow each other.
    """
    sizes = np.zeros(len(starts) - 1, np.int64)
    table = np.zeros(1 << _MOST_BITS, np.uint64)
    codes = out.view(np.uint16)
    at = np.uint64(0)
    for text in range(len(sizes)):
        own = words[starts[text] : starts[text + 1]]
        shift = _cleared(table, len(own))
        num_codes = np.uint64((len(own) + 3) >> 2)
        new = at + num_codes
        for number in range(np.uint64(len(own))):
            word = own[number]
            place = word >> shift
            is_held = table[place] == word
            table[place] = word
            out[new] = word
            new += _ONE - np.uint64(is_held)
            codes[np.uint64(4) * at + number] = np.uint16(place) if is_held else _NEW
        for number in range(np.uint64(len(own)), np.uint64(4) * num_codes):
            codes[np.uint64(4) * at + number] = 0
        sizes[text] = new - at
        at = new
    return sizes


@kernel
def unpack(
    records: NDArray[np.uint64], sizes: NDArray[np.int64], num_words: NDArray[np.int64], out: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Writes the words of some records to `out`.

    Args:
        records: one after the other.
        sizes: (num_texts,) numbers of each.
        num_words: (num_texts,)
        out: room for all words.

    Returns:
        (num_texts + 1,) where each text's words begin.
    """
    starts = np.zeros(len(sizes) + 1, np.int64)
    table = np.zeros(1 << _MOST_BITS, np.uint64)
    codes = records.view(np.uint16)
    first = 0
    for text in range(len(sizes)):
        own = out[starts[text] : starts[text] + num_words[text]]
        shift = _cleared(table, len(own))
        new = np.uint64(first + ((len(own) + 3) >> 2))
        last = np.uint64(len(records) - 1)
        for number in range(np.uint64(len(own))):
            code = codes[np.uint64(4 * first) + number]
            is_new = code == _NEW
            word = records[min(new, last)] if is_new else table[code & _LAST]
            new += np.uint64(is_new)
            table[word >> shift] = word
            own[number] = word
        first += sizes[text]
        starts[text + 1] = starts[text] + len(own)
    return starts


@kernel
def _cleared(table: NDArray[np.uint64], num_words: int) -> np.uint64:
    """Empties the part of the table that a text of so many words uses.

    Returns:
        By how much a word is shifted to its place.
    """
    bits = _FEWEST_BITS
    while bits < _MOST_BITS and (2 << bits) < num_words:
        bits += 1
    table[: 1 << bits] = 0
    return np.uint64(64 - bits)
