"""Time and memory of each step of the quickstart, from an empty store with downloads cached.

The full scale runs `recipes/quickstart.toml` as it is; the small one reads its first three packages and stops
at the ledger. Targets: ten minutes and 3 GB on two cores. There is no peer that runs this road.
"""

import tempfile
import time
from pathlib import Path

from benchmarks import table
from starsmith import plan, recipe

TARGET_SECONDS = 600.0
TARGET_GIGABYTES = 3.0


def main() -> None:
    chosen = table.options(__doc__ or "")
    full = recipe.load(Path("recipes/quickstart.toml"))
    plan.make(full)  # asks for the fingerprints once, so that what follows measures work
    with tempfile.TemporaryDirectory(dir=full.run.cache) as folder:
        run = full.run.model_copy(update={"folder": Path(folder)})
        changed = full.model_copy(update={"run": run})
        to = None
        if chosen.scale == "small":
            first = full.sources[0]
            assert isinstance(first, recipe.PackageSource)
            few = first.model_copy(update={"packages": first.packages[:3]})
            changed, to = changed.model_copy(update={"sources": (few,)}), "policies/decisions"
        timings: dict[str, plan.Timing] = {}
        started = time.monotonic()
        plan.execute(plan.make(changed, to=to), _Collect(timings))
        total = time.monotonic() - started
    rows = []
    for name, timing in timings.items():
        rows.append(table.row(f"{name}: time", timing.seconds, "s"))
        rows.append(table.row(f"{name}: peak memory", timing.peak_memory_bytes / 1e9, "GB"))
    peak = max(timing.peak_memory_bytes for timing in timings.values()) / 1e9
    rows.append(table.row("whole: time", total, "s", target=TARGET_SECONDS))
    rows.append(table.row("whole: peak memory", peak, "GB", target=TARGET_GIGABYTES))
    table.publish(rows, ("pyarrow", "duckdb", "torch", "tokenizers", "scancode-toolkit-mini"), chosen.json)


class _Collect(plan.Quiet):
    """Keeps each step's timing."""

    def __init__(self, timings: dict[str, plan.Timing]) -> None:
        self.timings = timings

    def finish(self, planned: plan.Planned, timing: plan.Timing) -> None:
        self.timings[planned.step.group or planned.step.name] = timing


if __name__ == "__main__":
    main()
