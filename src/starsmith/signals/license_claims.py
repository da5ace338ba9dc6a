"""What contents say of licences before ScanCode: exact answers, and the passages that it has to be asked about.

Three kinds of evidence (`KINDS`). A *text* is a licence-like file (`corpus/license_paths.py`), a *manifest* the
file in which a package states its licence (`license_manifests`), a *header* the comments at the top of any file
(`license_headers`). SPDX expressions in manifests and tags are exact. Everything else becomes a *passage* under
its own identifier, and equal passages are scanned once, whatever file or kind they came from.

A passage of a licence-like text is less than the whole where that is long, since the rule on names brings many a
README of which a few lines concern a licence, and ScanCode's time grows with the rest:

* nothing, when the text has none of `LICENSE_WORDS` (it is `scanned`, without licences);
* the lines around those words, when they are less than `WHOLE_FRACTION` of the text; else the whole text;
* each line stripped.

Texts of at most `SHORT_BYTES` are scanned as they are. How often a passage misses a licence that the whole text
has is measured by `benchmarks/license_quality.py`.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from starsmith.corpus import schema
from starsmith.corpus.license_paths import UNKNOWN_REFERENCE, is_license_like
from starsmith.signals import license_headers, license_manifests

__all__ = ["CLAIMS", "KINDS", "claim", "kinds_of", "passage", "spdx_keys"]

KINDS = ("text", "manifest", "header")
_MENTION = re.compile("licen[cs]", re.IGNORECASE)
_KIND_OF_EVIDENCE = {"texts": "text", "manifests": "manifest", "headers": "header"}

SHORT_BYTES = 512
LINES_BEFORE = 5
LINES_AFTER = 25
WHOLE_FRACTION = 0.6

LICENSE_WORDS = re.compile(
    r"licen[cs]|copyright|copyleft|permission|public.domain|creative.commons|spdx|gpl|\bmit\b|\bbsd\b|\bapache\b"
    r"|\bmozilla\b|\(c\)|©",
    re.IGNORECASE,
)
"""In 96 % of the 21,154 licence texts and notices among ScanCode's rules; `licen[cs]e|copyright|permission` alone
are in 90 %. The others are mostly short phrases and texts in other languages."""

CLAIMS = pa.schema(  # what a content says, before ScanCode: a row of LICENSE_TEXTS and what is still to be scanned
    [
        *schema.LICENSE_TEXTS,
        pa.field("passage_id", pa.string()),  # null when nothing is to be scanned
        pa.field("passage", pa.large_string()),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Claim:
    """What one content says in one way; `passage` is still to be scanned."""

    status: str = "scanned"
    expressions: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    reason: str | None = None
    passage: str = ""


_NOTHING = _Claim()


def kinds_of(evidence: Iterable[str]) -> tuple[str, ...]:
    """The kinds that the recipe's `licenses.evidence` asks for, in the order of `KINDS`."""
    wanted = {_KIND_OF_EVIDENCE.get(name) for name in evidence}
    return tuple(kind for kind in KINDS if kind in wanted)


def claim(files: pa.Table, contents: pa.Table, *, kinds: Collection[str], max_text_bytes: int) -> pa.Table:
    """What contents say of licences, as far as it is exact, and the passages to be scanned.

    Args:
        files: at least path and content_id of `schema.FILES`: every name under which the contents stand. Names
            decide what is licence-like and how a manifest is read; a manifest that stands under names of several
            formats states what any of them reads.
        contents: content_id, status and text of `schema.CONTENTS`, in any order.
        kinds: of `KINDS`.
        max_text_bytes: licence-like texts with more UTF-8 bytes are `too_large`, and not read; manifests too,
            where they mention licences at all.

    Returns:
        `CLAIMS`, ordered by content_id and kind: a row for each licence-like text and each manifest, and for each
        header that speaks of licences. Contents that are empty are `scanned` without licences; those without
        text for other reasons are `too_large` or `failed`, except that only texts have headers.
    """
    rows: dict[tuple[str, str], _Claim] = {}
    formats = _manifest_formats(files) if "manifest" in kinds else {}
    texts = _license_like(files) if "text" in kinds else set()
    named = pa.array(sorted({*formats, *texts}), pa.string())
    for content_id, status, text in _rows(contents.filter(pc.is_in(contents["content_id"], named))):
        length_bytes = len(text.encode()) if status == "text" else 0
        unread = _unread(status, length_bytes, max_text_bytes)
        if content_id in texts:
            rows[content_id, "text"] = unread or _Claim(passage=passage(text))
        if content_id in formats:
            mute = _NOTHING if status == "text" and not _MENTION.search(text) else None
            rows[content_id, "manifest"] = mute or unread or _manifest_claim(sorted(formats[content_id]), text)
    if "header" in kinds:
        for content_id, _, text in _rows(_speaking(contents)):
            found = _header_claim(license_headers.header(text))
            if found is not None:
                rows[content_id, "header"] = found
    return _claims_table(rows)


