"""Git repositories, sound and damaged, built in the test."""

import datetime
import hashlib
import socket
import subprocess
import zlib
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import ObjectType
from swh.model import model

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Arrival, Incident, OversizedFile, Repository, SourceFile, Target
from starsmith.errors import InputError, MachineError
from starsmith.recipe import GitSource, Limits
from starsmith.sources import git
from starsmith.sources.urls import is_remote, repository_name, without_credentials

LIMITS = Limits()
AUTHOR = pygit2.Signature("A U Thor", "author@example.org", 1_700_000_000, 330)
COMMITTER = pygit2.Signature("C O Mitter", "committer@example.org", 1_700_009_000, -60)
SUBMODULE = pygit2.Oid(hex="12" * 20)


class Built:
    """A repository with the tree {a.py, bin/run (executable), l -> a.py, sub (submodule)} on `branch`."""

    def __init__(self, path: Path, *, bare: bool = False, branch: str = "main") -> None:
        self.path = path
        self.repository = pygit2.init_repository(str(path), bare=bare, initial_head=branch)
        self.blob = self.repository.create_blob(b"a = 1\n")
        run = self.repository.create_blob(b"#!/bin/sh\n")
        inner = self.tree({"run": (run, 0o100755)})
        self.root = self.tree(
            {
                "a.py": (self.blob, 0o100644),
                "bin": (inner, 0o040000),
                "l": (self.repository.create_blob(b"a.py"), 0o120000),
                "sub": (SUBMODULE, 0o160000),
            }
        )
        self.inner, self.run = inner, run
        self.commit = self.commit_tree(self.root, f"refs/heads/{branch}")

    def tree(self, entries: dict[str, tuple[pygit2.Oid, int]]) -> pygit2.Oid:
        builder = self.repository.TreeBuilder()
        for name, (oid, mode) in entries.items():
            builder.insert(name, oid, mode)
        return builder.write()

    def raw_tree(self, *entries: tuple[bytes, pygit2.Oid, int]) -> pygit2.Oid:
        """A tree that Git's own tools would not write."""
        body = b"".join(b"%o %s\0%s" % (mode, name, oid.raw) for name, oid, mode in entries)
        return self.repository.odb.write(ObjectType.TREE, body)

    def commit_tree(
        self, tree: pygit2.Oid, reference: str | None, parents: tuple[pygit2.Oid, ...] = ()
    ) -> pygit2.Oid:
        return self.repository.create_commit(reference, AUTHOR, COMMITTER, "message\n", tree, list(parents))

    def object_file(self, oid: pygit2.Oid) -> Path:
        folder = Path(self.repository.path) / "objects" / str(oid)[:2]
        return folder / str(oid)[2:]


def resolve(url: str | Path, tmp_path: Path, **more: str) -> Target:
    (target,) = git.resolve(GitSource(type="git", url=str(url), **more), cache=tmp_path / "cache", limits=LIMITS)
    return target


def read(url: str | Path, tmp_path: Path, limits: Limits = LIMITS, **more: str) -> list[Arrival]:
    return list(git.read(resolve(url, tmp_path, **more), cache=tmp_path / "cache", limits=limits))


def incidents(arrivals: list[Arrival]) -> list[tuple[str, str]]:
    return [(a.path, a.kind) for a in arrivals if isinstance(a, Incident)]


def files(arrivals: list[Arrival]) -> dict[str, bytes]:
    return {a.path: a.data for a in arrivals if isinstance(a, SourceFile)}


FILES = {"/a.py": b"a = 1\n", "/bin/run": b"#!/bin/sh\n"}
INCIDENTS = [("/l", "link"), ("/sub", "submodule")]


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("way", ["path", "url"])
def test_files_and_provenance(tmp_path: Path, bare: bool, way: str) -> None:
    built = Built(tmp_path / "name.git", bare=bare)
    url = str(built.path) if way == "path" else f"file://{built.path}"
    *arrivals, repository = read(url, tmp_path)
    assert files(arrivals) == FILES
    assert incidents(arrivals) == INCIDENTS
    expected = model.Snapshot(
        branches={
            b"HEAD": model.SnapshotBranch(target=b"refs/heads/main", target_type=model.SnapshotTargetType.ALIAS),
            b"refs/heads/main": model.SnapshotBranch(
                target=built.commit.raw, target_type=model.SnapshotTargetType.REVISION
            ),
        }
    )
    assert repository == Repository(
        source="git",
        origin=url,
        repo_name="name",
        directory_id=str(built.root),
        snapshot_id=expected.id.hex(),
        revision_id=str(built.commit),
        branch_name="refs/heads/main",
        revision_date=datetime.datetime.fromtimestamp(1_700_000_000, datetime.UTC),
        committer_date=datetime.datetime.fromtimestamp(1_700_009_000, datetime.UTC),
    )


