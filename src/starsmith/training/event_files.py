"""TensorBoard's event files: the numbers of `metrics.jsonl` once more, for those who look at them there.

Written by torch's own writer, which needs the optional package `tensorboard`. A run that continues from a
checkpoint marks where it takes up, and TensorBoard then drops what an earlier part had logged beyond.
"""

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starsmith.errors import MachineError

FOLDER = "tensorboard"
_FLUSH_SECONDS = 15
_TAGS = {
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "grad_norm": "optimiser/gradient norm",
    "learning_rate": "optimiser/learning rate",
    "tokens_per_second": "speed/tokens per second",
    "mfu": "speed/MFU",
    "hfu": "speed/HFU",
    "data_wait_seconds": "speed/data wait (seconds)",
    "memory_bytes": "memory/peak bytes",
}


class EventFiles:
    """Event files in `tensorboard/` beside the metrics.

    Args:
        folder: of the run.
        first_step: the first that will be logged; later ones of an earlier part are dropped.

    Raises:
        MachineError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MachineError(
                f"hardware.tensorboard needs the package tensorboard ({error}). Install it with: "
                "pip install 'starsmith[tensorboard]', or leave hardware.tensorboard out"
            ) from None
        self._writer: Any = SummaryWriter(folder / FOLDER, purge_step=first_step, flush_secs=_FLUSH_SECONDS)
        self._close = weakref.finalize(self, self._writer.close)  # also where a run ends without closing

    def append(self, line: Mapping[str, Any]) -> None:
        """The numbers of one line of the metrics; what is null there is left out."""
        for key, tag in _TAGS.items():
            if line.get(key) is not None:
                self._writer.add_scalar(tag, line[key], line["step"])
        if line.get("skipped") is not None or line.get("intervention") is not None:
            self._writer.add_text("events", line.get("intervention") or line["skipped"], line["step"])

    def close(self) -> None:
        self._close()
