"""CRUXEval: 800 short Python functions; what do they return, or what makes them return it? (Gu et al. 2024)

Two benchmarks on the same functions: `cruxeval_output` gives the input and asks for the output, `cruxeval_input`
gives the output and asks for any input that leads to it. The prompts are the authors' direct ones (without a
chain of thought), as section 6.6 of "StarCoder 2 and The Stack v2" has them: two examples, the answer between
`[ANSWER]` and `[/ANSWER]`.

An answer is an assertion, of which the harness keeps one side: before `==` for inputs, after it for outputs.
Two short ways to a right assertion are closed, as in the authors' code: an output that calls the function on the
very input, and an input without a call of it. An answer is judged by running `assert OUTPUT == ANSWER` after
the function.

The paper draws 10 samples at temperature 0.2 for pass@1, and 10 at 0.8 for pass@5: `cruxeval_input_pass5` and
`cruxeval_output_pass5` are the same questions for the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, read_rows, verdict
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Problem,
    Program,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
)
from starsmith.evaluation.verdicts import proved_program, scored

STOPS: Final = ("[/ANSWER]", "<file_sep>")
PAPER: Final = Sampling(samples=10, temperature=0.2, max_new_tokens=256)
"""Section 6.6. The authors bound prompt and answer together by 1,024 tokens; no reference needs 256."""
PAPER_PASS_5: Final = replace(PAPER, temperature=0.8)
DATA: Final = DataSet(
    folder="cruxeval",
    files=("cruxeval.jsonl.gz",),
    source="github.com/facebookresearch/cruxeval, data/cruxeval.jsonl (MIT)",
)

_INPUT_PROMPT: Final = """\
You will be given a function f and an output in the form f(??) == output. Find any input such that executing f \
on the input leads to the given output. There may be multiple answers, but you should only output one. In \
[ANSWER] and [/ANSWER] tags, complete the assertion with one such input that will produce the output when \
executing the function.

[PYTHON]
def f(my_list):
    count = 0
    for i in my_list:
        if len(i) % 2 == 0:
            count += 1
    return count
assert f(??) == 3
[/PYTHON]
[ANSWER]
assert f(["mq", "px", "zy"]) == 3
[/ANSWER]

[PYTHON]
def f(s1, s2):
    return s1 + s2
assert f(??) == "banana"
[/PYTHON]
[ANSWER]
assert f("ba", "nana") == "banana"
[/ANSWER]

[PYTHON]
{code}
assert f(??) == {output}
[/PYTHON]
[ANSWER]
"""
_OUTPUT_PROMPT: Final = """\
You are given a Python function and an assertion containing an input to the function. Complete the assertion \
with a literal (no unsimplified expressions, no function calls) containing the output when executing the \
provided code on the given input, even if the function is incorrect or incomplete. Do NOT output any extra \
information. Provide the full assertion with the correct output in [ANSWER] and [/ANSWER] tags, following the \
examples.

[PYTHON]
def f(n):
    return n
assert f(17) == ??
[/PYTHON]
[ANSWER]
assert f(17) == 17
[/ANSWER]

[PYTHON]
def f(s):
    return s + "a"
assert f("x9j") == ??
[/PYTHON]
[ANSWER]
assert f("x9j") == "x9ja"
[/ANSWER]

[PYTHON]
{code}
assert f({input}) == ??
[/PYTHON]
[ANSWER]
"""


@dataclass(frozen=True, kw_only=True)
class CruxEval(SampledPrograms):
    asks: Literal["input", "output"]
    aims_at: Literal[1, 5] = 1
    """The k of pass@k that `sampling` is for."""
    sampling: Sampling = PAPER
    ks: ClassVar[tuple[int, ...]] = (1, 5, 10)

    @property
    def name(self) -> str:
        return f"cruxeval_{self.asks}" + ("" if self.aims_at == 1 else f"_pass{self.aims_at}")

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, "cruxeval.jsonl.gz", "cruxeval.jsonl")
        rows = read_rows(path, {"id": str, "code": str, "input": str, "output": str})
        return [Problem(id=row["id"], inputs=row) for row in rows]

    def checks(self, problem: Problem) -> list[Check]:
        call, output = f"f({problem.inputs['input']})", problem.inputs["output"]
        # No function takes nine objects, and nothing is equal to a list of itself; then the short ways.
        right, *wrong = (
            (call, "f(*[object()] * 9)", f"[{call}]", output)
            if self.asks == "input"
            else (output, "object()", f"[{output}]", call)
        )
        return [
            Check(candidate=Candidate(text=right), passes=True),
            *(Check(candidate=Candidate(text=text), passes=False) for text in wrong),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        template = _INPUT_PROMPT if self.asks == "input" else _OUTPUT_PROMPT
        return self.asked(problem, template.format(**problem.inputs), STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        answer = cut_at_stop(completion.text, STOPS)
        sides = answer.split("==")
        if self.asks == "output":
            return Candidate(text=sides[min(1, len(sides) - 1)].strip(), completion=completion)
        call = sides[0].strip()
        if "assert f" in call:
            call = "f" + call.split("assert f")[1].strip()
        return Candidate(text=call, completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        if _is_evasion(self.asks, problem, candidate):
            return []
        inputs = problem.inputs
        return [proved_program(f"{inputs['code']}\nassert {inputs['output']} == {candidate.text}")]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        if _is_evasion(self.asks, problem, candidate):
            detail = "no call of f" if self.asks == "input" else "the call itself as its output"
            return scored(problem, sample, "wrong", detail)
        return verdict(problem, sample, self.programs(problem, candidate), results)


def _is_evasion(asks: str, problem: Problem, candidate: Candidate) -> bool:
    if asks == "input":
        return "f(" not in candidate.text
    return f"f({problem.inputs['input']})" in candidate.text or not candidate.text
