"""MultiPL-E: HumanEval and MBPP, translated by their authors into eighteen languages (Cassano et al. 2022).

Section 6.2 of "StarCoder 2 and The Stack v2" asks in the variant "reworded", which is that of the files, and stops
at each row's own words and at `<file_sep>`. As in its evaluation harness the prompt is stripped, and a program is
prompt, completion up to the first stop, a line break, and the row's tests (most of which begin by closing the
function that the stop left open).

A problem's group is its language. `pass@1/LANGUAGE` is each language's own; their mean names its members, since
averages over another choice of languages do not compare. Its interval is of a bootstrap over the original
problems: the translations of one are not independent of each other.

No translation has a reference solution. One problem, the addition of two numbers, was solved by us in each
language: it shows before any model is judged that a toolchain compiles, runs and tests. Nothing measures how long
a program may take, so all may take what MultiPL-E's own evaluators grant.

Four translations cannot be solved, since their own text does not compile (C++ 137, D 95, Go 87, JavaScript 51).
They count as not passed, as they do for everyone.

Where our toolchains differ from its evaluators a verdict may: Rust is compiled as edition 2021 (upstream: 2015),
Go's tests without vet, D with LDC, C# with Mono's own compiler.

Python belongs to the files but is no translation: it can be asked for by itself and is no member of the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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

LANGUAGES: Final = (
    *("cpp", "cs", "d", "go", "java", "jl", "js", "lua", "php", "pl", "r", "rb", "rkt", "rs", "scala", "sh"),
    *("swift", "ts"),
)
PYTHON: Final = "py"
PAPER: Final = Sampling(samples=50, temperature=0.2, max_new_tokens=512)
"""Section 6.2. It doesn't say how long a completion may be; 512 tokens are MultiPL-E's own limit."""
STOPS: Final = ("<file_sep>",)
"""Beside those of each row."""
_SOURCE: Final = "the Hub's data set nuprl/MultiPL-E (BSD-3-Clause, and not for training); its rows as JSON lines"
DATA, MBPP = (
    DataSet(
        folder=f"multipl-e-{part}",
        files=tuple(f"{part}-{language}.jsonl.gz" for language in (*LANGUAGES, PYTHON)),
        source=_SOURCE,
    )
    for part in ("humaneval", "mbpp")
)

SOLVED: Final = "HumanEval_53_add"
_SOLUTIONS: Final = {
    "cpp": "\n    return x + y;",
    "cs": "\n        return x + y;",
    "d": "\n{\n    return x + y;\n}",
    "go": "\n    return x + y\n}",
    "java": "\n        return x + y;",
    "jl": "\n    return x + y\nend",
    "js": "\n  return x + y;\n}",
    "lua": "\n    return x + y\nend",
    "php": "\n    return $x + $y;\n}",
    "pl": "\n    return $x + $y;\n}",
    PYTHON: "\n    return x + y",
    "r": "\n    return(x + y)\n}",
    "rb": "\n  x + y\nend",
    "rkt": "\n  (+ x y))",
    "rs": "\n    x + y",
    "scala": "\n        x + y",
    "sh": '\n    echo "$(($1 + $2))"',
    "swift": "\n    return x + y",
    "ts": "\n  return x + y;\n}",
}


@dataclass(frozen=True, kw_only=True)
class MultiplE(SampledPrograms):
    part: Literal["humaneval", "mbpp"]
    language: str = ""
    """One language alone; "" for the paper's eighteen."""
    sampling: Sampling = PAPER

    @property
    def name(self) -> str:
        return f"multipl_e_{self.part}" + (f"_{self.language}" if self.language else "")

    def load(self) -> list[Problem]:
        return [
            problem
            for language in ((self.language,) if self.language else LANGUAGES)
            for problem in self._rows(language)
        ]

    def checks(self, problem: Problem) -> list[Check]:
        if problem.inputs["name"] != SOLVED:
            return []
        solution = _SOLUTIONS[problem.group]
        wrong = solution.replace("+ x y", "- x y").replace(" + ", " - ")
        return [
            Check(candidate=self.extract(problem, Completion(text=text)), passes=text == solution)
            for text in (solution, wrong)
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"].strip(), _stops(problem))

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        body = cut_at_stop(completion.text, _stops(problem))
        return Candidate(text=problem.inputs["prompt"].strip() + body, completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        language = "python" if problem.group == PYTHON else problem.group
        return [language_programs.tested(language, candidate.text, problem.inputs["tests"])]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        return language_programs.verdict(problem, sample, self.programs(problem, candidate)[0], results[0])

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        return language_programs.estimates(scores, self.ks, seed=seed)

    def _rows(self, language: str) -> list[Problem]:
        stem = f"{self.part}-{language}.jsonl"
        rows = read_rows(
            (DATA if self.part == "humaneval" else MBPP).file(self.data, f"{stem}.gz", stem),
            {"name": str, "prompt": str, "tests": str, "stop_tokens": list},
        )
        return [Problem(id=f"{language}/{row['name']}", group=language, inputs=row) for row in rows]


def _stops(problem: Problem) -> tuple[str, ...]:
    return (*problem.inputs["stop_tokens"], *STOPS)
