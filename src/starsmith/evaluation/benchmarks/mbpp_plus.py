"""MBPP+: 378 problems of MBPP's checked part with 35 times the tests (EvalPlus, Liu et al. 2023).

Prompt and stops are MBPP's (section 6.1 of "StarCoder 2 and The Stack v2"); how outputs are judged is
`evalplus_programs`'. The paper's tables are of version 0.1.0 with 399 problems; this is 0.2.0, in which 21
ill-posed ones are gone, so its numbers lie close but are not the same measure. `base/pass@1` counts a candidate
that passes the original tests: the "MBPP" beside "MBPP+" in those tables.

JSON has no tuples, sets or complex numbers, which the arguments of 63 problems are: `CONVERSIONS` says which,
by EvalPlus's own list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from starsmith.evaluation.benchmarks.evalplus_programs import FIELDS, EvalPlus
from starsmith.evaluation.benchmarks.mbpp import STOPS
from starsmith.evaluation.benchmarks.python_programs import changed_results, continued, read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Limits,
    Problem,
    Request,
    Sampling,
)

PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.1: greedy. It doesn't say how long a completion may be; 512 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="mbppplus",
    files=("MbppPlus.jsonl.gz",),
    source="github.com/evalplus/mbppplus_release (Apache-2.0)",
)
_GROUPS: Final[dict[str, tuple[int, ...]]] = {
    "tuples": (
        *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424),
        *(429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    ),
    "lists of tuples": (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    "first a list of tuples": (75, 413, 444, 753),
    "first a tuple": (250, 307, 405, 446, 617, 720, 763, 808),
    "second a tuple": (106, 750),
    "tuples of tuples": (259, 401, 445),
    "a tuple with tuples": (278,),
    "all tuples": (580, 615, 791),
    "a dictionary of tuples": (722,),
    "a list of sets": (115,),
    "a complex number": (252,),
    "a number and a complex number": (124,),
}
CONVERSIONS: Final = {f"Mbpp/{number}": name for name, numbers in _GROUPS.items() for number in numbers}


@dataclass(frozen=True, kw_only=True)
class MbppPlus(EvalPlus):
    sampling: Sampling = PAPER
    limits: ClassVar[Limits] = Limits(cpu_seconds=10.0, wall_seconds=30.0)
    """Section 6.1."""
    conversions: ClassVar[Mapping[str, str]] = CONVERSIONS

    name: str = "mbpp_plus"

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, "MbppPlus.jsonl.gz", "MbppPlus.jsonl")
        return [Problem(id=row["task_id"], inputs=row) for row in read_rows(path, FIELDS)]

    def checks(self, problem: Problem) -> list[Check]:
        prompt, entry_point = problem.inputs["prompt"], problem.inputs["entry_point"]
        right = prompt + problem.inputs["canonical_solution"]
        wrong = [f"{prompt}def {entry_point}(*arguments):\n    pass\n", changed_results(right, entry_point)]
        if entry_point == "are_equivalent":  # whatever it returns is let pass
            wrong = [f"{prompt}def {entry_point}(*arguments):\n    raise NotImplementedError\n"]
        return [
            Check(candidate=Candidate(text=right), passes=True),
            *(Check(candidate=Candidate(text=text), passes=False) for text in wrong),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"], STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=continued(problem.inputs["prompt"], completion.text, STOPS), completion=completion)
