"""The process between us and the programs: starts each, watches it, ends it with all its descendants.

It reads one JSON object a line on standard input and answers with one on standard output. It has one thread,
so that it may fork and prepare the child in Python; it imports nothing but the standard library and its own
package. It watches from outside (wall clock, CPU time, memory, processes and disk of the whole tree), because
limits inside can be ignored or outlived; and when its own caller goes away, it ends what runs and leaves.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from starsmith.evaluation.contract import Ended, Limits, RunResult
from starsmith.evaluation.sandbox import (
    bubblewrap,
    container,
    forked,
    interpreter,
    landlock,
    privileges,
    process_tree,
    seccomp,
)

_TICK_SECONDS: Final = 0.05
_READ_BYTES: Final = 65_536
_PACKAGE_FOLDER: Final = str(Path(__file__).parents[3])
_DETAIL_CHARS: Final = 300
_PATIENCE_SECONDS: Final = {"bubblewrap": 0.1, "landlock": 0.002, "container": 0.002, "none": 0.002}
"""What is left of a program that ended: a namespace ends with its first process, elsewhere it must be ended."""
_OWN_PROCESS: Final = ("/proc/self",)
"""Its own maps and descriptors; the link is followed by the process itself, after the last fork before exec."""
_MACHINE: Final = tuple(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "stat", "filesystems", "sys/vm"))
"""What virtual machines ask for before they start."""
_NEAR: Final = 0.9
"""Of the CPU limit: the kernel counts in ticks, and kills a little before what it reports reaches the limit."""
_FOREIGN_TASKS: Final = 256
"""Room for what the user may start beside a program; `_inspect` holds the program to its own limit."""


@dataclass(kw_only=True)
class _Watched:
    """A running program, seen from outside."""

    pid: int
    process_fd: int
    setup_fd: int
    streams: dict[int, bytearray]
    """Standard output and standard error by the descriptor they are read from."""
    status_fd: int | None
    started: float
    ended: Ended = "exit"
    detail: str = ""
    dead_cpu_seconds: float = 0.0
    wait_status: int | None = None
    seen_cpu_seconds: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One command; all but a program's last compile."""

    command: tuple[str, ...]
    limits: Limits
    limits_address_space: bool


@dataclass(frozen=True)
class Request:
    """A program with its commands, which hold `{program}` and `{work}` for the two folders."""

    files: dict[str, str]
    steps: tuple[Step, ...]
    environment: dict[str, str]
    folders: tuple[str, ...]
    """Readable beside /usr."""
    is_own_python: bool
    """Whether it runs on the launcher's interpreter, which may then be forked."""

    @classmethod
    def read(cls, line: dict[str, Any]) -> Self:
        steps = (
            Step(tuple(step["command"]), Limits(**step["limits"]), step["limits_address_space"])
            for step in line["steps"]
        )
        folders = tuple(line["folders"])
        return cls(line["files"], tuple(steps), line["environment"], folders, line["is_own_python"])


@dataclass(frozen=True)
class _Box:
    """The two folders of a program as one level shows them."""

    program: Path
    work: Path

    def placed(self, command: Sequence[str]) -> list[str]:
        return [self._placed(word) for word in command]

    def environment(self, request: Request) -> dict[str, str]:
        own = {name: self._placed(value) for name, value in request.environment.items()}
        return interpreter.ENVIRONMENT | {"HOME": str(self.work), "TMPDIR": str(self.work)} | own

    def as_inside(self, text: str) -> str:
        """A program's output with the names that every level would give."""
        return text.replace(str(self.program), "/program").replace(str(self.work), "/tmp")  # noqa: S108

    def _placed(self, word: str) -> str:
        return word.replace("{program}", str(self.program)).replace("{work}", str(self.work))


