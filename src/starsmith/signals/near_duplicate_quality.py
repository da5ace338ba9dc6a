"""The quality certificate of near-duplicates: recall and false merges against exact similarity, on a sample.

A published figure for one corpus says little of another: what MinHash misses depends on where the similarities of
the corpus lie. So each run measures itself. A sample of contents is compared with **all** contents, exactly: the
Jaccard similarity of the sets of shingles as the configuration defines them (up to a collision of 64-bit hashes).
Every pair of similarity `FLOOR` or more is found, and asked: is it in the result?

**In the result** means that both stand in one cluster, a connected component of the pairs that reach the
threshold, for one file of a cluster stays. A pair may be joined by a chain of others; `num_linked` counts those
that are pairs of the result themselves. Of pairs that reach the threshold, the share that is joined is the recall.
Of pairs below it, the share that is linked is the false merges: someone took two texts for similar that are not.
A pair below the threshold that only a chain joins is no error of the search, it is what components mean; it
counts in `num_joined`, so that anyone can see it.

**The sample** is the `quality_sample` contents that follow a keyed point on the circle of identifiers: these are
hashes of the bytes, so neighbours have nothing in common, and they lie together in sorted parts, so that drawing
them reads little. It is cut short, in that order, where the sets would not fit (`MAX_SAMPLE_SHINGLES`) or where
the corpus is so repetitive that counting would cost more than signatures do (`COUNTS_PER_CONTENT`).

**Intervals** are 95 % Wilson intervals. Pairs are not independent: a content in a cluster of a thousand brings a
thousand pairs of one fate. So the sample size is the effective one, from the variance between sampled
contents (each with all its pairs is one draw), and the number of those contents where they all agree.

**How it is exact and cheap.** The sample's sets lie in an inverted index. Each content's distinct shingles are
looked up; a pair of similarity s shares at least s of the larger set, so a content with less than `FLOOR` of its
shingles in the index is done. A bit filter answers most look-ups from the processor's cache. Of longer texts an
eighth of the shingles is looked up first, and the text is left where that makes `FLOOR` less likely than 1e-9.
Memory is bounded by the sample; a shingle of every file (a licence's header) costs at most the size of the sample.

A text without shingles is in no pair here: `short_texts = "together"` joins such texts whatever they say.
"""

import hashlib
import itertools
import math
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
from starsmith.corpus.components import component_roots
from starsmith.corpus.kernels import kernel
from starsmith.signals import near_duplicate_signing
from starsmith.signals.near_duplicate_scratch import numbers_at

VERSION = 1

