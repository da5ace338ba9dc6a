"""Keys and passwords at their anchors (section 3.2).

* Tokens of a documented form (`pii_keys`) stand alone, and are no placeholder unless their checksum proves them.
* Private keys in PEM, from the begin line to the end line, or as far as the text is one.
* Values that a name calls a key, secret, token or credential, quoted or alone on their line, must look random;
  hexadecimal ones of a digest's length must not stand near a word for digests, nor in a file where more than
  2 % of the lines speak of sha or hash.
* Passwords: literals behind a name that ends in a word for passwords, in connection strings, behind `user:` in
  URLs, and behind the options of commands that take one.

Every rule reads a window of bounded length around its anchor.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from starsmith.signals import pii_keys
from starsmith.signals import pii_values as values
from starsmith.signals.pii_anchors import COMMANDS, IS_PASSWORD, Anchor
from starsmith.signals.pii_findings import WORD_BYTES, Finding, compiled, has_word_borders

_CONTEXT_BYTES = 512
_MAX_HASH_LINES = 0.02
_HASH_MENTIONS = re.compile(rb"sha|hash", re.IGNORECASE)


@dataclass
class Document:
    """A text, and what is only worked out when a rule asks for it."""

    text: bytes
    tried_until: dict[str, int] = field(default_factory=dict)
    """By format, where its last match ended: matches of one expression do not overlap."""
    _speaks_of_hashes: bool | None = None

    @property
    def speaks_of_hashes(self) -> bool:
        """Whether more than 2 % of the lines have "sha" or "hash" in them."""
        if self._speaks_of_hashes is None:
            num_lines = self.text.count(b"\n") + 1
            self._speaks_of_hashes = len(_HASH_MENTIONS.findall(self.text)) > _MAX_HASH_LINES * num_lines
        return self._speaks_of_hashes


def token(document: Document, anchor: Anchor) -> Iterator[Finding]:
    """The token of a documented form that begins at the anchor, or has it inside."""
    text = document.text
    rule = pii_keys.KEY_RULES[anchor.number]
    if anchor.start < document.tried_until.get(rule.detector, 0):
        return
    start = max(0, anchor.start - rule.lookback)
    if not rule.lookback and text[start] in WORD_BYTES and start and text[start - 1] in WORD_BYTES:
        return
    expression = compiled(rule.pattern)
    window = text[start : anchor.end + rule.max_bytes]
    match = expression.search(window) if rule.lookback else expression.match(window)
    if match is None or not match.start() <= anchor.start - start < match.end():
        return
    document.tried_until[rule.detector] = start + match.end()
    first, last = match.span(expression.groups)
    value = window[first:last]
    if not has_word_borders(text, start + first, start + last):
        return
    proven = rule.checksum is not None and rule.checksum(value)
    if proven or (not rule.needs_checksum and values.is_token_body(value)):
        yield Finding("KEY", start + first, start + last, rule.detector)


PEM = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----((?:[A-Za-z0-9+/=:,.\-\s]|\\[nrt]|[\"'])*)"
"""A private key and everything after it that can belong to its text; cut at the end line."""
_PEM_END = re.compile(rb"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_MAX_PEM_BYTES = 65_536
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]{40,}")
_BASE64_GAP_BYTES = 12


def private_key(document: Document, anchor: Anchor) -> Iterator[Finding]:
    """A PEM or PGP private key whose begin line the anchor starts."""
    if anchor.start < document.tried_until.get("private_key", 0):
        return
    window = document.text[anchor.start : anchor.start + _MAX_PEM_BYTES]
    match = compiled(PEM).match(window)
    if match is None:
        return
    document.tried_until["private_key"] = anchor.start + match.end()
    body, limit = match.span(1)
    last = _PEM_END.search(window, body, limit)
    stop = last.end() if last else _end_of_base64(window, body, limit)
    if stop - body > 64 and not values.is_placeholder(window[body : body + 64]):
        yield Finding("KEY", anchor.start, anchor.start + stop, "private_key")


def _end_of_base64(text: bytes, start: int, limit: int) -> int:
    """Where the lines of base64 that begin at `start` end; a truncated key must not swallow the prose after it."""
    end = start
    for run in _BASE64_LINE.finditer(text, start, limit):
        if run.start() - end > _BASE64_GAP_BYTES:
            break
        end = run.end()
    return end


_VALUE = r"[!#-&(-_a-~]"
"""Printable ASCII but blanks and quotes."""
ASSIGNED = (
    r"([A-Za-z0-9_.\-]{0,64})[\"'`\]\\]{0,3}[ \t]{0,16}"
    r"(?:=>|:=|=|>|:(?:[ \t]{0,16}[A-Za-z][A-Za-z0-9_.\-]{0,23}[ \t]{0,16}=)?)[ \t]{0,16}"
    rf"(?:\\?[\"'`]({_VALUE}{{4,512}})[\"'`]|({_VALUE}{{4,512}}))"
)
"""Behind a name's telling word: the rest of the name, an operator, and a value, quoted or not."""
_LINE_BEFORE = re.compile(
    rb"(?:^|\n)[ \t]*(?:export[ \t]+|set[ \t]+|-[ \t]+)?[\"']?[A-Za-z0-9_.\-]*$", re.IGNORECASE
)
_LINE_AFTER = re.compile(rb"[ \t\r]*(?:\n|$)")
_LINE_BYTES = 160
_KEY_VALUE = re.compile(rb"[A-Za-z0-9+/=_.~!@#$%^&*\-]{12,512}")
_BARE_KEY_VALUE = re.compile(rb"[A-Za-z0-9+/=_.~\-]{16,512}")
_PASSWORD_NAME = re.compile(
    rb"pass(?:w(?:or)?d|phrase)?s?$|pwds?$|"
    rb"(?:pass(?:w(?:or)?d|phrase)?|pwd)[_.\-]?(?:old|new|confirm(?:ation)?|default|value|str(?:ing)?|text|raw|plain|clear|"
    rb"literal|[0-9]{1,2})$",
    re.IGNORECASE,
)
_CONNECTION = re.compile(rb"(?:server|data source|host|user id|uid|user|username|database)\s?=", re.IGNORECASE)


def assigned(document: Document, anchor: Anchor) -> Iterator[Finding]:
    """The value of a name that has a telling word in it."""
    text = document.text
    window = text[anchor.end : anchor.end + 1_024]
    match = compiled(ASSIGNED).match(window)
    if match is None:
        return
    quoted = match.start(2) >= 0
    start, end = match.span(2 if quoted else 3)
    value = window[start:end]
    if quoted and window[start - 2 : start - 1] == b"\\" and value.endswith(b"\\"):
        value, end = value[:-1], end - 1
    operator_is_tag = not quoted and window[start - 1 : start] == b">"
    span = anchor.end + start, anchor.end + end
    if anchor.number == IS_PASSWORD:
        name = text[anchor.start : anchor.end] + match.group(1)
        if not _PASSWORD_NAME.match(name) or _is_inside_a_word(text, anchor, name):
            return
        if quoted:
            if values.is_literal_password(value):
                yield Finding("PASSWORD", *span, "password")
        else:
            yield from _bare_password(text, anchor, value, *span, operator_is_tag)
        return
    if quoted and _KEY_VALUE.fullmatch(value):
        detector = "assigned"
    elif not quoted and _BARE_KEY_VALUE.fullmatch(value) and _is_alone(text, anchor.start, span[1]):
        detector = "assigned_bare"
    elif operator_is_tag and (cut := value.find(b"<")) > 0 and _BARE_KEY_VALUE.fullmatch(value[:cut]):
        detector, value, span = "assigned", value[:cut], (span[0], span[0] + cut)
    else:
        return
    if values.is_secret_value(value) and not _is_digest(document, span[0], value):
        yield Finding("KEY", *span, detector)


def _is_inside_a_word(text: bytes, anchor: Anchor, name: bytes) -> bool:
    """`bypass` and `compass` are no passwords, `dbPass` and `MYPASS` are."""
    if len(name) > 5 or not anchor.start:
        return False
    before = text[anchor.start - 1 : anchor.start]
    return before.isalpha() and name[:1].islower()


def _bare_password(
    text: bytes, anchor: Anchor, value: bytes, start: int, end: int, operator_is_tag: bool
) -> Iterator[Finding]:
    if operator_is_tag:
        cut = value.find(b"<")
        if cut > 0 and values.is_literal_password(value[:cut]):
            yield Finding("PASSWORD", start, start + cut, "password")
        return
    if _is_alone(text, anchor.start, end):
        if values.is_bare_password(value):
            yield Finding("PASSWORD", start, end, "password_bare")
        return
    cut = value.find(b";")
    length = cut if cut > 0 else len(value)
    if cut <= 0 and text[end : end + 1] not in (b'"', b"'"):
        return
    around = text[max(0, anchor.start - 200) : anchor.start] + b"\n" + text[start + length : start + length + 100]
    if _CONNECTION.search(around) and values.is_connection_password(value[:length]):
        yield Finding("PASSWORD", start, start + length, "connection_string")


