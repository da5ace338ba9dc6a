import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import report_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.release import dataset
from starsmith.release.dataset import columns, config_name, folder_names, write_dataset

STACK_V2 = [
    "blob_id",
    "directory_id",
    "path",
    "content_id",
    "detected_licenses",
    "license_type",
    "repo_name",
    "snapshot_id",
    "revision_id",
    "branch_name",
    "visit_date",
    "revision_date",
    "committer_date",
    "github_id",
    "star_events_count",
    "fork_events_count",
    "gha_license_id",
    "gha_event_created_at",
    "gha_created_at",
    "gha_language",
    "src_encoding",
    "language",
    "is_vendor",
    "is_generated",
    "length_bytes",
    "extension",
]
CONFIG = recipe.Release()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return report_corpus.build(tmp_path_factory.mktemp("corpus"), num_files=160)


@pytest.fixture(scope="module")
def released(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    return folder, write_dataset(tables, folder, CONFIG)


def _rows(folder):
    return [row for part in sorted(folder.glob("data/*/*.parquet")) for row in pq.read_table(part).to_pylist()]


def _digests(folder):
    places = sorted(place for place in folder.rglob("*") if place.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in places}


def _sha1_git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_columns_are_the_stacks_in_its_order_and_then_ours(released):
    folder, facts = released
    expected = [*STACK_V2, "file_id", "split", "released_id", "num_redactions", "content"]
    for part in folder.glob("data/*/*.parquet"):
        assert pq.read_schema(part).names == expected == facts["columns"]
    assert columns(include_text=False).names == expected[:-1]


def test_every_kept_file_is_released_once_under_its_language(released):
    folder, facts = released
    kept = report_corpus.rows(num_files=160)["kept"]
    rows = _rows(folder)
    assert sorted(row["file_id"] for row in rows) == sorted(row["file_id"] for row in kept)
    assert facts["num_files"] == len(kept) == sum(row["files"] for row in facts["languages"])
    for row in facts["languages"]:
        parts = list((folder / "data" / row["folder"]).glob("*.parquet"))
        assert {name for part in parts for name in pq.read_table(part)["language"].to_pylist()} == {
            row["language"]
        }
        assert sum(pq.read_metadata(part).num_rows for part in parts) == row["files"]
    assert {"C-Sharp", "C++", "F-Star"} <= {place.name for place in (folder / "data").iterdir()}


def test_both_digests_can_be_verified_by_a_user(released):
    folder, facts = released
    texts = {row["content_id"]: row for row in report_corpus.rows(num_files=160)["contents"]}
    redacted = 0
    for row in _rows(folder):
        assert _sha1_git(row["content"].encode()) == row["released_id"]
        source = texts[row["content_id"]]["text"].encode(row["src_encoding"])
        assert _sha1_git(source) == row["content_id"] and hashlib.sha1(source).hexdigest() == row["blob_id"]
        redacted += row["released_id"] != row["content_id"] and row["src_encoding"] == "UTF-8"
        assert report_corpus.EMAIL not in row["content"]
    assert redacted > 0, "redacted texts have a digest of their own"
    assert facts["verified"] == {
        "released_id": facts["num_files"], "content_id": facts["num_files"], "content_id_not_reencodable": 0,
    }  # fmt: skip


def test_rows_are_ordered_and_splits_are_files(released):
    folder, _ = released
    for part in folder.glob("data/*/*.parquet"):
        rows = pq.read_table(part, columns=["repo_name", "directory_id", "path", "split"]).to_pylist()
        places = [(row["repo_name"], row["directory_id"], row["path"]) for row in rows]
        assert places == sorted(places)
        assert {row["split"] for row in rows} == {part.name.partition("-")[0]}


def test_the_same_tables_give_the_same_bytes_in_any_order_and_partitioning(released, tmp_path):
    folder, facts = released
    rows = report_corpus.rows(num_files=160)
    parts = {}
    for name, table in rows.items():
        turned = table[::-1]
        parts[name] = [
            *report_corpus.write(tmp_path / "one", name, turned[::2]),
            *report_corpus.write(tmp_path / "two", name, turned[1::2]),
        ]
    again = tmp_path / "again"
    assert write_dataset(parts, again, CONFIG, memory_limit="200MB") == facts
    assert _digests(again) == _digests(folder)


def test_shards_and_row_groups_are_cut_by_the_rows_alone(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_GROUP_ROWS", 3)
    facts = write_dataset(tables, tmp_path, CONFIG, shard_bytes=20_000)
    assert len({row["file_id"] for row in _rows(tmp_path)}) == facts["num_files"]
    python = sorted((tmp_path / "data" / "Python").glob("train-*.parquet"))
    assert len(python) > 1
    assert [part.name for part in python] == [
        f"train-{index:05d}-of-{len(python):05d}.parquet" for index in range(len(python))
    ]
    for part in python:
        metadata = pq.read_metadata(part)
        sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        assert all(size == 3 for size in sizes[:-1]) and sizes[-1] <= 3


def test_identifiers_only(tables, tmp_path):
    facts = write_dataset(tables, tmp_path, recipe.Release(include_text=False))
    assert facts["verified"]["released_id"] == facts["num_files"]
    assert all("content" not in row for row in _rows(tmp_path))


def test_leftovers_of_an_earlier_call_are_gone(tables, tmp_path):
    stale = tmp_path / "data" / "Cobol" / "train-00000-of-00001.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    write_dataset(tables, tmp_path, CONFIG)
    assert not stale.exists() and {place.name for place in tmp_path.iterdir()} == {"data", "notices"}


def test_notices_name_the_licence_texts_of_released_repositories(released):
    folder, facts = released
    rows = pq.read_table(folder / "notices" / "notices.parquet").to_pylist()
    assert len(rows) == facts["num_notices"] == 1
    assert rows[0]["path"] == "/LICENSE" and rows[0]["licenses"] == ["MIT"]


def _with(tables, tmp_path, name, change):
    rows = report_corpus.rows(num_files=160)
    change(rows)
    return {**tables, name: report_corpus.write(tmp_path / "changed", name, rows[name])}


def _files(rows):
    return [file for document in rows["documents"] for file in document["files"]]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("documents", lambda rows: _files(rows)[0].update(text="other"), "released_id of .* is not the hash"),
        ("documents", lambda rows: _files(rows)[0].update(file_id="0" * 40), "were not kept"),
        ("documents", lambda rows: rows["documents"].append(rows["documents"][0]), "is released twice"),
        ("documents", lambda rows: _files(rows)[0].update(content_id="0" * 40), "disagree on a content"),
        ("kept", lambda rows: [row.update(blob_id="0" * 40) for row in rows["kept"]], "content_id of .* is not"),
        ("contents", lambda rows: rows["contents"].clear(), "is not in the corpus"),
    ],
)  # fmt: skip
def test_what_cannot_be_verified_is_not_released(tables, tmp_path, name, change, fault):
    with pytest.raises(AssertionError, match=fault):
        write_dataset(_with(tables, tmp_path, name, change), tmp_path / "out", CONFIG)
    assert not list(tmp_path.glob("out/**/*.parquet")), "nothing half-written stays"


