"""A folder on this machine as one repository.

The folder is walked in sorted order and links are never followed. What is not a file or a folder, cannot be
read, or has a name that is not UTF-8 becomes an incident; a `.git` entry is left out with one incident (the
history is what the `git` source reads). The root's identifier is Software Heritage's for this folder without
its `.git`: a link counts with its target's text.

The fingerprint is a hash over each entry's relative path, type, mode, size and modification time in
nanoseconds. It reads no contents, so planning stays quick; an edit that keeps both size and time is not
noticed.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Arrival, Incident, OversizedFile, Repository, SourceFile, Target
from starsmith.errors import InputError, MachineError
from starsmith.recipe import FolderSource, Limits
from starsmith.sources.archive import PIECE_BYTES, printable


@dataclass(frozen=True, slots=True)
class FolderTarget:
    path: Path
    repo_name: str
    type: str = "folder"


def resolve(spec: FolderSource, *, cache: Path, limits: Limits) -> list[Target]:
    """The folder as the one target.

    Raises:
        InputError: there is no folder at the path.
        MachineError: the folder cannot be listed.
    """
    path = spec.path.expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"the folder source {spec.path} {what}; give `path` a folder (relative to {Path.cwd()})")
    name = spec.repo_name or path.resolve().name or "root"
    origin = spec.path.as_posix()
    distinct = hashlib.sha256(f"{origin}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    label = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    return [
        Target(
            label=f"folder-{label}-{distinct}",
            origin=origin,
            fingerprint=_fingerprint(path, name),
            spec=FolderTarget(path, name),
        )
    ]


def read(target: Target, *, cache: Path, limits: Limits) -> Iterator[Arrival]:
    """Streams the folder's files, sorted by path within each folder, and then its `Repository`.

    Raises:
        MachineError: the folder itself cannot be listed any more.
    """
    spec: FolderTarget = target.spec
    tree = swhid.DirectoryTree()
    for found in _walk(spec.path):
        if isinstance(found, Incident):
            yield found
        else:
            yield from _read_entry(found, tree, limits)
    yield Repository(
        source="folder", origin=target.origin, repo_name=spec.repo_name, directory_id=tree.directory_id()
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    place: Path
    path: bytes
    """Relative, with "/"."""
    status: os.stat_result


def _walk(root: Path) -> Iterator[_Entry | Incident]:
    """Every entry below the root but `.git`, parents before children, siblings sorted by their name's bytes."""
    pending: list[tuple[Path, bytes]] = [(root, b"")]
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as listing:
                children = sorted(listing, key=lambda child: os.fsencode(child.name))
        except OSError as error:
            if not prefix:
                raise MachineError(f"cannot list the folder {root}: {error.strerror}") from error
            yield Incident(path=_shown(prefix), kind="unreadable", detail=f"cannot list: {error.strerror}")
            continue
        below: list[tuple[Path, bytes]] = []
        for child in children:
            path = prefix + b"/" * bool(prefix) + os.fsencode(child.name)
            if child.name == ".git":
                yield Incident(
                    path=_shown(path),
                    kind="git_folder",
                    detail="Git's own data, not source text; the `git` source reads the history",
                )
                continue
            try:
                status = child.stat(follow_symlinks=False)
            except OSError as error:
                yield Incident(path=_shown(path), kind="unreadable", detail=f"{error.strerror}")
                continue
            yield _Entry(Path(child.path), path, status)
            if stat.S_ISDIR(status.st_mode):
                below.append((Path(child.path), path))
        pending.extend(reversed(below))


def _read_entry(entry: _Entry, tree: swhid.DirectoryTree, limits: Limits) -> Iterator[Arrival]:
    mode, shown = entry.status.st_mode, _shown(entry.path)
    try:
        if stat.S_ISDIR(mode):
            tree.add_directory(entry.path)
        elif stat.S_ISLNK(mode):
            link = os.fsencode(entry.place.readlink())
            tree.add(entry.path, swhid.MODE_LINK, swhid.content_id(link))
            yield Incident(path=shown, kind="link", detail=f"links to {printable(link)}; links are not followed")
        elif stat.S_ISREG(mode):
            yield from _read_file(entry, tree, limits)
        else:
            yield Incident(path=shown, kind="device", detail=_special_kind(mode))
    except OSError as error:
        detail = error.strerror or str(error)
        yield Incident(path=shown, kind="unreadable", detail=detail, length_bytes=entry.status.st_size)


def _read_file(entry: _Entry, tree: swhid.DirectoryTree, limits: Limits) -> Iterator[Arrival]:
    # A link or a pipe that takes the file's place meanwhile is neither followed nor waited for.
    descriptor = os.open(entry.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EIO, "it stopped being a file while it was read")
        mode = swhid.MODE_EXECUTABLE if status.st_mode & 0o111 else swhid.MODE_FILE
        length_bytes = status.st_size
        arrival: SourceFile | OversizedFile
        if length_bytes <= limits.file_bytes:
            data = file.read(length_bytes + 1)
            if len(data) != length_bytes:
                raise OSError(errno.EIO, "it changed its length while it was read")
            identifier = swhid.content_id(data)
            arrival = SourceFile(path=_shown(entry.path), data=data)
        else:
            hasher = swhid.ContentHasher(length_bytes)
            while piece := file.read(PIECE_BYTES):
                hasher.update(piece)
            if not hasher.complete:
                raise OSError(errno.EIO, "it changed its length while it was read")
            identifier = hasher.content_id()
            arrival = OversizedFile(
                path=_shown(entry.path),
                content_id=identifier,
                blob_id=hasher.blob_id(),
                length_bytes=length_bytes,
            )
    tree.add(entry.path, mode, identifier)
    refusal = _name_refusal(entry.path, limits)
    if refusal is None:
        yield arrival
    else:
        yield Incident(path=_shown(entry.path), kind=refusal[0], detail=refusal[1], length_bytes=length_bytes)


def _name_refusal(path: bytes, limits: Limits) -> tuple[str, str] | None:
    if len(path) > limits.path_bytes:
        return "path", f"the path has {len(path):,} bytes; allowed are {limits.path_bytes:,}"
    try:
        path.decode()
    except UnicodeDecodeError:
        return "encoding", "the path is not UTF-8"
    return None


def _shown(path: bytes) -> str:
    try:
        return "/" + path.decode()
    except UnicodeDecodeError:
        return "/" + printable(path)


def _special_kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
    return kinds.get(stat.S_IFMT(mode), "not a file")


def _fingerprint(root: Path, repo_name: str) -> str:
    digest = hashlib.sha256(repo_name.encode("utf-8", "surrogateescape"))
    for found in _walk(root):
        if isinstance(found, Incident):
            line = f"{found.path}\0{found.kind}"
        else:
            status = found.status
            # A folder's own time changes when a passing file comes and goes; its entries are listed anyway.
            times = (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            line = f"{_shown(found.path)}\0{status.st_mode:o}\0{times[0]}\0{times[1]}"
        digest.update(line.encode() + b"\n")
    return f"stat:{digest.hexdigest()}"
