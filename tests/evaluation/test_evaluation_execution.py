"""Reference solutions set limits; what the machine spoiled is tried again; verdicts are kept."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from starsmith.errors import MachineError
from starsmith.evaluation.benchmarks.humaneval import HumanEval
from starsmith.evaluation.contract import Candidate, Completion, Limits, Problem, Program, RunResult
from starsmith.evaluation.execution import (
    CEILING,
    REFERENCE_LIMITS,
    Executor,
    Preflight,
    calibrated,
    limited,
    preflight,
)
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox.pool import Sandbox
from starsmith.evaluation.verdicts import judge

GIGABYTE = 1024**3


def test_limits_follow_the_reference_in_doublings() -> None:
    def limits(cpu: float, wall: float) -> tuple[float, float]:
        made = calibrated([RunResult(ended="exit", cpu_seconds=cpu, wall_seconds=wall)])
        return made.cpu_seconds, made.wall_seconds

    assert limits(0.01, 0.02) == limits(0.29, 0.9) == (3.0, 10.0)
    assert limits(0.31, 1.1) == (6.0, 20.0)
    assert limits(4.0, 4.0) == (48.0, 40.0)


class FakeSandbox:
    """Gives prepared results, in order of the calls."""

    level = identity = "landlock"

    def __init__(self, *results: list[RunResult]) -> None:
        self.results = list(results)
        self.calls: list[tuple[int, int | None]] = []

    def run_programs(self, programs, *, progress=None, workers=None):  # type: ignore[no-untyped-def]
        self.calls.append((len(programs), workers))
        return self.results.pop(0) if programs else []


def executor_of(tmp_path: Path, fake: FakeSandbox) -> Executor:
    return Executor(fake, Journal(tmp_path / "verdicts.jsonl"))  # type: ignore[arg-type]


def program(text: str) -> Program:
    return Program(files=(("main.py", text),))


def test_what_the_machine_spoiled_is_repeated_once_alone(tmp_path: Path) -> None:
    good = RunResult(ended="exit", stdout="fine")
    fake = FakeSandbox(
        [
            good,
            RunResult(ended="sandbox_error", detail="fork"),
            RunResult(ended="timeout", detail="10 s of wall time"),
            RunResult(ended="timeout", detail="3 s of CPU time"),
            RunResult(ended="sandbox_error", detail="first"),
        ],
        [good, good, RunResult(ended="sandbox_error", detail="second")],
    )
    results = executor_of(tmp_path, fake).run([program(text) for text in "abcde"])
    assert [result.ended for result in results] == ["exit", "exit", "exit", "timeout", "sandbox_error"]
    assert results[4].detail == "second"
    assert fake.calls == [(5, None), (3, 1)]


def test_verdicts_are_kept_and_failures_of_the_machine_are_not(tmp_path: Path) -> None:
    error = RunResult(ended="sandbox_error", detail="fork")
    first = FakeSandbox([RunResult(ended="exit"), error], [error])
    executor_of(tmp_path, first).run([program("a"), program("b")])
    second = FakeSandbox([RunResult(ended="exit", stdout="again")], [])
    results = executor_of(tmp_path, second).run([program("a"), program("b"), program("a")])
    assert second.calls[0] == (1, None), "only what has no verdict runs"
    assert [result.stdout for result in results] == ["", "again", ""]


def test_equal_programs_run_once(tmp_path: Path) -> None:
    fake = FakeSandbox([RunResult(ended="exit", stdout="once")], [])
    results = executor_of(tmp_path, fake).run([program("a")] * 5)
    assert [result.stdout for result in results] == ["once"] * 5


def known_problems(*names: str) -> list[Problem]:
    """Of HumanEval's form; the prompt begins with the problem's name, so that each has programs of its own."""
    row = {
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n",
    }
    prompt = 'def double(x: int) -> int:\n    """Twice x."""\n'
    return [Problem(id=name, inputs=row | {"prompt": f"# {name}\n{prompt}", "task_id": name}) for name in names]


PASSED = RunResult(ended="exit", cpu_seconds=0.1, wall_seconds=0.1)
WRONG = RunResult(ended="exit", status=1, stderr="AssertionError")


class ScriptedSandbox:
    """Answers references by what `needs` says of their problem, and every wrong answer with `wrong`."""

    level = identity = "landlock"

    def __init__(self, needs: Mapping[str, Limits | RunResult], wrong: Mapping[str, RunResult] = {}) -> None:
        self.needs = needs
        self.wrong = wrong
        self.ran: list[tuple[str, bool, Limits, int | None]] = []

    def run_programs(self, programs, *, progress=None, workers=None):  # type: ignore[no-untyped-def]
        return [self._run(program, workers) for program in programs]

    def _run(self, program: Program, workers: int | None) -> RunResult:
        source = program.files[0][1]
        name = source.split("\n")[0].removeprefix("# ")
        is_reference = "return 2 * x" in source and "_changed" not in source
        self.ran.append((name, is_reference, program.limits, workers))
        if not is_reference:
            return self.wrong.get(name, WRONG)
        need = self.needs[name]
        if isinstance(need, RunResult):
            return need
        if program.limits.memory_bytes < need.memory_bytes:
            return RunResult(ended="exit", status=1, stderr="MemoryError")
        if program.limits.cpu_seconds < need.cpu_seconds:
            return RunResult(ended="timeout", detail="CPU time")
        return RunResult(ended="exit", stdout=program.proof, cpu_seconds=need.cpu_seconds, wall_seconds=0.1)


def checked(tmp_path: Path, fake: ScriptedSandbox) -> Preflight:
    executor = Executor(fake, Journal(tmp_path / "verdicts.jsonl"))  # type: ignore[arg-type]
    return preflight(HumanEval(), known_problems(*fake.needs), executor)


def test_a_reference_that_lacks_memory_or_time_is_given_more_alone(tmp_path: Path) -> None:
    fake = ScriptedSandbox(
        {
            "small": Limits(cpu_seconds=0.1),
            "wide": Limits(cpu_seconds=0.1, memory_bytes=3 * GIGABYTE),
            "long": Limits(cpu_seconds=50.0),
            "both": Limits(cpu_seconds=50.0, memory_bytes=GIGABYTE),
        }
    )
    found = checked(tmp_path, fake)
    assert found.excluded == {} and found.num_references_passed == 4
    tries = {name: [limits for each, good, limits, _ in fake.ran if each == name and good] for name in fake.needs}
    assert [each.memory_bytes / GIGABYTE for each in tries["wide"]] == [0.5, 1, 2, 4]
    assert [each.cpu_seconds for each in tries["long"]] == [30, 60]
    assert [(each.cpu_seconds, each.memory_bytes / GIGABYTE) for each in tries["both"]] == [
        (30, 0.5),
        (30, 1),
        (60, 1),
    ]
    assert tries["small"] == [REFERENCE_LIMITS]
    again = [workers for name, good, limits, workers in fake.ran if good and limits != REFERENCE_LIMITS]
    assert again == [1] * 6
    # What a reference was found to need is what candidates get, and no more time than the ceiling's.
    assert found.limits["small"] == Limits()
    assert found.limits["wide"] == Limits(memory_bytes=4 * GIGABYTE)
    assert found.limits["long"] == Limits(cpu_seconds=CEILING.cpu_seconds)
    assert {name: limits for name, good, limits, _ in fake.ran if not good} == found.limits


class Patient(HumanEval):
    """Its programs may take as long as it says."""

    own = Limits(cpu_seconds=300.0, wall_seconds=40.0, num_processes=99)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return [limited(program, self.own) for program in super().programs(problem, candidate)]


def test_the_floor_is_what_programs_ask_for(tmp_path: Path) -> None:
    fake = ScriptedSandbox(
        {"a": Limits(cpu_seconds=0.1), "endless": RunResult(ended="timeout", detail="CPU time")}
    )
    executor = Executor(fake, Journal(tmp_path / "verdicts.jsonl"))  # type: ignore[arg-type]
    found = preflight(Patient(), known_problems(*fake.needs), executor)
    assert found.limits == {"a": Patient.own} and found.floor == Patient.own
    assert {limits for name, good, limits, _ in fake.ran if name == "endless" and not good} == {Patient.own}
    tries = [limits for name, good, limits, _ in fake.ran if name == "endless" and good]
    assert [each.cpu_seconds for each in tries] == [300.0] * 4, "more than the ceiling stays"
    assert [each.wall_seconds for each in tries] == [90.0, 180.0, 360.0, 720.0]


def test_what_no_limit_can_hold_is_excluded(tmp_path: Path) -> None:
    fake = ScriptedSandbox(
        {
            "endless": RunResult(ended="timeout", detail="CPU time"),
            "boundless": RunResult(ended="oom", detail="memory"),
            "slow": Limits(cpu_seconds=130.0),
            "good": Limits(cpu_seconds=0.1),
        }
    )
    found = checked(tmp_path, fake)
    assert found.excluded == {
        "endless": "the reference does not pass: timeout CPU time",
        "boundless": "the reference does not pass: oom memory",
        "slow": "the reference took more than half of 240 s of CPU time",
    }
    assert max(limits.cpu_seconds for _, _, limits, _ in fake.ran) == CEILING.cpu_seconds
    assert max(limits.memory_bytes for _, _, limits, _ in fake.ran) == CEILING.memory_bytes
    assert found.limits.keys() == {"slow", "good"}


def test_a_failing_reference_and_a_passing_wrong_answer_exclude_their_problems(tmp_path: Path) -> None:
    problems = known_problems("bad", "lax", "good")
    lax = HumanEval().checks(problems[1])[1].candidate
    proof = HumanEval().programs(problems[1], lax)[0].proof
    fake = ScriptedSandbox(
        {"bad": WRONG, "lax": Limits(cpu_seconds=0.1), "good": Limits(cpu_seconds=0.1)},
        {"lax": RunResult(ended="exit", stdout=proof)},
    )
    found = checked(tmp_path, fake)
    assert found.excluded.keys() == {"bad", "lax"}
    assert found.excluded["bad"].startswith("the reference does not pass: wrong")
    assert found.excluded["lax"].startswith("a wrong answer passes")
    assert (found.num_references_passed, found.num_refutations_failed) == (2, 5)
    assert [(each.problem, each.passes) for each in found.outcomes] == [
        (name, passes) for name in ("bad", "lax", "good") for passes in (True, False, False)
    ]


def test_a_machine_that_fails_on_most_known_programs_judges_nothing(tmp_path: Path) -> None:
    error = RunResult(ended="sandbox_error", detail="no space left")
    with pytest.raises(MachineError, match=r"failed on 2 of 2 known programs.*no space left"):
        checked(tmp_path, ScriptedSandbox({"a": error, "b": error}))


def test_progress_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starsmith.evaluation.execution._CHUNK_PROGRAMS", 2)

    class Telling(ScriptedSandbox):
        def run_programs(self, programs, *, progress=None, workers=None):  # type: ignore[no-untyped-def]
            results = super().run_programs(programs, workers=workers)
            for done in range(len(programs) if progress else 0):
                progress(done + 1, len(programs))
            return results

    fake = Telling({name: Limits(cpu_seconds=0.1) for name in "abcde"} | {"long": Limits(cpu_seconds=50.0)})
    told: list[tuple[int, int]] = []
    executor = Executor(fake, Journal(tmp_path / "verdicts.jsonl"))  # type: ignore[arg-type]
    preflight(HumanEval(), known_problems(*fake.needs), executor, progress=lambda *each: told.append(each))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (18, 18) and {total for _, total in told} == {18}


def test_the_same_preflight_again_runs_nothing(tmp_path: Path) -> None:
    needs: dict[str, Limits | RunResult] = {"a": Limits(cpu_seconds=0.1), "long": Limits(cpu_seconds=100.0)}
    first = checked(tmp_path, ScriptedSandbox(needs))
    again = ScriptedSandbox(needs)
    assert checked(tmp_path, again) == first and again.ran == []


def test_real_programs_that_need_more_memory_than_most(python_sandbox: Sandbox, tmp_path: Path) -> None:
    [problem] = known_problems("wide")
    wide = "    return 2 * x if bytes(700 << 20) else 0\n"
    problem = Problem(id=problem.id, inputs={**problem.inputs, "canonical_solution": wide})
    executor = Executor(python_sandbox, Journal(tmp_path / "verdicts.jsonl"))
    found = preflight(HumanEval(), [problem], executor)
    assert found.excluded == {} and found.limits["wide"] == Limits(memory_bytes=GIGABYTE)
    candidate = HumanEval().extract(problem, Completion(text="\n" + wide))
    [program] = HumanEval().programs(problem, candidate)
    results = executor.run([program, limited(program, found.limits["wide"])])
    assert [judge(program, result)[0] for result in results] == ["oom", "pass"]


def test_a_torn_journal_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add({"a": 1, "b": {"c": "\n"}})
    with path.open("ab") as file:
        file.write(b'{"key": "torn", "val')
    again = Journal(path)
    assert "torn" not in again and again["b"] == {"c": "\n"}
    again.add({"d": 4})
    assert Journal(path)["d"] == 4
