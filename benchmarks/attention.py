"""The attention back ends beside each other: forward and backward of one layer.

On a CUDA GPU: the heads of the 3B (24 queries, 2 keys, size 128, bf16), window 4,096, 16,384 tokens in rows of
4,096 and in one row, plain and packed with documents of about 1,000 tokens. `varlen` stands beside `flex` and
beside the reference (PyTorch's scaled_dot_product_attention with our blocks). FLOPs are counted over the pairs
that are seen (causality, window and borders), forward once and backward two and a half times, as flash kernels
compute it.

On a CPU, and on every machine: our reference beside one masked call over all pairs, which is what a plain program
does; float32, processor time of one core.

Equality is a row of its own: the largest difference of an output from the reference (on a GPU) or from the plain
call (on a CPU).
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import table
from starsmith.errors import StarsmithError
from starsmith.model.attention import AttentionBackend, attend, choose, see
from starsmith.training.throughput import visible_keys

_FLOPS_A_PAIR = 2 * 2 * 3.5
"""Two products forward and five backward, two FLOPs a multiply-add, for each head and each number of its size."""
_ROUNDS = {"small": 5, "full": 20}


@dataclass(frozen=True)
class Case:
    name: str
    num_rows: int
    num_tokens: int
    window: int
    num_heads: int
    num_groups: int
    head_dim: int
    document_tokens: int | None
    """Mean length of a document; None for one a row."""

    def documents(self) -> Tensor | None:
        """Documents of half to one and a half times the mean, on the CPU."""
        if self.document_tokens is None:
            return None
        random = np.random.default_rng(1)
        low, high = self.document_tokens // 2, 3 * self.document_tokens // 2
        ends = random.integers(low, high, (self.num_rows, 1 + self.num_tokens // low)).cumsum(axis=1)
        place = np.arange(self.num_tokens)
        return torch.from_numpy(np.stack([np.searchsorted(row, place, side="right") for row in ends]))

    def inputs(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)

        def drawn(num_heads: int) -> Tensor:
            shape = (self.num_rows, self.num_tokens, num_heads, self.head_dim)
            return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()

        return drawn(self.num_heads), drawn(self.num_groups), drawn(self.num_groups)

    def flops(self) -> float:
        documents_BT = self.documents()
        shape = (self.num_rows, self.num_tokens)
        runs = np.zeros(shape, np.int64) if documents_BT is None else documents_BT.numpy()
        pairs = visible_keys(runs, self.window) * self.num_rows * self.num_tokens
        return _FLOPS_A_PAIR * pairs * self.num_heads * self.head_dim


GPU_CASES = [
    Case(f"{length // 1024}k{', packed' if packed else ''}", 16_384 // length, length, 4_096, 24, 2, 128, packed)
    for length in (4_096, 16_384)
    for packed in (None, 1_000)
]
CPU_CASES = [
    Case("512 tokens, window 192", 8, 512, 192, 8, 4, 32, None),
    Case("512 tokens, window 192, packed", 8, 512, 192, 8, 4, 32, 200),
    Case("2,048 tokens, window 512", 1, 2_048, 512, 8, 4, 32, None),
]


def main() -> None:
    chosen = table.options(__doc__ or "")
    rows = [row for case in CPU_CASES for row in on_cpu(case, _ROUNDS[chosen.scale])]
    if torch.cuda.is_available():
        rows += [row for case in GPU_CASES for row in on_gpu(case, _ROUNDS[chosen.scale])]
    else:
        print("no CUDA GPU here: varlen, flex and the reference are not compared on one")
    table.publish(rows, ("torch",), chosen.json)


def on_cpu(case: Case, rounds: int) -> Iterator[table.Row]:
    """Our blocks beside one call with a mask of all pairs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    q, k, v = case.inputs(torch.device("cpu"), torch.float32)
    documents_BT = case.documents()
    seen = see(case.num_rows, case.num_tokens, case.window, documents_BT)
    place_T = torch.arange(case.num_tokens)
    distance_TT = place_T[:, None] - place_T
    mask = ((distance_TT >= 0) & (distance_TT < case.window))[None, None]
    if documents_BT is not None:
        mask = mask & (documents_BT[:, None, :, None] == documents_BT[:, None, None, :])

    def plain() -> Tensor:
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(*heads_first, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    def ours() -> Tensor:
        return attend(q, k, v, seen)

    difference = (ours() - plain()).abs().max().item()
    pairs = [(_cpu_seconds(ours), _cpu_seconds(plain)) for _ in range(rounds)]
    mine = statistics.median(pair[0] for pair in pairs)
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    torch.set_num_threads(threads)
    yield table.row(
        f"CPU, {case.name}", 1e3 * mine, "ms of one core", peer=1e3 * mine / ratio, peer_name="one masked call",
        target=1.0,
    )  # fmt: skip
    yield table.row(f"CPU, {case.name}: largest difference", difference, "of about 1", target=1e-5)


def on_gpu(case: Case, rounds: int) -> Iterator[table.Row]:
    """varlen beside flex and beside the reference; a back end that cannot run here says why and has no row."""
    device, dtype = torch.device("cuda"), torch.bfloat16
    q, k, v = case.inputs(device, dtype)
    outputs: dict[AttentionBackend, Tensor] = {}
    seconds: dict[AttentionBackend, float] = {}
    for backend in ("reference", "varlen", "flex"):
        try:
            choose(device, dtype, case.head_dim, backend)
            seen = see(
                case.num_rows, case.num_tokens, case.window, case.documents(), device=device, backend=backend
            )
            run = functools.partial(attend, q, k, v, seen)
            outputs[backend] = run().detach()
            seconds[backend] = _gpu_seconds(run, rounds)
        except (StarsmithError, RuntimeError) as error:
            print(f"GPU, {case.name}: {backend} is absent: {error}")
    flops = case.flops()
    for backend, taken in seconds.items():
        yield table.row(f"GPU, {case.name}: {backend}", flops / taken / 1e12, "TFLOP/s, forward and backward")
        difference = (outputs[backend] - outputs["reference"]).abs().max().item()
        if backend != "reference":
            yield table.row(f"GPU, {case.name}: {backend}, difference", difference, "of about 1", target=0.05)
    for peer in ("flex", "reference"):
        if {"varlen", peer} <= seconds.keys():
            yield table.row(
                f"GPU, {case.name}: varlen",
                1e3 * seconds["varlen"],
                "ms",
                peer=1e3 * seconds[peer],
                peer_name=peer,
            )


def _cpu_seconds(run: Callable[[], Tensor]) -> float:
    started = time.process_time()
    run().sum().backward()
    return time.process_time() - started


def _gpu_seconds(run: Callable[[], Tensor], rounds: int) -> float:
    """Median of forward and backward together, after three that compile and choose kernels."""
    gradient = torch.ones_like(run())
    taken = []
    for number in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run().backward(gradient)
        end.record()
        torch.cuda.synchronize()
        if number >= 3:
            taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
