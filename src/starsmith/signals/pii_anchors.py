"""The places of a text at which a rule for personal data could match, found in one compiled pass.

Almost no byte of a source is near a secret, so nothing slow may look at every byte. One automaton (Aho and
Corasick, 1975, as a dense table) reads each byte once, in lower case, and stops at the anchors of all rules:
"@", ".", ":", the prefixes of token formats, words such as `password` or `copyright`. At each stop a look at the
bytes around it, of bounded length, decides whether the rule could match there. What is left is a handful of
anchors a file, which the rules (`pii_addresses`, `pii_secrets`, `pii_names`) then judge.

The look must never refuse an anchor at which the rule would have found something; the rules judge by themselves,
and give the same findings when they are tried at every anchor. Each look reads at most `LONGEST_LOOK` bytes, so
time is linear in the text for any input.
"""

import functools
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel
from starsmith.signals import pii_keys

EMAIL, IPV4, IPV6, TOKEN, INNER_TOKEN, ASSIGNED, BEARER, URL, PEM, NAME, COMMAND = range(11)
"""Families of anchors: which rules are tried, and which look is taken."""

IS_SECRET, IS_PASSWORD = 0, 1
"""What an assigned name promises."""

LONGEST_LOOK = 1_024
NAME_BYTES = 160
"""A lead such as `Copyright` and the names behind it lie within so many bytes."""

PASSWORD_NAMES = (b"pass", b"pwd")
SECRET_NAMES = (b"key", b"secret", b"token", b"credential", b"auth")
NAME_LEADS = (
    b"author", b"copyright", b"(c)", b"\xc2\xa9", b"-by:", b"written by", b"created by", b"developed by",
    b"maintained by", b"contributed by", b"implemented by", b"modified by", b"ported by", b"designed by",
    b"maintainer", b"contributor",
)  # fmt: skip
COMMANDS = (b"mysql", b"sshpass", b"curl", b"wget", b"--password", b"--passwd", b"ldap", b"mongo")

_WORD, _LOCAL, _DOMAIN, _DIGIT, _HEX, _BODY, _NAME, _VALUE, _LETTER, _CAPITAL = (1 << bit for bit in range(10))
_QUOTES = b"\"'`"


class Anchor(NamedTuple):
    """One place. `start` and `end` are the anchor's own bytes, `number` says which of its family it is."""

    family: int
    number: int
    start: int
    end: int


class Automaton(NamedTuple):
    """The dense automaton; states are offsets into `moves`, those that end a keyword come last."""

    byte_classes: NDArray[np.uint8]
    """(256,): the column of each byte, upper case as lower."""
    moves: NDArray[np.uint16]
    """(num_states * num_classes,): the next state."""
    first_ending: int
    """States from here on end a keyword."""
    starts: NDArray[np.int64]
    """(num_states + 1,): where a state's keywords begin in `keywords`."""
    keywords: NDArray[np.int64]
    """(num_ends, 7): family, number, length; then how many bytes behind are of which alphabet, and before."""


class Keyword(NamedTuple):
    """One entry of the automaton."""

    word: bytes
    """In lower case."""
    family: int
    number: int = 0
    min_before: int = 0
    """Characters that a match has before it, of the alphabet `before`."""
    min_after: int = 0
    """Characters that a match has behind it, of the alphabet `after`."""
    before: pii_keys.Alphabet = "token"
    after: pii_keys.Alphabet = "token"


def keyword_table() -> tuple[Keyword, ...]:
    """Every keyword of every rule."""
    rows = [
        Keyword(b"@", EMAIL), Keyword(b"://", URL), Keyword(b"-----begin", PEM),
        Keyword(b"bearer", BEARER), Keyword(b"basic", BEARER, 1),
    ]  # fmt: skip
    rows += [Keyword(b"%c." % digit, IPV4) for digit in b"0123456789"]
    rows += [Keyword(b"%c:" % digit, IPV6) for digit in b"0123456789abcdef"]
    for word, number in pii_keys.keywords():
        rule = pii_keys.KEY_RULES[number]
        family = INNER_TOKEN if rule.lookback else TOKEN
        rows.append(Keyword(word, family, number, rule.min_before, rule.min_body, rule.before, rule.alphabet))
    rows += [Keyword(word, ASSIGNED, IS_SECRET) for word in SECRET_NAMES]
    rows += [Keyword(word, ASSIGNED, IS_PASSWORD) for word in PASSWORD_NAMES]
    rows += [Keyword(word, NAME, number) for number, word in enumerate(NAME_LEADS)]
    rows += [Keyword(word, COMMAND, number) for number, word in enumerate(COMMANDS)]
    return tuple(rows)


