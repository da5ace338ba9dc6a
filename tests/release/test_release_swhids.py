import gzip
import hashlib

import pyarrow.parquet as pq
import pytest
import report_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.release import swhids
from starsmith.release.swhids import qualified, write_swhids

HEX = "94a9ed024d3859793618152ea559a168bbcbb5e2"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return report_corpus.build(tmp_path_factory.mktemp("corpus"), num_files=120)


def test_qualifiers_stand_in_the_order_of_the_specification():
    found = qualified(
        HEX,
        path="/a;b%.py",
        origin="https://forge.test/x;y",
        snapshot_id="1" * 40,
        revision_id="2" * 40,
        directory_id="3" * 40,
    )
    assert found == (
        f"swh:1:cnt:{HEX};origin=https://forge.test/x%3By;visit=swh:1:snp:{'1' * 40}"
        f";anchor=swh:1:rev:{'2' * 40};path=/a%3Bb%25.py"
    )


def test_without_a_revision_the_anchor_is_the_root_directory():
    assert (
        qualified(HEX, path="/a", directory_id="3" * 40) == f"swh:1:cnt:{HEX};anchor=swh:1:dir:{'3' * 40};path=/a"
    )


@pytest.mark.parametrize("origin", ["/home/jane/secret", "relative/folder", "file:///home/jane"])
def test_a_folder_on_a_disk_is_no_origin(origin):
    assert "origin" not in qualified(HEX, path="/a", origin=origin)


def test_package_urls_are_origins():
    assert ";origin=pkg:npm/%2540babel/core@7;" in qualified(HEX, path="/a", origin="pkg:npm/%40babel/core@7")


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30))
def test_any_path_survives_the_reference_parser(name):
    swhid = pytest.importorskip("swh.model.swhids", reason="the reference implementation is not installed")
    line = qualified(HEX, path=f"/{name}", origin="https://forge.test/a", revision_id="2" * 40)
    assert len(line.splitlines()) == 1, "the list is read by lines"
    parsed = swhid.QualifiedSWHID.from_string(line)
    assert parsed.object_id.hex() == HEX and parsed.origin == "https://forge.test/a"
    assert parsed.path == f"/{name}".encode()


def test_the_list_has_each_kept_file_once_and_is_sorted(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(swhids, "_GROUP_ROWS", 7)
    facts = write_swhids(tables, tmp_path)
    lines = gzip.decompress((tmp_path / "swhids.txt.gz").read_bytes()).decode().splitlines()
    kept = report_corpus.rows(num_files=120)["kept"]
    assert facts == {"num_swhids": len(kept), "num_contents": len({row["content_id"] for row in kept})}
    cores = [line.partition(";")[0] for line in lines]
    assert cores == sorted(f"swh:1:cnt:{row['content_id']}" for row in kept)
    table = pq.read_table(tmp_path / "swhids.parquet")
    assert table["qualified_swhid"].to_pylist() == lines and table["swhid"].to_pylist() == cores
    assert set(table["file_id"].to_pylist()) == {row["file_id"] for row in kept}


def test_the_same_tables_give_the_same_bytes(tables, tmp_path):
    digests = []
    for name in ("a", "b"):
        write_swhids(tables, tmp_path / name)
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / name).iterdir())])
    assert digests[0] == digests[1]
    header = (tmp_path / "a" / "swhids.txt.gz").read_bytes()[:8]
    assert header[3] == 0 and header[4:] == b"\0\0\0\0", "neither a name nor a time in gzip's header"


def test_no_kept_files_are_an_empty_list(tmp_path):
    assert write_swhids({"kept": []}, tmp_path) == {"num_swhids": 0, "num_contents": 0}
    assert gzip.decompress((tmp_path / "swhids.txt.gz").read_bytes()) == b""
