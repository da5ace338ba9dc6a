"""Passages, statuses and SPDX keys; ScanCode itself on a few real texts."""

import functools
import json
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.corpus.license_paths import UNKNOWN_REFERENCE
from starsmith.signals import license_claims, license_scanner, license_texts

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
    columns = list(zip(*rows, strict=True)) or [[], [], []]
    return pa.table(
        {
            "content_id": pa.array(columns[0], pa.string()),
            "status": pa.array(columns[1], pa.string()),
            "text": pa.array(columns[2], pa.large_string()),
        }
    )


def names(*rows):
    """Rows of (path, content_id)."""
    columns = list(zip(*rows, strict=True)) or [[], []]
    return pa.table({"path": pa.array(columns[0], pa.string()), "content_id": pa.array(columns[1], pa.string())})


@pytest.fixture
def stages(tmp_path):
    """Both stages over (path, text) or (path, status, text); equal texts are one content."""
    calls = iter(range(1_000))

    def run(*files, kinds=license_texts.KINDS, max_text_bytes=100_000, known=(), workers=1, keep=None, **options):
        folder = keep or tmp_path / f"call{next(calls)}"
        folder.mkdir(exist_ok=True)
        rows = [(file[0], "text", file[1]) if len(file) == 2 else file for file in files]
        numbers = {}
        for _, status, text in rows:
            numbers.setdefault((status, text), f"{len(numbers):02d}")
        here = names(*((path, numbers[status, text]) for path, status, text in rows))
        texts = contents(*((number, status, text) for (status, text), number in numbers.items()))
        claims = license_texts.claim(here, texts, kinds=kinds, max_text_bytes=max_text_bytes)
        pq.write_table(claims, folder / "claims.parquet")
        result = license_texts.scan(
            [folder / "claims.parquet"],
            lambda number: folder / f"passages-{number}.parquet",
            scratch=folder,
            deadline_seconds=100,
            workers=workers,
            known=known,
            **options,
        )
        assert result.schema == schema.LICENSE_TEXTS
        keys = list(zip(result["content_id"].to_pylist(), result["kind"].to_pylist(), strict=True))
        assert keys == sorted(set(keys))
        run.passages = sorted(folder.glob("passages-*.parquet"))
        return result.to_pylist()

    return run


@pytest.fixture
def fake_scanner(monkeypatch):
    """Answers each passage with its words that are upper-case; remembers the passages."""
    seen = []

    def scan(parts, load, *, deadline_seconds, workers):
        seen.extend(parts[number] for number in range(len(parts)))
        for number, part in reversed(list(enumerate(seen[-len(parts) :] if len(parts) else []))):
            words = sorted({word for word in part.split() if word.isupper() and word.isalpha()})
            status = "timeout" if "TIMEOUT" in words else "failed" if "FAILED" in words else "scanned"
            answer = (tuple(words), " AND ".join(words) or None) if status == "scanned" else None
            yield license_scanner.Outcome(number, status, answer, "it broke" if status == "failed" else None)

    monkeypatch.setattr(license_scanner, "scan", scan)
    return seen


def test_texts_without_licence_words_are_scanned_for_nothing(fake_scanner, stages):
    (row,) = stages(("/README", PROSE))
    assert row == {"content_id": "00", "kind": "text", "status": "scanned", "licenses": [], "expression": None,
                   "reason": None}  # fmt: skip
    assert fake_scanner == []


def test_short_texts_are_scanned_whatever_they_say(fake_scanner, stages):
    stages(("/LICENSE", "do what you want"))
    assert fake_scanner == ["do what you want"]


def test_a_long_readme_is_scanned_around_its_licence_words():
    part = license_texts.passage(README)
    assert "licensed under the Apache" in part
    assert "## License" in part
    assert len(part.splitlines()) == license_claims.LINES_BEFORE + 3
    assert license_texts.passage(PROSE + README).endswith(part)


def test_a_licence_is_scanned_whole():
    assert license_texts.passage(MIT) == MIT.strip()
    bundle = MIT + "\n".join("Part of the same agreement." for _ in range(40)) + MIT
    assert license_texts.passage(bundle).count("Part of the same") == 40


