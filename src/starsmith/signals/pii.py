"""Where a text has personal data and secrets: spans, never values (section 3.2).

Rules only; a model of entities can be laid beside them (`pii_model`). A compiled pass over the bytes finds the
anchors at which a rule could match (`pii_anchors`); there the rules read a bounded window and decide: e-mail and
IP addresses (`pii_addresses`), keys and passwords (`pii_secrets`, `pii_keys`, `pii_values`), names in author
positions (`pii_names`). The result is the same as if each rule were tried at every one of its anchors.

Findings that overlap are one (`pii_findings`). User names are not looked for: the published redaction ignores
its model's label for them. Names elsewhere than in author positions need the model.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from starsmith.corpus import schema
from starsmith.corpus.buffers import text_buffers
from starsmith.signals import pii_addresses, pii_anchors, pii_names, pii_secrets
from starsmith.signals.pii_anchors import Anchor
from starsmith.signals.pii_findings import KINDS, Finding, merge
from starsmith.signals.pii_secrets import Document

__all__ = ["KINDS", "VERSION", "Finding", "find", "findings_table", "judge", "measure"]

VERSION = 2
"""Changes when any finding could."""


def measure(contents: pa.Table) -> pa.Table:
    """The findings in each content that is text.

    Args:
        contents: at least content_id and text of `schema.CONTENTS`; a null text has no findings.

    Returns:
        `schema.PII`, ordered by content_id and start; the spans of a content do not overlap.
    """
    rows: list[tuple[str, Finding]] = []
    for batch in contents.select(["content_id", "text"]).to_batches():
        rows += _measure_batch(batch)
    return findings_table(rows)


def findings_table(rows: Iterable[tuple[str, Finding]]) -> pa.Table:
    """Findings and their contents as `schema.PII`, ordered by content_id and start."""
    ordered = sorted(rows, key=lambda row: (row[0], row[1].start))
    columns = {
        "content_id": [content_id for content_id, _ in ordered],
        "kind": [finding.kind for _, finding in ordered],
        "start": [finding.start for _, finding in ordered],
        "end": [finding.end for _, finding in ordered],
        "detector": [finding.detector for _, finding in ordered],
        "score": [finding.score for _, finding in ordered],
    }
    return pa.table(columns, schema=schema.PII)


def _measure_batch(batch: pa.RecordBatch) -> Iterator[tuple[str, Finding]]:
    offsets, data = text_buffers(batch.column(1))
    anchors = pii_anchors.find_anchors(offsets, data)
    firsts = np.flatnonzero(np.diff(anchors[:, 0], prepend=-1))
    for first, rows in zip(firsts, np.split(anchors, firsts[1:]), strict=False):
        text = int(anchors[first, 0])
        bytes_ = data[offsets[text] : offsets[text + 1]].tobytes()
        content_id = batch.column(0)[text].as_py()
        places = [Anchor(*row) for row in rows[:, 1:].tolist()]
        yield from ((content_id, finding) for finding in judge(bytes_, places))


def find(text: bytes) -> list[Finding]:
    """All findings of one text in UTF-8, in order, not overlapping."""
    data = np.frombuffer(text, np.uint8)
    offsets = np.array([0, len(text)], np.int64)
    rows = pii_anchors.find_anchors(offsets, data)
    return judge(text, [Anchor(*row) for row in rows[:, 1:].tolist()])


def judge(text: bytes, anchors: Iterable[Anchor]) -> list[Finding]:
    """What the rules find at anchors; in order, not overlapping."""
    document = Document(text)
    found: list[Finding] = []
    for anchor in anchors:
        found += _RULES[anchor.family](document, anchor)
    return merge(found)


_Rule = Callable[[Document, Anchor], Iterator[Finding]]


def _on_text(rule: Callable[[bytes, Anchor], Iterator[Finding]]) -> _Rule:
    return lambda document, anchor: rule(document.text, anchor)


_RULES: dict[int, _Rule] = {
    pii_anchors.EMAIL: _on_text(pii_addresses.email),
    pii_anchors.IPV4: _on_text(pii_addresses.ipv4),
    pii_anchors.IPV6: _on_text(pii_addresses.ipv6),
    pii_anchors.NAME: _on_text(pii_names.names),
    pii_anchors.TOKEN: pii_secrets.token,
    pii_anchors.INNER_TOKEN: pii_secrets.token,
    pii_anchors.PEM: pii_secrets.private_key,
    pii_anchors.ASSIGNED: pii_secrets.assigned,
    pii_anchors.BEARER: pii_secrets.bearer,
    pii_anchors.URL: pii_secrets.url_password,
    pii_anchors.COMMAND: pii_secrets.command_password,
}
