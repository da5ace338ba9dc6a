"""Batches assembled ahead: the same batches, the state of the one handed out, errors where they are asked for."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.tokens.loader import Batch, Loader
from starsmith.tokens.prefetch import Prefetch


def open_loader(folder: Path, kind: type[Loader] = Loader, **options: Any) -> Loader:
    config = recipe.Tokens(sequence_length=32, streams=8)
    return kind(folder, config, seed=1, batch_size=8, metadata_probability=0.5, verify=False, **options)


@pytest.fixture
def expected(shard_folder: Path) -> list[Batch]:
    loader = open_loader(shard_folder)
    return [loader.next_batch() for _ in range(12)]


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [1, 3])
def test_the_same_batches_and_states(shard_folder: Path, expected: list[Batch], depth: int) -> None:
    plain = open_loader(shard_folder)
    with Prefetch(open_loader(shard_folder), depth=depth) as prefetch:
        assert prefetch.state() == plain.state()
        for number, batch in enumerate(expected):
            assert prefetch.step == number
            assert prefetch.next_batch().digest == batch.digest
            plain.next_batch()
            assert prefetch.state() == plain.state()
            assert prefetch.wait_seconds >= 0.0


def test_the_state_is_that_of_the_batch_handed_out(shard_folder: Path, expected: list[Batch]) -> None:
    """However far the thread is ahead, a run that goes on from the state misses nothing."""
    with Prefetch(open_loader(shard_folder), depth=5) as prefetch:
        for _ in range(3):
            prefetch.next_batch()
        while prefetch._ready.qsize() < 5:
            pass
        state = prefetch.state()
    resumed = open_loader(shard_folder)
    resumed.load_state(state)
    assert resumed.next_batch().digest == expected[3].digest


def test_loading_a_state_and_skipping_start_over_from_there(shard_folder: Path, expected: list[Batch]) -> None:
    with Prefetch(open_loader(shard_folder)) as prefetch:
        start = prefetch.state()
        for _ in range(5):
            prefetch.next_batch()
        prefetch.skip(2)
        assert prefetch.step == 7
        assert prefetch.next_batch().digest == expected[7].digest
        with pytest.raises(InputError, match="loader state"):
            prefetch.load_state(start | {"fingerprint": "0" * 32})
        assert prefetch.next_batch().digest == expected[8].digest
        prefetch.load_state(start)
        assert [prefetch.next_batch().digest for _ in range(4)] == [batch.digest for batch in expected[:4]]


def test_after_closing_the_loader_stands_where_the_state_does(shard_folder: Path, expected: list[Batch]) -> None:
    loader = open_loader(shard_folder)
    with Prefetch(loader, depth=4) as prefetch:
        prefetch.next_batch()
        state = prefetch.state()
    assert loader.state() == state
    assert loader.next_batch().digest == expected[1].digest
    assert prefetch.next_batch().digest == expected[2].digest  # and it may be opened again
    prefetch.close()


class Failing(Loader):
    """Cannot read its fourth batch."""

    def next_batch(self) -> Batch:
        if self.step == 3:
            raise OSError(5, "Input/output error")
        return super().next_batch()


def test_errors_surface_where_the_batch_is_asked_for(shard_folder: Path, expected: list[Batch]) -> None:
    with Prefetch(open_loader(shard_folder, Failing), depth=2) as prefetch:
        for batch in expected[:3]:
            assert prefetch.next_batch().digest == batch.digest
        state = prefetch.state()
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                prefetch.next_batch()
        assert prefetch.state() == state


def test_an_exception_in_the_consumer_ends_the_thread(shard_folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), Prefetch(open_loader(shard_folder)) as prefetch:
        prefetch.next_batch()
        raise ZeroDivisionError


def test_a_depth_below_one_is_refused(shard_folder: Path) -> None:
    with pytest.raises(ValueError, match="depth"):
        Prefetch(open_loader(shard_folder), depth=0)


CONSUMER = """
import signal, sys
from pathlib import Path
from starsmith import recipe
from starsmith.tokens.loader import Loader
from starsmith.tokens.prefetch import Prefetch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
config = recipe.Tokens(sequence_length=32, streams=8)
prefetch = Prefetch(Loader(Path(sys.argv[1]), config, seed=1, batch_size=8, metadata_probability=0.5))
while True:
    prefetch.next_batch()
    print("ready", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_ends_a_process_that_never_closed(
    shard_folder: Path, number: signal.Signals, status: int
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, str(shard_folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, number)
        assert child.wait(timeout=30) == status
