"""Running a benchmark's programs so that a verdict says something about the model and not about the machine.

Before any model is judged, candidates of known worth are run: a problem whose reference fails, or whose wrong
answer passes, is excluded and named. What the reference took on this machine sets the problem's limits:

    limit = the smallest of floor, 2 floor, 4 floor, ... that is at least 10 x the reference's time

(CPU time decides, and wall time only ends programs that sleep. The floor is what the benchmark's programs ask for:
3 s of CPU and 10 s of wall time, the harness's timeout for HumanEval in section 6.1, where they ask for nothing.
Doubling keeps limits, and so the keys of verdicts, equal from run to run.)

A reference that memory or time ends is run again, alone, with twice of what it lacked, up to `CEILING`: a few
problems need gigabytes or a minute (255 and 599 of MBPP+), and a candidate must not fail by a limit that its
reference breaks. The memory it was found to need is the candidates' too, and none gets more time than `CEILING`.
Wrong answers run under the limits that candidates have.

Then, of a model's programs:

* `sandbox_error` is repeated once, alone. If it stays, the problem is excluded and named: the machine failed,
  not the model.
* `timeout` by wall time is repeated once, alone, on a machine that does nothing else; the second result counts.
* `timeout` counts as not passed, since an endless loop solves nothing, but it is its own class and never
  called wrong. Where the reference itself took more than half of `CEILING`, a timeout would say nothing: the
  problem is excluded.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

from starsmith.errors import MachineError
from starsmith.evaluation.contract import (
    Benchmark,
    Check,
    Limits,
    Problem,
    Program,
    Progress,
    RunResult,
    Score,
    content_key,
    no_progress,
)
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox.pool import Sandbox
from starsmith.evaluation.toolchains import find

REFERENCE_LIMITS: Final = Limits(cpu_seconds=30.0, wall_seconds=90.0)
"""What a reference may use at first."""
CEILING: Final = Limits(cpu_seconds=240.0, wall_seconds=720.0, memory_bytes=4 * 1024**3)
"""What it may use at last."""
REFERENCE_FACTOR: Final = 10.0
_NEAR_LIMIT: Final = 0.5
_Number = TypeVar("_Number", int, float)
_CHUNK_PROGRAMS: Final = 200
"""Run, and kept in the journal, together."""
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
    """Wrong answers that failed, as they must."""
    excluded: Mapping[str, str]
    """Problem to reason."""
    limits: Mapping[str, Limits]
    """Problem to the limits for a model's programs."""
    floor: Limits
    """What every program may use, however little its reference took."""
    outcomes: tuple[CheckOutcome, ...] = ()
    """Of every check, in the order of the problems."""


