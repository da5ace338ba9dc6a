"""Training the 3B on one GPU: tokens a second and MFU at 4,096 and at 16,384 tokens, beside `transformers`.

A step is what the training loop does with a batch of random tokens, one document a row: micro-batches forward and
backward in bfloat16 with float32 weights and sums, clipping, fused AdamW; compiled layers; the loop's own parts
(`training.parallel`, `training.loss`, `training.optimizer`). Eight micro-batches make a step (in training it is
more). MFU is the model's arithmetic, attention counted causally and in its window, of the dense bfloat16 peak
(`training.throughput`); what is computed again to save memory does not count.

How many sequences go into a micro-batch and what is computed again is the first setting of a list that
`training.estimate` says fits; when memory ends nevertheless, the next is taken. A row sets the estimate beside the
measured peak. The peer is `Starcoder2ForCausalLM` with SDPA attention under autocast, activation checkpointing
where ours computes something again, float32 weights and the same optimiser, on the same batches; where its memory
ends it has no row.

`--scale small` has 4 of the 30 layers. Without a GPU there is nothing to measure, and it says so.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from benchmarks import table
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware, Model, Training
from starsmith.training import estimate, optimizer, parallel, throughput
from starsmith.training.metrics import peak_memory_bytes
from starsmith.training.world import World, join

TARGETS = {4_096: 45.0, 16_384: 42.0}
"""Sequence length to MFU in percent."""
SMALL_LAYERS = 4
MICRO_BATCHES = 8
WARM_STEPS, TIMED_STEPS = 2, 3
_SETTINGS = (
    ("none", 16_384), ("none", 8_192), ("none", 4_096), ("selective", 8_192), ("selective", 4_096), ("full", 4_096)
)  # fmt: skip
"""What is computed again, and tokens of a micro-batch (or one row, where that is longer); the fastest first."""
_MARGIN = 0.95  # of the memory, which the estimate may fill

Step = Callable[[list[Tensor]], None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one trainer at one length."""

    tokens_per_second: float
    mfu: float | None
    memory_bytes: int
    hardware: Hardware
    rows: int


def main() -> None:
    chosen = table.options(__doc__ or "")
    if not torch.cuda.is_available():
        print("PyTorch sees no GPU here, so the training of the 3B was not measured.")
        table.publish([], ("torch", "transformers"), chosen.json)
        return
    config = published()
    if chosen.scale == "small":
        config = replace(config, num_hidden_layers=SMALL_LAYERS)
    rows: list[table.Row] = []
    for length, target in TARGETS.items():
        rows += compare(config, length, target if chosen.scale == "full" else None)
    print(f"one {torch.cuda.get_device_name()}, {config.num_hidden_layers} layers")
    table.publish(rows, ("torch", "transformers"), chosen.json)


def published() -> Starcoder2Config:
    return Starcoder2Config(vocab_size=49_152, **Model(preset="3b").model_dump(exclude={"preset", "start"}))


def compare(config: Starcoder2Config, length: int, target: float | None) -> list[table.Row]:
    """Rows of one sequence length."""
    name = f"3B at {length:,}"
    with join(Hardware(device="cuda"), "bf16") as world:
        measured = first_that_fits(config, length, world)
    if measured is None:
        return [table.row(f"{name}: no setting fits this GPU", 0.0, "tokens/s")]
    peer = peer_speed(config, length, measured)
    counted = estimated_bytes(config, length, measured.hardware, measured.rows)
    again = measured.hardware.activation_checkpointing
    rows = [
        table.row(
            f"{name}, {measured.rows} rows, recomputing {again}",
            measured.tokens_per_second,
            "tokens/s",
            peer=peer,
            peer_name=None if peer is None else "transformers",
        ),
        table.row(
            f"{name}: memory", measured.memory_bytes / 2**30, "GiB", peer=counted / 2**30, peer_name="estimate"
        ),
    ]
    if measured.mfu is not None:
        rows.insert(1, table.row(f"{name}: MFU", 100 * measured.mfu, "%", target=target, direction="at least"))
    if peer is None:
        print(f"transformers ran out of memory for {name} with the same batches")
    return rows


