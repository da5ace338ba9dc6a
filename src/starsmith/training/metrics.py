"""`metrics.jsonl`: one line per step, written as the step ends.

The only place of a training run that speaks of time; everything else is the same for the same recipe. A run
that continues from a checkpoint first drops the lines of the steps it is about to repeat.

Keys: step (from 1), loss (nats per target; null when it was not a number), learning_rate, grad_norm (before
clipping; null when there was none), tokens (inputs of the batch), seconds, tokens_per_second, batch (the digest
of its tokens), skipped (null, or why nothing was learned), and validation_loss at the steps that measured it.
"""

import json
import logging
import math
from pathlib import Path
from typing import Any

from starsmith.corpus.store import disk_errors, write_atomically

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"


class MetricsLog:
    def __init__(self, folder: Path) -> None:
        self.place = folder / FILE

    def truncate(self, last_step: int) -> None:
        """Keeps the lines of steps 1 to `last_step`, and names what should be there and is not."""
        kept = [line for line in read(self.place.parent) if line["step"] <= last_step]
        if [line["step"] for line in kept] != list(range(1, last_step + 1)):
            logger.warning(
                "%s holds %d of the %d steps before the checkpoint; the others were lost", self.place, len(kept),
                last_step,
            )  # fmt: skip
        write_atomically(self.place, "".join(_line(values) for values in kept).encode())

    def append(self, values: dict[str, Any]) -> None:
        with disk_errors(self.place), self.place.open("a", encoding="utf-8") as stream:
            stream.write(_line(values))


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
