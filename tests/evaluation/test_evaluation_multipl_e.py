"""Every language that is installed judges real answers to one problem written here, and to the real ones."""

from pathlib import Path

import pytest
from evaluation_cases import ScriptedBackend
from program_cases import judged, real_data, written_rows

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import registry, toolchains
from starsmith.evaluation.benchmarks.multipl_e import LANGUAGES, PAPER, SOLVED, MultiplE
from starsmith.evaluation.contract import Candidate, Completion, Limits, MissingDataError, RunResult, Score
from starsmith.evaluation.runner import evaluate
from starsmith.evaluation.sandbox.pool import Sandbox

ASSERTS = {
    "cpp": "}\nint main() {\n    auto candidate = twice;\n    assert(candidate((3)) == (6));\n}\n",
    "cs": "    }\n    public static void Main(string[] args) {\n"
    "    Debug.Assert(Twice((3L)) == (6L));\n    }\n\n}\n",
    "d": "unittest\n{\n    alias candidate = twice;\n\n    assert(candidate(3L) == 6L);\n}\nvoid main(){}",
    "go": "func TestTwice(t *testing.T) {\n  candidate := twice\n\tif candidate(3) != 6 {\n\t\tt.Errorf("
    "\"expected 6, got '%d'\", candidate(3))\n\t}\n}\n",
    "java": "    }\n    public static void main(String[] args) {\n    assert(twice((3l)) == (6l));\n    }\n\n}\n",
    "jl": "using Test\n\n@testset begin\n\ncandidate = twice;\n\t@test(candidate(3) == 6)\nend\n",
    "js": "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = twice;\n"
    "  assert.deepEqual(candidate(3),6);\n}\n\ntest();",
    "lua": "lu = require('luaunit')\n\nfunction test_humaneval()\nlocal candidate = twice\n"
    "    lu.assertEquals(candidate(3), 6)\nend\n\nos.exit(lu.LuaUnit.run())",
    "php": "function candidate(...$args) {\n    return twice(...$args);\n}\n\nfunction test(): void {\n"
    '    if (candidate(3) !== 6) { throw new Exception("Test failed!"); }\n}\n\ntest();',
    "pl": "use Test::Deep;\n\n\nsub testhumaneval {\n    my $candidate = \\&twice;\n"
    '        if(eq_deeply($candidate->(3),6)) {\n        print "ok!" }else{\n        exit 1;\n        }\n}\n\n'
    "testhumaneval();",
    "r": "test_humaneval <- function() {\n    candidate <- twice\n"
    "    stopifnot(isTRUE(all.equal(candidate(3), 6)))\n}\ntest_humaneval()",
    "rb": "require 'test/unit'\nclass TestHumanEval < Test::Unit::TestCase\n  def test_twice\n"
    "    candidate = method(:twice)\n    assert_equal(6, candidate.call(3))\n  end\nend\n",
    "rkt": "(require rackunit)\n\n(define (test-humaneval) \n\n  (let (( candidate twice))\n"
    "    (check-within (candidate 3) 6 0.001)\n))\n\n(test-humaneval)",
    "rs": "}\n\nfn main() {\n    let candidate = twice;\n    assert_eq!(candidate(3), 6);\n}\n",
    "scala": "    }\n    def main(args: Array[String]) = {\n    assert(twice((3l)) == (6l));\n    }\n\n}\n",
    "sh": '}\n\ncandidate() {\n    twice "$@"\n}\n\nset -e\nrun_test() {\n'
    '    [[ $(candidate "3") = "6" ]]\n}\n\nrun_test',
    "swift": "}\n\nassert(twice(x: 3) == 6)",
    "ts": "declare var require: any;\nconst assert = require('node:assert');\n\n\nfunction test() {\n"
    "  let candidate = twice;\n  assert.deepEqual(candidate(3),6);\n}\n\ntest();",
    "py": "def check(candidate):\n    assert candidate(3) == 6\n\ndef test_check():\n    check(twice)\n\n"
    "test_check()\n",
}
"""In the form of each translator."""
PROMPTS = {
    "cpp": "#include<assert.h>\n#include<bits/stdc++.h>\n// Twice.\nlong twice(long x) {\n",
    "cs": "using System;\nusing System.Diagnostics;\nclass Problem {\n    public static long Twice(long x) {\n",
    "d": "import std.math;\n/*\nTwice.\n*/\nlong twice(long x) \n",
    "go": 'package twice_test\n\nimport (\n    "testing"\n    "fmt"\n)\n\nfunc twice(x int) int {\n',
    "java": "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n"
    "    public static long twice(long x) {\n",
    "jl": '"""Twice."""\nfunction twice(x::Int64)::Int64 \n',
    "js": "//Twice.\nfunction twice(x){\n",
    "lua": "-- Twice.\nlocal function twice(x)\n",
    "php": "<?php\n// Twice.\nfunction twice($x) {\n",
    "pl": "# Twice.\nsub twice {\n    my($x) = @_;\n",
    "r": "# Twice.\ntwice <- function(x) {",
    "rb": "# Twice.\ndef twice(x)\n",
    "rkt": "#lang racket\n\n;; Twice.\n(define (twice x)\n",
    "rs": "/// Twice.\nfn twice(x: isize) -> isize {\n",
    "scala": "import scala.math._\nobject Problem {\n    def twice(x : Long) : Long = {\n",
    "sh": "#!/bin/bash\n# $1 is an integer\ntwice() {\n",
    "swift": "\n/// Twice.\nfunc twice(x: Int) -> Int {\n",
    "ts": "//Twice.\nfunction twice(x: number): number {\n",
    "py": 'def twice(x: int) -> int:\n    """Twice."""\n',
}
STOP_TOKENS = {
    "cpp": "\n}", "cs": "\n    }\n", "d": "\n\n", "go": "\nfunc", "java": "\n    }\n", "jl": "\nfunction",
    "js": "\nfunction ", "lua": "\n\n", "php": "\nfunction", "pl": "\nsub", "r": "\n#", "rb": "\ndef",
    "rkt": "\n(define ", "rs": "\n}", "scala": "\n    }\n", "sh": "\n}", "swift": "\n}",
    "ts": "\nfunction ", "py": "\ndef",
}  # fmt: skip

