r"""text-dedup's own command with its defaults: 5-grams of `\W`-separated words, 250 permutations, 0.7.

What shares a band is joined. The clusters are read from the union-find that its module keeps. One process.
"""

import sys
import tempfile
from pathlib import Path

import near_duplicates_clusters as clusters
import pyarrow.parquet as pq
from text_dedup import minhash


def work(parts: list[str]) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
        Path(folder, "contents").mkdir()
        for number, part in enumerate(parts):
            Path(folder, "contents", f"{number:06}.parquet").symlink_to(Path(part).absolute())
        minhash.main(
            [
                "--path", "parquet", "--data_files", f"{folder}/contents/*.parquet", "--split", "train",
                "--cache_dir", f"{folder}/cache", "--output", f"{folder}/output", "--column", "text",
                "--num_proc", "1",
            ],
            standalone_mode=False,
        )  # fmt: skip
    ids = [
        name for part in parts for name in pq.read_table(part, columns=["content_id"])["content_id"].to_pylist()
    ]
    return [(ids[node], ids[minhash.uf.find(node)]) for node in list(minhash.uf.parent)]


clusters.measure(work)
