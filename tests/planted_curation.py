"""A planted example of every rule of curation: a file just beyond the bound, and a control just inside it.

Two policies, since some rules leave nothing for others (a list of languages, the mix `smol`). `BROAD` has the
published thresholds and every rule that can stand beside them; `NARROW` has the lists and the quality signals.
Each row of `BROAD_FILES` and `NARROW_FILES` says which rule acts on a file, with which value, and where the
evidence must point. Its control differs from it in little but what the rule looks at; the rule lets it pass,
and it is kept.

Files consist of lines that have a word of their own at least every fifth word, so that no two of them share a
shingle and nothing is a near-duplicate but what is meant to be.
"""

import hashlib
import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starsmith import recipe
from starsmith.corpus import swhid
from starsmith.signals.quality_classifier import FEATURES, Classifier, to_json

FILE_BYTES = 400_000
"""`corpus.limits.file_bytes`: small, so that a file beyond it is."""
LUA_BYTES = 4_000
"""`mix.max_bytes` of Lua: room for one of the two planted files."""
SEED = 42
MARKER = "a_marker_that_no_program_has"
MIT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation
the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of
the Software.
"""
GPL = """This program is free software: you can redistribute it and/or modify it under the terms of the GNU General
Public License as published by the Free Software Foundation, either version 3 of the License, or (at your option)
any later version.
"""
PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": '''def lighthouse_bills(lamps: list[int], nights: int) -> list[int]:
    """A keeper walks past a row of lamps every evening and turns each lamp that has burnt for longer than the
    given number of nights into the storeroom. Return, for every evening until no lamp is left, how many lamps
    the storeroom holds when the keeper goes to bed, starting with the evening of the first walk.
    """
''',
    "canonical_solution": """    stored, evenings = 0, []
    while stored < len(lamps):
        stored += sum(1 for lamp in lamps if lamp == nights + len(evenings))
        evenings.append(stored)
    return evenings
""",
}
"""One problem in HumanEval's form: the benchmark data of `BROAD`."""
DOCSTRING = PROBLEM["prompt"].split('"""')[1].split()


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A file, the rule that acts on it, and what the ledger must say."""

    rule: str
    place: str
    """`repository:/path`."""
    data: bytes
    value: str
    evidence: str
    """A part of the evidence; empty where the rule has none."""
    control: str
    """The place of a file that the rule lets pass and nothing else drops or edits."""
    control_data: bytes
    action: str = "drop"


def code(word: str, number: int = 8) -> bytes:
    """Harmless lines with a word of their own."""
    return "".join(f"total_{word} = add_{word}(total_{word}, {place})\n" for place in range(number)).encode()


def words(word: str, number: int, more: str = "", num_more: int = 0) -> bytes:
    """Distinct words, eight a line; those of `more` stand last."""
    named = [*(f"{word}_{place}" for place in range(number)), *(f"{more}_{place}" for place in range(num_more))]
    lines = (" ".join(named[first : first + 8]) for first in range(0, len(named), 8))
    return "\n".join(lines).encode() + b"\n"


def padded(text: str, filling: str, characters: int) -> bytes:
    """A text filled up with words to so many characters."""
    missing = characters - len(text)
    return (text + (filling + " ") * missing)[:characters].encode()


def page(word: str, visible: int, characters: int) -> bytes:
    """HTML of so many characters, of which so many can be seen; the others are a comment."""
    shown = padded("", word, visible - 1).decode() + "."
    head, tail = f"<html><body>{shown}<!--\n", "--></body></html>"
    return padded(head, f"hidden_{word}", characters - len(tail)) + tail.encode()


def spread(letters: int, characters: int) -> bytes:
    """So many letters spread over so many characters, the last of each twenty an end of line."""
    solid = [place for place in range(characters) if place % 20 != 19]
    marks = ["\n"] * characters
    for number, place in enumerate(solid):
        is_letter = number * letters // len(solid) != (number + 1) * letters // len(solid)
        marks[place] = "x" if is_letter else "%"
    return "".join(marks).encode()


def escaped(word: str, characters: int) -> bytes:
    """192 characters of unicode escapes among so many."""
    return padded(f"{word} = '" + r"\u00e9\u00e8" * 16 + "'\n#", f" said_{word}\n#", characters)


def rewrapped_problem() -> bytes:
    """The problem with its solution, in other white space."""
    whole = PROBLEM["prompt"] + PROBLEM["canonical_solution"]
    return whole.replace("    ", "\t").replace("\n", "\r\n\r\n").encode()


def commented_docstring(word: str, num_words: int) -> bytes:
    """The first words of the problem's docstring as comments (other punctuation, the same words), and code."""
    wrapped = textwrap.wrap(" ".join(DOCSTRING[:num_words]), 60)
    return "".join(f"# {line}\n" for line in wrapped).encode() + code(word)


