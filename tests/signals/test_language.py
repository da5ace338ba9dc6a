"""Labels and flags equal enry's on the full bytes, and do not change from call to call."""

import hashlib
import itertools
import multiprocessing
import os
import sysconfig
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.signals import language, language_clues, language_flags, language_strategies

ROOTS = (Path(sysconfig.get_path("purelib")), Path("/usr/include"), Path("/usr/share"))
MAX_WALKED_FILES = 4_000
MAX_FILE_BYTES = 20_000
MAX_FILES_OF_SUFFIX = 12


def tables(*files):
    """`files` and `contents` from (path, text) pairs; the text is None for a binary."""
    texts = {hashlib.sha1(repr(text).encode()).hexdigest(): text for _, text in files}
    ids = {text: content_id for content_id, text in texts.items()}
    contents = pa.table(
        {
            "content_id": list(texts),
            "status": ["binary" if text is None else "text" for text in texts.values()],
            "text": pa.array(texts.values(), pa.large_string()),
        }
    )
    occurrences = pa.table(
        {
            "file_id": [f"{number:04d}" for number in range(len(files))][::-1],
            "content_id": [ids[text] for _, text in files],
            "path": [path for path, _ in files],
        }
    )
    return occurrences, contents


def measure(*files):
    rows = language.measure(*tables(*files)).to_pylist()
    return list(reversed(rows))  # `tables` numbers the files downwards


def assert_same_language(name, data):
    import enry

    got, want = language_strategies.language_of(name, data), enry.get_language(name, data) or None
    if got != want:  # a tie: enry's answers vary
        answers = {enry.get_language(name, data) or None for _ in range(64)}
        assert len(answers) > 1 and got == min(answers), (name, data[:300], got, answers)


def assert_same_flags(path, data):
    import enry

    name = path.rpartition("/")[2]
    assert language_flags.is_generated(name, data) == enry.is_generated(name, data), (name, data[:300])
    want = (enry.is_vendor(path), enry.is_documentation(path))
    assert language_flags.path_flags([path]) == [want], path


def test_schema_order_and_names():
    result = language.measure(*tables(("/a/b.py", "x = 1\n"), ("/c", "y\n")))
    assert result.schema == schema.LANGUAGE
    assert result["file_id"].to_pylist() == ["0000", "0001"]
    assert result["name"].to_pylist() == ["c", "b.py"]


def real_files():
    """Text files of this machine, few of each kind."""
    seen = {}
    for root in ROOTS:
        walked = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
        for path in itertools.islice(walked, MAX_WALKED_FILES):
            if seen.get(path.suffix, 0) >= MAX_FILES_OF_SUFFIX or path.is_symlink() or not path.is_file():
                continue
            seen[path.suffix] = seen.get(path.suffix, 0) + 1
            data = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
            if data and _is_utf8(data):
                yield path, data


def _is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def test_everything_equals_enry_on_real_files():
    count, suffixes = 0, set()
    for path, data in real_files():
        assert_same_language(path.name, data)
        assert_same_flags(str(path).lstrip("/"), data)
        count += 1
        suffixes.add(path.suffix)
    assert count > 100 and {".h", ".py", ".txt"} <= suffixes