def test_indentation_and_line_ends_do_not_make_another_passage(fake_scanner, stages):
    indented = "\r\n".join(f"   {line}  " for line in MIT.split("\n"))
    rows = stages(("/LICENSE", MIT), ("/COPYING", indented), ("/a/LICENSE", f"\n\n{MIT}\n"))
    assert len(fake_scanner) == 1
    assert len({tuple(row["licenses"]) for row in rows}) == 1


def test_every_status_and_no_silent_loss(fake_scanner, stages):
    calls = []
    rows = stages(
        ("/LICENSE.0", "empty", None),
        ("/LICENSE.1", "binary", None),
        ("/LICENSE.2", "undecodable", None),
        ("/LICENSE.3", "too_large", None),
        ("/LICENSE.4", "license " * 20_000),
        ("/LICENSE.5", "licence TIMEOUT"),
        ("/LICENSE.6", "licence FAILED"),
        ("/LICENSE.7", "licence MIT here"),
        ("/again/LICENSE", "licence MIT here"),
        ("/package.json", "binary", None),
        ("/package.json", '{"license": "x"'),
        ("/setup.py", "#" * 100_000 + "license"),
        ("/setup.cfg", "#" * 200_000),
        progress=lambda *call: calls.append(call),
    )
    assert [(row["content_id"], row["kind"], row["status"], row["licenses"]) for row in rows] == [
        ("00", "text", "scanned", []),
        ("01", "manifest", "failed", []),
        ("01", "text", "failed", []),
        ("02", "text", "failed", []),
        ("03", "text", "too_large", []),
        ("04", "text", "too_large", []),
        ("05", "text", "timeout", []),
        ("06", "text", "failed", []),
        ("07", "text", "scanned", ["MIT"]),
        ("08", "manifest", "failed", []),
        ("09", "manifest", "too_large", []),
        ("10", "manifest", "scanned", []),
    ]
    reasons = [row["reason"] for row in rows if row["status"] == "failed"]
    assert reasons[:4] == ["the file is binary", "the file is binary", "the file is undecodable", "it broke"]
    assert reasons[4].startswith("not valid JSON: ")
    assert [row["reason"] for row in rows if row["status"] != "failed"] == [None] * 7
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_size_limit_counts_bytes(fake_scanner, stages):
    rows = stages(("/LICENSE", "\u00e9" * 5), ("/COPYING", "\u00e9" * 6), max_text_bytes=10)
    assert [row["status"] for row in rows] == ["scanned", "too_large"]


def test_names_decide_the_kinds_and_one_content_may_have_all(fake_scanner, stages):
    text = '# SPDX-License-Identifier: ISC\nsetup(license="MIT")\n'
    rows = stages(("/setup.py", text), ("/LICENSE.py", text), ("/c.py", text), ("/d.py", "x = 1"))
    assert [(row["kind"], row["licenses"]) for row in rows] == [
        ("header", ["ISC"]),
        ("manifest", ["MIT"]),
        ("text", ["ISC"]),
    ]
    assert fake_scanner == [text.strip()]
    for kinds in (("text",), ("header", "manifest"), ()):
        assert [row["kind"] for row in stages(("/setup.py", text), ("/LICENSE.py", text), kinds=kinds)] == sorted(
            kinds
        )