def in_order_of_mix(files: Iterable[bytes]) -> list[bytes]:
    """Contents of one language as the mix takes them in: by the documented keyed hash."""

    def drawn(data: bytes) -> str:
        return hashlib.md5(f"mix {SEED} {swhid.content_id(data)}".encode()).hexdigest()

    return sorted(files, key=drawn)


TAKEN_IN, DRAWN_OUT = in_order_of_mix(
    f"total_{word} = total_{word} + 1 -- {word}\n".encode() * 90 for word in ("amber", "birch")
)
TOKEN = "ghp_" + "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"
"""GitHub's own example of the form, from the announcement of it."""
NOISE = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D, 0xFF, 0xFE, 0xC0, 0xC1, 0xF5)) * 30

BROAD_SUPPORT = {
    "ann/permissive:/LICENSE": MIT.encode(),
    "ann/copyleft:/COPYING": GPL.encode(),
    "ann/package:/closed/package.json": b'{\n"name": "closed",\n"license": "AGPL-3.0-only"\n}\n',
    "ann/permissive:/copies/near.py": words("near", 44),
    "ann/permissive:/copies/far.py": words("far", 16),
}
"""What stands beside the planted files: licences, and the survivors of near-duplicates."""
BROAD_SUPPORT_DROPS = {"documentation": 2, "license": 1}
"""What becomes of the three licences: go-enry takes LICENSE and COPYING for documentation."""

