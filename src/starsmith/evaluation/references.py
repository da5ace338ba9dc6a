"""Reference solutions and known wrong answers, run through the real sandbox without any model.

A benchmark whose references do not all pass, or whose wrong answers do, says nothing about a model until it is
known why. This is what to run after a change of machine, toolchain or data. `references.json` holds the table.
All sets take minutes: verdicts are kept as they come, so a run that was killed goes on where it stopped.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from starsmith import recipe
from starsmith.evaluation import runner
from starsmith.evaluation.execution import CheckOutcome, preflight


@dataclass(frozen=True, kw_only=True)
class Row:
    """A group of a benchmark's problems ("" where it has no groups)."""

    benchmark: str
    group: str
    num_problems: int
    num_references: int
    num_references_passed: int
    num_wrong_answers: int
    num_wrong_answers_failed: int
    excluded: dict[str, str]
    """Problem to reason."""

    @property
    def good(self) -> bool:
        return (
            not self.excluded
            and self.num_references == self.num_references_passed
            and self.num_wrong_answers == self.num_wrong_answers_failed
        )


@dataclass(frozen=True, kw_only=True)
class References:
    rows: tuple[Row, ...]
    skipped: dict[str, dict[str, str]]
    """Benchmark to language to the line that installs its toolchain."""
    num_skipped: dict[str, int]
    """Benchmark to problems in those languages; they are not in `rows`."""
    absent: dict[str, str]
    """Benchmark to what file is missing."""
    sandbox: str | None

    @property
    def good(self) -> bool:
        return all(row.good for row in self.rows)


def check(
    config: recipe.Evaluation,
    *,
    heldout: Sequence[Path],
    folder: Path,
    seed: int = 42,
    workers: int = 1,
    progress: runner.StageProgress = lambda stage, done, total: None,
) -> References:
    """Runs every check of the chosen benchmarks; verdicts in `folder/cache` are kept and used.

    Raises:
        InputError: a benchmark is unknown, or data is malformed, or absent for one that was asked for by name.
        MachineError: no sandbox works, or the disk refuses.
    """
    loaded, absent = runner.load(config, heldout, seed)
    rows: list[Row] = []
    with ExitStack() as stack:
        executor, described = runner.open_executor(stack, loaded, config, folder / "cache", workers)
        for entry in loaded:
            name = entry.benchmark.name

            def told(done: int, total: int, name: str = name) -> None:
                progress(f"{name}: references", done, total)

            checked = preflight(entry.benchmark, entry.problems, executor, progress=told)
            groups = sorted({problem.group for problem in entry.problems}) or [""]
            for group in groups:
                members = {problem.id for problem in entry.problems if problem.group == group}
                own = [outcome for outcome in checked.outcomes if outcome.problem in members]
                excluded = {problem: why for problem, why in checked.excluded.items() if problem in members}
                rows.append(_row(name, group, len(members), own, excluded))
    found = References(
        rows=tuple(rows),
        skipped={entry.benchmark.name: dict(entry.skipped) for entry in loaded if entry.skipped},
        num_skipped={entry.benchmark.name: entry.num_skipped for entry in loaded if entry.skipped},
        absent=absent,
        sandbox=described["level"] if described else None,
    )
    runner.write_text(folder / "references.json", json.dumps(asdict(found), sort_keys=True, indent=1) + "\n")
    return found


def _row(
    name: str, group: str, num_problems: int, outcomes: Sequence[CheckOutcome], excluded: dict[str, str]
) -> Row:
    must_pass = [outcome.as_known for outcome in outcomes if outcome.passes]
    must_fail = [outcome.as_known for outcome in outcomes if not outcome.passes]
    return Row(
        benchmark=name,
        group=group,
        num_problems=num_problems,
        num_references=len(must_pass),
        num_references_passed=sum(must_pass),
        num_wrong_answers=len(must_fail),
        num_wrong_answers_failed=sum(must_fail),
        excluded=excluded,
    )
