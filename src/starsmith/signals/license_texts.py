"""The licences that contents name: ScanCode's detection on each distinct passage once (section 1.2).

As in The Stack v2, the licences of a text are the SPDX keys of every symbol in the expression of every detection.
One deliberate difference: the published script passes `deadline=100`, but ScanCode's deadline is a `time.time()`
value, so there it had always passed and matching stopped after whole-text hashes and SPDX identifiers. Here every
passage has `deadline_seconds`.

It is done in two stages, so that memory stays flat and ScanCode sees each distinct passage once. `license_claims`
reads contents, a batch at a time, and finds what is exact and what is to be scanned. `scan` runs ScanCode over
the distinct passages of all claims, the long ones first, and joins the answers to the contents. Finished passages
are written as it goes; these, and those of earlier results, are not scanned again, whatever kind or file they
came from.

A statement of a manifest that is neither SPDX nor found by ScanCode says that there is a licence, unknown which
(`UNKNOWN_REFERENCE`). The status says what happened; evidence that timed out, failed or was too large is never
evidence of no licence.
"""

import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith.corpus import query, schema
from starsmith.corpus.license_paths import UNKNOWN_REFERENCE
from starsmith.corpus.store import write_parquet
from starsmith.signals import license_scanner
from starsmith.signals.license_claims import CLAIMS, KINDS, claim, kinds_of, passage

__all__ = ["CLAIMS", "KINDS", "PASSAGES", "VERSION", "claim", "index_version", "kinds_of", "passage", "scan"]

VERSION = 3
"""Changes when any column could, the licence index aside (`index_version`)."""

PASSAGES = pa.schema(  # what ScanCode said of a passage
    [
        pa.field("passage_id", pa.string(), nullable=False),  # sha1 of its UTF-8 bytes
        pa.field("status", pa.string(), nullable=False),  # scanned, timeout, failed
        pa.field("licenses", pa.list_(pa.string()), nullable=False),
        pa.field("expression", pa.string()),
        pa.field("reason", pa.string()),
    ]
)

PASSAGES_PER_PART = 64
"""What a killed run can lose."""

Progress = Callable[[int, int], None]


def index_version() -> str:
    """The ScanCode release whose licence index decides, without loading it."""
    return f"scancode-toolkit-mini {importlib.metadata.version('scancode-toolkit-mini')}"


def scan(
    claims: Sequence[Path],
    place_of: Callable[[int], Path],
    *,
    scratch: Path,
    deadline_seconds: int,
    workers: int,
    known: Sequence[Path] = (),
    progress: Progress = lambda done, total: None,
) -> pa.Table:
    """Scans each distinct passage of the claims; about 10 s to load the index, then some tenths of a second each.

    Args:
        claims: Parquet parts of `CLAIMS`.
        place_of: where the part of a number goes, of the table `PASSAGES`. Parts that are there are from the same
            call, killed, and not made again.
        scratch: a folder for the passages' texts, which are mapped and not held in memory.
        deadline_seconds: after which a passage is given up as `timeout`.
        workers: processes; 1.4 GB are shared by them and each adds some 0.4 GB. Changes no result.
        known: parts of `PASSAGES` from earlier results with the same index; what was `scanned` is taken over.
        progress: called with passages done and in all.

    Returns:
        `schema.LICENSE_TEXTS`, ordered by content_id and kind.

    Raises:
        MachineError: ScanCode's index cannot be loaded, or there was not enough memory for it.
    """
    stored = scratch / "passages.arrow"
    identifiers = _store_passages(claims, stored, scratch)
    texts = license_scanner.StoredTexts(stored)
    writer = _PassageWriter(identifiers, place_of)
    writer.take_known(known)
    missing = writer.missing()
    progress(len(identifiers) - len(missing), len(identifiers))
    outcomes = license_scanner.scan(
        _Chosen(texts, missing), load_scancode, deadline_seconds=deadline_seconds, workers=workers
    )
    for num_done, outcome in enumerate(outcomes, len(identifiers) - len(missing) + 1):
        writer.add(missing[outcome.number], outcome)
        progress(num_done, len(identifiers))
    stored.unlink()
    return _answer(claims, writer.parts())


class _Chosen(Sequence[str]):
    """Some of a sequence of texts, by number."""

    def __init__(self, texts: Sequence[str], numbers: Sequence[int]) -> None:
        self._texts, self._numbers = texts, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: Any) -> Any:
        return self._texts[self._numbers[number]]


