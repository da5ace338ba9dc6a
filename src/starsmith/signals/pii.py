"""Where a text has e-mail addresses, IP addresses and keys: spans, never values (section 3.2).

Rules only; the paper's entity model is not freely available. Each rule is an RE2 expression on UTF-8 bytes, then
tests in code: of the neighbouring bytes, of the value, of its surroundings. Rules for keys run behind a search
for their keywords. What is exempt, and why:

* e-mail: reserved example domains, `git@host`, user names inside URLs, file names and expressions that only look
  like an address. Addresses such as noreply@... are found: the text exempts none but examples;
* IP: what does not parse; addresses that are not globally routable (private, loopback, documentation, ...);
  public DNS resolvers; seven-character `d.d.d.d` without "dns" or "server" within 100 bytes; four numbers that
  the line calls a version or an object identifier; the date-like `dd.mm.yy.n` and `yy.mm.dd.n` of versions;
* keys without a documented form: what does not look random; hexadecimal values of a digest's length near a word
  for digests, or in files where more than 2 % of the lines speak of sha or hash.

Findings that overlap are one finding from the first byte to the last, under the kind of the longest of them
(equally long: an e-mail address before an IP address before a key), so that nothing found is left over.
Names, user names and passwords that do not look random are not found: rules cannot tell them from words.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from starsmith.corpus import schema
from starsmith.signals import pii_patterns as patterns

VERSION = 1
"""Changes when any finding could."""

KINDS = ("EMAIL", "IP_ADDRESS", "KEY")

_WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_DNS_BYTES = 100
_VERSION_BYTES = 40
_MAX_HASH_LINES = 0.02

_DNS_WORDS = re.compile(rb"dns|server", re.IGNORECASE)
_VERSION_WORDS = re.compile(
    rb"version|\bver\b|release|revision|\boid\b|object.?identifier|(?:[=~<>]=|[~^])\s*$", re.IGNORECASE
)
_HASH_MENTIONS = re.compile(rb"sha|hash", re.IGNORECASE)
_URL_USER = re.compile(rb"://[^\s\"'<>/?#=&]*$")
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]{40,}")
_BASE64_GAP_BYTES = 12
_PEM_END = re.compile(rb"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")


class Finding(NamedTuple):
    kind: str
    start: int
    end: int
    detector: str


def measure(contents: pa.Table) -> pa.Table:
    """The findings in each content that is text.

    Args:
        contents: at least content_id, status and text of `schema.CONTENTS`.

    Returns:
        `schema.PII`, ordered by content_id and start; the spans of a content do not overlap.
    """
    rows: list[tuple[str, Finding]] = []
    texts = contents.filter(pc.equal(contents["status"], "text"))
    for batch in texts.select(["content_id", "text"]).to_batches():
        values = batch.column(1).cast(pa.large_binary())
        for content_id, text in zip(batch.column(0).to_pylist(), values, strict=True):
            rows += [(content_id, finding) for finding in find(text.as_py())]
    rows.sort(key=lambda row: (row[0], row[1].start))
    columns = {
        "content_id": [content_id for content_id, _ in rows],
        "kind": [finding.kind for _, finding in rows],
        "start": [finding.start for _, finding in rows],
        "end": [finding.end for _, finding in rows],
        "detector": [finding.detector for _, finding in rows],
    }
    return pa.table(columns, schema=schema.PII)


def find(text: bytes) -> list[Finding]:
    """All findings of one text in UTF-8, in order, not overlapping."""
    lower = text.lower()
    found: list[Finding] = []
    if b"@" in text:
        found += _emails(text)
    found += _ipv4(text)
    if b"::" in text or text.count(b":") >= 7:
        found += _ipv6(text)
    found += _tokens(text, lower)
    found += _private_keys(text)
    found += _assigned(text, lower)
    return _merge(found)


def _emails(text: bytes) -> Iterator[Finding]:
    for match in _compiled(patterns.EMAIL).finditer(text):
        start, end = match.span()
        local, _, domain = text[start:end].partition(b"@")
        if not _is_example(domain.lower()) and not _is_code(text, start, end, local.lower(), domain.lower()):
            yield Finding("EMAIL", start, end, "email")


def _is_example(domain: bytes) -> bool:
    examples = patterns.EXAMPLE_DOMAINS
    return domain.endswith(patterns.EXAMPLE_SUFFIXES) or any(
        domain == name or domain.endswith(b"." + name) for name in examples
    )


def _is_code(text: bytes, start: int, end: int, local: bytes, domain: bytes) -> bool:
    if local in patterns.SERVICE_USERS or local in patterns.CODE_WORDS:
        return True
    if domain.rpartition(b".")[2] in patterns.NOT_TOP_LEVEL or text[end : end + 1] in (b"(", b"@", b"["):
        return True
    if text[end : end + 1] and text[end] in _WORD:
        return True
    return _URL_USER.search(text, max(0, start - 200), start) is not None


def _ipv4(text: bytes) -> Iterator[Finding]:
    for match in _compiled(patterns.IPV4).finditer(text):
        start, end = match.span()
        if not _stands_alone(text, start, end, b".-") or _is_numbering(text, start, end):
            continue
        if _is_personal_address(text[start:end]):
            yield Finding("IP_ADDRESS", start, end, "ipv4")


def _ipv6(text: bytes) -> Iterator[Finding]:
    for match in _compiled(patterns.IPV6).finditer(text):
        start, end = match.span()
        if not _stands_alone(text, start, end, b":."):
            continue
        value = text[start:end]
        # Scope operators of code parse as addresses (`abc::def`): only global unicast, 2000::/3, counts.
        if value[:1] in (b"2", b"3") and len(value.partition(b":")[0]) == 4 and _is_personal_address(value):
            yield Finding("IP_ADDRESS", start, end, "ipv6")


def _stands_alone(text: bytes, start: int, end: int, joints: bytes) -> bool:
    """Neither neighbour belongs to a word, nor (through a joint such as a dot) to a longer number."""
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    if before and (before[0] in _WORD or before in (b"-", *(joints[i : i + 1] for i in range(len(joints))))):
        return False
    if after and after[0] in _WORD:
        return False
    return not (len(after) == 2 and after[0] in joints and after[1] in _WORD)


def _is_numbering(text: bytes, start: int, end: int) -> bool:
    """A version, a date or an object identifier, rather than an address."""
    value = text[start:end]
    if len(value) == 7 and not _DNS_WORDS.search(text, max(0, start - _DNS_BYTES), end + _DNS_BYTES):
        return True
    line_start = text.rfind(b"\n", 0, start) + 1
    if _VERSION_WORDS.search(text[max(line_start, start - _VERSION_BYTES) : start]):
        return True
    first, month, third, last = (int(number) for number in value.split(b"."))
    is_date = (1 <= first <= 31 and 18 <= third <= 39) or (18 <= first <= 39 and 1 <= third <= 31)
    return 1 <= month <= 12 and is_date and last <= 31


def _is_personal_address(value: bytes) -> bool:
    if value in patterns.DNS_SERVERS:
        return False
    try:
        address = ipaddress.ip_address(value.decode())
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _tokens(text: bytes, lower: bytes) -> Iterator[Finding]:
    """Tokens of a documented form."""
    automaton, owners = _keywords()
    hits = {pattern for pattern, _, _ in automaton.find_matches_as_indexes(lower, overlapping=True)}
    for rule in sorted({owners[hit] for hit in hits}):
        detector, expression = patterns.KEY_RULES[rule].detector, _compiled(patterns.KEY_RULES[rule].pattern)
        for match in expression.finditer(text):
            start, end = match.span(expression.groups)
            value = text[start:end]
            if _has_word_borders(text, start, end) and not patterns.is_placeholder(value):
                yield Finding("KEY", start, end, detector)


def _has_word_borders(text: bytes, start: int, end: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return not (before and before[0] in _WORD) and not (after and after[0] in _WORD)


def _private_keys(text: bytes) -> Iterator[Finding]:
    """PEM and PGP private keys, from the begin line to the end line, or as far as the text is one."""
    if b"PRIVATE KEY" not in text:
        return
    for match in _compiled(patterns.PEM_BODY).finditer(text):
        start, limit = match.span()
        body = match.span(1)[0]
        last = _PEM_END.search(text, body, limit)
        stop = last.end() if last else _end_of_base64(text, body, limit)
        if stop - body > 64 and not patterns.is_placeholder(text[body : body + 64]):
            yield Finding("KEY", start, stop, "private_key")


def _end_of_base64(text: bytes, start: int, limit: int) -> int:
    """Where the lines of base64 that begin at `start` end; a truncated key must not swallow the prose after it."""
    end = start
    for run in _BASE64_LINE.finditer(text, start, limit):
        if run.start() - end > _BASE64_GAP_BYTES:
            break
        end = run.end()
    return end


def _assigned(text: bytes, lower: bytes) -> Iterator[Finding]:
    """Values that a name calls secret and that look random."""
    if not any(name in lower for name in patterns.SECRET_NAMES) and b"://" not in text:
        return
    speaks_of_hashes: bool | None = None
    for detector, pattern in _ASSIGNMENTS:
        for match in _compiled(pattern).finditer(text):
            start, end = match.span(1)
            value = text[start:end]
            if not patterns.is_secret_value(value) or patterns.looks_like_hash(value, _two_lines(text, start)):
                continue
            if speaks_of_hashes is None:
                speaks_of_hashes = _speaks_of_hashes(lower)
            if not (speaks_of_hashes and len(value) in patterns.HASH_LENGTHS):
                yield Finding("KEY", start, end, detector)


_ASSIGNMENTS = (
    ("assigned", patterns.ASSIGNED),
    ("assigned_bare", patterns.ASSIGNED_BARE),
    ("bearer", patterns.BEARER),
    ("url_password", patterns.URL_CREDENTIAL),
)


def _two_lines(text: bytes, position: int) -> bytes:
    """The text's line up to a position, and the line before."""
    start = text.rfind(b"\n", 0, position)
    return text[text.rfind(b"\n", 0, max(0, start)) + 1 : position]