@pytest.mark.parametrize(
    ("statement", "licenses", "expression"),
    [
        ("MIT", ["MIT"], "MIT"),
        ("mit or apache-2.0", ["Apache-2.0", "MIT"], "MIT OR Apache-2.0"),
        ("MIT/Apache-2.0", ["Apache-2.0", "MIT"], "MIT OR Apache-2.0"),
        ("GPL-2.0+", ["GPL-2.0-or-later"], "GPL-2.0-or-later"),
        ("GPL-2.0 WITH Classpath-exception-2.0", ["Classpath-exception-2.0", "GPL-2.0-only"], None),
        ("LicenseRef-Acme", ["LicenseRef-Acme"], "LicenseRef-Acme"),
        ("PSF", ["PSF-2.0"], "PSF-2.0"),
        ("UNLICENSED", ["LicenseRef-scancode-proprietary-license"], None),
        ("SEE LICENSE IN x.md", [UNKNOWN_REFERENCE], UNKNOWN_REFERENCE),
        ("UNKNOWN", [], None),
        ("none", [], None),
        ("the ACME terms", ["ACME"], "ACME"),  # ScanCode's answer
        ("some terms", [UNKNOWN_REFERENCE], UNKNOWN_REFERENCE),  # which has none
    ],
)
def test_statements_of_manifests(fake_scanner, stages, statement, licenses, expression):
    (row,) = stages(("/package.json", json.dumps({"license": statement})))
    assert row["licenses"] == licenses
    assert row["expression"] == (expression or row["expression"])
    assert fake_scanner == ([f"License: {statement}"] if "terms" in statement else [])


def test_exact_and_scanned_answers_add_up(fake_scanner, stages):
    manifest = '{"licenses": ["MIT OR ISC", "the ACME terms"]}'
    (row,) = stages(("/package.json", manifest))
    assert (row["licenses"], row["expression"]) == (["ACME", "ISC", "MIT"], "(MIT OR ISC) AND ACME")
    (row,) = stages(("/package.json", manifest.replace("ACME", "TIMEOUT")))
    assert (row["status"], row["licenses"]) == ("timeout", ["ISC", "MIT"])


def test_tags_are_exact_and_unknown_ones_are_scanned(fake_scanner, stages):
    rows = stages(
        ("/a.c", "// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: GPL-2.0-only OR ISC\n"),
        ("/b.c", "// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: no such LICENCE\n"),
    )
    assert rows[0]["licenses"] == ["GPL-2.0-only", "ISC", "MIT"]
    assert rows[0]["expression"] == "MIT AND (GPL-2.0-only OR ISC)"
    assert rows[1]["licenses"] == ["LICENCE", "MIT"]
    assert fake_scanner == ["SPDX-License-Identifier: no such LICENCE"]


def test_each_normal_form_of_a_header_is_scanned_once(fake_scanner, stages):
    files = [
        (f"/{year}.{suffix}", f"{mark} Copyright {year} P{year}\n{mark} Under the licence MIT\nx = {year}\n")
        for year in range(2000, 2020)
        for suffix, mark in (("py", "#"), ("js", "//"))
    ]
    rows = stages(*files)
    assert fake_scanner == ["Under the licence MIT"]
    assert [(row["kind"], row["licenses"]) for row in rows] == [("header", ["MIT"])] * 40


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_claim_depends_on_its_content_alone(order, size):
    bodies = [
        MIT,
        README,
        PROSE,
        "# Licensed under the MIT licence\nx",
        '{"license": "MIT OR ISC"}',
        '{"licence": "X Y"}',
    ]
    here = names(*(("/LICENSE", "0"), ("/README", "1"), ("/README", "2"), ("/x", "3"), ("/composer.json", "4")),
                 ("/bower.json", "5"))  # fmt: skip
    options = {"kinds": license_texts.KINDS, "max_text_bytes": 100_000}
    whole = license_texts.claim(
        here, contents(*((str(n), "text", body) for n, body in enumerate(bodies))), **options
    )
    parts = [
        license_texts.claim(
            here, contents(*((str(n), "text", bodies[n]) for n in order[at : at + size])), **options
        )
        for at in range(0, 6, size)
    ]
    assert pa.concat_tables(parts).sort_by([("content_id", "ascending"), ("kind", "ascending")]).equals(whole)


LICENCES = [
    (f"/LICENSE.{number:03d}", f"licence {chr(65 + number % 26) * (number // 26 + 1)}") for number in range(300)
]