FLOOR = 0.4
MAX_SAMPLE_SHINGLES = 8_000_000
COUNTS_PER_CONTENT = 50_000
"""Additions that counting may take on average, about the time of a signature."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_FILE_ROWS = 1024
_GLANCE_BITS = 3
_GLANCE_FROM = 512
_GLANCE_BOUND = 10.4
"""Hoeffding: of m random shingles, a share that is t below its expectation has probability exp(-2 m t^2)."""
_NORMAL_95 = 1.959963984540054
_ABSENT = -1


def certify(
    content_parts: Sequence[Path],
    pairs: pa.Table,
    config: recipe.NearDuplicates,
    seed: int,
    progress: Progress | None = None,
    *,
    shingle_files: Sequence[Path] = (),
) -> pa.Table:
    """Measures a result against exact similarities.

    Args:
        content_parts: Parquet parts of `schema.CONTENTS`, in any order; each content once.
        pairs: `schema.NEAR_DUPLICATE_PAIRS`, the result for these contents.
        config: what the result was made with; `quality_sample` contents are drawn.
        seed: the root of keyed randomness.
        progress: told of each part and file.
        shingle_files: what `near_duplicates.signatures_of` left, of any of the contents: their texts are not read
            again. The certificate is the same with and without them.

    Returns:
        `schema.NEAR_DUPLICATE_QUALITY`, ordered by `lower` and `upper`: tenths of similarity from `FLOOR` on,
        split at the threshold; the two sides of the threshold; and everything below `FLOOR`. `fraction` is null
        where no pair was found. No rows when `quality_sample` is 0.
    """
    if config.quality_sample == 0:
        return schema.NEAR_DUPLICATE_QUALITY.empty_table()
    sources = _sources(content_parts, shingle_files)
    ids = pa.chunked_array([source.ids for source in sources], pa.large_string())
    sample = _read_sample(sources, _draw(ids, config.quality_sample, seed), config, seed)
    clusters = _Clusters.of(pairs, config)
    numbers, codes = _positions(ids, sample.ids), _positions(ids, clusters.ids)
    labels = clusters.labels(codes)
    sample_codes = _positions(sample.ids, clusters.ids)
    sample_labels, links = clusters.labels(sample_codes), clusters.links(sample_codes)
    edges = _edges(config.threshold)
    tally = _Tally.empty(len(sample.sizes), len(edges))
    num_compared, at = 0, 0
    for done, source in enumerate(sources, 1):
        for shingles, starts in source.read(config, seed):
            rows = slice(at, at + len(starts) - 1)
            at = rows.stop
            num_compared += int(np.count_nonzero(np.diff(starts)))
            _compare(
                shingles, starts, numbers[rows], codes[rows], labels[rows],
                sample.sizes, sample.keys, sample.entries, sample.filter, sample.offsets, sample.members,
                sample_labels, links.offsets, links.others, edges,
                tally.pairs, tally.joined, tally.linked,
            )  # fmt: skip
        if progress is not None:
            progress(done, len(sources))
    cluster_pairs = clusters.sizes(sample_labels) - (sample_labels != _ABSENT)
    return _table(tally, edges, config.threshold, num_compared, cluster_pairs, np.diff(links.offsets))


# ---- where shingles come from


class _Source(NamedTuple):
    """A part of contents, or a file of shingles that are already computed."""

    place: Path
    ids: pa.Array
    """(num_contents,) large_string, of the contents that this source answers for."""
    is_wanted: NDArray[np.bool_] | None
    """Which rows of a part these are; None for a file of shingles."""
    held: near_duplicate_signing.ShingleIndex | None
    """Of a file of shingles."""

    def read(self, config: recipe.NearDuplicates, seed: int) -> Iterator[near_duplicate_signing.Shingles]:
        """The shingles of all contents, in their order, a few at a time."""
        return self._from_texts(config, seed) if self.held is None else self._from_file(self.held, config)

    def chosen(
        self, rows: NDArray[np.int64], config: recipe.NearDuplicates, seed: int
    ) -> Iterator[NDArray[np.uint64]]:
        """The shingles of some contents; only what holds them is read."""
        if self.held is not None:
            for row in rows:
                yield self._unpacked(self.held, slice(row, row + 1), config).hashes
            return
        assert self.is_wanted is not None
        places = np.flatnonzero(self.is_wanted)[rows]
        with pq.ParquetFile(self.place) as file:
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                inside = places[(places >= start) & (places < stop)] - start
                start = stop
                if len(inside) == 0:
                    continue
                texts = file.read_row_group(group, ["text"], use_threads=False)["text"].take(pa.array(inside))
                hashes, starts = near_duplicate_signing.shingles(texts, config, seed)
                for first, last in itertools.pairwise(starts.tolist()):
                    yield hashes[first:last]

    def _from_file(
        self, index: near_duplicate_signing.ShingleIndex, config: recipe.NearDuplicates
    ) -> Iterator[near_duplicate_signing.Shingles]:
        for row in range(0, len(index.ids), _FILE_ROWS):
            yield self._unpacked(index, slice(row, row + _FILE_ROWS), config)

    def _unpacked(
        self, index: near_duplicate_signing.ShingleIndex, rows: slice, config: recipe.NearDuplicates
    ) -> near_duplicate_signing.Shingles:
        sizes = index.sizes[rows]
        records = numbers_at(self.place, np.uint64, int(index.starts[rows.start]), int(sizes.sum()))
        return near_duplicate_signing.unpacked(
            near_duplicate_signing.Packed(records, sizes, index.num_words[rows]), config
        )

    def _from_texts(self, config: recipe.NearDuplicates, seed: int) -> Iterator[near_duplicate_signing.Shingles]:
        assert self.is_wanted is not None
        if not self.is_wanted.any():
            return
        row = 0
        with pq.ParquetFile(self.place) as file:
            for batch in file.iter_batches(near_duplicate_signing.BATCH_ROWS, columns=["text"], use_threads=False):
                is_wanted = self.is_wanted[row : row + len(batch)]
                row += len(batch)
                if is_wanted.any():
                    texts = batch["text"] if is_wanted.all() else batch["text"].filter(pa.array(is_wanted))
                    yield near_duplicate_signing.shingles(texts, config, seed)


def _sources(content_parts: Sequence[Path], shingle_files: Sequence[Path]) -> list[_Source]:
    """The files of shingles, and the parts for the contents that no file has."""
    found = []
    for place in shingle_files:
        if near_duplicate_signing.ShingleFile(place).index.is_file():
            index = near_duplicate_signing.shingle_index(place)
            found.append(_Source(place, index.ids, None, index))
    has_shingles = pa.chunked_array([source.ids for source in found], pa.large_string())
    for part in content_parts:
        table = pq.read_table(part, columns=["content_id", "status"], use_threads=False)
        ids = table["content_id"].combine_chunks().cast(pa.large_string())
        is_wanted = pc.equal(table["status"], "text").combine_chunks()
        if found:
            is_wanted = pc.and_(is_wanted, pc.invert(pc.is_in(ids, value_set=has_shingles)))
        mask = np.asarray(is_wanted.to_numpy(zero_copy_only=False), np.bool_)
        found.append(_Source(part, ids.filter(is_wanted), mask, None))
    return found


# ---- the result that is measured


class _Links(NamedTuple):
    """The pairs of the sample's contents in the result."""

    offsets: NDArray[np.int64]
    """(num_sampled + 1,)"""
    others: NDArray[np.int64]
    """Codes of the contents on the other side, ascending for each sampled content."""


