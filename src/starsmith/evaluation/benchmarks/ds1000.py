"""DS-1000: 1,000 data science problems from StackOverflow on seven Python libraries (Lai et al. 2022).

Section 6.3 of "StarCoder 2 and The Stack v2" reports pass@1 of its completion form: the prompt as the data gives
it (a question, a program up to the place of the answer), 40 samples at temperature 0.2. The answer ends at
`</code>`, at the comment that closes the problems on Matplotlib, or with the file. As its authors do, a Markdown
fence around the answer and a repeated `<code>` are taken off; what else stands there is the answer.

The tests are the authors' own code of each problem (`ds1000_driver` says how it is run), and compare with what
the pinned versions of the libraries return. They run in an environment of their own, `ds1000`, whose pins are
those of the authors' environment file; without it the problems are skipped. `pass@k` is over all problems,
`pass@k/Pandas` over one library's.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from starsmith.errors import InputError
from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, continued, pass_at_ks, read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Estimate,
    Problem,
    Program,
    Request,
    Sampling,
    Score,
    content_key,
)

ENVIRONMENT: Final = "ds1000"
"""Of `toolchains.ENVIRONMENTS`."""
STOPS: Final = ("</code>", "# SOLUTION END", "<file_sep>")
_PLACE_OF_ANSWER: Final = re.compile("SOLUTION START|BEGIN SOLUTION")
_ENDS: Final = (*STOPS, "```", "\nEND SOLUTION")
PAPER: Final = Sampling(samples=40, temperature=0.2, max_new_tokens=1024)
"""Section 6.3, with stops of the harness."""
DATA: Final = DataSet(
    folder="ds1000",
    files=("ds1000.jsonl.gz",),
    source="github.com/xlang-ai/DS-1000, data/ (CC-BY-SA-4.0, and not to be published unpacked)",
)


@dataclass(frozen=True, kw_only=True)
class DS1000(SampledPrograms):
    sampling: Sampling = PAPER

    name: str = "ds1000"

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, "ds1000.jsonl.gz", "ds1000.jsonl")
        fields = {"prompt": str, "reference_code": str, "code_context": str, "metadata": dict}
        rows = read_rows(path, fields)
        return [_problem(row, f"{path}, problem {place}") for place, row in enumerate(rows)]

    def checks(self, problem: Problem) -> list[Check]:
        return [
            Check(candidate=Candidate(text=problem.inputs["reference"]), passes=True),
            Check(candidate=Candidate(text=""), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"], STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        answer = continued("", completion.text, _ENDS)
        return Candidate(text=answer.replace("<code>", ""), completion=completion)

    def texts(self, problem: Problem) -> list[str]:
        """The question and the program that is given: what the paper's decontamination looks for."""
        return [_PLACE_OF_ANSWER.split(problem.inputs["prompt"], maxsplit=1)[0]]

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        told = {"tests": problem.inputs["tests"], "answer": candidate.text}
        proof = content_key(told)
        files = (("main.py", _driver()), ("problem.json", json.dumps(told | {"proof": proof})))
        return [Program(language=ENVIRONMENT, files=files, proof=proof)]

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        groups: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            groups[f"/{score.group}"].append(score)
        estimates = pass_at_ks(scores, self.ks, seed=seed)
        for suffix, members in sorted(groups.items()):
            own = pass_at_ks(members, self.ks, seed=seed)
            estimates |= {f"{name}{suffix}": estimate for name, estimate in own.items()}
        return estimates


def _problem(row: dict[str, Any], place: str) -> Problem:
    """
    Raises:
        InputError: the row is of another edition of the data.
    """
    tests, metadata = row["code_context"], row["metadata"]
    library, number = metadata.get("library"), metadata.get("problem_id")
    if not isinstance(library, str) or not isinstance(number, int):
        raise InputError(f"{place}: metadata must hold library and problem_id, as in the edition of 2024")
    if "def test_execution(" not in tests or "[insert]" not in tests:
        raise InputError(f"{place}: code_context must hold test_execution and [insert], as in the edition of 2024")
    inputs = {"prompt": row["prompt"], "reference": row["reference_code"], "tests": tests}
    return Problem(id=str(number), group=library, inputs=inputs)


@cache
def _driver() -> str:
    return (Path(__file__).parent / "ds1000_driver.py").read_text(encoding="utf-8")
