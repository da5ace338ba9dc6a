"""Names of people where a file says who wrote it (section 3.2).

A rule cannot tell a name from other words, so it only looks where names stand: `@author`, `Author:`,
`__author__`, the author fields of package metadata, `Copyright (c) YEAR`, trailers of commits
(`Signed-off-by:`), "written by", and in front of `<address>`. There it takes two to five capitalised words, of
which one may be an initial, and leaves what a word gives away as an organisation or a project. Names of one
word, in capitals only, or in scripts without capitals are not found; nor are names anywhere else.
"""

import re
from collections.abc import Iterator

from starsmith.signals.pii_anchors import NAME_BYTES, NAME_LEADS, Anchor
from starsmith.signals.pii_findings import Finding, compiled

_BEFORE_BYTES = 80
_MAX_NAMES = 16

_FULL = r"\p{Lu}(?:['\x{2019}]\p{Lu})?\p{Ll}+(?:\p{Lu}\p{Ll}+)?(?:['\x{2019}\-]\p{L}\p{Ll}+){0,2}"
_INITIAL = r"\p{Lu}\.?(?:-?\p{Lu}\.)?"
_PARTICLE = "(?:[Vv]an|[Vv]on|de|der|den|[Dd]a|[Dd]i|del|[Ll]a|[Ll]e|dos|du|ter|ten|bin|ibn|al|el|y|zu)"
NAME = rf"(?:{_FULL}|{_INITIAL})(?:[ \t](?:(?:{_INITIAL}|{_PARTICLE})[ \t]){{0,2}}{_FULL}){{1,3}}"
"""Two to five words, the last written out."""

_YEARS = r"(?:19|20)[0-9]{2}(?:[ \t]?(?:-|\x{2013}|,|/|to)[ \t]?(?:(?:19|20)?[0-9]{2}|present|now))*"
_MARK = r"(?:\([Cc]\)|©|&copy;)"
_OPENING = r"(?:[\[({][ \t\r\n]{0,12})*(?:[\"']?name[\"']?[ \t]{0,4}[:=][ \t]{0,4})?[\"'`]{0,3}"
_FIELD = rf"s?(?:\(s\))?(?:[_ ]?names?)?(?:__)?[\"'\]\\]{{0,2}}[ \t]{{0,12}}(?:=>|[:=])[ \t]{{0,12}}{_OPENING}"
_TAG = rf"s?(?:[ \t:\-]{{1,12}}|\{{){_OPENING}"
_COPYRIGHT = (
    rf"s?[ \t]{{0,4}}[:,]?[ \t]{{0,4}}(?:{_MARK}[ \t,]{{0,4}}(?:{_YEARS})?|{_YEARS}(?:[ \t]{{0,4}}{_MARK})?|by)"
    r"[ \t,:]{0,4}(?:by[ \t]{1,4}|held by[ \t]{1,4})?"
)
_DATED = rf"[ \t,]{{0,4}}{_YEARS}[ \t,:]{{0,4}}(?:by[ \t]{{1,4}})?"
_SPACE = r"[ \t:]{1,4}"
_TRAILER = r"[ \t]{1,4}"
_SEPARATOR = (
    r"(?:[ \t]?[<(][^<>()\n]{0,80}[>)])?[\"'`]?"
    r"(?:[ \t]?[},][ \t]{0,4}(?:\{[ \t]?name[ \t]?=[ \t]?)?|[ \t]?[;&][ \t]?|"
    r"[ \t]?,?[ \t](?:and|und|et|y)[ \t])[\"'`]?"
)

_LEADS: tuple[str, ...] = tuple(
    {
        b"author": _FIELD,
        b"maintainer": _FIELD,
        b"contributor": _FIELD,
        b"copyright": _COPYRIGHT,
        b"-by:": _TRAILER,
    }.get(lead, _DATED if lead in (b"(c)", "©".encode()) else _SPACE)
    for lead in NAME_LEADS
)

