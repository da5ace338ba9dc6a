"""All descendants of a process: what they use, and how to end every one of them.

The launcher adopts orphans (`privileges.adopt_orphans`), so a process that forks twice and starts a session
of its own is still found below it. Fields are those of proc_pid_stat(5).
"""

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from stat import S_ISREG
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_KILL_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.0005


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    cpu_seconds: float
    resident_bytes: int
    num_threads: int


def descendants(root: int) -> list[Process]:
    """Every living process below `root`, zombies left out."""
    children: Mapping[int, list[Process]] = _children()
    found: list[Process] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += [process for process in below if process.num_threads > 0]
        pending += [process.pid for process in below]
    return found


def watched_descendants(root: int) -> list[Process]:
    """As `descendants`, from what the kernel lists of each process's children: the cost is the tree's and not the
    machine's, but a child may be missed while its siblings end, so this is for looking and not for ending."""
    if not os.path.exists("/proc/thread-self/children"):  # noqa: PTH110 - a kernel without CONFIG_PROC_CHILDREN
        return descendants(root)
    found: list[Process] = []
    pending = [root]
    while pending:
        for pid in _listed_children(pending.pop()):
            pending.append(pid)
            with contextlib.suppress(OSError):
                if (process := _read(pid)).num_threads > 0:
                    found.append(process)
    return found


def num_tasks_of(uid: int) -> int:
    """Processes and threads of a user, as the kernel counts them for RLIMIT_NPROC."""
    total = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    total += len(list(os.scandir(f"/proc/{entry.name}/task")))
    return total


def deleted_bytes(process: Process) -> int:
    """Bytes of files that a process holds open and that no folder shows any more."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{process.pid}/fd"):
            with contextlib.suppress(OSError):
                status = entry.stat()
                if S_ISREG(status.st_mode) and status.st_nlink == 0:
                    total += status.st_blocks * 512
    return total


def folder_bytes(folder: str) -> int:
    """Bytes on disk below a folder, at least a block for each entry; links are not followed."""
    total = 0
    pending = [folder]
    while pending:
        with contextlib.suppress(OSError):
            for entry in os.scandir(pending.pop()):
                with contextlib.suppress(OSError):
                    total += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return total


def kill_descendants(root: int, *, patience_seconds: float = 0.0) -> list[tuple[int, int, float]]:
    """Ends and reaps every process below `root` (the caller itself).

    All are stopped before the first is killed, so that none can fork a successor meanwhile.

    Args:
        root: the caller.
        patience_seconds: how long to wait for what is ending by itself, which costs less than looking for it:
            the kernel takes milliseconds to take a namespace down.

    Returns:
        Process, wait status and CPU seconds of each that was reaped here.

    Raises:
        RuntimeError: some process would not end.
    """
    reaped: list[tuple[int, int, float]] = []
    started = time.monotonic()
    deadline = started + _KILL_SECONDS
    while time.monotonic() < started + patience_seconds:
        if _reap(reaped):
            return reaped
        time.sleep(_LOOK_SECONDS)
    while not _reap(reaped):
        stopped: set[int] = set()
        while new := {process.pid for process in descendants(root)} - stopped:
            _send(new, signal.SIGSTOP)
            stopped |= new
        _send(stopped, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {sorted(stopped)} cannot be killed")
        if stopped:
            time.sleep(0.001)
    return reaped


def _send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _reap(reaped: list[tuple[int, int, float]]) -> bool:
    """Reaps what has ended; true when no child is left."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
        reaped.append((pid, status, usage.ru_utime + usage.ru_stime))


def _children() -> dict[int, list[Process]]:
    children: dict[int, list[Process]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                process = _read(int(entry.name))
                children[process.parent].append(process)
    return children


def _listed_children(parent: int) -> list[int]:
    """Of all its threads."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{parent}/task"):
            with contextlib.suppress(OSError), open(f"{task.path}/children") as file:  # noqa: PTH123
                children += map(int, file.read().split())
    return children


def _read(pid: int) -> Process:
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        return _parse(pid, file.read())


def _parse(pid: int, line: bytes) -> Process:
    fields = line[line.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    return Process(
        pid=pid,
        parent=int(fields[1]),
        cpu_seconds=sum(map(int, fields[11:15])) / _TICKS_PER_SECOND,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        num_threads=int(fields[17]),  # 0 for a zombie, unless only its first thread has ended
    )