RAISES = {
    "cpp": "\n  throw 1;", "cs": '\n  throw new Exception("no");', "d": '\n{\n throw new Exception("no");\n}',
    "go": '\n  fmt.Println(); panic("no")\n}', "java": '\n  throw new RuntimeException("no");',
    "jl": '\n  error("no")\nend', "js": '\n  throw new Error("no");\n}', "lua": '\n  error("no")\nend',
    "php": '\n  throw new Exception("no");\n}', "pl": '\n  die "no";\n}', "py": "\n    return x.y",
    "r": '\n  stop("no")\n}', "rb": '\n  raise "no"\nend', "rkt": '\n  (error "no"))', "rs": '\n  panic!("no")',
    "scala": '\n  throw new Exception("no")', "swift": '\n  fatalError("no")',
    "ts": '\n  throw new Error("no");\n}',
}  # fmt: skip
"""What a shell function raises is lost in the `$(...)` of its test."""
LEAVES = {
    "cpp": "\n  exit(0);", "cs": "\n  Environment.Exit(0); return 6;",
    "d": "\n{\n import core.stdc.stdlib; exit(0); return 6;\n}",
    "java": "\n  System.exit(0); return 6;",
    "jl": "\n  exit(0)\nend", "js": "\n  process.exit(0);\n}", "lua": "\n  os.exit(0)\nend",
    "php": "\n  exit(0);\n}", "pl": "\n  exit 0;\n}", "py": "\n    raise SystemExit(0)",
    "r": "\n  quit(status = 0)\n}", "rb": "\n  exit!(0)\nend",
    "rkt": "\n  (exit 0))", "rs": "\n  std::process::exit(0)", "scala": "\n  sys.exit(0)",
    "sh": "\n  :; }; exit 0; other() { :", "ts": "\n  require('node:process').exit(0); return 6;\n}",
}  # fmt: skip
"""An exit with status 0 before the tests have passed."""
INVALID = dict.fromkeys(PROMPTS, " ) ] oops (((") | {"sh": "\n  if then )", "rkt": "\n  (* 2 x"}
SLOW = {"cs", "java", "rkt", "scala", "ts"}
"""Judged on fewer answers, and not on the real ones, since their compilers take seconds: `starsmith evaluate
--references` runs all."""