def _speaks_of_hashes(text: bytes) -> bool:
    num_lines = text.count(b"\n") + 1
    return len(_HASH_MENTIONS.findall(text)) > _MAX_HASH_LINES * num_lines


def _merge(found: Iterable[Finding]) -> list[Finding]:
    """Overlapping findings as one, under the kind and detector of the longest."""
    merged: list[Finding] = []
    longest: list[Finding] = []
    for finding in sorted(found, key=lambda f: (f.start, -f.end)):
        if merged and finding.start < merged[-1].end:
            longest[-1] = min(longest[-1], finding, key=_precedence)
            start, end = merged[-1].start, max(merged[-1].end, finding.end)
            merged[-1] = Finding(longest[-1].kind, start, end, longest[-1].detector)
        else:
            merged.append(finding)
            longest.append(finding)
    return merged


def _precedence(finding: Finding) -> tuple[int, int, str]:
    return finding.start - finding.end, KINDS.index(finding.kind), finding.detector


@functools.cache
def _compiled(pattern: str) -> Any:
    return patterns.compile_bytes(pattern)


@functools.cache
def _keywords() -> tuple[Any, tuple[int, ...]]:
    """The automaton of all keywords, and for each of them its rule."""
    import ahocorasick_rs

    pairs = [(word, number) for number, rule in enumerate(patterns.KEY_RULES) for word in rule.keywords]
    automaton = ahocorasick_rs.BytesAhoCorasick([word for word, _ in pairs])
    return automaton, tuple(number for _, number in pairs)
