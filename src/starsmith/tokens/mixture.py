"""The mixture: which document belongs to which part, and which stream carries which part.

A part's share of the rows is its share of the streams, dealt once: every stream gives equally many rows, so the
shares hold exactly over each round of the streams, and nearly in each batch, without a draw that a resumed run
would have to repeat. The price is their granularity: with S streams a share is a multiple of 1/S, and one that is
too small for a stream is refused rather than rounded away.

Without parts, every document is taken as often as every other, as the paper does (section 4.1).
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from starsmith.errors import InputError
from starsmith.recipe import MixturePart


def part_of(repo_names: pa.ChunkedArray, parts: Sequence[MixturePart]) -> NDArray[np.int64]:
    """The part of each repository: the first that names it, or `len(parts)` where none does."""
    found = np.full(len(repo_names), len(parts), dtype=np.int64)
    for number in reversed(range(len(parts))):
        pattern = "|".join(map(_expression, parts[number].repositories))
        matches = pc.match_substring_regex(repo_names, pattern=f"^(?s:{pattern})$")
        found[matches.to_numpy().astype(np.bool_)] = number
    return found


def _expression(pattern: str) -> str:
    return ".*".join(re.escape(piece) for piece in pattern.split("*"))


def deal(shares: Mapping[str, float], num_streams: int) -> NDArray[np.int64]:
    """The part of each stream, as a place in `shares`.

    Numbers of streams follow the shares by the largest remainder; each part's streams are spread evenly, so that
    any run of neighbours holds about its share of them.

    Args:
        shares: of the rows, by the name of the part; they add up to 1.
        num_streams: how many streams there are.

    Raises:
        InputError: a part would get no stream.
    """
    counts = _apportion(list(shares.values()), num_streams)
    lost = [name for name, count in zip(shares, counts, strict=True) if count == 0]
    if lost:
        needed = math.ceil(1.0 / min(shares[name] for name in lost))
        without = ", ".join(f"{name!r} ({shares[name]:g})" for name in lost)
        raise InputError(
            f"{num_streams} streams are too few for the shares of the mixture: none is left for {without}. "
            f"Set tokens.streams to at least {needed}, or raise the share"
        )
    owners = np.repeat(np.arange(len(counts)), counts)
    ideals = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return owners[np.argsort(ideals, kind="stable")]


def _apportion(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to the shares; of equal remainders the first wins."""
    quotas = [share * total / sum(shares) for share in shares]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - quotas[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts
