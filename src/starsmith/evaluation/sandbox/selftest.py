"""A level is trusted only after it has been attacked on this machine.

The attacks are those a level exists to stop: talk to a network, write outside, read a file outside, start more
processes than allowed, fill the disk, and outlive the limit. Each runs as an ordinary program. A level that
stops all of them and still runs an honest program is used, and the report names it.

Two levels are chosen by themselves. A container is used only when asked for, and attacked like them. `none` stops
none of these and is never tried: whoever wants it must say that they know.
"""

import platform
import secrets
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from starsmith.errors import InputError, MachineError
from starsmith.evaluation.contract import Limits, Program, RunResult
from starsmith.evaluation.sandbox import bubblewrap, landlock, seccomp
from starsmith.evaluation.sandbox import container as containers
from starsmith.evaluation.sandbox.container import Container
from starsmith.evaluation.sandbox.pool import Level, Sandbox

Wanted = Literal["auto", "bubblewrap", "landlock", "container", "docker", "podman", "none"]

LEVELS: Final[tuple[Level, ...]] = ("bubblewrap", "landlock")
"""Those that `auto` chooses from, the stronger first."""

_LIMITS: Final = Limits(cpu_seconds=2, wall_seconds=5, disk_bytes=8 * 1024**2, file_bytes=4 * 1024**2)
_STOPPED: Final = "stopped"
_ELSE: Final = "run programs in a container: --sandbox docker or --sandbox podman (evaluation.sandbox in a recipe)"

_HONEST: Final = "import math, json; print('stopped' if math.sqrt(4) == 2 else 'broken')"
_NETWORK: Final = """
import socket
tried = []
for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_UNIX, "PATH")):
    try:
        socket.socket(family).connect(address)
        tried.append("through")
    except OSError:
        tried.append("stopped")
print("stopped" if set(tried) == {"stopped"} else "through")
"""
_WRITE: Final = """
try:
    open("PATH/written", "w").close()
    print("through")
except OSError:
    print("stopped")
"""
_READ: Final = """
try:
    print("through" if open("PATH/secret").read() else "")
except OSError:
    print("stopped")
"""
_FORK: Final = """
import os, time
for n in range(4000):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        break
time.sleep(30)
"""
_DISK: Final = """
try:
    for n in range(64):
        with open(f"fill-{n}", "wb") as file:
            file.write(bytes(2 << 20))
    import time; time.sleep(30)
except OSError:
    print("stopped")
"""
_OUTLIVE: Final = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
    os._exit(0)
