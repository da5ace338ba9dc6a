"""What the processes of the checkpoint tests do: `python checkpoint_processes.py FOLDER`; prints what it saw.

Everything here happens in forks of one process that has imported PyTorch, since that takes longer than all of it.
Faults are those of the machine: signals, limits, and errors of the system's calls on files, which Python announces
to audit hooks before it makes them.
"""

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import pyarrow as pa
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from starsmith.errors import MachineError
from starsmith.training.checkpoint import FOLDER, Checkpoint, Checkpoints, faults
from starsmith.training.world import ALONE, World

LINEAGE = pa.table({"step": [1, 2]})


# Processes


def fork(act):
    """Runs a function in a fork; returns the fork's identifier."""
    child = os.fork()
    if child:
        return child
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child):
    """Waits; returns the exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def on_ranks(folder, size, act, *, copies=1):
    """Runs `act(world)` on so many ranks; returns the exit status of each."""
    store = folder / f"store-{time.monotonic_ns()}"

    def rank_of(rank):
        dist.init_process_group("gloo", store=dist.FileStore(str(store), size), rank=rank, world_size=size)
        shape, names = (size,), ("shard",)
        if copies > 1:
            shape, names = (copies, size // copies), ("replicate", "shard")
        act(World(rank=rank, size=size, mesh=init_device_mesh("cpu", shape, mesh_dim_names=names)))
        dist.barrier()
        dist.destroy_process_group()

    return [ended(child) for child in [fork(lambda rank=rank: rank_of(rank)) for rank in range(size)]]


def file_events(folder, act):
    """Calls `act(number)` before each of this process's calls that change files below a folder."""
    numbers = iter(range(10**9))
    changing = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}

    def hook(event, arguments):
        changes = event in changing or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and str(folder) in str(arguments[0]):
            act(next(numbers))

    sys.addaudithook(hook)


# States


