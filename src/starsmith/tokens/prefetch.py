"""Batches assembled ahead of need, by one thread.

The thread runs the loader and keeps a short queue; the state is that of the batch last handed out, whatever has
been assembled since, so a checkpoint never skips a batch that was not trained. What goes wrong in the thread is
raised where the batch is asked for. One thread is enough: a core assembles several times what a GPU trains, and
the work that takes long (encoding again for FIM, copying arrays) is done by compiled code.
"""

import queue
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from starsmith.tokens.loader import Batch, Loader

_POLL_SECONDS = 0.1

_Item = tuple[Batch, dict[str, Any]] | BaseException


class Prefetch:
    """A loader's batches, ready before they are asked for. Close it, or use it as a context."""

    def __init__(self, loader: Loader, *, depth: int = 2) -> None:
        """
        Args:
            loader: belongs to this object until it is closed.
            depth: how many batches are kept ready.
        """
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self._loader = loader
        self._depth = depth
        self._state = loader.state()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._ready: queue.Queue[_Item] = queue.Queue(depth)
        self._failure: BaseException | None = None
        self.wait_seconds = 0.0
        """How long the last batch kept its caller waiting."""

    @property
    def vocab_size(self) -> int:
        return self._loader.vocab_size

    @property
    def step(self) -> int:
        """The step of the next batch."""
        step: int = self._state["step"]
        return step

    def next_batch(self) -> Batch:
        """The next batch; raises what stopped the thread from making it, now and ever after."""
        started = time.perf_counter()
        if self._failure is None:
            self._start()
            item = self._ready.get()
            if isinstance(item, BaseException):
                self._failure = item
            else:
                batch, self._state = item
                self.wait_seconds = time.perf_counter() - started
                return batch
        raise self._failure

    def skip(self, num_batches: int) -> None:
        """Goes on as if so many batches had been read."""
        self._rewind()
        self._loader.skip(num_batches)
        self._state = self._loader.state()

    def state(self) -> dict[str, Any]:
        """Of this rank, after the batch last handed out."""
        return self._state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from the merged state of all ranks; as `Loader.load_state`."""
        self._rewind()
        self._loader.load_state(state)
        self._state = self._loader.state()

    def close(self) -> None:
        """Ends the thread; the loader then stands where this object's state does."""
        self._rewind()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._ready = queue.Queue(self._depth)
            # A daemon: a process that dies of something else must not wait for a queue that nobody empties.
            self._thread = threading.Thread(target=self._assemble, name="prefetch", daemon=True)
            self._thread.start()

    def _rewind(self) -> None:
        """Ends the thread, and takes the loader back to the batch last handed out."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._failure = None
        self._loader.load_state(self._state)

    def _assemble(self) -> None:
        while not self._stop.is_set():
            try:
                item: _Item = self._loader.next_batch(), self._loader.state()
            except BaseException as error:  # raised again where the batch is asked for
                item = error
            while not self._stop.is_set():
                try:
                    self._ready.put(item, timeout=_POLL_SECONDS)
                    break
                except queue.Full:
                    pass
            if isinstance(item, BaseException):
                return
