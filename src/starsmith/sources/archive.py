"""Reads tar and zip archives that strangers made: as a stream, defensively, and never onto the disk.

An archive is input from outside, so every way in which one can lie is an incident rather than an exception:
paths that leave the archive, links, devices, names that are not UTF-8, members that come twice, that are
longer than announced or break off, and archives that unpack to more than the limits allow. What was read
before an archive broke stands; the incident says what is missing. The same bytes give the same arrivals.

Decisions, and why:

* A file's first occurrence stands and later ones are duplicates: a stream cannot take back what it gave.
* A link is refused but its target's text goes into the directory's identifier, as in Git and in Software
  Heritage; so the identifier of an archive without other incidents is that of its unpacked folder. A hard
  link to a file read before counts there as that file.
* A top folder (`name-version/` of a source distribution, `package/` of an npm tarball) is named by the caller,
  who knows the convention; it is cut off each path as it passes, so that no second pass is needed.
* Formats are told by their first bytes, not by the file's name.

Formats: POSIX.1-2001 (pax) and GNU tar through `tarfile`'s header parser over our own counted decompression
(RFC 1952 gzip, bzip2, xz), and PKWARE's APPNOTE through `zipfile` (stored, deflated and bzip2 members).
"""

import bz2
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Incident, OversizedFile, SourceFile
from starsmith.errors import MachineError
from starsmith.recipe import Limits

PIECE_BYTES = 64 * 1024
HEADER_BYTES = 1024 * 1024
"""A tar header extension (a pax record, a long name) beyond this is an attack on memory."""
XZ_MEMORY_BYTES = 256 * 1024 * 1024
"""`xz -9` needs 65 MiB to unpack."""
RATIO_FLOOR_BYTES = 16 * 1024 * 1024
"""Below this unpacked size the ratio is not judged: tar's padding packs well, and so little does no harm."""

Arrived = SourceFile | OversizedFile | Incident
_MemberKind = Literal["file", "folder", "link", "hard link", "device", "sparse", "unknown"]


def read_archive(
    path: Path,
    *,
    limits: Limits,
    tree: swhid.DirectoryTree,
    is_top: Callable[[str], bool] = lambda component: False,
) -> Iterator[Arrived]:
    """Streams the files of an archive in the archive's own order; at most one member is held in memory.

    Args:
        path: a tar (plain, gzip, bzip2 or xz) or zip file.
        limits: what is refused; see `recipe.Limits`.
        tree: receives every file and directory read; its identifier is the root's once this is exhausted.
        is_top: whether a path's first component is the archive's top folder, which is cut off.

    Raises:
        MachineError: the archive cannot be opened at all.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise MachineError(f"cannot open the archive {path}: {error.strerror}") from error
    with file:
        budget = _Budget(limits, packed_bytes=path.stat().st_size)
        gate = _Gate(limits, tree, is_top)
        try:
            for number, member in enumerate(_members(file, limits, budget), start=1):
                if number > limits.archive_members:
                    raise _StopError("too_many", f"more than {limits.archive_members:,} members")
                yield from gate.read(member)
        except _StopError as stop:
            yield Incident(path="/", kind=stop.kind, detail=stop.detail)


class _StopError(Exception):
    """The archive cannot be read any further."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class _MemberError(_StopError):
    """One member cannot be read; the others can."""


@dataclass(frozen=True, slots=True)
class _Member:
    raw_name: bytes
    kind: _MemberKind
    length_bytes: int
    executable: bool
    link_target: bytes
    pieces: Callable[[], Iterator[bytes]]
    """The bytes; to be called at most once, before the next member is asked for."""


