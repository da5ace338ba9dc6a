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
from functools import cache
from pathlib import Path
from typing import Final

from starsmith.errors import MachineError
from starsmith.evaluation.contract import Limits
from starsmith.evaluation.sandbox.interpreter import ENVIRONMENT, SYSTEM_FILES, SYSTEM_FOLDERS, Interpreter

INSTALL_LINE: Final = "apt-get install bubblewrap"
_NEEDED: Final = ("--size", "--perms", "--seccomp", "--json-status-fd", "--clearenv", "--remount-ro")
_DROP: Final = (
    "import os, sys\n"
    "uid = int(sys.argv[1])\n"
    "os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


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
    *,
    interpreter: Interpreter,
    program_folder: str,
    entry: str,
    limits: Limits,
    uid: int,
    is_root: bool,
    filter_fd: int,
    status_fd: int,
) -> list[str]:
    """The argument list that runs `entry`, a file name in `program_folder`."""
    arguments = [shutil.which("bwrap") or "bwrap"]
    arguments += [f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try")]
    arguments += ["--hostname", "sandbox", "--cap-drop", "ALL"]
    if is_root:
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--uid", str(uid), "--gid", str(uid)]
        if "--disable-userns" in options():  # 0.8 and newer; before, the filter alone refuses them
            arguments.append("--disable-userns")
    arguments += ["--new-session", "--die-with-parent", "--clearenv"]
    for name, value in (ENVIRONMENT | {"HOME": "/tmp"}).items():  # noqa: S108
        arguments += ["--setenv", name, value]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for folder in SYSTEM_FOLDERS:
        path = Path(folder)
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(folder), folder]  # noqa: PTH115
        elif path.is_dir():
            arguments += ["--ro-bind", folder, folder]
    for file in SYSTEM_FILES:
        arguments += ["--ro-bind-try", file, file]
    for parent in sorted({parent for folder in interpreter.folders for parent in Path(folder).parents}):
        if parent != Path("/"):  # otherwise bubblewrap makes it as private as it is outside
            arguments += ["--perms", "0755", "--dir", str(parent)]
    for folder in interpreter.folders:
        arguments += ["--ro-bind", folder, folder]
    in_memory = ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs"]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += [*in_memory, "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    arguments += [*in_memory, "/tmp", "--ro-bind", program_folder, "/program"]  # noqa: S108
    arguments += ["--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
    arguments += ["--seccomp", str(filter_fd), "--json-status-fd", str(status_fd), "--"]
    program = interpreter.command(f"/program/{entry}")
    if is_root:
        return [*arguments, interpreter.executable, "-I", "-S", "-c", _DROP, str(uid), *program]
    return arguments + program
