"""Fill-in-the-middle for one file, before packing (section 4.3).

A file that is chosen is cut at two uniform places into prefix, middle and suffix. PSM writes
`<fim_prefix>` prefix `<fim_suffix>` suffix `<fim_middle>` middle; SPM, in the variant that was used for training
("variant 2"), writes `<fim_prefix><fim_suffix>` suffix `<fim_middle>` prefix middle. The path that is shown in
front of a file lies inside the region, so a cut may fall into it. Cuts are placed between characters of the text,
whose pieces are then encoded anew (`char`, as published), or between tokens (`token`, which keeps every token and
adds exactly three).

The published implementation drew from one running generator, after sequences had been cut to length, and let
padding into the loss; it lost the separators of empty files, cut through or dropped special tokens, and on one
branch returned a tuple. None of it can happen here: a file is transformed whole and by itself, its randomness is
keyed by identity, separators belong to the renderer, nothing is padded, and a cut never falls inside a
placeholder of redaction.
"""

from bisect import bisect_right
from typing import Literal

import numpy as np

from starsmith.documents.special_tokens import FIM_MIDDLE_ID, FIM_PREFIX_ID, FIM_SUFFIX_ID
from starsmith.tokens.keyed_random import Draws
from starsmith.tokens.tokenizer import PLACEHOLDERS, Ids, Tokenizer

Kind = Literal["code", "path", "repo_name", "special", "prompt", "response", "padding"]
Part = tuple[Kind, Ids]
"""Tokens of one kind, in the order of the sequence."""


def infill(
    path: Ids, text: Ids, tokenizer: Tokenizer, *, split: Literal["char", "token"], spm: bool, draws: Draws
) -> list[Part]:
    """The parts of one transformed file.

    Args:
        path: the tokens of path and line feed; empty when paths are not shown.
        text: the tokens of the file.
        tokenizer: decodes and encodes for `char`.
        split: where cuts are placed.
        spm: suffix first.
        draws: two draws are taken, the cuts.

    Returns:
        The parts; a file without any token is returned as no parts, since there is nothing to cut.
    """
    if len(path) + len(text) == 0:
        return []
    pieces = _cut_characters(path, text, tokenizer, draws) if split == "char" else _cut_tokens(path, text, draws)
    prefix, middle, suffix = ([part for part in piece if len(part[1])] for piece in pieces)
    if spm:
        opening = [_special(tokenizer, FIM_PREFIX_ID, FIM_SUFFIX_ID)]
        return opening + suffix + [_special(tokenizer, FIM_MIDDLE_ID)] + prefix + middle
    return [
        _special(tokenizer, FIM_PREFIX_ID),
        *prefix,
        _special(tokenizer, FIM_SUFFIX_ID),
        *suffix,
        _special(tokenizer, FIM_MIDDLE_ID),
        *middle,
    ]


def _special(tokenizer: Tokenizer, *ids: int) -> Part:
    return "special", np.array(ids, dtype=tokenizer.dtype)


def _cuts(length: int, draws: Draws) -> tuple[int, int]:
    """Two places in [0, length], in order."""
    first, second = draws.integer(length + 1), draws.integer(length + 1)
    return min(first, second), max(first, second)


def _cut_tokens(path: Ids, text: Ids, draws: Draws) -> list[list[Part]]:
    low, high = _cuts(len(path) + len(text), draws)
    shift = len(path)
    return [
        [("path", path[start:end]), ("code", text[max(start - shift, 0) : max(end - shift, 0)])]
        for start, end in ((0, low), (low, high), (high, shift + len(text)))
    ]


def _cut_characters(path: Ids, text: Ids, tokenizer: Tokenizer, draws: Draws) -> list[list[Part]]:
    """Path and text of a piece are encoded apart, as they are in the shards."""
    path_text, code = tokenizer.decode(path).decode(), tokenizer.decode(text).decode()
    shift = len(path_text)
    spans = [match.span() for match in PLACEHOLDERS.finditer(code)]
    low, high = (_outside(cut, spans, shift) for cut in _cuts(shift + len(code), draws))
    bounds = ((0, low), (low, high), (high, shift + len(code)))
    strings = []
    for start, end in bounds:
        strings += [path_text[start:end], code[max(start - shift, 0) : max(end - shift, 0)]]
    encoded = tokenizer.encode(strings)
    return [[("path", encoded[2 * number]), ("code", encoded[2 * number + 1])] for number in range(len(bounds))]


def _outside(cut: int, spans: list[tuple[int, int]], shift: int) -> int:
    """The cut, moved to the start of the placeholder it would fall into."""
    place = bisect_right(spans, (cut - shift, 0)) - 1
    if place >= 0 and spans[place][0] < cut - shift < spans[place][1]:
        return spans[place][0] + shift
    return cut
