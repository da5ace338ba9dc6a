"""Near-duplicate pairs: MinHash finds candidates, exact Jaccard decides (section 3.1).

As in the paper: lower-cased words, 5-grams, Jaccard 0.7, MinHash and banded LSH. Differently, and why:

* **Candidates are verified.** The published script joins whatever shares a bucket; measured, that merges
  10-13 % of the pairs below 0.7. Here the Jaccard similarity of the two sets of shingles is computed from the
  texts, so a pair in the result is a pair, up to a collision of 64-bit hashes.
* **More and shorter bands** (42 of 6 rows, not 25 of 10): a pair of similarity 0.7 is found with probability
  0.995, not 0.51. Verification makes the extra candidates harmless.
* **Empty words are not words.** The script splits at each character that is not of a word, so punctuation
  counts by its length; here words are maximal runs.
* **Short texts** (fewer words than a shingle) have one shingle of all their words: they are near-duplicates
  exactly when their words are equal. In the script they all have the same signature and one survives. A text
  without words has no near-duplicates.
* **Every pair is found, not a tree of them.** A policy asks for components among the contents that other
  rules keep, perhaps of one language; a tree would fall apart with a content that is dropped. The price is
  bounded: a bucket of up to `FULL_BUCKET` contents gives all its pairs; in a larger one each content meets the
  `FIRST` smallest and the `PREVIOUS` before it. A group of more than `FULL_BUCKET` copies is so connected by 32
  pairs a content, and stays connected unless the 16 smallest and 16 in a row are dropped together. Texts that
  differ leave a large bucket for a small one in the bands where a differing shingle is the minimum, so what
  this loses is pairs within groups that share nearly everything, which stay connected.

Languages are not looked at: they belong to files, and a policy may pair within them. Memory is flat: band
hashes and sets of shingles lie in scratch files (336 bytes a content by default, and 8 bytes a shingle of the
candidates); what grows with the corpus is the identifiers (some 70 bytes a content), one band's order and
the candidates (8 bytes each). The result depends on the contents, the configuration and the seed alone.
"""

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.corpus.buffers import text_buffers
from starsmith.corpus.store import disk_errors
from starsmith.signals import minhash_kernels, shingle_kernels
from starsmith.signals.code_points import lower_case, properties

VERSION = 1

FULL_BUCKET = 64
FIRST = 16
PREVIOUS = 16

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_BATCH_ROWS = 64
_VERIFYING_STEPS = 16


class _Hashing(NamedTuple):
    """The keyed part of signatures: functions of the seed, by a hash and not by a generator's state."""

    key: np.uint64
    multipliers: NDArray[np.int64]
    addends: NDArray[np.int64]


def signatures(
    contents: pa.Table | pa.RecordBatch, config: recipe.NearDuplicates, seed: int
) -> tuple[pa.Array, NDArray[np.uint32]]:
    """MinHash signatures of the contents that have any word.

    Args:
        contents: at least the columns content_id and text of `schema.CONTENTS`; a null text has no words.
        config: shingle_words and num_permutations are used.
        seed: the root of keyed randomness.

    Returns:
        (num_texts,) content ids in the order of `contents`, and (num_texts, num_permutations).
    """
    hashing = _hashing(seed, config.num_permutations)
    rows, has_words = minhash_kernels.signatures(
        *text_buffers(contents["text"]),
        config.shingle_words,
        hashing.key,
        hashing.multipliers,
        hashing.addends,
        properties(),
        lower_case(),
    )
    ids = contents["content_id"]
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return ids.filter(pa.array(has_words)), rows[has_words]


def signatures_schema(config: recipe.NearDuplicates) -> pa.Schema:
    """content_id, and signature: `num_permutations` little-endian uint32."""
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            pa.field("signature", pa.binary(4 * config.num_permutations), nullable=False),
        ]
    )


def signatures_of(part: Path, config: recipe.NearDuplicates, seed: int) -> pa.Table:
    """The signatures of one Parquet part of contents, as a table of `signatures_schema`."""
    schema_ = signatures_schema(config)
    batches = []
    for batch in _batches(part, ["content_id", "text"]):
        ids, rows = signatures(batch, config, seed)
        packed = pa.py_buffer(np.ascontiguousarray(rows, "<u4"))
        column = pa.Array.from_buffers(schema_.field("signature").type, len(ids), [None, packed])
        batches.append(pa.RecordBatch.from_arrays([ids, column], schema=schema_))
    return pa.Table.from_batches(batches, schema_)


