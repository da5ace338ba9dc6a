"""How text enters: one module per kind of source, behind two functions.

`resolve` names what a source of the recipe would bring, and `read` streams it (`corpus/arrivals.py` holds the
contract). Each module is imported when a recipe has such a source: a recipe of folders loads neither libgit2
nor an HTTP client. To add a kind of source is to add its class to the recipe, its module here, and its name
below.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from starsmith.corpus.arrivals import Arrival, Target
from starsmith.errors import InputError
from starsmith.recipe import Limits, PackageSource, Source


class SourceModule(Protocol):
    """What every module of a source offers."""

    def resolve(self, spec: Any, *, cache: Path, limits: Limits) -> list[Target]: ...
    def read(self, target: Target, *, cache: Path, limits: Limits) -> Iterator[Arrival]: ...


MODULES = {"folder": "folder", "git": "git", "pypi": "pypi", "npm": "npm"}
"""A source's `type` in the recipe to its module."""


def resolve(spec: Source, *, cache: Path, limits: Limits) -> list[Target]:
    """What a source of the recipe would bring, each target with its fingerprint.

    Args:
        spec: one `[[sources]]` table.
        cache: where downloads are kept between runs.
        limits: the recipe's limits.

    Raises:
        InputError: the table names something that does not exist.
        MachineError: a registry or repository cannot be reached or is damaged.
    """
    return _module(spec.type).resolve(spec, cache=cache, limits=limits)


def read(target: Target, *, cache: Path, limits: Limits) -> Iterator[Arrival]:
    """Streams a target of `resolve`: files and incidents, then the repository that they belong to.

    Raises:
        InputError, MachineError: the whole target cannot be had; bad content never raises.
    """
    return _module(target.spec.type).read(target, cache=cache, limits=limits)


def lock(spec: PackageSource, *, cache: Path, limits: Limits) -> tuple[str, ...]:
    """Pins the packages that a source's lock file does not have yet; what is pinned stays as it is.

    Returns:
        the packages that were added.

    Raises:
        InputError: the source names no lock, or a package without a version that the lock does not know.
        MachineError: the registry does not answer.
    """
    if spec.lock is None:
        raise InputError(f"a {spec.type} source has no `lock`; name a file in the recipe, then pin it")
    from starsmith.sources import packages  # loads the HTTP client

    missing = packages.unpinned(spec)
    if missing:
        _module(spec.type).lock(missing, spec.lock, cache=cache, limits=limits, index=spec.index)  # type: ignore[attr-defined]
    return missing


def _module(source_type: str) -> SourceModule:
    return importlib.import_module(f"{__name__}.{MODULES[source_type]}")