class Executor:
    """Runs programs on a sandbox, each once: verdicts are kept under the hash of program, limits, level and the
    version of the language's toolchain."""

    def __init__(self, sandbox: Sandbox, journal: Journal) -> None:
        self._sandbox = sandbox
        self._journal = journal
        self._failed: dict[str, RunResult] = {}

    def run(
        self, programs: Sequence[Program], *, progress: Progress = no_progress, workers: int | None = None
    ) -> list[RunResult]:
        """Results in order, on all workers or fewer; what the machine spoiled is repeated once, alone."""
        versions = {language: find(language).version() for language in {each.language for each in programs}}
        keys = [content_key(program, versions[program.language], self._sandbox.identity) for program in programs]
        open_programs = {
            key: program for key, program in zip(keys, programs, strict=True) if key not in self._journal
        }
        num_done = len(programs) - len(open_programs)
        for chunk in _chunks(list(open_programs), _CHUNK_PROGRAMS):

            def told(done: int, _: int, before: int = num_done) -> None:
                progress(before + done, len(programs))

            results = self._sandbox.run_programs(
                [open_programs[key] for key in chunk], progress=told, workers=workers
            )
            num_done += len(chunk)
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


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A candidate of known worth."""

    problem: Problem
    check: Check
    programs: list[Program]
    limits: Limits | None
    """None leaves each program its own."""


@dataclass(frozen=True, kw_only=True)
class _Tried:
    known: _Known
    results: Sequence[RunResult]
    score: Score

    @property
    def as_known(self) -> bool:
        return (self.score.label == "pass") == self.known.check.passes


def preflight(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    executor: Executor | None,
    *,
    progress: Progress = no_progress,
) -> Preflight:
    """Runs every check of every problem and sets limits from what the references took.

    Checks that run nothing need no executor.

    Raises:
        MachineError: the sandbox fails on most programs, so nothing could be said about any model.
    """
    checks = [
        _Known(
            problem=problem,
            check=check,
            programs=(programs := benchmark.programs(problem, check.candidate)),
            limits=_most([REFERENCE_LIMITS, *(program.limits for program in programs)]),
        )
        for problem in problems
        for check in benchmark.checks(problem)
    ]
    total, num_done = sum(len(each.programs) for each in checks), 0

    def told(done: int, _: int) -> None:
        progress(num_done + done, total)

    tried = _tried(benchmark, [each for each in checks if each.check.passes], executor, progress=told)
    while again := {place: more for place, each in enumerate(tried) if (more := _with_more(each)) is not None}:
        for place, each in zip(again, _tried(benchmark, list(again.values()), executor, workers=1), strict=True):
            tried[place] = each
    limits = _limits([each for each in tried if each.as_known])
    num_done = sum(len(each.known.programs) for each in tried)
    wrong = [
        dataclasses.replace(each, limits=limits.get(each.problem.id)) for each in checks if not each.check.passes
    ]
    tried += _tried(benchmark, wrong, executor, progress=told)
    places = {problem.id: place for place, problem in enumerate(problems)}
    return _summed(sorted(tried, key=lambda each: places[each.known.problem.id]), limits)


def _tried(
    benchmark: Benchmark,
    known: Sequence[_Known],
    executor: Executor | None,
    *,
    progress: Progress = no_progress,
    workers: int | None = None,
) -> list[_Tried]:
    flat = [limited(program, each.limits or program.limits) for each in known for program in each.programs]
    if flat and executor is None:
        raise MachineError(f"{benchmark.name} runs programs and there is no sandbox")
    ended = executor.run(flat, progress=progress, workers=workers) if executor is not None else []
    failed = [result.detail for result in ended if result.ended == "sandbox_error"]
    if 2 * len(failed) > len(ended):
        raise MachineError(
            f"{benchmark.name}: the sandbox failed on {len(failed)} of {len(ended)} known programs; the first "
            f"says: {failed[0]}"
        )
    results = iter(ended)
    tried = []
    for each in known:
        own = [next(results) for _ in each.programs]
        score = benchmark.score(each.problem, 0, each.check.candidate, own)
        tried.append(_Tried(known=each, results=own, score=score))
    return tried


def _with_more(tried: _Tried) -> _Known | None:
    """The same with twice of what it lacked; None where it lacked nothing, or had all it may have."""
    limits = tried.known.limits or REFERENCE_LIMITS
    match tried.score.label:
        case "oom":
            memory = _up_to(CEILING.memory_bytes, 2 * limits.memory_bytes, limits.memory_bytes)
            larger = dataclasses.replace(limits, memory_bytes=memory)
        case "timeout":
            cpu = _up_to(CEILING.cpu_seconds, 2 * limits.cpu_seconds, limits.cpu_seconds)
            wall = _up_to(CEILING.wall_seconds, 2 * limits.wall_seconds, limits.wall_seconds)
            larger = dataclasses.replace(limits, cpu_seconds=cpu, wall_seconds=wall)
        case _:
            return None
    return None if larger == limits else dataclasses.replace(tried.known, limits=larger)


def _limits(references: Sequence[_Tried]) -> dict[str, Limits]:
    """Of each problem whose references pass."""
    by_problem: dict[str, list[_Tried]] = defaultdict(list)
    for each in references:
        by_problem[each.known.problem.id].append(each)
    limits = {}
    for problem, own in by_problem.items():
        floor = _most([program.limits for each in own for program in each.known.programs])
        memory = max(floor.memory_bytes, *((each.known.limits or floor).memory_bytes for each in own))
        results = [run for each in own for run in each.results]
        limits[problem] = calibrated(results, dataclasses.replace(floor, memory_bytes=memory))
    return limits


def _most(limits: Sequence[Limits]) -> Limits:
    """The most of each that any allows."""
    if not limits:
        return Limits()
    names = [field.name for field in dataclasses.fields(Limits)]
    return Limits(**{name: max(getattr(each, name) for each in limits) for name in names})


def _summed(tried: Sequence[_Tried], limits: Mapping[str, Limits]) -> Preflight:
    excluded: dict[str, str] = {}
    counts = {True: [0, 0], False: [0, 0]}
    outcomes: list[CheckOutcome] = []
    for each in tried:
        problem, passes = each.known.problem, each.known.check.passes
        counts[passes][0] += 1
        counts[passes][1] += each.as_known
        reason = ""
        if not each.as_known:
            what = "the reference does not pass" if passes else "a wrong answer passes"
            reason = f"{what}: {each.score.label} {each.score.detail}".rstrip()
            excluded.setdefault(problem.id, reason)
        elif passes and (near := _too_near(each.results)):
            excluded.setdefault(problem.id, near)
        outcomes.append(
            CheckOutcome(
                problem=problem.id, group=problem.group, passes=passes, as_known=each.as_known, reason=reason
            )
        )
    return Preflight(
        num_references=counts[True][0],
        num_references_passed=counts[True][1],
        num_refutations=counts[False][0],
        num_refutations_failed=counts[False][1],
        excluded=excluded,
        limits=limits,
        floor=_most([program.limits for each in tried for program in each.known.programs]),
        outcomes=tuple(outcomes),
    )


def calibrated(references: Sequence[RunResult], floor: Limits = Limits()) -> Limits:  # noqa: B008 - frozen
    """The limits for a model's programs from what the references took."""
    cpu = _doubled(floor.cpu_seconds, max((run.cpu_seconds for run in references), default=0.0))
    wall = _doubled(floor.wall_seconds, max((run.wall_seconds for run in references), default=0.0))
    return dataclasses.replace(
        floor,
        cpu_seconds=_up_to(CEILING.cpu_seconds, cpu, floor.cpu_seconds),
        wall_seconds=_up_to(CEILING.wall_seconds, wall, floor.wall_seconds),
    )


def _up_to(ceiling: _Number, wanted: _Number, floor: _Number) -> _Number:
    return max(floor, min(wanted, ceiling))


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
            ("CPU", run.cpu_seconds, CEILING.cpu_seconds),
            ("wall", run.wall_seconds, CEILING.wall_seconds),
        ):
            if took > _NEAR_LIMIT * limit:
                return f"the reference took more than half of {limit:g} s of {name} time"
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
