"""From contents to shingles and signatures: what is computed from each text once (section 3.1).

A signature is a pure function of a text, the configuration and the seed, so rows of an earlier run are copied
where a content has one, and its text is not read. A content that has nothing to compare (no text, no words, or
too few of them under `short_texts = "alone"`) has a row without a signature, for the same reason: it need not be
read again.

The shingles themselves are needed once more, for the exact similarity of candidates. Reading and splitting the
texts a second time costs more than writing them to a scratch file and reading back the few that are asked for, so
`signatures_of` can leave them beside its table: a `ShingleFile`, which lives as long as the step. It holds the
words that they are rolled from, which take less room (`near_duplicate_packing`).
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.corpus.buffers import text_buffers
from starsmith.corpus.store import disk_errors
from starsmith.signals import minhash_kernels, near_duplicate_packing, near_duplicate_stack_v2, shingle_kernels
from starsmith.signals.code_points import lower_case, properties

BATCH_ROWS = 64
"""Texts at a time: enough that calls cost nothing, and little enough that shingles stay in the caches."""

_WHOLE_GROUP_BYTES = 32 * 1024**2
"""Ten times what `corpus.merging` puts into one."""

_SPECIAL_CASE = "[\u0130\u03a3]"
"""The letters that `str.lower` does not lower-case one by one and without context."""

_INDEX = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("num_words", pa.int64(), nullable=False),
        pa.field("num_numbers", pa.int64(), nullable=False),
    ]
)


class Shingles(NamedTuple):
    hashes: NDArray[np.uint64]
    """In the order of the texts, repeated ones too."""
    starts: NDArray[np.int64]
    """(num_texts + 1,)"""


class Packed(NamedTuple):
    """The words that shingles are rolled from, as records of `near_duplicate_packing`."""

    records: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    """(num_texts,) numbers of each record."""
    num_words: NDArray[np.int64]
    """(num_texts,)"""

    @property
    def starts(self) -> NDArray[np.int64]:
        """(num_texts,) the number with which each record begins."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes)


@dataclass(frozen=True)
class ShingleFile:
    """The shingles of a part's contents, packed, as 64-bit numbers in `place`, and whose they are beside it."""

    place: Path

    @property
    def index(self) -> Path:
        return self.place.with_name(self.place.name + ".index")


class _Hashing(NamedTuple):
    """The keyed part of signatures: functions of the seed, by a hash and not by a generator's state."""

    key: np.uint64
    multipliers: NDArray[np.int64]
    addends: NDArray[np.int64]


class Room:
    """Memory for the shingles of one batch after another: fresh memory would cost a tenth of making them."""

    def __init__(self) -> None:
        self._numbers = np.empty(0, np.uint64)
        self._records: Room | None = None

    @property
    def for_records(self) -> "Room":
        """Where the same, packed, find room."""
        self._records = self._records or Room()
        return self._records

    def of(self, size: int) -> NDArray[np.uint64]:
        if len(self._numbers) < size:
            self._numbers = np.empty(size, np.uint64)  # pages that are not written cost nothing
        return self._numbers


def shingles(
    texts: pa.Array | pa.ChunkedArray, config: recipe.NearDuplicates, seed: int, room: Room | None = None
) -> Shingles:
    """The shingles of a text column; a null text has none.

    Args:
        texts: `string` or `large_string`.
        config: words, shingle_words and short_texts are used.
        seed: the root of keyed randomness.
        room: where to put them; the next call with it overwrites them. Memory of their own by default.
    """
    return _rolled(_words(texts, config, seed, room or Room()), config)


def packed(
    texts: pa.Array | pa.ChunkedArray, config: recipe.NearDuplicates, seed: int, room: Room | None = None
) -> Packed:
    """What `unpacked` makes the shingles of a text column of."""
    room = room or Room()
    return _packed_words(_words(texts, config, seed, room), room)


def unpacked(found: Packed, config: recipe.NearDuplicates, room: Room | None = None) -> Shingles:
    """The `shingles` of the texts that were packed; `room` as there."""
    words = (room or Room()).of(int(found.num_words.sum()))
    starts = near_duplicate_packing.unpack(found.records, found.sizes, found.num_words, words)
    return _rolled(_Words(words, starts), config)


class _Words(NamedTuple):
    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    """(num_texts + 1,)"""


