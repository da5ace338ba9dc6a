"""The plan: which steps a recipe means, which of them are reused and why the others run, and running them.

A recipe becomes a list of steps in order, each with its key. A step whose key is committed in the store is
reused. For one that is not, the reason is found by comparing it with the step of the same name in the last
run of this recipe's name: a parameter that changed, an input that changed, or code of another version.

`runs/<name>/` is a view for people and never an input of a step: the report, links to the dataset and the
model, the recipe as it was, and `history/`, which keeps the keys of every finished run so that two of them
can be compared.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from starsmith import recipe as recipes
from starsmith.corpus.engine import Progress, map_parallel, silent
from starsmith.corpus.store import Result, Store, write_atomically
from starsmith.errors import InputError
from starsmith.memory import PeakMemory, be_frugal, give_back
from starsmith.steps import data, ingest, learning, publishing
from starsmith.steps.step import Context, Earlier, Step

_EARLIER_RESULTS = 4
"""Earlier results that an incremental step looks at: a run usually continues one of the last few."""

_COMMIT_POLL_SECONDS = 0.2

State = Literal["reused", "new", "changed", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step with its key and what will happen to it."""

    step: Step
    key: str
    input_keys: Mapping[str, str]
    state: State
    reason: str

    @property
    def runs(self) -> bool:
        return self.state != "reused"


@dataclass(frozen=True, kw_only=True)
class Plan:
    recipe: recipes.Recipe
    steps: tuple[Planned, ...]

    @property
    def pending(self) -> tuple[Planned, ...]:
        return tuple(step for step in self.steps if step.runs)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a step took when it last ran; a reused step keeps the numbers of that run."""

    seconds: float
    peak_memory_bytes: int
    reused: bool = False
    """Not run this time."""


class Watcher(Protocol):
    """Shows a run to people."""

    def start(self, planned: Planned) -> Progress: ...

    def finish(self, planned: Planned, timing: Timing) -> None: ...


class Quiet:
    """Shows nothing."""

    def start(self, planned: Planned) -> Progress:
        return silent

    def finish(self, planned: Planned, timing: Timing) -> None:
        return None


def store(recipe: recipes.Recipe) -> Store:
    return Store(recipe.run.folder / "store")


def make(recipe: recipes.Recipe, *, to: str | None = None) -> Plan:
    """Plans a recipe without running anything (sources are asked for their fingerprints).

    Args:
        recipe: the checked recipe.
        to: the last step wanted; by default the whole road.

    Raises:
        InputError: `to` is no step.
    """
    targets = ingest.targets_of(recipe)
    steps = [
        *data.steps(recipe, targets),
        publishing.curation_step(recipe),
        *learning.steps(recipe),
        *publishing.steps(recipe),
    ]
    names = [step.name for step in steps]
    if to is not None:
        if to == "long_context" and to not in names:
            raise InputError("the recipe has one stage of training; a table [long_context] adds the second")
        if to not in names:
            outside = sorted({name.partition("/")[0] if name.startswith("ingest/") else name for name in names})
            raise InputError(f"no step {to!r}; the steps are {', '.join(outside)}")
        steps = _needed(steps, to)
    history = _last_run(recipe.run.view)
    kept = store(recipe)
    keys: dict[str, str] = {}
    planned = []
    for step in steps:
        key = keys[step.name] = step.key(keys)
        input_keys = {name: keys[name] for name in step.inputs}
        state, reason = _state(step, key, input_keys, kept, history.get(step.name))
        planned.append(Planned(step=step, key=key, input_keys=input_keys, state=state, reason=reason))
    return Plan(recipe=recipe, steps=tuple(planned))


def execute(plan: Plan, watcher: Watcher | None = None) -> dict[str, Result]:
    """Runs what the plan says is pending; returns every step's result by name."""
    watcher = watcher or Quiet()
    kept = store(plan.recipe)
    workers = plan.recipe.run.workers or _cores()
    results: dict[str, Result] = {}
    timings = _timings(plan)
    be_frugal()
    with kept.locked():
        for batch in _batches(plan.steps):
            pending = [planned for planned in batch if planned.runs]
            if pending:
                first = pending[0]
                progress = watcher.start(first)
                started = time.monotonic()
                with PeakMemory() as peak:
                    if first.step.group is None:
                        _run_one(kept, first, results, workers, progress)
                    else:
                        jobs = [_Job(kept, planned) for planned in pending]
                        map_parallel(_run_job, jobs, workers=workers, progress=progress)
                timing = Timing(seconds=time.monotonic() - started, peak_memory_bytes=peak.bytes)
                timings[first.step.group or first.step.name] = timing
                _write_timings(plan.recipe.run.view, timings)
                watcher.finish(first, timing)
            for planned in batch:
                results[planned.step.name] = kept.get(planned.step.name, planned.key)
        _write_view(plan, results)
    return results


