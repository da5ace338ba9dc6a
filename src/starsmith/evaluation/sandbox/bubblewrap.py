"""The bubblewrap level: each program in namespaces of its own.

A program sees a read-only /usr and its interpreter, its own files under /program, two small file systems in
memory (/tmp and /dev/shm), no network but its own loopback, and no process but its own. Root keeps just enough
capability to become an unprivileged user inside (a user namespace would map it to root's own number, which no
process limit binds); everyone else gets a user namespace in which no further one can be made. The seccomp
filter is loaded on top: the kernel's surface is what is left to attack.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from starsmith.errors import MachineError
from starsmith.evaluation.contract import Limits
from starsmith.evaluation.sandbox.interpreter import SYSTEM_FILES, SYSTEM_FOLDERS

INSTALL_LINE: Final = "apt-get install bubblewrap"
_NEEDED: Final = ("--size", "--perms", "--seccomp", "--json-status-fd", "--clearenv", "--remount-ro")


@cache
def options() -> frozenset[str]:
    """The options that the installed bubblewrap knows.

    Raises:
        MachineError: it is absent, or older than 0.7 and so without a size for its file systems.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise MachineError(f"bubblewrap is not installed; {INSTALL_LINE}")
    text = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=10, check=False).stdout
    known = frozenset(word for word in text.split() if word.startswith("--"))
    if absent := [option for option in _NEEDED if option not in known]:
        raise MachineError(f"{path} is too old: it has no {', '.join(absent)}; version 0.7 or newer is needed")
    return known


def command(
    program: Sequence[str],
    *,
    environment: Mapping[str, str],
    folders: Sequence[str],
    program_folder: str,
    work_folder: str | None,
    limits: Limits,
    uid: int,
    is_root: bool,
    filter_fd: int,
    status_fd: int,
) -> list[str]:
    """The argument list that runs `program`.

    Args:
        program: an argument list; the program's files are at /program, its folder is /tmp.
        environment: all that the program gets.
        folders: shown read-only beside /usr.
        program_folder: what is at /program.
        work_folder: what is at /tmp; None for a file system in memory that ends with the program.
        limits: of the program; only the size of file systems is set here.
        uid: the program's user.
        is_root: whether we are.
        filter_fd: where the seccomp filter is read.
        status_fd: where bubblewrap writes the exit status.
    """
    arguments = [_path()]
    arguments += [f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try")]
    arguments += ["--hostname", "sandbox", "--cap-drop", "ALL"]
    if is_root:
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--uid", str(uid), "--gid", str(uid)]
        if "--disable-userns" in options():  # 0.8 and newer; before, the filter alone refuses them
            arguments.append("--disable-userns")
    arguments += ["--new-session", "--die-with-parent", "--clearenv"]
    for name, value in environment.items():
        arguments += ["--setenv", name, value]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for folder in SYSTEM_FOLDERS:
        if os.path.islink(folder):  # noqa: PTH114
            arguments += ["--symlink", os.readlink(folder), folder]  # noqa: PTH115
        elif os.path.isdir(folder):  # noqa: PTH112
            arguments += ["--ro-bind", folder, folder]
    in_memory = ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs"]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += [*in_memory, "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    arguments += ["--bind", work_folder, "/tmp"] if work_folder else [*in_memory, "/tmp"]  # noqa: S108
    shown = (*SYSTEM_FILES, *folders)
    for parent in sorted({parent for path in shown for parent in Path(path).parents}):
        if parent not in (Path("/"), Path("/tmp")):  # noqa: S108
            # Otherwise bubblewrap makes it as private as it is outside.
            arguments += ["--perms", "0755", "--dir", str(parent)]
    for path in shown:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--ro-bind", program_folder, "/program"]
    arguments += ["--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
    arguments += ["--seccomp", str(filter_fd), "--json-status-fd", str(status_fd), "--"]
    if is_root:
        arguments += [_set_user(), f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    return [*arguments, *program]


@cache
def _path() -> str:
    return shutil.which("bwrap") or "bwrap"


@cache
def _set_user() -> str:
    """The program of util-linux that gives up root.

    Raises:
        MachineError: it is absent.
    """
    if (path := shutil.which("setpriv")) is None:
        raise MachineError(
            "setpriv is not installed, and root needs it to run programs as nobody; apt-get install util-linux"
        )
    return path
