"""Candidates with tests in nineteen languages: how a program proves that its tests passed, and how a failure is
told from a program that is no code at all.

An exit status alone proves nothing: a candidate that leaves before the tests exits with 0 too, and three test
libraries exit with 0 although a test failed (mono's `Debug.Assert`, Racket's rackunit, JavaScript's
`console.assert`). So each language writes a proof, which depends on the whole program, after its last test.
Where tests end is known by their form, which is that of MultiPL-E's translators (Cassano et al. 2022) and
HumanEvalPack's authors: a call at top level, or the end of the block that asserts. Assertions that only print
are made to raise:

    C#       a trace listener that throws
    Racket   rackunit's check handler raises
    Lua, Ruby    the test runner is called by us, and the proof depends on its answer
    Go       `TestMain` in a file of its own

Labels are told by what compilers, interpreters and test libraries write. An assertion of the candidate's own
that fails is called wrong too; that is the only ambiguity, and no label but `pass` counts.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starsmith.evaluation.benchmarks.python_programs import pass_at_ks
from starsmith.evaluation.contract import (
    Estimate,
    Label,
    Limits,
    Problem,
    Program,
    RunResult,
    Score,
    content_key,
)
from starsmith.evaluation.statistics import bootstrap_ratio, pass_at_k
from starsmith.evaluation.toolchains import RUST_WITH_CRATES
from starsmith.evaluation.verdicts import judge as judge_python
from starsmith.evaluation.verdicts import proved_program, scored

MAX_DETAIL_CHARS: Final = 300
LIMITS: Final = Limits(cpu_seconds=15.0, wall_seconds=45.0)
"""What MultiPL-E's evaluators grant (15 s), for programs whose benchmark has no reference to measure."""

_NEAR: Final = 0.9
"""Of the CPU limit: it ends a shell's child and not the shell, which goes on and calls the answer wrong."""


@dataclass(frozen=True, kw_only=True)
class Language:
    file: str
    """The entry's name."""
    prove: Callable[[str, str], str]
    """From the tests and the proof to tests that write the proof after the last of them."""
    wrong: str
    """A regular expression for what a failed test writes."""
    invalid: str = r"(?!)"
    """One for what an interpreter says of a file that is no program; compilers are a step of their own."""
    more_files: Callable[[str, str], tuple[tuple[str, str], ...]] = lambda source, proof: ()
    """Files beside the entry, from its text and the proof."""


def tested(
    language: str,
    candidate: str,
    tests: str,
    *,
    form: "Language | None" = None,
    files: Sequence[tuple[str, str]] = (),
) -> Program:
    """A program of a candidate and its tests, which proves that they passed.

    Args:
        language: by the name of its toolchain.
        candidate: all that stands before the tests.
        tests: what is run after it.
        form: of the tests; None for MultiPL-E's.
        files: libraries beside the entry.
    """
    if language == "python":
        return proved_program(f"{candidate}\n{tests}")
    known, proof = form or LANGUAGES[language], content_key(language, candidate, tests)
    source = f"{candidate}\n{known.prove(tests.rstrip(), proof)}\n"
    entry = (known.file, source)
    return Program(
        language=language,
        files=(entry, *known.more_files(source, proof), *files),
        proof=proof,
        limits=LIMITS,
    )


def judge(program: Program, result: RunResult) -> tuple[Label, str]:
    """The label of a run and one line that says why; "" for a pass."""
    if program.language == "python" or result.ended not in ("exit", "compile"):
        return judge_python(program, result)
    if result.ended == "compile":
        return "compile", result.detail
    if result.status == 0:
        return judge_python(program, result)
    if program.language == "sh" and result.cpu_seconds >= _NEAR * program.limits.cpu_seconds:
        return "timeout", f"{program.limits.cpu_seconds:g} s of CPU time in a subshell"
    known = LANGUAGES[program.language]
    # A test library that writes nothing at all and ends with 1 has said that a test failed.
    text = f"{result.stderr}\n{result.stdout}".strip() or f"ended with status {result.status}"
    for label, pattern in (("compile", known.invalid), ("oom", _OUT_OF_MEMORY), ("wrong", known.wrong)):
        if found := re.search(pattern, text, re.MULTILINE):
            return label, _line(text, found.start())  # type: ignore[return-value]
    if result.status < 0:
        return "runtime", f"killed by signal {-result.status}"
    cause = re.search(_CAUSE, text)
    return "runtime", _line(text, cause.start() if cause else text.rfind("\n") + 1)


def verdict(problem: Problem, sample: int, program: Program, result: RunResult) -> Score:
    return scored(problem, sample, *judge(program, result))


