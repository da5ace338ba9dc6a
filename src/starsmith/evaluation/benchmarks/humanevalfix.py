"""HumanEvalFix: a function with one bug and its tests, in six languages; the model writes it again without the bug
(HumanEvalPack of Muennighoff et al. 2023, 164 problems a language).

Prompts are those of the evaluation harness of section 6.4 of "StarCoder 2 and The Stack v2", in the variant that
shows tests and no docstring:

    issue       an issue that reports the function, and the beginning of the answer to it (StarCoder2's)
    commit      before, message, after, between the commit tokens of StarCoderBase
    instruct    code, one sentence, the beginning of the answer: for models without either

An answer continues the function's declaration. As in the harness it ends at the first stop, where its braces close
the function, or (Python) at the first line that is not indented.

Programs are ours where the harness's would prove nothing or need a registry: `console.assert` throws, Go's
`testify` and JavaScript's `js-md5` are small stand-ins that come with the program, and Rust's tests are called
from `main`, with the crates that `rust_crates` builds. As in the harness, Python and C++ get the usual imports and
Go gets those that the code uses, since a declaration has none; NumPy and Boost are not among them. Tests of three
Go problems (32, 38, 50) call a function that only the prompt with the docstring holds: the harness fails every
answer to them, here it is part of the program. The declaration of C++ 38 runs on into the body, so that nothing
could follow it; it is cut at its brace. Tests of C++ 23 would call C's `strlen` if its header were imported.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from starsmith.evaluation.benchmarks import language_programs
from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Estimate,
    Problem,
    Program,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
)
from starsmith.evaluation.toolchains import RUST_WITH_CRATES

LANGUAGES: Final = ("cpp", "go", "java", "js", "python", "rust")
PAPER: Final = Sampling(samples=20, temperature=0.2, max_new_tokens=1024)
"""Section 6.4. It doesn't say how long a completion may be; 1,024 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="humanevalpack",
    files=tuple(f"humanevalpack-{language}.jsonl.gz" for language in LANGUAGES),
    source="github.com/bigcode-project/octopack, humanevalpack.jsonl in evaluation/create/humaneval-x/data (MIT)",
)
STOPS: Final = {
    "cpp": (),
    "go": ("\n//", "\nfunc main(", "struct", "\nfunc"),
    "java": (),
    "js": (),
    "python": ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\nassert"),
    "rust": (),
}
_ALWAYS: Final = ("<|endoftext|>", "<file_sep>")
_RUST_MAIN: Final = "fn main(){}\n"
"""Part of the prompt in the harness."""
_TOOLCHAINS: Final = {"rust": RUST_WITH_CRATES}
_BLOCKS: Final = {"java": 2}
"""Braces that a declaration leaves open, where not one."""

_PYTHON_IMPORTS: Final = "\n".join(
    (
        *(f"import {name}" for name in ("math", "re", "sys", "copy", "datetime", "itertools", "collections")),
        *(f"import {name}" for name in ("heapq", "statistics", "functools", "hashlib", "string")),
        "from typing import *",
        "from collections import *\n",
    )
)
_CPP_HEADERS: Final = (
    *("stdlib.h", "algorithm", "cmath", "math.h", "numeric", "stdio.h", "vector", "set", "map", "queue", "stack"),
    *("list", "deque", "string", "climits", "cstring", "iostream", "sstream", "fstream"),
)
_GO_PACKAGES: Final = (
    *("math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort", "math/rand", "crypto/md5"),
    *("unicode", "errors"),
)
_GO_ASSERT: Final = "github.com/stretchr/testify/assert"
_GO_ASSERT_SOURCE: Final = """\
// Package assert is the part of testify's that HumanEvalPack's tests use.
package assert

import (
	"bytes"
	"reflect"
	"testing"
)

type Assertions struct{ t *testing.T }

func New(t *testing.T) *Assertions { return &Assertions{t} }

func (a *Assertions) Equal(expected, actual interface{}, more ...interface{}) bool {
	a.t.Helper()
	if !equal(expected, actual) {
		a.t.Errorf("not equal: expected %#v, actual %#v", expected, actual)
		return false
	}
	return true
}

func equal(expected, actual interface{}) bool {
	first, isBytes := expected.([]byte)
	second, areBytes := actual.([]byte)
	if isBytes && areBytes && first != nil && second != nil {
		return bytes.Equal(first, second)
	}
	return reflect.DeepEqual(expected, actual)
}
"""
_JS_MD5: Final = (
    "module.exports = (text) => require('node:crypto').createHash('md5').update(text).digest('hex');\n"
)
_JS_ASSERT: Final = (
    "console.assert = (holds, ...said) => {\n  if (!holds)\n"
    "    throw new (require('node:assert').AssertionError)({ message: said.join(' ') || 'failed' });\n};\n"
)


