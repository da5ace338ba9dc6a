"""Documents from kept files, texts and findings."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starsmith import recipe
from starsmith.corpus import query, schema
from starsmith.documents import repositories
from starsmith.errors import InputError

File = tuple[str, str, str, str]  # repository, directory, path, text


def content_id(text: str) -> str:
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def make_tables(tmp_path: Path) -> Callable[..., query.Tables]:
    def make(
        files: list[File], findings: list[dict[str, Any]] | None = None, *, num_parts: int = 1
    ) -> query.Tables:
        contents, kept = {}, []
        for repo_name, directory_id, path, text in files:
            identifier = content_id(text)
            common = {"content_id": identifier, "blob_id": identifier, "length_bytes": len(text.encode())}
            contents[identifier] = common | {"status": "text", "src_encoding": "utf-8", "text": text}
            kept.append(
                common
                | {
                    "file_id": schema.file_id(repo_name, directory_id, path),
                    "source": "folder",
                    "origin": "here",
                    "repo_name": repo_name,
                    "directory_id": directory_id,
                    "path": path,
                    "star_events_count": 0,
                    "fork_events_count": 0,
                    "is_vendor": False,
                    "is_generated": False,
                    "detected_licenses": ["MIT"],
                    "license_type": "permissive",
                    "language": "Python",
                }
            )
        parts = []
        for number in range(num_parts):
            part = tmp_path / f"contents-{number}.parquet"
            rows = list(contents.values())[number::num_parts]
            pq.write_table(pa.Table.from_pylist(rows, schema=schema.CONTENTS), part)
            parts.append(part)
        pq.write_table(pa.Table.from_pylist(kept, schema=schema.KEPT), tmp_path / "kept.parquet")
        tables: dict[str, list[Path]] = {"kept": [tmp_path / "kept.parquet"], "contents": parts, "pii": []}
        if findings:
            pq.write_table(pa.Table.from_pylist(findings, schema=schema.PII), tmp_path / "pii.parquet")
            tables["pii"] = [tmp_path / "pii.parquet"]
        return tables

    return make


def refuse(text: str, findings: list[repositories.Finding], content_id: str) -> tuple[str, int]:
    raise AssertionError("nothing to redact here")


def build(tables: query.Tables, *, redact: repositories.Redact = refuse, **config: Any) -> list[dict[str, Any]]:
    found: Iterator[pa.Table] = repositories.build(tables, recipe.Documents(**config), seed=7, redact=redact)
    return [document for table in found for document in table.cast(schema.DOCUMENTS).to_pylist()]


FILES: list[File] = [
    ("b/two", "d1", "/z.py", "z = 1\n"),
    ("b/two", "d1", "/a.py", "a = 1\n"),
    ("b/two", "d2", "/a.py", "a = 2\n"),
    ("a/one", "d3", "/Ä.py", "umlaut = 'ä'\n"),
    ("a/one", "d3", "/b/c.py", "a = 1\n"),
]


def test_groups_by_root_and_sorts_by_path(make_tables: Callable[..., query.Tables]) -> None:
    documents = build(make_tables(FILES))
    shown = [(d["repo_name"], d["directory_id"], [f["path"] for f in d["files"]]) for d in documents]
    assert shown == [
        ("a/one", "d3", ["/b/c.py", "/Ä.py"]),
        ("b/two", "d1", ["/a.py", "/z.py"]),
        ("b/two", "d2", ["/a.py"]),
    ]
    texts = {(f["path"], f["text"]) for d in documents for f in d["files"]}
    assert texts == {(path, text) for _, _, path, text in FILES}
    roots = [("a/one", "d3"), ("b/two", "d1"), ("b/two", "d2")]
    assert [d["document_id"] for d in documents] == [repositories.document_id(*root, 0) for root in roots]


def test_versions_of_one_repository_share_a_split(make_tables: Callable[..., query.Tables]) -> None:
    documents = build(make_tables(FILES), validation_fraction=0.5)
    splits = {d["repo_name"]: set() for d in documents}
    for document in documents:
        splits[document["repo_name"]].add(document["split"])
    assert sorted(splits.values(), key=str) == [{"train"}, {"validation"}]


def test_released_id_is_what_git_says(make_tables: Callable[..., query.Tables], tmp_path: Path) -> None:
    files = [f for d in build(make_tables(FILES)) for f in d["files"]]
    for file in files:
        told = subprocess.run(
            ["git", "hash-object", "--stdin"], input=file["text"].encode(), capture_output=True, check=True
        )
        assert file["released_id"] == told.stdout.decode().strip() == file["content_id"]
        assert file["num_redactions"] == 0


def test_redaction_gets_ordered_findings_and_changes_the_released_id(
    make_tables: Callable[..., query.Tables],
) -> None:
    text = "écrire à a@b.c ou 1.2.3.4\n"
    identifier = content_id(text)
    spans = [("IP_ADDRESS", 20, 27), ("EMAIL", 11, 16)]
    findings = [
        {"content_id": identifier, "kind": kind, "start": start, "end": end, "detector": "rule", "score": 1.0}
        for kind, start, end in spans
    ]
    seen = []

    def redact(text: str, findings: list[repositories.Finding], content_id: str) -> tuple[str, int]:
        seen.append((findings, content_id))
        data = text.encode()
        for _, start, end in reversed(findings):
            data = data[:start] + b"<EMAIL>" + data[end:]
        return data.decode(), len(findings)

    tables = make_tables([("r", "d", "/a", text), ("r", "d", "/b", "clean\n")], findings)
    [document] = build(tables, redact=redact)
    first, second = document["files"]
    assert seen == [([("EMAIL", 11, 16), ("IP_ADDRESS", 20, 27)], identifier)]
    assert first["text"] == "écrire à <EMAIL> ou <EMAIL>\n"
    assert (first["num_redactions"], second["num_redactions"]) == (2, 0)
    assert first["content_id"] == identifier
    assert first["released_id"] == content_id(first["text"]) != identifier


def test_large_repositories_are_cut_between_files(make_tables: Callable[..., query.Tables]) -> None:
    sizes = [40, 60, 1, 250, 30, 70, 100]
    files = [("r", "d", f"/{number}", f"{number}" * size) for number, size in enumerate(sizes)]
    documents = build(make_tables(files), max_document_bytes=100)
    assert [[len(f["text"]) for f in d["files"]] for d in documents] == [[40, 60], [1], [250], [30, 70], [100]]
    assert [f["path"] for d in documents for f in d["files"]] == [path for _, _, path, _ in files]
    expected = [hashlib.sha1(f"r\0d\0{part}".encode()).hexdigest() for part in range(5)]
    assert [d["document_id"] for d in documents] == expected
    following = build(make_tables([*files, ("s", "d", "/0", "x")]), max_document_bytes=100)
    assert following[-1]["document_id"] == hashlib.sha1(b"s\0d\x000").hexdigest()


def test_buckets_tables_and_parts_change_nothing(
    make_tables: Callable[..., query.Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        (f"repo-{number % 7}", f"dir-{number % 2}", f"/{number}.py", f"x = {number}\n" * (number % 13 + 1))
        for number in range(200)
    ]
    whole = build(make_tables(files))
    monkeypatch.setattr(repositories, "BUCKET_BYTES", 100)
    monkeypatch.setattr(repositories, "BATCH_BYTES", 300)
    assert build(make_tables(files[::-1], num_parts=3)) == whole
    assert sum(len(document["files"]) for document in whole) == 200


def test_one_content_at_several_places_is_text_at_each(make_tables: Callable[..., query.Tables]) -> None:
    files = [("r", "d", "/a", "same\n"), ("r", "d", "/b", "same\n"), ("s", "d", "/a", "same\n")]
    documents = build(make_tables(files))
    assert [[f["text"] for f in d["files"]] for d in documents] == [["same\n", "same\n"], ["same\n"]]


def test_a_kept_file_without_text_is_an_error(make_tables: Callable[..., query.Tables]) -> None:
    tables = dict(make_tables(FILES))
    tables["contents"] = []
    with pytest.raises(InputError, match=r"a/one:/b/c\.py has no text"):
        build(tables)


def test_nothing_kept_is_no_documents(make_tables: Callable[..., query.Tables]) -> None:
    assert build({"kept": [], "contents": [], "pii": []}) == []


def test_temporary_files_are_gone_afterwards(make_tables: Callable[..., query.Tables], tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    tables = repositories.build(make_tables(FILES), recipe.Documents(), seed=1, redact=refuse, spill=spill)
    next(tables)
    assert any(spill.iterdir())
    tables.close()
    assert not any(spill.iterdir())