class Launcher:
    def __init__(self, level: str, scratch: Path, control_fd: int) -> None:
        self.level = level
        self.scratch = scratch
        self.control_fd = control_fd
        self.is_root = os.geteuid() == 0
        self.uid = privileges.worker_uid()
        privileges.adopt_orphans()

    def run(self, request: Request) -> RunResult:
        """Runs the steps one after another, up to the first that fails, and returns when nothing is left."""
        box = self.scratch / "box"
        shutil.rmtree(box, ignore_errors=True)
        try:
            return self._run(_Box(box / "program", box / "work"), request)
        except OSError as error:
            process_tree.kill_descendants(os.getpid())
            return RunResult(ended="sandbox_error", detail=f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(box, ignore_errors=True)

    def _run(self, box: _Box, request: Request) -> RunResult:
        for folder in (box.program.parent, box.program, box.work):
            folder.mkdir()
            folder.chmod(0o755)
        if self.is_root:
            os.chown(box.work, self.uid, self.uid)
        for name, text in request.files.items():
            path = box.program / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            path.chmod(0o444)
        *compiling, running = request.steps
        for step in compiling:
            result = self._run_step(box, request, step, is_last=False)
            if result.ended != "exit" or result.status != 0:
                return _as_compilation(result)
        if compiling:
            _allow_execution(box.placed(running.command)[0])
        return self._run_step(box, request, running, is_last=True)

    def _run_step(self, box: _Box, request: Request, step: Step, *, is_last: bool) -> RunResult:
        watched = self._start(box, request, step)
        try:
            self._watch(watched, box.work, step.limits)
            self._end(watched, step.limits, tells=is_last and self.level == "bubblewrap")
            return self._result(watched, box, step.limits)
        finally:
            for fd in (watched.process_fd, watched.setup_fd, watched.status_fd, *watched.streams):
                if fd is not None:
                    os.close(fd)

    def _start(self, box: _Box, request: Request, step: Step) -> _Watched:
        (output, output_end), (error, error_end), (setup, setup_end) = (os.pipe() for _ in range(3))
        status = status_end = filter_fd = None
        arguments: list[str] = []
        if self.level == "bubblewrap":
            status, status_end = os.pipe()
            filter_fd = _pipe_with(seccomp.build_filter())
            arguments = self._bubblewrap(box, request, step, filter_fd, status_end)
        num_foreign_tasks = self._num_foreign_tasks()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                privileges.die_with_parent()
                null = os.open("/dev/null", os.O_RDONLY)
                for source, target in ((null, 0), (output_end, 1), (error_end, 2)):
                    os.dup2(source, target)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)
                privileges.set_limits(
                    step.limits,
                    num_foreign_tasks=num_foreign_tasks,
                    limits_address_space=step.limits_address_space,
                )
                if filter_fd is not None and status_end is not None:
                    os.set_inheritable(filter_fd, True)
                    os.set_inheritable(status_end, True)
                    os.execve(arguments[0], arguments, {})  # noqa: S606 - this is the child
                self._become_program(box, request, step)
            except BaseException as fault:  # nothing may return from here
                os.write(setup_end, f"{type(fault).__name__}: {fault}".encode()[:1000])
            finally:
                os._exit(127)
        for fd in (output_end, error_end, setup_end, status_end, filter_fd):
            if fd is not None:
                os.close(fd)
        for fd in (output, error):
            os.set_blocking(fd, False)
        return _Watched(
            pid=pid,
            process_fd=os.pidfd_open(pid),
            setup_fd=setup,
            streams={output: bytearray(), error: bytearray()},
            status_fd=status,
            started=started,
        )

    def _num_foreign_tasks(self) -> int:
        """What the kernel counts against the program's user and is not the program's: nothing for root, who
        gives each worker a user of its own; else all that the user runs and may start meanwhile."""
        if self.is_root:
            return 0
        return process_tree.num_tasks_of(os.geteuid()) + _FOREIGN_TASKS

    def _bubblewrap(self, box: _Box, request: Request, step: Step, filter_fd: int, status_fd: int) -> list[str]:
        inside = _Box(Path("/program"), Path("/tmp"))  # noqa: S108 - the sandbox's own
        return bubblewrap.command(
            inside.placed(step.command),
            environment=inside.environment(request),
            folders=request.folders,
            program_folder=str(box.program),
            # What a step compiled must outlive it; a single step gets memory, which has a size of its own.
            work_folder=str(box.work) if len(request.steps) > 1 else None,
            limits=step.limits,
            uid=self.uid,
            is_root=self.is_root,
            filter_fd=filter_fd,
            status_fd=status_fd,
        )

    def _become_program(self, box: _Box, request: Request, step: Step) -> NoReturn:
        os.chdir(box.work)
        command = box.placed(step.command)
        readable = ("/usr", *interpreter.SYSTEM_FOLDERS, *interpreter.SYSTEM_FILES, *request.folders)
        if self.level == "container":
            readable += interpreter.find().folders
        grants = [(path, landlock.READ) for path in (*readable, *_OWN_PROCESS, *_MACHINE, str(box.program))]
        grants += [(f"/dev/{name}", landlock.DEVICE) for name in ("null", "zero", "full", "random", "urandom")]
        grants.append((str(box.work), landlock.WORK))
        if self.is_root:
            private = not all(map(interpreter.reachable_by_all, (command[0], *request.folders)))
            privileges.become(self.uid, read_everywhere=private)
            privileges.die_with_parent()  # a change of user clears it
        privileges.show_own_process()  # a change of user hides it, and so does a launcher in a container
        privileges.no_new_privileges()
        if self.level == "landlock" or (self.level == "container" and landlock.version()):
            landlock.restrict(grants)
        if self.level != "none":
            privileges.filter_calls(seccomp.build_filter(own_pid=os.getpid()))
        if request.is_own_python:
            privileges.name_process(Path(command[-1]).name)
            forked.run(command[-1], box.environment(request), _PACKAGE_FOLDER)
        os.execve(command[0], command, box.environment(request))  # noqa: S606 - this is the child

    def _watch(self, watched: _Watched, work: Path, limits: Limits) -> None:
        """Returns when the program has ended or must be ended."""
        poll = select.poll()
        for fd in (watched.process_fd, *watched.streams):
            poll.register(fd, select.POLLIN)
        poll.register(self.control_fd, select.POLLIN)
        deadline = watched.started + limits.wall_seconds
        next_tick = watched.started + _TICK_SECONDS
        while watched.ended == "exit":
            now = time.monotonic()
            wait_seconds = max(0.0, min(next_tick, deadline) - now)
            ready = {fd for fd, _ in poll.poll(wait_seconds * 1000 + 1)}
            if self.control_fd in ready:  # no request comes while one runs: the caller is gone
                process_tree.kill_descendants(os.getpid())
                raise SystemExit(0)
            for fd in ready & watched.streams.keys():
                if not _drain(fd, watched.streams[fd], limits.output_bytes):
                    poll.unregister(fd)
            if sum(map(len, watched.streams.values())) > limits.output_bytes:
                watched.ended, watched.detail = "output", f"more than {limits.output_bytes} bytes of output"
            elif watched.process_fd in ready:
                break
            elif (now := time.monotonic()) >= deadline:
                watched.ended, watched.detail = "timeout", f"{limits.wall_seconds:g} s of wall time"
            elif now >= next_tick:
                self._inspect(watched, work, limits)
                next_tick = time.monotonic() + _TICK_SECONDS

    def _end(self, watched: _Watched, limits: Limits, *, tells: bool) -> None:
        """Ends the program's processes, and returns when none is left.

        With `tells`, the caller hears at once that a program has ended by itself: the kernel takes as long to
        take its namespaces down as a small program runs, and another may run meanwhile.
        """
        if tells and watched.ended == "exit":
            os.write(1, b"\n")
        patience_seconds = _PATIENCE_SECONDS[self.level] if watched.ended == "exit" else 0.0
        for pid, status, cpu_seconds in process_tree.kill_descendants(
            os.getpid(), patience_seconds=patience_seconds
        ):
            watched.dead_cpu_seconds += cpu_seconds
            if pid == watched.pid:
                watched.wait_status = status
        for fd, kept in watched.streams.items():
            _drain(fd, kept, limits.output_bytes)

    def _inspect(self, watched: _Watched, work: Path, limits: Limits) -> None:
        tree = process_tree.watched_descendants(os.getpid())
        watched.seen_cpu_seconds |= {process.pid: process.cpu_seconds for process in tree}
        resident_bytes = sum(process.resident_bytes for process in tree)
        own_processes = 2 if self.level == "bubblewrap" else 0
        num_processes = sum(process.num_threads for process in tree) - own_processes
        if sum(watched.seen_cpu_seconds.values()) > limits.cpu_seconds + 1:
            watched.ended, watched.detail = "timeout", f"{limits.cpu_seconds:g} s of CPU time"
        elif num_processes > limits.num_processes:  # before memory: what forks share is counted for each
            watched.ended, watched.detail = "processes", f"more than {limits.num_processes} processes"
        elif resident_bytes > limits.memory_bytes:
            watched.ended, watched.detail = "oom", f"more than {limits.memory_bytes} bytes of memory"
        elif self.level != "bubblewrap":  # its file systems have a size of their own
            disk_bytes = process_tree.folder_bytes(str(work)) + sum(map(process_tree.deleted_bytes, tree))
            if disk_bytes > limits.disk_bytes:
                watched.ended, watched.detail = "disk", f"more than {limits.disk_bytes} bytes of files"

    def _result(self, watched: _Watched, box: _Box, limits: Limits) -> RunResult:
        wall_seconds = time.monotonic() - watched.started
        output, error = (
            box.as_inside(bytes(kept).decode("utf-8", errors="replace")) for kept in watched.streams.values()
        )
        ended, detail = watched.ended, watched.detail
        status = os.waitstatus_to_exitcode(watched.wait_status) if watched.wait_status is not None else 0
        if ended == "exit":
            if watched.status_fd is not None and status > 128:
                status = 128 - status  # bubblewrap hands a signal on as 128 + signal
            near = watched.dead_cpu_seconds >= _NEAR * limits.cpu_seconds
            if status == -signal.SIGXCPU or (status < 0 and near):
                ended, detail = "timeout", f"{limits.cpu_seconds:g} s of CPU time"
            elif fault := os.read(watched.setup_fd, 1000).decode(errors="replace"):
                ended, detail = "sandbox_error", fault
            elif watched.status_fd is not None and b'"exit-code"' not in _read_all(watched.status_fd):
                ended, detail = "sandbox_error", error.strip()[-500:] or f"bubblewrap ended with {status}"
        return RunResult(
            ended=ended,
            status=status,
            stdout=output,
            stderr=error,
            detail=detail,
            wall_seconds=wall_seconds,
            cpu_seconds=watched.dead_cpu_seconds,
        )


