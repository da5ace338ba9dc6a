"""Tags and prose in the comments of many languages; normal forms; nothing from code."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.signals.license_headers import HEAD_CHARS, NOTHING, Header, header

APACHE = [
    "Copyright {year} The {name} Authors. All rights reserved.",
    "",
    "Licensed under the Apache License, Version 2.0 (the License); you may not use this",
    "file except in compliance with the License.",
    "",
    "You may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0",
]
APACHE_FORM = (
    "Licensed under the Apache License, Version 2.0 (the License); you may not use this file except in compliance "
    "with the License.\nYou may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0"
)


def commented(lines, style):
    begin, each, end = style
    return "\n".join(
        [*([begin] if begin else []), *(f"{each}{line}".rstrip() for line in lines), *([end] if end else [])]
    )


STYLES = [
    ("", "# ", ""),
    ("", "// ", ""),
    ("", "/// ", ""),
    ("", "-- ", ""),
    ("", ";; ", ""),
    ("", "% ", ""),
    ("", "! ", ""),
    ("", "' ", ""),
    ("", "REM ", ""),
    ("", "dnl ", ""),
    ("/*", " * ", " */"),
    ("/**", "", "*/"),
    ("/***********", " * ", " ***********/"),
    ("<!--", "  ", "-->"),
    ('"""', "", '"""'),
    ("'''", "", "'''"),
    ("(*", "   ", "*)"),
    ("{-", "  ", "-}"),
    ("--[[", "", "]]"),
    ("=begin", "", "=end"),
    ("{#", "", "#}"),
    ("<%--", "", "--%>"),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("before", ["", "#!/bin/sh\n", "<?php\n", "package a;\n\nimport b;\n"])
def test_comments_of_all_languages_have_one_normal_form(style, before):
    lines = [line.format(year="2011-2024", name="Any Project") for line in APACHE]
    assert header(f"{before}{commented(lines, style)}\ncode(1)\n") == Header(prose=APACHE_FORM)


def test_the_normal_form_leaves_out_people_years_and_line_breaks():
    one = "# Copyright (c) 2011 Jane Doe\n# Author: Jane\n#\n# This file is licensed under the MIT,\n# see X.\n"
    two = "/* (c) 2024, Acme\n   Written by Someone\n   This file is licensed under\n   the MIT, see X. */\n"
    assert header(one) == header(two) == Header(prose="This file is licensed under the MIT, see X.")
    assert header("/*! tool v1.0 | (c) 2015-2020 Me | MIT License */").prose == "tool v1.0 | Me | MIT License"


def test_conditions_about_copyright_stay():
    text = (
        "// Redistribution and use in source and binary forms are permitted provided that the above\n"
        "// copyright notice and the\n// COPYRIGHT HOLDERS AND CONTRIBUTORS are named, with a\n"
        "// copyright license from the licensors.\n"
    )
    assert "copyright notice and the COPYRIGHT HOLDERS AND CONTRIBUTORS are" in header(text).prose
    assert "copyright license from" in header(text).prose


def test_paragraphs_before_and_after_the_licence_are_left_out():
    text = "\n".join(
        [
            "# tool.py - does one thing",
            "#",
            "# Licensed under the MIT licence.",
            "#",
            "# Usage: run it",
            "import os",
        ]
    )
    assert header(text).prose == "Licensed under the MIT licence."


def test_disclaimers_and_conditions_belong_to_the_licence():
    paragraphs = [
        "zip.c - packs",
        "This software is provided 'as-is', without any warranty.",
        "Permission is granted to anyone to use this software for any purpose.",
        "1. The origin of this software must not be misrepresented.",
        "3. This notice may not be removed.",
        "Someone, somewhere",
    ]
    form = header("/*\n" + "\n\n".join(paragraphs) + "\n*/\n").prose
    assert form.split("\n") == paragraphs[1:5]


@pytest.mark.parametrize(
    ("line", "tag"),
    [
        ("// SPDX-License-Identifier: MIT", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */", "GPL-2.0 WITH Linux-syscall-note"),
        ("<!-- SPDX-License-Identifier: CC0-1.0 -->", "CC0-1.0"),
        ("{# SPDX-License-Identifier: (MIT OR Apache-2.0) #}", "(MIT OR Apache-2.0)"),
        ("(* SPDX-License-Identifier: ISC *)", "ISC"),
        ('""" SPDX-License-Identifier: 0BSD """', "0BSD"),
        ("# spdx-license-identifier: MIT", "MIT"),
        ("-- SPDX-License-Identifier: MIT", "MIT"),
        (" * SPDX-License-Identifier: Apache-2.0", None),  # no comment is open
    ],
)
def test_tags(line, tag):
    expected = NOTHING if tag is None else Header(tags=(tag,))
    assert header(f"#!/usr/bin/env x\n{line}\n\ncode\n") == expected


def test_tags_speak_alone_and_each_once():
    text = "# SPDX-License-Identifier: MIT\n# Licensed under the Apache License.\n\n"
    text += "# SPDX-License-Identifier: ISC\n# SPDX-License-Identifier: MIT\n"
    assert header(text) == Header(tags=("MIT", "ISC"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 'SPDX-License-Identifier: MIT'\n",
        'print("licensed under the MIT licence")\n',
        '{"license": "MIT"}\n',
        "#include <license.h>\n#define LICENSE 1\n",
        "This document is licensed under the MIT licence.\n",
        "* licensed as a bullet of a list\n",
        "# Copyright 2020 Someone. All rights reserved.\n",
        "# a comment on something else\n",
        "x = 1\n" * HEAD_CHARS + "# Licensed under the MIT licence\n",
    ],
)
def test_what_is_no_header(text):
    assert header(text) == NOTHING


def test_a_header_that_begins_in_time_is_read_to_its_end():
    begun = (
        "# Licensed under the MIT licence\n" + "# and so on and so on\n" * 250 + "# to this free software\nx = 1\n"
    )
    assert header(begun).prose.endswith("to this free software")
    assert header("x = 1 # pad\n" * 300 + "/* Licensed\n" + "so\n" * 400 + "free software */").prose.endswith(
        "software"
    )


@pytest.mark.parametrize(
    "unit", ["*", "/*", "<!--", "# licence ", "(c) 2", "copyright ", "=", " ", "-", "\n#", '"""']
)
def test_hostile_repetitions_take_time_in_proportion(unit):
    started = time.process_time()
    for before in ("# licence ", "/* licence ", "// SPDX-License-Identifier: "):
        header(before + unit * (10_000_000 // len(unit)))
    assert time.process_time() - started < 1.0


PIECES = [
    "# ",
    "// ",
    "/*",
    "*/",
    '"""',
    "\n",
    "\r\n",
    "licence ",
    "MIT",
    "SPDX-License-Identifier:",
    " ",
    "x",
    "<!--",
]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, "-->", "(c) 2020", "Copyright", "\x0c", "é", "="]), max_size=40))
def test_any_text_has_a_header_that_is_empty_or_speaks_of_licences(pieces):
    found = header("".join(pieces))
    assert not (found.tags and found.prose)
    assert found.prose == "" or "licence" in found.prose.lower() or "spdx" in found.prose.lower()
    assert all("\n" not in tag and tag == tag.strip() and tag for tag in found.tags)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200), st.sampled_from(STYLES))
def test_what_follows_the_head_changes_nothing(tail, style):
    lines = [line.format(year="1999", name="X") for line in APACHE]
    head = commented(lines, style) + "\n" + "code();\n" * 2_000
    assert header(head + tail) == header(head)