def test_what_was_scanned_is_not_scanned_again_and_the_bytes_are_the_same(fake_scanner, stages):
    fresh = stages(*LICENCES)
    parts = [part.read_bytes() for part in stages.passages]
    assert len(fake_scanner) == 300
    stages(*LICENCES[50:250], ("/LICENSE", "licence TIMEOUT"))
    earlier = stages.passages
    fake_scanner.clear()
    assert stages(*LICENCES, known=earlier) == fresh
    assert len(fake_scanner) == 100
    assert [part.read_bytes() for part in stages.passages] == parts
    fake_scanner.clear()
    stages(("/LICENSE", "licence TIMEOUT"), known=earlier)
    assert len(fake_scanner) == 1  # a timeout is tried again


def test_dropping_a_kind_scans_nothing(fake_scanner, stages):
    files = [
        *LICENCES[:30],
        ("/a.py", "# Under the licence MIT\n"),
        ("/package.json", '{"license": "the ACME terms"}'),
    ]
    everything = stages(*files)
    fake_scanner.clear()
    fewer = stages(*files, kinds=("text", "manifest"), known=stages.passages)
    assert fake_scanner == []
    assert fewer == [row for row in everything if row["kind"] != "header"]


def test_a_killed_scan_continues_after_its_finished_parts(fake_scanner, stages, monkeypatch, tmp_path):
    folder = tmp_path / "killed"
    whole = license_scanner.scan

    def killed(*arguments, **options):
        for number, outcome in enumerate(whole(*arguments, **options)):
            if number == 280:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(license_scanner, "scan", killed)
    with pytest.raises(KeyboardInterrupt):
        stages(*LICENCES, keep=folder)
    num_finished = len(list(folder.glob("passages-*.parquet")))
    assert num_finished == 280 // license_texts.PASSAGES_PER_PART
    monkeypatch.setattr(license_scanner, "scan", whole)
    fake_scanner.clear()
    continued = stages(*LICENCES, keep=folder)
    assert 0 < len(fake_scanner) <= 300 - (num_finished - 1) * license_texts.PASSAGES_PER_PART
    assert continued == stages(*LICENCES)


def load_words():
    """A stand-in for ScanCode: the licences of a text are its first two words."""
    return lambda text, deadline: (tuple(sorted(set(text.split()[:2]))), " AND ".join(text.split()[:2]))


def test_the_number_of_workers_changes_nothing(monkeypatch, stages):
    monkeypatch.setattr(license_texts, "load_scancode", load_words)
    rows = [(f"/LICENSE.{number}", f"word{number} licence text") for number in range(40)]
    one, three = (stages(*rows, workers=workers) for workers in (1, 3))
    assert one == three
    assert one[7]["licenses"] == ["licence", "word7"]


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
    bodies = [MIT, README, tag, both, MIT.replace("Jane Doe", "Another Author"), "Just a note to myself."]
    manifest = '{"license": "BSD", "licenses": ["Custom"]}'
    header = "/* Licensed under the Apache License, Version 2.0. */\nint x;\n"
    here = names(*((f"/LICENSE.{n}", str(n)) for n in range(6)), ("/package.json", "6"), ("/x.c", "7"))
    rows = contents(*((str(n), "text", text) for n, text in enumerate([*bodies, manifest, header])))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claims = license_texts.claim(here, rows, kinds=license_texts.KINDS, max_text_bytes=100_000)
        pq.write_table(claims, folder / "claims.parquet")
        return license_texts.scan(
            [folder / "claims.parquet"],
            lambda number: folder / f"{number}.parquet",
            scratch=folder,
            deadline_seconds=100,
            workers=2,
        )


def test_scancode_finds_what_real_texts_say():
    everything = scanned().to_pylist()
    assert [row["status"] for row in everything] == ["scanned"] * 9
    rows = [row for row in everything if row["kind"] == "text"]
    by_kind = {row["kind"]: row["licenses"] for row in everything if row["content_id"] in ("6", "7")}
    assert by_kind == {"manifest": ["BSD-3-Clause"], "header": ["Apache-2.0"]}
    assert [row["licenses"] for row in everything if (row["content_id"], row["kind"]) == ("2", "header")] == [
        ["Apache-2.0", "MIT"]
    ]
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
