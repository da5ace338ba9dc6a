"""Runs one slow function over many texts in forked processes that share what it loaded.

ScanCode's index takes ten seconds and 1.4 GB to load, so its processes must be forked from one that has it. But
the caller may hold a runtime that does not survive a fork (enry's Go, threads), and should not carry the index.
Hence three layers: the caller spawns a fresh *supervisor*, which loads once, freezes its garbage collector (a
collection would write to every shared page) and forks *workers*. A worker gets one text at a time.

A worker that dies costs its text (`failed`); one that is still busy `GRACE_SECONDS` after the deadline is
killed (`timeout`); both are replaced and the rest goes on. Nothing outlives the caller: the supervisor ends
when the caller's end of the pipe closes, a worker when the supervisor's does.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, ForkProcess
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from starsmith.errors import MachineError

Detect = Callable[[str, float], Any]
"""Text and the `time.time()` at which to stop; the answer is picklable. Raising makes the text `failed`."""

Load = Callable[[], Detect]
"""Runs once, in the supervisor. A module-level function, since it travels to another process by name."""

GRACE_SECONDS = 15.0
"""What a worker has beyond the deadline before it is killed: ScanCode looks at the clock only between steps."""

_EXIT_SECONDS = 5.0
_REASON_CHARS = 160


@dataclass(frozen=True, slots=True)
class Outcome:
    number: int
    """Which text."""
    status: str
    """scanned, timeout or failed."""
    answer: Any = None
    """What `detect` returned, when scanned."""
    reason: str | None = None
    """Why there is no answer, when failed."""


def scan(
    texts: Sequence[str],
    load: Load,
    *,
    deadline_seconds: float,
    workers: int,
    grace_seconds: float = GRACE_SECONDS,
) -> Iterator[Outcome]:
    """Yields one outcome for each text, in the order in which they end.

    Args:
        texts: picklable. Each worker takes its texts from it by number, so that a sequence which reads them from
            a file (`StoredTexts`) keeps only those in memory that are being scanned.
        load: makes the function that is run on each.
        deadline_seconds: for one text.
        workers: the most processes; never more than texts.
        grace_seconds: beyond the deadline, before a worker is killed.

    Raises:
        MachineError: `load` failed, or the supervisor was killed.
    """
    if not len(texts):
        return
    spawn = multiprocessing.get_context("spawn")
    connection, remote = spawn.Pipe()
    job = _Job(texts, deadline_seconds, max(1, min(workers, len(texts))), grace_seconds)
    supervisor = spawn.Process(target=_supervise, args=(remote, load, job), name="starsmith-license-scanner")
    supervisor.start()
    remote.close()
    try:
        for _ in range(len(texts)):
            message = connection.recv()
            if isinstance(message, str):
                raise MachineError(f"the licence scanner could not load its index: {message}")
            yield message
    except (EOFError, ConnectionResetError) as error:
        supervisor.join(_EXIT_SECONDS)
        raise MachineError(
            f"the licence scanner was killed (exit code {supervisor.exitcode}), most often for want of memory: "
            "it needs about 1.5 GB and 0.5 GB for each worker; lower [run] workers and run again"
        ) from error
    finally:
        connection.close()
        supervisor.join(_EXIT_SECONDS)
        if supervisor.is_alive():
            supervisor.kill()
            supervisor.join()
        supervisor.close()


class StoredTexts(Sequence[str]):
    """The strings of the only column of an Arrow file, mapped into memory where they are read and not before."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._column: pa.ChunkedArray | None = None

    def __getstate__(self) -> Path:
        return self._place

    def __setstate__(self, place: Path) -> None:
        self._place, self._column = place, None

    def _read(self) -> pa.ChunkedArray:
        if self._column is None:
            self._column = pa.ipc.open_file(pa.memory_map(str(self._place))).read_all().column(0)
        return self._column

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            texts: list[str] = self._read()[number].to_pylist()
            return texts
        text: str = self._read()[number].as_py()
        return text


@dataclass(frozen=True)
class _Job:
    texts: Sequence[str]
    deadline_seconds: float
    num_workers: int
    grace_seconds: float