BROAD_FILES = (
    Planted(
        rule="opt_out", place="ben/opted:/mine/tool.py", data=code("opted"),
        value="ben/opted:/mine", evidence="",
        control="ben/opted:/ours/tool.py", control_data=code("stays"),
    ),
    # what could not be read as text
    Planted(
        rule="status", place="ann/plain:/status/nul.py", data=code("nul") + b"\0",
        value="binary", evidence=f"{len(code('nul')) + 1} bytes",
        control="ann/plain:/status/text.py", control_data=code("nul"),
    ),
    Planted(
        rule="status", place="ann/plain:/status/noise.py", data=NOISE,
        value="undecodable", evidence="300 bytes",
        control="ann/plain:/status/latin1.py",
        control_data="# für größere Übungen, schön geändert\n".encode("latin-1") * 9,
    ),
    Planted(
        rule="status", place="ann/plain:/status/large.py", data=b"large = 1\n" * (FILE_BYTES // 10) + b"\n",
        value="too_large", evidence=f"{FILE_BYTES + 1} bytes",
        control="ann/plain:/status/fits.py", control_data=b"fits = 12\n" * (FILE_BYTES // 10),
    ),
    Planted(
        rule="status", place="ann/plain:/status/__init__.py", data=b"",
        value="empty", evidence="0 bytes",
        control="ann/plain:/status/one.py", control_data=b"one\n",
    ),
    # languages
    Planted(
        rule="language_unknown", place="ann/plain:/languages/tool.zzzz", data=code("unknown"),
        value="unknown", evidence="go-enry on the name tool.zzzz",
        control="ann/plain:/languages/tool.py", control_data=code("unknown"),
    ),
    Planted(
        rule="language_excluded_by_policy", place="ann/plain:/languages/figure.ps", data=code("figure"),
        value="PostScript", evidence="go-enry on the name figure.ps",
        control="ann/plain:/languages/figure.py", control_data=code("figure"),
    ),
    Planted(
        rule="extension_excluded_by_policy", place="ann/plain:/languages/rules.make", data=code("rules"),
        value="Makefile .make", evidence="go-enry on the name rules.make",
        control="ann/plain:/languages/rules.mk", control_data=code("rules"),
    ),
    Planted(
        rule="language_excluded", place="ann/plain:/languages/menu.tcl", data=code("menu"),
        value="Tcl", evidence="go-enry on the name menu.tcl",
        control="ann/plain:/languages/menu.py", control_data=code("menu"),
    ),
    Planted(
        rule="vendored", place="ann/plain:/vendor/borrowed.py", data=code("borrowed"),
        value="vendored", evidence="borrowed.py",
        control="ann/plain:/own/borrowed.py", control_data=code("borrowed"),
    ),
    Planted(
        rule="documentation", place="ann/plain:/docs/shown.py", data=code("shown"),
        value="documentation", evidence="shown.py",
        control="ann/plain:/source/shown.py", control_data=code("shown"),
    ),
    Planted(
        rule="generated", place="ann/plain:/kinds/package-lock.json", data=b'{"kinds": ["generated"]}\n',
        value="generated", evidence="package-lock.json",
        control="ann/plain:/kinds/package-locked.json", control_data=b'{"kinds": ["generated"]}\n',
    ),
    # licences: a text for all below it, a header against the repository's text, a manifest for its folder
    Planted(
        rule="license", place="ann/copyleft:/src/free.py", data=code("free"),
        value="non_permissive", evidence="GPL-3.0-or-later at /COPYING",
        control="ann/permissive:/src/own.py", control_data=code("own"),
    ),
    Planted(
        rule="license", place="ann/permissive:/src/header.py",
        data=b"# SPDX-License-Identifier: GPL-2.0-only\n" + code("header"),
        value="non_permissive", evidence="GPL-2.0-only in its header; MIT at /LICENSE; these are in conflict",
        control="ann/permissive:/src/agreed.py",
        control_data=b"# SPDX-License-Identifier: Apache-2.0\n" + code("agreed"),
    ),
    Planted(
        rule="license", place="ann/package:/closed/index.js", data=code("closed"),
        value="non_permissive", evidence="AGPL-3.0-only in the manifest /closed/package.json",
        control="ann/package:/open/index.js", control_data=code("opened"),
    ),
    # the basic filters
    Planted(
        rule="max_lines", place="ann/plain:/lines/many.py", data=b"a.\n" * 100_001,
        value="100001", evidence="",
        control="ann/plain:/lines/fewer.py", control_data=b"b.\n" * 100_000,
    ),
    Planted(
        rule="max_average_line_length", place="ann/plain:/lines/wide.py",
        data=(b"wide = '" + b"w " * 46 + b"'\n") * 10,
        value="101.0", evidence="",
        control="ann/plain:/lines/narrow.py", control_data=(b"narrow = '" + b"n " * 44 + b".'\n") * 10,
    ),
    Planted(
        rule="max_line_length", place="ann/plain:/lines/long.py",
        data=b"long = '" + b"word " * 198 + b"..'\n" + code("long", 20),
        value="1001", evidence="",
        control="ann/plain:/lines/short.py",
        control_data=b"short = '" + b"term " * 198 + b"'\n" + code("short", 20),
    ),
    Planted(
        rule="max_line_length_markup", place="ann/plain:/lines/prose.md", data=b"prose " * 16_666 + b"ended\n",
        value="100001", evidence="",
        control="ann/plain:/lines/verse.md", control_data=b"verse " * 16_666 + b"ends\n",
    ),
    Planted(
        rule="autogenerated", place="ann/plain:/contents/fifth.py",
        data=b"#\n" * 4 + b"# This file is generated.\n" + code("fifth"),
        value="this file is generated", evidence="",
        control="ann/plain:/contents/sixth.py",
        control_data=b"#\n" * 5 + b"# This file is generated.\n" + code("sixth"),
    ),
    Planted(
        rule="min_alpha_fraction", place="ann/plain:/contents/signs.py", data=spread(249, 1_000),
        value="0.249", evidence="letters in 1000 chars",
        control="ann/plain:/contents/letters.py", control_data=spread(250, 1_000),
    ),
    Planted(
        rule="max_encoded_match", place="ann/plain:/contents/picture.md",
        data=b"A picture: " + b"iVBO" * 256 + b"R.\n" + code("picture", 60),
        value="1025", evidence="base64",
        control="ann/plain:/contents/icon.md",
        control_data=b"An icon: " + b"R0lG" * 256 + b".\n" + code("icon", 60),
    ),
    Planted(
        rule="max_encoded_fraction", place="ann/plain:/contents/escapes.py", data=escaped("escapes", 383),
        value=str(192 / 383), evidence="base64 0, hexadecimal 0, unicode escapes 192 of 383 characters",
        control="ann/plain:/contents/balance.py", control_data=escaped("balance", 384),
    ),
    Planted(
        rule="max_data_lines", place="ann/plain:/contents/rows.yaml", data=b"- row\n" * 513,
        value="513", evidence="",
        control="ann/plain:/contents/items.yaml", control_data=b"- item\n" * 512,
    ),
    Planted(
        rule="min_html_visible_chars", place="ann/plain:/pages/blank.html", data=page("blank", 99, 400),
        value="99", evidence="",
        control="ann/plain:/pages/short.html", control_data=page("brief", 100, 400),
    ),
    Planted(
        rule="min_html_visible_fraction", place="ann/plain:/pages/hidden.html", data=page("little", 199, 1_000),
        value="0.199", evidence="199 of 1000 characters",
        control="ann/plain:/pages/open.html", control_data=page("enough", 200, 1_000),
    ),
    Planted(
        rule="text_stem", place="ann/plain:/pages/poem.txt", data=code("poem"),
        value="poem", evidence="",
        control="ann/plain:/pages/my_requirements.txt", control_data=code("poem"),
    ),
    # benchmarks: the whole text in other white space; all of its n-grams behind comment signs
    Planted(
        rule="contamination", place="ann/plain:/answers/whole.py", data=rewrapped_problem(),
        value="2", evidence="humaneval HumanEval/0 (docstring): the whole text at bytes",
        control="ann/plain:/answers/other.py", control_data=code("other"),
    ),
    Planted(
        rule="contamination", place="ann/plain:/answers/comments.py",
        data=commented_docstring("comments", len(DOCSTRING)),
        value="1", evidence="humaneval HumanEval/0 (docstring): 1.0 of its n-grams at bytes",
        control="ann/plain:/answers/part.py",
        control_data=commented_docstring("part", len(DOCSTRING) * 3 // 4),
    ),
    Planted(
        rule="malware", place="ann/plain:/scanned/bad.py", data=f"# {MARKER}\n".encode() + code("bad"),
        value="1", evidence="yara Marker",
        control="ann/plain:/scanned/good.py", control_data=b"# a_marker\n" + code("good"),
    ),
    # duplicates: the survivor has the better licence
    Planted(
        rule="exact_duplicate", place="ann/plain:/copies/same.py", data=code("same"),
        value="2 copies", evidence="is ann/permissive:/copies/same.py",
        control="ann/permissive:/copies/same.py", control_data=code("same"),
    ),
    Planted(  # 40 shingles of five words, of 50 in either: 0.8; the control has 12 of 18, less than 0.7
        rule="near_duplicate", place="ann/plain:/copies/near.py", data=words("near", 44, "tail", 10),
        value="0.8", evidence="is ann/permissive:/copies/near.py; similarity to it; cluster of 2",
        control="ann/plain:/copies/far.py", control_data=words("far", 16, "away", 6),
    ),
    Planted(
        rule="mix_volume", place="ann/plain:/mix/second.lua", data=DRAWN_OUT,
        value=f"{len(TAKEN_IN) + len(DRAWN_OUT)} bytes",
        evidence=f"file 2 of 2 of Lua by keyed hash; {len(TAKEN_IN) + len(DRAWN_OUT)} bytes in all",
        control="ann/plain:/mix/first.lua", control_data=TAKEN_IN,
    ),
    # personal data and secrets: the file stays, edited
    Planted(
        rule="pii", place="ann/plain:/people/mail.py",
        data=b"to = 'ann.keeper@lamps-and-bills.se'\n" + code("mail"),
        value="EMAIL 1", evidence="found by email 1", action="edit",
        control="ann/plain:/people/mail_none.py",
        control_data=b"to = 'ann.keeper@example.com'\n" + code("nomail"),
    ),
    Planted(
        rule="pii", place="ann/plain:/people/host.py", data=b"host = '62.115.44.161'\n" + code("host"),
        value="IP_ADDRESS 1", evidence="found by ipv4 1", action="edit",
        control="ann/plain:/people/host_none.py",
        control_data=b"host = '192.168.0.7'; dns = '8.8.8.8'\n" + code("nohost"),
    ),
    Planted(
        rule="pii", place="ann/plain:/people/token.py", data=f"found = '{TOKEN}'\n".encode() + code("token"),
        value="KEY 1", evidence="found by github", action="edit",
        control="ann/plain:/people/token_none.py",
        control_data=b"found = 'ghp_your_token_here'\n" + code("notoken"),
    ),
    Planted(
        rule="pii", place="ann/plain:/people/author.py", data=b"# Author: Astrid Holmgren\n" + code("author"),
        value="NAME 1", evidence="found by", action="edit",
        control="ann/plain:/people/author_none.py", control_data=b"# Author: The Lamp Team\n" + code("noauthor"),
    ),
    Planted(
        rule="pii", place="ann/plain:/people/login.py", data=b"password = 'x9!kTq27vLm'\n" + code("login"),
        value="PASSWORD 1", evidence="found by", action="edit",
        control="ann/plain:/people/login_none.py",
        control_data=b"password = os.environ['PASSWORD']\n" + code("nologin"),
    ),
)  # fmt: skip


def commented(word: str) -> bytes:
    """Lines of which more than 5 % and less than 90 % are comments."""
    return f"# about {word} and all that belongs to it\n".encode() + code(word)


def letters_of_40(letters: int) -> bytes:
    """Forty characters with so many letters, one comment and one assignment."""
    name = "abcdefghijklmnopqrstuvwxyz"[: letters - 1]
    signs = "%" * (40 - len(f"# {name}\nv = ''\n"))
    return f"# {name}\nv = '{signs}'\n".encode()


NARROW_FILES = (
    Planted(
        rule="language_not_included", place="ann/narrow:/lists/tool.rb", data=commented("tool"),
        value="Ruby", evidence="go-enry on the name tool.rb",
        control="ann/narrow:/lists/tool.py", control_data=commented("tool"),
    ),
    Planted(
        rule="mix_language", place="ann/narrow:/mix/tool.hs", data=commented("smol"),
        value="Haskell", evidence="the file is tool.hs",
        control="ann/narrow:/mix/tool.py", control_data=commented("smol"),
    ),
    # of 100 characters that are not white space, 4 and 5 are comments; then 91 and 90
    Planted(
        rule="min_comment_fraction", place="ann/narrow:/comments/few.py",
        data=b"# few\nfew = '" + b"few." * 22 + b"ab'\n",
        value="0.04", evidence="as Python",
        control="ann/narrow:/comments/some.py", control_data=b"# some\nsome = '" + b"some." * 17 + b"abc'\n",
    ),
    Planted(
        rule="max_comment_fraction", place="ann/narrow:/comments/most.py",
        data=b"#" + b" most." * 18 + b"\nx = 1234567\n",
        value="0.91", evidence="as Python",
        control="ann/narrow:/comments/many.py", control_data=b"#" + b" lots." * 17 + b" many\nx = 12345678\n",
    ),
    Planted(  # of 94 characters, 7 are a comment, and the others no Python
        rule="max_parse_error_fraction", place="ann/narrow:/grammar/broken.py",
        data=b"# broken\n" + b"else broken ) ] } = = class ( in broken\n" * 3,
        value=str(87 / 94), evidence="as Python",
        control="ann/narrow:/grammar/parses.py", control_data=commented("parses"),
    ),
    Planted(  # 12 letters of 40: the classifier of `CLASSIFIER` says 1 / (1 + exp(10))
        rule="min_quality_score", place="ann/narrow:/score/low.py", data=letters_of_40(12),
        value="4.5e-05", evidence="as Python",
        control="ann/narrow:/score/high.py", control_data=letters_of_40(20),
    ),
)  # fmt: skip

CLASSIFIER = Classifier(
    means=(0.0,) * len(FEATURES),
    scales=(1.0,) * len(FEATURES),
    weights=tuple(100.0 if name == "alpha_fraction" else 0.0 for name in (*FEATURES, *FEATURES)),
    intercept=-40.0,
    num_positive=20,
    num_negative=20,
    auc=0.5,
    auc_folds=(0.5,),
)
"""Likes files of more than 40 % letters."""


def write(folder: Path) -> None:
    """Writes all planted files, their controls and what the two recipes name, below `folder`."""
    for planted in (*BROAD_FILES, *NARROW_FILES):
        _write(folder, planted.place, planted.data)
        _write(folder, planted.control, planted.control_data)
    for place, data in BROAD_SUPPORT.items():
        _write(folder, place, data)
    (folder / "opt-out.txt").write_text("ben/opted:/mine\n")
    (folder / "rules.yar").write_text(f'rule Marker {{ strings: $text = "{MARKER}" condition: $text }}\n')
    (folder / "classifier.json").write_text(to_json(CLASSIFIER))
    (folder / "sets" / "humaneval").mkdir(parents=True)
    (folder / "sets" / "humaneval" / "HumanEval.jsonl").write_text(json.dumps(PROBLEM) + "\n")


def _write(folder: Path, place: str, data: bytes) -> None:
    repository, _, path = place.partition(":/")
    file = folder / "code" / repository / path
    file.parent.mkdir(parents=True, exist_ok=True)
    assert not file.exists() or file.read_bytes() == data, place
    file.write_bytes(data)


def broad_recipe(folder: Path, *, has_yara: bool) -> recipe.Recipe:
    """The published thresholds, and every rule that can stand beside them."""
    return _recipe(
        folder,
        "broad",
        {planted.place.partition(":")[0] for planted in BROAD_FILES},
        languages={
            "exclude": ["Tcl"], "keep_vendored": False, "keep_documentation": False, "keep_generated": False
        },
        decontamination={"data": str(folder / "sets"), "packaged_humaneval": False},
        malware={"yara_rules": str(folder / "rules.yar")} if has_yara else {},
        mix={"max_bytes": {"Lua": LUA_BYTES}},
        opt_out={"file": str(folder / "opt-out.txt")},
    )  # fmt: skip


def narrow_recipe(folder: Path) -> recipe.Recipe:
    """Few languages, the mix of the smaller models, and thresholds on quality; nobody's licence is looked at."""
    return _recipe(
        folder,
        "narrow",
        {"ann/narrow"},
        languages={"include": ["Haskell", "Python"]},
        licenses={"evidence": []},
        decontamination={"packaged_humaneval": False},
        mix={"languages": "smol"},
        quality={
            "min_comment_fraction": 0.05,
            "max_comment_fraction": 0.9,
            "max_parse_error_fraction": 0.5,
            "classifier": str(folder / "classifier.json"),
            "min_score": 0.5,
        },
    )


def _recipe(folder: Path, name: str, repositories: Iterable[str], **tables: dict[str, Any]) -> recipe.Recipe:
    return recipe.parse(
        {
            "run": {
                "name": name, "folder": str(folder / "runs"), "cache": str(folder / "cache"), "workers": 1,
                "seed": SEED,
            },
            "sources": [
                {"type": "folder", "path": str(folder / "code" / repository), "repo_name": repository}
                for repository in sorted(repositories)
            ],
            "corpus": {"partitions": 16, "limits": {"file_bytes": FILE_BYTES}},
            **tables,
        }
    )  # fmt: skip
