"""Runs functions over partitions, in local processes.

`map_parallel` is the whole contract: a picklable function, a list of items, results in the items' order. It
promises that the number of workers changes nothing but time. Workers are started by a fork server, never by
forking the caller: go-enry's runtime hangs in forked children, and a fresh process gives all its memory back.
With one worker the function runs in the caller's process.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from starsmith.errors import MachineError
from starsmith.memory import be_frugal

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Progress(Protocol):
    """Shows how far a step is: units done, of a total, and a few words where they help."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


def silent(done: int, total: int, note: str = "", /) -> None:
    """A progress that shows nothing."""


def map_parallel(
    function: Callable[[Item], Outcome],
    items: Sequence[Item],
    *,
    workers: int,
    progress: Progress = silent,
    isolated: bool = False,
) -> list[Outcome]:
    """`[function(item) for item in items]`, on several processes.

    Args:
        function: picklable, as are its items and results.
        items: independent of each other.
        workers: processes; with one, the caller's own.
        progress: told of each item that is done.
        isolated: never in the caller's process, not even a single item.

    Raises:
        MachineError: a worker process died (usually for want of memory).
        Exception: whatever the function raises first; the other items are cancelled.
    """
    progress(0, len(items))
    if (workers <= 1 or len(items) <= 1) and not isolated:
        return list(_one_by_one(function, items, progress))
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(
        max(1, min(workers, len(items))), mp_context=context, initializer=_prepare_worker
    ) as pool:
        with _interrupts_held_back():  # submitting starts the workers
            futures: list[Future[Outcome]] = [pool.submit(function, item) for item in items]
        try:
            pending: set[Future[Outcome]] = set(futures)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress(len(items) - len(pending), len(items))
        except BrokenProcessPool as error:
            raise MachineError(
                f"a worker process died while {getattr(function, '__name__', 'a step')} ran; most often the "
                f"machine ran out of memory: lower [run] workers and run again, finished parts are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        return [future.result() for future in futures]


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that are started here take no SIGINT, not even while they start; ours comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    """A terminal sends Ctrl-C to every process; the caller alone answers it, after the items in flight."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    be_frugal()


def _one_by_one(
    function: Callable[[Item], Outcome], items: Sequence[Item], progress: Progress
) -> Iterator[Outcome]:
    for number, item in enumerate(items, 1):
        yield function(item)
        progress(number, len(items))
