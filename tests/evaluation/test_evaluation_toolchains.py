"""Every language that is installed is compiled and run on every level; the others skip with their install line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from starsmith.errors import InputError
from starsmith.evaluation import toolchains
from starsmith.evaluation.contract import Limits, Program, RunResult
from starsmith.evaluation.execution import Executor
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox import selftest
from starsmith.evaluation.sandbox.pool import Sandbox
from starsmith.evaluation.verdicts import judge

HONEST = {
    "python": ("main.py", "import math\nprint('hello', math.isqrt(49))"),
    "cpp": ("main.cpp", '#include<bits/stdc++.h>\nint main() { std::cout << "hello " << std::sqrt(49); }'),
    "cs": (
        "main.cs",
        "using System; using System.Numerics; class Problem { public static void Main(string[] args) {"
        ' Console.WriteLine("hello " + new BigInteger(7)); } }',
    ),
    "d": (
        "main.d",
        'import std.stdio; int seven() { return 7; } unittest { writeln("hello ", seven()); }\nvoid main() {}',
    ),
    "go": (
        "main_test.go",
        'package p_test\nimport ("fmt"; "testing")\nfunc TestSeven(t *testing.T) { fmt.Println("hello", 7) }',
    ),
    "java": (
        "Problem.java",
        "import org.javatuples.*;\nclass Problem { public static void main(String[] args) {"
        ' System.out.println("hello " + Pair.with(7, 8).getValue0()); } }',
    ),
    "jl": ("main.jl", 'using Test\n@test 1 == 1\nprintln("hello ", 7)'),
    "js": ("main.js", "require('node:assert').deepEqual([1], [1]); console.log('hello', 7)"),
    "lua": ("main.lua", "lu = require('luaunit')\nlu.assertEquals({1}, {1})\nprint('hello 7')"),
    "php": ("main.php", "<?php\necho 'hello ', 3 + 4;"),
    "pl": ("main.pl", 'use Test::Deep;\nprint "hello 7" if eq_deeply([1], [1]);'),
    "r": ("main.r", "stopifnot(isTRUE(all.equal(c(1), c(1))))\ncat('hello', 7)"),
    "rb": ("main.rb", "require 'test/unit'\nputs \"hello #{3 + 4}\""),
    "rkt": ("main.rkt", '#lang racket\n(require rackunit)\n(check-equal? 1 1)\n(display "hello 7")'),
    "rs": ("main.rs", 'fn main() { assert_eq!(1, 1); println!("hello {}", 7); }'),
    "scala": ("Problem.scala", 'object Problem { def main(args: Array[String]) = { println("hello " + 7) } }'),
    "sh": ("main.sh", 'set -e\nfn() { cat <<< "$1"; }\n[[ $(fn 7) = 7 ]]\necho "hello $(fn 7)"'),
    "swift": ("main.swift", 'assert(1 == 1)\nprint("hello", 7)'),
    "ts": (
        "main.ts",
        "declare var require: any;\nconst assert = require('node:assert');\nlet n: number = 7;\n"
        "assert.deepEqual(n, 7); console.log('hello', n)",
    ),
}
BROKEN = {
    "cpp": "int main() { return undeclared; }",
    "cs": "class Problem { public static void Main() { undeclared(); } }",
    "d": "void main() { undeclared(); }",
    "go": 'package p_test\nimport "testing"\nfunc TestSeven(t *testing.T) { undeclared() }',
    "java": "class Problem { public static void main(String[] args) { undeclared(); } }",
    "rs": "fn main() { undeclared(); }",
    "scala": "object Problem { def main(args: Array[String]) = { undeclared() } }",
    "swift": "undeclared()",
    "ts": "let n: number = 'seven';",
}
SLOW = {"scala"}
"""Compiled once only: its compiler takes five seconds."""


@pytest.fixture(scope="module", params=selftest.LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    if failures := selftest.attempt(request.param).failures:
        pytest.skip(f"{request.param} does not work on this machine: {failures}")
    with Sandbox(request.param, workers=2) as made:
        yield made


def run(sandbox: Sandbox, language: str, source: str, **changes: float) -> RunResult:
    chain = toolchains.find(language)
    if chain.version() is None:
        pytest.skip(f"{chain.title} is not installed; {chain.install}")
    limits = Limits(**({"cpu_seconds": 10, "wall_seconds": 30} | changes))
    program = Program(language=language, files=((HONEST[language][0], source),), limits=limits)
    return sandbox.run_programs([program])[0]


@pytest.mark.parametrize("language", HONEST)
def test_an_honest_program_runs(sandbox: Sandbox, language: str) -> None:
    result = run(sandbox, language, HONEST[language][1])
    assert (result.ended, result.status) == ("exit", 0), result
    assert result.stdout.startswith("hello 7"), result


@pytest.mark.parametrize("language", BROKEN)
def test_what_does_not_compile_is_named_so(sandbox: Sandbox, language: str) -> None:
    if language in SLOW and sandbox.level != selftest.LEVELS[0]:
        pytest.skip("compiled on the other level already")
    program = Program(language=language, files=((HONEST[language][0], BROKEN[language]),))
    result = run(sandbox, language, BROKEN[language])
    label, detail = judge(program, result)
    assert label == "compile" and len(detail) <= 300, result
    assert "undeclared" in detail or "error" in detail.lower()


def test_every_language_of_the_paper_is_known_with_its_install_line() -> None:
    assert set(toolchains.TOOLCHAINS) == set(HONEST) and len(HONEST) == 19
    assert all(chain.install and chain.title for chain in toolchains.TOOLCHAINS.values())
    with pytest.raises(InputError, match=r"no toolchain for 'cobol'; known are python, cpp"):
        toolchains.find("cobol")


def test_a_toolchain_without_the_library_of_its_tests_is_missing() -> None:
    chain = toolchains.find("sh")
    assert chain.version() is not None
    assert replace(chain, asks_library=("-c", "true")).version() == chain.version()
    assert replace(chain, asks_library=("-c", "exit 1")).version() is None
    assert replace(chain, library="/no/such/library.jar").version() is None


def test_crates_fit_the_compiler_they_were_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path))
    absent = toolchains.missing([toolchains.RUST_WITH_CRATES])
    assert "starsmith.evaluation.rust_crates" in absent[toolchains.RUST_WITH_CRATES]
    version = toolchains.find("rs").version()
    if version is None:
        pytest.skip(toolchains.find("rs").install)
    folder = tmp_path / toolchains.RUST_WITH_CRATES
    folder.mkdir()
    ready = toolchains.crates_ready(folder, "0.0.1")
    ready.touch(mode=0o755)
    assert toolchains.find(toolchains.RUST_WITH_CRATES).version() is None
    ready.rename(toolchains.crates_ready(folder, version))
    toolchains._version.cache_clear()
    assert toolchains.find(toolchains.RUST_WITH_CRATES).version() == version


def test_a_missing_toolchain_is_named_and_never_a_verdict(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path))
    absent = toolchains.missing(["python", "ds1000"])
    assert list(absent) == ["ds1000"] and "pip install numpy" in absent["ds1000"]
    program = Program(language="ds1000", files=(("main.py", "print(1)"),))
    (result,) = sandbox.run_programs([program])
    assert result.ended == "sandbox_error" and "is not installed" in result.detail
    journal = Journal(tmp_path / "verdicts.jsonl")
    assert Executor(sandbox, journal).run([program])[0].ended == "sandbox_error"
    assert not (tmp_path / "verdicts.jsonl").exists() or not (tmp_path / "verdicts.jsonl").read_text()


def test_a_named_environment_shows_its_own_packages(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import venv

    venv.create(tmp_path / "ds1000", symlinks=True, with_pip=False)
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path))
    packages = next((tmp_path / "ds1000" / "lib").iterdir()) / "site-packages"
    (packages / "planted_package.py").write_text("answer = 42\n")
    source = (
        "import planted_package, os, importlib.util as u\n"
        "print(planted_package.answer, u.find_spec('pyarrow'), os.environ['OMP_NUM_THREADS'])\n"
        "open('scratch', 'w').write('x')\n"
        "try: open(planted_package.__file__, 'a')\n"
        "except OSError: print('read-only')"
    )
    (result,) = sandbox.run_programs([Program(language="ds1000", files=(("main.py", source),))])
    assert (result.ended, result.stdout) == ("exit", "42 None 1\nread-only\n"), result


def test_several_files_lie_in_folders(sandbox: Sandbox) -> None:
    files = (("main.py", "print(open('/program/data/numbers.txt').read())"), ("data/numbers.txt", "1 2 3"))
    source = "import os, sys\nprint(open(os.path.join(os.path.dirname(__file__), 'data/numbers.txt')).read())"
    (result,) = sandbox.run_programs([Program(files=(("main.py", source), files[1]))])
    assert result.stdout == "1 2 3\n", result


def test_memory_of_virtual_machines_is_watched(sandbox: Sandbox) -> None:
    result = run(
        sandbox,
        "js",
        "const kept = []; for (;;) kept.push(Buffer.alloc(16 << 20, 1));",
        memory_bytes=64 * 1024**2,
    )
    assert result.ended == "oom", result


def test_a_compiler_is_limited_too(sandbox: Sandbox) -> None:
    endless = 'template<int n> struct S { typename S<n + 1>::type type; };\n#include "/dev/zero"\nint main() {}'
    limited = Limits(cpu_seconds=1, wall_seconds=2)
    chain = toolchains.find("cpp")
    if chain.version() is None:
        pytest.skip(chain.install)
    (result,) = sandbox.run_programs([Program(language="cpp", files=(("main.cpp", endless),), limits=limited)])
    assert result.ended in ("compile", "oom", "timeout"), result
    assert result.ended == "compile" or result.detail.startswith("compiling: ")


def test_verdicts_are_kept_under_the_version(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = Program(language="sh", files=(("main.sh", "echo once"),))
    journal = Journal(tmp_path / "verdicts.jsonl")
    executor = Executor(sandbox, journal)
    executor.run([program])
    executor.run([program])
    assert len((tmp_path / "verdicts.jsonl").read_text().split("\n{")) - 1 == 1
    monkeypatch.setattr(toolchains.Toolchain, "version", lambda self: "another")
    executor.run([program])
    assert len((tmp_path / "verdicts.jsonl").read_text().split("\n{")) - 1 == 2
