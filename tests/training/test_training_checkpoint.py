"""Checkpoints: round trips, faults on disk and in between, several ranks (see `checkpoint_processes.py`)."""

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from starsmith.errors import InputError, MachineError
from starsmith.training.checkpoint import FOLDER, Checkpoint, Checkpoints, faults, name_of
from starsmith.training.slices import DTYPES
from starsmith.training.world import ALONE

LINEAGE = pa.table({"step": [1, 1, 2], "repo_name": ["a", "b", None]})


def checkpoints_of(run, **options):
    return Checkpoints(run, ALONE, **{"keep": 2, "is_scheduled": lambda step: True, **options})


def state(step, tensors=None, facts=None):
    tensors = {"model.a": torch.full((5, 3), float(step))} if tensors is None else tensors
    return Checkpoint(step=step, tensors=tensors, facts=facts or {}, lineage=LINEAGE)


def saved_steps(run, steps, **options):
    with checkpoints_of(run, **options) as checkpoints:
        for step in steps:
            checkpoints.save(state(step))
        checkpoints.finish()
    return checkpoints


def names(run):
    return sorted(place.name for place in (run / FOLDER).iterdir())


def files(place):
    return {file.name: file.read_bytes() for file in sorted(place.iterdir())}


def some_tensors(seed=0):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=random)

    return {
        "model.layer.weight": draw(7, 5), "model.bias": draw(3), "model.é": draw(2, 1, 4).to(torch.bfloat16),
        "model.none": draw(0, 4), "model.narrow": draw(4, 0), "exp_avg.layer.weight": draw(7, 5),
        "scalar": draw(), "count": torch.tensor(3), "mask": draw(9) > 0, "transposed": draw(4, 6).T,
        "double": draw(2).double(), "half": draw(5, 1).half(), "bytes": torch.arange(5, dtype=torch.uint8),
        "ints": torch.arange(6, dtype=torch.int32).view(2, 3),
    }  # fmt: skip


@pytest.fixture(scope="session")
def file_calls():
    """Sets what is called before each call that opens a file for writing or renames one, with the place."""
    current = [lambda place: None]

    def hook(event, arguments):
        if event == "os.rename" or (event == "open" and arguments[1] and set(arguments[1]) & set("wxa")):
            current[0](str(arguments[0]))

    sys.addaudithook(hook)

    @contextlib.contextmanager
    def set_to(act):
        current[0] = act
        try:
            yield
        finally:
            current[0] = lambda place: None

    return set_to


# Round trips


def test_what_is_saved_comes_back(tmp_path):
    tensors, facts = some_tensors(), {"loader": {"step": 4}, "losses": [0.1, None], "name": "é"}
    checkpoints = checkpoints_of(tmp_path)
    checkpoints.save(state(4, tensors, facts))
    checkpoints.finish()
    saved = checkpoints.latest()
    assert (saved.step, saved.facts, saved.lineage) == (4, facts, LINEAGE)
    found = {name: torch.full_like(tensor, 1) for name, tensor in tensors.items()}
    saved.fill(found)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    weights = dict(saved.weights())
    assert weights.keys() == {"layer.weight", "bias", "é", "none", "narrow"}
    assert all(torch.equal(weight, tensors[f"model.{name}"]) for name, weight in weights.items())
    weights["bias"].zero_()
    assert list(faults(saved.place)) == []


def test_a_file_is_what_the_library_writes(tmp_path):
    tensors = {name: tensor.contiguous() for name, tensor in some_tensors().items() if len(tensor.shape)}
    tensors = {
        name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.float32 and tensor.numel()
    }
    checkpoints = checkpoints_of(tmp_path)
    checkpoints.save(state(1, tensors))
    checkpoints.finish()
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    assert (checkpoints.latest().place / "rank-00000.safetensors").read_bytes() == (
        tmp_path / "expected"
    ).read_bytes()