def pairs_from(
    signature_tables: Sequence[Path],
    content_parts: Sequence[Path],
    config: recipe.NearDuplicates,
    seed: int,
    progress: Progress | None = None,
    *,
    scratch: Path | None = None,
) -> pa.Table:
    """The pairs of contents whose Jaccard similarity reaches `config.threshold`.

    Args:
        signature_tables: Parquet parts of `signatures_of`, in any order.
        content_parts: the Parquet parts of the contents that were signed, in any order.
        config: the one that the signatures were made with.
        seed: likewise.
        progress: told of each band, part and block of pairs.
        scratch: an existing folder for temporary files; the system's by default.

    Returns:
        `schema.NEAR_DUPLICATE_PAIRS`, ordered by its identifiers.

    Raises:
        ValueError: the tables do not belong together: another number of permutations, a content signed
            twice, or a candidate without its text.
    """
    done, total = itertools.count(1), config.bands + len(content_parts) + _VERIFYING_STEPS

    def advance() -> None:
        if progress is not None:
            progress(next(done), total)

    with tempfile.TemporaryDirectory(prefix="near-duplicates-", dir=scratch) as name:
        folder = Path(name)
        with disk_errors(folder):
            ids, bands = _read_bands(signature_tables, config, folder / "bands")
            candidates = _candidates(bands, advance)
            sets = _read_shingle_sets(ids, candidates, content_parts, config, seed, folder / "shingles", advance)
        similarities = _similarities(candidates, sets, config.threshold, advance)
    kept = similarities >= config.threshold
    left, right = (
        ids.take(pa.array(side[kept])).cast(pa.string()) for side in (candidates.left, candidates.right)
    )
    return pa.table([left, right, similarities[kept]], schema=schema.NEAR_DUPLICATE_PAIRS)


def verified_pairs(
    content_parts: Sequence[Path],
    config: recipe.NearDuplicates,
    seed: int,
    progress: Progress | None = None,
    *,
    scratch: Path | None = None,
) -> pa.Table:
    """`signatures_of` and `pairs_from` in one process, for a corpus that needs no more."""
    with tempfile.TemporaryDirectory(prefix="near-duplicates-", dir=scratch) as folder:
        tables = []
        for number, part in enumerate(content_parts):
            tables.append(Path(folder) / f"{number}.parquet")
            with disk_errors(tables[-1]):
                pq.write_table(signatures_of(part, config, seed), tables[-1])
        return pairs_from(tables, content_parts, config, seed, progress, scratch=Path(folder))


def band_hashes(rows: NDArray[np.uint32], bands: int, rows_per_band: int) -> NDArray[np.uint64]:
    """(num_texts, bands): what two texts must share in one band to become candidates."""
    return minhash_kernels.band_hashes(rows, bands, rows_per_band)


class _Bands(NamedTuple):
    codes: NDArray[np.int64]
    """(num_texts,) the rank of each text's identifier: all that follows is in terms of it."""
    hashes: NDArray[np.uint64]
    """(bands, num_texts), on disk."""


