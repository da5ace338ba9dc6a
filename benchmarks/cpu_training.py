"""A training step on the CPU beside `transformers`' StarCoder2: the same weights, batches, optimiser and work.

A step is the forward pass, the loss of every next token, the backward pass, clipping and fused AdamW, in float32,
of a model with 6.4 million parameters (6 layers of 256, vocabulary 8,192, window 192) on 8 sequences of 512 random
tokens. Ours are the training loop's own parts (`training.parallel`, `training.loss`, `training.optimizer`); the
peer is `Starcoder2ForCausalLM` with SDPA attention, its whole logits and `cross_entropy`, as in its own training
loss, and PyTorch's fused AdamW with the same groups.

* packed: several documents a row, attention within each (`transformers` finds them by positions that begin again);
* plain: one document a row.

Wall time uses all cores, processor time is taken in a run with one thread: the first is what people wait for, the
second does not change when others load the machine. Rounds alternate between ours and the peer, and the ratio is
the median over pairs of rounds that ran next to each other. Losses are compared before anything is timed, and once
more after all steps, when both have learned the same.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import table
from starsmith.model.configuration import Starcoder2Config, num_parameters
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware, Training
from starsmith.training import optimizer, parallel, throughput
from starsmith.training.world import ALONE

TARGET = 1.2
CONFIG = Starcoder2Config(
    vocab_size=8_192, hidden_size=256, intermediate_size=1_024, num_hidden_layers=6, num_attention_heads=8,
    num_key_value_heads=4, max_position_embeddings=1_024, sliding_window=192, rope_theta=10_000.0,
    initializer_range=0.05,
)  # fmt: skip
ROWS, LENGTH = 8, 512
ROUNDS = {"small": 2, "full": 12}
STEPS = {"small": 1, "full": 3}
"""Steps in one round."""
SETTINGS = Training(learning_rate=1e-3)


@dataclass(frozen=True)
class Batch:
    """Shapes: tokens (B, T + 1), the others (B, T)."""

    tokens: Tensor
    positions: Tensor
    documents: np.ndarray | None
    loss_mask: Tensor


Step = Callable[[Batch], float]
"""Learns from a batch; returns the loss."""


def main() -> None:
    chosen = table.options(__doc__ or "")
    rounds, steps = ROUNDS[chosen.scale], STEPS[chosen.scale]
    rows = [table.row("parameters", num_parameters(CONFIG) / 1e6, "million")]
    for packed in (True, False):
        rows += compare(batches(packed=packed), "packed" if packed else "plain", rounds, steps)
    table.publish(rows, ("torch", "transformers"), chosen.json)


def compare(given: list[Batch], name: str, rounds: int, steps: int) -> list[table.Row]:
    """Rows of one kind of batch."""
    ours, peer = our_step(), peer_step()
    differing = max(abs(ours(batch) - peer(batch)) for batch in given)  # also warms both up
    rows = []
    threads = torch.get_num_threads()
    for unit, clock, num_threads in (
        (f"tokens/s, wall, {threads} threads", time.perf_counter, threads),
        ("tokens/s of one processor", time.process_time, 1),
    ):
        torch.set_num_threads(num_threads)
        pairs = [(_seconds(ours, given, steps, clock), _seconds(peer, given, steps, clock)) for _ in range(rounds)]
        torch.set_num_threads(threads)
        tokens = steps * ROWS * LENGTH
        speed = tokens / statistics.median(mine for mine, _ in pairs)
        ratio = statistics.median(theirs / mine for mine, theirs in pairs)
        rows.append(
            table.row(
                name,
                speed,
                unit,
                peer=speed / ratio,
                peer_name="transformers",
                target=TARGET,
                direction="at least",
            )
        )
    torch.set_num_threads(1)
    peak = throughput.peak_flops(torch.device("cpu"), "fp32")
    torch.set_num_threads(threads)
    assert peak is not None
    used = rows[-1].ours * _flops_per_token(given[0])
    last = max(abs(ours(batch) - peer(batch)) for batch in given)
    return [
        *rows,
        table.row(f"{name}: MFU of one processor", 100 * used / peak, f"% of {peak / 1e9:.0f} GFLOP/s measured"),
        table.row(f"{name}: largest difference of a loss, first steps", differing, "nats", target=1e-4),
        table.row(f"{name}: the same after all steps", last, "nats", target=1e-2),
    ]


def batches(*, packed: bool, number: int = 2) -> list[Batch]:
    """Random tokens; documents of 30 to 400 tokens where packed."""
    random = np.random.default_rng(7)
    made = []
    for _ in range(number):
        documents_BT = np.zeros((ROWS, LENGTH), dtype=np.int32)
        positions_BT = np.tile(np.arange(LENGTH), (ROWS, 1))
        for row in range(ROWS if packed else 0):
            start = 0
            while start < LENGTH:
                end = min(LENGTH, start + int(random.integers(30, 400)))
                documents_BT[row, start:] = start
                positions_BT[row, start:end] = np.arange(end - start)
                start = end
        made.append(
            Batch(
                tokens=torch.from_numpy(random.integers(0, CONFIG.vocab_size, (ROWS, LENGTH + 1))),
                positions=torch.from_numpy(positions_BT),
                documents=documents_BT if packed else None,
                loss_mask=torch.ones(ROWS, LENGTH, dtype=torch.bool),
            )
        )
    return made


def our_step() -> Step:
    """The parts of `training.loop`, put together as it does."""
    with torch.device("meta"):
        model = Starcoder2(CONFIG)
    learner = parallel.lay_out(model, ALONE, Hardware(device="cpu"), "fp32")
    parallel.fill(model, model.fresh_weights(0))
    adamw = optimizer.build(model, SETTINGS)

    def step(batch: Batch) -> float:
        adamw.zero_grad(set_to_none=True)
        total = learner(batch.tokens, batch.positions, batch.documents, batch.loss_mask)
        loss = total / batch.loss_mask.sum()
        loss.backward()
        return _finish(model, adamw, loss)

    return step


def peer_step() -> Step:
    """`transformers`, with the same weights."""
    from transformers import Starcoder2Config as PeerConfig
    from transformers import Starcoder2ForCausalLM

    values = CONFIG.to_dict()
    peer = Starcoder2ForCausalLM._from_config(PeerConfig(**values), attn_implementation="sdpa")
    with torch.device("meta"):
        names = Starcoder2(CONFIG)
    weights = dict(names.fresh_weights(0))
    absent, unknown = peer.load_state_dict(weights, strict=False)
    assert not unknown and set(absent) <= {"lm_head.weight"}, (absent, unknown)
    peer.train()
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in peer.parameters() if p.ndim >= 2], "weight_decay": SETTINGS.weight_decay},
            {"params": [p for p in peer.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=SETTINGS.learning_rate,
        betas=(SETTINGS.beta1, SETTINGS.beta2),
        eps=SETTINGS.epsilon,
        fused=True,
    )

    def step(batch: Batch) -> float:
        adamw.zero_grad(set_to_none=True)
        logits_BTV = peer(batch.tokens[:, :-1], position_ids=batch.positions, use_cache=False).logits
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), batch.tokens[:, 1:].flatten())
        loss.backward()
        return _finish(peer, adamw, loss)

    return step


def _finish(model: nn.Module, adamw: torch.optim.Optimizer, loss: Tensor) -> float:
    torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.gradient_clip)
    adamw.step()
    return loss.item()


def _seconds(step: Step, given: list[Batch], steps: int, clock: Callable[[], float]) -> float:
    started = clock()
    for number in range(steps):
        step(given[number % len(given)])
    return clock() - started


def _flops_per_token(batch: Batch) -> float:
    documents_BT = np.zeros((ROWS, LENGTH), np.int32) if batch.documents is None else batch.documents
    return throughput.flops_per_token(CONFIG, throughput.visible_keys(documents_BT, CONFIG.sliding_window))


if __name__ == "__main__":
    main()
