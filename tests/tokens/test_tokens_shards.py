"""Shards: what was written is read, by one process or many, and damage is refused."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from token_documents import AWKWARD_TEXTS, make_document, table_of

from starsmith.errors import InputError
from starsmith.tokens import shards
from starsmith.tokens.shards import Shards, encode_documents, write_manifest, write_shards
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts


def test_every_field_is_read_back(
    documents: list[dict[str, Any]], shard_folder: Path, tokenizer: Tokenizer
) -> None:
    opened = Shards(shard_folder)
    for split in shards.SPLITS:
        expected = [document for document in documents if document["split"] == split]
        assert opened.num_documents(split) == len(expected)
        for number, document in enumerate(expected):
            found = opened.document(split, number)
            assert found.document_id == document["document_id"]
            assert tokenizer.decode(found.name_tokens).decode() == found.repo_name == document["repo_name"]
            assert len(found.files) == len(document["files"])
            for file, original in zip(found.files, document["files"], strict=True):
                for key in ("file_id", "content_id", "released_id", "path", "language", "license_type"):
                    assert getattr(file, key) == original[key]
                assert list(file.detected_licenses) == original["detected_licenses"]
                assert tokenizer.decode(file.path_tokens).decode() == original["path"] + "\n"
                assert tokenizer.decode(file.text_tokens).decode() == original["text"]
                np.testing.assert_array_equal(file.text_tokens, tokenizer.encode([original["text"]])[0])


def test_tokens_are_memory_mapped(shard_folder: Path) -> None:
    tokens = Shards(shard_folder).document("train", 0).files[0].text_tokens
    root: object = tokens
    while isinstance(root, np.ndarray) and not isinstance(root, np.memmap):
        root = root.base
    assert isinstance(root, np.memmap)
    assert not tokens.flags.writeable


def test_the_manifest_counts(documents: list[dict[str, Any]], shard_folder: Path) -> None:
    manifest = json.loads((shard_folder / "tokens.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]] == ["shard-00000", "shard-00001"]
    for split in shards.SPLITS:
        chosen = [document for document in documents if document["split"] == split]
        files = [file for document in chosen for file in document["files"]]
        counts = manifest["splits"][split]
        assert counts["num_documents"] == len(chosen)
        assert counts["num_files"] == len(files)
        assert counts["text_bytes"] == sum(len(file["text"].encode()) for file in files)
    total_bytes = sum((shard_folder / f"shard-0000{number}.tokens").stat().st_size - 64 for number in (0, 1))
    assert sum(manifest["splits"][split]["num_tokens"] for split in shards.SPLITS) * 2 == total_bytes


def test_worker_processes_write_the_same_bytes(
    documents: list[dict[str, Any]], shard_folder: Path, tmp_path: Path
) -> None:
    jobs = []
    folder = tmp_path / "out"
    folder.mkdir()
    for number, chosen in enumerate((documents[:4], documents[4:])):
        part = tmp_path / f"part-{number}.parquet"
        pq.write_table(table_of(chosen), part)
        jobs.append((part, shard_folder / "tokenizer.json", folder, f"shard-{number:05d}"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        num_bytes = pool.starmap(encode_documents, jobs[::-1])
    write_manifest(folder, shard_folder / "tokenizer.json")
    assert {path.name for path in folder.iterdir()} == {path.name for path in shard_folder.iterdir()}
    for path in folder.iterdir():
        assert path.read_bytes() == (shard_folder / path.name).read_bytes(), path.name
    assert sum(num_bytes) == sum(len(f["text"].encode()) for d in documents for f in d["files"])


def test_progress_counts_bytes_of_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    seen: list[int] = []
    tables = [table_of([make_document("a", ["xyz", "é"])]), table_of([]), table_of([make_document("b", ["12"])])]
    write_shards(tables, tokenizer, tmp_path, progress=seen.append)
    assert seen == [5, 0, 2]
    assert Shards(tmp_path).num_documents("train") == 2


def test_no_documents_is_a_folder_without_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_shards([], tokenizer, tmp_path)
    opened = Shards(tmp_path)
    assert (opened.num_documents("train"), opened.num_documents("validation")) == (0, 0)


def test_the_fingerprint_follows_the_content(write_folder: Callable[..., Path]) -> None:
    first = Shards(write_folder([make_document("a", AWKWARD_TEXTS)])).fingerprint
    assert Shards(write_folder([make_document("a", AWKWARD_TEXTS)])).fingerprint == first
    assert Shards(write_folder([make_document("a", [*AWKWARD_TEXTS, "more"])])).fingerprint != first


@pytest.fixture
def damaged(shard_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shard_folder, tmp_path / "copy"))


def truncate(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2])


def flip(folder: Path, name: str, place: int) -> None:
    data = bytearray((folder / name).read_bytes())
    data[place] ^= 1
    (folder / name).write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["shard-00000.tokens", "shard-00001.index.arrow"])
def test_truncated_shards_are_refused(damaged: Path, name: str) -> None:
    truncate(damaged, name)
    with pytest.raises(InputError, match="truncated or"):
        Shards(damaged, verify=False)


@pytest.mark.parametrize(("name", "place"), [("shard-00000.tokens", 200), ("shard-00001.index.arrow", 900)])
def test_altered_shards_are_refused(damaged: Path, name: str, place: int) -> None:
    flip(damaged, name, place)
    with pytest.raises(InputError, match="was altered"):
        Shards(damaged)


def test_missing_parts_are_refused(damaged: Path) -> None:
    (damaged / "shard-00000.tokens").unlink()
    with pytest.raises(InputError, match="is missing"):
        Shards(damaged)
    (damaged / "tokens.json").unlink()
    with pytest.raises(InputError, match=r"no tokens\.json"):
        Shards(damaged)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 2', "format version 2, this Starsmith reads 1"),
        ('"format": "starsmith-tokens"', '"format": "other"', "not a manifest of token shards"),
        ('"length_bytes": ', '"length_bytes": 1', "was altered"),
        ("{", "", "is damaged"),
    ],
)
def test_altered_manifests_are_refused(damaged: Path, old: str, new: str, message: str) -> None:
    path = damaged / "tokens.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        Shards(damaged)


def test_foreign_shards_are_refused(damaged: Path, tmp_path: Path) -> None:
    other = train_on_texts(["other text other text"], vocab_size=400)
    other.save(tmp_path / "other.json")
    with pytest.raises(InputError, match="another tokenizer"):
        write_manifest(damaged, tmp_path / "other.json")
    other.save(damaged / "tokenizer.json")
    with pytest.raises(InputError, match="not the tokenizer of these shards"):
        Shards(damaged)
    (damaged / "shard-00000.tokens").write_bytes(b"\x93NUMPY" + bytes(100))
    with pytest.raises(InputError, match="not a token shard"):
        write_manifest(damaged, tmp_path / "other.json")


def test_an_incomplete_shard_is_refused(damaged: Path) -> None:
    (damaged / "shard-00001.index.arrow").unlink()
    with pytest.raises(InputError, match="the shard is incomplete"):
        write_manifest(damaged, damaged / "tokenizer.json")
    shutil.copy(damaged / "shard-00000.index.arrow", damaged / "shard-00001.index.arrow")
    with pytest.raises(InputError, match="do not belong together"):
        write_manifest(damaged, damaged / "tokenizer.json")