def train(plan: Plan, watcher: Watcher | None = None) -> None:
    """Runs the training steps that are pending, on every rank of a launcher or in this process alone.

    Rank 0 holds the store, commits and notes the run; the others work in its drafts, on storage that all of them
    see.

    Raises:
        InputError: several ranks, and a step before training is pending: those are one process's work.
    """
    rank, size = int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
    pending = {planned.step.name: planned.step for planned in plan.pending}
    before = [step.name for step in pending.values() if not step.distributed]
    if size > 1 and before:
        needed = [name for step in pending.values() if step.distributed for name in step.inputs if name in before]
        commands = [f"starsmith run RECIPE --to {name}" for name in dict.fromkeys(needed)]
        raise InputError(
            f"{len(before)} steps before training are not done ({', '.join(before[:3])}"
            f"{', ...' if len(before) > 3 else ''}); run them in one process first: {'; '.join(commands)}"
        )
    if rank == 0:
        execute(plan, watcher)
        return
    kept = store(plan.recipe)
    for planned in plan.pending:
        step = planned.step
        inputs = {name: kept.get(name, key) for name, key in planned.input_keys.items()}
        step.run(Context(inputs=inputs, draft=kept.draft(step.name, planned.key, shared=True), workers=1))
        while kept.find(step.name, planned.key) is None:  # rank 0 commits; if it dies, the launcher ends us
            time.sleep(_COMMIT_POLL_SECONDS)


def results(run_folder: Path) -> dict[str, Result]:
    """The committed results of a run, from its view: `runs/name`, or `runs/name@N` for its Nth finished run.

    Raises:
        InputError: no such run, or a step of it is no longer in the store.
    """
    base, _, number = str(run_folder).partition("@")
    place = Path(base)
    history = sorted((place / "history").glob("*.json"))
    if not history:
        found = sorted(str(other.parent) for other in place.parent.glob("*/history"))
        there = f"; runs here: {', '.join(found)}" if found else ""
        raise InputError(f"no finished run in {place}{there}; run a recipe first, or give its folder")
    if number and not number.isdigit():
        raise InputError(f"{run_folder}: after @ stands the number of a run, 1 to {len(history)}")
    index = int(number) if number else len(history)
    if not 1 <= index <= len(history):
        raise InputError(f"{place} has {len(history)} finished runs, there is no @{index}")
    noted = json.loads(history[index - 1].read_text())
    kept = Store(place.parent / "store")
    return {name: kept.get(name, entry["key"]) for name, entry in noted["steps"].items()}


def recipe_of(run_folder: Path) -> recipes.Recipe:
    """The recipe with which a run was made."""
    base, _, number = str(run_folder).partition("@")
    history = sorted((Path(base) / "history").glob("*.json"))
    place = history[int(number) - 1 if number else -1]
    return recipes.Recipe.model_validate(json.loads(place.read_text())["recipe"])


@dataclass(frozen=True)
class _Job:
    """A step of a group, on its way to a worker process."""

    store: Store
    planned: Planned


def _run_job(job: _Job) -> None:
    if job.store.find(job.planned.step.name, job.planned.key) is None:
        _run_one(job.store, job.planned, {}, 1, silent)


def _run_one(
    kept: Store, planned: Planned, results: Mapping[str, Result], workers: int, progress: Progress
) -> None:
    step = planned.step
    draft = kept.draft(step.name, planned.key)
    inputs = {name: results[name] for name in step.inputs}
    context = Context(
        inputs=inputs, draft=draft, workers=workers, earlier=_earlier(kept, planned), progress=progress
    )
    facts = step.run(context)
    give_back()
    draft.commit({**step.identity(planned.input_keys), "key": planned.key}, facts, step.logs)


def _earlier(kept: Store, planned: Planned) -> list[Earlier]:
    """What an incremental step may take over."""
    if not planned.step.incremental:
        return []
    step = planned.step
    params = json.loads(json.dumps(dict(step.params)))

    def is_wanted(manifest: Mapping[str, Any]) -> bool:
        names = step.earlier_params
        if names is None:
            names = tuple(params.keys() | manifest["params"].keys())
        return manifest["version"] == step.version and all(
            manifest["params"].get(name) == params.get(name) for name in names
        )

    return [
        Earlier(
            result=result,
            inputs={
                name: found
                for name, key in result.manifest["inputs"].items()
                if (found := kept.find(name, key)) is not None
            },
        )
        for result in kept.latest(step.name, is_wanted, _EARLIER_RESULTS)
    ]