class _Budget:
    """Counts unpacked bytes and stops the reading when they are out of proportion."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self._unpacked_bytes = 0
        self._packed_bytes = packed_bytes
        self._limits = limits

    def spend(self, length_bytes: int) -> None:
        self._unpacked_bytes += length_bytes
        if self._unpacked_bytes > self._limits.archive_bytes:
            raise _StopError("bomb", f"unpacks to more than {self._limits.archive_bytes:,} bytes")
        allowed = max(self._packed_bytes * self._limits.archive_ratio, RATIO_FLOOR_BYTES)
        if self._unpacked_bytes > allowed:
            raise _StopError(
                "bomb",
                f"{self._packed_bytes:,} packed bytes unpack to more than {allowed:,} "
                f"(archive_ratio {self._limits.archive_ratio})",
            )


class _Gate:
    """Decides about one member after the other."""

    def __init__(self, limits: Limits, tree: swhid.DirectoryTree, is_top: Callable[[str], bool]) -> None:
        self._limits = limits
        self._tree = tree
        self._is_top = is_top

    def read(self, member: _Member) -> Iterator[Arrived]:
        try:
            path = self._inner_path(member)
            if path is None:
                return
            if member.kind == "folder":
                self._add_folder(path)
                return
            if not self._tree.accepts(path):
                raise _MemberError("duplicate", "the path is taken by an earlier member")
            if member.kind != "file":
                self._refuse(member, path)
            yield self._file(member, path)
        except _MemberError as refusal:
            yield Incident(
                path=printable(member.raw_name),
                kind=refusal.kind,
                detail=refusal.detail,
                length_bytes=member.length_bytes if member.kind == "file" else None,
            )

    def _inner_path(self, member: _Member) -> str | None:
        """The path inside the top folder; None for the top folder (or the root) itself."""
        components = plain_components(member.raw_name, limits=self._limits)
        if components and self._is_top(components[0]) and (len(components) > 1 or member.kind == "folder"):
            del components[0]
        if not components:
            if member.kind == "folder":
                return None
            raise _MemberError("traversal", "the name is empty")
        return "/".join(components)

    def _add_folder(self, path: str) -> None:
        try:
            self._tree.add_directory(path)
        except ValueError:
            raise _MemberError("duplicate", "the path is taken by an earlier file") from None

    def _refuse(self, member: _Member, path: str) -> None:
        if member.kind == "link":
            self._tree.add(path, swhid.MODE_LINK, swhid.content_id(member.link_target))
            raise _MemberError("link", f"links to {printable(member.link_target)}")
        if member.kind == "hard link":
            self._add_hard_link(member, path)
            raise _MemberError("link", f"hard link to {printable(member.link_target)}")
        if member.kind == "sparse":
            raise _MemberError("bomb", "a sparse member may unpack to any size")
        raise _MemberError("device", f"not a file or a folder ({member.kind})")

    def _add_hard_link(self, member: _Member, path: str) -> None:
        try:
            components = plain_components(member.link_target, limits=self._limits)
        except _MemberError:
            return
        if len(components) > 1 and self._is_top(components[0]):
            del components[0]
        original = self._tree.get("/".join(components)) if components else None
        if original is not None:
            self._tree.add(path, *original)

    def _file(self, member: _Member, path: str) -> SourceFile | OversizedFile:
        mode = swhid.MODE_EXECUTABLE if member.executable else swhid.MODE_FILE
        if member.length_bytes <= self._limits.file_bytes:
            data = b"".join(member.pieces())
            self._tree.add(path, mode, swhid.content_id(data))
            return SourceFile(path="/" + path, data=data)
        hasher = swhid.ContentHasher(member.length_bytes)
        for piece in member.pieces():
            hasher.update(piece)
        if not hasher.complete:
            raise _MemberError("corrupt", "the member is shorter than its header says")
        self._tree.add(path, mode, hasher.content_id())
        return OversizedFile(
            path="/" + path,
            content_id=hasher.content_id(),
            blob_id=hasher.blob_id(),
            length_bytes=member.length_bytes,
        )


def plain_components(raw_name: bytes, *, limits: Limits) -> list[str]:
    """The components of a member's name, without "." and empty ones.

    Raises:
        _MemberError: the name is not UTF-8, is too long, is absolute, or climbs out.
    """
    if len(raw_name) > limits.path_bytes:
        raise _MemberError("path", f"the name has {len(raw_name):,} bytes; allowed are {limits.path_bytes:,}")
    try:
        name = raw_name.decode()
    except UnicodeDecodeError:
        raise _MemberError("encoding", "the name is not UTF-8") from None
    # "\" separates on Windows, where such an archive may have been aimed at; so it counts for refusals only.
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        raise _MemberError("traversal", "the path is absolute")
    if ".." in re.split(r"[\\/]", name):
        raise _MemberError("traversal", 'the path climbs with ".."')
    if "\0" in name:
        raise _MemberError("traversal", "the path holds a NUL")
    return [component for component in name.split("/") if component not in ("", ".")]


def printable(raw_name: bytes) -> str:
    """A name for a report: UTF-8 with everything else and control characters as backslash escapes."""
    text = raw_name.decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= 1000 else shown[:1000] + "..."


def _members(file: IO[bytes], limits: Limits, budget: _Budget) -> Iterator[_Member]:
    start = file.read(6)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(file, limits, budget)
    for magic, codec in _CODECS.items():
        if start.startswith(magic):
            return _tar_members(_Forward(_unpack(file, codec), budget))
    return _tar_members(_Forward(iter(lambda: file.read(PIECE_BYTES), b""), budget))


# --- compressed streams


class _Decompressor(Protocol):
    """What `bz2` and `lzma` offer: one stream, fed and emptied in bounded pieces."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _GzipDecompressor:
    """`zlib`'s object in the same form. It checks the stream's CRC and length itself."""

    def __init__(self) -> None:
        self._engine = zlib.decompressobj(wbits=31)
        self._tail = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        piece = self._engine.decompress(self._tail + data, max_length)
        self._tail = self._engine.unconsumed_tail
        self.needs_input = not self._tail and len(piece) < max_length
        return piece


