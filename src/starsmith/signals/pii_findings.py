"""What a finding is, and how findings that overlap become one.

All rules give spans in UTF-8 bytes. Two rules may see one secret (an e-mail address inside the user part of a
URL), so overlapping spans are joined from the first byte to the last, under the kind of the longest: nothing
that any rule found is left over. Equally long, an e-mail address goes before an IP address, a password, a key
and a name.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import re2

KINDS = ("EMAIL", "IP_ADDRESS", "PASSWORD", "KEY", "NAME")

WORD_BYTES = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


class Finding(NamedTuple):
    kind: str
    start: int
    """First byte."""
    end: int
    """The byte after the last."""
    detector: str
    score: float = 1.0
    """Probability; rules have 1."""


@functools.cache
def compiled(pattern: str) -> "re2._Regexp[bytes]":
    """An RE2 expression on UTF-8 bytes: linear time, no look-around."""
    return re2.compile(pattern.encode(), _OPTIONS)


def has_word_borders(text: bytes, start: int, end: int) -> bool:
    """Whether neither neighbour of a span is a letter, a digit or an underscore."""
    return not (start and text[start - 1] in WORD_BYTES) and not (end < len(text) and text[end] in WORD_BYTES)


def merge(found: Iterable[Finding]) -> list[Finding]:
    """Findings in order, none overlapping another."""
    merged: list[Finding] = []
    longest: list[Finding] = []
    for finding in sorted(set(found), key=lambda f: (f.start, -f.end, _precedence(f))):
        if merged and finding.start < merged[-1].end:
            longest[-1] = best = min(longest[-1], finding, key=_precedence)
            start, end = merged[-1].start, max(merged[-1].end, finding.end)
            merged[-1] = Finding(best.kind, start, end, best.detector, best.score)
        else:
            merged.append(finding)
            longest.append(finding)
    return merged


def _precedence(finding: Finding) -> tuple[int, float, int, str]:
    return finding.start - finding.end, -finding.score, KINDS.index(finding.kind), finding.detector
