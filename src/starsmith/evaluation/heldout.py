"""Files that no training step saw: the validation split of the documents, in the form that is released.

Files are chosen by a keyed hash of what they hold, so the choice does not depend on the order or number of the
table's parts, and a new file in the corpus displaces at most one other.
"""

import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True)
class HeldoutFile:
    released_id: str
    """sha1_git of the text."""
    repo_name: str
    path: str
    language: str
    text: str


def choose_files(
    parts: Sequence[Path], *, count: int, seed: int, purpose: str, suits: Callable[[HeldoutFile], bool]
) -> list[HeldoutFile]:
    """At most `count` different contents of the validation split that suit, ordered by identifier.

    Memory holds the chosen files and one batch of the table.

    Args:
        parts: Parquet parts of the documents table.
        count: the most to choose.
        seed: of the run.
        purpose: keys the choice, so that two benchmarks choose independently.
        suits: whether a file can be used.
    """
    chosen: list[tuple[int, str, HeldoutFile]] = []
    present: set[str] = set()
    for part in sorted(parts):
        with pq.ParquetFile(part) as table:
            for batch in table.iter_batches(batch_size=4, columns=["repo_name", "split", "files"]):
                for row in batch.to_pylist():
                    if row["split"] != "validation":
                        continue
                    for entry in row["files"]:
                        rank = -_rank(seed, purpose, entry["released_id"])
                        full = len(chosen) >= count
                        if entry["released_id"] in present or (full and rank < chosen[0][0]):
                            continue
                        file = _heldout(row["repo_name"], entry)
                        if not suits(file):
                            continue
                        present.add(file.released_id)
                        item = (rank, file.released_id, file)
                        if full:
                            present.discard(heapq.heapreplace(chosen, item)[1])
                        else:
                            heapq.heappush(chosen, item)
    return sorted((file for _, _, file in chosen), key=lambda file: file.released_id)


def _heldout(repo_name: str, entry: dict[str, str]) -> HeldoutFile:
    return HeldoutFile(
        released_id=entry["released_id"],
        repo_name=repo_name,
        path=entry["path"],
        language=entry["language"] or "unknown",
        text=entry["text"],
    )


def _rank(seed: int, purpose: str, identifier: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{purpose}\0{identifier}".encode()).digest()[:8], "big")
