"""Arrivals become tables: a content once, each occurrence once, nothing uncounted."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.corpus.arrivals import Incident, OversizedFile, Repository, SourceFile
from starsmith.corpus.contents import Tabulator, decode

REPOSITORY = Repository(source="folder", origin="/here", repo_name="here", directory_id="d" * 40)


@pytest.mark.parametrize(
    ("data", "status", "encoding"),
    [
        (b"", "empty", None),
        (b"int main;\n", "text", "UTF-8"),
        ("naïve ☃".encode(), "text", "UTF-8"),
        (b"a\0b", "binary", None),
        ("ÿþ".encode("utf-16"), "binary", None),
        ("Les élèves étaient déjà prêts à répéter la leçon. ".encode("latin-1") * 20, "text", None),
    ],
)
def test_decoding(data: bytes, status: str, encoding: str | None) -> None:
    got, found, text = decode(data)
    assert got == status
    if encoding:
        assert found == encoding
    if status == "text":
        assert text is not None and found is not None
        assert text.encode(found) == data


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_decoding_never_fails_and_its_text_fits_utf8(data: bytes) -> None:
    status, encoding, text = decode(data)
    assert status in schema.STATUSES
    assert (text is None) == (status != "text") == (encoding is None)
    if text is not None:
        text.encode("utf-8")


def test_a_content_is_stored_once_and_every_occurrence_is_kept() -> None:
    tabulator = Tabulator()
    for arrival in [
        SourceFile(path="/b", data=b"same"),
        SourceFile(path="/a", data=b"same"),
        SourceFile(path="/c", data=b"\0"),
        OversizedFile(path="/big", content_id="f" * 40, blob_id="e" * 40, length_bytes=10**9),
        Incident(path="/link", kind="link", detail="-> /etc/passwd"),
        REPOSITORY,
    ]:
        tabulator.add(arrival)
    contents, files, incidents = tabulator.take_contents(), tabulator.files(), tabulator.incidents()
    assert contents.schema.equals(schema.CONTENTS)
    assert files.schema.equals(schema.FILES)
    assert incidents.schema.equals(schema.INCIDENTS)
    assert dict(zip(contents["status"].to_pylist(), contents["text"].to_pylist(), strict=True)) == {
        "text": "same",
        "binary": None,
        "too_large": None,
    }
    by_path = {row["path"]: row for row in files.to_pylist()}
    assert sorted(by_path) == ["/a", "/b", "/big", "/c"]
    assert by_path["/a"]["content_id"] == by_path["/b"]["content_id"]
    assert by_path["/a"]["content_id"] == hashlib.sha1(b"blob 4\0same").hexdigest()
    assert by_path["/a"]["blob_id"] == hashlib.sha1(b"same").hexdigest()
    assert len(set(files["file_id"].to_pylist())) == 4
    assert incidents.to_pylist()[0]["kind"] == "link"


def test_a_stream_that_is_not_closed_is_our_own_fault() -> None:
    tabulator = Tabulator()
    tabulator.add(SourceFile(path="/a", data=b"x"))
    with pytest.raises(AssertionError):
        tabulator.files()


@pytest.mark.parametrize(("partitions", "expected"), [(1, 0), (16, 10), (256, 0xAB), (4096, 0xABC)])
def test_partitions_are_the_first_digits(partitions: int, expected: int) -> None:
    assert schema.partition_of("abc" + "0" * 37, partitions) == expected
