"""How findings of personal data and secrets are taken out of a text (section 3.2).

Names become `<NAME>`, e-mail addresses `<EMAIL>`, keys `<KEY>` and passwords `<PASSWORD>`: the tokenizer knows
them. An IP address becomes one of five synthetic private addresses of its family, so that code stays code. Which
one depends on a hash of the document and the value: the same value in a document always gets the same
replacement, and no value can be told from it.

Findings that overlap are one redaction, from the first byte to the last, under the kind of the longest of them
(equally long: a password before a key, an e-mail address, an IP address and a name): nothing that any detector
found stays.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import AnyStr

from starsmith import recipe
from starsmith.policies.rules import Rule, is_in

VERSION = 2

PLACEHOLDERS = {"EMAIL": b"<EMAIL>", "KEY": b"<KEY>", "NAME": b"<NAME>", "PASSWORD": b"<PASSWORD>"}
IPV4_REPLACEMENTS = (b"172.16.31.10", b"172.16.58.3", b"172.16.17.32", b"192.168.127.12", b"192.168.3.11")
IPV6_REPLACEMENTS = (
    b"fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b",
    b"fd00:a516:7c1b:17cd:6d81:2137:bd2a:2c5b",
    b"fc00:e968:6179::de52:7100",
    b"fc00:db20:35b:7399::5",
    b"fdf8:f53e:61e4::18",
)

_PRECEDENCE = {"PASSWORD": 0, "KEY": 1, "EMAIL": 2, "IP_ADDRESS": 3, "NAME": 4}

Finding = tuple[str, int, int]
"""Kind, first byte and the byte after the last, in the text's UTF-8."""


def redact(
    text: AnyStr, findings: Iterable[Finding], kinds: Collection[str], document_key: str
) -> tuple[AnyStr, int]:
    """A text without its findings.

    Args:
        text: as text or as UTF-8 bytes; the result has the same type.
        findings: in any order; they may overlap.
        kinds: what is redacted; findings of other kinds stay.
        document_key: names the document, e.g. its content_id; keys the choice of private addresses.

    Returns:
        The text and the number of replacements.

    Raises:
        ValueError: a kind without a replacement, or a span that does not lie in the text or cuts a character.
    """
    data = text.encode() if isinstance(text, str) else text
    spans = _merge(sorted(f for f in findings if f[0] in kinds), len(data))
    parts: list[bytes] = []
    position = 0
    for kind, start, end in spans:
        parts += [data[position:start], _replacement(kind, data[start:end], document_key)]
        position = end
    redacted = b"".join((*parts, data[position:]))
    if isinstance(text, str):
        return redacted.decode(), len(spans)
    redacted.decode()  # a span that cuts a character must not pass for bytes either
    return redacted, len(spans)


def _merge(findings: list[Finding], num_bytes: int) -> list[Finding]:
    """Spans that do not overlap, in order of their start."""
    merged: list[tuple[tuple[int, int], str, int, int]] = []
    for kind, start, end in sorted(findings, key=lambda finding: finding[1:]):
        if kind not in _PRECEDENCE:
            raise ValueError(f"no replacement for {kind!r}; known: {', '.join(sorted(_PRECEDENCE))}")
        if not 0 <= start < end <= num_bytes:
            raise ValueError(f"span {start}..{end} of {kind} does not lie in a text of {num_bytes} bytes")
        rank = (start - end, _PRECEDENCE[kind])
        if merged and start < merged[-1][3]:
            best, kept, first, last = merged[-1]
            merged[-1] = (min(best, rank), kind if rank < best else kept, first, max(last, end))
        else:
            merged.append((rank, kind, start, end))
    return [(kind, start, end) for _, kind, start, end in merged]


def _replacement(kind: str, value: bytes, document_key: str) -> bytes:
    if kind != "IP_ADDRESS":
        return PLACEHOLDERS[kind]
    family = IPV6_REPLACEMENTS if b":" in value else IPV4_REPLACEMENTS
    digest = hashlib.blake2b(document_key.encode() + b"\0" + value, digest_size=8).digest()
    return family[int.from_bytes(digest, "big") % len(family)]


def rules(config: recipe.Pii) -> list[Rule]:
    """The edit that is entered in the ledger for each kept file with findings: counts, never values."""
    return [
        Rule(
            name="pii",
            key="pii.kinds",
            section="3.2",
            title="personal data and secrets are replaced",
            allowed=f"0 of {', '.join(config.kinds)}",
            value="counts",
            drops="true",
            evidence="'found by ' || detectors",
            enabled=bool(config.kinds),
            relation="findings",
            action="edit",
        )
    ]


def findings_sql(config: recipe.Pii, files: str) -> str:
    """The relation `findings`: for each row of `files` (`file_id`, `content_id`) whose content has some, their
    counts by kind and by detector."""
    return f"""
        WITH wanted AS (
            SELECT content_id, kind, detector FROM pii
            WHERE {is_in("kind", config.kinds)}
        ), by_kind AS (
            SELECT content_id, string_agg(kind || ' ' || num, ', ' ORDER BY kind) AS counts
            FROM (SELECT content_id, kind, count(*) AS num FROM wanted GROUP BY ALL) GROUP BY content_id
        ), by_detector AS (
            SELECT content_id, string_agg(detector || ' ' || num, ', ' ORDER BY detector) AS detectors
            FROM (SELECT content_id, detector, count(*) AS num FROM wanted GROUP BY ALL) GROUP BY content_id
        )
        SELECT f.file_id, f.content_id, k.counts, d.detectors
        FROM {files} f JOIN by_kind k USING (content_id) JOIN by_detector d USING (content_id)
    """
