r"""rensa as its documentation uses it: shingles in Python, signatures in bulk, its LSH index.

Words are the runs of `\w` in the lower-cased text, shingles are 5-grams joined by a space, as ours. 256
permutations in 32 bands: 8 rows, the nearest to a threshold of 0.7 that its index takes (bands must divide
permutations). Candidates are kept at an estimated similarity of 0.7.
"""

import re

import near_duplicates_clusters as clusters
import pyarrow.parquet as pq
from rensa import RMinHash, RMinHashLSH

THRESHOLD, NUM_PERMUTATIONS, BANDS, BATCH = 0.7, 256, 32, 1024
WORDS = re.compile(r"\w+")


def shingles(text: str) -> set[str]:
    words = WORDS.findall(text.lower())
    return {" ".join(words[at : at + 5]) for at in range(max(len(words) - 4, min(1, len(words))))}


def work(parts: list[str]) -> list[tuple[str, str]]:
    ids: list[str] = []
    minhashes: list[RMinHash] = []
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(BATCH, columns=["content_id", "text"], use_threads=False):
                sets = map(shingles, batch["text"].to_pylist())
                kept = [
                    (name, own) for name, own in zip(batch["content_id"].to_pylist(), sets, strict=True) if own
                ]
                ids += [name for name, _ in kept]
                minhashes += RMinHash.from_token_sets([own for _, own in kept], num_perm=NUM_PERMUTATIONS, seed=42)
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERMUTATIONS, num_bands=BANDS)
    index.insert_many(minhashes)
    edges = (
        (node, other)
        for node, found in enumerate(index.query_all(minhashes))
        for other in found
        if other < node and minhashes[node].jaccard(minhashes[other]) >= THRESHOLD
    )
    return clusters.stars(ids, clusters.components(len(ids), edges))


clusters.measure(work)
