"""Which pairs of signatures are worth a comparison: those that share a band (section 3.1).

Signatures and band hashes lie in scratch files, so that memory does not grow with their length; what grows with
the corpus is the identifiers (some 70 bytes a content), one band's order (24) and the candidates (8 bytes each).
Contents are coded by the rank of their identifier, so nothing depends on the order in which they were read."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.signals import minhash_kernels

FULL_BUCKET = 64
FIRST = 16
PREVIOUS = 16

_BATCH_ROWS = 1024
_MERGED_PAIRS = 1 << 21


class Signed(NamedTuple):
    ids: pa.Array
    """(num_texts,) large_string, ascending: a content's code is its position."""
    codes: NDArray[np.int64]
    """(num_texts,) the code of each text, in the order in which they were read, as the two below."""
    signatures: NDArray[np.uint32]
    """(num_texts, num_permutations), on disk."""
    bands: NDArray[np.uint64]
    """(bands, num_texts), on disk."""

    @property
    def positions(self) -> NDArray[np.int64]:
        """(num_texts,) where the signature of each code lies."""
        positions = np.empty(len(self.codes), np.int64)
        positions[self.codes] = np.arange(len(self.codes))
        return positions


class Candidates(NamedTuple):
    """Distinct pairs of codes, left < right, in ascending order: the order of the result."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]

    def only(self, chosen: NDArray[np.bool_]) -> "Candidates":
        return Candidates(self.left[chosen], self.right[chosen])


def read_signatures(tables: Sequence[Path], config: recipe.NearDuplicates, folder: Path) -> Signed:
    """All signatures and their bands, written to files in `folder`.

    Raises:
        ValueError: another number of permutations, or a content signed twice.
    """
    num_rows = sum(pq.read_metadata(table).num_rows for table in tables)
    signatures = _array_on_disk(folder / "signatures", (num_rows, config.num_permutations), np.dtype(np.uint32))
    bands = _array_on_disk(folder / "bands", (config.bands, num_rows), np.dtype(np.uint64))
    chunks = [pa.array([], pa.large_string())]
    start = 0
    for ids, rows in _signed_batches(tables, config.num_permutations):
        stop = start + len(rows)
        signatures[start:stop] = rows
        bands[:, start:stop] = minhash_kernels.band_hashes(rows, config.bands, config.rows).T
        chunks.append(ids)
        start = stop
    unordered = pa.concat_arrays(chunks)
    order = pc.array_sort_indices(unordered)
    ids = unordered.take(order)
    if start and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
        raise ValueError("a content is signed twice: the signature tables overlap")
    codes = np.empty(start, np.int64)
    codes[order.to_numpy()] = np.arange(start)
    return Signed(ids, codes, signatures[:start], bands[:, :start])


def candidates(signed: Signed, advance: Callable[[], None]) -> Candidates:
    """The pairs that share a band; within a bucket of more than `FULL_BUCKET` texts those of each text with the
    `FIRST` smallest and the `PREVIOUS` before it. `advance` is called once a band."""
    found = np.zeros(0, np.uint64)
    fresh: list[NDArray[np.uint64]] = []
    for hashes in signed.bands:
        order = np.argsort(hashes)
        fresh.append(
            minhash_kernels.bucket_pairs(hashes[order], signed.codes[order], FULL_BUCKET, FIRST, PREVIOUS)
        )
        if sum(map(len, fresh)) > max(_MERGED_PAIRS, len(found)):
            found, fresh = _merged([found, *fresh]), []
        advance()
    found = _merged([found, *fresh])
    return Candidates((found >> np.uint64(32)).astype(np.int64), (found & np.uint64(0xFFFFFFFF)).astype(np.int64))


def _merged(pairs: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    joined = np.concatenate(pairs)
    joined.sort()
    return joined[np.append(True, joined[1:] != joined[:-1])] if len(joined) else joined


def _signed_batches(
    tables: Sequence[Path], num_permutations: int
) -> Iterator[tuple[pa.Array, NDArray[np.uint32]]]:
    for table in tables:
        with pq.ParquetFile(table) as file:
            kind = file.schema_arrow.field("signature").type
            if kind != pa.binary(4 * num_permutations):
                raise ValueError(f"{table} has signatures of {kind}, not of {num_permutations} permutations")
            for batch in file.iter_batches(_BATCH_ROWS, columns=["content_id", "signature"], use_threads=False):
                signed = batch.filter(batch["signature"].is_valid()) if batch["signature"].null_count else batch
                yield signed["content_id"].cast(pa.large_string()), _unpack(signed["signature"], num_permutations)


def _unpack(column: pa.Array, num_permutations: int) -> NDArray[np.uint32]:
    values = np.frombuffer(
        column.buffers()[1], "<u4", len(column) * num_permutations, 4 * num_permutations * column.offset
    )
    return values.reshape(len(column), num_permutations).astype(np.uint32, copy=False)


def _array_on_disk(place: Path, shape: tuple[int, int], kind: np.dtype[Any]) -> NDArray[Any]:
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, kind)
    with place.open("wb") as file:  # a disk that is full must say so here: in a mapped write it is a crash
        os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * kind.itemsize)
    return np.asarray(np.memmap(place, kind, "r+", shape=shape))
