"""The licences that a licence-like text names: ScanCode's detection on each distinct text once (section 1.2).

Which files are licence-like is a rule on the name (`corpus/license_paths.py`). What is measured here depends on
the text alone, so that a text with two names has one answer. As in The Stack v2, the licences of a text are the
SPDX keys of every symbol in the expression of every detection. One deliberate difference: the published script
passes `deadline=100`, but ScanCode's deadline is a `time.time()` value, so there it had always passed and
matching stopped after whole-text hashes and SPDX identifiers. Here every text has `deadline_seconds`.

The rule on names brings many a README of which a few lines concern a licence, and ScanCode's time grows with
the rest. So it gets a *passage*:

* nothing, when the text has none of `LICENSE_WORDS` (it is `scanned`, without licences);
* the lines around those words, when they are less than `WHOLE_FRACTION` of the text; else the whole text;
* each line stripped; equal passages are scanned once.

The price: a licence that is named by none of these words, far from any line that has one, is not found in a long
text. How often that happens is not measured yet. Texts of at most `SHORT_BYTES` are scanned as they are.

The status says what happened; a text that timed out, failed or was too large is never one without a licence.
"""

import importlib.metadata
import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from starsmith.corpus import schema
from starsmith.corpus.license_paths import is_license_like
from starsmith.signals import license_scanner

__all__ = ["VERSION", "index_version", "is_license_like", "passage", "scan"]

VERSION = 1
"""Changes when any column could, the licence index aside (`index_version`)."""

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

Progress = Callable[[int, int], None]

_Row = tuple[str, tuple[str, ...], str | None]
"""Status, licences, expression."""

_NOTHING: _Row = ("scanned", (), None)


def index_version() -> str:
    """The ScanCode release whose licence index decides, without loading it."""
    return f"scancode-toolkit-mini {importlib.metadata.version('scancode-toolkit-mini')}"


def scan(
    contents: pa.Table,
    *,
    deadline_seconds: int,
    max_text_bytes: int,
    workers: int,
    progress: Progress = lambda done, total: None,
) -> pa.Table:
    """Scans each distinct content; about 10 s to load the index, then some tenths of a second a text.

    Args:
        contents: at least content_id, status and text of `schema.CONTENTS`; the licence-like ones.
        deadline_seconds: after which a text is given up as `timeout`.
        max_text_bytes: texts with more UTF-8 bytes are `too_large`, and not scanned.
        workers: processes; 1.4 GB are shared by them and each adds some 0.4 GB. Changes no result.
        progress: called with contents done and in all.

    Returns:
        `schema.LICENSE_TEXTS`, ordered by content_id. Contents that are empty are `scanned` without licences;
        those without text for other reasons are `too_large` or `failed`.

    Raises:
        MachineError: ScanCode's index cannot be loaded, or there was not enough memory for it.
    """
    rows: dict[str, _Row] = {}
    waiting: dict[str, list[str]] = {}  # passage to the contents that have it
    for content_id, status, text in _distinct(contents):
        if status != "text" or len(text.encode()) > max_text_bytes:
            rows[content_id] = _unscanned(status)
        elif not (part := passage(text)):
            rows[content_id] = _NOTHING
        else:
            waiting.setdefault(part, []).append(content_id)
    total = len(rows) + sum(map(len, waiting.values()))
    progress(len(rows), total)
    parts = sorted(waiting, key=lambda part: (-len(part), part))  # the slow ones first: no long tail
    for outcome in license_scanner.scan(parts, load_scancode, deadline_seconds=deadline_seconds, workers=workers):
        licenses, expression = outcome.answer or ((), None)
        rows |= dict.fromkeys(waiting[parts[outcome.number]], (outcome.status, licenses, expression))
        progress(len(rows), total)
    return _table(rows)


def passage(text: str) -> str:
    """What of a text ScanCode is given; empty when nothing in it speaks of a licence."""
    lines = [line.strip() for line in text.splitlines()]
    if len(text.encode()) > SHORT_BYTES:
        near = _lines_near_words(lines)
        num_chars = sum(map(len, lines))
        if sum(len(lines[row]) for row in near) < WHOLE_FRACTION * num_chars:
            lines = [lines[row] for row in near]
    return "\n".join(lines).strip()


def load_scancode() -> license_scanner.Detect:
    """ScanCode's index, and detection with it. Runs in the scanner's own process."""
    from licensedcode import cache

    cache.get_index()
    cache.get_licenses_db()
    return _detect


def _detect(text: str, deadline: float) -> tuple[tuple[str, ...], str | None]:
    """The licences and the joined expression of a text."""
    from licensedcode.detection import detect_licenses

    detections = list(detect_licenses(query_string=text, deadline=deadline))  # a generator: it does nothing unread
    return _combine(found.license_expression_spdx for found in detections)


def _combine(expressions: Iterable[str | None]) -> tuple[tuple[str, ...], str | None]:
    """All symbols of all expressions, and the expressions joined by AND, each once in order of appearance.

    ScanCode yields None for a detection it takes for a false positive.
    """
    from license_expression import Licensing, combine_expressions

    licensing: Any = Licensing()
    known = [expression for expression in expressions if expression]
    keys = {key for expression in known for key in licensing.license_keys(expression, unique=True)}
    joined = combine_expressions(known, relation="AND", unique=True, licensing=licensing) if known else None
    return tuple(sorted(keys)), None if joined is None else str(joined)


def _lines_near_words(lines: list[str]) -> list[int]:
    near: set[int] = set()
    for row, line in enumerate(lines):
        if LICENSE_WORDS.search(line):
            near.update(range(max(0, row - LINES_BEFORE), min(len(lines), row + LINES_AFTER + 1)))
    return sorted(near)


def _distinct(contents: pa.Table) -> Iterable[tuple[str, str, str]]:
    seen: set[str] = set()
    for batch in contents.select(["content_id", "status", "text"]).to_batches():
        for content_id, status, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if content_id not in seen:
                seen.add(content_id)
                yield content_id, status, text or ""


def _unscanned(status: str) -> _Row:
    if status == "empty":
        return _NOTHING
    return ("too_large" if status in ("text", "too_large") else "failed"), (), None


def _table(rows: dict[str, _Row]) -> pa.Table:
    ordered = sorted(rows.items())
    columns = {
        "content_id": [content_id for content_id, _ in ordered],
        "status": [status for _, (status, _, _) in ordered],
        "licenses": [list(licenses) for _, (_, licenses, _) in ordered],
        "expression": [expression for _, (_, _, expression) in ordered],
    }
    return pa.table(columns, schema=schema.LICENSE_TEXTS)
