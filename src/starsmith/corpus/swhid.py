"""Software Heritage identifiers (SWHID version 1) of contents, directories, revisions, releases and snapshots.

Each identifier is the SHA-1 of a manifest. For the first four the manifests are Git's objects (blob, tree,
commit, tag); a snapshot's is Software Heritage's own. Identifiers are passed as 40 hex digits, the part of
`swh:1:cnt:...` that The Stack v2's columns hold; `swhid` and `parse_swhid` convert. The format is that of the
SWHID specification (ISO/IEC 18670); the tests hold every function to `swh.model`, which is not imported here
because of its licence.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cnt", "dir", "rev", "rel", "snp"]

MODE_FILE = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_LINK = 0o120000
MODE_DIRECTORY = 0o040000
MODE_SUBMODULE = 0o160000

_SWHID = re.compile(r"swh:1:(cnt|dir|rev|rel|snp):([0-9a-f]{40})")
_HEX = re.compile(r"[0-9a-f]{40}")
_GIT_TYPES = {
    "content": b"blob",
    "directory": b"tree",
    "revision": b"commit",
    "release": b"tag",
    "snapshot": b"refs",
}


def swhid(kind: Kind, identifier: str) -> str:
    """The full form of 40 hex digits, e.g. `swh:1:cnt:` followed by them.

    Raises:
        ValueError: the identifier is not 40 lower-case hex digits.
    """
    if not _HEX.fullmatch(identifier):
        raise ValueError(f"{identifier!r} is not 40 lower-case hex digits")
    return f"swh:1:{kind}:{identifier}"


def parse_swhid(text: str) -> tuple[Kind, str]:
    """Splits a core SWHID into its kind and its 40 hex digits; qualifiers after ";" are ignored.

    Raises:
        ValueError: the text is not a SWHID of version 1.
    """
    match = _SWHID.fullmatch(text.split(";", 1)[0])
    if match is None:
        raise ValueError(f"{text!r} is not a SWHID such as swh:1:cnt: followed by 40 hex digits")
    return match[1], match[2]  # type: ignore[return-value]  # the expression admits the five kinds only


def content_id(data: bytes) -> str:
    """The sha1_git of a content: the hash of a Git blob with these bytes."""
    return _hash(b"blob", data)


def blob_id(data: bytes) -> str:
    """The plain SHA-1 of a content."""
    return hashlib.sha1(data).hexdigest()


class ContentHasher:
    """Both hashes of a content whose length is known beforehand, fed in pieces.

    Args:
        length_bytes: the length; it stands in the manifest, before the bytes.
    """

    def __init__(self, length_bytes: int) -> None:
        self._missing_bytes = length_bytes
        self._git = hashlib.sha1(b"blob %d\0" % length_bytes)
        self._plain = hashlib.sha1()

    def update(self, piece: bytes) -> None:
        """Takes the next bytes."""
        self._missing_bytes -= len(piece)
        self._git.update(piece)
        self._plain.update(piece)

    @property
    def complete(self) -> bool:
        """Whether exactly the announced number of bytes came."""
        return self._missing_bytes == 0

    def content_id(self) -> str:
        """The sha1_git.

        Raises:
            ValueError: more or fewer bytes came than announced.
        """
        self._check()
        return self._git.hexdigest()

    def blob_id(self) -> str:
        """The plain SHA-1; raises like `content_id`."""
        self._check()
        return self._plain.hexdigest()

    def _check(self) -> None:
        if not self.complete:
            raise ValueError(f"the content is {self._missing_bytes} bytes short of its announced length")


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    name: bytes
    mode: int
    """One of the `MODE_` constants; an old Git tree may hold others, and they are kept as they are."""
    target: str
    """40 hex digits of the content, directory or (for a submodule) revision."""


def directory_id(entries: Iterable[DirectoryEntry]) -> str:
    """The identifier of a directory from its entries in any order.

    Raises:
        ValueError: two entries have one name, or a name is empty or holds "/" or a NUL byte.
    """
    ordered = sorted(entries, key=_git_order)
    names = {entry.name for entry in ordered}
    if len(names) != len(ordered):
        raise ValueError("a directory has two entries of the same name")
    for name in names:
        if not name or b"/" in name or b"\0" in name:
            raise ValueError(f"{name!r} cannot be the name of a directory entry")
    manifest = b"".join(b"%o %s\0%s" % (e.mode, e.name, bytes.fromhex(e.target)) for e in ordered)
    return _hash(b"tree", manifest)


def _git_order(entry: DirectoryEntry) -> bytes:
    """Git compares a directory's name as if "/" followed it."""
    return entry.name + b"/" if entry.mode == MODE_DIRECTORY else entry.name