def _words(texts: pa.Array | pa.ChunkedArray, config: recipe.NearDuplicates, seed: int, room: Room) -> _Words:
    if config.words == "split":
        texts = _lower_special_cases(texts)
    offsets, data = text_buffers(texts)
    found = shingle_kernels.word_hashes(
        offsets,
        data,
        config.words == "split",
        _hashing(seed, config.num_permutations).key,
        properties(),
        lower_case(),
        room.of(shingle_kernels.room(offsets, config.words == "split")),
    )
    return _Words(*found)


def _packed_words(words: _Words, room: Room) -> Packed:
    num_words = np.diff(words.starts)
    records = room.for_records.of(near_duplicate_packing.room(len(words.hashes), len(num_words)))
    sizes = near_duplicate_packing.pack(*words, records)
    return Packed(records[: sizes.sum()], sizes, num_words)


def _rolled(words: _Words, config: recipe.NearDuplicates) -> Shingles:
    return Shingles(*shingle_kernels.roll(*words, config.shingle_words, config.short_texts == "whole"))


def distinct(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The set of one text's shingles, ascending."""
    return distinct_sets(Shingles(hashes.copy(), np.array([0, len(hashes)]))).hashes


def distinct_sets(found: Shingles) -> Shingles:
    """The set of each text's shingles, ascending; what is given is overwritten."""
    for first, last in itertools.pairwise(found.starts.tolist()):
        found.hashes[first:last].sort()
    starts = shingle_kernels.drop_repeated(*found)
    return Shingles(found.hashes[: starts[-1]], starts)


def signatures(
    contents: pa.Table | pa.RecordBatch, config: recipe.NearDuplicates, seed: int
) -> tuple[pa.Array, NDArray[np.uint32]]:
    """The signatures of the contents that have something to compare.

    Args:
        contents: at least the columns content_id and text of `schema.CONTENTS`; a null text is left out.
        config: all that says what a word, a shingle and a signature is.
        seed: the root of keyed randomness; the published script's hashing has its own.

    Returns:
        (num_texts,) content ids in the order of `contents`, and (num_texts, num_permutations).
    """
    rows, is_signed, _ = _sign(contents["text"], config, seed, Room(), is_packed=False)
    ids = contents["content_id"]
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return ids.filter(pa.array(is_signed)), rows[is_signed]


def signatures_schema(config: recipe.NearDuplicates) -> pa.Schema:
    """content_id, and signature: `num_permutations` little-endian uint32, null where there is none."""
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            pa.field("signature", pa.binary(4 * config.num_permutations)),
        ]
    )


def signatures_of(
    part: Path,
    config: recipe.NearDuplicates,
    seed: int,
    *,
    known: Sequence[Path] = (),
    shingle_file: Path | None = None,
) -> pa.Table:
    """The signatures of one Parquet part of contents, a row each, as a table of `signatures_schema`.

    Args:
        part: contents, with the columns content_id and text.
        config: see `signatures`.
        seed: likewise.
        known: tables of this function for the same configuration and seed, of any contents: what they hold is
            copied, and only other texts are read. The result is the same with and without them.
        shingle_file: where the shingles of the texts that are read are left for `pairs_from`; not by default.
            Left only where candidates are compared exactly.

    Raises:
        ValueError: a known table has signatures of another length.
    """
    schema_ = signatures_schema(config)
    kind, part_ids = schema_.field("signature").type, _ids(part)
    ids, columns = _known_signatures(part_ids, known, schema_)
    known_ids = pa.chunked_array(ids, pa.string()).combine_chunks()
    is_fresh = _is_not_in(part_ids, known_ids)
    fresh_ids = part_ids.filter(pa.array(is_fresh)) if len(known_ids) else part_ids
    # Allocated at once: small pieces that stay would leave gaps in memory between the large ones that go.
    fresh = np.empty((len(fresh_ids), config.num_permutations), "<u4")
    is_signed = np.zeros(len(fresh_ids), np.bool_)
    start = 0
    for rows, has_signature in _signed(part, fresh_ids, is_fresh, config, seed, shingle_file):
        stop = start + len(rows)
        fresh[start:stop], is_signed[start:stop] = rows, has_signature
        start = stop
    table = pa.table(
        [
            pa.chunked_array([*ids, fresh_ids], pa.string()),
            pa.chunked_array([*columns, _packed(fresh, is_signed, kind)], kind),
        ],
        schema_,
    )
    return table.take(pc.index_in(part_ids, value_set=table["content_id"])) if len(known_ids) else table


