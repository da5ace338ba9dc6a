r"""Where words end, before BPE: digits stand alone, the rest is split by GPT-2's expression, in one pass.

The expression is `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. Splitting digits
first makes each number a word, and what lies between two numbers a text of its own: white space before a number
is at an end, and is one word. Elsewhere white space leaves its last character for the word that follows, which
takes it if it is a space.

All of this is decided by a machine of eleven states that reads characters by kind. A step may end a word before
the character just read, before the one read before it (the last of some white space; the letter after an
apostrophe that was no English ending after all), or both. The ends are written without a branch and count if the
step says so: words of source code are three or four bytes long, and a processor that guesses wrong once a word is
five times slower.

A word's end does not depend on what stands before the word. A pass can therefore stop at any end and go on there,
and its results fit a buffer of any size.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals.code_points import decode
from starsmith.tokens.character_classes import LETTER, NUMBER, OTHER, SPACE, classes_of_code_points

# Kinds of characters: the classes (0 to 3), and those of ASCII that need more than their class.
_BLANK, _APOSTROPHE, _S_T_M_D, _R_V, _L, _E, _NOT_ASCII = range(4, 11)
_LETTERS = (LETTER, _S_T_M_D, _R_V, _L, _E)
_WHITE = (SPACE, _BLANK)

# States: what has been read of the word in hand.
_NOTHING = 0
_IN_LETTERS = 1
_IN_OTHERS = 2
_COMPLETE = 3
"""A number or an English ending: whatever follows is another word."""
_ONE_BLANK = 4
_ONE_SPACE = 5
"""White space that a word cannot begin with."""
_SPACES_BLANK = 6
"""More of it, the last of which is a blank."""
_SPACES = 7
_AFTER_APOSTROPHE = 8
_AFTER_R_V = 9
"""An apostrophe and one of these letters."""
_AFTER_L = 10
_NUM_STATES = 11

# A transition is the next state, and whether a word ends before the last character and before this one.
_STATE_SHIFT = 4
_ENDS_BEFORE_LAST = 1
_ENDS_HERE = 2
_NUM_KINDS = 1 << _STATE_SHIFT

_STATE_MASK = np.uint64(0xFF << _STATE_SHIFT)
_UNDECIDED = np.uint64(_AFTER_R_V << _STATE_SHIFT)
"""From this state on, the end of the text ends a word before its last character too."""
_ONE = np.uint64(1)
_NOT_ASCII_KIND = np.uint64(_NOT_ASCII)

SPARE_ENDS = 4
"""What two steps may add."""


@kernel
def word_ends(
    data: NDArray[np.uint8],
    bounds: NDArray[np.uint64],
    segment_ids: NDArray[np.int64],
    segment: int,
    at: np.uint64,
    kinds: NDArray[np.uint64],
    classes: NDArray[np.uint8],
    transitions: NDArray[np.uint64],
    ends: NDArray[np.uint64],
) -> tuple[int, int, np.uint64]:
    """Splits segments into words until they or the room for results end.

    Args:
        data: valid UTF-8.
        bounds: (segments + 1,) ascending and distinct; segment `i` is `data[bounds[i]:bounds[i + 1]]`.
        segment_ids: (segments,) the id of a segment that is one token whatever it holds, else negative.
        segment: where to go on, as the last call said; 0 at first.
        at: likewise; `bounds[0]` at first, and always less than `bounds[-1]`.
        kinds: `kinds_of_bytes()`.
        classes: `classes_of_code_points()`.
        transitions: `transitions()`.
        ends: receives the ends of the words; the first begins at `at`, each other one where the last ended. It
            has room for more than `SPARE_ENDS`.

    Returns:
        The number of words, and the segment and byte where the next call goes on.
    """
    num_words = np.uint64(0)
    room = np.uint64(len(ends) - SPARE_ENDS)
    for number in range(segment, len(segment_ids)):
        if num_words >= room:
            return int(np.int64(num_words)), number, at
        stop = bounds[number + 1]
        if segment_ids[number] >= 0:
            ends[num_words] = stop
            num_words += _ONE
            at = stop
            continue
        state = np.uint64(_NOTHING)
        last = at
        while at < stop and num_words < room:
            kind = kinds[data[at]]
            following = at + _ONE
            if kind == _NOT_ASCII_KIND:
                code_point, width = decode(data, int(np.int64(at)))
                kind = np.uint64(classes[code_point])
                following = at + np.uint64(width)
            state = transitions[(state & _STATE_MASK) | kind]
            ends[num_words] = last
            num_words += state & _ONE
            ends[num_words] = at
            num_words += (state >> _ONE) & _ONE
            last = at
            at = following
        if num_words >= room:
            # the word in hand is read again
            return int(np.int64(num_words)), number, np.uint64(ends[num_words - _ONE])
        ends[num_words] = last
        num_words += np.uint64(state >= _UNDECIDED)
        ends[num_words] = stop
        num_words += _ONE
    return int(np.int64(num_words)), len(segment_ids), at


@functools.cache
def kinds_of_bytes() -> NDArray[np.uint64]:
    """(256,): the kind of each character of ASCII, and `_NOT_ASCII`."""
    table = np.full(256, _NOT_ASCII, np.uint64)
    table[:128] = classes_of_code_points()[:128]
    for characters, kind in (
        (" ", _BLANK),
        ("'", _APOSTROPHE),
        ("stmd", _S_T_M_D),
        ("rv", _R_V),
        ("l", _L),
        ("e", _E),
    ):
        table[list(characters.encode())] = kind
    return table


@functools.cache
def transitions() -> NDArray[np.uint64]:
    """(states * kinds,): by state and kind of the character read, the next state and which words end."""
    table = np.zeros((_NUM_STATES, _NUM_KINDS), np.uint64)
    for state in range(_NUM_STATES):
        for kind in range(_NOT_ASCII):
            following, ends = _step(state, kind)
            table[state, kind] = following << _STATE_SHIFT | ends
    return table.reshape(-1)


def _step(state: int, kind: int) -> tuple[int, int]:
    """The next state, and which words end."""
    is_letter, is_white, is_other = kind in _LETTERS, kind in _WHITE, kind in (OTHER, _APOSTROPHE)
    goes_on: dict[int, tuple[bool, int]] = {
        _IN_LETTERS: (is_letter, _IN_LETTERS),
        _IN_OTHERS: (is_other, _IN_OTHERS),
        _AFTER_R_V: (kind == _E, _COMPLETE),
        _AFTER_L: (kind == _L, _COMPLETE),
    }
    if state == _NOTHING:
        return _begin(kind), 0
    if state in goes_on and goes_on[state][0]:
        return goes_on[state][1], 0
    if state in (_AFTER_R_V, _AFTER_L):  # the apostrophe was a word
        return _begin(kind), _ENDS_BEFORE_LAST | (0 if is_letter else _ENDS_HERE)
    if state == _AFTER_APOSTROPHE:
        ending = {_S_T_M_D: _COMPLETE, _R_V: _AFTER_R_V, _L: _AFTER_L, OTHER: _IN_OTHERS, _APOSTROPHE: _IN_OTHERS}
        return (ending[kind], 0) if kind in ending else (_begin(kind), _ENDS_HERE)
    if state in (_ONE_BLANK, _ONE_SPACE, _SPACES_BLANK, _SPACES):
        if is_white:
            return (_SPACES_BLANK if kind == _BLANK else _SPACES), 0
        ends = 0 if state in (_ONE_BLANK, _ONE_SPACE) or kind == NUMBER else _ENDS_BEFORE_LAST
        if state in (_ONE_BLANK, _SPACES_BLANK) and kind != NUMBER:
            return (_IN_LETTERS if is_letter else _IN_OTHERS), ends
        return _begin(kind), ends | _ENDS_HERE
    return _begin(kind), _ENDS_HERE


def _begin(kind: int) -> int:
    """The state after the first character of a word."""
    if kind in _LETTERS:
        return _IN_LETTERS
    return {
        OTHER: _IN_OTHERS,
        _APOSTROPHE: _AFTER_APOSTROPHE,
        NUMBER: _COMPLETE,
        _BLANK: _ONE_BLANK,
        SPACE: _ONE_SPACE,
    }[kind]
