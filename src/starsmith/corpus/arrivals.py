"""What a source hands over: a stream of files and incidents, closed by the repository they belong to.

A source module is two functions:

    resolve(spec, *, cache, limits) -> list[Target]     # cheap: names what would be read, with a fingerprint
    read(target, *, cache, limits) -> Iterator[Arrival] # streams it

`Target.fingerprint` changes exactly when the bytes that `read` would yield may change; it becomes part of the
step's key. `read` yields `SourceFile` and `Incident` in any order and then one `Repository` for each root
it has read: the root directory's SWHID is only known at the end, and nothing is held in memory but names.
Sources never raise for bad content (it becomes an `Incident`); they raise `MachineError` or `InputError` when
the whole target cannot be had.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to read: a folder, a branch of a repository, a version of a package."""

    label: str
    """Short and unique in a recipe, fit for a file name; e.g. `pypi-six-1.16.0`."""
    origin: str
    """URL, path or package URL."""
    fingerprint: str
    spec: Any
    """What `read` of the same module needs; picklable."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    path: str
    """Starts with "/"."""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class OversizedFile:
    """A file beyond `limits.file_bytes`: hashed in passing, its text not kept."""

    path: str
    content_id: str
    blob_id: str
    length_bytes: int


@dataclass(frozen=True, kw_only=True)
class Incident:
    path: str
    kind: str
    """traversal, link, device, bomb, too_many, duplicate, truncated, corrupt, encoding, missing, submodule."""
    detail: str
    length_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Closes the files yielded since the last `Repository`."""

    source: str
    origin: str
    repo_name: str
    directory_id: str
    snapshot_id: str | None = None
    revision_id: str | None = None
    branch_name: str | None = None
    visit_date: datetime.datetime | None = None
    revision_date: datetime.datetime | None = None
    committer_date: datetime.datetime | None = None
    star_events_count: int = 0
    fork_events_count: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    """Other columns of `schema.FILES`."""


Arrival = SourceFile | OversizedFile | Incident | Repository
Arrivals = Iterator[Arrival]