@dataclass(frozen=True, slots=True)
class _Leaf:
    mode: int
    target: str


class DirectoryTree:
    """Builds the identifier of a root directory from its files in any order, keeping names and hashes only.

    Paths are relative, with "/" between their components; bytes, or text that stands for its UTF-8 bytes.
    Directories come into being with what they hold; an empty one must be added.
    """

    def __init__(self) -> None:
        self._root: _Node = {}

    def add(self, path: str | bytes, mode: int, content_id: str) -> None:
        """Adds a file, a link (mode `MODE_LINK`, the content is its target) or a submodule.

        Raises:
            ValueError: the path is already taken, runs through a file, or is not a plain relative path.
        """
        *parents, name = _components(path)
        folder = self._folder(parents)
        if name in folder:
            raise ValueError(f"{path!r} is already in the tree")
        folder[name] = _Leaf(mode, content_id)

    def add_directory(self, path: str | bytes) -> None:
        """Adds a directory, which may stay empty; one that exists already is left as it is. Raises like `add`."""
        self._folder(_components(path))

    def get(self, path: str | bytes) -> tuple[int, str] | None:
        """Mode and content id of what `add` put at a path; None for a directory or nothing."""
        node: _Node | _Leaf | None = self._root
        for component in _components(path):
            if not isinstance(node, dict):
                return None
            node = node.get(component)
        return (node.mode, node.target) if isinstance(node, _Leaf) else None

    def accepts(self, path: str | bytes) -> bool:
        """Whether `add` would take this path."""
        try:
            components = _components(path)
        except ValueError:
            return False
        node: _Node | _Leaf | None = self._root
        for component in components:
            if not isinstance(node, dict):
                return False
            node = node.get(component)
            if node is None:
                return True
        return False

    def directory_id(self) -> str:
        """The identifier of the root as it stands."""
        # Post-order without recursion: a hostile path may be thousands of components deep.
        finished: dict[int, str] = {}
        pending: list[tuple[_Node, bool]] = [(self._root, False)]
        while pending:
            folder, children_done = pending.pop()
            if children_done:
                finished[id(folder)] = directory_id(_entries(folder, finished))
            else:
                pending.append((folder, True))
                pending.extend((child, False) for child in folder.values() if isinstance(child, dict))
        return finished[id(self._root)]

    def _folder(self, components: list[bytes]) -> "_Node":
        """The folder at a path, made where it is missing; nothing is made when a file is in the way."""
        folder = self._root
        for position, component in enumerate(components):
            child = folder.get(component)
            if isinstance(child, _Leaf):
                raise ValueError(f"{b'/'.join(components[: position + 1])!r} is a file already")
            if child is None:
                for missing in components[position:]:
                    created: _Node = {}
                    folder[missing] = created
                    folder = created
                return folder
            folder = child
        return folder


_Node = dict[bytes, "_Node | _Leaf"]


def _entries(folder: _Node, finished: Mapping[int, str]) -> Iterable[DirectoryEntry]:
    for name, child in folder.items():
        if isinstance(child, _Leaf):
            yield DirectoryEntry(name, child.mode, child.target)
        else:
            yield DirectoryEntry(name, MODE_DIRECTORY, finished[id(child)])


