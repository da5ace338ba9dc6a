"""Folders: every entry is read or told, and the identifier is Software Heritage's."""

import os
import socket
from pathlib import Path

import pytest
from swh.model import from_disk

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Arrival, Incident, OversizedFile, Repository, SourceFile
from starsmith.errors import InputError, MachineError
from starsmith.recipe import FolderSource, Limits
from starsmith.sources import folder

LIMITS = Limits()


def read(path: Path, limits: Limits = LIMITS, **more: str) -> list[Arrival]:
    spec = FolderSource(type="folder", path=path, **more)
    (target,) = folder.resolve(spec, cache=path, limits=limits)
    return list(folder.read(target, cache=path, limits=limits))


def fingerprint(path: Path) -> str:
    return folder.resolve(FolderSource(type="folder", path=path), cache=path, limits=LIMITS)[0].fingerprint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one of everything."""
    root = tmp_path / "project"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "void").mkdir()
    (root / "z.py").write_bytes(b"z = 1\n")
    (root / "src" / "a.c").write_bytes(b"int a;\n")
    (root / "src" / "deep" / "run").write_bytes(b"#!/bin/sh\n")
    (root / "src" / "deep" / "run").chmod(0o755)
    (root / "src.txt").write_bytes(b"")
    (root / "out").symlink_to("/etc")
    (root / "dangling").symlink_to("nowhere")
    return root


def test_files_links_and_identifier(root: Path) -> None:
    *arrivals, repository = read(root)
    assert [(a.path, a.data) for a in arrivals if isinstance(a, SourceFile)] == [
        ("/src.txt", b""),
        ("/z.py", b"z = 1\n"),
        ("/src/a.c", b"int a;\n"),
        ("/src/deep/run", b"#!/bin/sh\n"),
    ]
    assert [(a.path, a.kind) for a in arrivals if isinstance(a, Incident)] == [
        ("/dangling", "link"),
        ("/out", "link"),
    ]
    theirs = from_disk.Directory.from_disk(path=bytes(root), max_content_length=None)
    assert repository == Repository(
        source="folder", origin=root.as_posix(), repo_name="project", directory_id=theirs.hash.hex()
    )


def test_git_data_is_left_out_and_told(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]")
    (root / "src" / ".git").write_text("gitdir: elsewhere")
    arrivals = read(root)
    assert [a.path for a in arrivals if isinstance(a, Incident) and a.kind == "git_folder"] == [
        "/.git",
        "/src/.git",
    ]
    assert not any(isinstance(a, SourceFile) and ".git" in a.path for a in arrivals)


def test_pipes_and_sockets_are_told_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        found = {a.path: a.detail for a in read(root) if isinstance(a, Incident) and a.kind == "device"}
    assert found == {"/pipe": "a pipe", "/s": "a socket"}


def test_oversized_files_are_hashed_in_passing(root: Path) -> None:
    data = os.urandom(200_000)
    (root / "big").write_bytes(data)
    arrivals = read(root, Limits(file_bytes=100_000))
    assert [a for a in arrivals if isinstance(a, OversizedFile)] == [
        OversizedFile(
            path="/big", content_id=swhid.content_id(data), blob_id=swhid.blob_id(data), length_bytes=200_000
        )
    ]
    theirs = from_disk.Directory.from_disk(path=bytes(root), max_content_length=None)
    assert isinstance(arrivals[-1], Repository)
    assert arrivals[-1].directory_id == theirs.hash.hex()


def test_names_that_are_not_utf8_or_too_long(root: Path) -> None:
    (Path(os.fsdecode(bytes(root) + b"/caf\xe9.py"))).write_bytes(b"1")
    arrivals = read(root, Limits(path_bytes=10))
    assert [(a.path, a.kind) for a in arrivals if isinstance(a, Incident) and a.kind != "link"] == [
        ("/caf\\xe9.py", "encoding"),
        ("/src/deep/run", "path"),
    ]
    theirs = from_disk.Directory.from_disk(path=bytes(root), max_content_length=None)
    assert isinstance(arrivals[-1], Repository)
    assert arrivals[-1].directory_id == theirs.hash.hex()


def test_unreadable_entries_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open, real_scandir = os.open, os.scandir

    def refuse_open(path: Path, *rest: int) -> int:
        if Path(path).name == "a.c":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *rest)

    def refuse_scandir(path: Path) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return real_scandir(path)

    monkeypatch.setattr(folder.os, "open", refuse_open)
    monkeypatch.setattr(folder.os, "scandir", refuse_scandir)
    arrivals = read(root)
    assert [(a.path, a.kind) for a in arrivals if isinstance(a, Incident) and a.kind != "link"] == [
        ("/src/a.c", "unreadable"),
        ("/src/deep", "unreadable"),
    ]
    assert [a.path for a in arrivals if isinstance(a, SourceFile)] == ["/src.txt", "/z.py"]


def test_a_file_swapped_for_a_link_is_not_followed(root: Path) -> None:
    (target,) = folder.resolve(FolderSource(type="folder", path=root), cache=root, limits=LIMITS)
    arrivals = folder.read(target, cache=root, limits=LIMITS)
    first = next(arrivals)
    assert isinstance(first, Incident)  # the listing of the root was taken before this
    (root / "z.py").unlink()
    (root / "z.py").symlink_to("/etc/passwd")
    found = list(arrivals)
    assert [a.path for a in found if isinstance(a, SourceFile) and a.path == "/z.py"] == []
    assert [a.kind for a in found if isinstance(a, Incident) and a.path == "/z.py"] in (["link"], ["unreadable"])


def test_fingerprint_follows_content_names_and_modes(root: Path) -> None:
    before = fingerprint(root)
    assert fingerprint(root) == before
    seen = {before}
    os.utime(root / "z.py", ns=(1, 1))
    seen.add(fingerprint(root))
    (root / "z.py").write_bytes(b"z = 22\n")
    os.utime(root / "z.py", ns=(1, 1))
    seen.add(fingerprint(root))
    (root / "z.py").chmod(0o755)
    seen.add(fingerprint(root))
    (root / "z.py").rename(root / "y.py")
    seen.add(fingerprint(root))
    (root / "void" / "new").mkdir()
    seen.add(fingerprint(root))
    assert len(seen) == 6


def test_labels_differ_for_folders_of_one_name(tmp_path: Path) -> None:
    labels = []
    for parent in ("one", "two"):
        (tmp_path / parent / "a b").mkdir(parents=True)
        spec = FolderSource(type="folder", path=tmp_path / parent / "a b")
        (target,) = folder.resolve(spec, cache=tmp_path, limits=LIMITS)
        assert target.label.startswith("folder-a-b-")
        labels.append(target.label)
    assert len(set(labels)) == 2


def test_repo_name_of_the_recipe_wins(root: Path) -> None:
    repository = read(root, repo_name="owner/name")[-1]
    assert isinstance(repository, Repository)
    assert repository.repo_name == "owner/name"


@pytest.mark.parametrize(("name", "what"), [("absent", "does not exist"), ("project/z.py", "is a file")])
def test_what_is_no_folder(root: Path, name: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read(root.parent / name)


def test_a_folder_that_vanished_before_it_was_read(root: Path) -> None:
    (target,) = folder.resolve(FolderSource(type="folder", path=root), cache=root, limits=LIMITS)
    root.rename(root.parent / "elsewhere")
    with pytest.raises(MachineError, match="cannot list the folder"):
        list(folder.read(target, cache=root, limits=LIMITS))
