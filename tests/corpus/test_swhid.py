"""Every identifier equals that of swh.model, Software Heritage's own implementation."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swh.model import from_disk, model
from swh.model.swhids import CoreSWHID

from starsmith.corpus import swhid
from starsmith.corpus.swhid import Branch, DirectoryEntry, Release, Revision, Signature, Stamp

BOUNDED = settings(max_examples=50, deadline=None)

hashes = st.binary(min_size=20, max_size=20)
names = st.binary(min_size=1, max_size=6).filter(lambda n: b"/" not in n and b"\0" not in n)
offsets = st.sampled_from([b"+0000", b"-0000", b"+0530", b"-0330", b"+1400", b"+051800", b"-1"])
stamps = st.builds(
    Stamp, st.integers(-(2**31), 2**33), offsets, st.sampled_from([0, 0, 1, 500_000, 999_999, 120_000])
)
people = st.builds(Signature, st.binary(max_size=20).filter(lambda n: b"\n" not in n), st.none() | stamps)
messages = st.none() | st.binary(max_size=40)


def as_person(signature: Signature | None) -> model.Person | None:
    return None if signature is None else model.Person.from_fullname(signature.fullname)


def as_date(signature: Signature | None) -> model.TimestampWithTimezone | None:
    if signature is None or signature.stamp is None:
        return None
    stamp = signature.stamp
    return model.TimestampWithTimezone(
        timestamp=model.Timestamp(seconds=stamp.seconds, microseconds=stamp.microseconds),
        offset_bytes=stamp.offset,
    )


@BOUNDED
@given(st.binary(max_size=2000))
def test_content(data: bytes) -> None:
    theirs = model.Content.from_data(data)
    assert swhid.content_id(data) == theirs.sha1_git.hex()
    assert swhid.blob_id(data) == theirs.sha1.hex()


@BOUNDED
@given(st.lists(st.binary(max_size=50), max_size=8))
def test_content_in_pieces(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    hasher = swhid.ContentHasher(len(data))
    for piece in pieces:
        hasher.update(piece)
    assert (hasher.content_id(), hasher.blob_id()) == (swhid.content_id(data), swhid.blob_id(data))


@pytest.mark.parametrize("length", [0, 2, 4])
def test_content_of_another_length_than_announced_has_no_identifier(length: int) -> None:
    hasher = swhid.ContentHasher(length)
    hasher.update(b"abc")
    assert not hasher.complete
    with pytest.raises(ValueError, match="announced length"):
        hasher.content_id()
    with pytest.raises(ValueError, match="announced length"):
        hasher.blob_id()


ENTRY_TYPES = {0o100644: "file", 0o100755: "file", 0o120000: "file", 0o040000: "dir", 0o160000: "rev"}


@BOUNDED
@given(st.dictionaries(names, st.tuples(st.sampled_from(sorted(ENTRY_TYPES)), hashes), max_size=12))
def test_directory(entries: dict[bytes, tuple[int, bytes]]) -> None:
    ours = swhid.directory_id(DirectoryEntry(n, m, t.hex()) for n, (m, t) in entries.items())
    theirs = model.Directory(
        entries=tuple(
            model.DirectoryEntry(name=n, type=ENTRY_TYPES[m], target=t, perms=m) for n, (m, t) in entries.items()
        )
    )
    assert ours == theirs.id.hex()


def test_git_order_puts_a_folder_after_a_file_that_continues_its_name() -> None:
    # As bytes b"a" < b"a.b"; Git compares b"a/" with b"a.b".
    target = "00" * 20
    entries = [
        DirectoryEntry(b"a", swhid.MODE_DIRECTORY, target),
        DirectoryEntry(b"a.b", swhid.MODE_FILE, target),
    ]
    raw = b"100644 a.b\0" + bytes(20) + b"40000 a\0" + bytes(20)
    expected = hashlib.sha1(b"tree %d\0" % len(raw) + raw).hexdigest()
    assert swhid.directory_id(entries) == expected == swhid.directory_id(reversed(entries))


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b"])
def test_directory_refuses_impossible_names(name: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        swhid.directory_id([DirectoryEntry(name, swhid.MODE_FILE, "00" * 20)])


def test_directory_refuses_two_entries_of_one_name() -> None:
    with pytest.raises(ValueError, match="same name"):
        swhid.directory_id([DirectoryEntry(b"a", mode, "00" * 20) for mode in (0o100644, 0o40000)])


file_names = st.sampled_from(["a", "a.b", "a-b", "b", "ü", "z z", "A", "lib"])


@BOUNDED
@given(
    files=st.dictionaries(
        st.lists(file_names, min_size=1, max_size=4).map("/".join),
        st.tuples(st.binary(max_size=5), st.booleans()),
        max_size=12,
    ),
    empty=st.lists(st.lists(file_names, min_size=1, max_size=2).map("/".join), max_size=2),
    order=st.randoms(use_true_random=False),
)
def test_tree_equals_a_folder_on_disk(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[bytes, bool]], empty: list[str], order: object
) -> None:
    root = tmp_path_factory.mktemp("tree")
    additions = []
    for path, (data, executable) in files.items():
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        except OSError:  # the name of a folder is taken by a file, or the reverse
            continue
        (root / path).chmod(0o755 if executable else 0o644)
        mode = swhid.MODE_EXECUTABLE if executable else swhid.MODE_FILE
        additions.append((path, mode, swhid.content_id(data)))
    for path in empty:
        if not (root / path).exists() and not any(p.is_file() for p in (root / path).parents):
            (root / path).mkdir(parents=True)
    order.shuffle(additions)  # type: ignore[attr-defined]
    tree = swhid.DirectoryTree()
    for folder in (p for p in root.rglob("*") if p.is_dir()):
        tree.add_directory(folder.relative_to(root).as_posix())
    for path, mode, identifier in additions:
        assert tree.accepts(path)
        tree.add(path, mode, identifier)
        assert not tree.accepts(path)
        assert tree.get(path) == (mode, identifier)
    theirs = from_disk.Directory.from_disk(path=bytes(root), max_content_length=None)
    assert tree.directory_id() == theirs.hash.hex()


def test_tree_of_thousands_of_levels_needs_no_recursion() -> None:
    tree = swhid.DirectoryTree()
    tree.add("/".join(["d"] * 5000 + ["f"]), swhid.MODE_FILE, swhid.content_id(b""))
    assert len(tree.directory_id()) == 40


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", "./a", "a/../b", "..", "a\0b"])
def test_tree_refuses_paths_that_are_not_plain(path: str) -> None:
    tree = swhid.DirectoryTree()
    assert not tree.accepts(path)
    with pytest.raises(ValueError, match="not a plain relative path"):
        tree.add(path, swhid.MODE_FILE, "00" * 20)


def test_tree_refuses_a_path_through_a_file_and_a_file_over_a_folder() -> None:
    tree = swhid.DirectoryTree()
    tree.add("a/b", swhid.MODE_FILE, "00" * 20)
    before = tree.directory_id()
    for path in ("a/b/c/d", "a", "a/b"):
        assert not tree.accepts(path)
        with pytest.raises(ValueError, match="already"):
            tree.add(path, swhid.MODE_FILE, "00" * 20)
    with pytest.raises(ValueError, match="a file already"):
        tree.add_directory("a/b")
    assert tree.directory_id() == before
    assert tree.get("a") is None
    assert tree.get("a/b/c") is None


headers = st.lists(
    st.tuples(
        st.sampled_from([b"encoding", b"gpgsig", b"mergetag", b"HG:extra"]),
        st.binary(max_size=30),
    ),
    max_size=3,
)


@BOUNDED
@given(hashes, st.lists(hashes, max_size=3), st.none() | people, st.none() | people, headers, messages)
def test_revision(
    directory: bytes,
    parents: list[bytes],
    author: Signature | None,
    committer: Signature | None,
    extra: list[tuple[bytes, bytes]],
    message: bytes | None,
) -> None:
    if author is None:
        committer = None  # swh.model refuses a committer without an author's date and the reverse
    ours = Revision(directory.hex(), message, author, committer, tuple(p.hex() for p in parents), tuple(extra))
    theirs = model.Revision(
        directory=directory,
        message=message,
        author=as_person(author),
        date=as_date(author),
        committer=as_person(committer),
        committer_date=as_date(committer),
        parents=tuple(parents),
        extra_headers=tuple(extra),
        type=model.RevisionType.GIT,
        synthetic=False,
    )
    assert swhid.revision_id(ours) == theirs.id.hex()


@BOUNDED
@given(
    st.binary(max_size=10).filter(lambda n: b"\n" not in n),
    hashes,
    messages,
    st.none() | people,
    st.sampled_from(["content", "directory", "revision", "release", "snapshot"]),
)
def test_release(name: bytes, target: bytes, message: bytes | None, author: Signature | None, kind: str) -> None:
    ours = Release(name, target.hex(), message, kind, author)  # type: ignore[arg-type]
    theirs = model.Release(
        name=name,
        target=target,
        target_type=model.ReleaseTargetType(kind),
        message=message,
        author=as_person(author),
        date=as_date(author),
        synthetic=False,
    )
    assert swhid.release_id(ours) == theirs.id.hex()


@BOUNDED
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=8),
        st.tuples(
            st.sampled_from(["content", "directory", "revision", "release", "snapshot", "dangling"]), hashes
        ),
        max_size=6,
    )
)
def test_snapshot(branches: dict[bytes, tuple[str, bytes]]) -> None:
    ours: dict[bytes, Branch] = {}
    theirs: dict[bytes, model.SnapshotBranch | None] = {}
    for name, (kind, target) in branches.items():
        if kind == "dangling":
            ours[name], theirs[name] = Branch("dangling"), None
        else:
            ours[name] = Branch(kind, target.hex())  # type: ignore[arg-type]
            theirs[name] = model.SnapshotBranch(target=target, target_type=model.SnapshotTargetType(kind))
    if branches and b"HEAD" not in branches:
        first = min(branches)
        ours[b"HEAD"] = Branch("alias", first.decode("utf-8", "surrogateescape"))
        theirs[b"HEAD"] = model.SnapshotBranch(target=first, target_type=model.SnapshotTargetType.ALIAS)
    assert swhid.snapshot_id(ours) == model.Snapshot(branches=theirs).id.hex()


@pytest.mark.parametrize("target", ["HEAD", "absent"])
def test_snapshot_refuses_an_alias_that_leads_nowhere(target: str) -> None:
    with pytest.raises(ValueError, match="not another branch"):
        swhid.snapshot_id({b"HEAD": Branch("alias", target)})


@BOUNDED
@given(st.sampled_from(["cnt", "dir", "rev", "rel", "snp"]), hashes)
def test_full_form(kind: str, identifier: bytes) -> None:
    text = swhid.swhid(kind, identifier.hex())  # type: ignore[arg-type]
    assert str(CoreSWHID.from_string(text)) == text
    assert swhid.parse_swhid(text) == (kind, identifier.hex())
    assert swhid.parse_swhid(text + ";path=/a.py") == (kind, identifier.hex())


@pytest.mark.parametrize("text", ["", "swh:2:cnt:" + "0" * 40, "swh:1:abc:" + "0" * 40, "swh:1:cnt:" + "0" * 39])
def test_what_is_not_a_swhid(text: str) -> None:
    with pytest.raises(ValueError, match="not a SWHID"):
        swhid.parse_swhid(text)


def test_full_form_of_nonsense() -> None:
    with pytest.raises(ValueError, match="40 lower-case hex digits"):
        swhid.swhid("cnt", "xyz")


def test_real_commit_of_git() -> None:
    """A commit with a signature, hashed by Git itself (its object is in the test, its id computed by hashlib)."""
    signature = Signature(b"A U Thor <a@example.org>", Stamp(1_112_911_993, b"-0700"))
    gpg = b"-----BEGIN PGP SIGNATURE-----\n\niQEz\n=abcd\n-----END PGP SIGNATURE-----\n"
    raw = (
        b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
        b"author A U Thor <a@example.org> 1112911993 -0700\n"
        b"committer A U Thor <a@example.org> 1112911993 -0700\n"
        b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEz\n =abcd\n -----END PGP SIGNATURE-----\n \n"
        b"\nmessage\n"
    )
    ours = Revision(swhid.directory_id([]), b"message\n", signature, signature, extra_headers=((b"gpgsig", gpg),))
    assert swhid.revision_id(ours) == hashlib.sha1(b"commit %d\0" % len(raw) + raw).hexdigest()
