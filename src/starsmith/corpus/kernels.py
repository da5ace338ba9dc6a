"""How hot loops are compiled: one decorator, so that every kernel has the same properties.

A kernel is compiled for the types of its first call and kept on disk (in `NUMBA_CACHE_DIR`, or beside its
file), so later processes start in milliseconds; it releases the interpreter's lock. numba discards a cached
kernel when its own file changes, not when a kernel that it calls in another file does; so kernels call across
files only what never changes (`signals.code_points.decode`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compiles a function over NumPy arrays and numbers; its plain form stays available as `py_func`."""
    compiled: Function = numba.njit(cache=True, nogil=True)(function)
    return compiled