def _is_alone(text: bytes, start: int, end: int) -> bool:
    """Whether a name and its value are all of their line, as in environment files, YAML and properties."""
    first = max(0, start - _LINE_BYTES)
    before = _LINE_BEFORE.search(text[first:start])
    if before is None or (before.start() == 0 and first > 0 and text[first] != 10):
        return False
    after = _LINE_AFTER.match(text[end : end + 64])
    return after is not None and (b"\n" in after.group() or end + after.end() == len(text))


def _is_digest(document: Document, start: int, value: bytes) -> bool:
    if len(value) not in values.HASH_LENGTHS:
        return False
    return values.looks_like_hash(value, _two_lines(document.text, start)) or document.speaks_of_hashes


def _two_lines(text: bytes, position: int) -> bytes:
    """The text's line up to a position, and the line before, as far as 512 bytes back."""
    window = text[max(0, position - _CONTEXT_BYTES) : position]
    start = window.rfind(b"\n")
    return window[window.rfind(b"\n", 0, max(0, start)) + 1 :]


BEARER = r"[ \t]{1,8}([A-Za-z0-9_.~+/\-]{20,512}=*)"


def bearer(document: Document, anchor: Anchor) -> Iterator[Finding]:
    """What follows `Bearer` or `Basic` in an authorization header."""
    window = document.text[anchor.end : anchor.end + 600]
    match = compiled(BEARER).match(window)
    if match is None:
        return
    start, end = match.span(1)
    if values.is_secret_value(match.group(1)) and not _is_digest(document, anchor.end + start, match.group(1)):
        yield Finding("KEY", anchor.end + start, anchor.end + end, "bearer" if anchor.number == 0 else "basic")


_AUTHORITY = r"[^\s/:@\"'`<>]{0,64}:([^\s/@\"'`<>{}]{4,128})@[A-Za-z0-9\[]"
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*$")


def url_password(document: Document, anchor: Anchor) -> Iterator[Finding]:
    """The password of `scheme://user:password@host`."""
    text = document.text
    if _SCHEME.search(text[max(0, anchor.start - 32) : anchor.start]) is None:
        return
    match = compiled(_AUTHORITY).match(text[anchor.end : anchor.end + 200])
    if match is not None and values.is_url_password(match.group(1)):
        yield Finding("PASSWORD", anchor.end + match.start(1), anchor.end + match.end(1), "url_password")


_OPTION_VALUE = r"[\"']?([!#-&(-_a-~]{4,128})"
_OPTIONS = {
    b"mysql": r"[^\n]{0,160}? -p[\"']?([!#-&(-,.-_a-~][!#-&(-_a-~]{3,127})",
    b"sshpass": rf"[ \t]+-p[ \t]*{_OPTION_VALUE}",
    b"curl": r"[^\n]{0,160}? (?:-u|--user)[ =]?[\"']?[^\s:\"']{1,64}:([!#-&(-_a-~]{4,128})",
    b"wget": rf"[^\n]{{0,160}}? --(?:http-|ftp-)?password[ =]{_OPTION_VALUE}",
    b"--password": rf"[ =]{_OPTION_VALUE}",
    b"--passwd": rf"[ =]{_OPTION_VALUE}",
    b"ldap": rf"[^\n]{{0,160}}? -w[ ]?{_OPTION_VALUE}",
    b"mongo": rf"[^\n]{{0,160}}? (?:-p|--password)[ ]{_OPTION_VALUE}",
}
"""By command: up to the option that takes a password, on one line."""


def command_password(document: Document, anchor: Anchor) -> Iterator[Finding]:
    """A password among the options of a command."""
    window = document.text[anchor.end : anchor.end + 320]
    match = compiled(_OPTIONS[COMMANDS[anchor.number]]).match(window)
    if match is None:
        return
    value = match.group(1).rstrip(b"`;,)")
    if values.is_literal_password(value):
        start = anchor.end + match.start(1)
        yield Finding("PASSWORD", start, start + len(value), "command_line")