def _as_compilation(result: RunResult) -> RunResult:
    """What a step before the last says of a program that was never run."""
    if result.ended == "sandbox_error":
        return result
    if result.ended != "exit" or result.status < 0:
        return replace(result, detail=f"compiling: {result.detail or f'killed by signal {-result.status}'}")
    lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
    found = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return replace(result, ended="compile", detail=found[:_DETAIL_CHARS])


def _allow_execution(path: str) -> None:
    """Linkers mark their result as executable, which the landlock level refuses them (as any change of mode)."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG((status := os.fstat(fd)).st_mode) and not status.st_mode & 0o100:
                os.fchmod(fd, 0o755)
        finally:
            os.close(fd)


def _pipe_with(data: bytes) -> int:
    """A descriptor from which `data`, less than a pipe holds, can be read."""
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    return read_end


def _drain(fd: int, kept: bytearray, cap_bytes: int) -> bool:
    """Reads what is there, at most a little over the cap; false at the end of the stream."""
    while len(kept) <= cap_bytes:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        kept += data
    return True


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, _READ_BYTES):
        parts.append(part)
    return b"".join(parts)


def _sweep(scratch: Path) -> None:
    """Removes what a program left where every program of this container may write."""
    for folder in map(Path, container.WRITABLE):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path != scratch:
                shutil.rmtree(path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    path.unlink()


def _requests(control_fd: int) -> Any:
    pending = b""
    while data := os.read(control_fd, _READ_BYTES):
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def main() -> None:
    level, scratch = sys.argv[1], Path(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # our end is the end of standard input
    launcher = Launcher(level, scratch, control_fd=0)
    if level == "container":
        privileges.hide_own_process()  # programs are of the same user
        scratch.mkdir()
    try:
        for request in _requests(0):
            result = launcher.run(Request.read(request))
            if level == "container":
                _sweep(scratch)
            _answer(asdict(result))
    finally:
        with contextlib.suppress(RuntimeError):
            process_tree.kill_descendants(os.getpid())
        shutil.rmtree(scratch, ignore_errors=True)


def _answer(result: dict[str, Any]) -> None:
    data = json.dumps(result).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]
