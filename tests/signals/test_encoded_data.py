"""The state machines find what `re` finds with the published expressions, on any text."""

import random
import re

import numpy as np
import pyarrow as pa
import pytest
from counted_work import reads_per_byte
from hypothesis import example, given, settings
from hypothesis import strategies as st

from starsmith.corpus.buffers import text_buffers
from starsmith.signals import code_points, encoded_data, text_definitions

KINDS = tuple(text_definitions.ENCODED_DATA)


def measured(texts):
    buffers = text_buffers(pa.array(texts, pa.large_string()))
    return encoded_data.encoded_data(*buffers, code_points.properties()).tolist()


def expect(texts):
    expected = [[value for kind in KINDS for value in text_definitions.encoded_data(t, kind)] for t in texts]
    for text, got, wanted in zip(texts, measured(texts), expected, strict=True):
        assert got == wanted, text


HEX_PIECES = [
    "ab", "0xAB", "\\x4F", "9f", "0", "a", "0x", "\\x", "\\", "x", "0x0xAB", "\\\\x41", "Ab,", "0x1F, ", ",", ", ",
    " ", "\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\u00a0", "\u2003", "\u3000", "\u200b", "g", "_", "é", "漢",
    "٣", "²", "\u0301", "😀", "\U0001d538", "-", '"', "ab cd ", "00 11 22 33 ", "\\x48\\x31", "ab,cd,",
    "0xAB\u2003",
]  # fmt: skip
UNICODE_PIECES = [
    "\\u0041" * 3, "\\u00e9", "\\uABCD" * 8, "\\u", "\\", "u", "\\u12", "\\u123", "\\u12345", "\\U0001F600", "g",
    "é",
]  # fmt: skip
BASE64_PIECES = ["QUJD" * 5, "Zm9v\n", "=", "==", "a" * 62, "b", "+/", "\n", "-", "é", " ", "x" * 64]


def generated(pieces, max_size, num_texts=40):
    """Many texts of one kind in each example: what is rare in one text (eight units on end) is then tried."""
    common = st.lists(st.sampled_from(pieces), max_size=6)

    @st.composite
    def texts(draw):
        favourites = draw(common)
        rng = random.Random(draw(st.integers(0, 2**32)))
        pool = favourites * 4 + pieces if favourites else pieces
        return ["".join(rng.choices(pool, k=rng.randint(0, max_size))) for _ in range(num_texts)]

    return texts()


@settings(max_examples=50, deadline=None)
@given(generated(HEX_PIECES, 30))
def test_hex_like_texts(texts):
    expect(texts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HEX_PIECES[:4]), st.sampled_from(HEX_PIECES)), min_size=6, max_size=14))
def test_hex_units_with_every_separator(pairs):
    for separator in HEX_PIECES:
        expect([separator.join(unit for unit, _ in pairs), "".join(unit + piece for unit, piece in pairs)])


@settings(max_examples=50, deadline=None)
@given(generated(UNICODE_PIECES, 25))
def test_unicode_like_texts(texts):
    expect(texts)


@settings(max_examples=50, deadline=None)
@given(generated(BASE64_PIECES, 25))
def test_base64_like_texts(texts):
    expect(texts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=50), max_size=10))
@example(["", "a" * 63, "a" * 64, "é" + "a" * 64 + "é", "\\u0041" * 7, "\\u0041" * 8, "ab " * 8, "ab " * 7 + "ab"])
@example(["ab " * 7 + "abc", "éab " + "ab " * 8, "ab\u3000" * 8, "ab\u3000" * 7 + "ab漢", "0xab,\\x12" * 8])
@example(['"' + "\\x48\\x31" * 8 + '"', "a" + "\\x48" * 8, "ab, " * 9, "ab," * 8, "\t" * 30 + "ab\n" * 8])
def test_any_text(texts):
    expect(texts)


def test_all_hex_texts_of_a_few_units():
    """Exhaustive: every sequence of five pieces, with enough units on both sides for a match to form."""
    pieces = ["ab", "\\x12", ",", " ", "g", "\u3000"]
    middles = [""]
    for _ in range(5):
        middles = [middle + piece for middle in middles for piece in pieces]
    expect(["cd " * 4 + middle + " ef" * 4 for middle in middles])


def test_published_quirks():
    hexes = measured(['"' + "\\x41" * 9 + '"', "0x41, " * 100])
    assert hexes[0][2:4] == [32, 32]  # the first of nine is missed
    assert hexes[1][2:4] == [0, 0]  # a comma and a space are no separator


def test_neighbouring_texts_do_not_touch():
    halves = ["a" * 40, "b" * 40, "ab " * 5, "cd " * 5, "\\u0041" * 5, "\\u0041" * 5]
    assert not np.any(measured(halves))


def near_misses():
    for kind, pieces in {
        "base64": ["a" * 63 + "-", "\n" * 63 + "."],
        "hex": [
            "ab " * 7 + "g",
            "ab," * 7 + "-",
            "0x" * 12,
            "\\x" * 12,
            "\\x4 ",
            "ab" + " " * 500,
            "ab\u3000" * 7 + "漢",
        ],
        "unicode": ["\\u0041" * 7 + "\\u004", "\\u" * 30, "u0041" * 10, "\\" * 50],
    }.items():
        for piece in pieces:
            yield pytest.param(piece, id=f"{kind}-{piece[:4]!r}-{len(piece)}")


@pytest.mark.parametrize("piece", list(near_misses()))
def test_near_misses_take_linear_work(monkeypatch, piece):
    def kernel(data):
        encoded_data.encoded_data(np.array([0, len(data)]), data, code_points.properties())

    short, long = (
        reads_per_byte(monkeypatch, (encoded_data, code_points), kernel, piece * (size // len(piece)))
        for size in (1_000, 4_000)
    )
    assert long < 1.1 * short + 0.5
    assert long < 25


def test_alphabets_are_those_of_the_expressions():
    for table, kind in (
        (encoded_data.BASE64_BYTES, r"[a-zA-Z0-9+/\n=]"),
        (encoded_data.UNICODE_BYTES, r"[\\u0-9a-fA-F]"),
        (encoded_data.HEX_BYTES, r"[0x\\0-9a-fA-F,\s]"),
    ):
        assert table[:128].tolist() == [bool(re.match(kind, chr(byte))) for byte in range(128)]