def right(language: str) -> str:
    body = {
        "d": "\n{\n    return 2 * x;\n}", "go": "\n    fmt.Print()\n    return 2 * x\n}", "jl": "\n    2 * x\nend",
        "lua": "\n    return 2 * x\nend", "php": "\n    return 2 * $x;\n}", "pl": "\n    return 2 * $x;\n}",
        "r": "\n    2 * x\n}", "rb": "\n  2 * x\nend", "rkt": "\n  (* 2 x))", "rs": "\n    2 * x",
        "scala": "\n        2 * x", "sh": '\n    echo "$((2 * $1))"', "py": "\n    return 2 * x",
    }.get(language, "\n  return 2 * x;")  # fmt: skip
    return body + "\n}" if language in ("js", "ts") else body


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for language, prompt in PROMPTS.items():
        row = {"name": "Own_1_twice", "prompt": prompt, "tests": ASSERTS[language]}
        row_again = row | {"name": "Own_2_again"}
        rows = [each | {"stop_tokens": [STOP_TOKENS[language]]} for each in (row, row_again)]
        written_rows(tmp_path, f"multipl-e-humaneval/humaneval-{language}.jsonl", rows)
    return tmp_path


def toolchain_of(language: str) -> str:
    name = "python" if language == "py" else language
    chain = toolchains.find(name)
    if chain.version() is None:
        pytest.skip(f"{chain.title} is not installed; {chain.install}")
    return name


@pytest.mark.parametrize("language", PROMPTS)
def test_each_label(python_sandbox: Sandbox, data: Path, language: str) -> None:
    toolchain_of(language)
    benchmark = MultiplE(part="humaneval", language=language, data=data)
    problem = benchmark.load()[0]
    answers = {right(language) + "<file_sep>next": "pass"}
    if language != "scala":
        answers |= {right(language).replace("2 *", "3 *").replace("* 2", "* 3"): "wrong"}
        answers |= {LEAVES[language]: "runtime"} if language in LEAVES else {}
    if language not in SLOW:
        answers |= {INVALID[language]: "compile"}
        answers |= {RAISES[language]: "runtime"} if language in RAISES else {}
    scores = judged(
        python_sandbox,
        benchmark,
        [(problem, benchmark.extract(problem, Completion(text=text))) for text in answers],
        Limits(cpu_seconds=10.0, wall_seconds=60.0),
    )
    found = {text: score.label for text, score in zip(answers, scores, strict=True)}
    assert found == answers, [score.detail for score in scores]
    assert all(score.detail or score.label == "pass" for score in scores)


@pytest.mark.parametrize("language", [*LANGUAGES, "py"])
def test_the_problem_that_we_solved_passes_and_its_negation_is_wrong(
    python_sandbox: Sandbox, language: str
) -> None:
    benchmark = MultiplE(part="humaneval", language=language, data=real_data("multipl-e-humaneval"))
    problems = benchmark.load()
    assert 154 <= len(problems) <= 161
    (problem,) = (each for each in problems if each.inputs["name"] == SOLVED)
    reference, wrong = benchmark.checks(problem)
    assert reference.passes and not wrong.passes
    assert [benchmark.checks(each) for each in problems].count([]) == len(problems) - 1
    toolchain_of(language)
    if language in SLOW:
        return
    scores = judged(
        python_sandbox,
        benchmark,
        [(problem, check.candidate) for check in (reference, wrong)],
        Limits(cpu_seconds=15.0, wall_seconds=60.0),
    )
    assert [score.label for score in scores] == ["pass", "wrong"], scores


def test_what_is_asked(data: Path) -> None:
    benchmark = MultiplE(part="humaneval", data=data)
    problems = benchmark.load()
    assert len(problems) == 36 and problems[0].id == "cpp/Own_1_twice" and problems[0].group == "cpp"
    requests = benchmark.requests(problems[0])
    assert len(requests) == 50 == PAPER.samples
    assert (requests[0].temperature, requests[0].top_p) == (0.2, 0.95)
    assert requests[0].prompt == PROMPTS["cpp"].strip() and requests[0].stop == ("\n}", "<file_sep>")
    assert MultiplE(part="mbpp", language="rs").name == "multipl_e_mbpp_rs"
    folders = [registry.data_folder(name) for name in ("multipl_e_humaneval_rs", "multipl_e_mbpp")]
    assert folders == ["multipl-e-humaneval", "multipl-e-mbpp"]


