"""Where benchmarks keep what they build once, and how it gets there: aside first, then by one rename.

A folder in the cache is whole or absent. Whoever builds it holds a lock, so that two benchmarks started together
build it once; an interrupted build leaves a folder beside it that the next build removes.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from starsmith.corpus.store import disk_errors

FOLDER = Path(".cache/starsmith/benchmarks")
"""In the current directory, inside the cache that a recipe has by default; safe to delete."""


def built(place: Path, build: Callable[[Path], None]) -> Path:
    """`place`, made by `build(aside)` if it is not there.

    Raises:
        MachineError: the disk is full or the place forbidden; and whatever `build` raises.
    """
    with locked(place):
        if place.is_dir():
            return place
        aside = place.with_name(f".{place.name}.building")
        shutil.rmtree(aside, ignore_errors=True)
        with disk_errors(aside):
            aside.mkdir(parents=True)
            build(aside)
            aside.replace(place)
    return place


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Holds what is built at `place`; a second process waits."""
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        stream = place.with_name(f".{place.name}.lock").open("a")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
