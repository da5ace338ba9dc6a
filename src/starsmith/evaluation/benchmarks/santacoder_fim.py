"""SantaCoder's infilling: one line taken out of a solution in Python, Java or JavaScript (Ben Allal et al. 2023).

The solutions are of MultiPL-E's HumanEval, one problem for each line. Prompt, stops and metric are section 6.7's
of "StarCoder 2 and The Stack v2": `<fim_prefix>before<fim_suffix>after<fim_middle>`, and the match is exact after
white space is stripped at both ends. The paper shows the three languages apart; so do the estimates.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith.errors import InputError
from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, pass_at_ks
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
    cut_at_stop,
)
from starsmith.evaluation.verdicts import scored

STOPS: Final = ("<|endoftext|>", "<|filename|>", "<file_sep>")
PAPER: Final = Sampling(temperature=0.2, max_new_tokens=128)
"""Section 6.7; the number of samples isn't known and is one here. No line that is taken out has 128 tokens."""
DATA: Final = DataSet(
    folder="santacoder-fim",
    files=("santacoder-fim-task.parquet",),
    source="the Hub's data set bigcode/santacoder-fim-task (derived from MultiPL-E, whose licence applies)",
)
FIELDS: Final = ("name", "language", "prompt", "suffix", "canonical_solution")


@dataclass(frozen=True, kw_only=True)
class SantaCoderFim(SampledPrograms):
    sampling: Sampling = PAPER

    name: str = "santacoder_fim"

    def load(self) -> list[Problem]:
        rows = _read(DATA.file(self.data, *DATA.files))
        return [
            Problem(id=f"{row['language']}/{row['name']}", group=row["language"], inputs=row)
            for row in sorted(rows, key=lambda row: (row["language"], row["name"]))
        ]

    def checks(self, problem: Problem) -> list[Check]:
        line = problem.inputs["canonical_solution"]
        return [
            Check(candidate=Candidate(text=line), passes=True),
            Check(candidate=Candidate(text=line.rstrip()[:-1]), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(problem, problem.inputs["prompt"], STOPS, suffix=problem.inputs["suffix"])

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=cut_at_stop(completion.text, STOPS), completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return []

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        matches = candidate.text.strip() == problem.inputs["canonical_solution"].strip()
        return scored(problem, sample, "pass" if matches else "wrong")

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """`exact_match/LANGUAGE` of each language, and `exact_match` of all."""
        groups: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            groups["exact_match"].append(score)
            groups[f"exact_match/{score.group}"].append(score)
        return {name: pass_at_ks(members, (1,), seed=seed)["pass@1"] for name, members in sorted(groups.items())}


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if missing := [name for name in FIELDS if name not in table.column_names]:
        raise InputError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(FIELDS)}")
    if not table.num_rows:
        raise InputError(f"{path} holds no problems")
    rows: list[dict[str, Any]] = table.select(list(FIELDS)).to_pylist()
    if bad := [name for name in FIELDS if not isinstance(rows[0][name], str)]:
        raise InputError(f"{path}: {', '.join(bad)} must be text")
    return rows