def test_texts_made_equal_by_redaction_are_counted(tables, tmp_path):
    def equal(rows):
        redacted = [file for file in _files(rows) if file["num_redactions"]]
        redacted[1].update(text=redacted[0]["text"], released_id=redacted[0]["released_id"])

    assert (
        write_dataset(_with(tables, tmp_path, "documents", equal), tmp_path / "out", CONFIG)[
            "equal_after_redaction"
        ]
        == 1
    )


def test_an_empty_corpus_is_an_empty_release(tmp_path):
    names = ("kept", "documents", "contents", "files", "license_texts")
    facts = write_dataset({name: [] for name in names}, tmp_path, CONFIG)
    assert facts["num_files"] == 0 and facts["languages"] == [] and list(tmp_path.glob("data/*/*")) == []


def test_folder_names_are_safe_and_distinct():
    names = folder_names(
        ["C", "C++", "C#", "F*", "F#", "Objective-C++", "Vim Help File", "A/B", "A B", "a_b", ".x", "日本"]
    )
    assert names["C"] == "C" and names["C++"] == "C++" and names["C#"] == "C-Sharp" and names["F*"] == "F-Star"
    assert names["A B"] != names["a_b"] and len({name.lower() for name in names.values()}) == len(names)
    assert config_name("C#", "C-Sharp") == "C#" and config_name("F*", "F-Star") == "F-Star"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=12))
def test_any_language_gets_a_safe_folder(languages):
    names = folder_names(languages)
    assert len({name.lower() for name in names.values()}) == len(languages)
    for name in names.values():
        assert name.isascii() and not set(name) & set("*?[]{}/\\:#% ") and not name.startswith(".")


def test_schema_types_are_those_of_the_files(released):
    folder, _ = released
    part = next(folder.glob("data/*/*.parquet"))
    assert pq.read_schema(part).field("visit_date").type == pa.timestamp("us", tz="UTC")
    assert pq.read_schema(part).field("detected_licenses").type == pa.list_(pa.string())
