"""What every near-deduplication peer's script shares: its arguments, its clock and the form of its answer.

Arguments: a place for the clusters, then the Parquet parts (columns content_id and text). The answer is a file
of JSON, `[[content_id, another of its cluster], ...]`, and a last line with the seconds that `work` took: on the
clock, and of all processors, of the process and of those that it started. Imports come before the clock.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def measure(work: Callable[[list[str]], Iterable[tuple[str, str]]]) -> None:
    """Runs `work` on the parts; it answers pairs of contents that stand in one cluster."""
    place, *parts = sys.argv[1:]
    started, used = time.perf_counter(), _processor_seconds()
    pairs = list(work(parts))
    seconds = {"wall_seconds": time.perf_counter() - started, "cpu_seconds": _processor_seconds() - used}
    Path(place).write_text(json.dumps(pairs))
    print(json.dumps(seconds))


def components(num_nodes: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """The smallest node of each node's component, for peers that answer pairs and leave clusters to others."""
    parents = list(range(num_nodes))
    for a, b in edges:
        while parents[a] != a:
            parents[a] = a = parents[parents[a]]
        while parents[b] != b:
            parents[b] = b = parents[parents[b]]
        parents[max(a, b)] = min(a, b)
    for node in range(num_nodes):
        parents[node] = parents[parents[node]]
    return parents


def stars(ids: list[str], roots: list[int]) -> list[tuple[str, str]]:
    """Each content that is not alone, with the first of its cluster."""
    return [(ids[node], ids[root]) for node, root in enumerate(roots) if node != root]


def optimal_bands(threshold: float, num_hashes: int) -> tuple[int, int]:
    """(bands, rows) with the smallest sum of the false-positive and false-negative areas under the probability of
    sharing a band: the search that the peers that follow datasketch make."""
    steps = 1_000

    def area(low: float, high: float, value: Callable[[float], float]) -> float:
        width = (high - low) / steps
        return width * sum(value(low + (step + 0.5) * width) for step in range(steps))

    best = (float("inf"), (0, 0))
    for bands in range(1, num_hashes + 1):
        for rows in range(1, num_hashes // bands + 1):

            def missed(similarity: float, bands: int = bands, rows: int = rows) -> float:
                return (1 - similarity**rows) ** bands

            error = area(0, threshold, lambda s: 1 - missed(s)) + area(threshold, 1, missed)
            best = min(best, (error, (bands, rows)))
    return best[1]


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