def test_our_revision_identifier_is_gits(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    revision = swhid.Revision(
        directory=str(built.root),
        message=b"message\n",
        author=swhid.Signature(b"A U Thor <author@example.org>", swhid.Stamp(1_700_000_000, b"+0530")),
        committer=swhid.Signature(b"C O Mitter <committer@example.org>", swhid.Stamp(1_700_009_000, b"-0100")),
    )
    assert swhid.revision_id(revision) == str(built.commit)


def test_snapshot_is_the_same_from_outside(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    repository = built.repository
    repository.create_tag("v1", built.commit, ObjectType.COMMIT, AUTHOR, "tag")
    repository.references.create("refs/tags/light", built.commit)
    repository.references.create("refs/heads/other", built.commit)
    local = resolve(built.path, tmp_path).spec
    assert local.snapshot == resolve(f"file://{built.path}", tmp_path).spec.snapshot
    tag = repository.references["refs/tags/v1"].target
    branches = {
        b"HEAD": model.SnapshotBranch(target=b"refs/heads/main", target_type=model.SnapshotTargetType.ALIAS),
        b"refs/tags/v1": model.SnapshotBranch(target=tag.raw, target_type=model.SnapshotTargetType.RELEASE),
    } | {
        name: model.SnapshotBranch(target=built.commit.raw, target_type=model.SnapshotTargetType.REVISION)
        for name in (b"refs/heads/main", b"refs/heads/other", b"refs/tags/light")
    }
    assert local.snapshot == model.Snapshot(branches=branches).id.hex()


def test_branch_rule(tmp_path: Path) -> None:
    built = Built(tmp_path / "r", branch="trunk")
    second = built.commit_tree(built.inner, "refs/heads/master")
    third = built.commit_tree(built.inner, "refs/heads/main")
    assert resolve(built.path, tmp_path).spec.branch_name == "refs/heads/trunk"
    assert resolve(built.path, tmp_path, branch="master").spec.commit == str(second)
    built.repository.references.create("HEAD", "refs/heads/unborn", force=True)
    assert resolve(built.path, tmp_path).spec.commit == str(third)
    built.repository.references.delete("refs/heads/main")
    assert resolve(built.path, tmp_path).spec.branch_name == "refs/heads/master"
    built.repository.references.delete("refs/heads/master")
    with pytest.raises(InputError, match=r"neither HEAD nor main nor master; set `branch` to one of: trunk"):
        resolve(built.path, tmp_path)
    with pytest.raises(InputError, match=r"no branch 'absent'; set `branch` to one of: trunk"):
        resolve(built.path, tmp_path, branch="absent")


@pytest.mark.parametrize("way", ["path", "url"])
def test_detached_head(tmp_path: Path, way: str) -> None:
    built = Built(tmp_path / "r")
    built.repository.set_head(built.commit)
    repository = read(built.path if way == "path" else f"file://{built.path}", tmp_path)[-1]
    assert isinstance(repository, Repository)
    assert (repository.branch_name, repository.revision_id) == ("HEAD", str(built.commit))


def test_missing_blobs_and_trees_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    sound = resolve(built.path, tmp_path)
    built.object_file(built.blob).unlink()
    assert resolve(built.path, tmp_path).fingerprint != sound.fingerprint
    arrivals = read(built.path, tmp_path)
    assert files(arrivals) == {"/bin/run": b"#!/bin/sh\n"}
    assert incidents(arrivals) == [("/a.py", "missing"), *INCIDENTS]
    built.object_file(built.inner).unlink()
    arrivals = read(built.path, tmp_path)
    assert incidents(arrivals) == [("/a.py", "missing"), ("/bin", "missing"), *INCIDENTS]
    repository = arrivals[-1]
    assert isinstance(repository, Repository)
    assert repository.directory_id == str(built.root)


@pytest.mark.parametrize("damage", ["garbage", "other bytes"])
def test_damaged_blobs(tmp_path: Path, damage: str) -> None:
    built = Built(tmp_path / "r")
    place = built.object_file(built.blob)
    place.chmod(0o644)
    place.write_bytes(b"garbage" if damage == "garbage" else zlib.compress(b"blob 6\0a = 2\n"))
    arrivals = read(built.path, tmp_path)
    assert incidents(arrivals) == [("/a.py", "corrupt"), *INCIDENTS]


@pytest.mark.parametrize("what", ["commit", "root"])
def test_without_commit_or_root_there_is_nothing(tmp_path: Path, what: str) -> None:
    built = Built(tmp_path / "r")
    built.object_file(getattr(built, what)).unlink()
    with pytest.raises(MachineError, match="git fsck"):
        read(built.path, tmp_path)


def test_oversized_blobs(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    arrivals = read(built.path, tmp_path, Limits(file_bytes=7))
    assert [a for a in arrivals if isinstance(a, OversizedFile)] == [
        OversizedFile(
            path="/bin/run",
            content_id=str(built.run),
            blob_id=hashlib.sha1(b"#!/bin/sh\n").hexdigest(),
            length_bytes=10,
        )
    ]
    assert files(arrivals) == {"/a.py": b"a = 1\n"}


def test_names_that_no_tree_should_hold(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    names = (b".", b"..", b".GIT", b"caf\xe9", b"ok")
    tree = built.raw_tree(*((name, built.blob, 0o100644) for name in names))
    built.commit_tree(tree, "refs/heads/hostile")
    arrivals = read(built.path, tmp_path, branch="hostile")
    assert files(arrivals) == {"/ok": b"a = 1\n"}
    assert sorted(incidents(arrivals)) == [
        ("/.", "traversal"), ("/..", "traversal"), ("/.GIT", "traversal"), ("/caf\\xe9", "encoding"),
    ]  # fmt: skip


def test_a_tree_of_shared_subtrees_stops_at_the_limit(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    tree = built.inner
    for _ in range(12):  # 10 ** 12 paths from 12 objects
        tree = built.tree({f"d{n}": (tree, 0o040000) for n in range(10)})
    built.commit_tree(tree, "refs/heads/bomb")
    spec = GitSource(type="git", url=str(built.path), branch="bomb")
    limits = Limits(archive_members=500)
    (target,) = git.resolve(spec, cache=tmp_path, limits=limits)
    assert incidents(list(git.read(target, cache=tmp_path, limits=limits)))[-1] == ("/", "too_many")


def test_total_size_stops_the_reading(tmp_path: Path) -> None:
    arrivals = read(Built(tmp_path / "r").path, tmp_path, Limits(archive_bytes=8))
    assert files(arrivals) == {"/a.py": b"a = 1\n"}
    assert incidents(arrivals) == [("/", "bomb")]


def test_fingerprint_follows_the_commit(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    before = resolve(built.path, tmp_path).fingerprint
    assert resolve(built.path, tmp_path).fingerprint == before
    built.commit_tree(built.inner, "refs/heads/main", (built.commit,))
    assert resolve(built.path, tmp_path).fingerprint != before


def test_what_was_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    target = resolve(f"file://{built.path}", tmp_path)
    first = list(git.read(target, cache=tmp_path / "cache", limits=LIMITS))
    built.path.rename(tmp_path / "gone")
    assert list(git.read(target, cache=tmp_path / "cache", limits=LIMITS)) == first


def test_a_branch_that_moved_between_plan_and_read(tmp_path: Path) -> None:
    built = Built(tmp_path / "r")
    target = resolve(f"file://{built.path}", tmp_path)
    built.repository.references.create("refs/heads/main", built.commit_tree(built.inner, None), force=True)
    with pytest.raises(MachineError, match="moved while it was read"):
        list(git.read(target, cache=tmp_path / "cache", limits=LIMITS))


def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with pytest.raises(
        MachineError, match=rf"cannot reach the git repository http://127.0.0.1:{port}/o/n"
    ) as info:
        resolve(f"http://user:secret@127.0.0.1:{port}/o/n.git", tmp_path)
    assert "secret" not in str(info.value)


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "SILENCE_TIMEOUT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/o/n"
        with pytest.raises(MachineError, match="cannot reach the git repository"):
            resolve(url, tmp_path)


@pytest.mark.parametrize("make", ["absent", "empty folder", "no commit"])
def test_what_is_no_repository(tmp_path: Path, make: str) -> None:
    place = tmp_path / "r"
    message = {
        "absent": "does not exist",
        "empty folder": "is not a Git repository",
        "no commit": "no branch with a commit",
    }[make]
    if make == "empty folder":
        place.mkdir()
    elif make == "no commit":
        pygit2.init_repository(str(place))
    with pytest.raises(InputError, match=message):
        resolve(place, tmp_path)


@pytest.mark.parametrize(
    ("url", "remote", "name", "shown"),
    [
        ("https://u:p@host.org/owner/name.git", True, "owner/name", "https://host.org/owner/name.git"),
        ("https://host.org/a/b/c/", True, "b/c", "https://host.org/a/b/c/"),
        ("git@host.org:owner/name.git", True, "owner/name", "host.org:owner/name.git"),
        ("file:///x/y.git", True, "y", "file:///x/y.git"),
        ("/x/y/.git", False, "y", "/x/y/.git"),
        ("https://host.org", True, "repository", "https://host.org"),
    ],
)
def test_urls(url: str, remote: bool, name: str, shown: str) -> None:
    assert (is_remote(url), repository_name(url), without_credentials(url)) == (remote, name, shown)


def test_this_checkout_reads_as_git_lists_it(tmp_path: Path) -> None:
    """A real repository with packs and history: the same paths and ids as `git ls-tree`."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").is_dir():
        pytest.skip("not a Git checkout")
    target = resolve(root, tmp_path)
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-tree", "-r", "-z", target.spec.commit], capture_output=True, check=True
    ).stdout.decode()
    expected = {}
    for line in listing.split("\0")[:-1]:
        (_, kind, oid), path = line.split("\t")[0].split(), line.split("\t")[1]
        if kind == "blob":
            expected["/" + path] = oid
    arrivals = git.read(target, cache=tmp_path, limits=LIMITS)
    assert {a.path: swhid.content_id(a.data) for a in arrivals if isinstance(a, SourceFile)} == expected
