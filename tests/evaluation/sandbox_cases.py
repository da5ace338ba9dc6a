"""Programs that attack, run with limits that end them soon."""

from pathlib import Path

import pytest

from starsmith.evaluation.contract import Limits, Program, RunResult
from starsmith.evaluation.sandbox import selftest
from starsmith.evaluation.sandbox.pool import Level, Sandbox

SHORT = Limits(cpu_seconds=1.0, wall_seconds=8.0, disk_bytes=8 * 1024**2, file_bytes=4 * 1024**2)


def opened(level: Level) -> Sandbox:
    """Two workers on a level; skips the test where it does not work."""
    if reason := selftest.unavailable(level):
        pytest.skip(f"{level}: {reason}")
    if failures := selftest.attempt(level).failures:
        pytest.skip(f"{level} does not work on this machine: {failures}")
    return Sandbox(level, workers=2)


def run(sandbox: Sandbox, *sources: str, limits: Limits = SHORT) -> list[RunResult]:
    return sandbox.run_programs([Program(files=(("main.py", source),), limits=limits) for source in sources])


def limits(**changes: float) -> Limits:
    return Limits(**(vars(SHORT) | changes))


def processes_with(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (
                mark in (process / "cmdline").read_text() or (process / "comm").read_text().strip() == mark[:15]
            ):
                found.append(process.name)
        except (OSError, UnicodeDecodeError):
            continue
    return found


def secret_in(folder: Path) -> Path:
    """A file that every user of the machine may read and write."""
    for each in (folder, *folder.parents[:3]):
        each.chmod(0o777)
    (folder / "secret").write_text("sesame")
    (folder / "secret").chmod(0o666)
    return folder / "secret"
