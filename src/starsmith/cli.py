"""The verbs of the command line: thin, each one call into the plan or a room, printed for people or as JSON.

Exit codes: 0 done; 1 a check failed (`verify`, `doctor`) or an unforeseen error; 2 wrong input (recipe,
target, options); 3 the machine refuses (full disk, no network, absent tool); 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from starsmith import __version__, plan, recipe
from starsmith.corpus.engine import Progress as Report
from starsmith.errors import StarsmithError

app = typer.Typer(
    help="From source archives to an evaluated, released code model, with a paper trail for every file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console()
err = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.")]
RunFolder = Annotated[
    Path, typer.Option("--run", "-r", help="A run's folder (NAME or NAME@N for its Nth finished run).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
UpTo = Annotated[str | None, typer.Option("--to", metavar="STEP", help="Stop after this step.")]
QUICKSTART = Path("runs/quickstart")


def main() -> None:
    """The `starsmith` command."""
    try:
        app()
    except StarsmithError as error:
        err.print(f"starsmith: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("starsmith: interrupted; finished parts are kept, the same command continues")
        sys.exit(130)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__, highlight=False)


@app.command("plan")
def plan_(recipe_file: RecipeFile, to: UpTo = None, as_json: AsJson = False) -> None:
    """Show what a recipe means: its steps, what will run, what is reused, and why."""
    planned = plan.make(recipe.load(recipe_file), to=to)
    if as_json:
        _print_json(
            [
                {
                    "step": entry.step.name,
                    "key": entry.key,
                    "state": entry.state,
                    "reason": entry.reason,
                    "reads": entry.step.reads,
                }
                for entry in planned.steps
            ]
        )
        return
    _print_plan(planned)


@app.command()
def run(recipe_file: RecipeFile, to: UpTo = None) -> None:
    """Run a recipe; what is already there is reused."""
    chosen = recipe.load(recipe_file)
    planned = plan.make(chosen, to=to)
    pending = planned.pending
    if not pending:
        plan.execute(planned)
        out.print(f"nothing to do: all {len(planned.steps)} steps are up to date", highlight=False)
    else:
        reused = len(planned.steps) - len(pending)
        out.print(f"{len(pending)} steps to run, {reused} reused", highlight=False)
        with Bars() as bars:
            plan.execute(planned, bars)
    report = plan.folder(chosen) / "report.html"
    if to is None or to == "report":
        out.print(f"report: {report}", highlight=False, soft_wrap=True)


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

        def report(done: int, total: int) -> None:
            self._bars.update(task, completed=done, total=total)

        return report

    def finish(self, planned: plan.Planned, timing: plan.Timing) -> None:
        note = f"{timing.seconds:.1f} s, peak {timing.peak_memory_bytes / 1e6:,.0f} MB"
        if self._task is not None:
            done = self._bars.tasks[-1].total or 1
            self._bars.update(self._task, completed=done, total=done, note=note)
        if not out.is_terminal:
            name = planned.step.group or planned.step.name
            out.print(f"{name:<28} {note}", highlight=False, soft_wrap=True)


def _print_plan(planned: plan.Plan) -> None:
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


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