class _Clusters(NamedTuple):
    ids: pa.Array
    """Identifiers that stand in a pair, ascending; a place here is a code."""
    roots: NDArray[np.int64]
    """(num_ids,) the smallest code of each one's cluster."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: pa.Table, config: recipe.NearDuplicates) -> "_Clusters":
        is_verified = config.verification != "none"
        joined = pairs.filter(pc.greater_equal(pairs["jaccard"], config.threshold)) if is_verified else pairs
        left, right = (joined[name].cast(pa.large_string()) for name in ("content_a", "content_b"))
        ids = pc.unique(pa.chunked_array([*left.chunks, *right.chunks], pa.large_string()))
        ids = ids.take(pc.array_sort_indices(ids))
        left_codes, right_codes = _positions(left, ids), _positions(right, ids)
        return cls(ids, component_roots(left_codes, right_codes, len(ids)), left_codes, right_codes)

    def labels(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cluster of each content; `_ABSENT` for one that has no pair."""
        return np.append(self.roots, _ABSENT)[codes]

    def sizes(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Members of each cluster; 0 for `_ABSENT`."""
        return np.append(np.bincount(self.roots, minlength=len(self.ids)), 0)[labels]

    def links(self, codes: NDArray[np.int64]) -> _Links:
        ends = np.concatenate([self.left, self.right])
        others = np.concatenate([self.right, self.left])
        order = np.lexsort((others, ends))
        ends, others = ends[order], others[order]
        starts, stops = np.searchsorted(ends, codes), np.searchsorted(ends, codes, "right")
        found = [others[start:stop] for start, stop in zip(starts, stops, strict=True)]
        offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        return _Links(offsets, np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64))


def _positions(values: pa.Array | pa.ChunkedArray, value_set: pa.Array) -> NDArray[np.int64]:
    """The place of each value in `value_set`; `_ABSENT` where it has none."""
    found = pc.fill_null(pc.index_in(values.cast(pa.large_string()), value_set=value_set), _ABSENT)
    return np.asarray(found.to_numpy(), np.int64)


# ---- the sample


class _Sample(NamedTuple):
    """The sampled sets as an inverted index."""

    ids: pa.Array
    """(num_sampled,)"""
    sizes: NDArray[np.int64]
    """(num_sampled,) distinct shingles of each."""
    keys: NDArray[np.uint64]
    """A hash table with open addressing, its length a power of 2; 0 is an empty place."""
    entries: NDArray[np.int32]
    """The entry of each key."""
    filter: NDArray[np.uint64]
    """Bits; a shingle whose bit is 0 is not in the table. Its length is a power of 2."""
    offsets: NDArray[np.int64]
    """(num_entries + 1,)"""
    members: NDArray[np.int32]
    """The sampled sets that hold an entry's shingle."""


def _draw(ids: pa.ChunkedArray, size: int, seed: int) -> pa.Array:
    """The identifiers of the sample, in the order of drawing."""
    start = hashlib.sha1(f"near-duplicate quality {seed:d}".encode()).hexdigest()
    is_after = pc.greater_equal(ids, start)
    sides = []
    for side in (ids.filter(is_after), ids.filter(pc.invert(is_after))):
        first = pc.select_k_unstable(side, k=min(size, len(side)), sort_keys=[("", "ascending")])
        sides += pa.chunked_array(side.take(first)).chunks
    return pa.concat_arrays([pa.array([], pa.large_string()), *sides])[:size]


def _read_sample(sources: Sequence[_Source], drawn: pa.Array, config: recipe.NearDuplicates, seed: int) -> _Sample:
    """Reads the sampled texts and indexes as many as the bounds allow."""
    sets: dict[int, NDArray[np.uint64]] = {}
    for source in sources:
        places = _positions(source.ids, drawn)
        rows = np.flatnonzero(places != _ABSENT)
        for row, shingles in zip(rows, source.chosen(rows, config, seed), strict=True):
            sets[int(places[row])] = near_duplicate_signing.distinct(shingles)
    order = [place for place in sorted(sets) if len(sets[place])]
    order = _within_bounds([sets[place] for place in order], order)
    return _index(drawn.take(pa.array(order, pa.int64())), [sets[place] for place in order])


def _within_bounds(sets: list[NDArray[np.uint64]], order: list[int]) -> list[int]:
    """The longest beginning of the sample whose sets fit and whose counting is not too dear."""
    fits = np.cumsum([len(shingles) for shingles in sets]) <= MAX_SAMPLE_SHINGLES
    num_kept = max(int(fits.sum()), min(1, len(sets)))
    if num_kept > 1:
        _, shared = np.unique(np.concatenate(sets[:num_kept]), return_counts=True)
        per_content = float(np.sum(shared.astype(np.float64) * (shared - 1))) / num_kept
        if per_content > COUNTS_PER_CONTENT:
            num_kept = max(1, int(num_kept * COUNTS_PER_CONTENT / per_content))
    return order[:num_kept]


def _index(ids: pa.Array, sets: list[NDArray[np.uint64]]) -> _Sample:
    sizes = np.array([len(shingles) for shingles in sets], np.int64)
    shingles = np.concatenate([*sets, np.zeros(0, np.uint64)])
    order = np.argsort(shingles, kind="stable")
    members = np.repeat(np.arange(len(sets), dtype=np.int32), sizes)[order]
    shingles = shingles[order]
    is_first = np.append(True, shingles[1:] != shingles[:-1]) if len(shingles) else np.zeros(0, np.bool_)
    offsets = np.append(np.flatnonzero(is_first), len(shingles)).astype(np.int64)
    shingles = shingles[is_first]
    capacity = 1 << max(4, (2 * len(shingles)).bit_length())
    keys, entries = np.zeros(capacity, np.uint64), np.zeros(capacity, np.int32)
    bits = np.zeros(max(1, capacity // 8), np.uint64)
    _fill(shingles, keys, entries, bits)
    return _Sample(ids, sizes, keys, entries, bits, offsets, members)


# ---- counting


class _Tally(NamedTuple):
    pairs: NDArray[np.int64]
    """(num_sampled, num_strata)"""
    joined: NDArray[np.int64]
    linked: NDArray[np.int64]

    @classmethod
    def empty(cls, num_sampled: int, num_strata: int) -> "_Tally":
        shape = (num_sampled, num_strata)
        return cls(*(np.zeros(shape, np.int64) for _ in range(3)))


@kernel
def _fill(
    shingles: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    entries: NDArray[np.int32],
    bits: NDArray[np.uint64],
) -> None:
    mask = np.uint64(len(keys) - 1)
    bit_mask = np.uint64(64 * len(bits) - 1)
    for entry in range(len(shingles)):
        shingle = max(shingles[entry], np.uint64(1))
        place = shingle & mask
        while keys[place] != 0:
            place = (place + np.uint64(1)) & mask
        keys[place] = shingle
        entries[place] = entry
        bit = (shingle >> np.uint64(20)) & bit_mask
        bits[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))


@kernel
def _compare(
    shingles: NDArray[np.uint64],
    starts: NDArray[np.int64],
    numbers: NDArray[np.int64],
    codes: NDArray[np.int64],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64],
    keys: NDArray[np.uint64],
    entries: NDArray[np.int32],
    bits: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    members: NDArray[np.int32],
    sample_labels: NDArray[np.int64],
    link_offsets: NDArray[np.int64],
    links: NDArray[np.int64],
    edges: NDArray[np.float64],
    pairs: NDArray[np.int64],
    joined: NDArray[np.int64],
    linked: NDArray[np.int64],
) -> None:
    """Compares contents with every sampled one, and adds the pairs that reach the first edge to their strata.

    Args:
        shingles: of all contents of the batch, with repetitions.
        starts: (num_contents + 1,)
        numbers: (num_contents,) each one's number in the sample, or -1.
        codes: (num_contents,) its number among the contents of the result, or -1.
        labels: (num_contents,) its cluster, or -1.
        sizes: with the next five, of `_Sample`.
        sample_labels: (num_sampled,)
        link_offsets: with `links`, of `_Links`.
        edges: (num_strata,) lower ends.
        pairs: with the last two, of `_Tally`; added to.
    """
    longest = 0
    for content in range(len(starts) - 1):
        longest = max(longest, starts[content + 1] - starts[content])
    capacity = 16
    while capacity < 2 * longest:
        capacity *= 2
    table = np.empty(capacity, np.uint64)
    found = np.empty(longest, np.int64)
    counts = np.zeros(len(sizes), np.int64)
    for content in range(len(starts) - 1):
        own = shingles[starts[content] : starts[content + 1]]
        if len(own) >= _GLANCE_FROM:
            num_distinct, num_found = _look_up(own, _GLANCE_BITS, table, keys, entries, bits, found)
            missing = edges[0] - num_found / max(num_distinct, 1)
            if missing > 0 and num_distinct * missing * missing > _GLANCE_BOUND:
                continue
        num_distinct, num_found = _look_up(own, 0, table, keys, entries, bits, found)
        if num_found == 0 or num_found < edges[0] * num_distinct:
            continue
        for number in range(num_found):
            for place in range(offsets[found[number]], offsets[found[number] + 1]):
                counts[members[place]] += 1
        for sampled in range(len(counts)):
            shared = counts[sampled]
            counts[sampled] = 0
            if shared == 0 or sampled == numbers[content]:
                continue
            similarity = shared / (sizes[sampled] + num_distinct - shared)
            if similarity < edges[0]:
                continue
            stratum = np.searchsorted(edges, similarity, "right") - 1
            pairs[sampled, stratum] += 1
            if labels[content] >= 0 and labels[content] == sample_labels[sampled]:
                joined[sampled, stratum] += 1
                others = links[link_offsets[sampled] : link_offsets[sampled + 1]]
                place = np.searchsorted(others, codes[content])
                if place < len(others) and others[place] == codes[content]:
                    linked[sampled, stratum] += 1


@kernel
def _look_up(
    shingles: NDArray[np.uint64],
    glance_bits: int,
    table: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    entries: NDArray[np.int32],
    bits: NDArray[np.uint64],
    found: NDArray[np.int64],
) -> tuple[int, int]:
    """Writes the entries of the distinct shingles that the index has to `found`.

    Args:
        shingles: (num_shingles,)
        glance_bits: only shingles whose highest bits, so many, are 0; 0 looks at all.
        table: an array to work in, at least 16 and twice as long as the next power of 2.

    Returns:
        The number of distinct shingles looked at, and of those that were found.
    """
    capacity = 16
    while capacity < 2 * len(shingles):
        capacity *= 2
    seen = table[: max(16, capacity >> max(0, glance_bits - 1))]
    seen[:] = 0
    most = len(seen) // 2
    shift = np.uint64(64 - glance_bits) if glance_bits else np.uint64(63)
    limit = np.uint64(1) if glance_bits else np.uint64(2)
    mask, seen_mask = np.uint64(len(keys) - 1), np.uint64(len(seen) - 1)
    bit_mask = np.uint64(64 * len(bits) - 1)
    num_distinct = 0
    num_found = 0
    for number in range(len(shingles)):
        shingle = max(shingles[number], np.uint64(1))
        if shingle >> shift >= limit:
            continue
        place = shingle & seen_mask
        while seen[place] != 0 and seen[place] != shingle:
            place = (place + np.uint64(1)) & seen_mask
        if seen[place] == shingle:
            continue
        if num_distinct == most:
            break
        seen[place] = shingle
        num_distinct += 1
        bit = (shingle >> np.uint64(20)) & bit_mask
        if not (bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
            continue
        place = shingle & mask
        while keys[place] != 0 and keys[place] != shingle:
            place = (place + np.uint64(1)) & mask
        if keys[place] == shingle:
            found[num_found] = entries[place]
            num_found += 1
    return num_distinct, num_found


# ---- the table


def _edges(threshold: float) -> NDArray[np.float64]:
    """The lower ends of the strata: tenths from `FLOOR`, and the threshold."""
    tenths = {number / 10 for number in range(round(10 * FLOOR), 10)}
    return np.array(sorted(tenths | ({threshold} if threshold < 1 else set())))


def wilson(share: float, num_trials: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of so many trials; (0, 1) for no trials."""
    if num_trials <= 0:
        return 0.0, 1.0
    z2 = _NORMAL_95**2
    centre = share + z2 / (2 * num_trials)
    margin = _NORMAL_95 * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    scale = 1 + z2 / num_trials
    low, high = (centre - margin) / scale, (centre + margin) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # the share lies inside whatever the rounding


def effective_trials(successes: NDArray[np.int64], trials: NDArray[np.int64]) -> float:
    """The number of independent trials that would leave a share as uncertain as these clusters of trials do.

    The variance of a ratio of sums over clusters, by linearisation; where all agree there is no variance to see,
    and each cluster counts as one trial. Never more than the trials.

    Args:
        successes: (num_clusters,)
        trials: (num_clusters,)
    """
    has_any = trials > 0
    num_clusters, num_trials = int(has_any.sum()), int(trials.sum())
    if num_clusters == 0:
        return 0.0
    share = successes.sum() / num_trials
    residuals = successes[has_any] - share * trials[has_any]
    if share in (0.0, 1.0) or num_clusters == 1 or not residuals.any():
        return float(num_clusters)
    variance = num_clusters / (num_clusters - 1) * float(np.sum(residuals**2)) / num_trials**2
    return min(float(num_trials), float(share * (1 - share)) / variance)


def _table(
    tally: _Tally,
    edges: NDArray[np.float64],
    threshold: float,
    num_compared: int,
    cluster_pairs: NDArray[np.int64],
    num_links: NDArray[np.int64],
) -> pa.Table:
    """All rows; a summary's numbers are its strata's, and below the floor what is left of all pairs."""
    uppers = np.append(edges[1:], 1.0)
    ranges = {(float(lower), float(upper)) for lower, upper in zip(edges, uppers, strict=True)}
    ranges |= {(threshold, 1.0)} | ({(float(edges[0]), threshold)} if threshold > edges[0] else set())
    rows = [_row(0.0, float(edges[0]), threshold, *_below(tally, num_compared, cluster_pairs, num_links))]
    for lower, upper in sorted(ranges):
        inside = (edges >= lower) & (uppers <= upper)
        counted = (column[:, inside].sum(axis=1) for column in (tally.pairs, tally.joined, tally.linked))
        rows.append(_row(lower, upper, threshold, *counted))
    return pa.Table.from_pylist(rows, schema=schema.NEAR_DUPLICATE_QUALITY)


def _below(
    tally: _Tally, num_compared: int, cluster_pairs: NDArray[np.int64], num_links: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return (
        num_compared - 1 - tally.pairs.sum(axis=1),
        cluster_pairs - tally.joined.sum(axis=1),
        num_links - tally.linked.sum(axis=1),
    )


def _row(
    lower: float,
    upper: float,
    threshold: float,
    pairs: NDArray[np.int64],
    joined: NDArray[np.int64],
    linked: NDArray[np.int64],
) -> dict[str, float | int | None]:
    counted = joined if lower >= threshold else linked
    num_pairs, trials = int(pairs.sum()), effective_trials(counted, pairs)
    fraction = int(counted.sum()) / num_pairs if num_pairs else None
    low, high = wilson(fraction or 0.0, trials)
    return {
        "lower": lower,
        "upper": upper,
        "num_contents": int((pairs > 0).sum()),
        "num_pairs": num_pairs,
        "num_joined": int(joined.sum()),
        "num_linked": int(linked.sum()),
        "fraction": fraction,
        "interval_low": low,
        "interval_high": high,
    }
