"""Passages, statuses and SPDX keys; ScanCode itself on a few real texts."""

import functools
import sys

import pyarrow as pa
import pytest

from starsmith.corpus import schema
from starsmith.signals import license_scanner, license_texts

MIT = """MIT License

Copyright (c) 2020 Jane Doe

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation
the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and
to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of
the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS
IN THE SOFTWARE.
"""
PROSE = "".join(f"Line {number} of a manual that explains how to use this tool.\n" for number in range(200))
README = f"{PROSE}\n## License\n\nThis project is licensed under the Apache License, Version 2.0.\n"


def contents(*rows):
    """Rows of (content_id, status, text)."""
    columns = list(zip(*rows, strict=True))
    texts = pa.array(columns[2], pa.large_string())
    return pa.table({"content_id": list(columns[0]), "status": list(columns[1]), "text": texts})


def texts(*values):
    return contents(*((f"{number:02d}", "text", text) for number, text in enumerate(values)))


SCAN = {"deadline_seconds": 100, "max_text_bytes": 100_000, "workers": 1}


@pytest.fixture
def fake_scanner(monkeypatch):
    """Answers each passage with its words that are upper-case; remembers the passages."""
    seen = []

    def scan(parts, load, *, deadline_seconds, workers):
        seen.extend(parts)
        for number, part in reversed(list(enumerate(parts))):
            words = sorted({word for word in part.split() if word.isupper() and word.isalpha()})
            status = "timeout" if "TIMEOUT" in words else "failed" if "FAILED" in words else "scanned"
            answer = (tuple(words), " AND ".join(words) or None) if status == "scanned" else None
            yield license_scanner.Outcome(number, status, answer)

    monkeypatch.setattr(license_scanner, "scan", scan)
    return seen


def test_texts_without_licence_words_are_scanned_for_nothing(fake_scanner):
    result = license_texts.scan(texts(PROSE), **SCAN)
    assert result.schema == schema.LICENSE_TEXTS
    assert result.to_pylist() == [{"content_id": "00", "status": "scanned", "licenses": [], "expression": None}]
    assert fake_scanner == []


def test_short_texts_are_scanned_whatever_they_say(fake_scanner):
    license_texts.scan(texts("do what you want"), **SCAN)
    assert fake_scanner == ["do what you want"]


def test_a_long_readme_is_scanned_around_its_licence_words():
    part = license_texts.passage(README)
    assert "licensed under the Apache" in part
    assert "## License" in part
    assert len(part.splitlines()) == license_texts.LINES_BEFORE + 3
    assert license_texts.passage(PROSE + README).endswith(part)


def test_a_licence_is_scanned_whole():
    assert license_texts.passage(MIT) == MIT.strip()
    bundle = MIT + "\n".join("Part of the same agreement." for _ in range(40)) + MIT
    assert license_texts.passage(bundle).count("Part of the same") == 40


def test_indentation_and_line_ends_do_not_make_another_passage(fake_scanner):
    indented = "\r\n".join(f"   {line}  " for line in MIT.split("\n"))
    result = license_texts.scan(texts(MIT, indented, f"\n\n{MIT}\n"), **SCAN)
    assert len(fake_scanner) == 1
    assert len({tuple(row["licenses"]) for row in result.to_pylist()}) == 1


def test_every_status_and_no_silent_loss(fake_scanner):
    calls = []
    rows = contents(
        ("08", "text", "licence MIT here"),
        ("01", "empty", None),
        ("02", "binary", None),
        ("03", "undecodable", None),
        ("04", "too_large", None),
        ("05", "text", "license " * 20_000),
        ("06", "text", "licence TIMEOUT"),
        ("07", "text", "licence FAILED"),
        ("08", "text", "licence MIT here"),
    )
    result = license_texts.scan(rows, **SCAN, progress=lambda *call: calls.append(call)).to_pylist()
    assert [(row["content_id"], row["status"], row["licenses"]) for row in result] == [
        ("01", "scanned", []),
        ("02", "failed", []),
        ("03", "failed", []),
        ("04", "too_large", []),
        ("05", "too_large", []),
        ("06", "timeout", []),
        ("07", "failed", []),
        ("08", "scanned", ["MIT"]),
    ]
    assert calls[0] == (5, 8)
    assert calls[-1] == (8, 8)


def test_the_size_limit_counts_bytes(fake_scanner):
    limits = {**SCAN, "max_text_bytes": 10}
    rows = license_texts.scan(texts("ééééé", "éééééé"), **limits).to_pylist()
    assert [row["status"] for row in rows] == ["scanned", "too_large"]


def load_words():
    """A stand-in for ScanCode: the licences of a text are its first two words."""
    return lambda text, deadline: (tuple(sorted(set(text.split()[:2]))), " AND ".join(text.split()[:2]))


def test_the_number_of_workers_changes_nothing(monkeypatch):
    monkeypatch.setattr(license_texts, "load_scancode", load_words)
    rows = texts(*(f"word{number} licence text" for number in range(40)))
    one, three = (license_texts.scan(rows, **{**SCAN, "workers": workers}) for workers in (1, 3))
    assert one.equals(three)
    assert one["licenses"].to_pylist()[7] == ["licence", "word7"]


def test_spdx_keys_of_every_symbol_of_every_expression():
    combine = license_texts._combine
    expressions = ["MIT OR Apache-2.0", None, "GPL-2.0-or-later WITH Classpath-exception-2.0", "MIT OR Apache-2.0"]
    licenses, expression = combine(expressions)
    assert licenses == ("Apache-2.0", "Classpath-exception-2.0", "GPL-2.0-or-later", "MIT")
    assert expression == "(MIT OR Apache-2.0) AND GPL-2.0-or-later WITH Classpath-exception-2.0"
    assert combine([None]) == ((), None)


@functools.cache
def scanned():
    """ScanCode on real texts; about ten seconds for its index."""
    tag = "# SPDX-License-Identifier: Apache-2.0 OR MIT\n"
    both = MIT + "\n\nThe logo is under the Creative Commons Attribution 4.0 International License.\n"
    rows = texts(MIT, README, tag, both, MIT.replace("Jane Doe", "Another Author"), "Just a note to myself.")
    return license_texts.scan(rows, deadline_seconds=100, max_text_bytes=100_000, workers=2)


def test_scancode_finds_what_real_texts_say():
    rows = scanned().to_pylist()
    assert [row["status"] for row in rows] == ["scanned"] * 6
    assert rows[0]["licenses"] == rows[4]["licenses"] == ["MIT"]
    assert rows[1]["licenses"] == ["Apache-2.0"]
    assert rows[2]["licenses"] == ["Apache-2.0", "MIT"]
    assert rows[2]["expression"] == "Apache-2.0 OR MIT"
    assert rows[3]["licenses"] == ["CC-BY-4.0", "MIT"]
    assert rows[5]["licenses"] == []


def test_the_callers_process_never_loads_scancode():
    scanned()
    assert "licensedcode.cache" not in sys.modules


def test_index_version_names_the_release():
    assert license_texts.index_version() == "scancode-toolkit-mini 32.5.0"
