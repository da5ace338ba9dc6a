"""Which repositories are held out for validation.

The unit is the repository's name: all versions, roots and parts of one repository fall on one side, so that
validation text is not a near copy of training text. Every repository has a keyed hash of its name; the
repositories with the smallest hashes are held out, as many as the fraction asks, by count. Counting (rather than
comparing each hash with a threshold) gives small corpora a validation set at all; the price is that adding
repositories can move the one at the edge to the other side.
"""

import hashlib
from collections.abc import Iterable


def validation_repositories(repo_names: Iterable[str], *, fraction: float, seed: int) -> frozenset[str]:
    """The repositories held out of training.

    `fraction` of the distinct names, rounded half up: at least one when the fraction is above 0 and there are two
    repositories or more, and never all of them unless the fraction is 1. A single repository is trained on.
    """
    ranked = sorted(set(repo_names), key=lambda name: (_rank(name, seed), name))
    wanted = int(fraction * len(ranked) + 0.5)
    if 0 < fraction < 1:
        wanted = min(max(wanted, 1), len(ranked) - 1)
    return frozenset(ranked[: max(wanted, 0)])


def _rank(repo_name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"validation\0{seed}\0{repo_name}".encode(), digest_size=16).digest()