def _batches(steps: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Steps one by one, except that neighbours of one group go together."""
    batch: list[Planned] = []
    for planned in steps:
        together = batch and planned.step.group is not None and planned.step.group == batch[0].step.group
        if batch and not together:
            yield batch
            batch = []
        batch.append(planned)
    if batch:
        yield batch


def _needed(steps: Sequence[Step], to: str) -> list[Step]:
    by_name = {step.name: step for step in steps}
    wanted: set[str] = set()
    waiting = [to]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += by_name[name].inputs
    return [step for step in steps if step.name in wanted]


def _state(
    step: Step, key: str, input_keys: Mapping[str, str], kept: Store, before: Mapping[str, Any] | None
) -> tuple[State, str]:
    if kept.find(step.name, key) is not None:
        return "reused", "nothing changed"
    if before is not None and before["key"] != key:
        return "changed", "; ".join(_changes(step, input_keys, before)) or "changed"
    if kept.folder(step.name, key).exists():
        return "unfinished", "an earlier run was interrupted; its finished parts are kept"
    return "new", "never run"


def _changes(step: Step, input_keys: Mapping[str, str], before: Mapping[str, Any]) -> Iterator[str]:
    if before["version"] != step.version:
        yield f"its code is version {step.version}, was {before['version']}"
    old, new = _flat(before["params"]), _flat(dict(step.params))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name} is {_short(new.get(name))}, was {_short(old.get(name))}"
    changed = [name for name in step.inputs if before["inputs"].get(name) != input_keys[name]]
    gone = [name for name in before["inputs"] if name not in input_keys]
    if changed or gone:
        several = [*changed, *gone]
        shown = ", ".join(several[:3]) + (f" and {len(several) - 3} more" if len(several) > 3 else "")
        yield f"input changed: {shown}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _last_run(view: Path) -> dict[str, Any]:
    history = sorted((view / "history").glob("*.json"))
    if not history:
        return {}
    steps: dict[str, Any] = json.loads(history[-1].read_text())["steps"]
    return steps


def _write_view(plan: Plan, results: Mapping[str, Result]) -> None:
    """Notes the run in its history (unless it equals the last one) and refreshes the links for people."""
    view = plan.recipe.run.view
    note = {
        "recipe": plan.recipe.model_dump(mode="json"),
        "steps": {
            planned.step.name: {**planned.step.identity(planned.input_keys), "key": planned.key}
            for planned in plan.steps
        },
    }
    data_ = json.dumps(note, indent=1, sort_keys=True, ensure_ascii=False).encode()
    history = sorted((view / "history").glob("*.json"))
    if not history or history[-1].read_bytes() != data_:
        write_atomically(view / "history" / f"{len(history) + 1:04d}.json", data_)
    for page, step in (("curation", "curation"), ("report", "report"), ("evaluation", "report")):
        if step in results:
            place = results[step].folder / f"{page}.html"
            write_atomically(view / f"{page}.html", place.read_bytes())
    write_atomically(view / "recipe.toml", recipes.to_toml(plan.recipe).encode())
    links = {"dataset": ("release", "dataset"), "model": ("release", "model"), "evaluation": ("evaluation", ".")}
    for link, (name, inside) in links.items():
        if name in results:
            _link(view / link, results[name].folder / inside)


def _link(place: Path, target: Path) -> None:
    aside = place.with_name(f".{place.name}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, place.parent))
    aside.replace(place)


def _timings(plan: Plan) -> dict[str, Timing]:
    """What earlier runs noted of the steps that this one reuses."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        noted = json.loads((plan.recipe.run.view / "timings.json").read_text())
        names = {planned.step.group or planned.step.name for planned in plan.steps}
        return {name: Timing(**{**entry, "reused": True}) for name, entry in noted.items() if name in names}
    return {}


def _write_timings(view: Path, timings: Mapping[str, Timing]) -> None:
    noted = {name: vars(timing) for name, timing in timings.items()}
    write_atomically(view / "timings.json", json.dumps(noted, indent=1).encode())


def _cores() -> int:
    return len(os.sched_getaffinity(0))
