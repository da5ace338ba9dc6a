"""The compiled pass misses no anchor at which a rule finds something, and its work is linear."""

import random
import sysconfig
from pathlib import Path

import ahocorasick_rs
import numpy as np
import pytest
from counted_work import reads_per_byte
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.signals import pii, pii_anchors

TABLE = pii_anchors.keyword_table()
WORDS = sorted({keyword.word for keyword in TABLE})
ROWS = {word: [row for row, keyword in enumerate(TABLE) if keyword.word == word] for word in WORDS}
PLAIN = ahocorasick_rs.BytesAhoCorasick(WORDS)


def every_anchor(text):
    """The plain definition: each place of each keyword, in order of its end, whatever stands around it."""
    hits = PLAIN.find_matches_as_indexes(text.lower(), overlapping=True)
    places = sorted((end, row, start) for word, start, end in hits for row in ROWS[WORDS[word]])
    return [pii_anchors.Anchor(TABLE[row].family, TABLE[row].number, start, end) for end, row, start in places]


def anchors(text):
    data = np.frombuffer(text, np.uint8)
    rows = pii_anchors.find_anchors(np.array([0, len(text)], np.int64), data)
    return [pii_anchors.Anchor(*row) for row in rows[:, 1:].tolist()]


def assert_equal_to_plain(text):
    everything = every_anchor(text)
    assert set(anchors(text)) <= set(everything)
    assert pii.find(text) == pii.judge(text, everything), text[:200]


PIECES = st.sampled_from(
    [
        "password",
        "pass",
        "DB_PWD",
        "api_key",
        "secret",
        "Token",
        "auth",
        "=",
        ": ",
        " = ",
        ' => "',
        '"',
        "'",
        "`",
        "\\",
        '\\"',
        ";",
        "<",
        ">",
        "</",
        "x9Kd0sLq3",
        "Qw3rty!uiop",
        "aB3dE5fG7hJ9kL1m",
        "hunter2",
        "Bearer ",
        "https://",
        "me:",
        "@",
        "jane.doe",
        "company.com",
        ".",
        ":",
        "8",
        "93.184.216.34",
        "1.2.3.4",
        "2606:2800:220:1:248:1893:25c8:1946",
        "2001:",
        "::",
        "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",
        "sk-",
        "npm_",
        "key-",
        "0123456789abcdef" * 2,
        "-us12",
        ":AA",
        "Copyright (c) ",
        "2015 ",
        "2010-2020, ",
        "© ",
        "Author: ",
        "@author ",
        "Signed-off-by: ",
        "written by ",
        "Ada Lovelace",
        "J. R. Müller",
        "Łukasz Żak",
        "O\u2019Brien",
        "van der Berg",
        "Google Inc.",
        " and ",
        ", ",
        " <",
        "> ",
        "mysql ",
        "-p",
        "curl -u ",
        "--password ",
        "\n",
        "\r\n",
        " ",
        "\t",
        "é",
        "\u2013",
        "str",
        "-----BEGIN RSA PRIVATE KEY-----",
        "authors = [",
        "{name = ",
        "server=db;",
        "version ",
        "dns ",
        "export ",
        "- ",
    ]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_findings_are_those_of_the_plain_definition(text):
    assert_equal_to_plain(text.encode())


@settings(max_examples=50, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=8), st.integers(0, 600), st.sampled_from('aA1 _-.=\n:"é'))
def test_the_same_behind_long_runs(pieces, length, filler):
    """Bounds of looks and windows agree: runs that reach over them change both alike."""
    middle = len(pieces) // 2
    text = "".join(pieces[:middle]) + filler * length + "".join(pieces[middle:])
    assert_equal_to_plain(text.encode())


def test_the_same_on_the_standard_library():
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    random.Random(8).shuffle(files)
    size = found = 0
    for path in files:
        text = path.read_bytes()
        if len(text) < 200_000:
            assert_equal_to_plain(text)
            size += len(text)
            found += len(pii.find(text))
        if size > 2_000_000:
            break
    print(f"{found} findings in {size:,} bytes, all equal")
    assert found > 10


def test_rows_name_their_text():
    texts = [b"a@b.co", b"", b"nothing", b"x jane@company.com 93.184.216.34"]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    rows = pii_anchors.find_anchors(offsets, np.frombuffer(b"".join(texts), np.uint8))
    assert [(row[0], row[1], row[3], row[4]) for row in rows.tolist()] == [
        (0, pii_anchors.EMAIL, 1, 2),
        (3, pii_anchors.EMAIL, 6, 7),
        (3, pii_anchors.IPV4, 20, 22),
    ]


def test_more_anchors_than_fit_at_first():
    text = b"a@b.co " * 5_000
    assert len(anchors(text)) == 5_000
    assert len(pii.find(text)) == 5_000


@pytest.mark.parametrize(
    "unit",
    [
        "@",
        "1",
        "a.",
        "a@",
        "a@b",
        "1.",
        "1.1.1.1",
        "2001:",
        "::",
        "key",
        "key=",
        'key="',
        "pass",
        "pass:a=",
        "://",
        "://a:",
        "author ",
        "(c)A ",
        "mysql ",
        "-us",
        ":aa",
        "|",
        "sk-",
        "test_",
        "-----begin",
        "key='a1",
        "token:",
        " mt",
    ],
)
def test_work_is_linear(monkeypatch, unit):
    """Reads for each byte are bounded, and no more in twice the text."""

    def kernel(data):
        pii_anchors.find_anchors(np.array([0, len(data)], np.int64), data)

    def reads(size):
        text = (unit * size)[:size]
        return reads_per_byte(monkeypatch, [pii_anchors], kernel, text)

    small, large = reads(800), reads(1_600)
    assert large <= 1.6 * small + 1  # quadratic work would double
    assert large <= pii_anchors.LONGEST_LOOK


def test_whole_searches_of_hostile_texts_end_soon():
    """Linear rules judge the densest anchors in seconds; anything quadratic would take hours."""
    for unit in (b"@", b"a@b.c", b"0", b"xoxb-a-", b"-----BEGIN PRIVATE KEY-----", b"key=a1", b"(c) 2011 A "):
        text = (unit * (100_000 // len(unit) + 1))[:100_000]
        pii.find(text)