time.sleep(60)
# MARK
"""


@dataclass(frozen=True)
class Attempt:
    """One level tried on this machine."""

    level: Level
    failures: tuple[str, ...]
    """What it did not stop, or why it cannot be had; empty when it is fit for use."""


@dataclass(frozen=True)
class Prepared:
    """A level that may be used, and what was tried for it."""

    level: Level
    attempts: tuple[Attempt, ...]
    container: Container | None = None

    def open(self, workers: int) -> Sandbox:
        return Sandbox(self.level, workers=workers, container=self.container)

    def description(self) -> dict[str, Any]:
        """What results say of the sandbox."""
        refused = {tried.level: list(tried.failures) for tried in self.attempts if tried.failures}
        told: dict[str, Any] = {"level": self.level, "refused": refused, "confined": self.level != "none"}
        if self.container is None:
            return told | {"python": platform.python_version()}
        engine, image, image_id = self.container.engine, self.container.image, self.container.image_id
        return told | {"engine": engine, "image": image, "image_id": image_id}


def prepare(
    wanted: Wanted = "auto", *, image: str = containers.DEFAULT_IMAGE, runs_unconfined: bool = False
) -> Prepared:
    """What was asked for, once it has stopped every attack.

    Args:
        wanted: `auto` takes the first of `LEVELS` that works; `container` the first engine that has the image.
        image: for containers.
        runs_unconfined: the word that `none` needs.

    Raises:
        InputError: `none` without that word.
        MachineError: it does not work here; says why, and what to do.
    """
    if wanted == "auto" or wanted == "bubblewrap" or wanted == "landlock":
        return Prepared(*choose(wanted))
    if wanted == "none":
        if not runs_unconfined:
            raise InputError(
                "sandbox none runs generated programs with this user's rights, files and network; if that is "
                "meant, say so: evaluation.generated_code_runs_unconfined = true, or "
                "--i-know-generated-code-runs-unconfined. Better: auto, or a container (--sandbox docker)"
            )
        if sys.platform != "linux":
            raise MachineError(
                f"without a sandbox programs run on Linux alone, this is {platform.system()}; {_ELSE}"
            )
        return Prepared("none", ())
    container = containers.find(containers.ENGINES if wanted == "container" else (wanted,), image)
    tried = attempt("container", container)
    if tried.failures:
        raise MachineError(f"{image} in {container.engine} confines no program here: {'; '.join(tried.failures)}")
    return Prepared("container", (tried,), container)


def choose(wanted: Literal["auto", "bubblewrap", "landlock"] = "auto") -> tuple[Level, tuple[Attempt, ...]]:
    """The first level that stops every attack, and what was tried.

    Raises:
        MachineError: no level, or not the one that was asked for, passes; says why and what to install.
    """
    attempts: list[Attempt] = []
    for level in LEVELS if wanted == "auto" else (wanted,):
        attempts.append(attempt(level))
        if not attempts[-1].failures:
            return level, tuple(attempts)
    reasons = "\n".join(f"  {tried.level}: {'; '.join(tried.failures)}" for tried in attempts)
    linux = (
        f"Install bubblewrap ({bubblewrap.INSTALL_LINE}; it needs user namespaces), use a Linux kernel of 5.13 or "
        "newer with Landlock enabled, or "
    )
    raise MachineError(
        f"no sandbox works on this machine, so no generated program is run:\n{reasons}\n"
        f"{linux if sys.platform == 'linux' else ''}{_ELSE}"
    )


@cache
def attempt(level: Level, container: Container | None = None) -> Attempt:
    """Attacks a level; takes about two seconds, once in a process."""
    if container is None and (reason := unavailable(level)):
        return Attempt(level, (reason,))
    with (
        tempfile.TemporaryDirectory(prefix="starsmith-selftest-") as name,
        Sandbox(level, workers=2, container=container) as sandbox,
    ):
        return Attempt(level, tuple(_attack(sandbox, Path(name))))


def unavailable(level: Level) -> str | None:
    """Why a level cannot even be tried, or None."""
    if sys.platform != "linux":
        return f"needs Linux, this is {platform.system()}"
    if not seccomp.supported():
        return f"has no table of system calls for {platform.machine()}"
    if level == "landlock":
        return None if landlock.version() else "the kernel has no Landlock, or it is not enabled"
    try:
        bubblewrap.options()
    except MachineError as error:
        return str(error)
    return None


def _attack(sandbox: Sandbox, outside: Path) -> list[str]:
    outside.chmod(0o777)
    (outside / "secret").write_text("secret")
    (outside / "secret").chmod(0o644)
    mark = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(outside / "socket"))
        local.listen()
        (outside / "socket").chmod(0o777)
        port = str(server.getsockname()[1])
        network = _NETWORK.replace("PORT", port).replace("PATH", str(outside / "socket"))
        sources = {
            "runs no honest program": _HONEST,
            "opens a socket": network,
            "writes outside": _WRITE.replace("PATH", str(outside)),
            "reads a file outside": _READ.replace("PATH", str(outside)),
            "forks past the limit": _FORK,
            "fills the disk": _DISK,
            "outlives its limit": _OUTLIVE,
        }
        results = sandbox.run_programs([_program(name, source, mark) for name, source in sources.items()])
    return [
        f"{name} ({result.ended}, status {result.status}: {(result.detail or result.stderr).strip()[-200:]})"
        for name, result in zip(sources, results, strict=True)
        if not _stopped(name, result, mark)
    ]


def _program(name: str, source: str, mark: str) -> Program:
    wall_seconds = 1.0 if name in ("outlives its limit", "forks past the limit") else _LIMITS.wall_seconds
    limits = Limits(**(vars(_LIMITS) | {"wall_seconds": wall_seconds}))
    return Program(files=((f"{mark}.py", source),), limits=limits)


def _stopped(name: str, result: RunResult, mark: str) -> bool:
    if name == "outlives its limit":
        return result.ended == "timeout" and not _processes_with(mark)
    if name == "forks past the limit":
        return result.ended in ("processes", "timeout") and not _processes_with(mark)
    if name == "fills the disk" and result.ended == "disk":
        return True
    return result.ended == "exit" and result.stdout.strip() == _STOPPED


def _processes_with(mark: str) -> Sequence[int]:
    """Those of this machine; where there is no /proc, containers are in a machine of their own."""
    if not Path("/proc/self").exists():
        return []
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes()
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            if mark.encode() in line or name == mark[:15]:  # a fork of the launcher bears the file's name only
                found.append(int(process.name))
    return found
