"""tiktoken on the texts of a file: our vocabulary for speed, published ones for compression.

Arguments: a file with lines of JSON `[group, text]`, and a file with a JSON object of names to
`{"pattern", "ranks", "special"}`, tokens as base64. Prints, by name, the seconds of one core, the number of ids by
group, and the SHA-256 of all ids as little-endian numbers of 32 bits.
"""

import base64
import collections
import hashlib
import json
import sys
import time
from pathlib import Path

import tiktoken


def measured(described: dict, texts: list[tuple[str, str]]) -> dict:
    ranks = {base64.b64decode(token): rank for token, rank in described["ranks"].items()}
    encoding = tiktoken.Encoding(
        "benchmark", pat_str=described["pattern"], mergeable_ranks=ranks, special_tokens=described["special"]
    )
    started = time.process_time()
    encoded = [encoding.encode_ordinary(text) for _, text in texts]
    seconds = time.process_time() - started
    num_ids: collections.Counter = collections.Counter()
    digest = hashlib.sha256()
    for (group, _), ids in zip(texts, encoded, strict=True):
        num_ids[group] += len(ids)
        digest.update(b"".join(number.to_bytes(4, "little") for number in ids))
    return {"seconds": seconds, "num_ids": num_ids, "digest": digest.hexdigest()}


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")
    groups = [tuple(json.loads(line)) for line in lines if line]
    vocabularies = json.loads(Path(sys.argv[2]).read_text())
    print(json.dumps({name: measured(described, groups) for name, described in vocabularies.items()}))
