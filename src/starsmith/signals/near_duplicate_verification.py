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
from collections.abc import Callable, Iterable, Sequence
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
from starsmith.signals.near_duplicate_scratch import TOUCHED_BYTES, MappedNumbers, blocks
from starsmith.signals.near_duplicate_signing import Shingles, distinct_sets, read_shingle_file, read_shingles

SAFE_DEVIATIONS = 6
VERIFYING_STEPS = 16
_PAIR_BYTES = 256
"""So that a block ends even where all pairs are of the same few sets."""
_CANDIDATES = 1 << 13
"""Compared by their signatures at a time: these are a few MB, and read once for all candidates among them."""


class Sources(NamedTuple):
    """Where the sets of shingles come from."""

    shingle_files: Sequence[Path]
    content_parts: Sequence[Path]
    known_pairs: Sequence[Path]


class _ShingleSets(NamedTuple):
    codes: NDArray[np.int64]
    """(num_sets,) ascending."""
    numbers: NDArray[np.int64]
    """(num_sets,) the set of each code, for sets lie in the order in which they were read."""
    offsets: NDArray[np.int64]
    """(num_sets + 1,)"""
    shingles: MappedNumbers[np.uint64]
    """Each set ascending and without repetition."""


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
        place: a file to write sets of shingles to.
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
    with signed.signatures.open("rb") as file:
        for first in range(0, len(order), _CANDIDATES):
            some = order[first : first + _CANDIDATES]
            sides = positions[candidates.left[some]], positions[candidates.right[some]]
            wanted, places = np.unique(np.concatenate(sides), return_inverse=True)
            rows = np.empty((len(wanted), num_permutations), np.uint32)
            for row, position in zip(rows, wanted.tolist(), strict=True):
                os.preadv(file.fileno(), [row.data], position * rows.itemsize * num_permutations)
            equal = minhash_kernels.agreements(rows, places[: len(some)], places[len(some) :])
            estimates[some] = equal / num_permutations
    return estimates


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
        sets = _read_sets(ids, open_pairs, config, seed, sources, place, advance)
    left, right = (sets.numbers[np.searchsorted(sets.codes, side)] for side in open_pairs)
    order = _by_component(left, right, len(sets.numbers))
    touched = _first_touched(left[order], right[order], np.diff(sets.offsets))
    found = np.zeros(len(order))
    for step in np.array_split(np.arange(len(order)), VERIFYING_STEPS):
        for block in blocks(touched[step]):
            some = order[step[block]]
            found[some] = shingle_kernels.jaccards(
                sets.shingles.values, sets.offsets, left[some], right[some], config.threshold
            )
            sets.shingles.release()
        advance()
    similarities[unknown] = found
    return similarities


def _first_touched(
    left: NDArray[np.int64], right: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(num_pairs,) the bytes of the sets that no pair before has, and some for the pair."""
    sets, places = np.unique(np.column_stack([left, right]), return_index=True)
    touched = np.full(len(left), _PAIR_BYTES)
    np.add.at(touched, places // 2, 8 * sizes[sets] + TOUCHED_BYTES)
    return touched


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


def _read_sets(
    ids: pa.Array,
    pairs: Candidates,
    config: recipe.NearDuplicates,
    seed: int,
    sources: Sources,
    place: Path,
    advance: Callable[[], None],
) -> _ShingleSets:
    """The sets of all candidates, written to `place` in one pass over what holds them."""
    codes = np.union1d(pairs.left, pairs.right)
    wanted = ids.take(pa.array(codes))
    numbers = np.full(len(codes), -1, np.int64)
    sizes = [np.zeros(1, np.int64)]
    num_sets = itertools.count()

    def write(found: Iterable[tuple[NDArray[np.int64], Shingles]], places: NDArray[np.int64]) -> None:
        for positions, hashes in found:
            sets = distinct_sets(hashes)
            numbers[places[positions]] = [next(num_sets) for _ in positions]
            sizes.append(np.diff(sets.starts))
            file.write(sets.hashes.data)

    with place.open("wb") as file:
        for shingle_file in sources.shingle_files:
            missing = np.flatnonzero(numbers < 0)
            write(read_shingle_file(shingle_file, wanted.take(pa.array(missing))), missing)
        for part in sources.content_parts:
            missing = np.flatnonzero(numbers < 0)
            if len(missing):
                write(read_shingles(part, config, seed, wanted.take(pa.array(missing))), missing)
            advance()
    if (numbers < 0).any():
        raise ValueError(
            f"no text for {wanted[int(np.argmin(numbers))]}: the contents are not those that were signed"
        )
    return _ShingleSets(codes, numbers, np.cumsum(np.concatenate(sizes)), MappedNumbers(place, np.uint64))