class Odd(nn.Module):
    """Sizes that no number of ranks divides, and fewer rows than ranks."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.up = nn.Linear(4, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 1)

    def forward(self, tokens):
        return self.head(self.norm(self.up(self.embedding(tokens))))


def trained(world):
    """Model and optimiser after two steps; the same on all ranks."""
    torch.manual_seed(1)
    model = Odd()
    if world.size > 1:
        for layer in (model.up, model.embedding, model):
            fully_shard(layer, mesh=world.mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.arange(7)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def tensors_of(model, optimizer):
    found = {f"model.{name}": parameter for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            found[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    found |= {
        f"half.{name}": parameter.detach().to(torch.bfloat16) for name, parameter in model.named_parameters()
    }
    return found


def whole(tensor):
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def checkpoints_of(run, world, **options):
    return Checkpoints(run, world, **{"keep": 2, "is_scheduled": lambda step: True, **options})


def state(step, num_rows=5):
    tensors = {f"model.{name}": torch.full((num_rows, 3), float(step)) for name in "ab"}
    return Checkpoint(step=step, tensors=tensors, facts={"step_again": step}, lineage=LINEAGE)


def step_of(saved):
    """The step of a checkpoint, after checking that everything in it is of this step."""
    assert list(faults(saved.place)) == []
    assert saved.facts == {"step_again": saved.step}
    assert all((tensor == saved.step).all() for _, tensor in saved.weights())
    return saved.step


# Scenarios


def sharded(folder):
    """Saved at one layout of ranks, loaded at all others."""
    layouts = {"alone": (1, 1), "two": (2, 1), "three": (3, 1), "copies": (4, 2)}

    def save(name, world):
        tensors = tensors_of(*trained(world))
        if world.size > 1:
            rows = [tensor.to_local().shape[0] for tensor in tensors.values()]
            assert world.rank + 1 < world.size or 0 in rows
        expected = {key: whole(tensor) for key, tensor in tensors.items()}
        tensors["plain"] = torch.arange(6.0) + 100 * world.rank
        expected["plain"] = torch.arange(6.0)
        if world.is_first:
            save_file(expected, folder / f"{name}.safetensors")
        checkpoints = checkpoints_of(folder / name, world)
        facts = {"rank": world.rank}
        checkpoints.save(Checkpoint(step=2, tensors=tensors, facts=facts, lineage=LINEAGE.slice(world.rank)))
        checkpoints.finish()

    def load(name, world):
        expected = load_file(folder / f"{name}.safetensors")
        saved = checkpoints_of(folder / name, world).latest()
        assert (saved.step, saved.facts, saved.lineage) == (2, {"rank": 0}, LINEAGE)
        assert saved.tensors.keys() == expected.keys()
        tensors = {key: tensor.detach() for key, tensor in tensors_of(*trained(world)).items()}
        tensors["plain"] = torch.zeros(6)
        for tensor in tensors.values():
            tensor.fill_(-1.0)
        saved.fill(tensors)
        for key, tensor in tensors.items():
            assert torch.equal(whole(tensor), expected[key]), key
        weights = dict(saved.weights())
        assert weights.keys() == {name for name, _ in Odd().named_parameters()}
        assert all(torch.equal(weight, expected[f"model.{name}"]) for name, weight in weights.items())

    found = {}
    for name in ("alone", "two", "copies"):
        size, copies = layouts[name]
        found[f"save {name}"] = on_ranks(folder, size, lambda world, name=name: save(name, world), copies=copies)
        manifest = json.loads((folder / name / FOLDER / "step-00000002/manifest.json").read_bytes())
        found[f"rows {name}"] = manifest["tensors"]["exp_avg.embedding.weight"]["slices"]

    def load_all(world):
        for name in ("alone", "two", "copies"):
            load(name, world)

    for name, (size, copies) in layouts.items():
        found[f"load {name}"] = on_ranks(folder, size, load_all, copies=copies)
    return found


def one_rank_fails(folder):
    """The second of two ranks has a full disk, is slow, sees another folder; then all is well again."""

    def act(world):
        slow, haunted = threading.Event(), threading.Event()
        partial = folder / FOLDER / "step-00000002.partial"

        def disturb(number):
            if slow.is_set():
                time.sleep(0.5)
            if haunted.is_set():  # a rank of a killed attempt is still there
                haunted.clear()
                (partial / "rank-00001.0123456789abcdef.json").write_text('{"error": "stale"}')

        if world.rank:
            file_events(folder / FOLDER, disturb)
        model = tensors_of(*trained(world))

        def whole_state(step):
            return Checkpoint(step=step, tensors=model, facts={}, lineage=LINEAGE)

        def failure(act):
            try:
                act()
            except MachineError as error:
                return str(error)
            return "none"

        checkpoints = checkpoints_of(folder, world)
        checkpoints.save(whole_state(1))
        checkpoints.finish()
        if world.rank:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        checkpoints.save(whole_state(2))
        found = {"full": failure(checkpoints.finish)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found["after full"] = checkpoints.latest().step
        impatient = checkpoints_of(folder, world, patience_seconds=0.2)
        slow.set()
        impatient.save(whole_state(2))
        found["slow"] = failure(lambda: impatient.save(whole_state(3)))
        slow.clear()
        found["after slow"] = impatient.latest().step
        elsewhere = checkpoints_of(folder / "elsewhere" if world.rank else folder, world)
        found["elsewhere"] = failure(lambda: elsewhere.save(whole_state(2)))
        if world.is_first:  # what a killed attempt left
            partial.mkdir(exist_ok=True)
            (partial / "rank-00001.0123456789abcdef.json").write_text('{"error": "stale"}')
            (partial / "rank-00001.safetensors").write_text("stale")
        world.barrier()
        haunted.set()
        checkpoints.save(whole_state(2))
        checkpoints.finish()
        found["in the end"] = checkpoints.latest().step
        (folder / f"found-{world.rank}.json").write_text(json.dumps(found))

    statuses = on_ranks(folder, 2, act)
    return {
        "statuses": statuses,
        "ranks": [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)],
        "left": sorted(place.name for place in (folder / FOLDER).iterdir()),
        "files": sorted(place.name for place in (folder / FOLDER / "step-00000002").iterdir()),
    }


def one_rank_dies(folder):
    """The second of two ranks is killed when it opens its file of the second checkpoint."""

    def act(world):
        armed = threading.Event()
        if world.rank:
            file_events(folder / FOLDER, lambda number: armed.is_set() and os.kill(os.getpid(), signal.SIGKILL))
        tensors = tensors_of(*trained(world))
        with (
            contextlib.suppress(ConnectionAbortedError),
            checkpoints_of(folder, world, patience_seconds=0.3) as checkpoints,
        ):
            for step in (1, 2):
                checkpoints.save(Checkpoint(step=step, tensors=tensors, facts={}, lineage=LINEAGE))
                if step == 1:
                    checkpoints.finish()
                    armed.set()
            raise ConnectionAbortedError  # what training sees of a dead rank
        left = sorted(place.name for place in (folder / FOLDER).iterdir())
        latest = checkpoints_of(folder, ALONE).latest().step
        (folder / "found.json").write_text(json.dumps({"left": left, "latest": latest}))
        os._exit(0)  # no barrier with the dead

    return {"statuses": on_ranks(folder, 2, act), **json.loads((folder / "found.json").read_text())}


def save_three(folder, told):
    """Three checkpoints of which one stays, the last one written twice; notes what is committed."""
    checkpoints = checkpoints_of(folder, ALONE, keep=1)
    for step in (1, 2, 3, 3):
        checkpoints.save(state(step))
        checkpoints.finish()
        told.write_text(str(step))


def killed_at_each_call(folder):
    """SIGKILL before each call that changes a file, in turn."""
    found = []
    for point in range(1000):
        run = folder / str(point)

        def act(run=run, point=point):
            file_events(run / FOLDER, lambda number: number == point and os.kill(os.getpid(), signal.SIGKILL))
            save_three(run, folder / f"{run.name}.told")

        run.mkdir()
        status = ended(fork(act))
        told = folder / f"{run.name}.told"
        committed = int(told.read_text()) if told.exists() else 0
        saved = checkpoints_of(run, ALONE).latest()
        found.append([status, committed, step_of(saved) if saved else 0])
        visible = [place for place in (run / FOLDER).glob("*") if not place.suffix]
        assert [fault for place in visible for fault in faults(place)] == []
        again = checkpoints_of(run, ALONE)
        again.save(state(4))
        again.finish()
        assert step_of(again.latest()) == 4
        assert not list((run / FOLDER).glob("*.*"))
        shutil.rmtree(run)
        if status == 0:
            return found
    raise AssertionError("it never ends")


def refused_at_each_call(folder):
    """The disk is full at each call that changes a file, in turn; then there is room again."""
    found = []
    for point in range(1000):
        run = folder / str(point)

        def act(run=run, point=point):
            errors, hits = [], []

            def refuse(number):
                if number == point:
                    hits.append(number)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            file_events(run / FOLDER, refuse)
            checkpoints = checkpoints_of(run, ALONE, keep=1)
            for step in (1, 2, 3, 3):
                try:
                    checkpoints.save(state(step))
                    checkpoints.finish()
                except MachineError as error:
                    errors.append([step, str(error)])
                saved = checkpoints.latest()
                if saved is None:
                    assert (step, len(errors)) == (1, 1)
                else:
                    assert step_of(saved) >= step - 1
                    assert step_of(saved) == step or [step, errors[-1][1]] == errors[-1]
            assert step_of(saved) == 3
            (folder / f"{run.name}.errors").write_text(json.dumps([errors, bool(hits)]))

        run.mkdir()
        status = ended(fork(act))
        assert status == 0, point
        errors, is_hit = json.loads((folder / f"{run.name}.errors").read_text())
        if not is_hit:
            return found
        found.append([message for _, message in errors])
        shutil.rmtree(run)
    raise AssertionError("it never ends")


def killed_at_any_time(folder):
    """SIGKILL after random times, while checkpoints are saved one after the other without waiting."""
    draws = random.Random(7)
    found = []
    for run_number in range(12):
        run = folder / str(run_number)
        told = folder / f"{run_number}.told"

        def act(run=run, told=told):
            checkpoints = checkpoints_of(run, ALONE, keep=1)
            for step in range(1, 10**6):
                checkpoints.save(state(step, num_rows=100_000))
                told.write_text(str(step - 1))  # a save waits for the one before it

        child = fork(act)
        while not told.exists():
            time.sleep(0.001)
        time.sleep(draws.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        saved = checkpoints_of(run, ALONE).latest()
        found.append([int(told.read_text() or 0), step_of(saved) if saved else 0])
        shutil.rmtree(run)
    return found


def file_too_large(folder):
    """A limit in the middle of a file, while it is written."""

    def act():
        checkpoints = checkpoints_of(folder, ALONE)
        checkpoints.save(state(1))
        checkpoints.finish()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        checkpoints.save(state(2, num_rows=200_000))
        try:
            checkpoints.save(state(3))
        except MachineError as error:
            (folder / "error").write_text(str(error))
        assert [place.name for place in (folder / FOLDER).iterdir()] == ["step-00000001"]
        checkpoints.save(state(4))
        checkpoints.finish()
        assert step_of(checkpoints.latest()) == 4

    return {"status": ended(fork(act)), "error": (folder / "error").read_text()}


SCENARIOS = (
    sharded, one_rank_fails, one_rank_dies, killed_at_each_call, refused_at_each_call, killed_at_any_time,
    file_too_large,
)  # fmt: skip


def main():
    torch.set_num_threads(1)
    found = {}
    for scenario in SCENARIOS:
        place = Path(sys.argv[1]) / scenario.__name__
        place.mkdir()
        started = time.monotonic()
        found[scenario.__name__] = scenario(place)
        print(scenario.__name__, round(time.monotonic() - started, 1), file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
