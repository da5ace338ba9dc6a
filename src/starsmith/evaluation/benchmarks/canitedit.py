"""CanItEdit: 105 edits of Python programs, each asked for in two ways, judged by tests (Cassano et al. 2023).

`descriptive` says what to do in detail, `lazy` as people do. Section 6.4 of "StarCoder 2 and The Stack v2" reports
pass@1 for both and ExcessCode: how much an edit that passes holds of what no test runs (`canitedit_driver` says
how that is counted), in percent, the mean over problems with a passing edit.

An edit whose tests pass, but not while they are watched (they measure speed, or read the program's source: four of
the 105), counts as passed and has no ExcessCode.

The prompt is the authors' for models that were not tuned to chat. Code may be fenced or not; of several blocks
the first counts.

22 of the edits are of programs that use libraries (NumPy, pandas, PyTorch, z3 and others). These run in the named
Python environment `canitedit`; where it is absent they are skipped and named. The others run in the sandbox's bare
Python, so an answer that brings a library into them fails. One edit is of a program that serves a model by vLLM,
which needs an accelerator to be installed at all; its tests replace what it imports of it, so empty classes stand
in for it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from starsmith.evaluation.benchmarks.python_programs import SampledPrograms, pass_at_ks, read_rows, verdict
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
    content_key,
    cut_at_stop,
)
from starsmith.evaluation.statistics import bootstrap_ratio
from starsmith.evaluation.verdicts import judge, proved_program

STOPS: Final = (
    *("## Code After:", "## Instruction:", "## Code Before:", "## Test Case:", "## Explanation:"),
    "<file_sep>",
)
PAPER: Final = Sampling(samples=20, temperature=0.2, max_new_tokens=2048)
"""Section 6.4; it says "several completions", and 20 is the number of CanItEdit's authors."""
DATA: Final = DataSet(
    folder="canitedit",
    files=("canitedit.jsonl.gz",),
    source="the Hub's data set nuprl/CanItEdit (BSD-3-Clause, and not for training)",
)
INSTRUCTIONS: Final = ("descriptive", "lazy")
ENVIRONMENT: Final = "canitedit"
LIBRARIES: Final = frozenset({"autograd", "flask", "numpy", "pandas", "scipy", "sklearn", "torch", "vllm", "z3"})
_IMPORTED: Final = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
_STAND_IN: Final = (
    "import sys, types; sys.modules['vllm'] = types.SimpleNamespace(LLM=type('LLM', (), {}), "
    "SamplingParams=type('SamplingParams', (), {'__init__': lambda self, **options: None}))\n"
)
_BLOCK: Final = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_EXCESS: Final = "ExcessCode "


@dataclass(frozen=True, kw_only=True)
class CanItEdit(SampledPrograms):
    sampling: Sampling = PAPER

    name: str = "canitedit"
    version: str = "2"

    def load(self) -> list[Problem]:
        fields = dict.fromkeys(("full_name", "before", "after", "tests"), str)
        fields |= {f"instruction_{kind}": str for kind in INSTRUCTIONS}
        rows = read_rows(DATA.file(self.data, "canitedit.jsonl.gz", "canitedit.jsonl"), fields)
        return [
            Problem(
                id=f"{row['full_name']}/{kind}",
                group=kind,
                inputs={name: row[name] for name in ("before", "after", "tests")}
                | {"instruction": row[f"instruction_{kind}"]},
            )
            for row in rows
            for kind in INSTRUCTIONS
        ]

    def checks(self, problem: Problem) -> list[Check]:
        return [
            Check(candidate=Candidate(text=problem.inputs["after"]), passes=True),
            Check(candidate=Candidate(text=problem.inputs["before"]), passes=False),
        ]

    def requests(self, problem: Problem) -> list[Request]:
        before, instruction = problem.inputs["before"], problem.inputs["instruction"]
        prompt = f"## Code Before:\n{before}\n## Instruction:\n{instruction}\n## Code After:\n"
        return self.asked(problem, prompt, STOPS)

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        text = cut_at_stop(completion.text, STOPS)
        block = _BLOCK.search(text)
        return Candidate(text=block[1] if block else text, completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        """One that tests the edit, and one that tests it again and measures its excess."""
        modules = _modules(problem)
        language = ENVIRONMENT if modules & LIBRARIES else "python"
        setup = _STAND_IN if "vllm" in modules else ""
        told = {name: problem.inputs[name] for name in ("before", "tests")}
        told |= {"after": candidate.text, "setup": setup}
        proof = content_key(told)
        files = (("main.py", _driver()), ("problem.json", json.dumps(told | {"proof": proof})))
        tests = proved_program(f"{setup}{candidate.text}\n\n{problem.inputs['tests']}")
        return [replace(tests, language=language), Program(language=language, files=files, proof=proof)]

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        tests, measure = self.programs(problem, candidate)
        score = verdict(problem, sample, [tests], results[:1])
        if score.label != "pass" or judge(measure, results[1])[0] != "pass":
            return score
        measured = results[1].stdout.rstrip().removesuffix(measure.proof).split()[-1]
        return replace(score, detail=f"{_EXCESS}{100 * float(measured):.4f}")

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """`pass@k` and `excess_code` (percent) of all, and of either kind of instruction."""
        groups: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            groups[""].append(score)
            groups[f"/{score.group}"].append(score)
        estimates: dict[str, Estimate] = {}
        for suffix, members in sorted(groups.items()):
            passes = pass_at_ks(members, self.ks, seed=seed)
            estimates |= {f"{name}{suffix}": estimate for name, estimate in passes.items()}
            estimates[f"excess_code{suffix}"] = _mean_excess(members, seed)
        return estimates


def _modules(problem: Problem) -> set[str]:
    """What the program, before and after, and its tests import."""
    return {module for name in ("before", "after", "tests") for module in _IMPORTED.findall(problem.inputs[name])}


def _mean_excess(scores: Sequence[Score], seed: int) -> Estimate:
    """The mean over problems of the mean of what was measured of each."""
    by_problem: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.detail.startswith(_EXCESS) and score.label == "pass":
            by_problem[score.problem].append(float(score.detail.removeprefix(_EXCESS)))
    means = [sum(values) / len(values) for _, values in sorted(by_problem.items())]
    return bootstrap_ratio(means, [1.0] * len(means), seed=seed)


@cache
def _driver() -> str:
    return (Path(__file__).parent / "canitedit_driver.py").read_text(encoding="utf-8")