@functools.cache
def automaton() -> Automaton:
    """The automaton of `keyword_table`."""
    table = keyword_table()
    used = sorted({byte for keyword in table for byte in keyword.word})
    byte_classes = np.zeros(256, np.uint8)
    for number, byte in enumerate(used, start=1):
        byte_classes[byte] = number
        byte_classes[ord(chr(byte).upper()) if 97 <= byte <= 122 else byte] = number
    num_classes = len(used) + 1
    children: list[dict[int, int]] = [{}]
    ends: list[list[int]] = [[]]
    for row, keyword in enumerate(table):
        state = 0
        for byte in keyword.word:
            column = int(byte_classes[byte])
            if column not in children[state]:
                children[state][column] = len(children)
                children.append({})
                ends.append([])
            state = children[state][column]
        ends[state].append(row)
    moves = np.zeros((len(children), num_classes), np.int64)
    fallback = [0] * len(children)
    waiting = deque([0])
    while waiting:  # breadth first, so that a state's fallback is complete before the state
        state = waiting.popleft()
        for column in range(num_classes):
            other = int(moves[fallback[state], column]) if state else 0
            child = children[state].get(column)
            moves[state, column] = other if child is None else child
            if child is not None:
                fallback[child] = other
                ends[child] = ends[child] + ends[other]
                waiting.append(child)
    order = sorted(range(len(children)), key=lambda state: (bool(ends[state]), state))
    place = np.zeros(len(children), np.int64)
    place[order] = np.arange(len(children))
    rows = [row for state in order for row in ends[state]]
    starts = np.cumsum([0, *(len(ends[state]) for state in order)]).astype(np.int64)
    keywords = np.array([_row(table[row]) for row in rows], np.int64)
    if len(order) * num_classes > np.iinfo(np.uint16).max:
        raise AssertionError("more states than 16 bits can name: widen `moves`")
    flat = (place[moves[order]] * num_classes).astype(np.uint16).reshape(-1)
    return Automaton(byte_classes, flat, sum(not ends[s] for s in order) * num_classes, starts, keywords)


def _row(keyword: Keyword) -> tuple[int, ...]:
    bits = {"token": _BODY, "alnum": _LETTER | _DIGIT, "hex": _HEX, "digit": _DIGIT}
    after, before = (keyword.min_after, bits[keyword.after]), (keyword.min_before, bits[keyword.before])
    return (keyword.family, keyword.number, len(keyword.word), *after, *before)


def _byte_bits() -> NDArray[np.uint16]:
    digits, hexadecimal = b"0123456789", b"0123456789ABCDEFabcdef"
    letters = bytes(range(65, 91)) + bytes(range(97, 123))
    members = (
        (_WORD, letters + digits + b"_"),
        (_LOCAL, letters + digits + b"_%+-"),
        (_DOMAIN, letters + digits + b"-."),
        (_DIGIT, digits),
        (_HEX, hexadecimal),
        (_BODY, letters + digits + b"_-+/=.~%:@|"),
        (_NAME, letters + digits + b"_.-"),
        (_VALUE, bytes(byte for byte in range(33, 127) if byte not in _QUOTES)),
        (_LETTER, letters),
        (_CAPITAL, bytes(range(65, 91)) + bytes(range(0xC3, 0xF5))),
    )
    bits = np.zeros(256, np.uint16)
    for bit, values in members:
        bits[np.frombuffer(values, np.uint8)] |= np.uint16(bit)
    bits.setflags(write=False)
    return bits


_BITS = _byte_bits()