def signed_batches(
    part: Path, config: recipe.NearDuplicates, seed: int, *, shingle_file: Path | None = None
) -> Iterator[tuple[pa.Array, NDArray[np.uint32]]]:
    """`signatures` of one Parquet part of contents, a row group at a time; identifiers are large_string.

    Args:
        part: contents, with the columns content_id and text.
        config: see `signatures`.
        seed: likewise.
        shingle_file: see `signatures_of`.
    """
    ids = _ids(part).cast(pa.large_string())
    start = 0
    for rows, is_signed in _signed(part, ids, np.ones(len(ids), np.bool_), config, seed, shingle_file):
        some = ids.slice(start, len(rows))
        start += len(rows)
        yield (some, rows) if is_signed.all() else (some.filter(pa.array(is_signed)), rows[is_signed])


def _signed(
    part: Path,
    ids: pa.Array,
    is_wanted: NDArray[np.bool_],
    config: recipe.NearDuplicates,
    seed: int,
    shingle_file: Path | None,
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
    """Signatures of some texts of a part, and which of them count; `ids` are theirs. Shingles and their index are
    written where candidates are compared exactly."""
    room = Room()
    if shingle_file is None or config.verification != "exact":
        for texts in _texts(part, is_wanted):
            rows, is_signed, _ = _sign(texts, config, seed, room, is_packed=False)
            yield rows, is_signed
        return
    num_words, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with disk_errors(shingle_file), shingle_file.open("wb") as stream:
        for texts in _texts(part, is_wanted):
            rows, is_signed, found = _sign(texts, config, seed, room, is_packed=True)
            assert found is not None
            stream.write(found.records.data)
            num_words.append(found.num_words)
            sizes.append(found.sizes)
            yield rows, is_signed
    _write_index(ShingleFile(shingle_file), ShingleIndex(ids, np.concatenate(sizes), np.concatenate(num_words)))


class ShingleIndex(NamedTuple):
    ids: pa.Array
    """(num_texts,) large_string: whose shingles a shingle file holds, in its order."""
    sizes: NDArray[np.int64]
    """(num_texts,) numbers of each record."""
    num_words: NDArray[np.int64]
    """(num_texts,)"""

    @property
    def starts(self) -> NDArray[np.int64]:
        """(num_texts,) the number in the file with which each record begins."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes)


def shingle_index(place: Path) -> ShingleIndex:
    index = pq.read_table(ShingleFile(place).index, schema=_INDEX, use_threads=False)
    ids = index["content_id"].cast(pa.large_string()).combine_chunks()
    return ShingleIndex(ids, index["num_numbers"].to_numpy(), index["num_words"].to_numpy())


def read_packed(
    part: Path, config: recipe.NearDuplicates, seed: int, wanted: pa.Array
) -> Iterator[tuple[NDArray[np.int64], Packed]]:
    """The positions in `wanted` (content ids) of texts of a Parquet part of contents, and their shingles, some
    texts at a time; row groups without a wanted text are not read."""
    positions = pc.index_in(_ids(part).cast(wanted.type), value_set=wanted)
    positions = positions.fill_null(-1).to_numpy().astype(np.int64)
    found, start = positions[positions >= 0], 0
    for texts in _texts(part, positions >= 0):
        yield found[start : start + len(texts)], packed(texts, config, seed)
        start += len(texts)


@functools.lru_cache(4)
def _hashing(seed: int, num_permutations: int) -> _Hashing:
    stream = hashlib.shake_256(f"starsmith near-duplicates {int(seed)}".encode())
    numbers = np.frombuffer(stream.digest(8 * (1 + 2 * num_permutations)), "<u8").astype(np.uint64)
    multipliers, addends = numbers[1:].view(np.int64).reshape(2, num_permutations)
    return _Hashing(numbers[0], multipliers, addends)


def _sign(
    texts: pa.Array | pa.ChunkedArray,
    config: recipe.NearDuplicates,
    seed: int,
    room: Room,
    *,
    is_packed: bool,
) -> tuple[NDArray[np.uint32], NDArray[np.bool_], Packed | None]:
    """(num_texts, num_permutations), (num_texts,) whether there is a signature, and the shingles if asked for."""
    hashing = _hashing(seed, config.num_permutations)
    words = _words(texts, config, seed, room) if is_packed or config.hashing != "stack-v2" else None
    records = _packed_words(words, room) if is_packed and words is not None else None
    if config.hashing == "stack-v2":
        rows, num_words = near_duplicate_stack_v2.signatures(
            *text_buffers(_lower_special_cases(texts)),
            config.shingle_words,
            config.words == "split",
            config.short_texts == "whole",
            *near_duplicate_stack_v2.permutations(config.num_permutations),
            properties(),
            lower_case(),
        )
        has_shingles = num_words >= (1 if config.short_texts == "whole" else config.shingle_words)
    else:
        assert words is not None
        found = _rolled(words, config)
        if config.hashing == "fast-similarity":
            rows = minhash_kernels.fast_similarity(*found, config.num_permutations)
        else:
            rows = minhash_kernels.multiply_shift(*found, hashing.multipliers, hashing.addends)
        has_shingles = np.diff(found.starts) > 0
    is_signed = has_shingles | (config.short_texts == "together")
    if texts.null_count:
        is_signed &= np.asarray(
            pa.chunked_array([texts] if isinstance(texts, pa.Array) else texts.chunks).is_valid()
        )
    return rows, is_signed, records


def _lower_special_cases(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Texts that hold a letter of `_SPECIAL_CASE` lower-cased by Python, and the others as they are."""
    is_special = pc.match_substring_regex(texts, _SPECIAL_CASE)
    if not pc.any(is_special).as_py():
        return texts
    column = pa.chunked_array([texts]) if isinstance(texts, pa.Array) else texts
    rows = zip(column.to_pylist(), is_special.to_pylist(), strict=True)
    return pa.array([text.lower() if special else text for text, special in rows], pa.large_string())


def _packed(rows: NDArray[np.uint32], is_signed: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    validity = None if is_signed.all() else pa.py_buffer(np.packbits(is_signed, bitorder="little"))
    return pa.Array.from_buffers(kind, len(rows), [validity, pa.py_buffer(rows)])


def _known_signatures(
    part_ids: pa.Array, known: Sequence[Path], schema_: pa.Schema
) -> tuple[list[pa.Array], list[pa.Array]]:
    ids, columns = [], []
    for table in known:
        with pq.ParquetFile(table) as file:
            if file.schema_arrow.field("signature").type != schema_.field("signature").type:
                raise ValueError(f"{table} has signatures of {file.schema_arrow.field('signature').type}")
            for batch in file.iter_batches(columns=schema_.names, use_threads=False):
                found = batch.filter(pc.is_in(batch["content_id"].cast(pa.string()), value_set=part_ids))
                ids.append(found["content_id"].cast(pa.string()))
                columns.append(found["signature"])
    return ids, columns


def _ids(part: Path) -> pa.Array:
    with pq.ParquetFile(part) as file:
        return file.read(["content_id"], use_threads=False)["content_id"].combine_chunks().cast(pa.string())


def _is_not_in(ids: pa.Array, others: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.invert(pc.is_in(ids, value_set=others)).to_numpy(zero_copy_only=False), np.bool_)


def _texts(part: Path, is_wanted: NDArray[np.bool_]) -> Iterator[pa.Array]:
    """The texts of some rows, in their order; row groups without any are not read."""
    with pq.ParquetFile(part) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if is_wanted[start:stop].any():
                at = start
                for batch in _group_batches(file, group):
                    chosen = is_wanted[at : at + len(batch)]
                    at += len(batch)
                    yield batch["text"] if chosen.all() else batch["text"].filter(pa.array(chosen))
            start = stop


def _group_batches(file: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
    """A row group of ordinary size at once, which reads a third faster; of others, `BATCH_ROWS` rows at a time."""
    if file.metadata.row_group(group).total_byte_size <= _WHOLE_GROUP_BYTES:
        yield from file.read_row_group(group, ["text"], use_threads=False).to_batches()
    else:
        yield from file.iter_batches(BATCH_ROWS, row_groups=[group], columns=["text"], use_threads=False)


def _write_index(file: ShingleFile, index: ShingleIndex) -> None:
    rows = pa.table([index.ids.cast(pa.string()), index.num_words, index.sizes], schema=_INDEX)
    with disk_errors(file.index):
        pq.write_table(rows, file.index, compression="none", use_dictionary=False, write_statistics=False)
