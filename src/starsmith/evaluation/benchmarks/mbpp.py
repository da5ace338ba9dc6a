"""MBPP: 500 short Python functions from one sentence and one test (Austin et al. 2021), its test split.

The prompt is the harness's of section 6.1 of "StarCoder 2 and The Stack v2", which it has from InCoder: a
docstring of the sentence and the first of three tests. `<file_sep>` joins the harness's stops. A candidate must
pass all three tests.

Two problems (367 and 927 of the whole set; 367 lies in the split) come with code that their tests need. The
harness leaves it out and so fails every answer to them; here it runs before the tests, after the candidate.
"""

import re
from dataclasses import dataclass
from typing import Final

from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, changed_results, continued, read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Problem,
    Program,
    Request,
    Sampling,
)
from starsmith.evaluation.verdicts import proved_program

STOPS: Final = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```", "<file_sep>")
PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.1: greedy. It doesn't say how long a completion may be; 512 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="mbpp",
    files=("mbpp.jsonl.gz",),
    source="github.com/google-research/google-research, mbpp/mbpp.jsonl (CC-BY-4.0)",
)
FIRST_TEST_ID: Final = 11
LAST_TEST_ID: Final = 510
_DEFINED: Final = re.compile(r"^def (\w+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Mbpp(SampledPrograms):
    sampling: Sampling = PAPER

    name: str = "mbpp"

    def load(self) -> list[Problem]:
        rows = read_rows(
            DATA.file(self.data, "mbpp.jsonl.gz", "mbpp.jsonl"),
            {"task_id": int, "text": str, "code": str, "test_setup_code": str, "test_list": list},
        )
        return [
            Problem(id=f"Mbpp/{row['task_id']}", inputs=row)
            for row in rows
            if FIRST_TEST_ID <= row["task_id"] <= LAST_TEST_ID and row["test_list"]
        ]

    def checks(self, problem: Problem) -> list[Check]:
        right = prompt(problem) + problem.inputs["code"]
        tested = [name for name in _DEFINED.findall(right) if name in problem.inputs["test_list"][0]]
        wrong = [prompt(problem), *(changed_results(right, name) for name in tested[-1:])]
        return [
            Check(candidate=Candidate(text=right), passes=True),
            *(Check(candidate=Candidate(text=text), passes=False) for text in wrong),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, prompt(problem), STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=continued(prompt(problem), completion.text, STOPS), completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        tests = "\n".join((problem.inputs["test_setup_code"], *problem.inputs["test_list"]))
        return [proved_program(f"{candidate.text}\n\n{tests}")]


def prompt(problem: Problem) -> str:
    return f'"""\n{problem.inputs["text"]}\n{problem.inputs["test_list"][0]}\n"""\n'
