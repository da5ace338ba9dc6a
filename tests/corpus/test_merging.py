"""Sorted parts merged into one: each content once, bounded row groups, the same bytes however they arrived."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import merging, schema


def contents(texts: list[str | None]) -> pa.Table:
    rows = [
        {
            "content_id": hashlib.sha1(repr(text).encode()).hexdigest(),
            "blob_id": "0" * 40,
            "length_bytes": len(text or ""),
            "status": "text" if text is not None else "binary",
            "src_encoding": None,
            "text": text,
        }
        for text in dict.fromkeys(texts)
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["content_id"])), schema=schema.CONTENTS)


def write(folder: Path, groups: list[list[str | None]]) -> list[Path]:
    parts = []
    for number, group in enumerate(groups):
        parts.append(folder / f"part{number}.parquet")
        merging.write_contents(parts[-1], [contents(group)])
    return parts


texts = st.lists(st.one_of(st.none(), st.integers(0, 40).map(lambda n: f"text {n} " * (n % 7))), max_size=12)


@settings(max_examples=40, deadline=None)
@given(groups=st.lists(texts, min_size=1, max_size=9), fan_in=st.integers(2, 4))
def test_merging_is_the_sorted_union(
    groups: list[list[str | None]], fan_in: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("merging")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "ROW_GROUP_BYTES", 60)
        patch.setattr(merging, "ROW_GROUP_ROWS", 3)
        patch.setattr(merging, "FAN_IN", fan_in)
        parts = write(folder, groups)
        merging.merge_contents(parts, folder / "one.parquet", folder)
        merging.merge_contents(parts[::-1], folder / "other.parquet", folder)
        everything = contents([text for group in groups for text in group])
        merging.write_contents(folder / "plain.parquet", [everything.slice(n, 1) for n in range(len(everything))])
    merged = (folder / "one.parquet").read_bytes()
    assert pq.read_table(folder / "one.parquet").equals(everything)
    assert merged == (folder / "other.parquet").read_bytes() == (folder / "plain.parquet").read_bytes()
    for table in merging.row_groups([folder / "one.parquet"]):
        sizes = [len(text or "") for text in table["text"].to_pylist()]
        assert len(sizes) <= 3 and sum(sizes[:-1]) < 60
    assert not [place for place in folder.iterdir() if place.is_dir()]  # scratch of inner rounds is gone


def test_row_groups_are_as_full_as_they_may_be(tmp_path: Path) -> None:
    merging.write_contents(tmp_path / "a.parquet", [contents([f"{n:05d}" * 100 for n in range(9_000)])])
    sizes = [table.num_rows for table in merging.row_groups([tmp_path / "a.parquet"], ["content_id"])]
    assert sizes == [4_096, 4_096, 808]
