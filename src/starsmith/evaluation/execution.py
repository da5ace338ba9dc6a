"""Running a benchmark's programs so that a verdict says something about the model and not about the machine.

Before any model is judged, candidates of known worth are run: a problem whose reference fails, or whose empty
answer passes, is excluded and named. What the reference took on this machine sets the problem's limits:

    limit = the smallest of floor, 2 floor, 4 floor, ... that is at least 10 x the reference's time

(CPU time decides, with a floor of 3 s, the harness's timeout in section 6.1; wall time has a floor of 10 s and
only ends programs that sleep. Doubling keeps limits, and so the keys of verdicts, equal from run to run.)

Then, of a model's programs:

* `sandbox_error` is repeated once, alone. If it stays, the problem is excluded and named: the machine failed,
  not the model.
* `timeout` by wall time is repeated once, alone, on a machine that does nothing else; the second result counts.
* `timeout` counts as not passed, since an endless loop solves nothing, but it is its own class and never
  called wrong. Where the reference itself took more than half of what it may take, a timeout would say nothing:
  the problem is excluded.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from starsmith.errors import MachineError
from starsmith.evaluation.contract import (
    Benchmark,
    Limits,
    Problem,
    Program,
    Progress,
    RunResult,
    content_key,
    no_progress,
)
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox.pool import Sandbox
from starsmith.evaluation.toolchains import find

REFERENCE_LIMITS: Final = Limits(cpu_seconds=30.0, wall_seconds=90.0)
REFERENCE_FACTOR: Final = 10.0
_NEAR_LIMIT: Final = 0.5
_KEPT_CHARS: Final = 4_000
"""Of each stream in a verdict: its beginning and its end."""


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """What one candidate of known worth showed."""

    problem: str
    group: str
    passes: bool
    """Whether it must."""
    as_known: bool
    """Whether it did as it must."""
    reason: str = ""
    """Why not."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What the candidates of known worth showed."""

    num_references: int
    num_references_passed: int
    num_refutations: int
    num_refutations_failed: int
    """Empty answers that failed, as they must."""
    excluded: Mapping[str, str]
    """Problem to reason."""
    limits: Mapping[str, Limits]
    """Problem to the limits for a model's programs."""
    outcomes: tuple[CheckOutcome, ...] = ()
    """Of every check, in the order of the problems."""


class Executor:
    """Runs programs on a sandbox, each once: verdicts are kept under the hash of program, limits, level and the
    version of the language's toolchain."""

    def __init__(self, sandbox: Sandbox, journal: Journal) -> None:
        self._sandbox = sandbox
        self._journal = journal
        self._failed: dict[str, RunResult] = {}

    def run(self, programs: Sequence[Program], *, progress: Progress = no_progress) -> list[RunResult]:
        """Results in order; what the machine spoiled is repeated once, alone."""
        versions = {language: find(language).version() for language in {each.language for each in programs}}
        keys = [content_key(program, versions[program.language], self._sandbox.level) for program in programs]
        open_programs = {
            key: program for key, program in zip(keys, programs, strict=True) if key not in self._journal
        }
        for chunk in _chunks(list(open_programs), 200):
            results = self._sandbox.run_programs(
                [open_programs[key] for key in chunk],
                progress=lambda done, _: progress(done, len(programs)),
            )
            final = dict(zip(chunk, results, strict=True))
            spoiled = [key for key, result in final.items() if _is_spoiled(result)]
            again = self._sandbox.run_programs([open_programs[key] for key in spoiled], workers=1)
            final |= dict(zip(spoiled, again, strict=True))
            # A failure of the machine is no verdict: the next run tries again.
            kept = {key: _shortened(result) for key, result in final.items() if result.ended != "sandbox_error"}
            self._journal.add({key: asdict(result) for key, result in kept.items()})
            failed = {key: result for key, result in final.items() if result.ended == "sandbox_error"}
            self._failed |= failed
        progress(len(programs), len(programs))
        return [self._result(key) for key in keys]

    def _result(self, key: str) -> RunResult:
        if key in self._journal:
            return RunResult(**self._journal[key])
        return self._failed[key]


