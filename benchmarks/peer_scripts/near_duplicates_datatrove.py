"""datatrove's MinHash pipeline with its defaults: signatures, buckets, clusters, one task each.

5-grams of spaCy's words of the normalised text, 14 buckets of 8 hashes; what shares a bucket is joined.
"""

import contextlib
import struct
import sys
import tempfile
from pathlib import Path

import near_duplicates_clusters as clusters
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader

ids: list[str] = []


def remember(documents, rank=0, world_size=1):  # type: ignore[no-untyped-def]
    """A block of the pipeline: datatrove counts documents, and we want their names."""
    for document in documents:
        ids.append(document.id)
        yield document


def work(parts: list[str]) -> list[tuple[str, str]]:
    config = MinhashConfig()
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
        for number, part in enumerate(parts):
            (Path(folder) / "contents").mkdir(exist_ok=True)
            (Path(folder) / "contents" / f"{number:06}.parquet").symlink_to(Path(part).absolute())
        reader = ParquetReader(f"{folder}/contents", text_key="text", id_key="content_id")
        signing = [reader, remember, MinhashDedupSignature(f"{folder}/signatures", config)]
        buckets = [MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)]
        # its progress goes to the standard output, whose last line is ours
        with contextlib.redirect_stdout(sys.stderr):
            LocalPipelineExecutor(signing, tasks=1, logging_dir=f"{folder}/logs/1").run()
            LocalPipelineExecutor(
                buckets, tasks=config.num_buckets, workers=1, logging_dir=f"{folder}/logs/2"
            ).run()
        edges = [
            (a, b)
            for place in sorted(Path(folder, "buckets").glob("*.dups"))
            for _, a, _, b in struct.iter_unpack("<4I", place.read_bytes())
        ]
    return clusters.stars(ids, clusters.components(len(ids), edges))


clusters.measure(work)
