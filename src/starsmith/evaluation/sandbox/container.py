"""The container level: the launcher runs inside a container of Docker's or Podman's, one container a worker.

It is for systems where the other levels cannot be had (macOS and Windows run containers in a virtual machine),
and it is used only when asked for: it needs a daemon or a runtime that somebody set up, and an image that
somebody chose. Nothing is downloaded here.

The container has no network, a read-only root, no capability, no way to new ones, an unprivileged user, and
limits of its own on memory and processes. Inside, each program is held as on the landlock level (seccomp
always, Landlock where the container's kernel and profile let it), so programs that share a container don't
meet: all processes of one are ended and its files are gone before the next starts. What the launcher cannot end
from inside is ended from outside, by the container's name.

Programs are Python alone, by the image's own interpreter (3.11 or newer): other languages' compilers would have
to be looked for in the image. Price: starting a container takes 0.3 to 1 s, once for each worker.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from starsmith.errors import MachineError
from starsmith.evaluation.sandbox import interpreter

Engine = Literal["docker", "podman"]

ENGINES: Final[tuple[Engine, ...]] = ("docker", "podman")
DEFAULT_IMAGE: Final = "docker.io/library/python:3.11-slim"
USER: Final = "65534:65534"
MEMORY_BYTES: Final = 3 * 1024**3
"""Of the whole container, its file system in memory included; programs have smaller limits of their own."""
DISK_BYTES: Final = 512 * 1024**2
NUM_PROCESSES: Final = 512
NUM_OPEN_FILES: Final = 4096
WRITABLE: Final = ("/tmp", "/dev/shm")  # noqa: S108 - the container's own
_PACKAGE: Final = "/starsmith"
_SECONDS: Final = 30.0
_ABSENT_IMAGE: Final = ("no such image", "image not known", "no such object")


@dataclass(frozen=True)
class Container:
    """What programs run in."""

    engine: Engine
    path: str
    """Of the engine's client."""
    image: str
    image_id: str


def find(engines: Sequence[Engine], image: str = DEFAULT_IMAGE) -> Container:
    """The first of these engines that has the image, with that image.

    Raises:
        MachineError: says of each engine what is missing and how to get it.
    """
    reasons = []
    for engine in engines:
        found = _inspect(engine, image)
        if isinstance(found, Container):
            return found
        reasons.append(f"  {engine}: {found}")
    raise MachineError("no container can be started, so no generated program is run:\n" + "\n".join(reasons))


def command(container: Container, name: str, package_folder: Path, launcher: Sequence[str]) -> list[str]:
    """The argument list that starts a launcher in a container of this name.

    Args:
        container: engine and image.
        name: unique; what the container is ended by.
        package_folder: of our own package; shown read-only inside.
        launcher: the arguments of the image's Python, which find the package below `/starsmith`.
    """
    read_only = ["--read-only", *(["--read-only-tmpfs=false"] if container.engine == "podman" else [])]
    environment = interpreter.ENVIRONMENT | {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    return [
        container.path,
        *("run", "--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--name", name),
        *("--network", "none", *read_only, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--user", USER, "--hostname", "sandbox", "--workdir", "/tmp"),  # noqa: S108
        *("--pids-limit", str(NUM_PROCESSES), "--memory", str(MEMORY_BYTES), "--memory-swap", str(MEMORY_BYTES)),
        *("--ulimit", f"nofile={NUM_OPEN_FILES}:{NUM_OPEN_FILES}", "--ulimit", "nproc=4096:4096"),
        *("--tmpfs", f"{WRITABLE[0]}:rw,exec,nosuid,nodev,mode=1777,size={DISK_BYTES}"),
        *("--volume", f"{package_folder}:{_PACKAGE}/{package_folder.name}:ro"),
        *(word for variable in environment.items() for word in ("--env", "=".join(variable))),
        *("--entrypoint", "python3", container.image_id, *launcher),
    ]


def launcher_arguments(start: str) -> list[str]:
    """What the image's Python runs: `start` with the package's folder, the level and the scratch folder."""
    flags = interpreter.Interpreter("python3", ()).command("-c")[1:]
    return [*flags, start, _PACKAGE, "container", "/tmp/scratch"]  # noqa: S108


def end(container: Container, name: str) -> None:
    """Ends a container with all that runs in it; nothing happens if it is gone already."""
    for verb in (("kill",), ("rm", "--force")):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [container.path, *verb, name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
            )


def environment() -> dict[str, str]:
    """Of the engine's client, which finds its daemon and its images through it; no program sees it."""
    return dict(os.environ)


def _inspect(engine: Engine, image: str) -> Container | str:
    """The container, or why not."""
    path = shutil.which(engine)
    if path is None:
        return f"not installed ({_install_line(engine)})"
    try:
        done = subprocess.run(
            [path, "image", "inspect", "--format", "{{.Id}}", image],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not answer: {error}"
    if done.returncode == 0:
        return Container(engine, path, image, done.stdout.strip())
    said = done.stderr.strip().splitlines()
    if any(words in done.stderr.lower() for words in _ABSENT_IMAGE):
        return f"has no image {image}; get it with: {engine} pull {image}"
    return f"does not answer: {said[-1] if said else f'status {done.returncode}'}; {_start_line(engine)}"


def _install_line(engine: Engine) -> str:
    return "apt-get install docker.io" if engine == "docker" else "apt-get install podman"


def _start_line(engine: Engine) -> str:
    if engine == "docker":
        return "start its daemon (systemctl start docker, or Docker Desktop)"
    return "see: podman info"