def _rust_tests(tests: str, proof: str) -> str:
    """The tests' module, with a function that calls all of them, and `main`, which calls it."""
    names = re.findall(r"#\[test\](?:\s|//[^\n]*\n)*fn (\w+)", tests)
    plain = re.sub(r"#\[(?:cfg\(test\)|test)\]", "", tests)
    calls = "".join(f"{name}(); " for name in names)
    all_tests = f'pub fn all_tests() {{ {calls}println!("\\n{proof}"); }}'
    return language_programs.inside(all_tests, 1)(plain, proof) + "\nfn main() { tests::all_tests(); }"


_FORMS: Final = {
    "cpp": language_programs.LANGUAGES["cpp"],
    "go": language_programs.LANGUAGES["go"],
    "java": replace(language_programs.LANGUAGES["java"], file="Main.java"),
    "js": language_programs.LANGUAGES["js"],
    "python": None,
    "rust": replace(language_programs.LANGUAGES["rs"], prove=_rust_tests),
}


@dataclass(frozen=True, kw_only=True)
class HumanEvalFix(SampledPrograms):
    style: Literal["issue", "commit", "instruct"] = "issue"
    language: str = ""
    """One language alone; "" for all six."""
    sampling: Sampling = PAPER

    @property
    def name(self) -> str:
        style = "" if self.style == "issue" else f"_{self.style}"
        return f"humanevalfix{style}" + (f"_{self.language}" if self.language else "")

    def load(self) -> list[Problem]:
        return [
            problem
            for language in ((self.language,) if self.language else LANGUAGES)
            for problem in self._rows(language)
        ]

    def checks(self, problem: Problem) -> list[Check]:
        return [
            Check(candidate=Candidate(text=_declaration(problem) + problem.inputs[name]), passes=passes)
            for name, passes in (("canonical_solution", True), ("buggy_solution", False))
        ]

    def requests(self, problem: Problem) -> list[Request]:
        prompt, marks = _prompt(problem, self.style)
        return [
            replace(request, marks=marks)
            for request in self.asked(problem, prompt.strip(), self._stops(problem.group))
        ]

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        body = cut_at_stop(completion.text.rstrip(), self._stops(problem.group))
        return Candidate(
            text=_declaration(problem).rstrip() + first_block(problem.group, body), completion=completion
        )

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        language, tests = problem.group, problem.inputs["test"]
        files: tuple[tuple[str, str], ...] = ()
        text = candidate.text
        match language:
            case "python":
                text = _PYTHON_IMPORTS + text
            case "cpp":
                text = _cpp_imports(problem.inputs["entry_point"]) + text.split("int main")[0]
            case "go":
                text = _go_missing(problem.inputs["prompt"], text) + text
                text = _go_imports(problem.inputs["test_setup"], f"{text}\n{tests}") + text
                files = ((f"src/{_GO_ASSERT}/assert.go", _GO_ASSERT_SOURCE),)
            case "js":
                tests = _JS_ASSERT + tests
                files = (("node_modules/js-md5/index.js", _JS_MD5),)
            case "rust":
                text = text.replace(_RUST_MAIN, "", 1)
        toolchain = _TOOLCHAINS.get(language, language)
        return [language_programs.tested(toolchain, text, tests, form=_FORMS[language], files=files)]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        return language_programs.verdict(problem, sample, self.programs(problem, candidate)[0], results[0])

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        return language_programs.estimates(scores, self.ks, seed=seed)

    def _rows(self, language: str) -> list[Problem]:
        stem = f"humanevalpack-{language}.jsonl"
        names = ("task_id", "declaration", "canonical_solution", "buggy_solution", "test", "entry_point")
        more = ("prompt", "test_setup") if language == "go" else ()
        fields = dict.fromkeys((*names, *more), str)
        rows = read_rows(DATA.file(self.data, f"{stem}.gz", stem), fields)
        return [Problem(id=row["task_id"], group=language, inputs=row) for row in rows]

    def _stops(self, language: str) -> tuple[str, ...]:
        return (*STOPS[language], *(("```",) if self.style == "issue" else ()), *_ALWAYS)


