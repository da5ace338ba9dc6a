"""The filter is run on an interpreter of our own, so every call can be tried without making it."""

import errno
import re
import struct
from pathlib import Path

import pytest

from starsmith.evaluation.sandbox import landlock, seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def decide(program: bytes, number: int, *arguments: int, machine: str = "x86_64") -> int:
    """What the kernel would do: a classic BPF machine with the five instructions that the filter uses."""
    data = struct.pack("<iIQ6Q", number, seccomp.MACHINES[machine], 0, *(arguments + (0,) * 6)[:6])
    steps = list(struct.iter_unpack("<HBBI", program))
    accumulator = place = 0
    while True:
        code, if_true, if_false, k = steps[place]
        place += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            place += if_true if holds else if_false


@pytest.mark.parametrize("machine", HEADERS)
def test_every_number_is_the_kernels(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]} on this machine")
    pattern = re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)")
    numbers = {name: int(number) for name, number in pattern.findall(HEADERS[machine].read_text())}
    column = list(seccomp.MACHINES).index(machine)
    special = {
        "clone": seccomp._CLONE,
        "clone3": seccomp._CLONE3,
        "kill": seccomp._KILL_CALL,
        "tgkill": seccomp._TGKILL,
        "prlimit64": seccomp._PRLIMIT,
        "sched_setaffinity": seccomp._SETAFFINITY,
        "ioctl": seccomp._IOCTL,
        "openat2": seccomp._OPENAT2,
        "openat": tuple(entry[0] for entry in seccomp._OPENAT),
        "open": tuple(entry[0] for entry in seccomp._OPEN),
    }
    table = seccomp._CALLS | seccomp._METADATA_CALLS | seccomp._IGNORED_CALLS | special
    assert {name: entry[column] for name, entry in table.items() if entry[column] is not None} == {
        name: numbers[name] for name, entry in table.items() if entry[column] is not None
    }


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("own_pid", [None, 1234])
def test_refused_and_allowed_calls(machine: str, own_pid: int | None) -> None:
    program = seccomp.build_filter(own_pid=own_pid, machine=machine)
    column = list(seccomp.MACHINES).index(machine)
    for numbers in seccomp._CALLS.values():
        if numbers[column] is not None:
            assert decide(program, numbers[column], machine=machine) == REFUSE
    read, write, execve = ((0, 63), (1, 64), (59, 221))
    for numbers in (read, write, execve):
        assert decide(program, numbers[column], machine=machine) == ALLOW
    assert decide(program, 435, machine=machine) == ABSENT
    assert decide(program, 462, machine=machine) == ABSENT


def test_other_architectures_and_the_x32_calls_are_closed() -> None:
    program = seccomp.build_filter(machine="x86_64")
    assert decide(program, 0, machine="aarch64") == KILL
    assert decide(program, 0x40000000 | 41) == REFUSE


def test_arguments_are_looked_at() -> None:
    program = seccomp.build_filter(own_pid=1234, machine="x86_64")
    clone, kill, prlimit, ioctl, openat = 56, 62, 302, 16, 257
    assert decide(program, clone, 0x3D0F00) == ALLOW, "a thread"
    assert decide(program, clone, 0x01200011) == ALLOW, "fork"
    for flag in (0x20000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        assert decide(program, clone, flag | 17) == REFUSE, hex(flag)
    assert [decide(program, kill, pid) for pid in (1234, 0, 1, 0xFFFFFFFFFFFFFFFF, 999)] == [
        ALLOW, ALLOW, REFUSE, REFUSE, REFUSE
    ]  # fmt: skip
    assert decide(program, prlimit, 0) == ALLOW and decide(program, prlimit, 77) == REFUSE
    assert decide(program, ioctl, 0, 0x5401) == ALLOW and decide(program, ioctl, 0, 0x5412) == REFUSE
    reads, writes, truncating = 0, 1, 0x200
    assert decide(program, openat, 0, 0, reads) == ALLOW
    assert decide(program, openat, 0, 0, writes | truncating) == ALLOW
    assert decide(program, openat, 0, 0, reads | truncating) == REFUSE


def test_the_metadata_of_files_is_open_only_where_namespaces_guard_it() -> None:
    chmod = 90
    assert decide(seccomp.build_filter(machine="x86_64"), chmod) == ALLOW
    assert decide(seccomp.build_filter(own_pid=1, machine="x86_64"), chmod) == REFUSE


def test_a_kernel_takes_only_so_many_instructions() -> None:
    for machine in seccomp.MACHINES:
        assert len(seccomp.build_filter(own_pid=1, machine=machine)) // 8 <= 4096


def test_landlock_rights_grow_with_its_version() -> None:
    assert [landlock.handled_rights(abi).bit_count() for abi in (1, 2, 3, 4, 5, 6, 7)] == [
        13, 14, 15, 15, 16, 16, 16
    ]  # fmt: skip


@pytest.mark.parametrize("own_pid", [None, 1234])
def test_scheduling_calls_do_nothing_and_say_they_did(own_pid: int | None) -> None:
    program = seccomp.build_filter(own_pid=own_pid, machine="x86_64")
    for name in ("sched_setparam", "sched_setscheduler"):
        assert decide(program, seccomp._IGNORED_CALLS[name][0] or 0) == 0x00050000, "an error of number 0"
