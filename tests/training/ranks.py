"""What each rank of the tests of several does: `python ranks.py FOLDER SCENARIO...`, started by a launcher.

Every rank leaves `SCENARIO.RANK.json` with what it saw. One start serves several scenarios, since importing
PyTorch takes longer than all of them.
"""

import json
import math
import os
import signal
import sys
from pathlib import Path

import torch
from artificial_language import MODEL, FakeLoader, training_settings

from starsmith.errors import StarsmithError
from starsmith.recipe import Hardware
from starsmith.training import loop, parallel
from starsmith.training.world import World, join


class Interrupted(FakeLoader):
    """Before a step, calls a function."""

    def __init__(self, at_step, act, **options):
        super().__init__(uneven=True, **options)
        self.at_step, self.act = at_step, act

    def next_batch(self):
        if self.step == self.at_step:
            self.act()
        return super().next_batch()


def run(folder: Path, world: World, hardware: Hardware, loader=None, **changes):
    loader = loader or FakeLoader(rank=world.rank, world_size=world.size, uneven=True)
    validation = [FakeLoader(seed=5, batch_size=3).batch(0)]
    return loop.train(
        folder, loader, validation, MODEL, training_settings(**changes), seed=1, world=world, hardware=hardware
    )


def weights(folder: Path, world: World, hardware: Hardware, scenario: str):
    trained = run(folder / scenario, world, hardware)
    return {"loss": trained.loss, "validation_loss": trained.validation_loss}


def fsdp(folder: Path, world: World):
    found = weights(folder, world, Hardware(device="cpu"), "fsdp")
    sizes = {tuple(p.to_local().shape) for p in parallel_model(world).parameters()}
    return {**found, "rows_of_embedding": max(size[0] for size in sizes)}


def parallel_model(world: World):
    with torch.device("meta"):
        model = loop.Starcoder2(MODEL)
    return parallel.lay_out(model, world, Hardware(device="cpu"), "fp32")


def hsdp(folder: Path, world: World):
    assert world.mesh.shape == (2, 1)
    hardware = Hardware(device="cpu", shard_group=1, micro_batch_size=1, activation_checkpointing="full")
    return weights(folder, world, hardware, "hsdp")


def bf16(folder: Path, world: World):
    trained = run(folder / "bf16", world, Hardware(device="cpu"), precision="bf16", moments="bf16")
    return {"loss": trained.loss, "validation_loss": trained.validation_loss}


def stopped(folder: Path, world: World):
    """The second rank alone is told to stop, before step 7."""

    def act():
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    loader = Interrupted(6, act, rank=world.rank, world_size=world.size)
    try:
        run(folder / "stopped", world, Hardware(device="cpu"), loader)
    except loop.TrainingStoppedError as error:
        return {"error": str(error)}
    return {}


def continued(folder: Path, world: World):
    """What one rank began."""
    return weights(folder, world, Hardware(device="cpu"), "continued")


def nan_on_one_rank(folder: Path, world: World):
    plain, calls = parallel.next_token_loss, []

    def faulty(*arguments):
        calls.append(1)
        loss = plain(*arguments)
        return loss * math.nan if world.rank == 1 and len(calls) == 2 else loss

    parallel.next_token_loss = faulty
    try:
        trained = run(folder / "nan_on_one_rank", world, Hardware(device="cpu"), steps=4)
    finally:
        parallel.next_token_loss = plain
    return {"num_skipped": trained.num_skipped, "loss": trained.loss}


def refused(folder: Path, world: World):
    try:
        run(folder / "refused", world, Hardware(device="cpu"), batch_size=3)
    except StarsmithError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    return {}


def killed_once(folder: Path, world: World):
    """The second rank is killed before step 9, at the first start."""

    def act():
        if world.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    loader = Interrupted(8, act, rank=world.rank, world_size=world.size)
    trained = run(folder / "killed_once", world, Hardware(device="cpu"), loader)
    return {"loss": trained.loss, "validation_loss": trained.validation_loss, "batches": len(loader.digests)}


def main() -> None:
    torch.set_num_threads(1)
    folder, scenarios = Path(sys.argv[1]), sys.argv[2:]
    for scenario in scenarios:
        hardware = Hardware(device="cpu", shard_group=1 if scenario == "hsdp" else None)
        with join(hardware) as world:
            found = globals()[scenario](folder, world)
            (folder / f"{scenario}.{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