CLUE_LINES = (
    "@interface A", "#import <x.h>", "#import  \n  <x/y.h>", "#include <vector>", "#  include <map>",
    "template\n<x>",
    "class A", "class\n A", "using namespace\n std", "namespace x {", "namespace a.b;", "using A.B;",
    "using A\n .b\n;",
    "public:", " public: x", "std::x", "__cplusplus >", "constexpr int", "catch (", "try", "a ! x methodsFor: ",
    "use strict;", "use v6;", "use\nv5.10", "package A::B;", "package A\n;", "our @EXPORT = 1", "our\n@EXPORT=1",
    "\nfoo->bar()", "$x->{y}", "a :- b.", "# a :- b", "module A", "my class B", "/* XPM */", "<TS>", "<TSx",
    '<?xml version="1.0"?>', '  <?XML  version="1"', "<emu-alg>", '"swagger": "2.0"', '"openapi":\n"3.0.1"',
    "swagger: '2.0'", "openapi:\n3.0", "\tkey: value: x", "(define_insn", ";; text", "# Title", "- item",
    "<?php",
    "<?hh", "<?\n", "fn main() {", "impl X", "#![x]", "#pragma rs", "mov eax, 1", "movl %eax", "moveq #1,d0",
    "btst x",
    "BEGIN;", "begin work ;", "AS\n$$", "go", "DECLARE\n@x", "END!", "xmltype", "constructor é function",
    "Proof.",
    "Require Import X ", "module m (", "module m\n#(", "always @", "`define X", "$if x", "fn f(a) {", "for {",
    "let rec f", "match x y with", "match x\ny", "=> x", "case a\nb of", "rebol", "#include <Types.r>",
    "type 'abcd' {", "x <- 1", "# c", "\\i x", "\\ix AS\n$$", ": word", "new-device", "open X", "#version 1",
    "precision x", "vec3 a", "__attribute__", "defmodule X ", "@moduledoc x", "import X", "namespace x",
    "include y", "end.", " end;", "\n a => b", "foo => b", ":- module", "; m", "(* x *)", "% matlab",
    "x : module\n {", "<plist>", "<!DOCTYPE\nplist", "<plist version = '1.0' >", "% t", "var x := 1",
    "// Generated by X", "# -*- coding: utf-8 -*-", "-*- mode: c++ -*-", "-*-\nruby -*-", "-*- foo -*-",
    "vim: ft=python", "# vim: set syntax = ruby :", "ex: ft=c", "vi: ft=r ft=ruby", " vim700: FileType=perl",
    "\u017fyntax=c", "/* vim: \u017fyntax=c */", "#!/bin/sh", "#!/usr/bin/env python3", "#! perl",
    "#!/usr/bin/env -S node --x",
    "exec python $0 $@", "exec ruby \"$0\" \"$@\"", "x", "", " ", "\r", "\f", "é", "\u212a", "}", "{",
    "Generated by the protocol buffer compiler.  DO NOT EDIT!", "// Code generated by x",
    "//# sourceMappingURL=x",
    "/*# sourceURL=y", "GENERATED CODE -- DO NOT EDIT!", "/* Gener", "ated by PEG.js", "(function() {",
    "}).call(this);", '<meta name="generator" content="makeinfo">',
    '<META name=gene\rrator content="org  mode">',
    "<!-- Generated by Doxygen 1.9 -->", "<doc>", "<assembly>", "</doc>", "recorded_with: VCR 1",
    '{"version":3,',
    "/** Begin line maps. **/{", "/* GIMP RGB C-Source image dump (a.c) */", "fileFormatVersion: 2",
    "// GENERATED code - do not modify", "Generated by Cython", "% Generated by roxygen2: do not edit by hand",
    "/* DO NOT EDIT THIS FILE - it is machine generated */", "#include <jni.h>", "y" * 150,
)  # fmt: skip
NAMES = (
    *(f"a{extension}" for extension in language_clues.CLUES),
    "a.S", "a.SQL", "a.C", "a.c", "a.js", "a.css", "a.go", "a.html", "a.xhtml", "a.dart", "a.xml", "a.proto",
    "a.java",
    "a.ps", "a.meta", "a.rd", "a.py", "a.rb", "a.1", "a.3pm", "a.unknown", "a", "a.", ".h", "..h", "a.b.h",
    "a.h.in",
    "a.cmake.in", "Makefile", "LICENSE", "hosts", "README.md", "CMakeLists.txt", "package-lock.json", "a.min.js",
    "a.d.ts", "a.js.map", "ppport.h", "x_tlb.pas", "x_TLB.pa\u017f", "a.Designer.cs", "yarn.lock",
    "poetry.lock", "a.nib",
    ".pnp.cjs", "a.\u212aT", "é.h", "a.İnc", "a.inc", "a.srt", "a.cgi", "a.fcgi", "a.pom", "a.properties",
    "a.mod", "",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(CLUE_LINES), max_size=16)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), TEXTS, st.sampled_from(("\n", "\n\n", "\r\n"))), max_size=60))
