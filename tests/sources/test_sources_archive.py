"""Archives as strangers make them: each lie is one incident, and what is sound is read."""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from swh.model import from_disk

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Incident, OversizedFile, SourceFile
from starsmith.errors import MachineError
from starsmith.recipe import Limits
from starsmith.sources.archive import PIECE_BYTES, Arrived, printable, read_archive

LIMITS = Limits()


def read(
    path: Path, limits: Limits = LIMITS, is_top: Callable[[str], bool] = lambda name: False
) -> tuple[list[Arrived], swhid.DirectoryTree]:
    tree = swhid.DirectoryTree()
    return list(read_archive(path, limits=limits, tree=tree, is_top=is_top)), tree


def files(arrived: list[Arrived]) -> dict[str, bytes]:
    return {a.path: a.data for a in arrived if isinstance(a, SourceFile)}


def incidents(arrived: list[Arrived]) -> list[tuple[str, str]]:
    return [(a.path, a.kind) for a in arrived if isinstance(a, Incident)]


Entry = tuple[str, bytes] | tarfile.TarInfo


def tar_bytes(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as out:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                out.addfile(entry)
            else:
                header = tarfile.TarInfo(entry[0])
                header.size = len(entry[1])
                out.addfile(header, io.BytesIO(entry[1]))
    return buffer.getvalue()


def special(name: str, type_: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = type_, target
    return header


def zip_bytes(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, data in entries:
            out.writestr(name, data, method)
    return buffer.getvalue()


def saved(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return path


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": lambda data: bz2.compress(data, 1),
    "tar.xz": lambda data: lzma.compress(data, preset=0),
}
SOUND = [("p-1/a.py", b"print(1)\n"), ("p-1/lib/b.c", b"int b;\n" * 20_000), ("p-1/lib/empty", b"")]


@pytest.mark.parametrize("kind", [*PACKERS, "zip"])
def test_sound_archives_of_every_kind(tmp_path: Path, kind: str) -> None:
    data = zip_bytes(*SOUND) if kind == "zip" else PACKERS[kind](tar_bytes(*SOUND))
    arrived, tree = read(saved(tmp_path, data), is_top=lambda name: name == "p-1")
    assert files(arrived) == {name.removeprefix("p-1"): content for name, content in SOUND}
    assert incidents(arrived) == []
    expected = swhid.DirectoryTree()
    for name, content in SOUND:
        expected.add(name.removeprefix("p-1/"), swhid.MODE_FILE, swhid.content_id(content))
    assert tree.directory_id() == expected.directory_id()


@pytest.mark.parametrize("packer", ["tar.gz", "tar.bz2", "tar.xz"])
def test_concatenated_and_padded_streams_are_one(tmp_path: Path, packer: str) -> None:
    pack, tar = PACKERS[packer], tar_bytes(*SOUND)
    data = pack(tar[:700]) + pack(tar[700:]) + bytes(PIECE_BYTES + 3)
    arrived, _ = read(saved(tmp_path, data))
    assert len(files(arrived)) == 3
    assert incidents(arrived) == []


def test_identifier_equals_that_of_the_unpacked_folder(tmp_path: Path) -> None:
    executable = tarfile.TarInfo("bin/run")
    executable.mode = 0o755
    data = tar_bytes(
        ("a", b"1"), executable, special("void/deep", tarfile.DIRTYPE), special("l", tarfile.SYMTYPE, "a"),
        special("bin/hard", tarfile.LNKTYPE, "./a"), ("ü/é", b"2"),
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path / "out", filter="fully_trusted")
    arrived, tree = read(saved(tmp_path, data))
    theirs = from_disk.Directory.from_disk(path=bytes(tmp_path / "out"), max_content_length=None)
    assert tree.directory_id() == theirs.hash.hex()
    assert incidents(arrived) == [("l", "link"), ("bin/hard", "link")]


HOSTILE_NAMES = {
    "/etc/passwd": "traversal",
    "../out": "traversal",
    "a/../../out": "traversal",
    "a\\..\\b": "traversal",
    "\\share\\x": "traversal",
    "C:\\x": "traversal",
    "d:/x": "traversal",
    "n" * 5000: "path",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_that_leave_the_archive(tmp_path: Path, name: str, kind: str) -> None:
    make = zip_bytes if kind == "zip" else tar_bytes
    arrived, _ = read(saved(tmp_path, make(("before", b"1"), (name, b"evil"), ("after", b"2"))))
    assert files(arrived) == {"/before": b"1", "/after": b"2"}
    ((path, incident),) = incidents(arrived)
    assert incident == HOSTILE_NAMES[name]
    assert len(path) <= 1003


def test_links_and_devices(tmp_path: Path) -> None:
    data = tar_bytes(
        special("s", tarfile.SYMTYPE, "../../etc/passwd"), special("h", tarfile.LNKTYPE, "/etc/passwd"),
        special("c", tarfile.CHRTYPE), special("b", tarfile.BLKTYPE), special("f", tarfile.FIFOTYPE),
        special("x", b"Z"), ("ok", b"1"),
    )  # fmt: skip
    arrived, _ = read(saved(tmp_path, data))
    assert incidents(arrived) == [
        ("s", "link"), ("h", "link"), ("c", "device"), ("b", "device"), ("f", "device"), ("x", "device"),
    ]  # fmt: skip
    assert "../../etc/passwd" in next(a.detail for a in arrived if isinstance(a, Incident))
    assert files(arrived) == {"/ok": b"1"}


def test_a_file_below_a_link_does_not_follow_it(tmp_path: Path) -> None:
    arrived, _ = read(saved(tmp_path, tar_bytes(special("d", tarfile.SYMTYPE, "/etc"), ("d/passwd", b"evil"))))
    assert incidents(arrived) == [("d", "link"), ("d/passwd", "duplicate")]
    assert files(arrived) == {}


def test_zip_links(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("l")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    arrived, tree = read(saved(tmp_path, zip_bytes((link, b"a"), ("a", b"1"))))
    assert incidents(arrived) == [("l", "link")]
    assert tree.get("l") == (swhid.MODE_LINK, swhid.content_id(b"a"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_the_first_of_two_members_stands(tmp_path: Path, kind: str) -> None:
    make = zip_bytes if kind == "zip" else tar_bytes
    entries = [("a", b"1"), ("a", b"2"), ("./a", b"3"), ("b//c", b"4"), ("b", b"5"), ("a/d", b"6"), ("b/c", b"7")]
    arrived, _ = read(saved(tmp_path, make(*entries)))
    assert files(arrived) == {"/a": b"1", "/b/c": b"4"}
    assert [kind for _, kind in incidents(arrived)] == ["duplicate"] * 5


def test_folder_over_a_file(tmp_path: Path) -> None:
    arrived, _ = read(saved(tmp_path, tar_bytes(("a", b"1"), special("a/", tarfile.DIRTYPE))))
    assert incidents(arrived) == [("a", "duplicate")]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_are_not_utf8(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        data = tar_bytes((b"caf\xe9".decode("utf-8", "surrogateescape"), b"1"), format=tarfile.GNU_FORMAT)
    else:
        data = zip_bytes(("cafe", b"1")).replace(b"cafe", b"caf\xe9")
    arrived, _ = read(saved(tmp_path, data))
    assert incidents(arrived) == [("caf\\xe9", "encoding")]


def test_zip_names_in_utf8_without_the_flag(tmp_path: Path) -> None:
    data = zip_bytes(("xxcaf", b"1")).replace(b"xxcaf", "caf\u00e9".encode())
    arrived, _ = read(saved(tmp_path, data))
    assert files(arrived) == {"/café": b"1"}


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_huge_member_is_hashed_in_passing(tmp_path: Path, kind: str) -> None:
    huge = random.Random(1).randbytes(3 * PIECE_BYTES + 17)
    entries = [("big", huge), ("small", b"1")]
    data = zip_bytes(*entries) if kind == "zip" else gzip.compress(tar_bytes(*entries))
    arrived, tree = read(saved(tmp_path, data), Limits(file_bytes=1000))
    assert arrived == [
        OversizedFile(
            path="/big", content_id=swhid.content_id(huge), blob_id=swhid.blob_id(huge), length_bytes=len(huge)
        ),
        SourceFile(path="/small", data=b"1"),
    ]
    assert tree.get("big") == (swhid.MODE_FILE, swhid.content_id(huge))


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_bomb_stops_at_the_ratio(tmp_path: Path, kind: str) -> None:
    entries = [("first", b"1"), ("bomb", bytes(20 * 1024 * 1024)), ("after", b"2")]
    data = zip_bytes(*entries) if kind == "zip" else PACKERS[kind](tar_bytes(*entries))
    arrived, _ = read(saved(tmp_path, data))
    assert arrived[0] == SourceFile(path="/first", data=b"1")
    assert incidents(arrived) == [("/", "bomb")]
    assert "/after" not in files(arrived)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_stops_at_the_total(tmp_path: Path, kind: str) -> None:
    entries = [(f"f{n}", random.Random(n).randbytes(1000)) for n in range(20)]
    data = zip_bytes(*entries) if kind == "zip" else tar_bytes(*entries)
    arrived, _ = read(saved(tmp_path, data), Limits(archive_bytes=PIECE_BYTES if kind == "zip" else 100))
    if kind == "zip":
        assert incidents(arrived) == []
        arrived, _ = read(saved(tmp_path, data), Limits(archive_bytes=2500))
        assert len(files(arrived)) == 2
    assert incidents(arrived) == [("/", "bomb")]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_too_many_members(tmp_path: Path, kind: str) -> None:
    entries = [(f"f{n}", b"") for n in range(10)]
    data = zip_bytes(*entries) if kind == "zip" else tar_bytes(*entries)
    arrived, _ = read(saved(tmp_path, data), Limits(archive_members=4))
    assert len(files(arrived)) == 4
    assert incidents(arrived) == [("/", "too_many")]


def test_a_zip_directory_beyond_the_limit_is_not_loaded(tmp_path: Path) -> None:
    data = zip_bytes(*[("n" * 300 + str(n), b"") for n in range(10)])
    arrived, _ = read(saved(tmp_path, data), Limits(archive_members=4))
    assert files(arrived) == {}
    assert incidents(arrived) == [("/", "too_many")]


def test_a_header_extension_that_fills_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512 * 1024 * 1024
    data = tar_bytes(("a", b"1"))[:1024] + header.tobuf(tarfile.GNU_FORMAT) + b"x" * 4096
    arrived, _ = read(saved(tmp_path, data))
    assert files(arrived) == {"/a": b"1"}
    assert incidents(arrived) == [("/", "bomb")]


def test_extension_headers_without_end_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 13
    block = header.tobuf(tarfile.USTAR_FORMAT) + b"13 path=abcd\n".ljust(512, b"\0")
    arrived, _ = read(saved(tmp_path, block * 5000))
    assert incidents(arrived) == [("/", "corrupt")]


def test_a_sparse_member(tmp_path: Path) -> None:
    header = tarfile.TarInfo("holes")
    header.size = 1
    header.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": "9999999999",
                          "GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "1"}  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as out:
        out.addfile(header, io.BytesIO(b"1"))
        out.addfile(tarfile.TarInfo("after"))
    arrived, _ = read(saved(tmp_path, buffer.getvalue()))
    assert incidents(arrived) == [("holes", "bomb")]
    assert files(arrived) == {"/after": b""}


def test_a_compressed_stream_that_breaks_off(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(100_000)
    data = gzip.compress(tar_bytes(("a", noise), ("b", noise)))
    arrived, _ = read(saved(tmp_path, data[: len(data) * 3 // 4]))
    assert files(arrived) == {"/a": noise}
    assert incidents(arrived) == [("/", "truncated")]


@pytest.mark.parametrize(
    ("length", "kind", "count"),
    [(0, "truncated", 0), (100, "truncated", 0), (512, "truncated", 0), (600, "truncated", 0),
     (1024, "truncated", 1), (1300, "truncated", 1), (2048, "truncated", 2)],
)  # fmt: skip
def test_a_tar_cut_at_any_place(tmp_path: Path, length: int, kind: str, count: int) -> None:
    arrived, _ = read(saved(tmp_path, tar_bytes(("a", b"1" * 512), ("b", b"2" * 512))[:length]))
    assert len(files(arrived)) == count
    assert incidents(arrived) == [("/", kind)]


def test_a_wrong_header_checksum_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(("a", b"1"), ("b", b"2"), ("c", b"3")))
    data[1024 + 5] ^= 0xFF
    arrived, _ = read(saved(tmp_path, bytes(data)))
    assert files(arrived) == {"/a": b"1"}
    assert incidents(arrived) == [("/", "corrupt")]


@pytest.mark.parametrize("place", [-8, -4, 40])
def test_a_damaged_gzip(tmp_path: Path, place: int) -> None:
    noise = random.Random(1).randbytes(2 * PIECE_BYTES)
    data = bytearray(gzip.compress(tar_bytes(("a", noise), ("b", noise))))
    data[place] ^= 0xFF
    arrived, _ = read(saved(tmp_path, bytes(data)))
    assert incidents(arrived) == [("/", "corrupt")]
    # When only the stream's own checksum or length is wrong, what came before its last piece stands.
    assert list(files(arrived)) == (["/a"] if place < 0 else [])


def test_garbage_after_the_stream(tmp_path: Path) -> None:
    arrived, _ = read(saved(tmp_path, gzip.compress(tar_bytes(("a", b"1"))) + b"garbage"))
    assert files(arrived) == {"/a": b"1"}
    assert incidents(arrived) == [("/", "corrupt")]


def test_a_zip_member_with_a_wrong_checksum_does_not_take_the_others_down(tmp_path: Path) -> None:
    data = zip_bytes(("a", b"11111"), ("b", b"22222"), ("c", b"33333"), method=zipfile.ZIP_STORED)
    arrived, _ = read(saved(tmp_path, data.replace(b"22222", b"2222X")))
    assert files(arrived) == {"/a": b"11111", "/c": b"33333"}
    assert incidents(arrived) == [("b", "corrupt")]


def test_encrypted_and_unsupported_zip_members(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(("a", b"1"), ("b", b"2"), ("c", b"3")))
    central = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    data[central[0] + 8] |= 1
    struct.pack_into("<H", data, central[1] + 10, 14)
    arrived, _ = read(saved(tmp_path, bytes(data)))
    assert files(arrived) == {"/c": b"3"}
    assert incidents(arrived) == [("a", "encrypted"), ("b", "unsupported")]


@pytest.mark.parametrize("cut", [10, 60, -5])
def test_a_zip_that_breaks_off(tmp_path: Path, cut: int) -> None:
    arrived, _ = read(saved(tmp_path, zip_bytes(("a", b"1" * 100), ("b", b"2"))[:cut]))
    assert incidents(arrived) == [("/", "corrupt")]


@pytest.mark.parametrize("data", [b"<html>404</html>", b"\0" * 10, b"\x1f\x8b", b"PK\x03\x04", b"BZh9"])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    arrived, _ = read(saved(tmp_path, data))
    assert len(arrived) == 1
    assert incidents(arrived)[0][1] in ("corrupt", "truncated")


def test_an_empty_tar_is_sound(tmp_path: Path) -> None:
    assert read(saved(tmp_path, tar_bytes()))[0] == []


def test_an_absent_archive(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot open the archive"):
        read(tmp_path / "absent")


def test_only_the_named_top_folder_is_cut(tmp_path: Path) -> None:
    data = tar_bytes(special("p-1/", tarfile.DIRTYPE), ("p-1/a", b"1"), ("other/a", b"2"), ("p-1/p-1/a", b"3"))
    arrived, _ = read(saved(tmp_path, data), is_top=lambda name: name == "p-1")
    assert files(arrived) == {"/a": b"1", "/other/a": b"2", "/p-1/a": b"3"}


def test_printable_names_hold_no_control_characters() -> None:
    assert printable(b"a\x1b[31m\n\xff\xc3\xbc") == "a\\x1b[31m\\n\\xffü"


BASES = {
    "tar": tar_bytes(*SOUND[:1], special("l", tarfile.SYMTYPE, "a"), ("n" * 150, b"long")),
    "gzip": gzip.compress(tar_bytes(*SOUND[:1], ("b", b"2" * 3000)), mtime=0),
    "zip": zip_bytes(*SOUND[:1], ("b", b"2" * 3000)),
    "xz": lzma.compress(tar_bytes(*SOUND[:1])),
}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from(sorted(BASES)),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    cut=st.floats(0.1, 1),
)
def test_damage_of_any_kind_is_told_and_the_same_each_time(
    tmp_path: Path, base: str, changes: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(BASES[base])
    for place, value in changes:
        data[int(place * len(data))] = value
    path = saved(tmp_path, bytes(data[: int(cut * len(data)) or 1]))
    arrived, tree = read(path)
    again, tree_again = read(path)
    assert arrived == again
    assert tree.directory_id() == tree_again.directory_id()
    for arrival in arrived:
        assert not isinstance(arrival, SourceFile) or (
            arrival.path.startswith("/") and ".." not in arrival.path.split("/")
        )
