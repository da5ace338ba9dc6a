"""Several ranks: the same tokens and nearly the same numbers as one, whatever happens to one of them.

The ranks are processes on the CPU (`ranks.py`); they run all their scenarios in one start.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from artificial_language import MODEL, FakeLoader, training_settings

from starsmith.errors import MachineError
from starsmith.recipe import Hardware
from starsmith.training import metrics
from starsmith.training import world as world_module
from starsmith.training.loop import train
from starsmith.training.world import ALONE, World, join

SCENARIOS = ("fsdp", "hsdp", "bf16", "stopped", "continued", "nan_on_one_rank", "refused")


class KilledError(Exception):
    pass


def alone(folder, config, model_config, **options):
    return train(
        folder, FakeLoader(uneven=True), [FakeLoader(seed=5, batch_size=3).batch(0)], model_config, config,
        seed=1, **options,
    )  # fmt: skip


def launch(folder, *scenarios, restarts=0):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        f"--max-restarts={restarts}", str(Path(__file__).with_name("ranks.py")), str(folder), *scenarios,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Folder with the runs of two ranks, beside one of one rank that saw the same (`one`)."""
    folder = tmp_path_factory.mktemp("ranks")
    alone(folder / "one", training_settings(), MODEL)

    def kill(done, total, text):
        if done == 7:
            raise KilledError

    with pytest.raises(KilledError):
        alone(folder / "continued", training_settings(), MODEL, progress=kill)
    ended = launch(folder, *SCENARIOS)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return folder


def said(folder, scenario):
    return [json.loads((folder / f"{scenario}.{rank}.json").read_text()) for rank in range(2)]


def lines(folder, *keys):
    return [tuple(line.get(key) for key in keys) for line in metrics.read(folder)]


def lineage(folder):
    return {part.name: pq.read_table(part) for part in sorted((folder / "lineage").iterdir())}