def test_everything_equals_enry_on_made_up_files(files):
    for name, lines, end in files:
        data = end.join(lines).encode()
        assert_same_language(name, data)
        assert_same_flags(name, data)


@pytest.mark.parametrize("extension", language_clues.CLUES)
def test_every_clue_finds_what_its_heuristic_finds(extension):
    for line in CLUE_LINES:
        for text in (f"x\n{line}\ny\n", f"\n\n  {line}", f"x {line} {line}\n"):
            assert_same_language(f"a{extension}", text.encode())


def test_many_clues_that_come_to_nothing():
    text = "#include <stdio_like>\n" * 3000
    assert_same_language("a.h", text.encode())
    assert_same_language("a.h", (text + "class A {\n").encode())


COMPONENTS = (
    "a", "src", "docs", "Doc", "man", "examples", "Samples", "demo", "inst", "doc", "vendor", "vendors",
    "Vvendor",
    "third_party", "3rdParty", "x-third-party", "node_modules", "dist", "cache", "env", "deps", "debian",
    "extern",
    "externals", "packages", "a.1", "packages", "test", "tests", "fixtures", "spec", "extjs", "jquery",
    "jquery-1.2.js",
    "bootstrap", "bootstrap.x", "react", "d3", "prototype", "font-awesome", "Bourbon", "select2", "tiny_mce",
    "plugins",
    "pluginsfoo.js", "codemirror", "CodeMirror", "3.1", "mode.py", "lib", "aclocal.m4", "aclocal.m4.d",
    "ltsugar.m4",
    "configure", "configure.ac", ".github", ".gitignore", ".gitattributes", ".vscode", ".yarn", "releases",
    "sdks",
    "gradle", "wrapper", "gradlew", "mvnw.cmd", "Realm.framework", "Realm.frameworkX", "Fabric.framework",
    "x.imageset",
    "x.xctemplate", "Godeps", "_workspace", "theme", "_static", "templates", "build", "README", "Readme.md",
    "readme.x", "LICENSE", "license.txt", "COPYING", "CHANGES.d", "CHANGELOG", "CONTRIBUTING.md", "INSTALL",
    "CITATION.cff", "CITATIONS.bib", "x.min.js", "x-min.css", "import.css", "x import.scss", "a.d.ts", "x.js",
    "x.css",
    "x.sass", "slick.carousel.js", "slickXjs", "fontello-x.css", "leaflet.draw.css", "yui-min.js",
    "cordova-2.1.0.js",
    "microsoftAjax.js", "MicrosoftMvcValidation.debug.js", "knockout-2.1.0.debug.js", "modernizr-1.2.js",
    "Vagrantfile",
    "Jenkinsfile", ".DS_Store", "run.n", "rebar", "waf", "fabfile.py", "proguard.pro", "activator",
    "octicons.css",
    "é", "a\nb", "~", "extern.js", "documentation", "javadoc", "Groovydoc", "tiny_mce.js", "flow-typed",
    "x-vsdoc.js",
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=4).map("/".join), max_size=120))
def test_path_flags_equal_enry(paths):
    import enry

    want = [(enry.is_vendor(path), enry.is_documentation(path)) for path in paths]
    assert language_flags.path_flags(paths) == want


@pytest.mark.parametrize(
    ("name", "text"), [("a.srt", "foo bar\n"), ("a.ecl", "x\n"), ("a.k", "x\n"), ("a.qs", "\n"), ("a.odin", "\n")]
)
def test_ties_of_the_classifier_are_broken_by_name(name, text):
    import enry

    answers = {enry.get_language(name, text.encode()) for _ in range(200)}
    assert len(answers) > 1, "enry has become deterministic: the tie rule can go"
    assert {measure((f"/{name}", text))[0]["language"] for _ in range(5)} == {min(answers)}