def test_the_same_state_is_the_same_bytes(tmp_path):
    for run in ("a", "b"):
        checkpoints = checkpoints_of(tmp_path / run)
        tensors = some_tensors()
        if run == "b":
            tensors = dict(reversed(tensors.items()))
            checkpoints.save(state(1, some_tensors(seed=1)))  # host memory that was used before
        checkpoints.save(state(2, tensors, {"x": 1, "y": 2} if run == "a" else {"y": 2, "x": 1}))
        checkpoints.finish()
    place = Path(FOLDER) / name_of(2)
    assert files(tmp_path / "a" / place) == files(tmp_path / "b" / place)
    assert {Path(name).suffix for name in files(tmp_path / "a" / place)} == {".safetensors", ".json", ".parquet"}


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from([*DTYPES]), min_size=5, max_size=5),
    slab_bytes=st.sampled_from([1, 7, 64, 1 << 10]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_survives_changes_after_save(
    shapes, dtypes, slab_bytes, seed, tmp_path, file_calls, monkeypatch
):
    """The thread is held until every tensor has been overwritten."""
    monkeypatch.setattr("starsmith.training.slices._SLAB_BYTES", slab_bytes)
    random = torch.Generator().manual_seed(seed)
    tensors = {
        f"model.{number}": torch.randint(0, 2, shape, generator=random).to(dtype)
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
    }
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    shutil.rmtree(tmp_path / FOLDER, ignore_errors=True)
    checkpoints, go_on = checkpoints_of(tmp_path), threading.Event()
    facts = {"seen": [1]}
    with file_calls(lambda place: "rank-" in place and go_on.wait()):
        checkpoints.save(state(1, tensors, facts))
        for tensor in tensors.values():
            tensor.copy_(1 - tensor.to(torch.uint8))
        facts["seen"].append(2)
        assert names(tmp_path) == [f"{name_of(1)}.partial"]
        go_on.set()
        checkpoints.finish()
    saved = checkpoints.latest()
    assert saved.facts == {"seen": [1]}
    assert {name: tensor.tolist() for name, tensor in saved.weights()} == {
        name.removeprefix("model."): tensor.tolist() for name, tensor in expected.items()
    }


def test_a_save_waits_for_the_one_before(tmp_path, file_calls):
    go_on = threading.Event()
    checkpoints = checkpoints_of(tmp_path)
    with file_calls(lambda place: name_of(1) in place and go_on.wait()):
        checkpoints.save(state(1))
        threading.Timer(0.05, go_on.set).start()
        checkpoints.save(state(2))
        assert name_of(1) in names(tmp_path)
        checkpoints.finish()
    assert checkpoints.latest().step == 2


def test_only_what_fits_is_filled(tmp_path):
    saved = saved_steps(tmp_path, [1]).latest()
    untouched = torch.zeros(5, 3)
    for other, message in (
        ({"model.b": torch.zeros(2)}, "holds no model.b"),
        ({"model.a": torch.zeros(3, 5)}, r"float32\[5, 3\] in the checkpoint .*, but float32\[3, 5\] here"),
        ({"model.a": torch.zeros(5, 3).half()}, r"but float16\[5, 3\] here"),
    ):
        with pytest.raises(InputError, match=message):
            saved.fill({"model.a": untouched, **other})
    assert not untouched.any()
    (saved.place / "rank-00000.safetensors").write_bytes(b"gone since")
    with pytest.raises(MachineError, match=r"cannot read model.a from .*rank-00000.safetensors"):
        saved.fill({"model.a": untouched})
    with pytest.raises(MachineError, match=r"cannot read model.a"):
        next(saved.weights())


# What stays


def test_keeps_the_newest_and_every_so_many(tmp_path):
    saved_steps(tmp_path, range(2, 17, 2), keep=2, keep_every=6)
    assert names(tmp_path) == [name_of(step) for step in (6, 12, 14, 16)]


def test_checkpoints_outside_the_schedule_go(tmp_path):
    options = {"keep": 2, "keep_every": 3, "is_scheduled": lambda step: step % 2 == 0}
    saved_steps(tmp_path, [2, 3, 4, 5], **options)
    assert names(tmp_path) == [name_of(step) for step in (2, 4, 5)]
    saved_steps(tmp_path, [6], **options)
    assert names(tmp_path) == [name_of(step) for step in (4, 6)]
    saved_steps(tmp_path, [7], **{**options, "keep": 1})
    assert names(tmp_path) == [name_of(step) for step in (6, 7)]


def test_a_run_can_go_back(tmp_path):
    checkpoints = saved_steps(tmp_path, [10, 20, 30, 40], keep=9)
    assert checkpoints.at_or_before(9) is None
    assert [checkpoints.at_or_before(step).step for step in (10, 25, 99)] == [10, 20, 40]
    checkpoints.drop_after(20)
    assert names(tmp_path) == [name_of(10), name_of(20)]
    assert checkpoints.latest().step == 20


def test_another_checkpoint_of_the_same_step_is_replaced(tmp_path):
    checkpoints = saved_steps(tmp_path, [1, 2])
    checkpoints.save(state(2, {"model.a": torch.full((2,), 7.0)}))
    checkpoints.finish()
    assert dict(checkpoints.latest().weights())["a"].tolist() == [7.0, 7.0]
    assert names(tmp_path) == [name_of(1), name_of(2)]


def test_a_replaced_checkpoint_comes_back_when_its_successor_did_not(tmp_path):
    checkpoints = saved_steps(tmp_path, [1, 2])
    place = tmp_path / FOLDER / name_of(2)
    place.rename(place.with_name(f"{name_of(2)}.replaced"))
    assert checkpoints.latest().step == 2


# Damage


def edit_manifest(place, change):
    manifest = json.loads((place / "manifest.json").read_bytes())
    change(manifest)
    (place / "manifest.json").write_text(json.dumps(manifest))


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "a byte of a shard": (lambda place: flip(place / "rank-00000.safetensors", -1), "other bytes"),
    "a byte of the lineage": (lambda place: flip(place / "lineage.parquet", 4), "other bytes"),
    "a cut shard": (
        lambda place: (place / "rank-00000.safetensors").write_bytes(b"short"), "has 5 bytes instead of",
    ),
    "no shard": (lambda place: (place / "rank-00000.safetensors").unlink(), "rank-00000.safetensors is missing"),
    "no facts": (lambda place: (place / "state.json").unlink(), "state.json is missing"),
    "a shard that is a folder": (
        lambda place: [(place / "state.json").unlink(), (place / "state.json").mkdir()], "bytes instead of",
    ),
    "no manifest": (lambda place: (place / "manifest.json").unlink(), "manifest cannot be used"),
    "half a manifest": (
        lambda place: (place / "manifest.json").write_bytes((place / "manifest.json").read_bytes()[:99]),
        "manifest cannot be used",
    ),
    "a manifest of another kind": (lambda place: (place / "manifest.json").write_text("[]"), "cannot be used"),
    "an edited manifest": (
        lambda place: edit_manifest(place, lambda manifest: manifest["tensors"]["model.a"].update(shape=[3, 5])),
        "it was changed",
    ),
    "a manifest without a file": (
        lambda place: edit_manifest(place, lambda manifest: manifest["files"].pop("state.json")), "it was changed",
    ),
    "another format": (
        lambda place: edit_manifest(place, lambda manifest: manifest.update(format=1)), "its format is 1, not 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(damage, tmp_path, caplog):
    checkpoints = saved_steps(tmp_path, [1, 2])
    act, message = DAMAGES[damage]
    act(tmp_path / FOLDER / name_of(2))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest().step == 1
        assert checkpoints.at_or_before(5).step == 1
    assert f"{name_of(2)} is damaged and not used: " in caplog.text
    assert message in caplog.text
    assert "starts from the beginning" not in caplog.text
    saved_steps(tmp_path, [2])
    assert checkpoints.latest().step == 2


def test_every_byte_counts(tmp_path):
    saved_steps(tmp_path, [1])
    place = tmp_path / FOLDER / name_of(1)
    for name, data in files(place).items():
        for position in range(0, len(data), 1 + len(data) // 40):
            flip(place / name, position)
            assert len(list(faults(place))) == 1, (name, position)
            flip(place / name, position)
    assert list(faults(place)) == []


def test_no_whole_checkpoint_is_said(tmp_path, caplog):
    checkpoints = checkpoints_of(tmp_path)
    assert checkpoints.latest() is None
    assert caplog.text == ""
    saved_steps(tmp_path, [1])
    (tmp_path / FOLDER / name_of(1) / "manifest.json").unlink()
    assert checkpoints.latest() is None
    assert "no whole checkpoint is left" in caplog.text


# Errors of the thread


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints = saved_steps(tmp_path, [1])
    with monkeypatch.context() as fault:
        fault.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(MachineError, match=r"disk is full: could not write .*step-00000002 of [\d,]+ bytes"):
            checkpoints.save(state(2))
    assert names(tmp_path) == [name_of(1)]
    checkpoints.save(state(2))
    checkpoints.finish()


@pytest.mark.parametrize("at", ["rank-00000", "state.json", "lineage.parquet", "manifest.json"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "the disk is full: could not write"),
        (
            OSError(5, "Input/output error"),
            r"the disk refuses \(\[Errno 5\] Input/output error\): could not write",
        ),
    ],
)
def test_an_error_while_writing_is_raised_by_the_next_save(at, error, message, tmp_path, file_calls):
    checkpoints = saved_steps(tmp_path, [1])

    def refuse(place):
        if at in place:
            raise error

    with file_calls(refuse):
        checkpoints.save(state(2))
        with pytest.raises(MachineError, match=message):
            checkpoints.save(state(3))
    assert names(tmp_path) == [name_of(1)]
    checkpoints.finish()  # it is said once
    checkpoints.save(state(4))
    checkpoints.finish()
    assert checkpoints.latest().step == 4


def test_a_defect_of_the_thread_is_raised_as_it_is(tmp_path, file_calls):
    checkpoints = saved_steps(tmp_path, [1])

    def fail(place):
        if "rank-" in place:
            raise ZeroDivisionError("a defect")

    with file_calls(fail):
        checkpoints.save(state(2))
        with pytest.raises(ZeroDivisionError, match="a defect"):
            checkpoints.finish()
    assert names(tmp_path) == [name_of(1)]


def test_leaving_the_context_leaves_no_thread_and_tells_what_failed(tmp_path, file_calls, caplog):
    def refuse(place):
        if "manifest.json" in place:
            raise OSError(28, "No space left on device")

    with pytest.raises(ConnectionAbortedError), checkpoints_of(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        raise ConnectionAbortedError
    assert names(tmp_path) == [name_of(1)]
    with file_calls(refuse), checkpoints_of(tmp_path) as checkpoints:
        checkpoints.save(state(2))
    assert "the disk is full: could not write" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]
    assert names(tmp_path) == [name_of(1)]


# Processes


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the scenarios of `checkpoint_processes.py` saw."""
    script, folder = Path(__file__).with_name("checkpoint_processes.py"), tmp_path_factory.mktemp("processes")
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(folder)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_any_number_of_ranks_reads_what_any_other_wrote(seen):
    found = seen["sharded"]
    assert found["rows alone"] == [[0, 0, 7]]
    assert found["rows two"] == [[0, 0, 4], [1, 4, 3]]
    assert found["rows copies"] == [[0, 0, 4], [1, 4, 3]], "the second copy writes nothing"
    for name, size in (("alone", 1), ("two", 2), ("three", 3), ("copies", 4)):
        assert found[f"load {name}"] == [0] * size
        assert found.get(f"save {name}", [0] * size) == [0] * size


def test_a_failure_on_one_rank_is_raised_on_all(seen):
    found = seen["one_rank_fails"]
    assert found["statuses"] == [0, 0]
    first, second = found["ranks"]
    assert first == second
    assert first["full"].startswith("the disk is full on rank 1: could not write the checkpoint ")
    assert first["slow"].startswith("no file came within 0.2 seconds on rank 1: could not write the checkpoint ")
    assert "but on rank 1 there is no " in first["elsewhere"]
    assert first["elsewhere"].endswith("must lie on a filesystem that all ranks share")
    assert (first["after full"], first["after slow"], first["in the end"]) == (1, 1, 2)
    assert found["left"] == [name_of(1), name_of(2)]
    assert found["files"] == [
        "lineage.parquet", "manifest.json", "rank-00000.safetensors", "rank-00001.safetensors", "state.json",
    ]  # fmt: skip


def test_a_rank_that_dies_while_writing_costs_its_checkpoint_only(seen):
    assert seen["one_rank_dies"] == {"statuses": [0, -9], "left": [name_of(1)], "latest": 1}


def test_a_kill_at_any_call_leaves_the_newest_committed_checkpoint(seen):
    found = seen["killed_at_each_call"]
    assert len(found) > 25
    assert {status for status, _, _ in found[:-1]} == {-9}
    assert found[-1] == [0, 3, 3]
    for _, committed, latest in found:
        assert committed <= latest <= committed + 1
    assert any(committed < latest for _, committed, latest in found)


def test_a_kill_at_any_time_leaves_the_newest_committed_checkpoint(seen):
    assert len(seen["killed_at_any_time"]) == 12
    for committed, latest in seen["killed_at_any_time"]:
        assert committed <= latest


def test_a_full_disk_at_any_call_is_said_and_costs_its_checkpoint_only(seen):
    found = seen["refused_at_each_call"]
    assert len(found) > 25
    assert all(
        message.startswith("the disk is full: could not write") for messages in found for message in messages
    )
    assert all(len(messages) <= 1 for messages in found)
    assert sum(map(len, found)) > 20, "but for the removal of older ones, each call matters"


def test_a_full_disk_in_the_middle_of_a_file(seen):
    found = seen["file_too_large"]
    assert found["status"] == 0
    assert found["error"].startswith("the disk is full: could not write the checkpoint ")