def preflight(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    executor: Executor | None,
    *,
    progress: Progress = no_progress,
) -> Preflight:
    """Runs every check of every problem and sets limits from the references' times.

    Checks that run nothing need no executor.

    Raises:
        MachineError: the sandbox fails on most programs, so nothing could be said about any model.
    """
    planned = [
        (
            problem,
            check,
            [limited(program, REFERENCE_LIMITS) for program in benchmark.programs(problem, check.candidate)],
        )
        for problem in problems
        for check in benchmark.checks(problem)
    ]
    flat = [program for _, _, programs in planned for program in programs]
    if flat and executor is None:
        raise MachineError(f"{benchmark.name} runs programs and there is no sandbox")
    ended = executor.run(flat, progress=progress) if executor is not None else []
    failed = [result.detail for result in ended if result.ended == "sandbox_error"]
    if 2 * len(failed) > len(ended):
        raise MachineError(
            f"{benchmark.name}: the sandbox failed on {len(failed)} of {len(ended)} known programs; the first "
            f"says: {failed[0]}"
        )
    results = iter(ended)
    excluded: dict[str, str] = {}
    limits: dict[str, Limits] = {}
    counts = {True: [0, 0], False: [0, 0]}
    outcomes: list[CheckOutcome] = []
    for problem, check, programs in planned:
        own = [next(results) for _ in programs]
        score = benchmark.score(problem, 0, check.candidate, own)
        as_known = (score.label == "pass") == check.passes
        counts[check.passes][0] += 1
        counts[check.passes][1] += as_known
        reason = ""
        if not as_known:
            what = "the reference does not pass" if check.passes else "a wrong answer passes"
            reason = f"{what}: {score.label} {score.detail}".rstrip()
            excluded.setdefault(problem.id, reason)
        elif check.passes:
            if near := _too_near(own):
                excluded.setdefault(problem.id, near)
            limits[problem.id] = calibrated(own)
        outcomes.append(
            CheckOutcome(
                problem=problem.id,
                group=problem.group,
                passes=check.passes,
                as_known=as_known,
                reason=reason,
            )
        )
    return Preflight(
        num_references=counts[True][0],
        num_references_passed=counts[True][1],
        num_refutations=counts[False][0],
        num_refutations_failed=counts[False][1],
        excluded=excluded,
        limits=limits,
        outcomes=tuple(outcomes),
    )


def calibrated(references: Sequence[RunResult], floor: Limits = Limits()) -> Limits:  # noqa: B008 - frozen
    """The limits for a model's programs from what the references took."""
    return dataclasses.replace(
        floor,
        cpu_seconds=_doubled(floor.cpu_seconds, max((run.cpu_seconds for run in references), default=0.0)),
        wall_seconds=_doubled(floor.wall_seconds, max((run.wall_seconds for run in references), default=0.0)),
    )


def limited(program: Program, limits: Limits) -> Program:
    return dataclasses.replace(program, limits=limits)


def _doubled(floor: float, reference: float) -> float:
    limit = floor
    while limit < REFERENCE_FACTOR * reference:
        limit *= 2
    return limit


def _too_near(references: Sequence[RunResult]) -> str:
    for run in references:
        for name, took, limit in (
            ("CPU", run.cpu_seconds, REFERENCE_LIMITS.cpu_seconds),
            ("wall", run.wall_seconds, REFERENCE_LIMITS.wall_seconds),
        ):
            if took > _NEAR_LIMIT * limit:
                return f"the reference took more than half of its {limit:g} s of {name} time"
    return ""


def _is_spoiled(result: RunResult) -> bool:
    return result.ended == "sandbox_error" or (result.ended == "timeout" and "wall" in result.detail)


def _shortened(result: RunResult) -> RunResult:
    return dataclasses.replace(result, stdout=_ends(result.stdout), stderr=_ends(result.stderr))


def _ends(text: str) -> str:
    if len(text) <= _KEPT_CHARS:
        return text
    return f"{text[: _KEPT_CHARS // 2]}\n...\n{text[-_KEPT_CHARS // 2 :]}"


def _chunks(items: list[str], size: int) -> list[list[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
