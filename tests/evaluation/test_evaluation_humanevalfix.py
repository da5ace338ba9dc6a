"""One bug written here in each language, the real ones where they are, and every label by the real compilers."""

from pathlib import Path

import pytest
import tokenizers
from evaluation_cases import ScriptedBackend
from program_cases import judged, labels, real_data, written_rows

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import toolchains
from starsmith.evaluation.backends import Contexts
from starsmith.evaluation.benchmarks.humanevalfix import LANGUAGES, PAPER, HumanEvalFix, first_block
from starsmith.evaluation.contract import Completion, Limits, MissingDataError, Request
from starsmith.evaluation.runner import evaluate
from starsmith.evaluation.sandbox.pool import Sandbox

ROWS = {
    "cpp": {
        "declaration": "#include<stdio.h>\nusing namespace std;\nint twice(int x){\n",
        "canonical_solution": "    return 2 * x;\n}\n",
        "test": "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (twice(3) == 6);\n}\n",
    },
    "go": {
        "prompt": "func Two() int {\n    return 2\n}\n\n// Twice x.\nfunc Twice(x int) int {\n",
        "test_setup": 'package main\n\nimport (\n    "testing"\n    "math"\n'
        '    "github.com/stretchr/testify/assert"\n)\n',
        "declaration": "\nfunc Twice(x int) int {\n",
        "canonical_solution": '    strings.ToUpper("")\n    return 2 * x\n}\n\n',
        "test": "func TestTwice(t *testing.T) {\n    assert := assert.New(t)\n"
        "    assert.Equal(3*Two(), Twice(3))\n    assert.Equal(2, int(math.Abs(float64(Twice(-1)))))\n}\n",
    },
    "java": {
        "declaration": "import java.util.*;\n\nclass Solution {\n    public int twice(int x) {\n",
        "canonical_solution": "        return 2 * x;\n    }\n}",
        "test": "public class Main {\n    public static void main(String[] args) {\n"
        "        if (new Solution().twice(3) != 6) {\n            throw new AssertionError();\n"
        "        }\n    }\n}",
    },
    "js": {
        "declaration": "\nconst twice = (x) => {\n",
        "canonical_solution": "  return require('js-md5')('') && 2 * x;\n}\n\n",
        "test": "const testTwice = () => {\n  console.assert(twice(3) === 6)\n}\n\ntestTwice()\n",
    },
    "python": {
        "declaration": "def twice(x: int) -> int:\n",
        "canonical_solution": "    return math.floor(2 * x)\n",
        "test": "\n\ndef check(twice):\n    assert twice(3) == 6\n\ncheck(twice)",
    },
    "rust": {
        "declaration": "\nuse rand::Rng;\nuse regex::Regex;\nuse md5;\n\nfn twice(x: i32) -> i32{\n\n",
        "canonical_solution": '\n    Regex::new("a").unwrap(); md5::compute(b"");\n    return 2 * x;\n}\n',
        "test": "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    // One.\n"
        "    fn test_twice() {\n"
        "        for _ in 0..100 { assert!(rand::thread_rng().gen_range(0, 4) < 4); }\n"
        "        assert_eq!(twice(3), 6);\n    }\n\n}\n",
    },
}
ENTRY = {"go": "Twice"}
TITLES = {"cpp": "CPP", "go": "Go", "java": "Java", "js": "JavaScript", "python": "Python", "rust": "Rust"}
LEAVES = {
    "cpp": "exit(0); ", "go": "panic(0); ", "java": "System.exit(0); ", "js": "process.exit(0); ",
    "python": "sys.exit(0); ", "rust": "std::process::exit(0); ",
}  # fmt: skip
"""In front of `return`: no test has passed when it runs."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for language, row in ROWS.items():
        more = {
            "task_id": f"{TITLES[language]}/0",
            "entry_point": ENTRY.get(language, "twice"),
            "buggy_solution": row["canonical_solution"].replace("2 * x", "3 * x"),
        }
        written_rows(tmp_path, f"humanevalpack/humanevalpack-{language}.jsonl", [row | more])
    return tmp_path


def toolchain_of(language: str) -> None:
    chain = toolchains.find("rs_crates" if language == "rust" else language)
    if chain.version() is None:
        pytest.skip(f"{chain.title} is not installed; {chain.install}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_fix_passes_and_the_bug_is_wrong(python_sandbox: Sandbox, data: Path, language: str) -> None:
    toolchain_of(language)
    benchmark = HumanEvalFix(language=language, data=data)
    (problem,) = benchmark.load()
    checks = benchmark.checks(problem)
    assert [check.passes for check in checks] == [True, False]
    answers = [(problem, check.candidate) for check in checks]
    fix = ROWS[language]["canonical_solution"]
    for text in (
        "\n" + fix + "```\nDone.",
        "\n" + fix.replace("return", LEAVES[language] + "return", 1),
        "\n" + fix.replace("2 * x", "undefined_name"),
    ):
        answers.append((problem, benchmark.extract(problem, Completion(text=text))))
    scores = judged(python_sandbox, benchmark, answers, Limits(cpu_seconds=10.0, wall_seconds=60.0))
    unknown = "runtime" if language in ("js", "python") else "compile"
    assert [score.label for score in scores] == ["pass", "wrong", "pass", "runtime", unknown], scores


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_references(python_sandbox: Sandbox, language: str) -> None:
    benchmark = HumanEvalFix(language=language, data=real_data("humanevalpack"))
    problems = benchmark.load()
    assert len(problems) == 164
    toolchain_of(language)
    numbers = {"cpp": (23,), "go": (50, 162), "rust": (50, 162)}.get(language, (162,))
    chosen = [problems[number] for number in numbers]
    checks = [(problem, check) for problem in chosen for check in benchmark.checks(problem)]
    scores = judged(
        python_sandbox,
        benchmark,
        [(problem, check.candidate) for problem, check in checks],
        Limits(cpu_seconds=20.0, wall_seconds=60.0),
    )
    assert [score.label == "pass" for score in scores] == [check.passes for _, check in checks], scores


def test_each_style_asks_as_the_harness_does(data: Path) -> None:
    (problem,) = HumanEvalFix(language="python", data=data).load()
    code = "def twice(x: int) -> int:\n    return math.floor(3 * x)\n\n" + ROWS["python"]["test"]
    begins = "def twice(x: int) -> int:"
    expected = {
        "issue": f"<issue_start>username_0: Fix bugs in twice.\n\n```{code}```\nUpvotes: 100<issue_comment>"
        f"username_1: Sure, here is the fixed code.\n\n```{begins}",
        "commit": f"<commit_before>{code}<commit_msg>Fix bugs in twice.<commit_after>{begins}",
        "instruct": f"{code}\nFix bugs in twice.\n\n{begins}",
    }
    for style, prompt in expected.items():
        requests = HumanEvalFix(style=style, language="python", data=data).requests(problem)  # type: ignore[arg-type]
        assert len(requests) == 20 == PAPER.samples and requests[0].prompt == prompt
        assert all(mark in prompt for mark in requests[0].marks)
        assert ("```" in requests[0].stop) == (style == "issue") and "<file_sep>" in requests[0].stop
    (rust,) = HumanEvalFix(language="rust", data=data).load()
    assert "\n\n```fn main(){}\n\nuse rand::Rng;" in HumanEvalFix(data=data).requests(rust)[0].prompt
    assert HumanEvalFix(style="commit", language="go").name == "humanevalfix_commit_go"


def test_an_answer_ends_where_its_function_does() -> None:
    assert first_block("python", "\n    return 1\n\n    # more\nprint(2)\n") == "\n    return 1\n\n    # more"
    assert first_block("cpp", " if (a) { b; }\n}\nint main() {}") == " if (a) { b; }\n}"
    assert first_block("java", "\n return 1;\n    }\n}\nclass Other {}") == "\n return 1;\n    }\n}"
    assert first_block("java", "\n return 1;\n    }\n    public static void main(String[] a) {\n") == (
        "\n return 1;\n    }\n    }"
    )
    assert first_block("java", "\n if (a) { return 1; }") == "\n if (a) { return 1; }"
    assert first_block("js", "\n  return 1;\n// end") == "\n  return 1;\n// end"
    assert first_block("go", "") == "" == first_block("python", "")


def test_marks_are_tokens_and_nothing_else_is() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.add_special_tokens(["<eos>", "<issue_start>", "<issue_comment>"])
    tokenizer.add_tokens(["fix", "<", "issue_start", ">"])
    contexts = Contexts(tokenizer, window=99, eos_token_id=0)
    prompt = "<issue_start>fix<issue_comment>fix"
    marked, _ = contexts.context(Request(problem="", prompt=prompt, marks=("<issue_start>", "<issue_comment>")))
    start, comment = tokenizer.token_to_id("<issue_start>"), tokenizer.token_to_id("<issue_comment>")
    fix = tokenizer.token_to_id("fix")
    assert marked == [start, fix, comment, fix]
    plain, _ = contexts.context(Request(problem="", prompt=prompt, marks=("<commit_msg>",)))
    assert start not in plain and comment not in plain and fix in plain


@pytest.mark.parametrize("text", ["x" * 2_000_000, "\ud800\udfff", "\0", "{" * 100_000])
def test_no_completion_breaks_the_run(python_sandbox: Sandbox, data: Path, text: str) -> None:
    toolchain_of("js")
    benchmark = HumanEvalFix(language="js", data=data)
    assert labels(python_sandbox, benchmark, benchmark.load()[0], [text])[0] in ("compile", "runtime", "timeout")


def test_bad_files_are_explained(data: Path) -> None:
    (data / "humanevalpack" / "humanevalpack-go.jsonl").unlink()
    with pytest.raises(MissingDataError, match=r"humanevalpack-go\.jsonl.*octopack"):
        HumanEvalFix(data=data).load()
    written_rows(data, "humanevalpack/humanevalpack-cpp.jsonl", [{"task_id": "CPP/0"}])
    with pytest.raises(InputError, match="line 1: no field 'declaration'"):
        HumanEvalFix(language="cpp", data=data).load()


def test_one_evaluation(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python answers; what has no toolchain is skipped and named."""
    version = toolchains.Toolchain.version
    monkeypatch.setattr(
        toolchains.Toolchain, "version", lambda self: version(self) if self.language == "python" else None
    )
    answers = ("\n    return 2 * x\n```", "\n    return 1\n```")
    backend = ScriptedBackend(lambda request: answers[request.sample])
    config = recipe.Evaluation(benchmarks=("humanevalfix",), data=data, samples=2)
    found = evaluate(backend, config, heldout=[], folder=tmp_path / "out")["benchmarks"]["humanevalfix"]
    assert found["estimates"]["pass@1/python"]["value"] == 0.5 and found["labels"] == {"pass": 1, "wrong": 1}
    assert set(found["skipped"]) == {"cpp", "go", "java", "js", "rs_crates"}
    assert "starsmith.evaluation.rust_crates" in found["skipped"]["rs_crates"]
