"""The peak memory of this process and all its children, sampled while something runs.

Proportional set size is summed, so memory that forked workers share is counted once. Sampling twice a second
misses shorter peaks: the number is a lower bound, good to some per cent for work of minutes.
"""

import contextlib
import threading
from types import TracebackType

import psutil

_SECONDS = 0.5


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
