"""Signals over partitions: whatever earlier results hold, the bytes are those of a fresh run, and nothing is
measured twice."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.corpus.merging import write_contents
from starsmith.corpus.store import Result, Store, write_parquet
from starsmith.steps import measuring
from starsmith.steps.step import Context, Earlier

_measured: list[str] = []


def content_id(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


def contents_result(store: Store, numbers: Iterable[int]) -> Result:
    """A committed result like that of the step `contents`, in two partitions."""
    ids = sorted({content_id(number): number for number in numbers}.items())
    draft = store.draft("contents", str(len(list(store.root.glob("contents/*")))))
    for partition in (0, 1):
        here = [(key, number) for key, number in ids if (key >= "8") == bool(partition)]
        if not here:
            continue
        rows = {
            "content_id": [key for key, _ in here],
            "blob_id": [key for key, _ in here],
            "length_bytes": [1] * len(here),
            "status": ["text"] * len(here),
            "src_encoding": ["UTF-8"] * len(here),
            "text": [str(number) * 50 for _, number in here],
        }
        write_contents(draft.part("contents", partition), [pa.table(rows, schema=schema.CONTENTS)])
        write_parquet(draft.part("files", partition), files_of(here))
    return draft.commit({"params": {"partitions": 2}}, {})


def files_of(here: list[tuple[str, int]]) -> pa.Table:
    rows = [
        {
            **dict.fromkeys(schema.FILES.names),
            "file_id": content_id(1_000 + 2 * number + copy),
            "source": "folder",
            "origin": "o",
            "repo_name": "r",
            "directory_id": "d",
            "path": f"/{number}-{copy}",
            "content_id": key,
            "blob_id": key,
            "length_bytes": 1,
            "star_events_count": 0,
            "fork_events_count": 0,
        }
        for key, number in here
        for copy in range(1 + number % 2)
    ]
    return pa.Table.from_pylist(rows, schema=schema.FILES).sort_by("file_id")


def findings(contents: pa.Table) -> pa.Table:
    """As many rows for a content as its number's last digit, in an order that is not that of any column."""
    _measured.extend(contents["content_id"].to_pylist())
    keys, values = [], []
    for key, text in zip(contents["content_id"].to_pylist(), contents["text"].to_pylist(), strict=True):
        number = int(text[: len(text) // 50])
        keys += [key] * (number % 4)
        values += [(number * 7 + place * 5) % 11 for place in range(number % 4)]
    return pa.table({"content_id": pa.array(keys, pa.string()), "value": pa.array(values, pa.int64())})


def labels(files: pa.Table, contents: pa.Table) -> pa.Table:
    _measured.extend(files["file_id"].to_pylist())
    assert pc.all(pc.is_in(files["content_id"], contents["content_id"].combine_chunks())).as_py() is not False
    ordered = files.sort_by("file_id")
    return ordered.select(["file_id", "content_id", "path"])


def in_this_process(function: Callable[[Any], Any], items: list[Any], **_: Any) -> None:
    """Where what was measured can be seen."""
    for item in items:
        function(item)


def run(store: Store, contents: Result, earlier: list[Earlier], kind: str) -> Result:
    draft = store.draft(kind, str(len(list(store.root.glob(f"{kind}/*")))))
    context = Context(inputs={"contents": contents}, draft=draft, workers=1, earlier=earlier)
    _measured.clear()
    if kind == "findings":
        measuring.measure_contents(context, kind, findings)
    else:
        measuring.measure_files(context, kind, labels)
    return draft.commit({}, {})


@pytest.mark.parametrize("kind", ["findings", "labels"])
@settings(max_examples=25, deadline=None)
@given(
    before=st.lists(st.frozensets(st.integers(0, 30), min_size=1), max_size=3),
    now=st.frozensets(st.integers(0, 30), min_size=1),
)
def test_taking_over_gives_the_bytes_of_a_fresh_run(
    kind: str, before: list[frozenset[int]], now: frozenset[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("measuring"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "BATCH_BYTES", 400)
        patch.setattr(measuring, "map_parallel", in_this_process)
        earlier: list[Earlier] = []
        for numbers in before:
            contents = contents_result(store, numbers)
            earlier.append(Earlier(result=run(store, contents, earlier, kind), inputs={"contents": contents}))
        contents = contents_result(store, now)
        continued = run(store, contents, earlier[::-1], kind)
        new = sorted(now - frozenset().union(*before))
        expected = (
            [content_id(number) for number in new]
            if kind == "findings"
            else [content_id(1_000 + 2 * number + copy) for number in new for copy in range(1 + number % 2)]
        )
        assert sorted(_measured) == sorted(expected)
        fresh = run(store, contents, [], kind)
    assert continued.digest() == fresh.digest()


def test_an_earlier_result_in_other_partitions_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    contents = contents_result(store, range(5))
    result = run(store, contents, [], "findings")
    other = Result(contents.folder, {**contents.manifest, "params": {"partitions": 16}})
    again = run(store, contents, [Earlier(result=result, inputs={"contents": other})], "findings")
    assert len(_measured) == 5
    assert again.digest() == result.digest()