def test_the_mean_weighs_languages_alike_and_names_them() -> None:
    passed = {"lua/a": [1, 1], "lua/b": [0, 0], "lua/c": [0, 1], "lua/d": [1, 0], "sh/a": [1, 1], "sh/b": [0, 1]}
    scores = [
        Score(
            problem=name,
            sample=number,
            group=name.split("/")[0],
            label="pass" if value else "wrong",
            value=float(value),
        )
        for name, values in passed.items()
        for number, value in enumerate(values)
    ]
    estimates = MultiplE(part="humaneval").aggregate(scores, seed=1)
    assert list(estimates) == ["pass@1/lua", "pass@1/sh", "pass@1/mean(lua,sh)"]
    assert estimates["pass@1/lua"].value == 0.5 and estimates["pass@1/sh"].value == 0.75
    mean = estimates["pass@1/mean(lua,sh)"]
    assert mean.value == pytest.approx(0.625) and mean.n == 4 and mean.low < 0.625 < mean.high
    alone = MultiplE(part="humaneval", language="lua").aggregate(scores[:8], seed=1)
    assert list(alone) == ["pass@1/lua"]


def test_bad_files_are_explained(data: Path) -> None:
    with pytest.raises(MissingDataError, match=r"mbpp-cpp\.jsonl.*nuprl/MultiPL-E"):
        MultiplE(part="mbpp", data=data).load()
    written_rows(data, "multipl-e-humaneval/humaneval-sh.jsonl", [{"name": "a", "prompt": "b", "tests": "c"}])
    with pytest.raises(InputError, match=r"humaneval-sh\.jsonl, line 1: no field 'stop_tokens'"):
        MultiplE(part="humaneval", data=data).load()
    assert MultiplE(part="humaneval", language="lua", data=data).load()


@pytest.mark.parametrize("text", ["x" * 2_000_000, "\ud800\udfff", "\0", "("])
def test_no_completion_breaks_the_run(python_sandbox: Sandbox, data: Path, text: str) -> None:
    toolchain_of("lua")
    benchmark = MultiplE(part="humaneval", language="lua", data=data)
    problem = benchmark.load()[0]
    (score,) = judged(
        python_sandbox, benchmark, [(problem, benchmark.extract(problem, Completion(text=text)))], Limits()
    )
    assert score.label == "compile"


def test_an_endless_loop_is_a_timeout(python_sandbox: Sandbox, data: Path) -> None:
    toolchain_of("lua")
    benchmark = MultiplE(part="humaneval", language="lua", data=data)
    problem = benchmark.load()[0]
    candidate = benchmark.extract(problem, Completion(text="\n  while true do end\nend"))
    (score,) = judged(
        python_sandbox, benchmark, [(problem, candidate)], Limits(cpu_seconds=1.0, wall_seconds=10.0)
    )
    assert score.label == "timeout"


def test_a_subshell_that_ran_out_of_time_is_a_timeout(data: Path) -> None:
    benchmark = MultiplE(part="humaneval", language="sh", data=data)
    problem = benchmark.load()[0]
    killed = RunResult(ended="exit", status=1, cpu_seconds=15.0)
    assert benchmark.score(problem, 0, Candidate(text=""), [killed]).label == "timeout"
    assert benchmark.score(problem, 0, Candidate(text=""), [RunResult(ended="exit", status=1)]).label == "wrong"


def test_a_program_has_upstreams_limits_where_nothing_measured_it(data: Path) -> None:
    benchmark = MultiplE(part="humaneval", language="lua", data=data)
    (program,) = benchmark.programs(benchmark.load()[0], Candidate(text=""))
    assert program.limits.cpu_seconds == 15.0 and program.language == "lua"


def test_one_evaluation_of_all_languages(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bash and Python answer; what has no toolchain is skipped and named."""
    version = toolchains.Toolchain.version
    monkeypatch.setattr(
        toolchains.Toolchain, "version", lambda self: version(self) if self.language in ("sh", "python") else None
    )
    folder = tmp_path / "out"
    backend = ScriptedBackend(lambda request: right("sh") if request.sample == 0 else "\n  :")
    config = recipe.Evaluation(benchmarks=("multipl_e_humaneval",), data=data, samples=2)
    found = evaluate(backend, config, heldout=[], folder=folder)["benchmarks"]["multipl_e_humaneval"]
    assert found["estimates"]["pass@1/sh"]["value"] == 0.5 and found["groups"] == {"sh": 2}
    assert set(found["skipped"]) == {*LANGUAGES} - {"sh"} and found["num_skipped_problems"] == 34
    assert "swiftlang" in found["skipped"]["swift"]
    assert found["labels"] == {"pass": 2, "wrong": 2}
