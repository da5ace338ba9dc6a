"""The training loop: AdamW on next-token loss, one process, one device, float32.

What is exact: a run that is stopped or killed at any moment and started again ends with the same weights, losses
and lineage, bit for bit, as one that was not (on one machine with one number of threads: floating-point sums
depend on both). Everything is a function of the seed, the loader's state and the step.

What is never silent: a step whose loss or gradient is not finite changes nothing, is counted and written to the
metrics with its reason; ten in a row end the run. Steps are numbered from 1; "step 10" is the tenth.
"""

import contextlib
import dataclasses
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from starsmith.errors import InputError, MachineError, StarsmithError
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Training
from starsmith.training import checkpoint, optimizer, schedule
from starsmith.training.checkpoint import Checkpoint
from starsmith.training.lineage import LineageLog
from starsmith.training.loss import next_token_loss
from starsmith.training.metrics import MetricsLog, finite

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10

Progress = Callable[[int, int, str], None]
"""Called after each step with (steps done, steps in all, a few words on how it goes)."""


class Arrays(Protocol):
    """Packed rows. Shapes: tokens (B, T + 1), the others (B, T)."""

    @property
    def tokens(self) -> NDArray[np.int64]: ...
    @property
    def loss_mask(self) -> NDArray[np.bool_]: ...
    @property
    def documents(self) -> NDArray[np.int32]: ...
    @property
    def positions(self) -> NDArray[np.int32]: ...


class Batch(Arrays, Protocol):
    @property
    def spans(self) -> pa.Table: ...
    @property
    def digest(self) -> str: ...


class Loader(Protocol):
    """Endless batches. `load_state` raises InputError where the state is of other data or settings."""

    def next_batch(self) -> Batch: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: dict[str, Any], /) -> None: ...


class DivergenceError(StarsmithError):
    """Too many steps in a row without a finite loss and gradient."""


