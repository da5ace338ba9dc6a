"""What the command line shows people: a bar for each running step, tables, and JSON for programs."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from starsmith import plan
from starsmith.corpus.engine import Progress as Report

out = Console()
err = Console(stderr=True)


class Bars:
    """A progress bar per running step; one line per finished step where there is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=out,
            disable=not out.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, planned: plan.Planned) -> Report:
        name = planned.step.group or planned.step.name
        task = self._task = self._bars.add_task(name, total=None, note="")

        def report(done: int, total: int, note: str = "", /) -> None:
            self._bars.update(task, completed=done, total=total, note=note)

        return report

    def finish(self, planned: plan.Planned, timing: plan.Timing) -> None:
        note = f"{timing.seconds:.1f} s, peak {timing.peak_memory_bytes / 1e6:,.0f} MB"
        if self._task is not None:
            done = self._bars.tasks[-1].total or 1
            self._bars.update(self._task, completed=done, total=done, note=note)
        if not out.is_terminal:
            name = planned.step.group or planned.step.name
            out.print(f"{name:<28} {note}", highlight=False, soft_wrap=True)


class StageBars:
    """A progress bar per stage of an evaluation, on standard error; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<36}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "StageBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


def print_plan(planned: plan.Plan) -> None:
    table = Table("step", "will", "reads", "why", box=None, pad_edge=False)
    groups: dict[str, list[plan.Planned]] = {}
    for entry in planned.steps:
        groups.setdefault(entry.step.group or entry.step.name, []).append(entry)
    for name, entries in groups.items():
        running = [entry for entry in entries if entry.runs]
        if len(entries) == 1:
            shown, will = entries[0].step.name, "run" if running else "reuse"
        else:
            shown = f"{name} ({len(entries)})"
            will = f"run {len(running)}" if running else "reuse"
        first = (running or entries)[0]
        table.add_row(shown, will, first.step.reads if running else "-", first.reason)
    out.print(table)
    pending = planned.pending
    if pending:
        out.print(f"{len(pending)} of {len(planned.steps)} steps will run", highlight=False)
    else:
        out.print(f"nothing to do: all {len(planned.steps)} steps are up to date", highlight=False)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
