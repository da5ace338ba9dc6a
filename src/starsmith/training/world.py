"""The processes that train one model together: who this one is, and what they tell each other.

One process per device, started by `torchrun`, which says in RANK, WORLD_SIZE and LOCAL_RANK who each one is.
Without it there is one process; it opens no process group unless its precision needs one (bf16 computes on a copy
of the weights that FSDP2 keeps), and then one in memory that listens on no port.

Tensors of the device travel over NCCL on GPUs and Gloo on CPUs; objects and what the host must know travel over
Gloo in both cases, so that telling each other where one stands never waits for a GPU.

The ranks form a mesh of one dimension (FSDP: each holds an equal part of the weights) or, with `shard_group`, of
two (HSDP: groups of that many ranks hold one copy together, and the copies are kept equal). A group should be the
GPUs of one machine: within it travel the weights of every layer, between the groups only the gradients.
"""

import contextlib
import dataclasses
import os
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from starsmith.errors import MachineError
from starsmith.recipe import Hardware

_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_TIMEOUT = timedelta(minutes=30)  # the slowest rank may be reading a checkpoint while the others wait
_POLL_SECONDS = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """On its machine."""
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None
    """None: one process without a process group."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes what is written once."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.gather(None)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, on each; of a tensor on the device or the CPU."""
        total = tensor.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """The (small, picklable) value of each rank in order, on every rank."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value)
        return values

    def rows(self, batch_size: int) -> int:
        """The rows of a global batch that each rank has.

        Raises:
            MachineError: the ranks cannot share the batch equally.
        """
        if batch_size % self.size:
            fitting = max(size for size in range(1, self.size) if batch_size % size == 0)
            raise MachineError(
                f"{self.size} processes cannot share a batch of {batch_size} sequences equally: make "
                f"training.batch_size a multiple of {self.size}, or start {fitting} processes"
            )
        return batch_size // self.size


ALONE = World()


@contextlib.contextmanager
def join(hardware: Hardware, precision: str = "fp32") -> Iterator[World]:
    """Joins the processes that were started together, and leaves them at the end.

    Args:
        hardware: which device to use, and how many ranks share one copy of the weights.
        precision: of training; bf16 makes a mesh even of one process.

    Raises:
        MachineError: no such device, the launcher's environment is incomplete, the number of processes is no
            multiple of `shard_group`, or one of them is gone.
    """
    rank, size, local_rank = _launched()
    device = _device(hardware.device, local_rank)
    shard_group = hardware.shard_group or size
    if size % shard_group:
        raise MachineError(
            f"hardware.shard_group is {shard_group}, but {size} processes are no multiple of it; use a divisor of "
            f"{size}, or leave it out to share one copy of the weights among all"
        )
    if size == 1 and precision == "fp32":
        yield World(device=device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_store(rank, size), rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        shape, names = (size,), ("shard",)
        if shard_group != size:
            shape, names = (size // shard_group, shard_group), ("replicate", "shard")  # type: ignore[assignment]
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
        yield World(rank=rank, size=size, local_rank=local_rank, device=device, mesh=mesh)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "/gloo/" in str(error):  # Gloo's own have no type, but their place
            raise MachineError(
                f"rank {rank} lost another of the {size} processes ({str(error).splitlines()[0]}). Either it said "
                "why, or it was killed (too little memory, a preempted machine). Start all of them again to "
                "continue from the newest checkpoint; torchrun --max-restarts does that by itself"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def _launched() -> tuple[int, int, int]:
    """Rank, number of ranks and rank on this machine, as the launcher says."""
    given = {name: os.environ[name] for name in _LAUNCHED if os.environ.get(name)}
    if not given or given == {"WORLD_SIZE": "1"}:
        return 0, 1, 0
    missing = [name for name in (*_LAUNCHED, "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise MachineError(
            f"{', '.join(given)} say that there are several processes, but {', '.join(missing)} is not set; start "
            "them with torchrun, which sets all of them, or unset all for one process"
        )
    try:
        rank, size, local_rank = (int(given[name]) for name in _LAUNCHED)
    except ValueError:
        rank, size, local_rank = -1, 0, -1
    if not (0 <= rank < size and local_rank >= 0):
        described = ", ".join(f"{name}={value}" for name, value in given.items())
        raise MachineError(f"no process can have {described}; start with torchrun, which sets all three")
    return rank, size, local_rank


def _device(wanted: str, local_rank: int) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MachineError(
            "hardware.device is cuda, but PyTorch sees no GPU here; check the driver and that the installed "
            'PyTorch is built for CUDA, or use hardware.device = "cpu"'
        )
    if local_rank >= torch.cuda.device_count():
        raise MachineError(
            f"process {local_rank} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
            "start as many processes as there are GPUs (torchrun --nproc-per-node=gpu)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _store(rank: int, size: int) -> distributed_c10d.Store:
    """Where the ranks find each other."""
    if size == 1:
        return dist.HashStore()  # type: ignore[attr-defined]
    store, _, _ = next(iter(rendezvous("env://", rank, size, timeout=_TIMEOUT)))
    shared = distributed_c10d.PrefixStore("starsmith", store)
    return distributed_c10d.PrefixStore(_agree(shared, rank, size), shared)


def _agree(store: distributed_c10d.Store, rank: int, size: int) -> str:
    """A prefix for keys that all ranks have just agreed on.

    The launcher's store lives through restarts and a process joins once per stage, so the addresses of processes
    that are gone may still be in it, and no number that all ranks know says which are new (on many machines, each
    counts its own restarts). So every rank knocks with a token of its own until the first one answers to it.

    Raises:
        MachineError: some ranks did not come.
    """
    own = secrets.token_hex(8)
    if rank:
        store.set(f"knock/{rank}", own)
        prefix: str = store.get(f"answer/{own}").decode()
        store.set(f"{prefix}/{rank}", "here")
        return prefix
    deadline = time.monotonic() + _TIMEOUT.total_seconds()
    answered: dict[int, bytes] = {}
    while absent := [other for other in range(1, size) if not store.check([f"{own}/{other}"])]:
        for other in absent:
            if store.check([f"knock/{other}"]):
                token = store.get(f"knock/{other}")
                if answered.get(other) != token:
                    store.set(f"answer/{token.decode()}", own)
                    answered[other] = token
        if time.monotonic() > deadline:
            named = ", ".join(map(str, absent[:8]))
            raise MachineError(f"{len(absent)} of {size} processes did not come within {_TIMEOUT} (ranks {named})")
        time.sleep(_POLL_SECONDS)
    return own
