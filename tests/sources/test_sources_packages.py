"""Packages of both registries, from a lock or from the registry's own word."""

import base64
import collections
import datetime
import hashlib
import json
import os
import pickle
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packageurl import PackageURL
from swh.model import from_disk, model

from starsmith import sources
from starsmith.corpus.arrivals import Arrival, Incident, Repository, SourceFile
from starsmith.errors import InputError, MachineError
from starsmith.recipe import Limits, PackageSource
from starsmith.sources import npm, packages, pypi, registry
from starsmith.sources.registry import Patience

LIMITS = Limits()
QUICK = Patience(connect_seconds=1, silence_seconds=0.5, attempts=2, first_pause_seconds=0.01)
SDIST = {"six-1.0/setup.py": b"setup()\n", "six-1.0/six/a.py": b"a = 1\n"}
TARBALL = {"package/index.js": b"f()\n", "package/lib/a.ts": b"g()\n"}
Archive = Callable[[dict[str, bytes]], bytes]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PATIENCE", QUICK)


@pytest.fixture
def six(fake: Any, make_archive: Archive) -> bytes:
    """An index with six 1.0 (sdist and wheel) and 2.0 (wheel only)."""
    data = make_archive(SDIST)
    files = [
        fake.sdist("six", "1.0", data),
        {"filename": "six-1.0-py3-none-any.whl", "url": "x", "hashes": {"sha256": "0" * 64}},
        {"filename": "six-2.0-py3-none-any.whl", "url": "x", "hashes": {"sha256": "0" * 64}},
    ]
    fake.json("/simple/six/", {"meta": {"api-version": "1.1"}, "name": "six", "files": files})
    return data


def publish(fake: Any, name: str, version: str, data: bytes, **dist: object) -> None:
    quoted = name.replace("/", "%2f")
    path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    fake.body(path, data)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    fake.json(f"/{quoted}/{version}", {"dist": {"tarball": fake.url + path, "integrity": integrity} | dist})
    fake.json(f"/{quoted}", {"time": {version: "2020-05-06T07:08:09.000Z"}})


def pypi_source(fake: Any, *names: str, lock: Path | None = None) -> PackageSource:
    return PackageSource(type="pypi", packages=names or ("six==1.0",), index=f"{fake.url}/simple/", lock=lock)


def npm_source(fake: Any, *names: str, lock: Path | None = None) -> PackageSource:
    return PackageSource(type="npm", packages=names, index=fake.url, lock=lock)


def read(spec: PackageSource, cache: Path) -> list[Arrival]:
    (target,) = sources.resolve(spec, cache=cache, limits=LIMITS)
    assert pickle.loads(pickle.dumps(target)) == target
    return list(sources.read(target, cache=cache, limits=LIMITS))


def files(arrivals: list[Arrival]) -> dict[str, bytes]:
    return {a.path: a.data for a in arrivals if isinstance(a, SourceFile)}


def identifiers(tmp_path: Path, contents: dict[str, bytes], branch: str) -> tuple[str, str]:
    """Root and snapshot by swh.model, from a folder on disk."""
    root = tmp_path / "oracle"
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    directory = from_disk.Directory.from_disk(path=bytes(root), max_content_length=None).hash
    snapshot = model.Snapshot(
        branches={
            b"HEAD": model.SnapshotBranch(target=branch.encode(), target_type=model.SnapshotTargetType.ALIAS),
            branch.encode(): model.SnapshotBranch(
                target=directory, target_type=model.SnapshotTargetType.DIRECTORY
            ),
        }
    )
    return directory.hex(), snapshot.id.hex()


def test_a_source_distribution(fake: Any, six: bytes, tmp_path: Path) -> None:
    *arrivals, repository = read(pypi_source(fake), tmp_path)
    assert files(arrivals) == {"/setup.py": b"setup()\n", "/six/a.py": b"a = 1\n"}
    directory, snapshot = identifiers(tmp_path, {"setup.py": b"setup()\n", "six/a.py": b"a = 1\n"}, "releases/1.0")
    assert repository == Repository(
        source="pypi",
        origin="pkg:pypi/six@1.0",
        repo_name="pypi/six",
        directory_id=directory,
        snapshot_id=snapshot,
        branch_name="releases/1.0",
        revision_date=datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, datetime.UTC),
    )
    assert fake.accepted[0].startswith("application/vnd.pypi.simple.v1+json, ")
    assert "text/html" in fake.accepted[0]


