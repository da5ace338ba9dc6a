"""Arrow text columns as two NumPy arrays, for kernels, without copying the text.

Arrow keeps a text column as one run of UTF-8 bytes and the offsets at which rows begin. Compiled kernels take
exactly these two arrays, so that no Python string is made for a row. The price is that a caller works chunk by
chunk: a column in several chunks has several byte runs and can be joined only by copying it once.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class TextBuffers(NamedTuple):
    """Row `i` is `data[offsets[i]:offsets[i + 1]]`; a null row is empty."""

    offsets: NDArray[np.int64]
    """(num_rows + 1,), in bytes; the first is not always 0. Read-only."""
    data: NDArray[np.uint8]
    """(num_bytes,), UTF-8; read-only, and shared with the column."""


def text_buffers(column: pa.Array | pa.ChunkedArray) -> TextBuffers:
    """The offsets and bytes of a `string` or `large_string` column.

    A slice or a single chunk shares its bytes with the column; several chunks are joined by one copy, which a
    caller avoids by going through `table.to_batches()`. 32-bit offsets are widened (8 bytes a row).

    Raises:
        TypeError: the column is neither `string` nor `large_string`.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise TypeError(f"a text column is string or large_string, not {column.type}")
    array = _one_chunk(column)
    if array.null_count and _has_bytes_under_nulls(array):
        array = pc.fill_null(array, "")
    return _buffers(array)


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    # 32-bit offsets overflow beyond 2 GiB, where Arrow would answer with several chunks again.
    chunks = [chunk.cast(pa.large_string()) for chunk in column.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())


def _has_bytes_under_nulls(array: pa.Array) -> bool:
    """Arrow allows a null row to span bytes; they would read as text."""
    lengths = np.diff(_buffers(array).offsets)
    return bool(lengths[array.is_null().to_numpy(zero_copy_only=False)].any())


def _buffers(array: pa.Array) -> TextBuffers:
    _, offsets_buffer, data_buffer = array.buffers()
    if offsets_buffer is None or offsets_buffer.size == 0:  # an empty column may have no offsets at all
        return TextBuffers(_read_only(np.zeros(len(array) + 1, np.int64)), _NO_BYTES)
    width = np.dtype(np.int64 if pa.types.is_large_string(array.type) else np.int32)
    offsets = np.frombuffer(offsets_buffer, width, len(array) + 1, array.offset * width.itemsize)
    data = _NO_BYTES if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return TextBuffers(_read_only(offsets.astype(np.int64, copy=False)), data)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """All arrays alike: a kernel is compiled once for read-only arguments, and again for writable ones."""
    array.setflags(write=False)
    return array


_NO_BYTES: NDArray[np.uint8] = _read_only(np.zeros(0, np.uint8))
