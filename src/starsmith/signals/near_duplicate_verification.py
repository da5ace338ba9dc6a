"""How similar the candidates are: exactly, by their signatures, or not asked (section 3.1).

The share of equal values of two signatures estimates the Jaccard similarity of their texts. Where the exact one is
asked for, a candidate whose estimate lies more than `SAFE_DEVIATIONS` standard deviations below the threshold is
left out by that alone: a pair at the threshold is lost so with a probability of 1e-9, and most false candidates
need no comparison. The others are compared by their sets of shingles, which come, in this order,

* not at all, where an earlier result already has the pair: its similarity is copied;
* from the shingles that signing left on disk;
* from the texts.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.corpus.components import component_roots
from starsmith.corpus.store import disk_errors
from starsmith.signals import minhash_kernels, shingle_kernels
from starsmith.signals.near_duplicate_candidates import Candidates, Signed
from starsmith.signals.near_duplicate_scratch import BLOCK_BYTES, TOUCHED_BYTES, MappedNumbers
from starsmith.signals.near_duplicate_signing import (
    Packed,
    Room,
    Shingles,
    distinct_sets,
    read_packed,
    shingle_index,
    unpacked,
)

SAFE_DEVIATIONS = 6
VERIFYING_STEPS = 16
_SETS_BYTES = 16 * 1024**2
"""Sets compared at a time. A set is read anew in each block that it stands in: with half the room, 1.6 times."""
_TOUCHED_ROWS = BLOCK_BYTES // TOUCHED_BYTES


class Sources(NamedTuple):
    """Where the sets of shingles come from."""

    shingle_files: Sequence[Path]
    content_parts: Sequence[Path]
    known_pairs: Sequence[Path]


class _ShingleSets(NamedTuple):
    """Where the shingles of the candidates lie, packed."""

    codes: NDArray[np.int64]
    """(num_sets,) ascending."""
    files: Sequence[Path]
    """Of 64-bit numbers."""
    files_of: NDArray[np.int64]
    """(num_sets,) the number of the file that holds each set."""
    starts: NDArray[np.int64]
    """(num_sets,) the number there with which its record begins."""
    sizes: NDArray[np.int64]
    """(num_sets,) numbers of its record."""
    num_words: NDArray[np.int64]
    """(num_sets,)"""

    def read(self, chosen: NDArray[np.int64], config: recipe.NearDuplicates, room: Room) -> Shingles:
        """The sets of these numbers, each ascending and without repetition, in `room`."""
        sizes = self.sizes[chosen]
        ends = np.append(0, np.cumsum(sizes))
        records = room.for_records.of(int(ends[-1]))[: ends[-1]]
        order = np.lexsort((self.starts[chosen], self.files_of[chosen]))
        numbers = self.files_of[chosen[order]]
        for rows in np.split(order, np.flatnonzero(numbers[1:] != numbers[:-1]) + 1) if len(order) else ():
            places = zip(
                ends[rows].tolist(), ends[rows + 1].tolist(), self.starts[chosen[rows]].tolist(), strict=True
            )
            with self.files[self.files_of[chosen[rows[0]]]].open("rb", buffering=0) as file:
                for first, last, start in places:
                    if os.preadv(file.fileno(), [records[first:last].data], 8 * start) < 8 * (last - first):
                        raise ValueError(f"{file.name} has less than its index says")
        return distinct_sets(unpacked(Packed(records, sizes, self.num_words[chosen]), config, room))


def verified(
    candidates: Candidates,
    signed: Signed,
    config: recipe.NearDuplicates,
    seed: int,
    sources: Sources,
    place: Path,
    advance: Callable[[], None],
) -> tuple[Candidates, NDArray[np.float64]]:
    """The candidates that are pairs, and their similarities.

    Args:
        candidates: of `signed`.
        signed: the signatures.
        config: threshold and verification, and what says what a shingle is.
        seed: the one that the signatures were made with.
        sources: of the shingles, for exact verification.
        place: a file to write shingles to that are in no shingle file.
        advance: called once a part of the contents and `VERIFYING_STEPS` times for the pairs.

    Raises:
        ValueError: a candidate is without its text.
    """
    estimates = _estimates(candidates, signed, config.num_permutations)
    if config.verification == "exact":
        deviation = (config.threshold * (1 - config.threshold) / config.num_permutations) ** 0.5
        candidates = candidates.only(estimates >= config.threshold - SAFE_DEVIATIONS * deviation)
        similarities = _exact(candidates, signed.ids, config, seed, sources, place, advance)
    else:
        similarities = estimates
        for _ in range(len(sources.content_parts) + VERIFYING_STEPS):
            advance()
    if config.verification == "none":
        return candidates, similarities
    is_pair = similarities >= config.threshold
    return candidates.only(is_pair), similarities[is_pair]


def _estimates(candidates: Candidates, signed: Signed, num_permutations: int) -> NDArray[np.float64]:
    positions, estimates = signed.positions, np.zeros(len(candidates.left), np.float64)
    order = _by_component(candidates.left, candidates.right, len(positions))
    left, right = positions[candidates.left[order]], positions[candidates.right[order]]
    values = MappedNumbers(signed.signatures, np.uint32)
    signatures = values.values.reshape(-1, num_permutations)
    for block in _blocks(left, right, np.full(len(positions), 4 * num_permutations), BLOCK_BYTES):
        wanted, places = np.unique(np.concatenate([left[block], right[block]]), return_inverse=True)
        rows = np.empty((len(wanted), num_permutations), np.uint32)
        for first in range(0, len(wanted), _TOUCHED_ROWS):
            some = slice(first, first + _TOUCHED_ROWS)
            rows[some] = signatures[wanted[some]]
            values.release()
        equal = minhash_kernels.agreements(rows, *np.split(places, 2))
        estimates[order[block]] = equal / num_permutations
    return estimates


def _blocks(
    left: NDArray[np.int64], right: NDArray[np.int64], num_bytes: NDArray[np.int64], limit: int
) -> Iterator[slice]:
    """Cuts pairs of things that take so many bytes each into runs that take up to `limit`."""
    starts = minhash_kernels.pair_blocks(left, right, num_bytes, limit)
    return itertools.starmap(slice, itertools.pairwise(starts.tolist()))


def _by_component(left: NDArray[np.int64], right: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    """(num_pairs,) an order of pairs in which what belongs to a node is read once, or nearly so: pairs of a
    component stand together, and in it those with the same left side."""
    return np.argsort(component_roots(left, right, num_nodes)[left], kind="stable")


def _exact(
    candidates: Candidates,
    ids: pa.Array,
    config: recipe.NearDuplicates,
    seed: int,
    sources: Sources,
    place: Path,
    advance: Callable[[], None],
) -> NDArray[np.float64]:
    similarities = _known_similarities(candidates, ids, sources.known_pairs)
    unknown = np.isnan(similarities)
    open_pairs = candidates.only(unknown)
    with disk_errors(place):
        sets = _find_sets(ids, open_pairs, config, seed, sources, place, advance)
    left, right = (np.searchsorted(sets.codes, side) for side in open_pairs)
    order = _by_component(left, right, len(sets.codes))
    found, room = np.zeros(len(order)), Room()
    step = 0
    for block in _blocks(left[order], right[order], 8 * sets.num_words, _SETS_BYTES):
        some = order[block]
        chosen, places = np.unique(np.concatenate([left[some], right[some]]), return_inverse=True)
        shingles, offsets = sets.read(chosen, config, room)
        found[some] = shingle_kernels.jaccards(
            shingles, offsets, places[: len(some)], places[len(some) :], config.threshold
        )
        while step * len(order) < block.stop * VERIFYING_STEPS:
            step += 1
            advance()
    for _ in range(step, VERIFYING_STEPS):
        advance()
    similarities[unknown] = found
    return similarities


def _known_similarities(candidates: Candidates, ids: pa.Array, known_pairs: Sequence[Path]) -> NDArray[np.float64]:
    """(num_candidates,): the similarity of those that earlier results have, NaN for the others."""
    similarities = np.full(len(candidates.left), np.nan)
    keys = candidates.left << 32 | candidates.right
    for part in known_pairs if len(keys) else ():
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(columns=["content_a", "content_b", "jaccard"], use_threads=False):
                left, right = (
                    pc.index_in(batch[side].cast(ids.type), value_set=ids)
                    .fill_null(-1)
                    .to_numpy()
                    .astype(np.int64)
                    for side in ("content_a", "content_b")
                )
                known = left << 32 | right
                places = np.searchsorted(keys, known)
                places[places == len(keys)] = 0
                is_known = (left >= 0) & (right >= 0) & (keys[places] == known)
                similarities[places[is_known]] = batch["jaccard"].to_numpy()[is_known]
    return similarities


def _find_sets(
    ids: pa.Array,
    pairs: Candidates,
    config: recipe.NearDuplicates,
    seed: int,
    sources: Sources,
    place: Path,
    advance: Callable[[], None],
) -> _ShingleSets:
    """Where the sets of all candidates lie; those that are in no shingle file are written to `place`, in one pass
    over the contents."""
    codes = np.union1d(pairs.left, pairs.right)
    wanted = ids.take(pa.array(codes))
    files = [*sources.shingle_files, place]
    files_of = np.full(len(codes), -1)
    starts, sizes, num_words = (np.zeros(len(codes), np.int64) for _ in range(3))
    for number, shingle_file in enumerate(sources.shingle_files):
        index = shingle_index(shingle_file)
        positions = pc.index_in(index.ids, value_set=wanted)
        rows = np.flatnonzero(positions.is_valid().to_numpy(zero_copy_only=False))
        chosen = positions.drop_null().to_numpy()
        files_of[chosen], starts[chosen] = number, index.starts[rows]
        sizes[chosen], num_words[chosen] = index.sizes[rows], index.num_words[rows]
    end = 0
    with place.open("wb") as file:
        for part in sources.content_parts:
            missing = np.flatnonzero(files_of < 0)
            for positions, found in (
                read_packed(part, config, seed, wanted.take(pa.array(missing))) if len(missing) else ()
            ):
                chosen = missing[positions]
                files_of[chosen], starts[chosen] = len(sources.shingle_files), end + found.starts
                sizes[chosen], num_words[chosen] = found.sizes, found.num_words
                end += len(found.records)
                file.write(found.records.data)
            advance()
    if (files_of < 0).any():
        raise ValueError(
            f"no text for {wanted[int(np.argmin(files_of))]}: the contents are not those that were signed"
        )
    return _ShingleSets(codes, files, files_of, starts, sizes, num_words)