class _Candidates(NamedTuple):
    """Distinct pairs of codes, left < right, in ascending order: the order of the result."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]


class _ShingleSets(NamedTuple):
    codes: NDArray[np.int64]
    """(num_sets,) ascending."""
    numbers: NDArray[np.int64]
    """(num_sets,) the set of each code, for sets lie in the order in which texts were read."""
    offsets: NDArray[np.int64]
    """(num_sets + 1,)"""
    shingles: NDArray[np.uint64]
    """Each set ascending and without repetition; on disk."""


def _hashing(seed: int, num_permutations: int) -> _Hashing:
    stream = hashlib.shake_256(f"starsmith near-duplicates {int(seed)}".encode())
    numbers = np.frombuffer(stream.digest(8 * (1 + 2 * num_permutations)), "<u8").astype(np.uint64)
    multipliers, addends = numbers[1:].view(np.int64).reshape(2, num_permutations)
    return _Hashing(numbers[0], multipliers, addends)


def _batches(part: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(part) as file:
        yield from file.iter_batches(_BATCH_ROWS, columns=columns)


def _read_bands(
    signature_tables: Sequence[Path], config: recipe.NearDuplicates, place: Path
) -> tuple[pa.Array, _Bands]:
    """The sorted identifiers, and the bands of every signature, written to `place`."""
    num_texts = sum(pq.read_metadata(table).num_rows for table in signature_tables)
    hashes = _array_on_disk(place, (config.bands, num_texts))
    chunks = [pa.array([], pa.large_string())]
    start = 0
    for table in signature_tables:
        for batch in _batches(table, ["content_id", "signature"]):
            rows = _unpack(batch["signature"], table, config.num_permutations)
            stop = start + len(rows)
            hashes[:, start:stop] = band_hashes(rows, config.bands, config.rows).T
            chunks.append(batch["content_id"].cast(pa.large_string()))
            start = stop
    unordered = pa.concat_arrays(chunks)
    order = pc.array_sort_indices(unordered)
    ids = unordered.take(order)
    if num_texts and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
        raise ValueError("a content is signed twice: the signature tables overlap")
    codes = np.empty(num_texts, np.int64)
    codes[order.to_numpy()] = np.arange(num_texts)
    return ids, _Bands(codes, hashes)


def _array_on_disk(place: Path, shape: tuple[int, int]) -> NDArray[np.uint64]:
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, np.uint64)
    with place.open("wb") as file:  # a disk that is full must say so here: in a mapped write it is a crash
        os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * 8)
    return np.asarray(np.memmap(place, np.uint64, "r+", shape=shape))


def _unpack(column: pa.Array, table: Path, num_permutations: int) -> NDArray[np.uint32]:
    if column.type != pa.binary(4 * num_permutations):
        raise ValueError(f"{table} has signatures of {column.type}, not of {num_permutations} permutations")
    values = np.frombuffer(
        column.buffers()[1], "<u4", len(column) * num_permutations, 4 * num_permutations * column.offset
    )
    return values.reshape(len(column), num_permutations).astype(np.uint32, copy=False)


def _candidates(bands: _Bands, advance: Callable[[], None]) -> _Candidates:
    found = np.zeros(0, np.uint64)
    for hashes in bands.hashes:
        order = np.lexsort((bands.codes, hashes))
        pairs = minhash_kernels.bucket_pairs(hashes[order], bands.codes[order], FULL_BUCKET, FIRST, PREVIOUS)
        found = np.union1d(found, pairs)
        advance()
    left, right = (found >> np.uint64(32)).astype(np.int64), (found & np.uint64(0xFFFFFFFF)).astype(np.int64)
    distinct = left != right  # in a large bucket a member may meet itself among the smallest
    return _Candidates(left[distinct], right[distinct])


def _read_shingle_sets(
    ids: pa.Array,
    candidates: _Candidates,
    content_parts: Sequence[Path],
    config: recipe.NearDuplicates,
    seed: int,
    place: Path,
    advance: Callable[[], None],
) -> _ShingleSets:
    """The sets of all candidates, written to `place` in one pass over the contents."""
    codes = np.union1d(candidates.left, candidates.right)
    wanted = ids.take(pa.array(codes))
    numbers = np.full(len(codes), -1, np.int64)
    offsets = [0]
    key = _hashing(seed, config.num_permutations).key
    with place.open("wb") as file:
        for part in content_parts:
            for batch in _batches(part, ["content_id", "text"]) if len(codes) else ():
                positions = pc.index_in(batch["content_id"].cast(pa.large_string()), value_set=wanted)
                text_offsets, data = text_buffers(batch["text"])
                for row, position in enumerate(positions.to_pylist()):
                    if position is None:
                        continue
                    shingles = shingle_kernels.shingle_set(
                        data, text_offsets[row], text_offsets[row + 1], config.shingle_words, key,
                        properties(), lower_case(),
                    )  # fmt: skip
                    numbers[position] = len(offsets) - 1
                    offsets.append(offsets[-1] + len(shingles))
                    shingles.tofile(file)
            advance()
    if (numbers < 0).any():
        missing = wanted[int(np.argmin(numbers))]
        raise ValueError(f"no text for {missing}: the contents are not those that were signed")
    shingles = np.asarray(np.memmap(place, np.uint64, "c")) if offsets[-1] else np.zeros(0, np.uint64)
    return _ShingleSets(codes, numbers, np.array(offsets), shingles)


def _similarities(
    candidates: _Candidates, sets: _ShingleSets, threshold: float, advance: Callable[[], None]
) -> NDArray[np.float64]:
    found = []
    for pairs in np.array_split(np.arange(len(candidates.left)), _VERIFYING_STEPS):
        left, right = (
            sets.numbers[np.searchsorted(sets.codes, side[pairs])] for side in (candidates.left, candidates.right)
        )
        found.append(shingle_kernels.jaccards(sets.shingles, sets.offsets, left, right, threshold))
        advance()
    return np.concatenate(found)
