"""E-mail and IP addresses at their anchors, and what is exempt (section 3.2).

* e-mail: reserved example domains, `git@host`, user names inside URLs, file names and expressions that only look
  like an address. Addresses such as noreply@... are found: the paper exempts none but examples;
* IP: what does not parse; addresses that are not globally routable (private, loopback, documentation, ...);
  public DNS resolvers; seven-character `d.d.d.d` without "dns" or "server" within 100 bytes; four numbers that
  the line calls a version or an object identifier, or that stand among coordinates; the date-like `dd.mm.yy.n`
  and `yy.mm.dd.n` of versions.

Every rule reads a window of bounded length around its anchor.
"""

import ipaddress
import re
from collections.abc import Iterator

from starsmith.signals.pii_anchors import Anchor
from starsmith.signals.pii_findings import WORD_BYTES, Finding, compiled
from starsmith.signals.pii_names import name_before

_MAX_LOCAL_BYTES = 64
_MAX_DOMAIN_BYTES = 320
_URL_BYTES = 200
_DNS_BYTES = 100
_VERSION_BYTES = 40

LOCAL = r"[A-Za-z0-9](?:[A-Za-z0-9._%+\-]{0,62}[A-Za-z0-9_%+\-])?$"
"""The mailbox up to "@": at most 64 bytes, no brackets, quotes or slashes, no dot at either end."""
DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,10}(?:xn--[A-Za-z0-9\-]{2,59}|[A-Za-z]{2,63})"
"""One to ten sub-domains, a top-level domain of letters."""
IPV4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
IPV6 = r"[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}"
"""Scope operators of code parse as addresses (`abc::def`): only global unicast, 2000::/3, counts."""

EXAMPLE_DOMAINS = (b"example.com", b"example.org", b"example.net", b"example.edu")
EXAMPLE_SUFFIXES = (b".example", b".test", b".invalid", b".localhost", b".local")
"""Names reserved for documentation and tests (RFC 2606, RFC 6762): nobody's address."""

SERVICE_USERS = (b"git", b"hg", b"svn")
"""`git@host` is how repositories are addressed, not a mailbox."""

CODE_WORDS = frozenset({b"this", b"super", b"return", b"break", b"continue", b"self"})
"""`this@Name.method` is Kotlin."""

NOT_TOP_LEVEL = frozenset(
    b"png jpg jpeg gif svg webp bmp ico js mjs cjs jsx ts tsx css scss less html htm json xml yml yaml txt csv "
    b"map woff ttf eot mp3 mp4 wav pdf gz tgz zip tar jar exe dll lock log cfg conf ini toml rb java class cpp "
    b"hpp tmpl tpl erb dot add sub mul transpose reshape value get set length name data next min".split()
)
"""Endings of file names (`icon@2x.png`) and of expressions (`a@b.dot`) that are no top-level domains."""

DNS_SERVERS = frozenset(
    b"8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 76.76.19.19 76.223.122.150 9.9.9.9 149.112.112.112 208.67.222.222 "
    b"208.67.220.220 8.26.56.26 8.20.247.20 94.140.14.14 94.140.15.15".split()
)
"""Public resolvers, which are no one's personal address (section 3.2)."""

_DNS_WORDS = re.compile(rb"dns|server", re.IGNORECASE)
_VERSION_WORDS = re.compile(
    rb"version|\bver\b|release|revision|\boid\b|object.?identifier|(?:[=~<>]=|[~^])\s*$|"
    rb"(?:section|chapter|clause|paragraph|figure|table|rfc ?\d+|\xc2\xa7)[^\n]{0,4}$",
    re.IGNORECASE,
)
_NUMBER_BEFORE = re.compile(rb"(?<![0-9.])(?=[0-9.])[0-9]*(?:\.[0-9]+){0,2}[ ,\-]$")
_NUMBER_AFTER = re.compile(rb"[ ,\-](?=[0-9.])[0-9]*(?:\.[0-9]+){0,2}(?![0-9.])")
"""Coordinates of drawings run together: `0 3.54.5.5 1.14`."""
_URL_USER = re.compile(rb"://[^\s\"'<>/?#=&]*$")


