"""The training benchmarks measure what they say: checked in small, where there is no GPU and no time to lose."""

import dataclasses

import pytest
import torch

from benchmarks import cpu_training, gpu_training
from starsmith.recipe import Hardware
from starsmith.training.world import join

TINY = dataclasses.replace(
    gpu_training.published(), vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("packed", [False, True])
def test_both_sides_of_the_cpu_benchmark_learn_the_same(packed, monkeypatch):
    smaller = dataclasses.replace(cpu_training.CONFIG, num_hidden_layers=2, vocab_size=512)
    monkeypatch.setattr(cpu_training, "CONFIG", smaller)
    monkeypatch.setattr(cpu_training, "ROWS", 2)
    ours, peer = cpu_training.our_step(), cpu_training.peer_step()
    (batch,) = cpu_training.batches(packed=packed, number=1)
    losses = [(ours(batch), peer(batch)) for _ in range(4)]
    assert losses[-1][0] < losses[0][0], "and they do learn"
    for mine, theirs in losses:
        assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("again", ["none", "full"])
def test_the_gpu_benchmark_runs_through_the_training_code(again, monkeypatch):
    monkeypatch.setattr(gpu_training, "MICRO_BATCHES", 2)
    hardware = Hardware(device="cpu", micro_batch_size=1, activation_checkpointing=again)
    with join(hardware, "bf16") as world:
        found = gpu_training.measure(TINY, 64, 1, hardware, world)
    assert found.tokens_per_second > 0 and found.mfu is not None and 0 < found.mfu < 1
    assert gpu_training.estimated_bytes(TINY, 64, hardware, 1) > 0


def test_the_peer_of_the_gpu_benchmark_takes_a_step(monkeypatch):
    monkeypatch.setattr(gpu_training, "MICRO_BATCHES", 2)
    cpu = torch.device("cpu")
    step = gpu_training.peer_step(TINY, cpu, recomputes=True)
    assert gpu_training._tokens_per_second(step, gpu_training._random_batches(TINY, 1, 64, cpu), cpu) > 0