NOT_NAMES = frozenset(
    """
    inc ltd llc gmbh corp corporation company companies co foundation project projects team teams authors author
    contributors contributor developers developer group groups university universität institute institut laboratory
    laboratories lab labs technologies technology tech software systems system solutions consortium association
    committee community network networks networking research center centre department ministry government
    national international open source free google microsoft apple facebook oracle intel ibm red hat sun
    microsystems amazon web services service apache mozilla linux the all rights reserved licensed license
    licence version this that these those copyright and or of for by in on to with from an is are was not no new
    other others any some each your our their we you it its if see unless please note none null true false
    unknown name names email address user admin owner example test sample todo python java javascript ruby perl
    rust node react angular django android chrome chromium firefox windows mac ubuntu debian fedora gnome gnu kde
    qt unix digital media design designs studio studios games game entertainment interactive publishing press
    news bank trust council office agency federal state united states american european institution school
    college academy society union club league federation alliance partners holdings ventures industries
    enterprise enterprises consulting engineering electronics semiconductor semiconductors robotics devices
    instruments computing computer computers data information internet communications telecom mobile cloud
    security library framework toolkit package module plugin plug extension theme template application app apps
    api code file documentation manual guide reference standard standards specification working permission
    redistribution general public creative commons common attribution mit bsd isc palo alto hewlett packard
    advanced micro silicon graphics texas bell january february march april may june july august september
    october november december monday tuesday wednesday thursday friday saturday sunday first last full default
    original main current initial auto automatically generated created modified updated date time description
    title status type class method function field value list array string number object index page post comment
    comments profile information
    """.encode().split()
)
"""Words that no name of a person has, or that mark an organisation, a project or running text."""

_NEXT_WORD = re.compile(rb"[ \t]{0,4},?[ \t]{0,4}([A-Za-z.]+)")
_WORD = re.compile(rb"[^\s.'\-]+")
_ORGANISATION_SUFFIXES = frozenset(
    b"inc inc. ltd ltd. llc gmbh corp corp. co. corporation limited s.a. ag b.v.".split()
)


def names(text: bytes, anchor: Anchor) -> Iterator[Finding]:
    """The names behind a lead such as `Copyright`, within `NAME_BYTES`."""
    limit = min(len(text), anchor.end + NAME_BYTES)
    window = text[anchor.end : limit]
    lead = _lead(text, anchor, window)
    at = None if lead is None else lead
    for _ in range(_MAX_NAMES):
        if at is None:
            return
        match = compiled(NAME).match(window[at:])
        if match is None:
            return
        start, end = at, at + match.end()
        if end == len(window) and limit < len(text):
            return  # the window cuts the name
        if is_name(window, start, end):
            yield Finding("NAME", anchor.end + start, anchor.end + end, _detector(anchor.number))
        separator = compiled(_SEPARATOR).match(window[end:])
        at = None if separator is None else end + separator.end()


def _lead(text: bytes, anchor: Anchor, window: bytes) -> int | None:
    """Where the first name would begin in the window behind the lead's word."""
    before = text[anchor.start - 1 : anchor.start] if anchor.start else b""
    pattern = _LEADS[anchor.number]
    if pattern is _FIELD and before in (b"@", b"\\"):
        pattern = _TAG
    elif before.isalpha() and pattern is not _TRAILER:
        return None
    match = compiled(pattern).match(window)
    return None if match is None else match.end()


def _detector(number: int) -> str:
    word = NAME_LEADS[number]
    if word in (b"copyright", b"(c)", "©".encode()):
        return "copyright"
    return "trailer" if word == b"-by:" else "author"


def name_before(text: bytes, end: int) -> Iterator[Finding]:
    """The name that ends at `end`, in front of the bracket of an address: `Ada Lovelace <`."""
    start = max(0, end - _BEFORE_BYTES)
    window = text[start:end].rstrip(b" \t\"'")
    line = window.rpartition(b"\n")[2]
    match = compiled(rf"(?:^|[^\p{{L}}\p{{M}}.'\x{{2019}}\-])({NAME})$").search(line)
    if match is not None:
        first = start + len(window) - len(line) + match.start(1)
        if is_name(text, first, start + len(window)):
            yield Finding("NAME", first, start + len(window), "name_email")


def is_name(text: bytes, start: int, end: int) -> bool:
    """Whether capitalised words are no organisation or project, and end where a name can end."""
    after = text[end : end + 1]
    if after and (after.isalnum() or after in b"_@/(" or after[0] >= 0x80):
        return False
    words = [word.lower() for word in _WORD.findall(text[start:end])]
    if any(word in NOT_NAMES for word in words):
        return False
    following = _NEXT_WORD.match(text[end : end + 24])
    return following is None or following.group(1).lower() not in _NOT_BEHIND


_NOT_BEHIND = _ORGANISATION_SUFFIXES | frozenset(
    b"foundation project team authors contributors developers group university institute software systems "
    b"technologies company laboratory labs research community".split()
)
