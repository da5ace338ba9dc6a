"""SIGINT and SIGTERM: noted, so that the loop can end a step, save and stop."""

import signal
import threading
from typing import Any


class StopRequest:
    """Notes the first SIGINT or SIGTERM; a second one acts as if we were not here.

    Signals reach Python's main thread only; elsewhere nothing is installed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: object) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
