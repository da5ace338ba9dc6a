"""Rewinding a run: back to an earlier checkpoint, and past the batches that threw it off.

Skipping the step of a spike (`spikes.py`) is not always enough: a run may be thrown off by steps that looked
usual. What helps then is to go back a little and leave out the data in between (PaLM's authors went back 100 steps
and skipped 200 to 500 batches). It is a decision of people, so it is written down: each one is a line of
`interventions.jsonl` in the run's folder, and every checkpoint after it carries all lines that led to it. A run is
therefore reproducible from its recipe and this file, and shows that it was touched.

`rewind` only writes the line; the run carries it out when it is started again. A line counts as carried out in a
checkpoint that holds it, so a run that is killed before its next checkpoint carries it out again, with the same
end.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starsmith.corpus.store import write_atomically
from starsmith.errors import InputError, MachineError
from starsmith.training.checkpoint import Checkpoints
from starsmith.training.world import ALONE

FILE = "interventions.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewind:
    """One line of the file."""

    from_step: int
    """Where the run stood (its newest checkpoint)."""
    to_step: int
    """The checkpoint that it goes on from."""
    skip_batches: int
    """Batches after that one which are not seen."""

    def __str__(self) -> str:
        return (
            f"rewound from step {self.from_step} to step {self.to_step}; {self.skip_batches} batches after it are "
            "left out"
        )


def rewind(folder: Path, to_step: int, skip_batches: int) -> Rewind:
    """Has the run in `folder` go back when it is started next.

    Args:
        folder: of a run that does not run now.
        to_step: it goes on from the newest whole checkpoint up to this step.
        skip_batches: how many of the batches after it are left out.

    Raises:
        InputError: there is no checkpoint that early, the run is not that far, or no batch would be left out.
    """
    if skip_batches < 1:
        raise InputError(
            f"cannot rewind and skip {skip_batches} batches: the run would see the same ones again and end the "
            "same; skip at least 1"
        )
    checkpoints = Checkpoints(folder, ALONE, keep=1, keep_every=None, is_scheduled=lambda step: True)
    latest = checkpoints.latest()
    if latest is None:
        raise InputError(f"nothing to rewind in {folder}: it has no whole checkpoint")
    done = read(folder)
    planned = done[len(latest.facts["interventions"]) :]
    newest = min([latest.step, *(line.to_step for line in planned)])
    if to_step > newest:
        raise InputError(f"cannot rewind {folder} to step {to_step}: it is at step {newest}")
    saved = checkpoints.at_or_before(to_step)
    if saved is None:
        raise InputError(
            f"cannot rewind {folder} to step {to_step}: no whole checkpoint is that early. Keep more of them "
            "(training.keep_checkpoints, training.keep_every), or rewind to a later step"
        )
    line = Rewind(from_step=newest, to_step=saved.step, skip_batches=skip_batches)
    lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in (*done, line)]
    write_atomically(folder / FILE, "".join(lines).encode())
    return line


def read(folder: Path) -> list[Rewind]:
    """All interventions of a run, in the order in which they were asked for."""
    place = folder / FILE
    if not place.exists():
        return []
    try:
        return [Rewind(**json.loads(line)) for line in place.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise MachineError(f"{place} is damaged ({error}); the run cannot be continued as it was") from None


def outstanding(lines: list[Rewind], facts: Mapping[str, Any]) -> Rewind | None:
    """What is still to be carried out on a run whose newest checkpoint has these facts: the last line, if the
    checkpoint does not hold it. Earlier ones that it does not hold either are undone by going back before them."""
    return lines[-1] if len(lines) > len(facts["interventions"]) else None
