"""HumanEval+: HumanEval's 164 problems with 80 times the tests (EvalPlus, Liu et al. 2023).

Prompt and stops are HumanEval's (section 6.1 of "StarCoder 2 and The Stack v2"); how outputs are judged is
`evalplus_programs`'. `pass@1` counts a candidate that passes all tests, `base/pass@1` one that passes the
original ones, compared in EvalPlus's way, which is HumanEval's score within EvalPlus's table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starsmith.evaluation.benchmarks.evalplus_programs import (
    FIELDS,
    evalplus_aggregate,
    evalplus_programs,
    evalplus_score,
)
from starsmith.evaluation.benchmarks.humaneval import STOPS
from starsmith.evaluation.benchmarks.python_programs import continued, read_rows, sampled_requests
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
)

PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.1: greedy. It doesn't say how long a completion may be; 512 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="humanevalplus",
    files=("HumanEvalPlus.jsonl.gz",),
    source="github.com/evalplus/humanevalplus_release (Apache-2.0)",
)
_KS: Final = (1, 10, 100)


@dataclass(frozen=True, kw_only=True)
class HumanEvalPlus:
    data: Path | None = None
    """The folder with `humanevalplus/`."""
    samples: int = PAPER.samples
    temperature: float = PAPER.temperature
    top_p: float = PAPER.top_p
    max_new_tokens: int = PAPER.max_new_tokens
    seed: int = 42

    name: str = "humaneval_plus"
    version: str = "1"

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, "HumanEvalPlus.jsonl.gz", "HumanEvalPlus.jsonl")
        return [Problem(id=row["task_id"], inputs=row) for row in read_rows(path, FIELDS)]

    def checks(self, problem: Problem) -> list[Check]:
        prompt, solution = problem.inputs["prompt"], problem.inputs["canonical_solution"]
        return [
            Check(candidate=Candidate(text=prompt + solution), passes=True),
            Check(candidate=Candidate(text=prompt.rstrip() + "\n    pass\n"), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        request = Request(
            problem=problem.id,
            prompt=problem.inputs["prompt"].strip(),
            stop=STOPS,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
        )
        return sampled_requests(request, benchmark=self.name, samples=self.samples, seed=self.seed)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        prompt, entry_point = problem.inputs["prompt"].strip(), problem.inputs["entry_point"]
        text = continued(prompt, completion.text, STOPS, entry_point=entry_point)
        return Candidate(text=text, completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return evalplus_programs(problem, candidate)

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        return evalplus_score(problem, sample, self.programs(problem, candidate), results)

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        return evalplus_aggregate(scores, _KS, seed=seed)