def test_an_index_that_speaks_html(fake: Any, six: bytes, tmp_path: Path) -> None:
    digest = hashlib.sha256(six).hexdigest()
    page = f"""<!DOCTYPE html><html><body><h1>Links for six</h1>
    <a href="../../files/six-1.0.tar.gz#sha256={digest}" data-requires-python="&gt;=3">six-1.0.tar.gz</a><br/>
    <a href="../../files/six-1.0-py3-none-any.whl#sha256={digest}">six-1.0-py3-none-any.whl</a>
    <a href="six-9.9.tar.gz">no digest</a><a>no address</a>"""
    fake.body("/simple/six/", page.encode(), "text/html; charset=UTF-8")
    *arrivals, repository = read(pypi_source(fake), tmp_path)
    assert len(files(arrivals)) == 2
    assert isinstance(repository, Repository)
    assert repository.revision_date is None
    with pytest.raises(InputError, match="the index has no six 9"):
        read(pypi_source(fake, "six==9.9"), tmp_path)


@pytest.mark.parametrize("name", ["left-pad", "@scope/left-pad"])
def test_a_tarball(fake: Any, make_archive: Archive, tmp_path: Path, name: str) -> None:
    publish(fake, name, "1.3.0", make_archive(TARBALL))
    *arrivals, repository = read(npm_source(fake, f"{name}==1.3.0"), tmp_path)
    assert files(arrivals) == {"/index.js": b"f()\n", "/lib/a.ts": b"g()\n"}
    assert isinstance(repository, Repository)
    assert repository.repo_name == f"npm/{name}"
    assert repository.origin == f"pkg:npm/{name.replace('@', '%40')}@1.3.0"
    assert PackageURL.from_string(repository.origin).name == "left-pad"
    assert repository.revision_date is None  # a version's document has no time; a lock has


def test_labels(fake: Any, make_archive: Archive, tmp_path: Path) -> None:
    names = ["a-b", "@a/b"]
    for name in names:
        publish(fake, name, "1.0.0", make_archive(TARBALL))
    targets = sources.resolve(
        npm_source(fake, *(f"{name}==1.0.0" for name in names)), cache=tmp_path, limits=LIMITS
    )
    assert targets[0].label == "npm-a-b-1.0.0"
    assert len({target.label for target in targets}) == 2
    assert all(set(target.label) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for target in targets)


def test_lock_then_offline(fake: Any, six: bytes, make_archive: Archive, tmp_path: Path) -> None:
    lock, cache = tmp_path / "a.lock", tmp_path / "cache"
    pypi.lock(("six==1.0",), lock, cache=cache, limits=LIMITS, index=f"{fake.url}/simple")
    data = make_archive(TARBALL)
    publish(fake, "@s/p", "2.0.0", data)
    npm.lock(("@s/p==2.0.0",), lock, cache=cache, limits=LIMITS, index=fake.url)
    assert lock.read_text() == (
        f"pkg:npm/%40s/p@2.0.0 p-2.0.0.tgz sha256:{hashlib.sha256(data).hexdigest()} 2020-05-06T07:08:09Z\n"
        f"pkg:pypi/six@1.0 six-1.0.tar.gz sha256:{hashlib.sha256(six).hexdigest()} 2024-01-02T03:04:05.678901Z\n"
    )
    fake.answers.clear()
    fake.asked.clear()
    for spec in (pypi_source(fake, "Six", lock=lock), npm_source(fake, "@s/p", lock=lock)):
        repository = read(spec, cache)[-1]
        assert isinstance(repository, Repository)
        assert repository.revision_date is not None
    assert fake.asked == []


