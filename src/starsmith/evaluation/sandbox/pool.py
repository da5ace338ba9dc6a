"""Running many programs at once, one launcher process for each worker.

A launcher that dies or does not answer costs one program a `sandbox_error`, never a verdict, and is replaced.
Results come back in the order of the programs, whatever the number of workers.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self

from starsmith.errors import InputError
from starsmith.evaluation import toolchains
from starsmith.evaluation.contract import Program, Progress, RunResult, no_progress
from starsmith.evaluation.sandbox import container as containers
from starsmith.evaluation.sandbox import interpreter
from starsmith.evaluation.sandbox.container import Container

Level = Literal["bubblewrap", "landlock", "container", "none"]
"""`none` confines nothing: limits of resources, and processes that are ended."""

_PACKAGE_FOLDER: Final = Path(__file__).parents[2]
_START: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); from starsmith.evaluation.sandbox.launcher import main; main()"
)
"""A launcher is a bare interpreter, since programs may be forks of it (`forked`): neither our environment nor our
packages are in it."""
_GRACE_SECONDS: Final = 30.0
"""What a launcher may take beyond a program's wall limit to end its processes."""


_SHOWN_BYTES: Final = 10_000
_LAUNCHERS_EACH: Final[dict[Level, int]] = {"bubblewrap": 2, "landlock": 1, "container": 1, "none": 1}
"""For each program that may run at once: while the kernel takes down the namespaces of one, the next runs."""


class Sandbox:
    """Workers on one level. Use as a context manager; leaving it ends every process below it."""

    def __init__(self, level: Level, *, workers: int, container: Container | None = None) -> None:
        """
        Args:
            level: `selftest.prepare` says which one works here.
            workers: programs that run at once.
            container: for the level of that name.
        """
        self.level = level
        self.container = container
        self.identity = f"{level} {container.image_id}" if container else level
        """Changes when programs run on another level, or in another image."""
        workers = max(1, workers)
        slots = threading.Semaphore(workers)
        self._workers = [_Worker(level, container, slots) for _ in range(workers * _LAUNCHERS_EACH[level])]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()

    def run_programs(
        self, programs: Sequence[Program], *, progress: Progress = no_progress, workers: int | None = None
    ) -> list[RunResult]:
        """Runs every program and returns their results in order.

        Args:
            programs: those with equal limits and files give equal results, times apart.
            progress: called after each program, from one thread at a time.
            workers: fewer than there are, to run programs on a quieter machine.
        """
        pending = iter(range(len(programs)))
        results: dict[int, RunResult] = {}
        lock, stopped = threading.Lock(), threading.Event()

        def work(worker: _Worker) -> None:
            while not stopped.is_set():
                with lock:
                    index = next(pending, None)
                if index is None:
                    return
                result = worker.run(programs[index])
                with lock:
                    results[index] = result
                    progress(len(results), len(programs))

        chosen = self._workers[:workers]
        with ThreadPoolExecutor(len(chosen)) as threads:
            try:
                for running in [threads.submit(work, worker) for worker in chosen]:
                    running.result()
            except BaseException:
                stopped.set()
                self.close()
                raise
        return [results[index] for index in range(len(programs))]


class _Worker:
    """A launcher process and the pipe to it."""

    def __init__(self, level: Level, container: Container | None, slots: threading.Semaphore) -> None:
        self._level = level
        self._slots = slots
        self._container = container
        self._name = ""
        """Of the container that runs."""
        self._errors: IO[bytes] | None = None
        """What a launcher, or the client that starts its container, says before it ends."""
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        self._pending = b""
        self._lock = threading.Lock()

    def run(self, program: Program) -> RunResult:
        try:
            request, seconds = _request(program, self._level)
        except InputError as error:
            return RunResult(ended="sandbox_error", detail=str(error))
        with self._lock, contextlib.ExitStack() as slot:
            slot.enter_context(self._slots)
            try:
                process = self._running()
                self._ask(process, request)
                return RunResult(**self._read_answer(process, time.monotonic() + seconds, slot.close))
            except (
                OSError,
                ValueError,
                subprocess.TimeoutExpired,
            ) as error:  # ValueError: the pipe was closed by `stop`
                self._clean()
                return RunResult(ended="sandbox_error", detail=f"launcher: {error}")

    def stop(self) -> None:
        """Ends the launcher and all below it, from any thread; what runs ends as a `sandbox_error`."""
        process = self._process
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError, ValueError):
                process.stdin.close()  # the launcher takes this for the end
        with self._lock:
            self._clean()

    def _clean(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(OSError, ValueError):
                process.stdin.close()
            try:
                process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if self._container is not None and process.returncode != 0:  # its client ended, and it may still run
                containers.end(self._container, self._name)
            process.stdout.close()
        if self._errors is not None:
            self._errors.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._clean()
            self._pending = b""
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            command, environment = self._command()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                env=environment,
            )
        return self._process

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """What starts a launcher, and its environment."""
        if self._container is not None:
            self._name = f"starsmith-{secrets.token_hex(8)}"
            arguments = containers.launcher_arguments(_START)
            started = containers.command(self._container, self._name, _PACKAGE_FOLDER, arguments)
            return started, containers.environment()
        self._scratch = Path(tempfile.mkdtemp(prefix="starsmith-sandbox-"))
        self._scratch.chmod(0o711)
        bare = interpreter.find().command("-c")
        return [
            *bare,
            _START,
            str(_PACKAGE_FOLDER.parent),
            self._level,
            str(self._scratch),
        ], interpreter.ENVIRONMENT

    def _ask(self, process: "subprocess.Popen[bytes]", request: dict[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(process) from None

    def _read_answer(
        self, process: "subprocess.Popen[bytes]", deadline: float, program_ended: Callable[[], None]
    ) -> dict[str, Any]:
        """The line with the result; an empty one before it says that the program has ended."""
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("no answer")
            data = os.read(fd, 1 << 20)
            if not data:
                raise self._ended(process)
            self._pending += data
            if self._pending.startswith(b"\n"):
                self._pending = self._pending[1:]
                program_ended()
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self, process: "subprocess.Popen[bytes]") -> ConnectionError:
        """The error of a launcher that is gone, with its last words."""
        status = process.wait(timeout=_GRACE_SECONDS)
        assert self._errors is not None
        self._errors.seek(0)
        said = self._errors.read(_SHOWN_BYTES).decode(errors="replace").strip().splitlines()
        return ConnectionError(f"ended with status {status}{f': {said[-1]}' if said else ''}")


def _request(program: Program, level: Level) -> tuple[dict[str, Any], float]:
    """What the launcher is asked, and how long its answer may take.

    Raises:
        InputError: no toolchain runs this language here.
    """
    if level == "container" and program.language != "python":
        raise InputError(f"the container level runs Python alone, and this program is {program.language!r}")
    toolchain = toolchains.find(program.language)
    steps = toolchain.steps([name for name, _ in program.files], program.limits)
    request = {
        "files": dict(program.files),
        "steps": [asdict(step) for step in steps],
        "environment": dict(toolchain.environment),
        "folders": () if level == "container" else toolchain.visible_folders(),  # the image has its own
        "is_own_python": program.language == "python",
    }
    return request, sum(step.limits.wall_seconds for step in steps) + _GRACE_SECONDS
