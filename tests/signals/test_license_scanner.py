"""Deaths, hangs and exceptions cost one text each; nothing is left running."""

import os
import time

import psutil
import pyarrow as pa
import pytest

from starsmith.errors import MachineError
from starsmith.signals import license_scanner
from starsmith.signals.license_scanner import Outcome


def load_fake():
    return fake_detect


def fake_detect(text, deadline):
    match text.split():
        case ["die"]:
            os._exit(9)
        case ["raise"]:
            raise RuntimeError("no")
        case ["hang"]:
            time.sleep(600)
        case ["slow"]:
            time.sleep(max(0.0, deadline - time.time()) + 0.05)
            return "partial"
        case ["pid"]:
            return os.getpid(), os.getppid()
    return text.upper()


def load_broken():
    raise ImportError("no such plugin")


def load_killed():
    os._exit(137)


def scan(texts, *, workers=2, load=load_fake, deadline_seconds=1.0, grace_seconds=0.5):
    outcomes = license_scanner.scan(
        texts, load, deadline_seconds=deadline_seconds, workers=workers, grace_seconds=grace_seconds
    )
    return sorted(outcomes, key=lambda outcome: outcome.number)


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    left = [child for child in psutil.Process().children(recursive=True) if "scanner" in " ".join(child.cmdline())]
    assert left == []


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fault_costs_one_text(workers):
    texts = ["a", "die", "b", "raise", "slow", "c", "hang", "d"]
    assert scan(texts, workers=workers) == [
        Outcome(0, "scanned", "A"),
        Outcome(1, "failed", reason="its scanner died (exit code 9)"),
        Outcome(2, "scanned", "B"),
        Outcome(3, "failed", reason="RuntimeError: no"),
        Outcome(4, "timeout"),
        Outcome(5, "scanned", "C"),
        Outcome(6, "timeout"),
        Outcome(7, "scanned", "D"),
    ]


def test_all_workers_die_and_the_rest_is_scanned():
    outcomes = scan(["die"] * 5 + ["a"] * 3)
    assert [outcome.status for outcome in outcomes] == ["failed"] * 5 + ["scanned"] * 3


def test_texts_are_scanned_in_a_grandchild():
    [outcome] = scan(["pid"])
    worker, supervisor = outcome.answer
    assert len({worker, supervisor, os.getpid()}) == 3
    assert not psutil.pid_exists(worker)
    assert not psutil.pid_exists(supervisor)


def test_an_index_that_cannot_be_loaded_is_a_machine_error():
    with pytest.raises(MachineError, match="could not load its index: ImportError: no such plugin"):
        scan(["a"], load=load_broken)


def test_a_killed_supervisor_is_a_machine_error():
    with pytest.raises(MachineError, match=r"killed \(exit code 137\).*memory"):
        scan(["a"], load=load_killed)


def test_a_caller_that_stops_early_leaves_nothing_running():
    outcomes = license_scanner.scan(["a", *["hang"] * 4], load_fake, deadline_seconds=600, workers=2)
    next(outcomes)
    outcomes.close()  # `nothing_left_running` looks


def test_texts_in_a_file_are_read_by_number(tmp_path):
    place = tmp_path / "texts.arrow"
    column = pa.array(["a", "b", "die", "c"], pa.large_string())
    with (
        pa.OSFile(str(place), "wb") as sink,
        pa.ipc.new_file(sink, pa.schema([("text", pa.large_string())])) as out,
    ):
        for start in (0, 2):
            out.write_batch(pa.record_batch([column[start : start + 2]], names=["text"]))
    texts = license_scanner.StoredTexts(place)
    assert (len(texts), texts[3], texts[1:3]) == (4, "c", ["b", "die"])
    assert [outcome.answer for outcome in scan(texts)] == ["A", "B", None, "C"]


def test_no_texts_start_no_process(monkeypatch):
    monkeypatch.setattr(license_scanner.multiprocessing, "get_context", None)
    assert scan([]) == []
