"""A version of a package: how a recipe and a lock name it, and what its archive becomes.

A lock is a text file of lines

    pkg:TYPE/NAME@VERSION FILENAME sha256:HEX [UPLOAD-TIME]

with `#` comments. The first field is a package URL (purl). It pins what is read: with it nothing is asked of
the registry but the files that the cache lacks, and a file with another hash is refused. The upload time is
the registry's word; it stands in the lock so that a run without network gives the same dates.

A package becomes a repository `TYPE/NAME` whose root directory is the archive without its top folder. Its
snapshot has the shape that Software Heritage gives to packages: a branch `releases/VERSION` and HEAD as its
alias; the branch names the directory itself, since we make no synthetic release object.
"""

import datetime
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from packageurl import PackageURL

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Arrival, Repository, Target
from starsmith.errors import InputError, MachineError
from starsmith.recipe import Limits, PackageSource
from starsmith.sources import registry
from starsmith.sources.archive import read_archive
from starsmith.sources.registry import Digest

PackageType = Literal["pypi", "npm"]

_NAMES: dict[PackageType, re.Pattern[str]] = {
    "pypi": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "npm": re.compile(r"(@[A-Za-z0-9~_][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_][A-Za-z0-9._~-]*"),
}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """One archive of one version."""

    type: PackageType
    name: str
    """In the registry's canonical form (PyPI: PEP 503)."""
    version: str
    filename: str
    digest: Digest
    upload_time: datetime.datetime | None = None
    url: str | None = None
    """None when only the lock was asked; the registry knows it."""
    index: str | None = None
    """The recipe's registry, if it names one."""

    @property
    def purl(self) -> str:
        """The package URL, e.g. `pkg:pypi/six@1.16.0`."""
        namespace, _, name = self.name.rpartition("/")
        return str(PackageURL(self.type, namespace or None, name, self.version).to_string())

    @property
    def subject(self) -> str:
        """How messages call it."""
        return f"{self.name} {self.version}"


def canonical_name(package_type: PackageType, name: str) -> str:
    """PyPI's names are compared in lower case with runs of `-_.` as one `-` (PEP 503); npm's as they are."""
    return re.sub(r"[-_.]+", "-", name).lower() if package_type == "pypi" else name


def parse_package(text: str, package_type: PackageType) -> tuple[str, str | None]:
    """Canonical name and version of a recipe's `name==version` or `name`.

    Raises:
        InputError: it is neither.
    """
    name, separator, version = (part.strip() for part in text.partition("=="))
    sound = _NAMES[package_type].fullmatch(name) and (not separator or _VERSION.fullmatch(version))
    if not sound:
        raise InputError(f"{text!r} is not a package of {package_type}; write `name==version`, e.g. `six==1.16.0`")
    return canonical_name(package_type, name), version or None


# --- locks