class TrainingStoppedError(StarsmithError):
    """SIGINT or SIGTERM; a checkpoint was written."""

    exit_code = 130


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run."""

    model: Starcoder2
    steps: int
    num_tokens: int
    """Inputs of all steps."""
    num_skipped: int
    """Steps that learned nothing."""
    loss: float | None
    """Of the last step that learned, nats per target."""
    validation_loss: float | None
    """Of the last step; None without validation data."""


@dataclasses.dataclass
class _Counters:
    """What a run has counted so far; saved with each checkpoint."""

    num_tokens: int = 0
    num_updates: int = 0
    num_skipped: int = 0
    skipped_in_a_row: int = 0
    loss: float | None = None
    validation_loss: float | None = None


def train(
    folder: Path,
    loader: Loader,
    validation_batches: Sequence[Arrays],
    model_config: Starcoder2Config,
    config: Training,
    *,
    seed: int,
    progress: Progress = lambda done, total, text: None,
    device: torch.device | None = None,
) -> Trained:
    """Trains to step `config.steps`, from the newest whole checkpoint in `folder` where there is one.

    Args:
        folder: receives `checkpoints/`, `metrics.jsonl` and `lineage/`.
        loader: the batches; its state is saved and restored.
        validation_batches: measured every `validation_steps` and at the end; may be empty.
        seed: of the initial weights.
        device: of the model; by default the CPU. PyTorch's global random state is left as it was.

    Raises:
        InputError: the settings contradict each other, or are not those of the checkpoint.
        MachineError: no space, no memory, or several processes.
        DivergenceError: ten steps in a row were skipped.
        TrainingStoppedError: told to stop by SIGINT or SIGTERM, after writing a checkpoint.
    """
    _refuse_many_processes()
    schedule.check(config)
    with torch.random.fork_rng(devices=[]), _StopRequest() as stop:
        torch.manual_seed(seed)
        run = _Run(folder, loader, validation_batches, model_config, config, seed, device or torch.device("cpu"))
        run.resume()
        while run.step < config.steps:
            text = run.advance()
            if run.is_scheduled(run.step):
                run.save()
            progress(run.step, config.steps, text)
            if stop.requested and run.step < config.steps:
                run.save()
                raise TrainingStoppedError(
                    f"training was told to stop after step {run.step} of {config.steps}; a checkpoint is in "
                    f"{folder / checkpoint.FOLDER}, run again to continue"
                )
        return run.result()


class _Run:
    """The state of a run in progress."""

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        validation_batches: Sequence[Arrays],
        model_config: Starcoder2Config,
        config: Training,
        seed: int,
        device: torch.device,
    ) -> None:
        self.folder, self.loader, self.config, self.seed, self.device = folder, loader, config, seed, device
        self.validation_batches = validation_batches
        self.model = Starcoder2(model_config).initialise(seed).to(device)
        self.optimizer = optimizer.build(self.model, config)
        self.step = 0
        self.counters = _Counters()
        folder.mkdir(parents=True, exist_ok=True)
        self.metrics, self.lineage = MetricsLog(folder), LineageLog(folder)

    def is_scheduled(self, step: int) -> bool:
        return step % self.config.checkpoint_steps == 0 or step == self.config.steps

    def resume(self) -> None:
        """Takes up the newest whole checkpoint, and drops what was logged after it."""
        saved = checkpoint.latest(self.folder)
        if saved is not None:
            self._check_same(saved)
            self.loader.load_state(saved.facts["loader"])
            weights = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, parameter in weights.items():
                    parameter.copy_(saved.weights[name])
            self.counters = _Counters(**saved.facts["counters"])
            optimizer.restore(self.optimizer, self.model, saved.moments, self.counters.num_updates)
            random_state = bytearray.fromhex(saved.facts["random_state"])
            torch.set_rng_state(torch.frombuffer(random_state, dtype=torch.uint8))
            self.step = saved.step
        self.metrics.truncate(self.step)
        self.lineage.rewind(self.step, saved.lineage if saved else self.lineage.pending())

    def advance(self) -> str:
        """One step; returns a few words about it."""
        started = time.perf_counter()
        self.step += 1
        rate = schedule.learning_rate(self.step, self.config)
        batch = self.loader.next_batch()
        with _memory_errors(self.config):
            loss, grad_norm, reason = self._update(batch, rate)
        num_tokens = batch.loss_mask.size
        self.counters.num_tokens += num_tokens
        if reason is None:
            self.counters.loss, self.counters.skipped_in_a_row = loss, 0
        else:
            self.counters.num_skipped += 1
            self.counters.skipped_in_a_row += 1
            logger.warning("step %d was skipped: %s", self.step, reason)
        self.lineage.append(self.step, batch.spans, trained=reason is None)
        seconds = time.perf_counter() - started
        line = {
            "step": self.step, "loss": finite(loss), "learning_rate": rate, "grad_norm": finite(grad_norm),
            "tokens": num_tokens, "seconds": seconds, "tokens_per_second": num_tokens / seconds,
            "batch": batch.digest, "skipped": reason,
        }  # fmt: skip
        if self.validation_batches and self._validates():
            self.counters.validation_loss = line["validation_loss"] = finite(self._validation_loss())
        self.metrics.append(line)
        if self.counters.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise DivergenceError(
                f"{MAX_SKIPPED_IN_A_ROW} steps in a row had no finite loss and gradient (the last: step "
                f"{self.step}, {reason}). Nothing was learned from them. Lower training.learning_rate (now "
                f"{self.config.learning_rate:g}) or raise training.warmup_steps (now {self.config.warmup_steps})"
            )
        return f"loss {loss:.3f}, {num_tokens / seconds:,.0f} tokens/s"

    def save(self) -> None:
        if self.is_scheduled(self.step):
            self.lineage.flush(self.step)
        facts = {
            "loader": self.loader.state(),
            "counters": dataclasses.asdict(self.counters),
            "random_state": torch.get_rng_state().numpy().tobytes().hex(),
            **self._identity(),
        }
        state = Checkpoint(
            step=self.step,
            weights=dict(self.model.named_parameters()),
            moments=optimizer.moments(self.optimizer, self.model),
            facts=facts,
            lineage=self.lineage.pending(),
        )
        checkpoint.save(self.folder, state)
        checkpoint.prune(self.folder, self.step, keep=self.config.keep_checkpoints, is_scheduled=self.is_scheduled)

    def result(self) -> Trained:
        return Trained(
            model=self.model,
            steps=self.step,
            num_tokens=self.counters.num_tokens,
            num_skipped=self.counters.num_skipped,
            loss=self.counters.loss,
            validation_loss=self.counters.validation_loss,
        )

    def _update(self, batch: Arrays, rate: float) -> tuple[float, float, str | None]:
        """Learns from a batch; returns loss, gradient norm and, where it learned nothing, the reason."""
        self.optimizer.zero_grad(set_to_none=True)
        if not batch.loss_mask.any():
            return math.nan, math.nan, "no target of the batch counts"
        loss = self._loss(batch)
        if not math.isfinite(loss.item()):
            return loss.item(), math.nan, f"the loss is {loss.item()}"
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip).item()
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            return loss.item(), norm, f"the gradient norm is {norm}"
        optimizer.set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.counters.num_updates += 1
        return loss.item(), norm, None

    def _loss(self, batch: Arrays) -> Tensor:
        tokens_BT1 = torch.from_numpy(batch.tokens).to(self.device)
        documents_BT = torch.from_numpy(batch.documents).to(self.device) if batch.documents.any() else None
        x_BTC = self.model.hidden_states(
            tokens_BT1[:, :-1],
            positions_BT=torch.from_numpy(batch.positions).to(self.device),
            documents_BT=documents_BT,
        )
        loss_mask_BT = torch.from_numpy(batch.loss_mask).to(self.device)
        return next_token_loss(x_BTC, self.model.lm_head.weight, tokens_BT1[:, 1:], loss_mask_BT)

    def _validates(self) -> bool:
        return self.step % self.config.validation_steps == 0 or self.step == self.config.steps

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Nats per target over all validation rows, `batch_size` of them at a time."""
        total, count = 0.0, 0
        for batch in self.validation_batches:
            for rows in _slices(batch, self.config.batch_size):
                num_targets = int(rows.loss_mask.sum())
                if num_targets:
                    total += self._loss(rows).item() * num_targets
                    count += num_targets
        return total / count if count else math.nan

    def _identity(self) -> dict[str, Any]:
        """What must not change between the parts of one run."""
        settings = self.config.model_dump(mode="json", exclude=_FREE_SETTINGS)
        return {"model": dataclasses.asdict(self.model.config), "training": {**settings, "seed": self.seed}}

    def _check_same(self, saved: Checkpoint) -> None:
        for table, values in self._identity().items():
            known = saved.facts[table]
            changed = [
                f"{name} is {values.get(name)!r}, was {known.get(name)!r}"
                for name in sorted(values.keys() | known.keys())
                if values.get(name) != known.get(name)
            ]
            if changed:
                raise InputError(
                    f"cannot continue {self.folder} with other {table} settings: {'; '.join(changed)}. Use the "
                    "settings of the checkpoint, or another folder for a new run"
                )
        if saved.step > self.config.steps:
            raise InputError(
                f"{self.folder} is at step {saved.step} already, training.steps is {self.config.steps}; use at "
                "least as many steps, or another folder for a new run"
            )