def first_that_fits(config: Starcoder2Config, length: int, world: World) -> Measured | None:
    """Measures with the first setting that memory allows."""
    room = _MARGIN * torch.cuda.get_device_properties(world.device).total_memory
    settings = list(dict.fromkeys((again, max(1, tokens // length)) for again, tokens in _SETTINGS))
    for again, rows in settings:
        hardware = Hardware(device="cuda", micro_batch_size=rows, activation_checkpointing=again, compile=True)
        if estimated_bytes(config, length, hardware, rows) <= room:
            _forget(world.device)
            with contextlib.suppress(torch.OutOfMemoryError):
                return measure(config, length, rows, hardware, world)
    return None


def measure(config: Starcoder2Config, length: int, rows: int, hardware: Hardware, world: World) -> Measured:
    """Speed and memory of our step."""
    with torch.device("meta"):
        model = Starcoder2(config)
    learner = parallel.lay_out(model, world, hardware, "bf16")
    _randomise(model, config)
    adamw = optimizer.build(model, Training(precision="bf16", learning_rate=1e-5))
    positions_BT = torch.arange(length, device=world.device).expand(rows, length)
    everything_BT = torch.ones(rows, length, dtype=torch.bool, device=world.device)

    def step(micro_batches: list[Tensor]) -> None:
        adamw.zero_grad(set_to_none=True)
        num_targets = len(micro_batches) * rows * length
        for number, tokens_BT1 in enumerate(micro_batches, start=1):
            parallel.sums_over_copies(learner, number == len(micro_batches))
            total = learner(tokens_BT1, positions_BT, None, everything_BT)
            (total / num_targets).backward()
        parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        nn.utils.clip_grads_with_norm_(parameters, 1.0, norm.full_tensor() if isinstance(norm, DTensor) else norm)
        adamw.step()

    speed = _tokens_per_second(step, _random_batches(config, rows, length, world.device), world.device)
    peak = throughput.peak_flops(world.device, "bf16")
    mean_keys = throughput.mean_visible_keys(length, config.sliding_window)
    return Measured(
        tokens_per_second=speed,
        mfu=None if peak is None else speed * throughput.flops_per_token(config, mean_keys) / peak,
        memory_bytes=peak_memory_bytes(world.device),
        hardware=hardware,
        rows=rows,
    )


def peer_speed(config: Starcoder2Config, length: int, ours: Measured) -> float | None:
    """Tokens a second of `transformers` on the same micro-batches; None where its memory ends."""
    device = torch.device("cuda", 0)
    _forget(device)
    with contextlib.suppress(torch.OutOfMemoryError):
        step = peer_step(config, device, ours.hardware.activation_checkpointing != "none")
        return _tokens_per_second(step, _random_batches(config, ours.rows, length, device), device)
    _forget(device)
    return None


def peer_step(config: Starcoder2Config, device: torch.device, recomputes: bool) -> Step:
    from transformers import Starcoder2Config as PeerConfig
    from transformers import Starcoder2ForCausalLM

    with device:
        peer = Starcoder2ForCausalLM._from_config(PeerConfig(**config.to_dict()), attn_implementation="sdpa")
    peer.train()
    if recomputes:
        peer.activation_checkpointing_enable()
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(micro_batches: list[Tensor]) -> None:
        adamw.zero_grad(set_to_none=True)
        for tokens_BT1 in micro_batches:
            with torch.autocast(device.type, torch.bfloat16):
                logits_BTV = peer(tokens_BT1[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT1[:, 1:].flatten())
            (loss / len(micro_batches)).backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        adamw.step()

    return step


def estimated_bytes(config: Starcoder2Config, length: int, hardware: Hardware, rows: int) -> int:
    """What `training.estimate` says of this setting."""
    training = Training(precision="bf16", batch_size=rows * MICRO_BATCHES)
    devices = estimate.here(hardware, "bf16", count=1)
    return estimate.estimate(config, training, training, length, hardware, devices).memory_bytes


def _tokens_per_second(step: Step, micro_batches: list[Tensor], device: torch.device) -> float:
    for _ in range(WARM_STEPS):
        step(micro_batches)
    _synchronise(device)
    started = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step(micro_batches)
    _synchronise(device)
    inputs = sum(tokens_BT1[:, 1:].numel() for tokens_BT1 in micro_batches)
    return TIMED_STEPS * inputs / (time.perf_counter() - started)


def _random_batches(config: Starcoder2Config, rows: int, length: int, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(config.vocab_size, (rows, length + 1), generator=generator).to(device)
        for _ in range(MICRO_BATCHES)
    ]


@torch.no_grad()
def _randomise(model: Starcoder2, config: Starcoder2Config) -> None:
    """Weights like fresh ones, drawn on the device: billions of them take a minute on the CPU."""
    for parameter in _local(model):
        if parameter.ndim >= 2:
            parameter.normal_(std=config.initializer_range)
        else:
            parameter.fill_(1.0)


def _local(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        yield parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget(device: torch.device) -> None:
    """Frees what an earlier measurement held, and its peak."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


if __name__ == "__main__":
    main()