def load_lock(path: Path) -> list[PackageFile]:
    """The lines of a lock file in their order.

    Raises:
        InputError: the file is absent or has a line of another form; every fault is named with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no lock file {path}; leave `lock` out or write one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the lock file {path}: {error}") from None
    entries, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entries.append(_parse_line(line.split()))
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
    places = [(entry.purl, entry.filename) for entry in entries]
    for place in {place for place in places if places.count(place) > 1}:
        faults.append(f"{path}: {place[0]} {place[1]} is there twice")
    if faults:
        raise InputError("\n".join(faults))
    return entries


def _parse_line(fields: list[str]) -> PackageFile:
    form = "expected `pkg:TYPE/NAME@VERSION FILENAME sha256:HEX [UPLOAD-TIME]`"
    if not 3 <= len(fields) <= 4:
        raise ValueError(f"{len(fields)} fields; {form}")
    purl, filename, digest = fields[:3]
    parsed = PackageURL.from_string(purl)
    if parsed.type not in _NAMES or not parsed.version:
        raise ValueError(f"{purl!r} is not a version of a pypi or npm package; {form}")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"{digest!r} is not sha256: and 64 hex digits; {form}")
    if "/" in filename or filename in (".", ".."):
        raise ValueError(f"{filename!r} is not a file's name; {form}")
    package_type: PackageType = "pypi" if parsed.type == "pypi" else "npm"
    name = f"{parsed.namespace}/{parsed.name}" if parsed.namespace else parsed.name
    return PackageFile(
        type=package_type,
        name=canonical_name(package_type, name),
        version=parsed.version,
        filename=filename,
        digest=Digest("sha256", digest.removeprefix("sha256:")),
        upload_time=parse_time(fields[3]) if len(fields) == 4 else None,
    )


def save_lock(path: Path, entries: Iterable[PackageFile]) -> None:
    """Writes a lock file, sorted and at once.

    Raises:
        MachineError: it cannot be written.
    """
    lines = []
    for entry in sorted(entries, key=lambda e: (e.purl, e.filename)):
        if entry.digest.algorithm != "sha256":
            raise ValueError(f"{entry.purl} has no sha256")
        time = "" if entry.upload_time is None else " " + entry.upload_time.isoformat().replace("+00:00", "Z")
        lines.append(f"{entry.purl} {entry.filename} {entry.digest}{time}\n")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"cannot write the lock file {path}: {error.strerror}") from error


def extend_lock(path: Path, found: Iterable[PackageFile]) -> list[PackageFile]:
    """Adds files to a lock that may not exist yet; a version that is there already gets the new line.

    Returns:
        all entries as they now stand in the lock.
    """
    entries = {entry.purl: entry for entry in (load_lock(path) if path.exists() else [])}
    entries.update({entry.purl: entry for entry in found})
    save_lock(path, entries.values())
    return load_lock(path)


def parse_time(text: str) -> datetime.datetime:
    """An ISO 8601 time as UTC; without a zone it is UTC already.

    Raises:
        ValueError: it is no such time.
    """
    time = datetime.datetime.fromisoformat(text)
    return time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)


def pinned(spec: PackageSource) -> list[PackageFile] | None:
    """What the lock says about the packages of a source; None without a lock.

    A package without version stands for every version of it in the lock.

    Raises:
        InputError: the lock is bad, or lacks a package.
    """
    if spec.lock is None:
        return None
    entries = [entry for entry in load_lock(spec.lock) if entry.type == spec.type]
    chosen: dict[tuple[str, str], PackageFile] = {}
    for text in spec.packages:
        name, version = parse_package(text, spec.type)
        found = [entry for entry in entries if entry.name == name and version in (None, entry.version)]
        if not found:
            others = ", ".join(entry.version for entry in entries if entry.name == name)
            raise InputError(
                f"the lock {spec.lock} has no {text} of {spec.type}"
                + (f" (it has {name} {others})" if others else "")
                + "; add it with `starsmith lock RECIPE`, or leave `lock` out"
            )
        for entry in found:
            chosen[entry.purl, entry.filename] = replace(entry, index=spec.index)
    return list(chosen.values())


def unpinned(spec: PackageSource) -> tuple[str, ...]:
    """The packages of a source that its lock does not have yet; all of them where there is no lock file.

    Raises:
        InputError: the lock is bad.
    """
    assert spec.lock is not None
    there = {
        (entry.type, entry.name, entry.version) for entry in (load_lock(spec.lock) if spec.lock.exists() else [])
    }
    names = {(kind, name) for kind, name, _ in there}
    missing = []
    for text in spec.packages:
        name, version = parse_package(text, spec.type)
        known = (spec.type, name) in names if version is None else (spec.type, name, version) in there
        if not known:
            missing.append(text)
    return tuple(missing)


def adopt_files(folder: Path, *, lock: Path, cache: Path) -> list[PackageFile]:
    """Takes archives that were had by other means into the cache, for a machine without network.

    Args:
        folder: holds the files under any names; they are told by their hashes.
        lock: names the hashes that are wanted.
        cache: the recipe's cache.

    Returns:
        the lock's entries that the cache now has not: empty when nothing is missing.

    Raises:
        InputError: the folder or the lock cannot be read.
        MachineError: the cache cannot be written.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds the packages' archives")
    entries = load_lock(lock)
    wanted = {entry.digest for entry in entries}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest = registry.digest_of(path)
        if digest in wanted and registry.cached(digest, cache) is None:
            registry.adopt(path, digest, cache)
    return [entry for entry in entries if registry.cached(entry.digest, cache) is None]


# --- from archive to repository


def target(file: PackageFile) -> Target:
    """The target of one archive; its fingerprint is the archive's digest and what the recipe adds to it."""
    time = "" if file.upload_time is None else file.upload_time.isoformat()
    facts = "\0".join((str(file.digest), file.purl, file.filename, time))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.name.removeprefix("@"))
    label = f"{file.type}-{name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', file.version)}"
    if file.name.startswith("@"):  # "@a/b" and "a-b" are two packages
        label += "-" + hashlib.sha256(file.name.encode()).hexdigest()[:8]
    return Target(
        label=label,
        origin=file.purl,
        fingerprint="package:" + hashlib.sha256(facts.encode()).hexdigest(),
        spec=file,
    )


def read_package(
    file: PackageFile, path: Path, *, limits: Limits, is_top: Callable[[str], bool]
) -> Iterator[Arrival]:
    """Streams an archive's files and incidents and then its `Repository`."""
    tree = swhid.DirectoryTree()
    yield from read_archive(path, limits=limits, tree=tree, is_top=is_top)
    root = tree.directory_id()
    branch = f"releases/{file.version}"
    yield Repository(
        source=file.type,
        origin=file.purl,
        repo_name=f"{file.type}/{file.name}",
        directory_id=root,
        snapshot_id=swhid.snapshot_id(
            {b"HEAD": swhid.Branch("alias", branch), branch.encode(): swhid.Branch("directory", root)}
        ),
        branch_name=branch,
        revision_date=file.upload_time,
    )