def find_anchors(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Anchors of many texts.

    Args:
        offsets: (num_texts + 1,), where texts begin and end in `data`.
        data: UTF-8.

    Returns:
        (num_anchors, 5), ordered by place: number of the text, then family, number, start and end of the anchor in
        bytes of its text.
    """
    machine = automaton()
    return _scan(
        _read_only(offsets),
        _read_only(data),
        machine.byte_classes,
        machine.moves,
        machine.first_ending,
        machine.starts,
        machine.keywords,
        _BITS,
    )


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that is read-only, so that the kernel is compiled once for arrays of either kind."""
    view = array.view()
    view.setflags(write=False)
    return view


@kernel
def _scan(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    byte_classes: NDArray[np.uint8],
    moves: NDArray[np.uint16],
    first_ending: int,
    starts: NDArray[np.int64],
    keywords: NDArray[np.int64],
    bits: NDArray[np.uint16],
) -> NDArray[np.int64]:
    num_classes = np.int64(byte_classes.max()) + 1
    found = np.empty((1024, 5), np.int64)
    num_found = 0
    for text in range(len(offsets) - 1):
        first, stop = offsets[text], offsets[text + 1]
        state = np.int64(0)
        for at in range(first, stop):
            state = np.int64(moves[state + byte_classes[data[at]]])
            if state < first_ending:
                continue
            row = state // num_classes
            for entry in range(starts[row], starts[row + 1]):
                end = at + 1
                start = end - keywords[entry, 2]
                if not _could_match(data, first, stop, start, end, keywords[entry], bits):
                    continue
                if num_found == len(found):
                    grown = np.empty((2 * num_found, 5), np.int64)
                    grown[:num_found] = found
                    found = grown
                found[num_found, 0] = text
                found[num_found, 1] = keywords[entry, 0]
                found[num_found, 2] = keywords[entry, 1]
                found[num_found, 3] = start - first
                found[num_found, 4] = end - first
                num_found += 1
    return found[:num_found].copy()


@kernel
def _could_match(
    data: NDArray[np.uint8],
    first: int,
    stop: int,
    start: int,
    end: int,
    keyword: NDArray[np.int64],
    bits: NDArray[np.uint16],
) -> bool:
    """The look of a keyword's family at an anchor `start..end` of the text `first..stop`."""
    family, number, after, before = keyword[0], keyword[1], keyword[3], keyword[5]
    if family == IPV4:
        return _looks_ipv4(data, first, stop, end - 1, bits)
    if family == IPV6:
        return _looks_ipv6(data, first, stop, end - 1, bits)
    if family == EMAIL:
        return _looks_email(data, first, stop, start, bits)
    if family == ASSIGNED:
        return _looks_assigned(data, stop, end, number, bits)
    if family == TOKEN:
        if start > first and bits[data[start]] & _WORD and bits[data[start - 1]] & _WORD:
            return False
        return _all_have(data, stop, end, after, bits, keyword[4])
    if family == INNER_TOKEN:
        return (
            start - before >= first
            and _all_have(data, stop, end, after, bits, keyword[4])
            and _all_have(data, stop, start - before, before, bits, keyword[6])
        )
    if family == URL:
        return _looks_url(data, stop, end)
    if family == NAME:
        return _looks_named(data, stop, end, bits)
    if family == BEARER:
        return end < stop and (data[end] == ord(" ") or data[end] == ord("\t"))
    if family == COMMAND:
        return _looks_command(data, stop, end)
    return True


@kernel
def _all_have(
    data: NDArray[np.uint8], stop: int, start: int, count: int, bits: NDArray[np.uint16], wanted: int
) -> bool:
    if start + count > stop:
        return False
    at = start
    while at < start + count and bits[data[at]] & wanted:
        at += 1
    return at == start + count


@kernel
def _looks_email(data: NDArray[np.uint8], first: int, stop: int, at: int, bits: NDArray[np.uint16]) -> bool:
    """A mailbox's character before, then a domain with a letter behind a dot."""
    if at == first or at + 1 == stop or not bits[data[at - 1]] & _LOCAL or not bits[data[at + 1]] & _WORD:
        return False
    for place in range(at + 2, min(stop - 1, at + 320)):
        if not bits[data[place]] & _DOMAIN:
            return False
        if data[place] == ord(".") and bits[data[place + 1]] & _LETTER:
            return True
    return False


@kernel
def _looks_ipv4(data: NDArray[np.uint8], first: int, stop: int, at: int, bits: NDArray[np.uint16]) -> bool:
    """The first dot of four short numbers that stand alone."""
    if at == first or not bits[data[at - 1]] & _DIGIT:
        return False
    start = at - 1
    while start > first and bits[data[start - 1]] & _DIGIT:
        start -= 1
        if at - start > 3:
            return False
    if start > first and (bits[data[start - 1]] & _NAME):
        return False
    place = at
    for _ in range(3):
        if place >= stop or data[place] != ord("."):
            return False
        place += 1
        digits = 0
        while place < stop and digits < 4 and bits[data[place]] & _DIGIT:
            place += 1
            digits += 1
        if digits == 0 or digits == 4:
            return False
    return place == stop or not bits[data[place]] & _WORD


@kernel
def _looks_ipv6(data: NDArray[np.uint8], first: int, stop: int, at: int, bits: NDArray[np.uint16]) -> bool:
    """The first colon of an address in 2000::/3, which begins with four hexadecimal digits."""
    if at - 4 < first or at + 1 >= stop or (data[at - 4] != ord("2") and data[at - 4] != ord("3")):
        return False
    for place in range(at - 3, at):
        if not bits[data[place]] & _HEX:
            return False
    return bool(data[at + 1] == ord(":") or bits[data[at + 1]] & _HEX)


@kernel
def _skip_blanks(data: NDArray[np.uint8], stop: int, at: int, most: int) -> int:
    limit = min(stop, at + most)
    while at < limit and (data[at] == ord(" ") or data[at] == ord("\t")):
        at += 1
    return at


@kernel
def _is_quote(byte: int) -> bool:
    return byte in (34, 39, 96)  # double, single, back


@kernel
def _looks_assigned(data: NDArray[np.uint8], stop: int, at: int, number: int, bits: NDArray[np.uint16]) -> bool:
    """The rest of a name, an operator, and a value."""
    limit = min(stop, at + 65)
    while at < limit and bits[data[at]] & _NAME:
        at += 1
    for _ in range(3):
        if at < stop and (_is_quote(data[at]) or data[at] == ord("]") or data[at] == ord("\\")):
            at += 1
    at = _skip_blanks(data, stop, at, 16)
    if at >= stop:
        return False
    operator = data[at]
    if operator != ord("=") and operator != ord(":") and operator != ord(">"):
        return False
    at += 1
    if at < stop and (data[at] == ord("=") or data[at] == ord(">")):
        at += 1
    at = _skip_blanks(data, stop, at, 16)
    if _value_follows(data, stop, at, number, bits):
        return True
    if operator == ord(":") and at < stop and bits[data[at]] & _LETTER:  # a type between the colon and the value
        limit = min(stop, at + 24)
        while at < limit and bits[data[at]] & _NAME:
            at += 1
        at = _skip_blanks(data, stop, at, 16)
        if at < stop and data[at] == ord("="):
            return _value_follows(data, stop, _skip_blanks(data, stop, at + 1, 16), number, bits)
    return False


@kernel
def _value_follows(data: NDArray[np.uint8], stop: int, at: int, number: int, bits: NDArray[np.uint16]) -> bool:
    """A value, quoted or not, that has the least length, and a digit and a letter or for passwords any sign."""
    if at + 1 < stop and data[at] == ord("\\") and _is_quote(data[at + 1]):
        at += 1
    quoted = at < stop and _is_quote(data[at])
    at += quoted
    limit = min(stop, at + 512)
    start = at
    seen = 0
    others = False
    cut = False
    while at < limit and bits[data[at]] & _VALUE:
        seen |= bits[data[at]]
        others |= not bits[data[at]] & _LETTER
        cut |= data[at] == ord("<") or (number == IS_PASSWORD and data[at] == ord(";"))
        at += 1
    if quoted and (at == stop or not _is_quote(data[at])):
        return False
    if not quoted and not cut and at == limit and at < stop:
        return False  # a run without an end is no value
    if number == IS_PASSWORD:
        return at - start >= 4 and others
    return at - start >= (12 if quoted else 16) and seen & _DIGIT != 0 and seen & _LETTER != 0


@kernel
def _looks_url(data: NDArray[np.uint8], stop: int, at: int) -> bool:
    """A colon, then an at sign, before anything that ends the authority of a URL."""
    limit = min(stop, at + 200)
    colon = False
    while at < limit:
        byte = data[at]
        if byte == ord("@"):
            return colon
        if byte <= 32 or byte == ord("/") or _is_quote(byte) or byte == ord("<") or byte == ord(">"):
            return False
        colon |= byte == ord(":")
        at += 1
    return False


@kernel
def _looks_named(data: NDArray[np.uint8], stop: int, at: int, bits: NDArray[np.uint16]) -> bool:
    """Two words that begin with a capital; a byte of a letter beyond ASCII may always begin one."""
    limit = min(stop, at + NAME_BYTES)
    words = 0
    inside = False
    while at < limit:
        byte = data[at]
        letter = bits[byte] & _LETTER != 0
        if bits[byte] & _CAPITAL and not (inside and letter):
            words += 1
            if words == 2:
                return True
        inside = letter
        at += 1
    return False


@kernel
def _looks_command(data: NDArray[np.uint8], stop: int, at: int) -> bool:
    """A blank or an equals sign follows somewhere on the line, and an option or a value behind it."""
    limit = min(stop, at + 200)
    while at < limit and data[at] != ord("\n"):
        if data[at] == ord(" ") or data[at] == ord("="):
            return True
        at += 1
    return False
