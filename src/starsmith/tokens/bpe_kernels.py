"""BPE over words: merges by rank, and a cache of words already merged.

Merging repeats one act: of all pairs of neighbours the one of lowest rank, and of equal ones the leftmost, becomes
one token. In short words the pair is looked for anew each time; in long ones it comes from a heap, because a
megabyte without a space would take quadratic time.

Source code repeats its words, so most are found in a cache: hash tables of fixed size, two entries to a bucket, of
which the one used longer ago gives way. They never grow and need no clearing. An entry holds the word itself, so a
result never depends on what was encoded before. A word of at most 15 bytes and 6 tokens takes half a cache line of
the processor; longer ones, of at most 64 bytes and 16 tokens, have a table of their own; others are merged anew.

An id takes 20 bits and a rank 24; `encoding.py` refuses larger vocabularies.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel

ID_BITS = 20
RANK_BITS = 24

SPARE_BYTES = 16
"""Words are read eight bytes at a time, past their ends."""
SHORT_BYTES = 15
SHORT_IDS = 6
_SHORT_ENTRY = 4
"""Numbers in an entry: two hold the word, with its length in the highest byte; two the ids, after their count."""
_SHORT_BUCKET = 2 * _SHORT_ENTRY
LONG_BYTES = 64
LONG_IDS = 16
_LONG_WORD = 1 + LONG_BYTES // 8
_LONG_ENTRY = _LONG_WORD + LONG_IDS // 2
"""Numbers in an entry: one holds the length and the count, then eight the word, and eight the ids."""
_LONG_BUCKET = 2 * _LONG_ENTRY
_CACHE_LINE = 64

_NO_MERGE = np.uint64((1 << RANK_BITS) - 1)
_ID_MASK = np.uint64((1 << ID_BITS) - 1)
_COUNT_MASK = np.uint64(15)
_BYTE_MASK = np.uint64(255)
_LOW_HALF = np.uint64((1 << 32) - 1)
_PLACE_MASK = np.uint64((1 << 40) - 1)
_ONES = np.uint64((1 << 64) - 1)
_MIX_1 = np.uint64(0x9E3779B97F4A7C15)
_MIX_2 = np.uint64(0xC2B2AE3D27D4EB4F)
# Indices are unsigned, since signed ones are checked for being negative; and an unsigned and a signed number make
# a signed one, so their constants are unsigned too.
_SHORT_BYTES, _SHORT_IDS, _LONG_BYTES, _LONG_IDS = map(np.uint64, (SHORT_BYTES, SHORT_IDS, LONG_BYTES, LONG_IDS))
_LONG_SIZE = np.uint64(_LONG_ENTRY)
_1, _2, _3, _4, _5, _6, _7, _8 = map(np.uint64, range(1, 9))
_16, _20, _24, _32, _40, _44, _48, _56, _64 = map(np.uint64, (16, 20, 24, 32, 40, 44, 48, 56, 64))


class Merges(NamedTuple):
    """A vocabulary, as kernels read it."""

    table: NDArray[np.uint64]
    """(a power of two,) pairs with their ranks, placed by a hash of the pair."""
    merged: NDArray[np.uint64]
    """(merges,) the id that a merge makes."""
    byte_ids: NDArray[np.uint64]
    """(256,) the id of each byte."""


class Cache(NamedTuple):
    """Words met and their ids, and room for the word in hand."""

    short: NDArray[np.uint64]
    """(buckets * _SHORT_BUCKET,), the number of buckets a power of two."""
    long: NDArray[np.uint64]
    """(buckets * _LONG_BUCKET,), likewise."""
    entry: NDArray[np.uint64]
    """(_LONG_ENTRY,) a long word as its entry would be."""
    symbols: NDArray[np.uint64]
    """(LONG_BYTES,) the tokens of a word that is being merged."""
    ranks: NDArray[np.uint64]
    """(LONG_BYTES,) the ranks of its pairs."""


def empty_cache(short_bits: int, long_bits: int) -> Cache:
    """A cache with 2 ** `short_bits` and 2 ** `long_bits` buckets, each short one within a cache line.

    Zeros will do: no word has no bytes. The system gives memory for what is touched only.
    """
    numbers = np.zeros((_SHORT_BUCKET << short_bits) + _CACHE_LINE // 8, np.uint64)
    skipped = -numbers.ctypes.data % _CACHE_LINE // 8
    return Cache(
        short=numbers[skipped : skipped + (_SHORT_BUCKET << short_bits)],
        long=np.zeros(_LONG_BUCKET << long_bits, np.uint64),
        entry=np.zeros(_LONG_ENTRY, np.uint64),
        symbols=np.zeros(LONG_BYTES, np.uint64),
        ranks=np.zeros(LONG_BYTES, np.uint64),
    )


# ---- words to ids


@kernel
def encode_words(
    data: NDArray[np.uint8],
    ends: NDArray[np.uint64],
    begin: np.uint64,
    bounds: NDArray[np.uint64],
    segment_ids: NDArray[np.int64],
    segment: int,
    counts: NDArray[np.int64],
    merges: Merges,
    cache: Cache,
    out: NDArray[np.uint32],
    num_ids: np.uint64,
) -> tuple[np.uint64, int]:
    """Writes the ids of words.

    Args:
        data: the texts, and `SPARE_BYTES` more that mean nothing.
        ends: (words,) where the words end; the first begins at `begin`, each other one where the last ended.
        begin: see `ends`.
        bounds: (segments + 1,) of the segments, see `pre_token_kernels.word_ends`.
        segment_ids: (segments,) likewise.
        segment: the segment that the last call reached; 0 at first.
        counts: (segments + 1,) receives the number of ids before each bound that is reached, but the first.
        merges: the vocabulary.
        cache: read and written.
        out: receives the ids, with room for one a byte and `SHORT_IDS` more.
        num_ids: how many `out` has already.

    Returns:
        The number of ids in `out`, and the segment that was reached.
    """
    table, merged, byte_ids = merges.table, merges.merged, merges.byte_ids
    short, long, entry, symbols, ranks = cache.short, cache.long, cache.entry, cache.symbols, cache.ranks
    bucket_mask = np.uint64(len(short) // _SHORT_BUCKET - 1)
    segment_id, stop = segment_ids[segment], bounds[segment + 1]
    for end in ends:
        length = end - begin
        if segment_id >= 0:
            out[num_ids] = segment_id
            num_ids += _1
        elif length == _1:
            out[num_ids] = byte_ids[data[begin]]
            num_ids += _1
        elif length <= _SHORT_BYTES:
            first = _load(data, begin) & (_ONES >> (_64 - min(length, _8) * _8))
            second = _load(data, begin + _8) & ((_1 << (max(length, _8) - _8) * _8) - _1) | length << _56
            at = (_mix(first * _MIX_1 ^ second * _MIX_2) >> _40 & bucket_mask) * _8
            if short[at] == first and short[at + _1] == second:
                low, high = short[at + _2], short[at + _3]
            elif short[at + _4] == first and short[at + _5] == second:
                low, high = short[at + _6], short[at + _7]
                _put_in_front(short, at, first, second, low, high)
            else:
                num_symbols = _merge(data, begin, length, table, merged, byte_ids, symbols, ranks)
                low, high = _packed(symbols, num_symbols)
                if num_symbols <= _SHORT_IDS:
                    _put_in_front(short, at, first, second, low, high)
                for number in range(SHORT_IDS, np.int64(num_symbols)):
                    out[num_ids + np.uint64(number)] = symbols[number]
            # three ids are written in any case: a jump that depends on their number costs more
            out[num_ids] = low >> _4 & _ID_MASK
            out[num_ids + _1] = low >> _24 & _ID_MASK
            out[num_ids + _2] = low >> _44
            if low & _COUNT_MASK > _3:
                out[num_ids + _3] = high & _ID_MASK
                out[num_ids + _4] = high >> _20 & _ID_MASK
                out[num_ids + _5] = high >> _40
            num_ids += low & _COUNT_MASK
        elif length <= _LONG_BYTES:
            at = _find_long(data, begin, length, long, entry)
            if entry[0] > 0:
                num_ids = _put_long(long, at, out, num_ids)
            else:
                num_symbols = _merge(data, begin, length, table, merged, byte_ids, symbols, ranks)
                if num_symbols <= _LONG_IDS:
                    _add_long(long, at, entry, length, symbols, num_symbols)
                num_ids = _put(symbols, num_symbols, out, num_ids)
        else:
            num_ids = _merge_by_heap(data, begin, end, table, merged, byte_ids, out, num_ids)
        begin = end
        if begin == stop:
            segment += 1
            counts[segment] = num_ids
            if segment == len(segment_ids):
                break
            segment_id, stop = segment_ids[segment], bounds[segment + 1]
    return num_ids, segment


@kernel
def _put_in_front(
    table: NDArray[np.uint64], at: np.uint64, first: np.uint64, second: np.uint64, low: np.uint64, high: np.uint64
) -> None:
    """Makes an entry the first of its bucket and the first one the second."""
    other = at + _4
    table[other], table[other + _1] = table[at], table[at + _1]
    table[other + _2], table[other + _3] = table[at + _2], table[at + _3]
    table[at], table[at + _1], table[at + _2], table[at + _3] = first, second, low, high


@kernel
def _packed(symbols: NDArray[np.uint64], count: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Up to six ids and their count in two numbers; what lies beyond the count means nothing."""
    low = count | symbols[0] << _4 | symbols[1] << _24 | symbols[2] << _44
    return low, symbols[3] | symbols[4] << _20 | symbols[5] << _40


