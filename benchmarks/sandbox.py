"""Sandbox: small Python programs a second, on each level, and what confinement adds to a bare interpreter.

The program is a benchmark's smallest: a function, an assertion, a proof. Limits, files and results are those of an
evaluation, two workers run at once. Two numbers are told:

* **wall**: programs a second as they came out, on a machine that may do other things;
* **two cores**: twice what a core can do, from processor time (launchers, programs and our own process together),
  which others on the machine disturb less; what the kernel does later to take namespaces down is not in it. The
  targets are for this one.

The peer is the interpreter alone, started by `subprocess` with the same flags: no limits, no isolation, nobody
watches.
A row per further language tells compile and run of its smallest program, where its toolchain is installed.
"""

import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import table
from starsmith.evaluation import toolchains
from starsmith.evaluation.contract import Program
from starsmith.evaluation.sandbox import interpreter, selftest
from starsmith.evaluation.sandbox.pool import Level, Sandbox
from starsmith.evaluation.verdicts import judge, proved_program

TARGETS: dict[Level, float] = {"bubblewrap": 100.0, "landlock": 250.0}
"""Programs a second on two cores."""
NUM_CORES = 2
NUM_PROGRAMS = {"small": 200, "full": 1000}
COMPILED = {
    "cpp": ("main.cpp", "#include <bits/stdc++.h>\nint main() { std::cout << 1; }"),
    "go": ("main_test.go", 'package p_test\nimport "testing"\nfunc TestOne(t *testing.T) {}'),
    "java": ("Problem.java", "class Problem { public static void main(String[] args) { assert 1 == 1; } }"),
    "js": ("main.js", "console.log(1)"),
    "lua": ("main.lua", "print(1)"),
    "rs": ("main.rs", "fn main() { assert_eq!(1, 1); }"),
    "ts": ("main.ts", "let n: number = 1; console.log(n)"),
}


def main() -> None:
    chosen = table.options(__doc__ or "")
    number = NUM_PROGRAMS[chosen.scale]
    table.publish([*python_rows(number), *language_rows()], (), chosen.json)


def python_rows(number: int) -> Iterator[table.Row]:
    programs = [
        proved_program(f"def times(n):\n    return n * {n}\n\nassert times(2) == {2 * n}") for n in range(number)
    ]
    bare = _bare_a_second(programs)
    yield table.row("Python, bare interpreter, two cores", bare, "programs/s")
    for level in selftest.LEVELS:
        if reason := selftest.attempt(level).failures:
            print(f"{level} is left out: {reason}")
            continue
        wall, two_cores = _sandboxed_a_second(level, programs)
        yield table.row(f"Python, {level}, wall", wall, "programs/s")
        yield table.row(
            f"Python, {level}, two cores", two_cores, "programs/s", target=TARGETS[level], direction="at least"
        )
        yield table.row(
            f"Python, {level}, beside the bare interpreter", two_cores, "programs/s",
            peer=bare, peer_name="no sandbox",
        )  # fmt: skip


def _sandboxed_a_second(level: Level, programs: list[Program]) -> tuple[float, float]:
    """By the clock, and by processor time."""
    with Sandbox(level, workers=NUM_CORES) as sandbox:
        sandbox.run_programs(programs[:NUM_CORES])  # launchers start once
        cpu = _processor_seconds()
        started = time.perf_counter()
        results = sandbox.run_programs(programs)
        wall = time.perf_counter() - started
    cpu = _processor_seconds() - cpu  # of launchers too, which are counted when they end
    failed = [judge(*pair) for pair in zip(programs, results, strict=True) if judge(*pair)[0] != "pass"]
    if failed:
        raise AssertionError(f"{level}: {len(failed)} programs did not pass; the first: {failed[0]}")
    return len(programs) / wall, NUM_CORES * len(programs) / cpu


def _bare_a_second(programs: list[Program]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "main.py"
        cpu = _processor_seconds()
        for program in programs:
            path.write_text(program.files[0][1])
            subprocess.run(interpreter.find().command(str(path)), stdout=subprocess.PIPE, check=True)
        return NUM_CORES * len(programs) / (_processor_seconds() - cpu)


def language_rows() -> Iterator[table.Row]:
    """The fastest of three, compiled and run on the first level that works."""
    level, _ = selftest.choose()
    with Sandbox(level, workers=1) as sandbox:
        for language, file in COMPILED.items():
            chain = toolchains.find(language)
            if chain.version() is None:
                print(f"{chain.title} is left out: {chain.install}")
                continue
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                (result,) = sandbox.run_programs([Program(language=language, files=(file,))])
                seconds.append(time.perf_counter() - started)
                if (result.ended, result.status) != ("exit", 0):
                    raise AssertionError(f"{language}: {result}")
            yield table.row(f"{chain.title}, {level}, compile and run", 1000 * min(seconds), "ms")


def _processor_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    main()
