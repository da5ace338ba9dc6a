"""Numbers in scratch files, of which a process holds no more than it works on.

A mapped file reads like an array, at no cost for what is not touched. But pages that were touched count as the
process's memory until the system wants them back, so that work on a large corpus looks as if it held all of
it, and is ended where memory is limited. A reader therefore says when a block is done, and touches little in one.
Written are such files by ordinary writes: in a mapped one, a full disk is a crash.
"""

import mmap
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 8 * 1024**2
"""What may be touched, or held, in a block."""
TOUCHED_BYTES = 64 * 1024
"""What the system maps around a byte that is read, at most."""

Number = TypeVar("Number", bound=np.generic)


class MappedNumbers(Generic[Number]):
    """A file of numbers as an array that must not be written to."""

    values: NDArray[Number]
    """(num_numbers,)"""

    def __init__(self, place: Path, kind: type[Number]) -> None:
        """Raises OSError where there is no such file."""
        self._pages: mmap.mmap | None = None
        with place.open("rb") as file:
            if place.stat().st_size:  # an empty file cannot be mapped
                # Copied on write, so that the array has the same type for kernels as one in memory.
                self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.values = np.zeros(0, kind) if self._pages is None else np.frombuffer(self._pages, kind)

    def release(self) -> None:
        """Lets go of the pages that were read; reading them again maps them again."""
        if self._pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)


def numbers_at(place: Path, kind: type[Any], first: int, count: int) -> NDArray[Any]:
    """(count,) the numbers of a file from the one at `first` on, in memory."""
    return np.fromfile(place, kind, count, offset=first * np.dtype(kind).itemsize)