def first_block(language: str, code: str) -> str:
    """What of an answer belongs to the function: up to the brace that closes it, or the last indented line.

    Where braces never close it, up to the last closing one; Java's class is closed where only that is missing.
    """
    if language == "python":
        lines = code.split("\n")
        ends = (number for number, line in enumerate(lines) if line.strip() and line[0] not in " \t")
        return "\n".join(lines[: next(ends, len(lines))])
    num_open = _BLOCKS.get(language, 1)
    for brace in re.finditer(r"[{}]", code):
        num_open += 1 if brace[0] == "{" else -1
        if num_open == 0:
            return code[: brace.end()]
    if language == "java":
        code, found, _ = code.partition("public static void main")
        code += "}" if found else ""
    if "}" in code:
        code = code[: code.rfind("}") + 1]
    return code + "\n}" if language == "java" and code.count("{") - 1 == code.count("}") else code


def _declaration(problem: Problem) -> str:
    declaration: str = problem.inputs["declaration"]
    if problem.id == "CPP/38":
        declaration = re.sub(r"(decode_cyclic\(string s\)\{).*", r"\1\n", declaration, flags=re.DOTALL)
    return _RUST_MAIN + declaration if problem.group == "rust" else declaration


def _prompt(problem: Problem, style: str) -> tuple[str, tuple[str, ...]]:
    """The prompt, and the special tokens in it."""
    asks = f"Fix bugs in {problem.inputs['entry_point']}."
    begins = _declaration(problem)
    code = f"{begins}{problem.inputs['buggy_solution']}\n{problem.inputs['test']}"
    match style:
        case "issue":
            report = f"<issue_start>username_0: {asks}\n\n```{code}```\nUpvotes: 100"
            answer = f"<issue_comment>username_1: Sure, here is the fixed code.\n\n```{begins}"
            return report + answer, ("<issue_start>", "<issue_comment>")
        case "commit":
            marks = ("<commit_before>", "<commit_msg>", "<commit_after>")
            return f"<commit_before>{code}<commit_msg>{asks}<commit_after>{begins}", marks
    return f"{code}\n{asks}\n\n{begins}", ()


def _cpp_imports(entry_point: str) -> str:
    """Without C's `strlen` for the problem of that name, whose tests would call it instead of the answer."""
    names = [name for name in _CPP_HEADERS if not (name == "cstring" and entry_point == "strlen")]
    return "".join(f"#include<{name}>\n" for name in names) + "using namespace std;\n"


def _go_missing(prompt: str, code: str) -> str:
    """The functions that stand before the one to be fixed where the docstring is shown, and nowhere else."""
    found = re.finditer(r"^func (\w+)\(.*?^\}$", prompt, re.MULTILINE | re.DOTALL)
    return "".join(f"{each[0]}\n\n" for each in found if f"func {each[1]}(" not in code)


def _go_imports(setup: str, code: str) -> str:
    """The package clause and one import of what the tests name and what the code uses."""
    plain = "\n".join(line for line in code.split("\n") if not line.lstrip().startswith("//"))
    used = {name for name in _GO_PACKAGES if re.search(rf"\b{name.rsplit('/', 1)[-1]}\.", plain)}
    named = set(re.findall(r'"([^"]+)"', setup)) | used | {"testing", _GO_ASSERT}
    return "package main\n\nimport (\n" + "".join(f'\t"{name}"\n' for name in sorted(named)) + ")\n\n"
