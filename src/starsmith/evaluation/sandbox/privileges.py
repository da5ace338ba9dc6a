"""What a process gives up between fork and exec: limits, its user, capabilities, system calls.

Interfaces: setrlimit(2), prctl(2), capset(2), capabilities(7). A process limit (RLIMIT_NPROC) binds only an
unprivileged user, so root becomes one; each launcher takes an own number, so that what one's program uses up is
not missing to another's.
"""

import ctypes
import os
import resource
import struct
from typing import Final

from starsmith.evaluation.contract import Limits

_FIRST_UID: Final = 1_900_000_000
"""From here to 2**31 nothing is assigned by any convention (systemd's UIDS-GIDS lists them)."""
_HIGHEST_UID_OF_16_BITS: Final = 65_534
"""`nobody`; the numbers below it are reserved and have no accounts."""

_SET_PDEATHSIG: Final = 1
_SET_DUMPABLE: Final = 4
_SET_KEEPCAPS: Final = 8
_SET_NAME: Final = 15
_SET_SECCOMP: Final = 22
_SET_CHILD_SUBREAPER: Final = 36
_SET_NO_NEW_PRIVS: Final = 38
_CAP_AMBIENT: Final = 47
_AMBIENT_RAISE: Final = 2
_SECCOMP_MODE_FILTER: Final = 2
_SIGKILL: Final = 9
_CAP_DAC_READ_SEARCH: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def worker_uid() -> int:
    """The user that this launcher's programs run as when we are root: no other launcher on the machine has it,
    where users are not mapped (as in some containers, which know 65,536 of them)."""
    with open("/proc/self/uid_map") as lines:  # noqa: PTH123
        known = [(int(first), int(count)) for first, _, count in (line.split() for line in lines)]
    uid = _FIRST_UID + os.getpid()
    if any(first <= uid < first + count for first, count in known):
        return uid
    return _HIGHEST_UID_OF_16_BITS - os.getpid() % 500


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent dies, so that none escapes it."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    _prctl(_SET_PDEATHSIG, _SIGKILL)


def set_limits(limits: Limits, *, num_foreign_tasks: int, limits_address_space: bool = True) -> None:
    """Sets the resource limits of the calling process.

    Args:
        limits: of the program.
        num_foreign_tasks: processes and threads of the same user that are not the program's; the kernel
            counts them too.
        limits_address_space: false for what maps more than it uses.
    """
    mapped_bytes = limits.memory_bytes if limits_address_space else resource.RLIM_INFINITY
    cpu_seconds = max(1, int(-(-limits.cpu_seconds // 1)))
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, mapped_bytes, mapped_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.num_open_files, limits.num_open_files),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_NPROC, *[limits.num_processes + num_foreign_tasks] * 2),
    ):
        _, highest = resource.getrlimit(kind)
        if highest != resource.RLIM_INFINITY:
            soft, hard = (
                highest if wanted == resource.RLIM_INFINITY else min(wanted, highest) for wanted in (soft, hard)
            )
        resource.setrlimit(kind, (soft, hard))


def become(uid: int, *, read_everywhere: bool) -> None:
    """Root becomes `uid` for good, without capabilities.

    With `read_everywhere`, CAP_DAC_READ_SEARCH is kept: an interpreter under a private folder (such as root's
    home) could not be reached otherwise. What may be read is then up to Landlock alone.
    """
    if read_everywhere:
        _prctl(_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if read_everywhere:
        mask = 1 << _CAP_DAC_READ_SEARCH
        header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
        data = struct.pack("<IIIIII", mask, mask, mask, 0, 0, 0)
        if _libc.capset(header, data) != 0:
            raise _error("capset")
        _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, _CAP_DAC_READ_SEARCH)


def show_own_process() -> None:
    """Lets a process that changed its user read what the kernel tells of itself under /proc/self."""
    _prctl(_SET_DUMPABLE, 1)


def hide_own_process() -> None:
    """Keeps other processes of the same user out of the calling one's memory and descriptors."""
    _prctl(_SET_DUMPABLE, 0)


def name_process(name: str) -> None:
    """Names the calling process as an executable would: the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_SET_NAME, ctypes.addressof(buffer))


def no_new_privileges() -> None:
    _prctl(_SET_NO_NEW_PRIVS, 1)


def filter_calls(program: bytes) -> None:
    """Installs a seccomp filter (see `seccomp.build_filter`) for the calling thread and its descendants."""
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    header = Program(len(program) // 8, ctypes.addressof(instructions))
    _prctl(_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(ctypes.c_int(option), *padded) != 0:
        raise _error(f"prctl {option}")


def _error(call: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{call}: {os.strerror(code)}")
