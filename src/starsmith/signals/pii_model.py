"""From a token classifier's probabilities to findings: the arithmetic, without the model (section 3.2).

The published corpus used StarPII, an encoder with labels B- and I- of NAME, EMAIL, KEY, PASSWORD, IP_ADDRESS and
of kinds that its redaction ignores (USERNAME, AMBIGUOUS, ID, and examples). Texts longer than the model are read
in chunks that overlap. As there, probabilities are merged on words (`[\\w+.-]+`, or one other character): a word
has the mean of its pieces in all chunks. Neighbouring words of a kind are one entity, unless one begins anew.

Then the published rules: more than 3 characters; a key has more than 8 and is gibberish; a name has two words or
more; an IP address parses and is personal. Punctuation is cut off in front, and behind but for keys.

The model itself runs on the top floor (`starsmith.steps.pii_model`): the data side has no use for torch.
"""

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from starsmith.signals import pii_addresses, pii_values
from starsmith.signals.pii_findings import KINDS, Finding

VERSION = 1
DETECTOR = "model"
MIN_CHARS = 4
MIN_KEY_CHARS = 9
MIN_NAME_WORDS = 2

_WORD = re.compile(r"[\w+.\-]+|\S")
_OUTSIDE = "O"


class Chunk(NamedTuple):
    """What the model says of one window of a text."""

    offsets: NDArray[np.int64]
    """(num_pieces, 2): first character of each piece, and the one after its last; equal for special tokens."""
    probabilities: NDArray[np.float64]
    """(num_pieces, num_labels)."""


def findings(text: str, labels: Sequence[str], chunks: Sequence[Chunk], min_score: float) -> list[Finding]:
    """The entities of a text, in order, not overlapping.

    Args:
        text: the whole text.
        labels: the model's, by number: `O`, `B-KIND`, `I-KIND`, or `KIND` alone.
        chunks: together they cover the text; a piece may be in several.
        min_score: entities whose words have a lower mean probability of their kind are left.

    Returns:
        Findings of `KINDS`, their spans in UTF-8 bytes and their score rounded to six digits.

    Raises:
        ValueError: a chunk's probabilities are not one for each label.
    """
    words = np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)
    if not len(words):
        return []
    kinds, begins = _kinds_of(labels)
    means, opening = _word_means(words, chunks, len(labels))
    by_kind = np.zeros((len(words), len(kinds)))
    starting = np.zeros(len(words))
    for label, kind in enumerate(begins.kind):
        by_kind[:, kind] += means[:, label]
    best = by_kind.argmax(axis=1)
    for word, kind in enumerate(best):
        first, inner = begins.first.get(int(kind)), begins.inner.get(int(kind))
        starting[word] = first is not None and inner is not None and opening[word, first] > opening[word, inner]
    widths = _byte_positions(text)
    found = []
    for first, last, kind in _runs(best, starting):
        score = round(float(by_kind[first:last, kind].mean()), 6)
        if kinds[kind] in KINDS and score >= min_score:
            start, end = _trim(text, int(words[first, 0]), int(words[last - 1, 1]), kinds[kind])
            if is_entity(text[start:end], kinds[kind]):
                found.append(Finding(kinds[kind], int(widths[start]), int(widths[end]), DETECTOR, score))
    return found


class _Labels(NamedTuple):
    kind: list[int]
    """By label: the number of its kind."""
    first: dict[int, int]
    """By kind: its label that begins an entity."""
    inner: dict[int, int]


def _kinds_of(labels: Sequence[str]) -> tuple[list[str], _Labels]:
    names = [label[2:] if label[:2] in ("B-", "I-") else label for label in labels]
    kinds = sorted(set(names) | {_OUTSIDE}, key=lambda name: (name != _OUTSIDE, name))
    numbers = [kinds.index(name) for name in names]
    first = {number: at for at, number in enumerate(numbers) if labels[at].startswith("B-")}
    inner = {number: at for at, number in enumerate(numbers) if labels[at].startswith("I-")}
    return kinds, _Labels(numbers, first, inner)


def _word_means(
    words: NDArray[np.int64], chunks: Sequence[Chunk], num_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(num_words, num_labels) twice: the mean over the pieces of each word in every chunk, 0 where it has none;
    and the sum over those that hold its first character."""
    sums, opening = np.zeros((len(words), num_labels)), np.zeros((len(words), num_labels))
    counts = np.zeros(len(words))
    for offsets, probabilities in chunks:
        if probabilities.shape != (len(offsets), num_labels):
            raise ValueError(f"{probabilities.shape} probabilities for {len(offsets)} pieces, {num_labels} labels")
        firsts = np.searchsorted(words[:, 1], offsets[:, 0], side="right")
        lasts = np.searchsorted(words[:, 0], offsets[:, 1], side="left")
        opened = np.searchsorted(words[:, 0], offsets[:, 0], side="left")
        for piece in np.flatnonzero(offsets[:, 1] > offsets[:, 0]):
            sums[firsts[piece] : lasts[piece]] += probabilities[piece]
            counts[firsts[piece] : lasts[piece]] += 1
            opening[opened[piece] : lasts[piece]] += probabilities[piece]
    return sums / np.maximum(counts, 1)[:, None], opening


def _runs(best: NDArray[np.int64], starting: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """First word, the word after the last, and the kind, of each run of a kind that is not outside."""
    edges = np.flatnonzero((np.diff(best, prepend=-1) != 0) | (starting > 0))
    ends = [*edges[1:].tolist(), len(best)]
    return [
        (first, last, int(best[first])) for first, last in zip(edges.tolist(), ends, strict=True) if best[first]
    ]


def _byte_positions(text: str) -> NDArray[np.int64]:
    """(num_chars + 1,): where each character begins in UTF-8."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(widths)])


def _trim(text: str, start: int, end: int, kind: str) -> tuple[int, int]:
    while start < end and text[start] in string.punctuation:
        start += 1
    while kind != "KEY" and end > start and text[end - 1] in string.punctuation:
        end -= 1
    return start, end


def is_entity(value: str, kind: str) -> bool:
    """The published rules that a value must pass after the model."""
    if len(value) < MIN_CHARS:
        return False
    if kind == "NAME":
        return len(value.split()) >= MIN_NAME_WORDS
    if kind == "KEY":
        return len(value) >= MIN_KEY_CHARS and pii_values.is_gibberish(value)
    if kind == "IP_ADDRESS":
        return value.isascii() and pii_addresses.is_personal_address(value.encode())
    return True