def _store_passages(claims: Sequence[Path], place: Path, scratch: Path) -> list[str]:
    """Writes the distinct passages, the long ones first (no long tail); returns their identifiers."""
    identifiers: list[str] = []
    with query.connect({}, spill=scratch) as connection, pa.OSFile(str(place), "wb") as sink:
        parts = ", ".join(query.literal(str(part)) for part in claims)
        found = connection.sql(
            f"""
            SELECT passage_id, any_value(passage) AS passage FROM read_parquet([{parts}])
            WHERE passage_id IS NOT NULL GROUP BY passage_id ORDER BY length(any_value(passage)) DESC, passage_id
            """
        )
        with pa.ipc.new_file(sink, pa.schema([pa.field("passage", pa.large_string())])) as writer:
            for batch in found.to_arrow_reader(1_024):
                identifiers += batch.column("passage_id").to_pylist()
                writer.write_batch(
                    pa.record_batch([batch.column("passage").cast(pa.large_string())], names=["passage"])
                )
    return identifiers


class _PassageWriter:
    """Collects what is known of passages and writes it in parts of fixed contents, as soon as one is complete.

    A part depends on the passages alone, not on which of them were known or the order in which they end.
    """

    def __init__(self, identifiers: Sequence[str], place_of: Callable[[int], Path]) -> None:
        self._identifiers = identifiers
        self._place_of = place_of
        self._rows: dict[int, dict[int, dict[str, Any]]] = {}
        self._numbers = range((len(identifiers) + PASSAGES_PER_PART - 1) // PASSAGES_PER_PART)

    def parts(self) -> list[Path]:
        return [self._place_of(number) for number in self._numbers]

    def take_known(self, known: Sequence[Path]) -> None:
        wanted = {
            identifier: place
            for place, identifier in enumerate(self._identifiers)
            if not self._place_of(place // PASSAGES_PER_PART).is_file()
        }
        for part in known:
            for row in pq.read_table(part, schema=PASSAGES).to_pylist():
                if row["status"] == "scanned" and row["passage_id"] in wanted:
                    self._put(wanted.pop(row["passage_id"]), row)

    def missing(self) -> list[int]:
        return [
            place
            for place in range(len(self._identifiers))
            if place not in self._rows.get(place // PASSAGES_PER_PART, {})
            and not self._place_of(place // PASSAGES_PER_PART).is_file()
        ]

    def add(self, place: int, outcome: license_scanner.Outcome) -> None:
        licenses, expression = outcome.answer or ((), None)
        row = {
            "passage_id": self._identifiers[place],
            "status": outcome.status,
            "licenses": list(licenses),
            "expression": expression,
            "reason": outcome.reason,
        }
        self._put(place, row)

    def _put(self, place: int, row: dict[str, Any]) -> None:
        number = place // PASSAGES_PER_PART
        rows = self._rows.setdefault(number, {})
        rows[place] = row
        if len(rows) == min(PASSAGES_PER_PART, len(self._identifiers) - number * PASSAGES_PER_PART):
            ordered = [rows[place] for place in sorted(rows)]
            write_parquet(self._place_of(number), pa.Table.from_pylist(ordered, schema=PASSAGES))
            del self._rows[number]


def _answer(claims: Sequence[Path], passages: Sequence[Path]) -> pa.Table:
    """The claims with what ScanCode said of their passages."""
    with query.connect({"license_texts": claims}) as connection:
        if passages:
            parts = ", ".join(query.literal(str(part)) for part in passages)
            connection.execute(f"CREATE VIEW passages AS SELECT * FROM read_parquet([{parts}])")
        else:
            connection.register("passages", PASSAGES.empty_table())
        return query.fetch(connection, _ANSWER_SQL, schema.LICENSE_TEXTS)


_ANSWER_SQL = f"""
    WITH joined AS (
        SELECT c.content_id, c.kind, coalesce(p.status, c.status) AS status,
            coalesce(p.reason, c.reason) AS reason,
            CASE WHEN c.kind = 'manifest' AND p.status = 'scanned' AND len(p.licenses) = 0
                 THEN [{query.literal(UNKNOWN_REFERENCE)}] ELSE coalesce(p.licenses, []) END AS found,
            c.licenses AS exact, c.expression AS exact_expression,
            CASE WHEN c.kind = 'manifest' AND p.status = 'scanned' AND len(p.licenses) = 0
                 THEN {query.literal(UNKNOWN_REFERENCE)} ELSE p.expression END AS found_expression
        FROM license_texts c LEFT JOIN passages p USING (passage_id)
    )
    SELECT content_id, kind, status, list_sort(list_distinct(list_concat(exact, found))) AS licenses,
        CASE
            WHEN exact_expression IS NULL OR exact_expression = found_expression THEN found_expression
            WHEN found_expression IS NULL THEN exact_expression
            ELSE if(contains(exact_expression, ' OR '), '(' || exact_expression || ')', exact_expression)
                || ' AND '
                || if(contains(found_expression, ' OR '), '(' || found_expression || ')', found_expression)
        END AS expression,
        reason
    FROM joined ORDER BY content_id, kind
"""


# ---- ScanCode


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