@pytest.mark.parametrize("scenario", ["fsdp", "hsdp", "continued"])
def test_two_ranks_see_the_same_and_learn_nearly_the_same(scenario, ranks):
    one, two = ranks / "one", ranks / scenario
    keys = ("step", "batch", "tokens", "num_targets", "learning_rate", "skipped")
    assert lines(two, *keys) == lines(one, *keys)
    assert lineage(two) == lineage(one)
    for (loss, norm), (expected_loss, expected_norm) in zip(
        lines(two, "loss", "grad_norm"), lines(one, "loss", "grad_norm"), strict=True
    ):
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert norm == pytest.approx(expected_norm, rel=1e-4)
    first, second = said(ranks, scenario)
    assert (first["loss"], first["validation_loss"]) == (second["loss"], second["validation_loss"])
    expected = lines(one, "validation_loss")[-1][0]
    assert first["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_each_rank_holds_half(ranks, model_config):
    assert [found["rows_of_embedding"] for found in said(ranks, "fsdp")] == [model_config.vocab_size // 2] * 2


@pytest.mark.parametrize("scenario", ["fsdp", "hsdp"])
def test_the_weights_of_two_ranks_go_on_as_one(scenario, ranks, tmp_path, model_config):
    """Loaded by one rank, both end alike; and the exported weights are these."""
    two = alone(ranks / scenario, training_settings(), model_config)
    one = alone(ranks / "one", training_settings(), model_config)
    for name, weight in one.model.named_parameters():
        assert torch.allclose(two.model.get_parameter(name), weight, atol=1e-5), name
    exported = dict(two.weights())
    assert exported.keys() == dict(two.model.named_parameters()).keys()
    for name, weight in two.model.named_parameters():
        assert torch.equal(exported[name], weight), name


def test_bfloat16_on_two_ranks_is_near_float32_on_one(ranks):
    for (loss, batch), (expected, same) in zip(
        lines(ranks / "bf16", "loss", "batch"), lines(ranks / "one", "loss", "batch"), strict=True
    ):
        assert batch == same
        assert loss == pytest.approx(expected, rel=5e-3)
        assert loss != expected


def test_one_rank_told_to_stop_stops_all_at_one_step(ranks, model_config):
    first, second = said(ranks, "stopped")
    assert "told to stop after step 7 of 12" in first["error"]
    assert first == second
    assert [step for (step,) in lines(ranks / "stopped", "step")] == list(range(1, 8))
    alone(ranks / "stopped", training_settings(), model_config)  # at another number of ranks
    assert lines(ranks / "stopped", "step", "batch") == lines(ranks / "one", "step", "batch")
    assert lineage(ranks / "stopped") == lineage(ranks / "one")


def test_a_fault_on_one_rank_is_a_fault_of_the_step(ranks):
    assert [found["num_skipped"] for found in said(ranks, "nan_on_one_rank")] == [1, 1]
    assert [bool(skipped) for (skipped,) in lines(ranks / "nan_on_one_rank", "skipped")] == [
        False, True, False, False,
    ]  # fmt: skip
    assert "the loss is nan" in lines(ranks / "nan_on_one_rank", "skipped")[1][0]


def test_a_batch_that_cannot_be_shared_is_refused(ranks):
    for found in said(ranks, "refused"):
        assert found["kind"] == "MachineError"
        assert "2 processes cannot share a batch of 3 sequences equally" in found["error"]


def test_a_rank_that_is_killed_is_started_again_and_nothing_changes(ranks, tmp_path):
    ended = launch(tmp_path, "killed_once", restarts=1)
    assert ended.returncode == 0, ended.stderr[-4000:]
    for found, expected in zip(said(tmp_path, "killed_once"), said(ranks, "fsdp"), strict=True):
        assert (found["loss"], found["validation_loss"]) == (expected["loss"], expected["validation_loss"])
        assert found["batches"] in (5, 7)  # from step 7, or from step 5 where that was not written yet
    keys = ("step", "loss", "grad_norm", "batch", "validation_loss")
    assert lines(tmp_path / "killed_once", *keys) == lines(ranks / "fsdp", *keys)


def test_a_rank_whose_neighbour_is_killed_says_so():
    """Without a launcher, which would end it before it could speak."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = """
import os, signal, sys
from starsmith.errors import MachineError
from starsmith.recipe import Hardware
from starsmith.training.world import join
try:
    with join(Hardware(device="cpu")) as world:
        world.barrier()
        if world.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        world.barrier()
except MachineError as error:
    print(error)
"""
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said, _ = started[0].communicate(timeout=60)
    started[1].communicate(timeout=60)
    assert [each.returncode for each in started] == [0, -signal.SIGKILL]
    assert said.startswith("rank 0 lost another of the 2 processes")
    assert "torchrun --max-restarts" in said


def test_ranks_agree_in_a_store_that_remembers_the_dead():
    """Again and again in one store, into which killed ones have knocked or come half way."""
    store = torch.distributed.HashStore()
    prefixes = []
    for attempt in range(3):
        store.set("knock/1", f"dead{attempt}")
        store.set("answer/dead", "also dead")
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda rank: world_module._agree(store, rank, 3), range(3)))
        assert len(set(found)) == 1
        prefixes += found[:1]
    assert len(set(prefixes)) == 3


def test_ranks_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(world_module, "_TIMEOUT", timedelta(seconds=0.05))
    with pytest.raises(MachineError, match=r"2 of 3 processes did not come within .* \(ranks 1, 2\)"):
        world_module._agree(torch.distributed.HashStore(), 0, 3)


def test_one_process_needs_no_group():
    with join(Hardware(device="cpu")) as world:
        assert world == World(device=torch.device("cpu"))
        assert not torch.distributed.is_initialized()
        assert world.gather(3) == [3]
        assert world.sum(torch.tensor(2.0)) == 2.0


def test_bfloat16_makes_a_group_of_one_without_a_port_each_time(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):
        with join(Hardware(device="cpu"), "bf16") as world:
            assert (world.rank, world.size, world.mesh.shape) == (0, 1, (1,))
        assert not torch.distributed.is_initialized()


def test_ranks_must_be_able_to_share(monkeypatch):
    assert World(size=3).rows(12) == 4
    with pytest.raises(MachineError, match=r"4 processes cannot share a batch of 6 .* or start 3 processes"):
        World(size=4).rows(6)
    with (
        pytest.raises(MachineError, match=r"shard_group is 2, but 1 processes are no multiple"),
        join(Hardware(device="cpu", shard_group=2)),
    ):
        pass
    assert ALONE.rows(5) == 5


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with (
        pytest.raises(MachineError, match=r"device is cuda, but PyTorch sees no GPU"),
        join(Hardware(device="cuda")),
    ):
        pass


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE say that there are several processes, but RANK, LOCAL_RANK, MASTER_ADDR",
        ),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "but MASTER_ADDR, MASTER_PORT is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "no process can have RANK=2, WORLD_SIZE=2"),
        ({"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "no process can have RANK=x"),
    ],
)
def test_an_environment_that_is_no_launcher_s_is_refused(environment, message, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "no process" in message:
        monkeypatch.setenv("MASTER_ADDR", "localhost")
        monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(MachineError, match=message), join(Hardware(device="cpu")):
        pass