def estimates(scores: Sequence[Score], ks: Sequence[int], *, seed: int) -> dict[str, Estimate]:
    """`pass@k/LANGUAGE` of each group, and of several their mean, `pass@k/mean(...)`, which names its members."""
    by_language: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_language[score.group].append(score)
    found = {
        f"{name}/{language}": estimate
        for language, own in sorted(by_language.items())
        for name, estimate in pass_at_ks(own, ks, seed=seed).items()
    }
    members = ",".join(sorted(by_language))
    for k in ks:
        if len(by_language) > 1 and all(f"pass@{k}/{language}" in found for language in by_language):
            found[f"pass@{k}/mean({members})"] = mean_of_languages(by_language, k, seed=seed)
    return found


def mean_of_languages(by_language: Mapping[str, Sequence[Score]], k: int, *, seed: int) -> Estimate:
    """The mean of the languages' pass@k, as one ratio over original problems.

    A problem's name after its language is the original's. A language of n problems gives each of them the weight
    1/n, so that every language weighs the same.
    """
    values: dict[str, float] = defaultdict(float)
    weights: dict[str, float] = defaultdict(float)
    for own in by_language.values():
        passed: dict[str, list[bool]] = defaultdict(list)
        for score in own:
            passed[score.problem.split("/", 1)[1]].append(score.label == "pass")
        for original, samples in passed.items():
            values[original] += pass_at_k(len(samples), sum(samples), k) / len(passed)
            weights[original] += 1 / len(passed)
    originals = sorted(values)
    return bootstrap_ratio([values[name] for name in originals], [weights[name] for name in originals], seed=seed)


def _line(text: str, place: int) -> str:
    """The line at a place, without addresses and folders that differ from run to run."""
    line = text[text.rfind("\n", 0, place) + 1 :].split("\n", 1)[0].strip()
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", line)[:MAX_DETAIL_CHARS]


def then(statement: str) -> Callable[[str, str], str]:
    """`statement` after the tests, with PROOF replaced."""
    return lambda tests, proof: f"{tests}\n{statement.replace('PROOF', proof)}"


def inside(statement: str, num_braces: int) -> Callable[[str, str], str]:
    """`statement` at the end of the block that `num_braces` closing braces before the end closes."""

    def prove(tests: str, proof: str) -> str:
        place = len(tests)
        for _ in range(num_braces):
            place = tests.rfind("}", 0, place)
        if place < 0:
            return tests
        return f"{tests[:place]}{statement.replace('PROOF', proof)}\n{tests[place:]}"

    return prove


def _d(tests: str, proof: str) -> str:
    """At the end of the `unittest` block, which `void main(){}` follows."""
    block, end, rest = tests.rpartition("void main()")
    statement = '{ static import core.stdc.stdio; core.stdc.stdio.printf("\\nPROOF\\n"); }'
    return inside(statement, 1)(block, proof) + end + rest if end else tests


def _c_sharp(tests: str, proof: str) -> str:
    listener = (
        "class FailedTest : System.Diagnostics.TraceListener {\n"
        '    public override void Fail(string message) { throw new System.Exception("a test failed"); }\n'
        "    public override void Fail(string message, string more) { Fail(message); }\n"
        "    public override void Write(string message) {}\n"
        "    public override void WriteLine(string message) {}\n"
        "}"
    )
    listens = (
        "System.Diagnostics.Trace.Listeners.Clear(); System.Diagnostics.Trace.Listeners.Add(new FailedTest());"
    )
    main = re.sub(r"(static void Main\(.*?\) *\{)", lambda found: f"{found[1]}\n    {listens}", tests, count=1)
    return inside('System.Console.WriteLine("\\nPROOF");', 2)(main, proof) + f"\n{listener}"


def _go_main(source: str, proof: str) -> tuple[tuple[str, str], ...]:
    package = re.search(r"^\s*package (\w+)", source, re.MULTILINE)
    return (
        (
            "proof_test.go",
            f"package {package[1] if package else 'main'}\n\n"
            'import (\n\t"os"\n\t"testing"\n)\n\n'
            "func TestMain(m *testing.M) {\n\tstatus := m.Run()\n\tif status == 0 {\n"
            f'\t\tos.Stdout.WriteString("\\n{proof}\\n")\n\t}}\n\tos.Exit(status)\n}}\n',
        ),
    )


def _lua(tests: str, proof: str) -> str:
    proves = f"if failed == 0 then io.stdout:write('\\n{proof}\\n') end"
    runs = f"local failed = lu.LuaUnit.run()\n{proves}\nos.exit(failed)"
    return tests.replace("os.exit(lu.LuaUnit.run())", runs)


def _ruby(tests: str, proof: str) -> str:
    return (
        f"{tests}\nTest::Unit::AutoRunner.need_auto_run = false\npassed = Test::Unit::AutoRunner.run\n"
        f'STDOUT.puts("\\n{proof}") if passed\nexit(passed ? 0 : 1)'
    )


