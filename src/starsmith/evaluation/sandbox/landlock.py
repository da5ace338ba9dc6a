"""Landlock: a process gives up every path that it is not granted, for itself and all its descendants.

The kernel's interface is linux/landlock.h and Documentation/userspace-api/landlock.rst (Linux 5.13 and newer).
Its calls have no wrappers in the C library, so they are made by number; the numbers are the same on every
architecture. What a kernel's version cannot restrict is left to the seccomp filter.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_QUERY_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_FIFO: Final = 1 << 10
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14

READ: Final = EXECUTE | READ_FILE | READ_DIR
DEVICE: Final = READ_FILE | WRITE_FILE
WORK: Final = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
)
_FILE_RIGHTS: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
"""The rights that a rule on something other than a folder may hold."""

_ALL_NETWORK: Final = 0b11  # binding and connecting TCP sockets (version 4)
_ALL_SCOPES: Final = 0b11  # abstract Unix sockets and signals (version 6)

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's Landlock version; 0 where it has none or it is not enabled."""
    found: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_QUERY_VERSION))
    return max(0, found)


def handled_rights(abi: int) -> int:
    """Every file-system right that this version can take away."""
    num_rights = 13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16
    return (1 << num_rights) - 1


def restrict(grants: Sequence[tuple[str, int]]) -> None:
    """Restricts the calling thread to the granted paths, for good; the caller has set no_new_privs.

    A path that does not exist is passed over.

    Raises:
        OSError: the kernel refuses.
    """
    abi = version()
    handled = handled_rights(abi)
    attributes = struct.pack("<QQQ", handled, _ALL_NETWORK, _ALL_SCOPES)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _checked(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, rights in grants:
            with contextlib.suppress(FileNotFoundError):
                _grant(ruleset, path, rights & handled)
        _checked(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, rights: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - plain strings: this runs between fork and exec
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, folder)
        _checked(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(folder)


def _checked(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock call {number}: {os.strerror(code)}")
    return result
