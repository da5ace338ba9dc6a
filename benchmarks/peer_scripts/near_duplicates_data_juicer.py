"""Data-Juicer's MinHash operator with its defaults: 5-grams of words between spaces, 256 permutations, 0.7.

The operator's own two calls, a hash for each sample and then `process` on all. What shares a band is joined; the
clusters are read from the tables of bands that the operator keeps. One process.
"""

import sys
import tempfile
from pathlib import Path

import near_duplicates_clusters as clusters
from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator
from datasets import load_dataset


def work(parts: list[str]) -> list[tuple[str, str]]:
    operator = DocumentMinhashDeduplicator(jaccard_threshold=0.7)
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
        contents = load_dataset("parquet", data_files=parts, split="train", cache_dir=folder)
        contents = contents.select_columns(["content_id", "text"])
        ids = contents["content_id"][:]
        operator.process(contents.map(operator.compute_hash))
    edges = (
        (member, min(members))
        for table in operator.hash_tables
        for members in table.values()
        for member in members
    )
    return clusters.stars(ids, clusters.components(len(ids), edges))


clusters.measure(work)
