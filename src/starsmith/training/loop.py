"""The training loop: AdamW on next-token loss, on any number of ranks.

What is exact: a run that is stopped or killed at any moment and started again ends with the same weights, losses
and lineage, bit for bit, as one that was not (on one machine with one number of threads and ranks: floating-point
sums depend on them). At another number of ranks it sees the same tokens, step by step, and differs by rounding.
Everything is a function of the seed, the loader's state and the step.

The loss of a step is the sum over all targets of the global batch, divided by their number; a rank runs over its
rows in micro-batches and their gradients add up. Two messages pass between ranks in a step: what the batch holds,
on the CPU before it is learned from, and the sum of the loss together with whether somebody was told to stop. The
host waits for the device once, to see loss and gradient norm before the update: a few milliseconds a step, for
never learning from a bad one.

What is never silent: a step whose loss or gradient is not finite, or leaps out of what was usual, changes nothing,
is counted and written to the metrics with its reason; ten in a row end the run. Steps are numbered from 1; "step
10" is the tenth.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from starsmith.errors import InputError, MachineError, StarsmithError
from starsmith.model import lora
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware, Training
from starsmith.tokens.loader import global_digest, merge_states
from starsmith.training import interventions, optimizer, parallel, schedule, spikes, throughput
from starsmith.training.batches import Arrays, Loader, micro_batches, without_targets
from starsmith.training.checkpoint import FOLDER, WEIGHTS, Checkpoint, Checkpoints, Saved
from starsmith.training.lineage import LineageLog
from starsmith.training.metrics import MetricsLog, StepFacts, finite, peak_memory_bytes
from starsmith.training.stopping import StopRequest
from starsmith.training.world import ALONE, World

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10

Progress = Callable[[int, int, str], None]
"""Called on the first rank after each step with (steps done, steps in all, a few words on how it goes)."""

Weights = Callable[[], Iterable[tuple[str, Tensor]]]
"""Opens a stream of whole tensors by name."""


class DivergenceError(StarsmithError):
    """Too many steps in a row that could not be learned from."""


class TrainingStoppedError(StarsmithError):
    """SIGINT or SIGTERM; a checkpoint was written."""

    exit_code = 130


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run."""

    folder: Path
    model: Starcoder2
    """This rank's; whole on one rank only."""
    steps: int
    num_tokens: int
    """Inputs of all steps."""
    num_skipped: int
    """Steps that learned nothing."""
    loss: float | None
    """Of the last step that learned, nats per target."""
    validation_loss: float | None
    """Of the last step; None without validation data."""
    adapted: Weights | None = None
    """What an adapter was trained on; None without LoRA."""

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The whole weights one by one, by one rank for itself: read from the last checkpoint, and for an adapter
        merged into those that the run started from."""
        saved = _checkpoints(self.folder, ALONE).latest()
        assert saved is not None, "a finished run has saved its last step"
        if self.adapted is None:
            return saved.weights()
        adapter = lora.extract(self.model)
        weights = dict(saved.weights())
        return lora.merged(self.adapted(), dataclasses.replace(adapter, weights=weights))


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
    world: World = ALONE,
    hardware: Hardware | None = None,
    start: Weights | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Trained:
    """Trains to step `config.steps`, from the newest whole checkpoint in `folder` where there is one.

    Called by every rank alike.

    Args:
        folder: receives `checkpoints/`, `metrics.jsonl` and `lineage/`; the same for all ranks.
        loader: the batches of this rank; its state is saved and restored.
        validation_batches: measured every `validation_steps` and at the end, the same on all ranks; may be empty.
        model_config: the shape. Its `rope_theta` may differ from that of the weights to start from.
        config: what is learned; of a later stage, `LongContext.settings`.
        seed: of the initial weights, where there is no `start`.
        world: the ranks, from `world.join`.
        hardware: micro-batches, recomputation, compilation, attention.
        start: weights to go on from (an earlier stage's, a published model's); opened when the run
            begins, and with LoRA each time it goes on.
        progress: see its type.

    Raises:
        InputError: the settings contradict each other, or are not those of the checkpoint.
        MachineError: no space, no memory, or the batch cannot be shared by the ranks.
        DivergenceError: ten steps in a row were skipped.
        TrainingStoppedError: a rank was told to stop by SIGINT or SIGTERM; all have saved the same step.
    """
    schedule.check(config)
    with StopRequest() as stop:
        run = _Run(
            folder, loader, validation_batches, model_config, config,
            seed=seed, world=world, hardware=hardware or Hardware(), stop=stop,
        )  # fmt: skip
        with contextlib.closing(run.metrics), run.checkpoints:
            run.resume(start)
            while run.step < config.steps:
                run.advance()
                if run.is_to_be_saved(run.step):
                    run.save()
                if world.is_first:
                    progress(run.step, config.steps, run.metrics.text())
                if run.told_to_stop() and run.step < config.steps:
                    if not run.is_to_be_saved(run.step):
                        run.save()
                    run.checkpoints.finish()
                    raise TrainingStoppedError(
                        f"training was told to stop after step {run.step} of {config.steps}; a checkpoint is in "
                        f"{folder / FOLDER}, run again to continue"
                    )
            run.checkpoints.finish()
        return run.result(start)


class _Run:
    """The state of a run in progress."""

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        validation_batches: Sequence[Arrays],
        model_config: Starcoder2Config,
        config: Training,
        *,
        seed: int,
        world: World,
        hardware: Hardware,
        stop: StopRequest,
    ) -> None:
        self.folder, self.loader, self.config, self.seed = folder, loader, config, seed
        self.world, self.hardware, self.stop = world, hardware, stop
        self.validation_batches = validation_batches
        rows = world.rows(config.batch_size)
        self.micro_batch_size = min(hardware.micro_batch_size or rows, rows)
        backend = None if hardware.attention == "auto" else hardware.attention
        with torch.device("meta"):
            self.model = Starcoder2(model_config, attention_backend=backend)
        if config.lora is not None:
            lora.apply(self.model, **config.lora.model_dump(), seed=seed)
        self.learner = parallel.lay_out(self.model, world, hardware, config.precision)
        self.optimizer = optimizer.build(self.model, config)
        self.step = 0
        self.counters, self.recent = _Counters(), spikes.Recent()
        self.interventions: list[interventions.Rewind] = []
        self._intervention: str | None = None  # for the line of the next step
        self._told_to_stop = False
        folder.mkdir(parents=True, exist_ok=True)
        peak = throughput.peak_flops(world.device, config.precision) if world.is_first else None
        self.metrics = MetricsLog(
            folder,
            num_steps=config.steps,
            peak_flops=None if peak is None else peak * world.size,
            event_files=hardware.tensorboard and world.is_first,
        )
        self.lineage = LineageLog(folder, gather=world.gather, is_first=world.is_first)
        self.checkpoints = _checkpoints(folder, world, config, self.is_scheduled)

    def is_scheduled(self, step: int) -> bool:
        return step % self.config.checkpoint_steps == 0 or step == self.config.steps

    def is_to_be_saved(self, step: int) -> bool:
        """Also midway between scheduled steps: writing goes on while the run does, and each save waits for the one
        before it, so that at any moment the newest whole checkpoint is at most `checkpoint_steps` behind."""
        midway = self.config.checkpoint_steps // 2
        return self.is_scheduled(step) or (midway > 0 and step % self.config.checkpoint_steps == midway)

    def told_to_stop(self) -> bool:
        """Whether all ranks know that one of them was; one rank alone need not wait for the next message."""
        return self._told_to_stop or (self.world.size == 1 and self.stop.requested)

    def resume(self, start: Weights | None) -> None:
        """Takes up the newest whole checkpoint, and drops what was logged after it."""
        saved = self.checkpoints.latest()
        self.interventions = interventions.read(self.folder)
        rewind = None if saved is None else interventions.outstanding(self.interventions, saved.facts)
        if rewind is not None:
            saved = self._go_back(rewind)
        if saved is None or self.config.lora is not None:  # an adapter's checkpoints have no base
            self._begin(start)
        if saved is not None:
            self._take_up(saved)
        if rewind is not None:
            self.loader.skip(rewind.skip_batches)
            self._intervention = str(rewind)
            logger.warning("%s", self._intervention)
        if self.world.is_first:
            self.metrics.truncate(self.step)
        self.lineage.rewind(self.step, saved.lineage if saved else self.lineage.pending())
        self.world.barrier()  # nobody adds to files that the first rank still cuts

    def advance(self) -> None:
        """One step."""
        started = time.perf_counter()
        self.step += 1
        rate = schedule.learning_rate(self.step, self.config)
        batch = self.loader.next_batch()
        waited = time.perf_counter() - started
        keys = throughput.visible_keys(batch.documents, self.model.config.sliding_window)
        told = self.world.gather((int(batch.loss_mask.sum()), keys, batch.row_digests))
        num_targets = sum(targets for targets, _, _ in told)
        with _memory_errors(self.micro_batch_size):
            loss, grad_norm, reason = self._update(batch, rate, num_targets)
        num_tokens = batch.loss_mask.size * self.world.size
        self.counters.num_tokens += num_tokens
        if reason is None:
            self.counters.loss, self.counters.skipped_in_a_row = loss, 0
            self.recent = self.recent.after(loss, grad_norm, self.config.spike_window)
        else:
            self.counters.num_skipped += 1
            self.counters.skipped_in_a_row += 1
            if self.world.is_first:
                logger.warning("step %d was skipped: %s", self.step, reason)
        self.lineage.append(self.step, batch.spans, trained=reason is None)
        seconds = time.perf_counter() - started
        validation_loss = None
        if self.validation_batches and self._validates():
            validation_loss = self._validation_loss()
            self.counters.validation_loss = finite(validation_loss)
        if self.world.is_first:
            keys = sum(keys for _, keys, _ in told) / len(told)
            shape, recomputed = self.model.config, self.hardware.activation_checkpointing
            facts = StepFacts(
                step=self.step, loss=loss, learning_rate=rate, grad_norm=grad_norm, num_tokens=num_tokens,
                num_targets=num_targets, seconds=seconds, data_wait_seconds=waited,
                flops=num_tokens * throughput.flops_per_token(shape, keys, frozen=self.config.lora is not None),
                recomputed_flops=num_tokens * throughput.recomputed_flops_per_token(shape, keys, recomputed),
                memory_bytes=peak_memory_bytes(self.world.device),
                batch=global_digest([digest for _, _, digests in told for digest in digests]),
                skipped=reason, intervention=self._intervention, validation_loss=validation_loss,
            )  # fmt: skip
            self.metrics.append(facts)
        self._intervention = None
        if self.counters.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise DivergenceError(
                f"{MAX_SKIPPED_IN_A_ROW} steps in a row could not be learned from (the last: step {self.step}, "
                f"{reason}). Lower training.learning_rate (now {self.config.learning_rate:g}) or raise "
                f"training.warmup_steps (now {self.config.warmup_steps}); if all was well before, `starsmith "
                "rewind` goes back and leaves out the batches that did it"
            )

    def save(self) -> None:
        if self.is_scheduled(self.step):
            self.lineage.flush(self.step)
        tensors = {f"{WEIGHTS}{name}": parameter for name, parameter in self._learning()}
        facts = {
            "loader": merge_states(self.world.gather(self.loader.state())),
            "counters": dataclasses.asdict(self.counters),
            "recent": dataclasses.asdict(self.recent),
            "interventions": [dataclasses.asdict(line) for line in self.interventions],
            **self._identity(),
        }
        self.checkpoints.save(
            Checkpoint(
                step=self.step,
                tensors=tensors | optimizer.moments(self.optimizer, self.model),
                facts=facts,
                lineage=self.lineage.pending(),
            )
        )
        if self.config.checkpoint_steps == 1:  # there is no midway
            self.checkpoints.finish()

    def result(self, start: Weights | None) -> Trained:
        return Trained(
            adapted=None if self.config.lora is None else start,
            folder=self.folder,
            model=self.model,
            steps=self.step,
            num_tokens=self.counters.num_tokens,
            num_skipped=self.counters.num_skipped,
            loss=self.counters.loss,
            validation_loss=self.counters.validation_loss,
        )

    def _go_back(self, rewind: interventions.Rewind) -> Saved:
        """The checkpoint of a rewind, after removing those that come later."""
        saved = self.checkpoints.at_or_before(rewind.to_step)
        if saved is None or saved.step != rewind.to_step:
            raise MachineError(
                f"cannot rewind {self.folder} to step {rewind.to_step} as asked: its checkpoint is not whole any "
                f"more. Take the last line off {self.folder / interventions.FILE} to go on without rewinding"
            )
        self.checkpoints.drop_after(rewind.to_step)
        return saved

    def _begin(self, start: Weights | None) -> None:
        if self.config.lora is None:
            parallel.fill(self.model, self.model.fresh_weights(self.seed) if start is None else start())
            return
        if start is None:
            raise InputError("training.lora adapts a trained model: name it with model.start, or leave out lora")
        parallel.fill(self.model, start())
        lora.initialise(self.model, seed=self.seed)

    def _take_up(self, saved: Saved) -> None:
        self._check_same(saved)
        self.loader.load_state(saved.facts["loader"])
        self.counters = _Counters(**saved.facts["counters"])
        self.recent = spikes.Recent(**saved.facts["recent"])
        weights = {f"{WEIGHTS}{name}": parameter for name, parameter in self._learning()}
        saved.fill({**weights, **optimizer.allocate(self.optimizer, self.model, self.counters.num_updates)})
        self.step = saved.step

    def _learning(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, each) for name, each in self.model.named_parameters() if each.requires_grad)

    def _update(self, batch: Arrays, rate: float, num_targets: int) -> tuple[float, float, str | None]:
        """Learns from a batch; returns loss, gradient norm and, where it learned nothing, the reason."""
        self.optimizer.zero_grad(set_to_none=True)
        device = self.world.device
        total, norm = torch.zeros((), device=device), torch.full((), math.nan, device=device)
        if num_targets:
            slices = list(micro_batches(batch, self.micro_batch_size))
            for number, rows in enumerate(slices, start=1):
                parallel.sums_over_copies(self.learner, number == len(slices))
                loss_sum = self._loss_sum(rows)
                # FSDP takes the mean of the ranks' gradients
                (loss_sum * (self.world.size / num_targets)).backward()  # type: ignore[no-untyped-call]
                total += loss_sum.detach()
            norm = self._clip()
        sums = self.world.sum(torch.stack((total, torch.tensor(float(self.stop.requested), device=device))))
        total_loss, num_told, grad_norm = torch.cat((sums, norm[None])).tolist()
        self._told_to_stop = num_told > 0
        loss = total_loss / num_targets if num_targets else math.nan
        reason = self._fault(loss, grad_norm, num_targets)
        if reason is None:
            optimizer.set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
            self.counters.num_updates += 1
        else:
            self.optimizer.zero_grad(set_to_none=True)
        return loss, grad_norm, reason

    def _clip(self) -> Tensor:
        """Scales the gradient to at most the norm that is allowed; returns the norm that it had."""
        learning = [parameter for _, parameter in self._learning()]
        norm = torch.nn.utils.get_total_norm([each.grad for each in learning if each.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        torch.nn.utils.clip_grads_with_norm_(learning, self.config.gradient_clip, norm)
        return norm

    def _fault(self, loss: float, grad_norm: float, num_targets: int) -> str | None:
        """Why a step must not be learned from."""
        if not num_targets:
            return "no target of the batch counts"
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient norm is {grad_norm}"
        return spikes.spike(
            self.recent, loss, grad_norm, sigma=self.config.spike_sigma, window=self.config.spike_window
        )

    def _loss_sum(self, batch: Arrays) -> Tensor:
        device = self.world.device
        loss: Tensor = self.learner(
            torch.from_numpy(batch.tokens).to(device, non_blocking=True),
            torch.from_numpy(batch.positions).to(device, non_blocking=True),
            batch.documents if batch.documents.any() else None,
            torch.from_numpy(batch.loss_mask).to(device, non_blocking=True),
        )
        return loss

    def _validates(self) -> bool:
        return self.step % self.config.validation_steps == 0 or self.step == self.config.steps

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Nats per target over all validation rows, which the ranks share micro-batch by micro-batch."""
        total, count = torch.zeros((), device=self.world.device), 0
        for batch in self.validation_batches:
            slices = list(micro_batches(batch, self.micro_batch_size))
            while len(slices) % self.world.size:  # all ranks gather weights alike
                slices.append(without_targets(slices[0]))
            for rows in slices[self.world.rank :: self.world.size]:
                total += self._loss_sum(rows)
            count += int(batch.loss_mask.sum())
        parallel.free_gathered(self.learner)
        return self.world.sum(total).item() / count if count else math.nan

    def _identity(self) -> dict[str, Any]:
        """What must not change between the parts of one run."""
        settings = self.config.model_dump(mode="json", exclude=_FREE_SETTINGS)
        return {"model": dataclasses.asdict(self.model.config), "training": {**settings, "seed": self.seed}}

    def _check_same(self, saved: Saved) -> None:
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
_FREE_SETTINGS = {
    "steps", "checkpoint_steps", "keep_checkpoints", "keep_every", "validation_steps", "validation_sequences",
}  # fmt: skip


def _checkpoints(
    folder: Path,
    world: World,
    config: Training | None = None,
    is_scheduled: Callable[[int], bool] = lambda step: True,
) -> Checkpoints:
    config = config or Training()
    return Checkpoints(
        folder, world, keep=config.keep_checkpoints, keep_every=config.keep_every, is_scheduled=is_scheduled
    )


@contextlib.contextmanager
def _memory_errors(micro_batch_size: int) -> Iterator[None]:
    """Turns a failed allocation into a message that says what to lower."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MachineError(
                f"not enough memory for a step: {error}. Lower hardware.micro_batch_size (now {micro_batch_size}) "
                "or tokens.sequence_length, set hardware.activation_checkpointing, or use a smaller model"
            ) from error
        raise