def _racket(tests: str, proof: str) -> str:
    body = tests.removesuffix("(test-humaneval)")
    failed = '(raise-user-error \'test "a check failed")'
    raises = f"(lambda (failure) (if (exn:test:check? failure) {failed} (raise failure)))"
    return f'{body}\n(parameterize ([current-check-handler {raises}]) (test-humaneval))\n(display "\\n{proof}\\n")'


_OUT_OF_MEMORY: Final = (
    r"OutOfMemory(?:Error|Exception)|std::bad_alloc|heap out of memory|^lua\S*: not enough memory|"
    r"^Out of memory|Allowed memory size|cannot allocate (?:vector|memory)|NoMemoryError|: out of memory|"
    r"memory allocation of \d+ bytes failed|OutOfMemoryError"
)
_CAUSE: Final = r"(?i)\w*(?:error|exception|panic|fatal|terminate called)"
"""In the line that says why a program ended; the last line is often a place in a stack."""
_NODE_WRONG: Final = r"^AssertionError|^Uncaught AssertionError|AssertionError \[ERR_ASSERTION\]"

LANGUAGES: Final[dict[str, Language]] = {
    "cpp": Language(
        file="main.cpp",
        prove=inside('fflush(0); puts("\\nPROOF"); fflush(0);', 1),
        wrong=r"Assertion `.*' failed",
    ),
    "cs": Language(file="main.cs", prove=_c_sharp, wrong=r"a test failed"),
    "d": Language(file="main.d", prove=_d, wrong=r"core\.exception\.AssertError|unittest failure"),
    "go": Language(
        file="main_test.go",
        prove=lambda tests, proof: tests,
        more_files=_go_main,
        wrong=r"\A(?![\s\S]*^panic: )[\s\S]*?^\s*--- FAIL: ",
    ),
    "java": Language(
        file="Problem.java",
        prove=inside('System.out.println("\\nPROOF"); System.out.flush();', 2),
        wrong=r"java\.lang\.AssertionError",
    ),
    "jl": Language(
        file="main.jl",
        prove=then('println("\\nPROOF")'),
        wrong=r"Test Failed at",
        invalid=r"ParseError|syntax: ",
    ),
    "js": Language(
        file="main.js",
        prove=then('process.stdout.write("\\nPROOF\\n");'),
        wrong=_NODE_WRONG,
        invalid=r"^SyntaxError: .*\n(?:.*\n)?\s+at (?:wrapSafe|internalCompileFunction)",
    ),
    "lua": Language(
        file="main.lua",
        prove=_lua,
        wrong=r", [1-9]\d* failures?\b",
        invalid=r"^\S*lua\S*: \S+:\d+: .*(?: near | expected|unexpected symbol)",
    ),
    "php": Language(
        file="main.php",
        prove=then('echo "\\nPROOF\\n";'),
        wrong=r"Test failed!",
        invalid=r"Parse error: ",
    ),
    "pl": Language(
        file="main.pl",
        prove=then('print "\\nPROOF\\n";'),
        wrong=r"\A(?:ok!)*\Z|\Aended with status 1\Z",
        invalid=r"syntax error at |aborted due to compilation|had compilation errors|Missing right curly",
    ),
    "r": Language(
        file="main.r",
        prove=then('cat("\\nPROOF\\n")'),
        wrong=r"is not TRUE",
        invalid=r"^Error: (?:unexpected |incomplete )|^Error in file\(|^Error: object .*\n.*unexpected",
    ),
    "rb": Language(
        file="main.rb",
        prove=_ruby,
        wrong=r"^Failure: ",
        invalid=r"\(SyntaxError\)|syntax errors? found|syntax error, ",
    ),
    "rkt": Language(
        file="main.rkt",
        prove=_racket,
        wrong=r"a check failed",
        invalid=r"read-syntax: |unbound identifier|bad syntax|duplicate argument|identifier is already",
    ),
    "rs": Language(
        file="main.rs",
        prove=inside('println!("\\nPROOF");', 1),
        wrong=r"assertion (?:`.*` )?failed",
    ),
    "scala": Language(
        file="Problem.scala",
        prove=inside('println("\\nPROOF")', 2),
        wrong=r"java\.lang\.AssertionError",
    ),
    "sh": Language(
        file="main.sh",
        prove=then("printf '\\nPROOF\\n' ''"),
        wrong=r"\Aended with status 1\Z",
        invalid=r"syntax error|unexpected end of file|unexpected EOF",
    ),
    "swift": Language(
        file="main.swift",
        prove=then('print("\\nPROOF")'),
        wrong=r"Assertion failed",
    ),
    "ts": Language(
        file="main.ts",
        prove=then('require("node:fs").writeSync(1, "\\nPROOF\\n");'),
        wrong=_NODE_WRONG,
    ),
}
LANGUAGES[RUST_WITH_CRATES] = LANGUAGES["rs"]
