"""`metrics.jsonl`: one line per step, written as the step ends, and the few words that a progress bar shows.

The only place of a training run that speaks of time; everything else is the same for the same recipe. A run
that continues from a checkpoint first drops the lines of the steps it is about to repeat.

| key | meaning |
|---|---|
| step | from 1 |
| loss | nats per target; null when it was not a number |
| learning_rate, grad_norm | grad_norm before clipping; null when there was none |
| tokens, num_targets | inputs of the batch, and the targets among them that count |
| seconds, data_wait_seconds | of the step without validation and checkpoints; what of it waited for data |
| tokens_per_second, mfu, hfu | over the last steps (`training.throughput`); null where the peak is not known |
| memory_bytes | the most that this process held so far, on the GPU or, without one, resident |
| batch | the digest of the batch's tokens |
| skipped | null, or why nothing was learned |
| intervention | only where somebody stepped in (a rewind): what was done before this step |
| validation_loss | only at the steps that measured it |
"""

import collections
import json
import logging
import math
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from starsmith.corpus.store import disk_errors, write_atomically
from starsmith.training.event_files import EventFiles

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"
_ROLLING_STEPS = 20
"""Steps whose speed is averaged: long enough for a steady number, short enough to show a change."""


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What happened in a step, over all ranks."""

    step: int
    loss: float
    """Nats per target; need not be finite."""
    learning_rate: float
    grad_norm: float
    """Before clipping; nan when there was none."""
    num_tokens: int
    num_targets: int
    seconds: float
    data_wait_seconds: float = 0.0
    flops: float | None = None
    """Of forward and backward pass by the model's count, for MFU."""
    recomputed_flops: float = 0.0
    """What activation checkpointing added, for HFU."""
    memory_bytes: int | None = None
    batch: str = ""
    skipped: str | None = None
    intervention: str | None = None
    validation_loss: float | None = None


class MetricsLog:
    """The log of one run, and its speed over the last steps.

    Args:
        folder: of the run.
        num_steps: of the whole run, for the time left; None leaves that out.
        peak_flops: of all devices together, for MFU; None leaves that out.
        event_files: also write TensorBoard's event files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_steps: int | None = None,
        peak_flops: float | None = None,
        event_files: bool = False,
    ) -> None:
        self.folder, self.place = folder, folder / FILE
        self._num_steps, self._peak_flops = num_steps, peak_flops
        self._with_event_files = event_files
        self._event_files: EventFiles | None = None
        self._recent: collections.deque[StepFacts] = collections.deque(maxlen=_ROLLING_STEPS)

    def truncate(self, last_step: int) -> None:
        """Keeps the lines of steps 1 to `last_step`, and names what should be there and is not."""
        kept = [line for line in read(self.folder) if line["step"] <= last_step]
        if [line["step"] for line in kept] != list(range(1, last_step + 1)):
            logger.warning(
                "%s holds %d of the %d steps before the checkpoint; the others were lost", self.place, len(kept),
                last_step,
            )  # fmt: skip
        write_atomically(self.place, "".join(_line(values) for values in kept).encode())
        self._recent.clear()
        if self._with_event_files:
            self.close()
            self._event_files = EventFiles(self.folder, last_step + 1)

    def append(self, facts: StepFacts) -> None:
        """Writes a step's line."""
        self._recent.append(facts)
        line = {
            "step": facts.step,
            "loss": finite(facts.loss),
            "learning_rate": facts.learning_rate,
            "grad_norm": finite(facts.grad_norm),
            "tokens": facts.num_tokens,
            "num_targets": facts.num_targets,
            "seconds": facts.seconds,
            "data_wait_seconds": facts.data_wait_seconds,
            "tokens_per_second": self._tokens_per_second(),
            "mfu": self._utilisation(recomputed=False),
            "hfu": self._utilisation(recomputed=True),
            "memory_bytes": facts.memory_bytes,
            "batch": facts.batch,
            "skipped": facts.skipped,
        }
        if facts.intervention is not None:
            line["intervention"] = facts.intervention
        if facts.validation_loss is not None:
            line["validation_loss"] = finite(facts.validation_loss)
        with disk_errors(self.place), self.place.open("a", encoding="utf-8") as stream:
            stream.write(_line(line))
        if self._event_files is not None:
            self._event_files.append(line)

    def text(self) -> str:
        """The last step in a line, for a progress bar; empty before the first."""
        if not self._recent:
            return ""
        last = self._recent[-1]
        mfu, seconds = self._utilisation(recomputed=False), self._seconds()
        wait = sum(step.data_wait_seconds for step in self._recent) / seconds
        parts = [
            f"loss {last.loss:.3f}",
            f"{self._tokens_per_second():,.0f} tokens/s",
            None if mfu is None else f"MFU {100 * mfu:.0f} %",
            f"lr {last.learning_rate:.2e}",
            f"data wait {100 * wait:.0f} %",
            None if last.memory_bytes is None else f"{last.memory_bytes / 1e9:.1f} GB",
            None if self._num_steps is None else self._time_left(last.step, seconds),
        ]
        return ", ".join(part for part in parts if part is not None)

    def close(self) -> None:
        """Flushes the event files; the JSON lines are on disk already."""
        if self._event_files is not None:
            self._event_files.close()
            self._event_files = None

    def _seconds(self) -> float:
        return sum(step.seconds for step in self._recent) or sys.float_info.min

    def _tokens_per_second(self) -> float:
        return sum(step.num_tokens for step in self._recent) / self._seconds()

    def _utilisation(self, *, recomputed: bool) -> float | None:
        """MFU or HFU; None where the peak or a step's FLOPs are not known."""
        total = 0.0
        for step in self._recent:
            if step.flops is None:
                return None
            total += step.flops + (step.recomputed_flops if recomputed else 0.0)
        return None if self._peak_flops is None else total / self._seconds() / self._peak_flops

    def _time_left(self, step: int, seconds: float) -> str:
        assert self._num_steps is not None
        return f"{format_duration((self._num_steps - step) * seconds / len(self._recent))} left"


def format_duration(seconds: float) -> str:
    """In the two units that matter: 42 s, 3 min 20 s, 5 h 07 min, 12 d 3 h."""
    for unit, size, lower, lower_size in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        whole = round(seconds / lower_size) * lower_size
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // lower_size:02d} {lower}"
    return f"{seconds:.0f} s"


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process held so far: reserved on its GPU, or resident in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole lines, in order of steps; an unfinished last line (of a killed run) is left out."""
    place = folder / FILE
    if not place.exists():
        return []
    lines = []
    for text in place.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(text)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            lines.append(values)
    return lines


def finite(value: float) -> float | None:
    """JSON has no nan and no infinity."""
    return value if math.isfinite(value) else None


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"
