"""The system calls that a sandboxed program may not make, as a classic BPF program.

The kernel's interface is linux/filter.h, linux/seccomp.h and Documentation/userspace-api/seccomp_filter.rst;
call numbers are those of asm/unistd_64.h (x86-64) and asm-generic/unistd.h (AArch64).

Refused calls answer EPERM, so that a program fails where it stands and its error can be read. Calls newer than
this table answer ENOSYS: what we do not know, a program does not get. So does clone3, whose flags lie in
memory that a filter cannot read; the C library then falls back to clone, whose flags we check.

A filter is a list of 8-byte instructions `struct sock_filter {u16 code; u8 jt; u8 jf; u32 k}` over
`struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6]}`.
"""

import errno
import platform
import struct
from typing import Final

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000

_NUMBER: Final = 0  # offsets in seccomp_data, little-endian
_ARCHITECTURE: Final = 4


def _argument(index: int) -> int:
    return 16 + 8 * index


_NEW_NAMESPACES: Final = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} and CLONE_NEWTIME
_CLONE_NEWTIME: Final = 0x80
"""In clone this bit belongs to the exit signal (always < 0x80), so testing it refuses no ordinary call."""

MACHINES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine name to AUDIT_ARCH."""

# name: (x86-64, AArch64); None where the architecture has no such call.
_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # network and other ways to talk to outside
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),  # memory that no limit counts
    "memfd_secret": (447, 447),
    # asynchronous calls that would pass beside this filter
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    "kcmp": (312, 272),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # the kernel and the machine
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "seccomp": (317, 277),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "personality": (135, 92),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
}

# These do nothing and answer that they did: mono sets the priority of its threads, and says so on standard output
# where it may not.
_IGNORED_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
}

# Landlock does not guard a file's metadata (nor, before its third version, truncation), so without a file
# system of its own a program could change these of any file of the same user.
_METADATA_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
}

_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_OPENAT2: Final = (437, 437)
_OPEN: Final = ((2, 1), (None, None))
_OPENAT: Final = ((257, 2), (56, 2))
"""Call number and the index of the argument with the flags."""
_O_TRUNC: Final = 0x200
_O_WRONLY_OR_RDWR: Final = 0x3
_KILL_CALL: Final = (62, 129)
_TGKILL: Final = (234, 131)
_PRLIMIT: Final = (302, 261)
_SETAFFINITY: Final = (203, 122)
_IOCTL: Final = (16, 29)
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the caller's terminal
_FIRST_UNKNOWN: Final = 451
_X32_BIT: Final = 0x40000000


def supported(machine: str | None = None) -> bool:
    """Whether there is a table for this machine's architecture."""
    return (machine or platform.machine()) in MACHINES


def build_filter(*, own_pid: int | None = None, machine: str | None = None) -> bytes:
    """The BPF program.

    Args:
        own_pid: without a PID namespace and a file system of its own, a program may only signal this process
            (and its own process group), and may not change any file's metadata. None where namespaces
            guard both.
        machine: by default this machine's.

    Returns:
        The instructions, 8 bytes each.
    """
    machine = machine or platform.machine()
    column = list(MACHINES).index(machine)
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    absent = (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    ignore = (_RETURN, 0, 0, _ERRNO)
    allow = (_RETURN, 0, 0, _ALLOW)
    program: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, MACHINES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        refuse,
        (_AT_LEAST, 0, 1, _FIRST_UNKNOWN),
        absent,
        (_EQUAL, 0, 1, _CLONE3[column]),
        absent,
    ]
    calls = _CALLS if own_pid is None else _CALLS | _METADATA_CALLS
    for answer, table in ((refuse, calls), (ignore, _IGNORED_CALLS)):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                program += [(_EQUAL, 0, 1, number), answer]
    program += _when(
        _CLONE[column],
        [(_LOAD, 0, 0, _argument(0)), (_ANY_BIT, 0, 1, _NEW_NAMESPACES | _CLONE_NEWTIME), refuse, allow],
    )
    for call in (_PRLIMIT, _SETAFFINITY):  # of oneself (pid 0) only
        program += _when(call[column], [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 0, 1, 0), allow, refuse])
    program += _when(
        _IOCTL[column],
        [
            (_LOAD, 0, 0, _argument(1)),
            *(step for code in _TERMINAL_INPUT for step in ((_EQUAL, 0, 1, code), refuse)),
            allow,
        ],
    )
    if own_pid is not None:
        target = [
            (_LOAD, 0, 0, _argument(0)),
            (_EQUAL, 0, 1, own_pid),
            allow,
            (_EQUAL, 0, 1, 0),
            allow,
            refuse,
        ]
        for call in (_KILL_CALL, _TGKILL):
            program += _when(call[column], target)
        program += [(_EQUAL, 0, 1, _OPENAT2[column]), absent]
        for number, flags in (_OPEN[column], _OPENAT[column]):
            if number is not None and flags is not None:  # truncating what was opened for reading only
                reads_only = [(_ANY_BIT, 0, 2, _O_TRUNC), (_ANY_BIT, 1, 0, _O_WRONLY_OR_RDWR), refuse, allow]
                program += _when(number, [(_LOAD, 0, 0, _argument(flags)), *reads_only])
    program.append(allow)
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def _when(number: int, body: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """`body` (which returns on every way) for one call; other calls pass over it."""
    return [(_EQUAL, 0, len(body), number), *body]
