"""A benchmark corpus is what its archives hold: each text once, every occurrence, the same however it is read."""

import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import corpora, road
from starsmith.corpus import schema, swhid
from starsmith.corpus.contents import decode
from starsmith.corpus.store import Store
from starsmith.errors import MachineError

FILES = {
    "a/one.py": b"print(1)\n",
    "a/same.py": b"print(1)\n",
    "b/latin.txt": "caf\xe9 au lait, d\xe9j\xe0 vu, na\xefve, gar\xe7on, fen\xeatre\n".encode("latin-1") * 20,
    "b/binary.bin": b"\x00\x01\x02",
    "b/empty.txt": b"",
    "b/bundle.js.map": b"{}",
    "c/\u6f22.md": "# \u6f22\u5b57\n".encode(),
}
TEXTS = {"a/one.py", "a/same.py", "b/latin.txt", "c/\u6f22.md"}


def package(name="Some.Package", registry="pypi", max_bytes=10**6):
    return corpora.Package(registry=registry, name=name, version="1.0", max_bytes=max_bytes)


def wheel(place, files):
    with zipfile.ZipFile(place, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return place


def tarball(place, files, extra=()):
    with tarfile.open(place, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in extra:
            archive.addfile(entry)
    return place


def written(folder, packages, archives):
    folder.mkdir(parents=True)
    corpora.write(folder, packages, archives)
    return corpora.read(folder)


def all_rows(parts):
    return pa.concat_tables([pq.read_table(part) for part in parts])


def test_each_text_once_and_every_occurrence(tmp_path):
    link = tarfile.TarInfo("package/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    climbing = tarfile.TarInfo("package/../../climbs.py")
    archives = [wheel(tmp_path / "a.whl", FILES), tarball(tmp_path / "b.tgz", FILES, [link, climbing])]
    corpus = written(tmp_path / "corpus", [package(), package("@other/package", "npm")], archives)

    contents, files = all_rows(corpus.contents), all_rows(corpus.files)
    assert contents.schema == schema.CONTENTS and files.schema == schema.FILES
    assert set(contents["content_id"].to_pylist()) == {swhid.content_id(FILES[name]) for name in TEXTS}
    assert contents["content_id"].to_pylist() == sorted(set(contents["content_id"].to_pylist()))
    assert set(contents["status"].to_pylist()) == {"text"}
    assert set(contents["text"].to_pylist()) == {decode(FILES[name])[2] for name in TEXTS}
    assert {(row["repo_name"], row["path"], row["content_id"]) for row in files.to_pylist()} == {
        (name, f"/{path}", swhid.content_id(FILES[path]))
        for name in ("Some.Package", "@other/package")
        for path in TEXTS
    }
    assert (corpus.num_files, corpus.num_contents) == (files.num_rows, contents.num_rows) == (8, 3)
    assert corpus.text_bytes == sum(len(text.encode()) for text in contents["text"].to_pylist())


def test_parts_are_partitions_that_join(tmp_path):
    corpus = written(tmp_path / "corpus", [package()], [wheel(tmp_path / "a.whl", many(100))])
    assert len(corpus.contents) == len(corpus.files) == corpora.PARTITIONS
    for number, (part, files) in enumerate(zip(corpus.contents, corpus.files, strict=True)):
        here = pq.read_table(part)["content_id"].to_pylist()
        assert all(schema.partition_of(name, corpora.PARTITIONS) == number for name in here)
        assert set(pq.read_table(files)["content_id"].to_pylist()) == set(here)


def many(count):
    return {f"f{number}.py": f"x = {number}\n".encode() * (number % 7 + 1) for number in range(count)}


def test_order_in_the_archive_changes_nothing(tmp_path):
    files = many(50)
    backwards = dict(reversed(files.items()))
    first = written(tmp_path / "1", [package(max_bytes=600)], [wheel(tmp_path / "a.whl", files)])
    second = written(tmp_path / "2", [package(max_bytes=600)], [wheel(tmp_path / "b.whl", backwards)])
    assert first.digest == second.digest
    assert 400 < first.text_bytes <= 600
    assert [part.read_bytes() for part in first.contents] == [part.read_bytes() for part in second.contents]


def test_a_larger_share_only_adds(tmp_path):
    archive = wheel(tmp_path / "a.whl", many(80))
    small, large = ({file.path for file in corpora.selected(archive, size)} for size in (300, 900))
    assert small < large


def test_large_files_stay_out(tmp_path):
    files = {"large.py": b"x" * (10 * 1024**2 + 1), "small.py": b"x"}
    for archive in (wheel(tmp_path / "a.whl", files), tarball(tmp_path / "b.tgz", files)):
        assert [path for path, _ in corpora.members(archive)] == ["/small.py"]


@pytest.mark.parametrize("make", [wheel, tarball])
def test_a_damaged_archive_is_named(tmp_path, make):
    place = make(tmp_path / ("a.whl" if make is wheel else "a.tgz"), many(2_000))
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
    with pytest.raises(MachineError, match=f"{place} is damaged"):
        list(corpora.members(place))


def test_build_reads_what_is_cached_and_asks_nobody(cache_folder, tmp_path, monkeypatch):
    archives = cache_folder / "archives"
    archives.mkdir(parents=True)
    wheel(archives / "some_package-1.0-py3-none-any.whl", FILES)
    tarball(archives / "other-package-1.0.tgz", FILES)
    chosen = [package(), package("@other/package", "npm")]
    monkeypatch.setattr(corpora, "chosen", lambda scale: chosen)
    monkeypatch.setenv("PATH", str(tmp_path))
    first = corpora.build("small")
    for archive in archives.glob("*-1.0*"):
        archive.unlink()
    assert corpora.build("small") == first
    assert json.loads((first.contents[0].parents[1] / "corpus.json").read_text())["digest"] == first.digest


def test_what_is_missing_is_said(cache_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"npm-other-package-1\.0.*npm is not installed"):
        corpora.fetch([package("@other/package", "npm")], cache_folder / "archives")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(MachineError, match=r"pypi-some-package-1\.0.*cannot be fetched"):
        corpora.fetch([package()], cache_folder / "archives")


def test_the_table_of_packages():
    assert len({entry.label for entry in corpora.PACKAGES}) == len(corpora.PACKAGES)
    assert sum(entry.max_bytes for entry in corpora.PACKAGES) > 500_000_000
    small = corpora.chosen("small")
    assert 8 <= len(small) <= 20 and {entry.registry for entry in small} == {"pypi", "npm"}
    ziglang = next(entry for entry in corpora.PACKAGES if entry.name == "ziglang")
    assert (ziglang.version, ziglang.max_bytes, ziglang.is_small) == ("0.13.0", 100_000_000, False)


def test_a_quarter_is_a_quarter(tmp_path):
    corpus = written(tmp_path / "corpus", [package()], [wheel(tmp_path / "a.whl", many(800))])
    road.contents_of(corpus, tmp_path, road.a_quarter)
    result = Store(tmp_path / "store").get("contents", "benchmark")
    contents, files = (all_rows(result.parts(table)) for table in ("contents", "files"))
    assert set(files["content_id"].to_pylist()) == set(contents["content_id"].to_pylist())
    assert 120 < contents.num_rows < 280
    assert len(result.parts("contents")) == corpora.PARTITIONS


def test_the_road_ends_in_a_ledger(tmp_path):
    files = {"a.py": b"import os\n", "numbers.py": b"1 = 2\n", "mail.py": b"# someone@company-mail.net\n" * 3}
    corpus = written(tmp_path / "corpus", [package()], [wheel(tmp_path / "a.whl", files)])
    road.contents_of(corpus, tmp_path)
    parts = {part.name: part for part in road.run(tmp_path)}
    assert list(parts)[-1] == "policies/decisions"
    assert not set(parts) & set(road.WITHOUT)
    assert all(part.cpu_seconds > 0 and part.peak_bytes > 10_000_000 for part in parts.values())
    kept = Store(tmp_path / "store").get("policies/decisions", "benchmark").read("kept")
    assert sorted(kept["path"].to_pylist()) == ["/a.py", "/mail.py"]