# A run may be made longer (the schedule then stretches from where it stands), watched and saved otherwise.
_FREE_SETTINGS = {"steps", "checkpoint_steps", "keep_checkpoints", "validation_steps", "validation_sequences"}


@dataclasses.dataclass(frozen=True)
class _Rows:
    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    documents: NDArray[np.int32]
    positions: NDArray[np.int32]


def _slices(batch: Arrays, num_rows: int) -> Iterator[_Rows]:
    for start in range(0, len(batch.tokens), num_rows):
        rows = slice(start, start + num_rows)
        yield _Rows(batch.tokens[rows], batch.loss_mask[rows], batch.documents[rows], batch.positions[rows])


class _StopRequest:
    """Notes the first SIGINT or SIGTERM; a second one acts as if we were not here.

    Signals reach Python's main thread only; elsewhere nothing is installed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: object) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


@contextlib.contextmanager
def _memory_errors(config: Training) -> Iterator[None]:
    """Turns a failed allocation into a message that says what to lower."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MachineError(
                f"not enough memory for a step: {error}. Lower training.batch_size (now {config.batch_size}) or "
                "tokens.sequence_length, or use a smaller model"
            ) from error
        raise


def _refuse_many_processes() -> None:
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size not in ("", "1"):
        raise MachineError(
            f"WORLD_SIZE is {world_size}, but training runs in one process on one device; start it without a "
            "distributed launcher"
        )
