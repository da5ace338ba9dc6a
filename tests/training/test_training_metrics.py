import gc
import json
import logging
import math
import sys

import psutil
import pytest
import torch

from starsmith.errors import MachineError
from starsmith.training import metrics
from starsmith.training.event_files import FOLDER, EventFiles
from starsmith.training.metrics import MetricsLog, StepFacts


def facts(step, **changes):
    values = {
        "step": step, "loss": 5.0 - step / 10, "learning_rate": 1e-3, "grad_norm": 0.5, "num_tokens": 1_000,
        "num_targets": 900, "seconds": 0.5, "data_wait_seconds": 0.05, "flops": 2e9, "memory_bytes": 3_000_000_000,
        "batch": f"digest{step}",
    }  # fmt: skip
    return StepFacts(**(values | changes))


def test_a_line_has_the_numbers_of_its_step(tmp_path):
    log = MetricsLog(tmp_path, peak_flops=1e10)
    log.truncate(0)
    log.append(facts(1))
    (line,) = metrics.read(tmp_path)
    assert line == {
        "step": 1, "loss": 4.9, "learning_rate": 1e-3, "grad_norm": 0.5, "tokens": 1_000, "num_targets": 900,
        "seconds": 0.5, "data_wait_seconds": 0.05, "tokens_per_second": 2_000.0, "mfu": 0.4, "hfu": 0.4,
        "memory_bytes": 3_000_000_000, "batch": "digest1", "skipped": None,
    }  # fmt: skip


def test_what_is_not_a_number_is_null_and_the_reason_stands_beside_it(tmp_path):
    log = MetricsLog(tmp_path)
    log.append(facts(1, loss=math.nan, grad_norm=math.inf, skipped="the loss is nan", intervention="rewound"))
    text = (tmp_path / metrics.FILE).read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (line["loss"], line["grad_norm"], line["skipped"]) == (None, None, "the loss is nan")
    assert line["intervention"] == "rewound"
    assert "nan" in log.text()


def test_the_speed_is_that_of_the_last_steps(tmp_path):
    log = MetricsLog(tmp_path, peak_flops=1e10)
    for step in range(1, 101):
        log.append(facts(step, seconds=10.0 if step == 1 else 0.5, recomputed_flops=1e9))
    lines = metrics.read(tmp_path)
    assert lines[1]["tokens_per_second"] == pytest.approx(2_000 / 10.5)
    assert lines[-1]["tokens_per_second"] == pytest.approx(2_000), "the slow first step is forgotten"
    assert lines[-1]["mfu"] == pytest.approx(0.4)
    assert lines[-1]["hfu"] == pytest.approx(0.6), "what is computed twice counts for the hardware only"


@pytest.mark.parametrize("unknown", [{"peak": None}, {"flops": None}])
def test_without_a_peak_or_a_count_there_is_no_mfu(tmp_path, unknown):
    log = MetricsLog(tmp_path, peak_flops=unknown.get("peak", 1e10))
    log.append(facts(1, flops=unknown.get("flops", 1e9)))
    (line,) = metrics.read(tmp_path)
    assert line["mfu"] is None and line["hfu"] is None
    assert "MFU" not in log.text()


def test_the_text_of_the_bar(tmp_path):
    log = MetricsLog(tmp_path, num_steps=10_002, peak_flops=1e10)
    assert log.text() == ""
    log.append(facts(1))
    log.append(facts(2))
    assert log.text() == (
        "loss 4.800, 2,000 tokens/s, MFU 40 %, lr 1.00e-03, data wait 10 %, 3.0 GB, 1 h 23 min left"
    )


def test_continuing_drops_the_lines_that_will_be_repeated(tmp_path, caplog):
    log = MetricsLog(tmp_path)
    log.truncate(0)
    for step in range(1, 8):
        log.append(facts(step))
    with (tmp_path / metrics.FILE).open("a") as stream:
        stream.write('{"step": 8, "lo')  # killed while writing
    log = MetricsLog(tmp_path)
    log.truncate(5)
    log.append(facts(6, loss=1.0))
    lines = metrics.read(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] == 1.0
    with caplog.at_level(logging.WARNING):
        log.truncate(9)
    assert "holds 6 of the 9 steps" in caplog.text


def test_event_files_hold_the_numbers_and_drop_what_is_repeated(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = MetricsLog(tmp_path, peak_flops=1e10, event_files=True)
    log.truncate(0)
    for step in range(1, 6):
        log.append(facts(step, validation_loss=4.0 if step == 3 else None))
    log.close()
    log = MetricsLog(tmp_path, peak_flops=1e10, event_files=True)
    log.truncate(3)
    log.append(facts(4, loss=1.0, skipped="too high"))
    log.close()
    shown = accumulator.EventAccumulator(str(tmp_path / FOLDER))
    shown.Reload()
    losses = {event.step: event.value for event in shown.Scalars("loss/training")}
    assert losses == pytest.approx({1: 4.9, 2: 4.8, 3: 4.7, 4: 1.0})
    assert [event.step for event in shown.Scalars("loss/validation")] == [3]
    assert shown.Scalars("speed/MFU")[0].value == pytest.approx(0.4)


def test_event_files_are_whole_where_nobody_closed_them(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = MetricsLog(tmp_path, event_files=True)
    log.truncate(0)
    log.append(facts(1))
    del log
    gc.collect()
    shown = accumulator.EventAccumulator(str(tmp_path / FOLDER))
    shown.Reload()
    assert [event.step for event in shown.Scalars("loss/training")] == [1]


def test_without_the_package_the_install_line_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MachineError) as caught:
        EventFiles(tmp_path, 1)
    assert "pip install 'starsmith[tensorboard]'" in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.2, "0 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3_599.7, "1 h 00 min"),
        (18_450, "5 h 08 min"),
        (86_400 * 12 + 3_600 * 3, "12 d 03 h"),
        (86_399, "1 d 00 h"),
    ],
)
def test_durations(seconds, written):
    assert metrics.format_duration(seconds) == written


def test_the_peak_of_memory_is_at_least_what_is_held_now():
    assert metrics.peak_memory_bytes(torch.device("cpu")) >= 0.99 * psutil.Process().memory_info().rss
