"""Programs that judge a candidate by EvalPlus's many inputs (Liu et al. 2023).

A problem of HumanEval+ or MBPP+ holds no tests but inputs: the original ones (`base_input`) and some hundred
more (`plus_input`). What is expected is what the reference returns, found by running it in the sandbox in the
same program as the candidate, so that a verdict needs nothing but its files. The inputs, up to 200 kB, lie in a
second file; the program itself is `evalplus_driver`, which states how outputs are compared.

Original and further inputs are two programs: passing the first is the plain benchmark, passing both the one
with a plus.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, pass_at_ks, verdict
from starsmith.evaluation.contract import (
    Candidate,
    Estimate,
    Limits,
    Problem,
    Program,
    RunResult,
    Score,
    content_key,
)

FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "task_id": str,
    "prompt": str,
    "entry_point": str,
    "canonical_solution": str,
    "base_input": list,
    "plus_input": (list, dict),  # Mbpp/793 has an empty object for an empty list
    "atol": (int, float),
}
_BASE_FAILED: Final = "original tests: "
_PLUS_FAILED: Final = "further tests: "


@dataclass(frozen=True, kw_only=True)
class EvalPlus(SampledPrograms):
    """HumanEval+ or MBPP+."""

    limits: ClassVar[Limits] = Limits()
    conversions: ClassVar[Mapping[str, str]] = {}
    """Problem to how its arguments are made of their JSON (`evalplus_driver.arguments`)."""

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        """One program for the original inputs, and one for the further ones where there are any."""
        parts = [problem.inputs["base_input"], list(problem.inputs["plus_input"])]
        conversion = self.conversions.get(problem.id, "")
        made = [_program(problem, candidate, inputs, conversion) for inputs in parts if inputs]
        return [dataclasses.replace(program, limits=self.limits) for program in made]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        """Passes when both programs do; the detail says which did not."""
        programs = self.programs(problem, candidate)
        score = verdict(problem, sample, programs, results)
        if score.label == "pass":
            return score
        base_passed = verdict(problem, sample, programs[:1], results[:1]).label == "pass"
        return dataclasses.replace(score, detail=(_PLUS_FAILED if base_passed else _BASE_FAILED) + score.detail)

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """pass@k of all tests, and `base/pass@k` of the original tests alone."""
        base = [
            dataclasses.replace(score, value=float(score.label == "pass" or score.detail.startswith(_PLUS_FAILED)))
            for score in scores
        ]
        estimates = pass_at_ks(scores, self.ks, seed=seed)
        return estimates | {f"base/{name}": value for name, value in pass_at_ks(base, self.ks, seed=seed).items()}


def _program(problem: Problem, candidate: Candidate, inputs: list[Any], conversion: str) -> Program:
    told = {
        "entry_point": problem.inputs["entry_point"],
        "reference": problem.inputs["prompt"] + problem.inputs["canonical_solution"],
        "candidate": candidate.text,
        "inputs": inputs,
        "conversion": conversion,
        "atol": problem.inputs["atol"],
    }
    proof = content_key(told)
    return Program(
        files=(("main.py", _driver()), ("problem.json", json.dumps(told | {"proof": proof}))), proof=proof
    )


@cache
def _driver() -> str:
    return (Path(__file__).parent / "evalplus_driver.py").read_text(encoding="utf-8")
