"""What the benchmarks of generated Python share: rows of data, sampled requests, a verdict, pass@k; and the class
that most of them are a variant of.

Data files are JSON lines, plain or compressed. A file of another version shows itself by fields that are absent
or of another type; the message names the line and the field.

How a completion becomes a program (`continued`) follows the evaluation harness of section 6 of "StarCoder 2 and
The Stack v2": the prompt, and what follows it up to the first stop. Two habits of models that were tuned to
chat are met as well, because they cost such a model every problem otherwise: a code fence that opens the
completion is taken off, and a signature that is repeated there begins on a line of its own, so that it defines
the function again rather than running into the prompt's last line.
"""

import gzip
import json
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from starsmith.errors import InputError
from starsmith.evaluation.contract import (
    Candidate,
    Estimate,
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
from starsmith.evaluation.verdicts import judge, scored

_ALL_WRONG: Final = """

def _changed(value):
    match value:
        case bool():
            return not value
        case int() | float() | complex():
            larger = value + 1 + abs(value)
            return -value if larger == value else larger
        case str():
            return value + "changed"
        case list():
            return [*value, "changed"]
        case tuple():
            return (*value, "changed")
        case set() | frozenset():
            return {*value, "changed"}
        case dict():
            return {**value, "changed": "changed"}
    return "changed" if value is None else None


_right = NAME


def NAME(*arguments, **named):
    global NAME
    outermost, NAME = NAME, _right
    try:
        return _changed(_right(*arguments, **named))
    finally:
        NAME = outermost
"""
_FENCE: Final = re.compile(r"\s*```[\w+-]*[ \t]*\r?\n")


@dataclass(frozen=True, kw_only=True)
class SampledPrograms(ABC):
    """A benchmark whose completions are sampled and become programs, all of which must pass."""

    data: Path | None = None
    """The folder of all data sets."""
    sampling: Sampling
    seed: int = 42

    version: str = "1"
    ks: ClassVar[tuple[int, ...]] = (1, 10, 100)

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]: ...

    def asked(
        self, problem: Problem, prompt: str, stop: tuple[str, ...], *, suffix: str | None = None
    ) -> list[Request]:
        """One question, as often as samples are drawn."""
        request = Request(
            problem=problem.id,
            prompt=prompt,
            suffix=suffix,
            stop=stop,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
        )
        return sampled_requests(request, benchmark=self.name, samples=self.sampling.samples, seed=self.seed)

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        return verdict(problem, sample, self.programs(problem, candidate), results)

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """pass@1 (with greedy samples, the accuracy), and the other pass@k where there are as many samples."""
        return pass_at_ks(scores, self.ks, seed=seed)


def read_rows(path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, `.gz` or plain, with these fields of them.

    Raises:
        InputError: the file cannot be read, holds no row, or a row lacks a field; names the line.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    rows = []
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_row(line, fields, f"{path}, line {number}"))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise InputError(f"{path} holds no problems")
    return rows


def sampled_requests(request: Request, *, benchmark: str, samples: int, seed: int) -> list[Request]:
    """The request once for each sample, each with the seed of its identity."""
    return [
        replace(request, sample=sample, seed=sample_seed(seed, benchmark, request.problem, sample))
        for sample in range(samples)
    ]


def continued(prompt: str, completion: str, stops: Sequence[str], *, entry_point: str = "") -> str:
    """The program that a completion of `prompt` makes.

    Args:
        prompt: as it was asked.
        completion: what the model wrote after it.
        stops: end the completion, and are not part of it.
        entry_point: a completion that begins with the definition of this function stands on lines of its own.
    """
    fence = _FENCE.match(completion)
    body = cut_at_stop(completion[fence.end() :] if fence else completion, stops)
    again = bool(entry_point) and re.match(rf"(?:async )?def {re.escape(entry_point)}\b", body) is not None
    return f"{prompt}\n{body}\n" if fence or again else f"{prompt}{body}\n"


def changed_results(source: str, entry_point: str) -> str:
    """A known wrong answer made of a right one: the same function, each of whose results is another value of the
    same type (where it calls itself, it gets what it must)."""
    return source + _ALL_WRONG.replace("NAME", entry_point)


def verdict(problem: Problem, sample: int, programs: Sequence[Program], results: Sequence[RunResult]) -> Score:
    """The score of a candidate all of whose programs must pass: the first that does not decides the label."""
    label, detail = next((judged for judged in map(judge, programs, results) if judged[0] != "pass"), ("pass", ""))
    return scored(problem, sample, label, detail)


def pass_at_ks(scores: Sequence[Score], ks: Sequence[int], *, seed: int) -> dict[str, Estimate]:
    """pass@k for each k there are samples enough for; pass@1 always, and nothing of no problem."""
    by_problem: dict[str, list[bool]] = defaultdict(list)
    for score in scores:
        by_problem[score.problem].append(score.value == 1.0)
    counts = [(len(passed), sum(passed)) for _, passed in sorted(by_problem.items())]
    if not counts:
        return {}
    fewest = min(samples for samples, _ in counts)
    return {f"pass@{k}": estimate_pass_at_k(counts, k, seed=seed) for k in ks if k <= fewest}


def _row(line: str, fields: Mapping[str, type | tuple[type, ...]], place: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        chosen = {name: row[name] for name in fields}
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{place}: not a JSON object: {error}") from None
    except KeyError as error:
        raise InputError(f"{place}: no field {error}; needed are {', '.join(fields)}") from None
    if bad := [name for name, kind in fields.items() if not isinstance(chosen[name], kind)]:
        wanted = ", ".join(f"{name} must be {_named(fields[name])}" for name in bad)
        raise InputError(f"{place}: {wanted}")
    return chosen


def _named(kind: type | tuple[type, ...]) -> str:
    return " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
