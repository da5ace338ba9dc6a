"""GSM8K with PAL: word problems of grade school, answered by programs (Cobbe et al. 2021, Gao et al. 2022).

As section 6.5 of "StarCoder 2 and The Stack v2" and its harness have it: eight solved examples, greedy, `solution`
up to two empty lines, then `print(solution())`; the last line of the output must be a number within 0.001 of
the answer. The examples are PAL's own (github.com/reasoning-machines/pal, Apache-2.0): a result on others is
another measure.

GSM-Hard (`part="gsm_hard"`) is the same problems with large numbers. The paper has no numbers on it; it is here
because it comes with programs, so the whole way to a verdict can be checked. GSM8K has only answers: there a
program that returns the answer stands for the reference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from starsmith.evaluation.benchmarks.gsm8k_pal_shots import SHOTS
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
from starsmith.evaluation.verdicts import proved_program

STOPS: Final = ("\n\n\n", "<file_sep>")
PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.5: greedy. The harness bounds prompt and answer together by 2,048 tokens, which leaves some 512."""
FILES: Final = {"gsm8k": "gsm.jsonl", "gsm_hard": "gsmhardv2.jsonl"}
DATA: Final = DataSet(
    folder="gsm8k-pal",
    files=("gsm.jsonl.gz", "gsmhardv2.jsonl.gz"),
    source="github.com/reasoning-machines/pal, datasets/ (Apache-2.0; GSM8K itself MIT)",
)
TOLERANCE: Final = 1e-3
_HEADER: Final = "# solution in Python:"


@dataclass(frozen=True, kw_only=True)
class Gsm8kPal(SampledPrograms):
    part: Literal["gsm8k", "gsm_hard"] = "gsm8k"
    sampling: Sampling = PAPER

    @property
    def name(self) -> str:
        return f"{self.part}_pal"

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, f"{FILES[self.part]}.gz", FILES[self.part])
        fields: dict[str, type | tuple[type, ...]] = {"input": str, "target": (int, float)}
        rows = read_rows(path, fields | ({"code": str} if self.part == "gsm_hard" else {}))
        return [Problem(id=f"{self.part}/{number}", inputs=row) for number, row in enumerate(rows)]

    def texts(self, problem: Problem) -> list[str]:
        """The question; that of `gsm_hard` differs from GSM8K's in its numbers alone."""
        return [problem.inputs["input"]]

    def checks(self, problem: Problem) -> list[Check]:
        target = problem.inputs["target"]
        right = problem.inputs.get("code", f"def solution():\n    return {target!r}")
        wrong = f"def solution():\n    return {target!r} + 1 + 1e-6 * abs({target!r})"
        return [
            Check(candidate=Candidate(text=f"{right}\n"), passes=True),
            Check(candidate=Candidate(text=f"{wrong}\n"), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, prompt(problem.inputs["input"]), STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        text = cut_at_stop(completion.text, STOPS).split(_HEADER)[-1].strip()
        return Candidate(text=text.split("Q:")[0] + "\n", completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return [proved_program(f"{candidate.text}\nprint(solution())")]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        programs = self.programs(problem, candidate)
        score = verdict(problem, sample, programs, results)
        if score.label != "pass":
            return score
        lines = results[0].stdout.rstrip().removesuffix(programs[0].proof).split()
        answer = lines[-1] if lines else ""
        if abs(_number(answer) - problem.inputs["target"]) < TOLERANCE:
            return score
        return replace(
            score, label="wrong", value=0.0, detail=f"{problem.inputs['target']} expected, got {answer[:80]}"
        )


def prompt(asked: str) -> str:
    shots = "".join(
        f'Q: {question}\n\n{_HEADER}\n\n\ndef solution():\n    """{question}"""\n{solution}\n\n\n\n\n\n'
        for question, solution in SHOTS
    )
    return f"{shots}Q: {asked}\n\n{_HEADER}\n\n\n"


def _number(text: str) -> float:
    """The number that a text is; not a number where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
