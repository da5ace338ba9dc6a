"""HumanEval+: HumanEval's 164 problems with 80 times the tests (EvalPlus, Liu et al. 2023).

Prompt and stops are HumanEval's (section 6.1 of "StarCoder 2 and The Stack v2"); how outputs are judged is
`evalplus_programs`'. `pass@1` counts a candidate that passes all tests, `base/pass@1` one that passes the
original ones, compared in EvalPlus's way, which is HumanEval's score within EvalPlus's table.
"""

from dataclasses import dataclass
from typing import Final

from starsmith.evaluation.benchmarks.evalplus_programs import FIELDS, EvalPlus
from starsmith.evaluation.benchmarks.humaneval import STOPS, checks, whole_function
from starsmith.evaluation.benchmarks.python_programs import read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Problem,
    Request,
    Sampling,
)

PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.1: greedy. It doesn't say how long a completion may be; 512 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="humanevalplus",
    files=("HumanEvalPlus.jsonl.gz",),
    source="github.com/evalplus/humanevalplus_release (Apache-2.0)",
)


@dataclass(frozen=True, kw_only=True)
class HumanEvalPlus(EvalPlus):
    sampling: Sampling = PAPER

    name: str = "humaneval_plus"

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, "HumanEvalPlus.jsonl.gz", "HumanEvalPlus.jsonl")
        return [Problem(id=row["task_id"], inputs=row) for row in read_rows(path, FIELDS)]

    def checks(self, problem: Problem) -> list[Check]:
        return checks(problem)

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"].strip(), STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=whole_function(problem, completion), completion=completion)
