"""The store: whole or not there, same bytes for same rows, and clear words when the machine refuses."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starsmith.corpus import store
from starsmith.errors import InputError, MachineError

ROWS = pa.table({"name": ["a", "b"], "value": [1, 2]})


def commit(root: Path, rows: pa.Table = ROWS, key: str = "k1") -> store.Result:
    draft = store.Store(root).draft("room/step", key)
    draft.write("numbers", 0, rows)
    return draft.commit({"step": "room/step", "key": key}, {"num_rows": rows.num_rows})


def test_a_draft_is_invisible_until_it_is_committed(tmp_path: Path) -> None:
    kept = store.Store(tmp_path)
    draft = kept.draft("room/step", "k1")
    draft.write("numbers", 0, ROWS)
    assert kept.find("room/step", "k1") is None
    draft.commit({"step": "room/step", "key": "k1"}, {})
    assert kept.get("room/step", "k1").read("numbers").equals(ROWS)


def test_equal_rows_give_equal_bytes_and_digests(tmp_path: Path) -> None:
    chunked = pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1)])
    one, other = commit(tmp_path / "one"), commit(tmp_path / "other", chunked)
    assert one.parts("numbers")[0].read_bytes() == other.parts("numbers")[0].read_bytes()
    assert one.digest() == other.digest()
    assert one.digest() != commit(tmp_path / "third", ROWS.slice(0, 1)).digest()


def test_finished_parts_of_a_killed_writer_stay_and_its_torn_ones_go(tmp_path: Path) -> None:
    script = (
        "import os, sys, pyarrow as pa\n"
        "from pathlib import Path\n"
        "from starsmith.corpus import store\n"
        "draft = store.Store(Path(sys.argv[1])).draft('room/step', 'k1')\n"
        "draft.write('numbers', 0, pa.table({'name': ['a', 'b'], 'value': [1, 2]}))\n"
        "place = draft.part('numbers', 1)\n"
        "(place.parent / f'.{place.name}.7.tmp').write_bytes(b'PAR1 torn')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -9
    draft = store.Store(tmp_path).draft("room/step", "k1")
    assert pq.read_table(draft.part("numbers", 0)).equals(ROWS)
    assert [place.name for place in draft.folder.rglob("*") if place.is_file()] == ["0000-0000.parquet"]


def test_scratch_of_a_killed_writer_is_no_part_of_the_result(tmp_path: Path) -> None:
    draft = store.Store(tmp_path).draft("room/step", "k1")
    with draft.scratch() as scratch:
        (scratch / "left").write_bytes(b"over")
        kept = list(scratch.iterdir())
    assert kept
    assert not scratch.exists()
    (scratch / "inner").mkdir(parents=True)
    (scratch / "inner" / "left").write_bytes(b"over")  # as a kill inside the block would leave it
    again = store.Store(tmp_path).draft("room/step", "k1")
    again.write("numbers", 0, ROWS)
    assert list(again.commit({}, {}).manifest["files"]) == ["numbers/0000-0000.parquet"]


def test_faults_name_each_damaged_file(tmp_path: Path) -> None:
    result = commit(tmp_path)
    assert list(result.faults()) == []
    place = result.parts("numbers")[0]
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    assert list(result.faults()) == [f"{place} has other bytes than when it was committed"]
    place.unlink()
    assert list(result.faults()) == [f"{place} is missing"]


def test_logs_are_listed_but_do_not_count(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        draft = store.Store(tmp_path).draft("step", f"k{number}")
        draft.write_file("metrics.jsonl", json.dumps({"seconds": number}).encode())
        draft.write_file("weights", b"same")
        digests.add(draft.commit({}, {}, logs=["metrics.jsonl"]).digest())
    assert len(digests) == 1


def test_a_damaged_manifest_is_said_with_the_cure(tmp_path: Path) -> None:
    result = commit(tmp_path)
    (result.folder / store.MANIFEST).write_text("{half")
    with pytest.raises(InputError, match="remove its folder"):
        store.Store(tmp_path).find("room/step", "k1")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    draft = store.Store(tmp_path).draft("room/step", "k1")
    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(MachineError, match="disk is full"):
        draft.write("numbers", 0, ROWS)
    with pytest.raises(MachineError, match="disk is full"):
        draft.write_file("name", b"data")
    assert [place for place in tmp_path.rglob("*") if place.is_file()] == []


def test_a_second_writer_is_told_at_once(tmp_path: Path) -> None:
    kept = store.Store(tmp_path)
    with kept.locked(), pytest.raises(MachineError, match="another run"), store.Store(tmp_path).locked():
        pass
    with kept.locked():
        pass
