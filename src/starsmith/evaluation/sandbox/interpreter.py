"""Where this Python really lives, which is all of it that a sandbox shows to a program.

A virtual environment only points to an interpreter; programs get that interpreter with its standard library
and without any site-packages on their path.
"""

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Interpreter:
    executable: str
    folders: tuple[str, ...]
    """What must be readable beside /usr."""

    def command(self, entry: str) -> list[str]:
        """Runs a file with the standard library alone.

        These flags are `-I -S` without `-E`: the environment is ours anyway and carries PYTHONHASHSEED, so
        that a program that depends on the order of a set does the same each time.
        """
        return [self.executable, "-P", "-s", "-S", "-B", entry]


ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "TZ": "UTC",
}

SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Beside /usr: on most systems links into it."""
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")


def find() -> Interpreter:
    """The interpreter behind the running one."""
    executable = os.path.realpath(sys.executable)
    libraries = {os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix)}  # noqa: PTH118
    folders = {os.path.dirname(executable), *map(os.path.realpath, libraries)}  # noqa: PTH120
    return Interpreter(
        executable=executable,
        folders=tuple(sorted(folder for folder in folders if not is_below_usr(folder))),
    )


def reachable_by_all(path: str) -> bool:
    """Whether every folder on the way to `path` lets every user pass."""
    parts = os.path.realpath(path).split("/")[1:-1]
    folders = ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
    return all(os.stat(folder).st_mode & 0o001 for folder in folders if os.path.exists(folder))  # noqa: PTH110, PTH116


def is_below_usr(folder: str) -> bool:
    """Whether a sandbox shows this folder anyway."""
    return folder == "/usr" or folder.startswith("/usr/")
