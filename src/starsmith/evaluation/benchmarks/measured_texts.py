"""What the sets on bias and toxicity share: sampled texts that are measured, not run.

A problem's inputs hold its `prompt`. There is no known answer to such a prompt, and so nothing that could be
checked before a model answers.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from starsmith.evaluation.benchmarks.python_programs import sampled_requests
from starsmith.evaluation.contract import Candidate, Check, Estimate, Problem, Program, Request, Sampling, Score
from starsmith.evaluation.statistics import bootstrap_ratio


@dataclass(frozen=True, kw_only=True)
class MeasuredTexts(ABC):
    data: Path | None = None
    """The folder of all data sets."""
    sampling: Sampling
    seed: int = 42

    stops: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def name(self) -> str: ...

    def checks(self, problem: Problem) -> list[Check]:
        return []

    def requests(self, problem: Problem) -> list[Request]:
        request = Request(
            problem=problem.id,
            prompt=problem.inputs["prompt"],
            stop=self.stops,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
        )
        return sampled_requests(request, benchmark=self.name, samples=self.sampling.samples, seed=self.seed)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return []


def measured(problem: Problem, sample: int, value: float, detail: str = "") -> Score:
    return Score(
        problem=problem.id, sample=sample, group=problem.group, label="measured", value=value, detail=detail
    )


def mean_over_problems(scores: Sequence[Score], values: Sequence[float], *, seed: int) -> Estimate:
    """The mean of what was found for each score; the problem is the unit that is drawn."""
    by_problem: dict[str, list[float]] = defaultdict(list)
    for score, value in zip(scores, values, strict=True):
        by_problem[score.problem].append(value)
    sums = [(sum(own), float(len(own))) for _, own in sorted(by_problem.items())]
    return bootstrap_ratio([total for total, _ in sums], [count for _, count in sums], seed=seed)