def test_a_word_in_front_tells_a_lead_from_a_tie(monkeypatch):
    import enry

    text = b"mov eax\n" * 30
    assert len(enry.get_languages("a.nas", text)) > 1
    calls = []
    monkeypatch.setattr(enry, "get_language", lambda name, data: calls.append(name))
    assert language_strategies.plain_language_of("a.nas", text) == "Assembly"
    assert calls == []  # no repeated question


def test_another_release_of_enry_is_asked_plainly(monkeypatch):
    import enry

    monkeypatch.setattr(language_strategies, "is_known_release", lambda: False)
    monkeypatch.setattr(language_flags, "is_known_release", lambda: False)
    asked = []
    monkeypatch.setattr(enry, "get_languages", lambda name, data: asked.append(name) or ["Changed"])
    monkeypatch.setattr(enry, "is_vendor", lambda path: True)
    monkeypatch.setattr(enry, "is_generated", lambda name, data: True)
    (row,) = measure(("/x/a.py", "x = 1\n"))
    assert asked == ["a.py"]
    assert (row["language"], row["is_vendor"], row["is_generated"]) == ("Changed", True, True)


def test_the_installed_release_is_the_one_that_the_clues_are_for():
    assert language_strategies.is_known_release()


def test_the_same_content_is_labelled_by_each_of_its_names():
    rows = measure(("/a.py", "x = 1\n"), ("/a.rb", "x = 1\n"), ("/sub/a.py", "x = 1\n"))
    assert [row["language"] for row in rows] == ["Python", "Ruby", "Python"]


def test_each_content_and_name_is_labelled_once(monkeypatch):
    calls = []
    monkeypatch.setattr(language, "language_of", lambda name, data: calls.append((name, data)))
    measure(("/a.py", "x\n"), ("/b/a.py", "x\n"), ("/a.rb", "x\n"))
    assert sorted(calls) == [("a.py", b"x\n"), ("a.rb", b"x\n")]


def test_contents_in_several_chunks_and_slices():
    files, contents = tables(("/a.py", "x = 1\n"), ("/b.c", None), ("/c.js", "var é;\n"), ("/d", "#!/bin/sh\n"))
    chunked = pa.concat_tables([contents.slice(1, 2), contents.slice(0, 1), contents.slice(3)])
    assert language.measure(files, chunked) == language.measure(files, contents)
    assert set(language.measure(files, chunked)["language"].to_pylist()) == {"Python", None, "JavaScript", "Shell"}


def test_flags_are_of_the_path_from_its_root():
    rows = measure(
        ("/vendor/a.go", "package a\n"), ("/docs/a.py", "x\n"), ("/a.py", "x\n"), ("/x.min.js", "var a;\n" * 9)
    )
    assert [row["is_vendor"] for row in rows] == [True, False, False, True]
    assert [row["is_documentation"] for row in rows] == [False, True, False, False]


def test_generated_by_content():
    text = "// Code generated by protoc-gen-go. DO NOT EDIT.\npackage a\n"
    assert [row["is_generated"] for row in measure(("/a.go", text), ("/b.go", "package a\n"))] == [True, False]


def test_contents_that_are_not_text_have_flags_only():
    rows = measure(("/vendor/a.py", None), ("/node_modules/x/a.js", None))
    assert [row["language"] for row in rows] == [None, None]
    assert [row["is_vendor"] for row in rows] == [True, True]


def test_a_missing_content_is_an_error():
    files, contents = tables(("/a.py", "x\n"))
    with pytest.raises(KeyError):
        language.measure(files, contents.slice(0, 0))


def test_no_files():
    files, contents = tables(("/a.py", "x\n"))
    assert language.measure(files.slice(0, 0), contents).num_rows == 0


def test_works_in_a_spawned_process():
    files, contents = tables(("/a.py", "x = 1\n"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(language.measure, (files, contents))["language"].to_pylist() == ["Python"]


def test_importing_the_module_does_not_load_enry():
    code = "import sys, starsmith.signals.language; assert 'enry' not in sys.modules"
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(code,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_data_version_names_the_release():
    assert language.data_version() == "enry-python 0.2.0"