def _components(path: str | bytes) -> list[bytes]:
    raw = path.encode() if isinstance(path, str) else path
    components = raw.split(b"/")
    if b"\0" in raw or any(component in (b"", b".", b"..") for component in components):
        raise ValueError(f"{path!r} is not a plain relative path")
    return components


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time as Git writes it: seconds since 1970 (may be negative), and the zone's bytes as they stand."""

    seconds: int
    offset: bytes
    """`+HHMM` or `-HHMM`; kept as bytes because `-0000` and malformed zones exist and are hashed."""
    microseconds: int = 0

    def manifest(self) -> bytes:
        """The form inside a commit or tag."""
        if self.microseconds:
            fraction = b"%d.%06d" % (self.seconds, self.microseconds)
            return fraction.rstrip(b"0") + b" " + self.offset
        return b"%d %s" % (self.seconds, self.offset)


@dataclass(frozen=True, slots=True)
class Signature:
    """Who, and when if it is known."""

    fullname: bytes
    stamp: Stamp | None = None

    def manifest(self) -> bytes:
        """The form inside a commit or tag."""
        return self.fullname if self.stamp is None else self.fullname + b" " + self.stamp.manifest()


@dataclass(frozen=True, slots=True)
class Revision:
    directory: str
    message: bytes | None
    author: Signature | None
    committer: Signature | None
    parents: tuple[str, ...] = ()
    extra_headers: tuple[tuple[bytes, bytes], ...] = ()
    """In their order, e.g. `encoding`, `mergetag`, `gpgsig`."""


def revision_id(revision: Revision) -> str:
    """The identifier of a revision: the hash of a Git commit."""
    headers = [(b"tree", revision.directory.encode())]
    headers += [(b"parent", parent.encode()) for parent in revision.parents]
    if revision.author is not None:
        headers.append((b"author", revision.author.manifest()))
    if revision.committer is not None:
        headers.append((b"committer", revision.committer.manifest()))
    return _hash(b"commit", _headers_and_message([*headers, *revision.extra_headers], revision.message))


@dataclass(frozen=True, slots=True)
class Release:
    name: bytes
    target: str
    message: bytes | None
    target_type: Literal["content", "directory", "revision", "release", "snapshot"] = "revision"
    author: Signature | None = None


def release_id(release: Release) -> str:
    """The identifier of a release: the hash of a Git tag object."""
    headers = [
        (b"object", release.target.encode()),
        (b"type", _GIT_TYPES[release.target_type]),
        (b"tag", release.name),
    ]
    if release.author is not None:
        headers.append((b"tagger", release.author.manifest()))
    return _hash(b"tag", _headers_and_message(headers, release.message))


@dataclass(frozen=True, slots=True)
class Branch:
    target_type: Literal["content", "directory", "revision", "release", "snapshot", "alias", "dangling"]
    target: str = ""
    """40 hex digits; for an alias the other branch's name; for a dangling branch empty."""


def snapshot_id(branches: Mapping[bytes, Branch]) -> str:
    """The identifier of a snapshot: of all branches by name, aliases such as HEAD included.

    Raises:
        ValueError: an alias names itself or a branch that is not there.
    """
    parts = []
    for name, branch in sorted(branches.items()):
        if branch.target_type == "alias":
            target = branch.target.encode("utf-8", "surrogateescape")
            if target == name or target not in branches:
                raise ValueError(f"the alias {name!r} names {target!r}, which is not another branch")
        elif branch.target_type == "dangling":
            target = b""
        else:
            target = bytes.fromhex(branch.target)
        parts.append(b"%s %s\0%d:%s" % (branch.target_type.encode(), name, len(target), target))
    return _hash(b"snapshot", b"".join(parts))


def _headers_and_message(headers: Iterable[tuple[bytes, bytes]], message: bytes | None) -> bytes:
    # A value of several lines continues on lines that start with one space.
    lines = [key + b" " + value.replace(b"\n", b"\n ") + b"\n" for key, value in headers]
    return b"".join(lines) + (b"" if message is None else b"\n" + message)


def _hash(kind: bytes, manifest: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(manifest)) + manifest).hexdigest()
