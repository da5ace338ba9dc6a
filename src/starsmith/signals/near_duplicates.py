"""Near-duplicate pairs: signatures find candidates, exact Jaccard decides (section 3.1).

As in the paper: lower-cased words, 5-grams, Jaccard 0.7, signatures and banded LSH. Differently, and why:

* **Candidates are verified.** The published script joins whatever shares a bucket; measured, that merges
  10-13 % of the pairs below 0.7. Here the Jaccard similarity of the two sets of shingles is computed, so a
  pair in the result is a pair, up to a collision of 64-bit hashes.
* **More and shorter bands** (42 of 6 rows, not 25 of 10): a pair of similarity 0.7 is found with probability
  0.995, not 0.51. Verification makes the extra candidates harmless.
* **One hash a shingle**, not one for each of 250 permutations (`minhash_kernels`): the same estimate, in a
  fraction of the time.
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

Each of these is a key of the recipe, and two presets set them otherwise. `stack-v2` repeats the published script
bit by bit (`near_duplicate_stack_v2`): its signatures, its buckets and, as nothing is verified, its clusters;
the similarity of a pair is the estimate. `stack-v3` has the parameters that its successor published: 256
permutations, 5-grams of texts with at least 5 words, candidates verified by the estimate. Its hash functions and
its bands are not published; here they are ours and the ones that its predecessors' search for 256 permutations
gives.

Languages are not looked at: they belong to files, and a policy may pair within them. Memory is flat: signatures,
bands and shingles lie in scratch files (by default 1,344 bytes a content and some 4 a word), of which a few MB are
held at a time; what grows is some 100 bytes a content and 50 a candidate. The result depends on
the contents, the configuration and the seed alone, and not on what was known from an earlier run: that only saves
reading texts (`signatures_of`) and comparing them (`pairs_from`)."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.corpus.store import disk_errors
from starsmith.signals.near_duplicate_candidates import (
    FIRST,
    FULL_BUCKET,
    PREVIOUS,
    Signed,
    candidates,
    gathered,
    read_signatures,
)
from starsmith.signals.near_duplicate_signing import signatures, signatures_of, signatures_schema, signed_batches
from starsmith.signals.near_duplicate_verification import VERIFYING_STEPS, Sources, verified

__all__ = (
    "FIRST",
    "FULL_BUCKET",
    "PREVIOUS",
    "VERSION",
    "pairs_from",
    "signatures",
    "signatures_of",
    "signatures_schema",
    "verified_pairs",
)

VERSION = 4

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def pairs_from(
    signature_tables: Sequence[Path],
    content_parts: Sequence[Path],
    config: recipe.NearDuplicates,
    seed: int,
    progress: Progress | None = None,
    *,
    scratch: Path | None = None,
    shingle_files: Sequence[Path] = (),
    known_pairs: Sequence[Path] = (),
) -> pa.Table:
    """The pairs of contents whose similarity reaches `config.threshold`; without verification, all that share a
    band.

    Args:
        signature_tables: Parquet parts of `signatures_of`, in any order.
        content_parts: the Parquet parts of the contents that were signed, in any order; read for candidates
            whose shingles are in no shingle file.
        config: the one that the signatures were made with.
        seed: likewise.
        progress: told of each band, part and block of pairs.
        scratch: an existing folder for temporary files; the system's by default.
        shingle_files: what `signatures_of` left, of any of the contents.
        known_pairs: Parquet parts of earlier results for the same configuration and seed, of any contents: a
            similarity that they have is copied. The result is the same with and without them.

    Returns:
        `schema.NEAR_DUPLICATE_PAIRS`, ordered by its identifiers.

    Raises:
        ValueError: the tables do not belong together: another number of permutations, a content signed
            twice, or a candidate without its text.
    """
    sources = Sources(shingle_files, content_parts, known_pairs)
    with tempfile.TemporaryDirectory(prefix="near-duplicates-", dir=scratch) as name:
        folder = Path(name)
        with disk_errors(folder):
            signed = read_signatures(signature_tables, config, folder)
        return _pairs(signed, config, seed, sources, folder / "sets", progress)


def verified_pairs(
    content_parts: Sequence[Path],
    config: recipe.NearDuplicates,
    seed: int,
    progress: Progress | None = None,
    *,
    scratch: Path | None = None,
) -> pa.Table:
    """`signatures_of` and `pairs_from` in one process, for a corpus that needs no more; signatures are in no
    table on the way."""
    with tempfile.TemporaryDirectory(prefix="near-duplicates-", dir=scratch) as name:
        folder = Path(name)
        files = [folder / f"shingles-{number}" for number in range(len(content_parts))]
        batches = (
            batch
            for part, file in zip(content_parts, files, strict=True)
            for batch in signed_batches(part, config, seed, shingle_file=file)
        )
        with disk_errors(folder):
            num_rows = sum(pq.read_metadata(part).num_rows for part in content_parts)
            signed = gathered(batches, num_rows, config, folder)
        sources = Sources(files if config.verification == "exact" else (), content_parts, ())
        return _pairs(signed, config, seed, sources, folder / "sets", progress)


def _pairs(
    signed: Signed,
    config: recipe.NearDuplicates,
    seed: int,
    sources: Sources,
    place: Path,
    progress: Progress | None,
) -> pa.Table:
    """See `pairs_from`; sets of shingles are written to `place`."""
    done, total = itertools.count(1), config.bands + len(sources.content_parts) + VERIFYING_STEPS

    def advance() -> None:
        if progress is not None:
            progress(next(done), total)

    pairs, similarities = verified(candidates(signed, advance), signed, config, seed, sources, place, advance)
    left, right = (signed.ids.take(pa.array(side)).cast(pa.string()) for side in pairs)
    return pa.table([left, right, similarities], schema=schema.NEAR_DUPLICATE_PAIRS)