@kernel
def _find_long(
    data: NDArray[np.uint8],
    begin: np.uint64,
    length: np.uint64,
    table: NDArray[np.uint64],
    entry: NDArray[np.uint64],
) -> np.uint64:
    """Makes an entry of a word of at most `LONG_BYTES` bytes; where its bucket begins.

    If the bucket holds the word, it is in front afterwards, and `entry[0]` is positive.
    """
    value = length
    read = np.uint64(0)
    for number in range(1, _LONG_WORD):
        eight = np.uint64(0)
        if read < length:
            eight = _load(data, begin + read)
            if length - read < _8:
                eight &= _ONES >> (_64 - (length - read) * _8)
        entry[number] = eight
        value = _mix(value * _MIX_2 ^ eight)
        read += _8
    at = (value >> _40 & np.uint64(len(table) // _LONG_BUCKET - 1)) * np.uint64(_LONG_BUCKET)
    entry[0] = 0
    if _holds(table, at, entry, length):
        entry[0] = 1
    elif _holds(table, at + _LONG_SIZE, entry, length):
        entry[0] = 1
        for number in range(_LONG_ENTRY):
            front = at + np.uint64(number)
            table[front], table[front + _LONG_SIZE] = table[front + _LONG_SIZE], table[front]
    return at


@kernel
def _holds(table: NDArray[np.uint64], at: np.uint64, entry: NDArray[np.uint64], length: np.uint64) -> bool:
    """Whether an entry of the table is of the word in `entry`."""
    if table[at] >> _8 != length:
        return False
    differing = np.uint64(0)
    for number in range(1, _LONG_WORD):
        differing |= table[at + np.uint64(number)] ^ entry[number]
    return bool(differing == 0)


@kernel
def _add_long(
    table: NDArray[np.uint64],
    at: np.uint64,
    entry: NDArray[np.uint64],
    length: np.uint64,
    symbols: NDArray[np.uint64],
    count: np.uint64,
) -> None:
    """Completes an entry and puts it in front of its bucket, whose first becomes the second."""
    entry[0] = length << _8 | count
    for number in range(LONG_IDS // 2):
        entry[_LONG_WORD + number] = symbols[2 * number] | symbols[2 * number + 1] << _32
    for number in range(_LONG_ENTRY):
        front = at + np.uint64(number)
        table[front + _LONG_SIZE] = table[front]
        table[front] = entry[number]


@kernel
def _put_long(table: NDArray[np.uint64], at: np.uint64, out: NDArray[np.uint32], num_ids: np.uint64) -> np.uint64:
    for number in range(np.int64(table[at] & _BYTE_MASK)):
        pair = table[at + np.uint64(_LONG_WORD + number // 2)]
        out[num_ids] = pair >> _32 if number & 1 else pair & _LOW_HALF
        num_ids += _1
    return num_ids


@kernel
def _put(symbols: NDArray[np.uint64], count: np.uint64, out: NDArray[np.uint32], num_ids: np.uint64) -> np.uint64:
    for number in range(np.int64(count)):
        out[num_ids] = symbols[number]
        num_ids += _1
    return num_ids


@kernel
def _mix(value: np.uint64) -> np.uint64:
    """Lets every bit of a number move its highest 24, which choose a place in a table."""
    mixed: np.uint64 = (value ^ value >> _32) * _MIX_1
    return mixed


@kernel
def _load(data: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    """Eight bytes as a number, the first lowest. The compiler makes one instruction of it."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + _1]) << _8
        | np.uint64(data[at + _2]) << _16
        | np.uint64(data[at + _3]) << _24
        | np.uint64(data[at + _4]) << _32
        | np.uint64(data[at + _5]) << _40
        | np.uint64(data[at + _6]) << _48
        | np.uint64(data[at + _7]) << _56
    )


# ---- merging


@kernel
def _merge(
    data: NDArray[np.uint8],
    begin: np.uint64,
    length: np.uint64,
    table: NDArray[np.uint64],
    merged: NDArray[np.uint64],
    byte_ids: NDArray[np.uint64],
    symbols: NDArray[np.uint64],
    ranks: NDArray[np.uint64],
) -> np.uint64:
    """Leaves the tokens of a word of 2 to `LONG_BYTES` bytes in `symbols`; their number."""
    slot_mask = np.uint64(len(table) - 1)
    last = int(np.int64(length)) - 1
    for number in range(last + 1):
        symbols[number] = byte_ids[data[begin + np.uint64(number)]]
    changed, unchanged = 0, last
    while True:
        for number in range(changed, unchanged):
            pair = symbols[number] << _20 | symbols[number + 1]
            slot = _mix(pair * _MIX_2) >> _40 & slot_mask
            while table[slot] >> _24 != pair and table[slot] != _ONES:
                slot = (slot + _1) & slot_mask
            ranks[number] = table[slot] & _NO_MERGE
        lowest, place = _NO_MERGE, 0
        for number in range(last):
            if ranks[number] < lowest:
                lowest, place = ranks[number], number
        if lowest == _NO_MERGE:
            break
        symbols[place] = merged[lowest]
        last -= 1
        for number in range(place + 1, last + 1):
            symbols[number] = symbols[number + 1]
        for number in range(place + 1, last):
            ranks[number] = ranks[number + 1]
        changed, unchanged = max(place - 1, 0), min(place + 1, last)
    return np.uint64(last + 1)


@kernel
def _merge_by_heap(
    data: NDArray[np.uint8],
    begin: np.uint64,
    end: np.uint64,
    table: NDArray[np.uint64],
    merged: NDArray[np.uint64],
    byte_ids: NDArray[np.uint64],
    out: NDArray[np.uint32],
    num_ids: np.uint64,
) -> np.uint64:
    """Writes the tokens of a word of any length, in time that grows little faster than the length.

    It takes 48 bytes of memory a byte. The heap holds pairs as rank and place; one that has another rank by now,
    or none, is passed over: the merge of a neighbour has changed it.
    """
    length = int(np.int64(end - begin))
    symbols = np.empty(length, np.uint64)
    before, after = np.empty(length, np.int64), np.empty(length, np.int64)
    ranks = np.full(length, _NO_MERGE)
    heap = np.empty(2 * length, np.uint64)  # each merge takes one pair off and puts two on at most
    size = 0
    for place in range(length):
        symbols[place] = byte_ids[data[begin + np.uint64(place)]]
        before[place], after[place] = place - 1, place + 1
    for place in range(length - 1):
        ranks[place] = _rank(table, symbols[place], symbols[place + 1])
        size = _push(heap, size, ranks[place], place)
    while size > 0:
        rank, place = heap[0] >> _40, int(np.int64(heap[0] & _PLACE_MASK))
        size = _pop(heap, size)
        if ranks[place] != rank:
            continue
        gone = after[place]
        symbols[place] = merged[rank]
        ranks[place] = ranks[gone] = _NO_MERGE
        after[place] = following = after[gone]
        if following < length:
            before[following] = place
            ranks[place] = _rank(table, symbols[place], symbols[following])
            size = _push(heap, size, ranks[place], place)
        previous = before[place]
        if previous >= 0:
            ranks[previous] = _rank(table, symbols[previous], symbols[place])
            size = _push(heap, size, ranks[previous], previous)
    place = 0
    while place < length:
        out[num_ids] = symbols[place]
        num_ids += _1
        place = after[place]
    return num_ids


@kernel
def _push(heap: NDArray[np.uint64], size: int, rank: np.uint64, place: int) -> int:
    """Puts on a pair that can be merged; the size."""
    if rank == _NO_MERGE:
        return size
    pair = rank << _40 | np.uint64(place)
    at = size
    while at > 0 and heap[(at - 1) >> 1] > pair:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = pair
    return size + 1


@kernel
def _pop(heap: NDArray[np.uint64], size: int) -> int:
    """Takes the lowest pair off; the size."""
    size -= 1
    pair = heap[size]
    at = 0
    child = 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= pair:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = pair
    return size


# ---- pairs


@kernel
def _rank(table: NDArray[np.uint64], left: np.uint64, right: np.uint64) -> np.uint64:
    """The rank of a pair, or `_NO_MERGE`."""
    pair = left << _20 | right
    last = np.uint64(len(table) - 1)
    slot = _mix(pair * _MIX_2) >> _40 & last
    while table[slot] >> _24 != pair and table[slot] != _ONES:
        slot = (slot + _1) & last
    rank: np.uint64 = table[slot] & _NO_MERGE
    return rank


@kernel
def merge_table(lefts: NDArray[np.uint64], rights: NDArray[np.uint64], num_slots: int) -> NDArray[np.uint64]:
    """`Merges.table` of pairs in the order of their ranks; a pair named twice has its last one.

    Args:
        lefts: (merges,) ids.
        rights: (merges,) ids.
        num_slots: a power of two greater than the number of merges.
    """
    table = np.full(num_slots, _ONES)
    last = np.uint64(num_slots - 1)
    for rank in range(len(lefts)):
        pair = lefts[rank] << _20 | rights[rank]
        slot = _mix(pair * _MIX_2) >> _40 & last
        while table[slot] != _ONES and table[slot] >> _24 != pair:
            slot = (slot + _1) & last
        table[slot] = pair << _24 | np.uint64(rank)
    return table
