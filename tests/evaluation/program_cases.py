"""Data files made by hand, the real ones where they are, and candidates judged in the real sandbox."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from starsmith.evaluation.contract import Benchmark, Candidate, Completion, Limits, Problem, Score
from starsmith.evaluation.sandbox.pool import Sandbox

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "benchmarks"


def real_data(folder: str) -> Path:
    """The folder of all data sets; skips the test where this one is absent."""
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no {folder} data beside the checkout")
    return SHARED


def written_rows(data: Path, name: str, rows: Sequence[object]) -> Path:
    """Writes rows as JSON lines into a data folder and returns that folder."""
    (data / name).parent.mkdir(parents=True, exist_ok=True)
    (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


def judged(
    sandbox: Sandbox,
    benchmark: Benchmark,
    answers: Sequence[tuple[Problem, Candidate]],
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> list[Score]:
    planned = [benchmark.programs(problem, candidate) for problem, candidate in answers]
    flat = [replace(program, limits=limits) for programs in planned for program in programs]
    results = iter(sandbox.run_programs(flat))
    return [
        benchmark.score(problem, 0, candidate, [next(results) for _ in programs])
        for (problem, candidate), programs in zip(answers, planned, strict=True)
    ]


def labels(sandbox: Sandbox, benchmark: Benchmark, problem: Problem, completions: Sequence[str]) -> list[str]:
    """The labels of completions of one problem."""
    answers = [(problem, benchmark.extract(problem, Completion(text=text))) for text in completions]
    scores = judged(sandbox, benchmark, answers, Limits(cpu_seconds=1.0))
    return [score.label for score in scores]


def assert_known_worth(sandbox: Sandbox, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
    """Every reference passes and everything known to be wrong fails."""
    checks = [(problem, check) for problem in problems for check in benchmark.checks(problem)]
    scores = judged(
        sandbox,
        benchmark,
        [(problem, check.candidate) for problem, check in checks],
        Limits(cpu_seconds=30.0, wall_seconds=90.0),
    )
    wrong = [
        (score.problem, score.label, score.detail)
        for score, (_, check) in zip(scores, checks, strict=True)
        if (score.label == "pass") != check.passes
    ]
    assert wrong == []
    assert {check.passes for _, check in checks} == {True, False}
