"""How much memory a process and its children hold, and how to hold less.

`PeakMemory` samples the proportional set size, so memory that forked workers share is counted once. Sampling twice
a second misses shorter peaks: the number is a lower bound, good to some per cent for work of minutes.

`be_frugal` and `give_back` are for processes that work through many batches. Allocators keep what was freed, each
in several arenas; measured over a corpus, that was a third of what a worker held, and it grew with the batches.
"""

import contextlib
import ctypes
import threading
from types import TracebackType

import psutil
import pyarrow as pa

_SECONDS = 0.5
_M_ARENA_MAX = -8


def be_frugal() -> None:
    """From now on Arrow and everything else allocate from one arena, whose free pages can be given back.

    With another C library than glibc, only Arrow's part happens.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Returns free pages to the system."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """`with PeakMemory() as peak: ...` and then `peak.bytes`."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while True:
            self.bytes = max(self.bytes, _tree_bytes(own))
            if self._stop.wait(_SECONDS):
                return


def _tree_bytes(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += member.memory_full_info().pss
    return total
