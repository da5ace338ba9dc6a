"""HumanEval infilling: HumanEval's functions with a part taken out, judged by their tests (Bavarian et al. 2022).

Four sets: one line or several lines taken out (Fried et al. 2022), and a random span of characters, ten for each
problem or one (`light`). Nothing but the tests decides, so an infilling may differ from what stood there. The
model is asked with `<fim_prefix>`, `<fim_suffix>` and `<fim_middle>`; its completion ends at the end of text or
at a special token, section 6.7 of "StarCoder 2 and The Stack v2", and at nothing else: a middle may hold
anything.

The paper reports no numbers on these sets; greedy pass@1 is what the FIM paper's tables hold at temperature 0.2
with many samples, so `samples` and `temperature` are the user's to raise.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, read_rows
from starsmith.evaluation.benchmarks.santacoder_fim import STOPS
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Problem,
    Program,
    Request,
    Sampling,
    cut_at_stop,
)
from starsmith.evaluation.verdicts import proved_program

Part = Literal["single_line", "multi_line", "random_span", "random_span_light"]

PAPER: Final = Sampling(max_new_tokens=512)
"""Greedy; the longest part that is taken out has fewer than 512 tokens."""
FILES: Final[dict[Part, str]] = {
    "single_line": "HumanEval-SingleLineInfilling.jsonl",
    "multi_line": "HumanEval-MultiLineInfilling.jsonl",
    "random_span": "HumanEval-RandomSpanInfilling.jsonl",
    "random_span_light": "HumanEval-RandomSpanInfillingLight.jsonl",
}
DATA: Final = DataSet(
    folder="humaneval-infilling",
    files=tuple(f"{name}.gz" for name in FILES.values()),
    source="github.com/openai/human-eval-infilling, data/ (MIT)",
)
_FIELDS: Final = {
    "task_id": str,
    "entry_point": str,
    "prompt": str,
    "suffix": str,
    "canonical_solution": str,
    "test": str,
}


@dataclass(frozen=True, kw_only=True)
class HumanEvalInfilling(SampledPrograms):
    part: Part
    """Which set."""
    sampling: Sampling = PAPER

    @property
    def name(self) -> str:
        return f"humaneval_infilling_{self.part}"

    def load(self) -> list[Problem]:
        path = DATA.file(self.data, f"{FILES[self.part]}.gz", FILES[self.part])
        return [Problem(id=row["task_id"], inputs=row) for row in read_rows(path, _FIELDS)]

    def texts(self, problem: Problem) -> list[str]:
        """HumanEval's docstring and solution, each by itself, as of HumanEval."""
        parts = (problem.inputs[name] for name in ("prompt", "canonical_solution", "suffix"))
        pieces = re.split(r"\"\"\"|'''", "".join(parts))
        return [*pieces[1:][-2:-1], pieces[-1]]

    def checks(self, problem: Problem) -> list[Check]:
        # Leaving the part out may leave a right function, and a bracket in place of a random span may make one:
        # what is known to be wrong is no token of Python.
        return [
            Check(candidate=Candidate(text=problem.inputs["canonical_solution"]), passes=True),
            Check(candidate=Candidate(text="\n?\n"), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"], STOPS, suffix=problem.inputs["suffix"])

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=cut_at_stop(completion.text, STOPS), completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        inputs = problem.inputs
        whole = inputs["prompt"] + candidate.text + inputs["suffix"]
        return [proved_program(f"{whole}\n{inputs['test']}\ncheck({inputs['entry_point']})")]
