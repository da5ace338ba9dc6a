"""Daft as its own guide to near-deduplication does it: normalised text, `minhash`, bands, groups.

64 hashes of 5-grams of words, bands by the search for 0.7, as in the guide; components from what shares a band
(unverified), here by a union-find in this process and not by the guide's iterated joins, which takes less time.
One thread of its native runner.
"""

import daft
import near_duplicates_clusters as clusters
from daft import col

THRESHOLD, NUM_HASHES = 0.7, 64


def work(parts: list[str]) -> list[tuple[str, str]]:
    bands, rows = clusters.optimal_bands(THRESHOLD, NUM_HASHES)
    normal = daft.functions.normalize(
        col("text"), remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True
    )
    frame = (
        daft.read_parquet(parts)
        .select("content_id", daft.functions.minhash(normal, num_hashes=NUM_HASHES, ngram_size=5).alias("hashes"))
        .collect()
    )
    table = frame.to_arrow()
    ids = table["content_id"].to_pylist()
    hashes = table["hashes"].combine_chunks()
    values = memoryview(hashes.values.buffers()[1]).cast("B")
    width = 4 * NUM_HASHES
    first: dict[tuple[int, bytes], int] = {}
    edges = []
    for node in range(len(ids)):
        at = (hashes.offset + node) * width
        for band in range(bands):
            key = (band, bytes(values[at + 4 * rows * band : at + 4 * rows * (band + 1)]))
            edges.append((node, first.setdefault(key, node)))
    return clusters.stars(ids, clusters.components(len(ids), edges))


daft.set_runner_native(num_threads=1)
clusters.measure(work)