def email(text: bytes, anchor: Anchor) -> Iterator[Finding]:
    """The address around an "@", and the name in front of `<address>`."""
    at = anchor.start
    before = max(0, at - _MAX_LOCAL_BYTES)
    mailbox = compiled(LOCAL).search(text[before:at])
    if mailbox is None:
        return
    rest = compiled(DOMAIN).match(text[at + 1 : at + 1 + _MAX_DOMAIN_BYTES])
    if rest is None:
        return
    start, end = before + mailbox.start(), at + 1 + rest.end()
    local, domain = text[start:at].lower(), text[at + 1 : end].lower()
    if is_example_domain(domain) or _is_code(text, start, end, local, domain):
        return
    yield Finding("EMAIL", start, end, "email")
    if text[start - 1 : start] == b"<":
        yield from name_before(text, start - 1)


def is_example_domain(domain: bytes) -> bool:
    """Whether a lower-case domain is reserved for examples and tests."""
    return domain.endswith(EXAMPLE_SUFFIXES) or any(
        domain == name or domain.endswith(b"." + name) for name in EXAMPLE_DOMAINS
    )


def _is_code(text: bytes, start: int, end: int, local: bytes, domain: bytes) -> bool:
    if local in SERVICE_USERS or local in CODE_WORDS:
        return True
    if domain.rpartition(b".")[2] in NOT_TOP_LEVEL or text[end : end + 1] in (b"(", b"@", b"["):
        return True
    if end < len(text) and text[end] in WORD_BYTES:
        return True
    return _URL_USER.search(text[max(0, start - _URL_BYTES) : start]) is not None


def ipv4(text: bytes, anchor: Anchor) -> Iterator[Finding]:
    """The address whose first dot the anchor is."""
    dot = anchor.end - 1
    start = dot
    while start and dot - start < 4 and 48 <= text[start - 1] <= 57:
        start -= 1
    match = compiled(IPV4).match(text[start : start + 16])
    if match is None or start + match.end() <= dot:
        return
    end = start + match.end()
    if not _stands_alone(text, start, end, b".-") or _is_numbering(text, start, end):
        return
    if is_personal_address(text[start:end]):
        yield Finding("IP_ADDRESS", start, end, "ipv4")


def ipv6(text: bytes, anchor: Anchor) -> Iterator[Finding]:
    """The address whose first colon the anchor is."""
    start = anchor.end - 5
    if start < 0:
        return
    match = compiled(IPV6).match(text[start : start + 48])
    if match is None or not _stands_alone(text, start, start + match.end(), b":."):
        return
    if is_personal_address(match.group()):
        yield Finding("IP_ADDRESS", start, start + match.end(), "ipv6")


def _stands_alone(text: bytes, start: int, end: int, joints: bytes) -> bool:
    """Neither neighbour belongs to a word, nor (through a joint such as a dot) to a longer number."""
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    if before and (before[0] in WORD_BYTES or before == b"-" or before[0] in joints):
        return False
    if after and after[0] in WORD_BYTES:
        return False
    return not (len(after) == 2 and after[0] in joints and after[1] in WORD_BYTES)


def _is_numbering(text: bytes, start: int, end: int) -> bool:
    """A version, a date or an object identifier, rather than an address."""
    value = text[start:end]
    if len(value) == 7 and not _DNS_WORDS.search(text[max(0, start - _DNS_BYTES) : end + _DNS_BYTES]):
        return True
    line = text[max(0, start - _VERSION_BYTES) : start].rpartition(b"\n")[2]
    if _VERSION_WORDS.search(line):
        return True
    before, after = text[max(0, start - 16) : start], text[end : end + 16]
    number, next_number = _NUMBER_BEFORE.search(before), _NUMBER_AFTER.match(after)
    if number and next_number and (b"." in number.group() or b"." in next_number.group()):
        return True
    first, month, third, last = (int(number) for number in value.split(b"."))
    is_date = (1 <= first <= 31 and 18 <= third <= 39) or (18 <= first <= 39 and 1 <= third <= 31)
    return 1 <= month <= 12 and is_date and last <= 31


def is_personal_address(value: bytes) -> bool:
    """Whether a value parses as an address that is globally routable and no public resolver."""
    if value in DNS_SERVERS:
        return False
    try:
        address = ipaddress.ip_address(value.decode())
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