_CODECS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _GzipDecompressor,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES),
}


def _unpack(file: IO[bytes], codec: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """The unpacked bytes of concatenated streams, in pieces of at most `PIECE_BYTES`."""
    waiting = file.read(PIECE_BYTES)
    while waiting:
        engine = codec()
        while not engine.eof:
            if engine.needs_input and not waiting:
                waiting = file.read(PIECE_BYTES)
                if not waiting:
                    raise _StopError("truncated", "the compressed stream breaks off")
            data, waiting = (waiting, b"") if engine.needs_input else (b"", waiting)
            try:
                piece = engine.decompress(data, PIECE_BYTES)
            except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
                raise _StopError("corrupt", f"the compressed stream is damaged: {error}") from None
            if piece:
                yield piece
        # Streams may follow one another, and tools pad the end with NUL bytes.
        waiting = engine.unused_data.lstrip(b"\0")
        while not waiting and (more := file.read(PIECE_BYTES)):
            waiting = more.lstrip(b"\0")


class _Forward:
    """A counted stream that only moves forward, in the form that `tarfile` reads headers from."""

    def __init__(self, pieces: Iterator[bytes], budget: _Budget) -> None:
        self._pieces = pieces
        self._budget = budget
        self._buffer = b""
        self._position = 0
        self.last_read = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise _StopError("corrupt", "a header points backwards")
        while self._position < position:
            if not self._take(min(position - self._position, PIECE_BYTES)):
                return

    def read(self, length: int) -> bytes:
        if not 0 <= length <= HEADER_BYTES:
            raise _StopError("bomb", f"a header extension of {length:,} bytes")
        parts = []
        while length and (part := self._take(length)):
            parts.append(part)
            length -= len(part)
        self.last_read = b"".join(parts)
        return self.last_read

    def drain(self) -> None:
        """Reads to the end, so that the compressed stream's own checksum is checked."""
        while self._take(PIECE_BYTES):
            pass

    def _take(self, length: int) -> bytes:
        if not self._buffer:
            self._buffer = next(self._pieces, b"")
            self._budget.spend(len(self._buffer))
        part, self._buffer = self._buffer[:length], self._buffer[length:]
        self._position += len(part)
        return part


# --- tar


def _tar_members(stream: _Forward) -> Iterator[_Member]:
    archive: tarfile.TarFile | None = None
    while True:
        try:
            if archive is None:
                archive = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
            header = archive.next()
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header
        except _StopError:
            raise
        except Exception as error:
            # tarfile's parser raises a dozen types on hostile headers, RecursionError among them.
            whole = stream.last_read and len(stream.last_read) % tarfile.BLOCKSIZE == 0
            kind = "corrupt" if whole else "truncated"
            raise _StopError(kind, f"the tar headers are damaged: {error}") from None
        if header is None:
            break
        if header.size < 0:
            raise _StopError("corrupt", "a header announces a negative length")
        yield _Member(
            raw_name=header.name.encode("utf-8", "surrogateescape"),
            kind=_tar_kind(header),
            length_bytes=header.size,
            executable=bool(header.mode & 0o111),
            link_target=header.linkname.encode("utf-8", "surrogateescape"),
            pieces=lambda size=header.size: _tar_pieces(stream, size),  # type: ignore[misc]
        )
    if stream.last_read.count(0) != tarfile.BLOCKSIZE:
        if len(stream.last_read) < tarfile.BLOCKSIZE:
            raise _StopError("truncated", "the archive ends without its end mark")
        raise _StopError("corrupt", "a tar header has a wrong checksum; what follows it is lost")
    stream.drain()


def _tar_kind(header: tarfile.TarInfo) -> _MemberKind:
    if header.issparse():
        return "sparse"
    if header.isreg():
        return "file"
    if header.isdir():
        return "folder"
    if header.issym():
        return "link"
    if header.islnk():
        return "hard link"
    return "device" if header.isdev() else "unknown"


def _tar_pieces(stream: _Forward, length_bytes: int) -> Iterator[bytes]:
    while length_bytes:
        piece = stream.read(min(length_bytes, PIECE_BYTES))
        if not piece:
            raise _StopError("truncated", f"the last member breaks off {length_bytes:,} bytes before its end")
        length_bytes -= len(piece)
        yield piece


# --- zip

_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_ZIP_UTF8 = 0x800
_ZIP_ENCRYPTED = 0x1
_ZIP_ENTRY_BYTES = 256
"""A generous average for an entry of the central directory: 46 bytes, a path, times and owners."""


def _zip_members(file: IO[bytes], limits: Limits, budget: _Budget) -> Iterator[_Member]:
    # zipfile reads the whole directory into memory before anyone can count its entries.
    if _zip_directory_bytes(file) > limits.archive_members * _ZIP_ENTRY_BYTES:
        raise _StopError("too_many", f"a directory for more than {limits.archive_members:,} members")
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # hostile directories raise more than BadZipFile (struct.error, ValueError...)
        raise _StopError("corrupt", f"the zip directory is damaged: {error}") from None
    with archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            is_link = stat.S_ISLNK(mode)
            raw_name = entry.orig_filename.encode("utf-8" if entry.flag_bits & _ZIP_UTF8 else "cp437")
            yield _Member(
                raw_name=raw_name,
                kind="folder" if raw_name.endswith(b"/") else "link" if is_link else "file",
                length_bytes=entry.file_size,
                executable=bool(mode & 0o111),
                link_target=_zip_link_target(archive, entry, limits, budget) if is_link else b"",
                pieces=lambda entry=entry: _zip_pieces(archive, entry, budget),  # type: ignore[misc]
            )


def _zip_link_target(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: Limits, budget: _Budget) -> bytes:
    if entry.file_size > limits.path_bytes:
        return b""
    try:
        return b"".join(_zip_pieces(archive, entry, budget))
    except _MemberError:
        return b""


def _zip_pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: _Budget) -> Iterator[bytes]:
    if entry.flag_bits & _ZIP_ENCRYPTED:
        raise _MemberError("encrypted", "the member is encrypted")
    if entry.compress_type not in _ZIP_METHODS:
        raise _MemberError("unsupported", f"compression method {entry.compress_type}")
    length_bytes = entry.file_size
    try:
        with archive.open(entry) as member:
            while piece := member.read(PIECE_BYTES):
                budget.spend(len(piece))
                length_bytes -= len(piece)
                yield piece
    except _StopError:
        raise
    except Exception as error:  # zlib.error, BadZipFile, EOFError, OSError, struct.error, NotImplementedError
        raise _MemberError("corrupt", f"the member is damaged: {error}") from None
    if length_bytes:
        raise _MemberError("corrupt", "the member is shorter than its header says")


def _zip_directory_bytes(file: IO[bytes]) -> int:
    """The announced size of the central directory, that of zip64 included; 0 when none is found."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))  # the end record and its longest comment
    tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    announced = 0
    if found >= 0 and len(tail) >= found + 22:
        announced = struct.unpack_from("<L", tail, found + 12)[0]
        if found >= 20 and tail[found - 20 : found - 16] == b"PK\x06\x07":
            (record,) = struct.unpack_from("<Q", tail, found - 12)
            if record + 56 <= size:
                file.seek(record)
                announced = struct.unpack_from("<Q", file.read(56), 40)[0]
    file.seek(0)
    return int(announced)