@dataclass(frozen=True)
class _Worker:
    process: ForkProcess
    connection: Connection
    number: int
    """Of the text it has."""
    kill_at: float
    """In `time.monotonic()`."""


def _supervise(caller: Connection, load: Load, job: _Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller gets it too, and ends us by closing the pipe
    warnings.simplefilter("ignore")
    try:
        detect = load()
    except Exception as error:
        caller.send(f"{type(error).__name__}: {error}")
        return
    gc.collect()
    gc.freeze()
    team = _Team(job, detect)
    status = 0
    try:
        team.run(caller)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass  # the caller has gone
    except Exception:
        traceback.print_exc()
        status = 1
    finally:
        team.kill()
        caller.close()
        # Nothing is left to tear down here, and modules that the caller's main module imported complain about it.
        os._exit(status)


class _Team:
    """The workers of one supervisor and the texts still to do."""

    def __init__(self, job: _Job, detect: Detect) -> None:
        self._job = job
        self._detect = detect
        self._next = 0
        self._workers: list[_Worker] = []
        self._fork: ForkContext = multiprocessing.get_context("fork")

    def run(self, caller: Connection) -> None:
        while self._next < len(self._job.texts) and len(self._workers) < self._job.num_workers:
            self._start()
        while self._workers:
            patience = max(0.0, min(w.kill_at for w in self._workers) - time.monotonic())
            ready = wait([caller, *(w.connection for w in self._workers)], patience)
            if caller in ready:
                raise EOFError  # it never sends: readable means closed
            for worker in list(self._workers):
                outcome = self._outcome(worker, worker.connection in ready)
                if outcome is not None:
                    caller.send(outcome)

    def kill(self) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def _outcome(self, worker: _Worker, is_ready: bool) -> Outcome | None:
        """What has become of a worker's text, and its next one; None while it is busy."""
        if is_ready:
            try:
                outcome: Outcome = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join(_EXIT_SECONDS)
                reason = f"its scanner died (exit code {worker.process.exitcode})"
                self._replace(worker)
                return Outcome(worker.number, "failed", reason=reason)
            self._workers.remove(worker)
            self._hand_next(worker.process, worker.connection)
            return outcome
        if time.monotonic() >= worker.kill_at:
            self._replace(worker)
            return Outcome(worker.number, "timeout")
        return None

    def _replace(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _end(worker)
        if self._next < len(self._job.texts):
            self._start()

    def _start(self) -> None:
        ours, theirs = self._fork.Pipe()
        others = [worker.connection for worker in self._workers]
        process = self._fork.Process(
            target=_work, args=(theirs, [ours, *others], self._detect, self._job), daemon=True
        )
        process.start()
        theirs.close()
        self._hand_next(process, ours)

    def _hand_next(self, process: ForkProcess, connection: Connection) -> None:
        if self._next == len(self._job.texts):
            connection.close()  # the worker ends by itself
            process.join()
            return
        with contextlib.suppress(BrokenPipeError):  # it has died: its end of file says so at the next wait
            connection.send(self._next)
        kill_at = time.monotonic() + self._job.deadline_seconds + self._job.grace_seconds
        self._workers.append(_Worker(process, connection, self._next, kill_at))
        self._next += 1


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _work(connection: Connection, inherited: list[Connection], detect: Detect, job: _Job) -> None:
    """A worker's life. It closes the supervisor's pipe ends it was forked with, or no end of file could come."""
    for other in inherited:
        other.close()
    while True:
        try:
            number = connection.recv()
        except EOFError:
            os._exit(0)  # no interpreter shutdown: it would touch, and so copy, every shared page
        connection.send(_detect_one(number, detect, job))


def _detect_one(number: int, detect: Detect, job: _Job) -> Outcome:
    deadline = time.time() + job.deadline_seconds
    try:
        answer = detect(job.texts[number], deadline)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARS]
        return Outcome(number, "failed", reason=reason)
    return Outcome(number, "scanned", answer) if time.time() < deadline else Outcome(number, "timeout")