def test_with_a_lock_but_no_cache_the_registry_is_asked(
    fake: Any, six: bytes, make_archive: Archive, tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    pypi.lock(("six==1.0",), lock, cache=tmp_path / "one", limits=LIMITS, index=f"{fake.url}/simple")
    publish(fake, "p", "1.0.0", make_archive(TARBALL))
    npm.lock(("p==1.0.0",), lock, cache=tmp_path / "one", limits=LIMITS, index=fake.url)
    assert len(files(read(pypi_source(fake, "six", lock=lock), tmp_path / "two"))) == 2
    assert len(files(read(npm_source(fake, "p", lock=lock), tmp_path / "two"))) == 2


def test_a_file_that_changed_since_the_lock_is_refused(
    fake: Any, six: bytes, make_archive: Archive, tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    pypi.lock(("six==1.0",), lock, cache=tmp_path / "one", limits=LIMITS, index=f"{fake.url}/simple")
    changed = make_archive(SDIST | {"six-1.0/evil.py": b"evil"})
    fake.json("/simple/six/", {"files": [fake.sdist("six", "1.0", changed)]})
    with pytest.raises(MachineError, match=r"is refused: the lock has six-1\.0\.tar\.gz with sha256"):
        read(pypi_source(fake, lock=lock), tmp_path / "two")
    publish(fake, "p", "1.0.0", make_archive(TARBALL))
    npm.lock(("p==1.0.0",), lock, cache=tmp_path / "one", limits=LIMITS, index=fake.url)
    publish(fake, "p", "1.0.0", changed)
    with pytest.raises(MachineError, match="is refused: its sha256 is"):
        read(npm_source(fake, "p", lock=lock), tmp_path / "two")


def test_a_body_that_is_not_what_the_registry_announced(fake: Any, six: bytes, tmp_path: Path) -> None:
    fake.body("/files/six-1.0.tar.gz", six + b"!")
    with pytest.raises(MachineError, match=r"package six 1\.0 .* is refused: its sha256 is"):
        read(pypi_source(fake), tmp_path)


def test_adopted_files_need_no_registry(fake: Any, six: bytes, make_archive: Archive, tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    pypi.lock(("six==1.0",), lock, cache=tmp_path / "one", limits=LIMITS, index=f"{fake.url}/simple")
    folder = tmp_path / "brought"
    folder.mkdir()
    (folder / "unrelated.txt").write_text("x")
    (missing,) = packages.adopt_files(folder, lock=lock, cache=tmp_path / "two")
    assert missing.name == "six"
    (folder / "under-another-name").write_bytes(six)
    assert packages.adopt_files(folder, lock=lock, cache=tmp_path / "two") == []
    fake.asked.clear()
    read(pypi_source(fake, lock=lock), tmp_path / "two")
    assert fake.asked == []
    with pytest.raises(InputError, match="is not a folder"):
        packages.adopt_files(tmp_path / "absent", lock=lock, cache=tmp_path)


def test_what_the_index_does_not_have(fake: Any, six: bytes, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"six 2\.0 has no source distribution; .* only six-2\.0-py3-none-any\.whl"
    ):
        read(pypi_source(fake, "six==2.0"), tmp_path)
    with pytest.raises(InputError, match=r"no six 3\.0; the last source distributions it lists are: six-1\.0"):
        read(pypi_source(fake, "six==3.0"), tmp_path)
    with pytest.raises(InputError, match="has no package absent"):
        read(pypi_source(fake, "absent==1.0"), tmp_path)
    with pytest.raises(InputError, match="has no package absent"):
        read(npm_source(fake, "absent==1.0.0"), tmp_path)
    with pytest.raises(InputError, match="has no version"):
        read(pypi_source(fake, "six"), tmp_path)
    with pytest.raises(InputError, match="has no version"):
        read(npm_source(fake, "p"), tmp_path)


def test_registries_that_speak_something_else(fake: Any, tmp_path: Path) -> None:
    fake.json("/simple/six/", ["no files"])
    with pytest.raises(MachineError, match="does not speak the simple API"):
        read(pypi_source(fake), tmp_path)
    fake.json("/p/1.0.0", {"dist": {"tarball": fake.url, "integrity": "md5-abc", "shasum": "zz"}})
    with pytest.raises(MachineError, match="names no tarball with a digest"):
        read(npm_source(fake, "p==1.0.0"), tmp_path)


def test_old_tarballs_have_a_sha1_only(fake: Any, make_archive: Archive, tmp_path: Path) -> None:
    data = make_archive(TARBALL)
    publish(fake, "old", "0.0.1", data, integrity=None, shasum=hashlib.sha1(data).hexdigest())
    assert len(files(read(npm_source(fake, "old==0.0.1"), tmp_path))) == 2


def test_a_registry_without_times(fake: Any, make_archive: Archive, tmp_path: Path) -> None:
    publish(fake, "p", "1.0.0", make_archive(TARBALL))
    fake.json("/p", {"versions": {}})
    (entry,) = npm.lock(("p==1.0.0",), tmp_path / "l", cache=tmp_path, limits=LIMITS, index=fake.url)
    assert entry.upload_time is None


def test_tarballs_at_the_default_registry_are_asked_for_at_the_mirror() -> None:
    default = npm._default_registry()
    assert npm._at_registry(f"{default}/p/-/p-1.tgz", "http://mirror:81/npm") == "http://mirror:81/npm/p/-/p-1.tgz"
    assert npm._at_registry("http://other/p-1.tgz", "http://mirror:81/npm") == "http://other/p-1.tgz"


def test_broken_archives_become_incidents(fake: Any, make_archive: Archive, tmp_path: Path) -> None:
    data = make_archive(SDIST)[:600]
    fake.json("/simple/six/", {"files": [fake.sdist("six", "1.0", data)]})
    arrivals = read(pypi_source(fake), tmp_path)
    assert [a.kind for a in arrivals if isinstance(a, Incident)] == ["truncated"]
    assert isinstance(arrivals[-1], Repository)


@pytest.mark.parametrize(
    ("filename", "name", "version", "expected"),
    [
        ("six-1.0.tar.gz", "six", "1.0", True),
        ("Six-1.0.zip", "six", "1.0", True),
        ("zope.interface-5.0.tar.gz", "zope-interface", "5.0", True),
        ("zope_interface-5.0.tar.gz", "zope-interface", "5.0", True),
        ("a-b-1.0-rc1.tar.gz", "a-b", "1.0.rc1", True),
        ("six-1.0.1.tar.gz", "six", "1.0", False),
        ("six-extra-1.0.tar.gz", "six", "1.0", False),
        ("six-1.0-py3-none-any.whl", "six", "1.0", False),
        ("six-1.0.tar.gz.asc", "six", "1.0", False),
    ],
)
def test_which_file_is_the_source_distribution(filename: str, name: str, version: str, expected: bool) -> None:
    assert pypi._is_source_of(filename, name, version) is expected


@pytest.mark.parametrize(
    "text", ["", "==1.0", "six=1.0", "six==", "six>=1", "../x==1", "-r==1", "six==1 0", "a/b==1"]
)
@pytest.mark.parametrize("kind", ["pypi", "npm"])
def test_what_is_no_package(text: str, kind: Any) -> None:
    with pytest.raises(InputError, match="is not a package of"):
        packages.parse_package(text, kind)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("pkg:pypi/six@1.0 six.tar.gz", "2 fields"),
        ("pkg:pypi/six six.tar.gz sha256:" + "0" * 64, "is not a version"),
        ("pkg:cargo/six@1 six.tar.gz sha256:" + "0" * 64, "is not a version"),
        ("six==1.0 six.tar.gz sha256:" + "0" * 64, "purl"),
        ("pkg:pypi/six@1.0 six.tar.gz sha256:00", "is not sha256"),
        ("pkg:pypi/six@1.0 ../six.tar.gz sha256:" + "0" * 64, "is not a file's name"),
        ("pkg:pypi/six@1.0 six.tar.gz sha256:" + "0" * 64 + " yesterday", "yesterday"),
    ],
)
def test_faults_of_a_lock_are_named_with_their_line(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "l").write_text(f"# comment\n\n{line}\n")
    with pytest.raises(InputError, match=f"l:3: .*{fault}"):
        packages.load_lock(tmp_path / "l")


def test_other_faults_of_a_lock(tmp_path: Path) -> None:
    line = "pkg:pypi/six@1.0 six.tar.gz sha256:" + "0" * 64 + "\n"
    (tmp_path / "l").write_text(line * 2)
    with pytest.raises(InputError, match="is there twice"):
        packages.load_lock(tmp_path / "l")
    with pytest.raises(InputError, match="there is no lock file"):
        packages.load_lock(tmp_path / "absent")
    (tmp_path / "l").write_text(line)
    spec = PackageSource(type="pypi", packages=("six==1.1",), lock=tmp_path / "l")
    with pytest.raises(InputError, match=r"has no six==1\.1 of pypi \(it has six 1\.0\)"):
        pypi.resolve(spec, cache=tmp_path, limits=LIMITS)


def test_a_name_alone_takes_every_version_of_the_lock(tmp_path: Path) -> None:
    lines = [f"pkg:pypi/six@{v} six-{v}.tar.gz sha256:{v[0] * 64}\n" for v in ("1.0", "2.0")]
    (tmp_path / "l").write_text("".join(lines))
    spec = PackageSource(type="pypi", packages=("six", "six==2.0"), lock=tmp_path / "l")
    targets = pypi.resolve(spec, cache=tmp_path, limits=LIMITS)
    assert [target.label for target in targets] == ["pypi-six-1.0", "pypi-six-2.0"]
    assert len({target.fingerprint for target in targets}) == 2


# --- whose registry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any configuration, and no variable set."""
    for name in list(os.environ):
        if name.lower() in ("npm_config_registry", "npm_config_userconfig") or name.startswith(("PIP_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    return tmp_path


def test_order_of_pips_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(place: str, index: str, section: str = "global") -> None:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text(f"[{section}]\nindex-url = {index}\n")

    default = pypi.index_of(None).url
    assert default.startswith("https://")
    write("xdg/pip/pip.conf", "http://machine/simple/")
    assert pypi.index_of(None).url == "http://machine/simple"
    write(".config/pip/pip.conf", "http://user/simple")
    assert pypi.index_of(None).url == "http://user/simple"
    write("environment/pip.conf", "http://site/%7Esimple", "download")
    assert pypi.index_of(None).url == "http://site/%7Esimple"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(home / "mine"))
    write("mine", "http://named/simple")
    assert pypi.index_of(None).url == "http://named/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "http://variable/simple")
    assert pypi.index_of(None).url == "http://variable/simple"
    assert pypi.index_of("http://recipe/simple").url == "http://recipe/simple"
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert pypi.index_of(None).url == default
    monkeypatch.setenv("PIP_CONFIG_FILE", str(home / "mine"))
    (home / "mine").write_text("index-url without a section")
    with pytest.raises(InputError, match="cannot be read"):
        pypi.index_of(None)


def test_without_pip_someone_must_name_an_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setitem(sys.modules, "pip._internal.models.index", None)
    with pytest.raises(MachineError, match="PIP_INDEX_URL"):
        pypi.index_of(None)


def test_order_of_npms_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = npm.registry_of(None, "p").url
    assert default.startswith("https://")
    monkeypatch.setenv("HOST_OF_MINE", "mine")
    (home / ".npmrc").write_text(
        '; comment\nregistry = "http://${HOST_OF_MINE}/"\n@s:registry=http://scoped\n//mine/:_authToken=x\n'
    )
    assert npm.registry_of(None, "p").url == "http://mine"
    assert npm.registry_of(None, "@s/p").url == "http://scoped"
    assert npm.registry_of(None, "@t/p").url == "http://mine"
    monkeypatch.setenv("npm_config_registry", "http://variable")
    assert npm.registry_of(None, "p").url == "http://variable"
    assert npm.registry_of("http://recipe", "@s/p").url == "http://recipe"


def test_the_lock_of_the_quickstart_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package of the recipe is in the lock, and the other way round; nothing is asked of a registry."""
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    recipe = root / "recipes" / "quickstart.toml"
    if not recipe.is_file():
        recipe = root / "recipes" / "quickstart.sources.toml"
    specs = [PackageSource.model_validate(table) for table in tomllib.loads(recipe.read_text())["sources"]]
    targets = [t for spec in specs for t in sources.resolve(spec, cache=tmp_path, limits=LIMITS)]
    entries = packages.load_lock(root / "recipes" / "quickstart.lock")
    assert {target.origin for target in targets} == {entry.purl for entry in entries}
    assert len({target.label for target in targets}) == len(targets) == len(entries) >= 35
    versions = collections.Counter(entry.name for entry in entries)
    assert versions.most_common(1) == [("click", 2)]  # so that near-duplicates are found


@pytest.mark.network
@pytest.mark.skipif(not os.environ.get("STARSMITH_NETWORK_TESTS"), reason="set STARSMITH_NETWORK_TESTS=1 to run")
def test_the_users_own_registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PATIENCE", Patience(attempts=1))
    lock = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.lock"
    for kind, name in (("pypi", "pyjwt"), ("npm", "express")):
        spec = PackageSource(type=kind, packages=(name,), lock=lock)
        try:
            arrivals = read(spec, tmp_path)
        except MachineError as error:
            pytest.skip(f"unreachable: {error}")
        assert len(files(arrivals)) > 10
        assert json.dumps(sorted(files(arrivals)))


def test_a_source_pins_what_its_lock_lacks_and_nothing_else(fake: Any, six: bytes, tmp_path: Path) -> None:
    lock, cache = tmp_path / "a.lock", tmp_path / "cache"
    spec = pypi_source(fake, "six==1.0", lock=lock)
    assert sources.lock(spec, cache=cache, limits=LIMITS) == ("six==1.0",)
    before = lock.read_bytes()
    assert sources.lock(spec, cache=cache, limits=LIMITS) == ()
    assert lock.read_bytes() == before
    assert len(files(read(spec, cache))) == 2
    with pytest.raises(InputError, match="no `lock`"):
        sources.lock(pypi_source(fake), cache=cache, limits=LIMITS)
