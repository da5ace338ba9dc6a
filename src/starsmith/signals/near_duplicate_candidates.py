"""Which pairs of signatures are worth a comparison: those that share a band (section 3.1).

Signatures and band hashes lie in scratch files (`near_duplicate_scratch`); what grows in memory with the corpus is
the identifiers (some 70 bytes a content), one band's order (24) and the candidates (8 bytes each).
Contents are coded by the rank of their identifier, so nothing depends on the order in which they were read."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.memory import give_back
from starsmith.signals import minhash_kernels
from starsmith.signals.near_duplicate_scratch import numbers_at

FULL_BUCKET = 64
FIRST = 16
PREVIOUS = 16

_BATCH_ROWS = 1024
_MERGED_PAIRS = 1 << 18
_MOST_PLACES = 1 << 26


class Signed(NamedTuple):
    ids: pa.Array
    """(num_texts,) large_string, ascending: a content's code is its position."""
    codes: NDArray[np.int64]
    """(num_texts,) the code of each text, in the order in which they were read, as the two below."""
    signatures: Path
    """A file of (num_texts, num_permutations) uint32."""
    bands: Path
    """A file of (num_bands, num_rows) uint64, of which the first `num_texts` of each row count."""
    num_bands: int
    num_rows: int

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
    """`gathered` of the signatures in Parquet parts.

    Raises:
        ValueError: another number of permutations, or a content signed twice.
    """
    num_rows = sum(pq.read_metadata(table).num_rows for table in tables)
    return gathered(_signed_batches(tables, config.num_permutations), num_rows, config, folder)


def gathered(
    batches: Iterable[tuple[pa.Array, NDArray[np.uint32]]],
    num_rows: int,
    config: recipe.NearDuplicates,
    folder: Path,
) -> Signed:
    """All signatures and their bands, written to files in `folder`.

    Args:
        batches: identifiers (large_string) and the (num_texts, num_permutations) signatures of some texts.
        num_rows: of all batches, or more.
        config: which says what a band is.
        folder: an existing one.

    Raises:
        ValueError: a content is signed twice.
    """
    places = folder / "signatures", folder / "bands"
    chunks = [pa.array([], pa.large_string())]
    start = 0
    with places[0].open("wb") as signatures, places[1].open("wb") as bands:
        if num_rows:
            os.posix_fallocate(bands.fileno(), 0, config.bands * num_rows * 8)  # a full disk is told at once
        for ids, rows in batches:
            signatures.write(rows.data)
            for band, hashes in enumerate(minhash_kernels.band_hashes(rows, config.bands, config.rows)):
                os.pwrite(bands.fileno(), hashes.data, (band * num_rows + start) * 8)
            chunks.append(ids)
            start += len(rows)
            del rows
    unordered = pa.concat_arrays(chunks)
    order = pc.array_sort_indices(unordered)
    ids = unordered.take(order)
    if start and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
        raise ValueError("a content is signed twice: the signature tables overlap")
    codes = np.empty(start, np.int64)
    codes[order.to_numpy()] = np.arange(start)
    return Signed(ids, codes, *places, config.bands, num_rows)


def candidates(signed: Signed, advance: Callable[[], None]) -> Candidates:
    """The pairs that share a band; within a bucket of more than `FULL_BUCKET` texts those of each text with the
    `FIRST` smallest and the `PREVIOUS` before it. `advance` is called once a band."""
    found = np.zeros(0, np.uint64)
    fresh: list[NDArray[np.uint64]] = []
    seen = np.zeros(min(_MOST_PLACES, 1 << (8 * len(signed.codes)).bit_length()), np.uint8)
    for band in range(signed.num_bands):
        hashes = numbers_at(signed.bands, np.uint64, band * signed.num_rows, len(signed.codes))
        shared = minhash_kernels.maybe_shared(hashes, seen)
        order = shared[np.argsort(hashes[shared])]
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
        give_back()  # between the identifiers that stay there are gaps, too many to be kept


def _unpack(column: pa.Array, num_permutations: int) -> NDArray[np.uint32]:
    values = np.frombuffer(
        column.buffers()[1], "<u4", len(column) * num_permutations, 4 * num_permutations * column.offset
    )
    return values.reshape(len(column), num_permutations).astype(np.uint32, copy=False)