def passage(text: str) -> str:
    """What of a licence-like text ScanCode is given; empty when nothing in it speaks of a licence."""
    lines = [line.strip() for line in text.splitlines()]
    if len(text.encode()) > SHORT_BYTES:
        near = _lines_near_words(lines)
        num_chars = sum(map(len, lines))
        if sum(len(lines[row]) for row in near) < WHOLE_FRACTION * num_chars:
            lines = [lines[row] for row in near]
    return "\n".join(lines).strip()


def _lines_near_words(lines: list[str]) -> list[int]:
    near: set[int] = set()
    for row, line in enumerate(lines):
        if LICENSE_WORDS.search(line):
            near.update(range(max(0, row - LINES_BEFORE), min(len(lines), row + LINES_AFTER + 1)))
    return sorted(near)


def _license_like(files: pa.Table) -> set[str]:
    return {content_id for path, content_id in _names(files) if is_license_like(path)}


def _manifest_formats(files: pa.Table) -> dict[str, set[str]]:
    formats: dict[str, set[str]] = {}
    for path, content_id in _names(files):
        found = license_manifests.format_of(path.rpartition("/")[2])
        if found is not None:
            formats.setdefault(content_id, set()).add(found)
    return formats


def _names(files: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(files["path"].to_pylist(), files["content_id"].to_pylist(), strict=True)


def _rows(contents: pa.Table) -> Iterator[tuple[str, str, str]]:
    for batch in contents.select(["content_id", "status", "text"]).to_batches():
        for content_id, status, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield content_id, status, text or ""


def _speaking(contents: pa.Table) -> pa.Table:
    """The contents whose first characters have a word of licences."""
    heads = pc.utf8_slice_codeunits(contents["text"], 0, license_headers.HEAD_CHARS)
    return contents.filter(pc.match_substring_regex(heads, license_headers.MENTION))


def _unread(status: str, length_bytes: int, max_text_bytes: int) -> _Claim | None:
    """The claim of a content that is not read, or None."""
    if status == "empty":
        return _NOTHING
    if status == "too_large" or length_bytes > max_text_bytes:
        return _Claim(status="too_large")
    return None if status == "text" else _Claim(status="failed", reason=f"the file is {status}")


def _manifest_claim(formats: Sequence[str], text: str) -> _Claim:
    found: list[str] = []
    faults: list[str] = []
    for name in formats:
        try:
            found += license_manifests.statements(name, text)
        except license_manifests.ManifestError as error:
            faults.append(str(error))
    if faults and not found:
        return _Claim(status="failed", reason="; ".join(faults))
    return _statements_claim(found)


_NAMES = {"psf": "PSF-2.0", "psfl": "PSF-2.0", "python software foundation license": "PSF-2.0"}
"""Names that packages use, in lower case, and ScanCode does not know or takes for another licence."""
_NOT_STATED = frozenset({"unknown", "none", "noassertion", "n/a", "null", "todo", "tbd", "unspecified"})
_CLOSED = frozenset({"UNLICENSED", "proprietary", "Proprietary", "PROPRIETARY", "AllRightsReserved"})
_SLASHED = re.compile(r"[A-Za-z0-9.+-]+(?: ?/ ?[A-Za-z0-9.+-]+)+")


def _statements_claim(statements: Iterable[str]) -> _Claim:
    """SPDX expressions and the few conventional values exactly; the other statements as one passage."""
    expressions: list[str] = []
    licenses: set[str] = set()
    unclear: list[str] = []
    for statement in statements:
        if statement.lower() in _NOT_STATED:
            continue
        parsed = _reserved(statement) or _parse(statement)
        if parsed is None:
            unclear.append(statement)
        else:
            expressions.append(parsed[0])
            licenses.update(parsed[1])
    # ScanCode has rules for a name behind "License:", and none for some of the bare names
    parts = [text if _MENTION.search(text) else f"License: {text}" for text in unclear]
    return _Claim(
        expressions=tuple(dict.fromkeys(expressions)),
        licenses=tuple(sorted(licenses)),
        passage="\n".join(map(passage, parts)).strip(),
    )


def _reserved(statement: str) -> tuple[str, tuple[str, ...]] | None:
    """Values with a meaning of their own: no licence is granted (npm, Composer), or it stands elsewhere."""
    if statement in _CLOSED:
        return "LicenseRef-scancode-proprietary-license", ("LicenseRef-scancode-proprietary-license",)
    if statement.startswith(license_manifests.REFERENCE):
        return UNKNOWN_REFERENCE, (UNKNOWN_REFERENCE,)
    return None


def _header_claim(found: license_headers.Header) -> _Claim | None:
    if found.prose:
        return _Claim(passage=found.prose)
    if not found.tags:
        return None
    parsed = {tag: _parse(tag) for tag in found.tags}
    known = [value for value in parsed.values() if value is not None]
    return _Claim(
        expressions=tuple(dict.fromkeys(expression for expression, _ in known)),
        licenses=tuple(sorted({key for _, keys in known for key in keys})),
        passage="\n".join(f"SPDX-License-Identifier: {tag}" for tag, value in parsed.items() if value is None),
    )


def spdx_keys(expression: str) -> tuple[str, ...] | None:
    """The keys of an SPDX expression, sorted; None when it is not one."""
    parsed = _parse(expression)
    return None if parsed is None else parsed[1]


@functools.cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@functools.lru_cache(maxsize=4_096)
def _parse(statement: str) -> tuple[str, tuple[str, ...]] | None:
    """An SPDX expression in its canonical form, and its keys; None when it is not one.

    Cargo's older `MIT/Apache-2.0` counts as `OR`. References of the user's own (`LicenseRef-...`) are kept.
    """
    from license_expression import ExpressionError, ExpressionParseError

    if len(statement) > 500 or "\n" in statement:
        return None
    name = _NAMES.get(statement.lower(), statement)
    text = name.replace("/", " OR ") if _SLASHED.fullmatch(name) else name
    try:
        parsed = _licensing().parse(text)
        unknown = _licensing().unknown_license_keys(parsed, unique=True)
        keys = _licensing().license_keys(parsed, unique=True)
    except (ExpressionError, ExpressionParseError, RecursionError):
        return None
    if parsed is None or not all(
        re.fullmatch(r"(DocumentRef-[\w.-]+:)?LicenseRef-[\w.-]+", key) for key in unknown
    ):
        return None
    return str(parsed), tuple(sorted(keys))


def _claims_table(rows: Mapping[tuple[str, str], _Claim]) -> pa.Table:
    ordered = sorted(rows.items())
    columns = {
        "content_id": [content_id for (content_id, _), _ in ordered],
        "kind": [kind for (_, kind), _ in ordered],
        "status": [found.status for _, found in ordered],
        "licenses": [list(found.licenses) for _, found in ordered],
        "expression": [_joined(found.expressions) for _, found in ordered],
        "reason": [found.reason for _, found in ordered],
        "passage_id": [_passage_id(found.passage) if found.passage else None for _, found in ordered],
        "passage": [found.passage or None for _, found in ordered],
    }
    return pa.table(columns, schema=CLAIMS)


def _passage_id(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _joined(expressions: Sequence[str]) -> str | None:
    if len(expressions) <= 1:
        return expressions[0] if expressions else None
    return " AND ".join(f"({expression})" if " " in expression else expression for expression in expressions)
