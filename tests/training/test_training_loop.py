"""The loop: learning, exact resume, refusals, and faults on the way."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from artificial_language import FakeLoader

from starsmith.errors import InputError, MachineError
from starsmith.recipe import Hardware
from starsmith.training import checkpoint, metrics
from starsmith.training.loop import DivergenceError, TrainingStoppedError, train

TIMES = ("seconds", "tokens_per_second", "data_wait_seconds", "mfu", "hfu", "memory_bytes")


class KilledError(Exception):
    """Stands for a power cut: nothing of ours runs after it."""


def killer(at_step):
    def progress(done, total, text):
        if done == at_step:
            raise KilledError

    return progress


def without_times(folder):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in metrics.read(folder)]


def files_of(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != metrics.FILE and not file.match(".*.tmp")  # a draft clears these
    }


def checkpoints(folder):
    return sorted(place.name for place in (folder / "checkpoints").iterdir())


def assert_same_run(found, expected, folder, whole):
    for name, value in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    assert without_times(folder) == without_times(whole)
    assert files_of(folder) == files_of(whole)
    assert (found.num_tokens, found.num_skipped, found.loss, found.validation_loss) == (
        expected.num_tokens, expected.num_skipped, expected.loss, expected.validation_loss,
    )  # fmt: skip


GOLDEN = {1: 4.3612, 2: 4.2876, 3: 4.1682, 5: 3.9093, 8: 3.5990, 12: 3.1938, 20: 2.7007, 30: 2.5900}


def test_golden_loss_curve(tmp_path, make_loader, model_config, settings):
    """30 steps, with the losses of the day this was written. A change of these numbers is a change of training."""
    result = train(
        tmp_path, make_loader(), [make_loader(seed=5).batch(0)], model_config, settings(steps=30), seed=1
    )
    losses = {line["step"]: line["loss"] for line in metrics.read(tmp_path)}
    assert {step: losses[step] for step in GOLDEN} == pytest.approx(GOLDEN, abs=5e-4)
    assert losses[1] == pytest.approx(math.log(64), abs=0.3)
    assert result.validation_loss == pytest.approx(2.6717, abs=5e-4)


@pytest.mark.parametrize("killed_at", [1, 4, 5, 7, 11])
def test_a_killed_run_ends_like_any_other(killed_at, tmp_path, make_loader, model_config, settings):
    validation = [make_loader(seed=5, batch_size=6).batch(0)]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    arguments = (validation, model_config, settings())
    loader = make_loader()
    expected = train(whole, loader, *arguments, seed=1)
    with pytest.raises(KilledError):
        train(folder, make_loader(), *arguments, seed=1, progress=killer(killed_at))
    torch.manual_seed(123)  # the caller's random state matters to nothing
    resumed = make_loader()
    found = train(folder, resumed, *arguments, seed=1)
    assert_same_run(found, expected, folder, whole)
    newest = max(step for step in (0, 2, 5, 7, 10) if step <= killed_at)
    assert resumed.digests == loader.digests[newest:]
    assert [line["batch"] for line in metrics.read(folder)] == loader.digests


@pytest.mark.parametrize("interval", [1, 2, 3, 4, 7])
def test_a_kill_at_any_moment_loses_at_most_one_interval(interval, tmp_path, model_config, settings, monkeypatch):
    """Each checkpoint takes as long to write as it can: until training waits for it."""
    behind, plain_finish, plain_commit = [], checkpoint.Checkpoints.finish, checkpoint.Checkpoints._commit
    awaited = threading.Event()

    def finish(self):
        if self._thread is not None:
            awaited.set()
        plain_finish(self)

    def commit(self, *arguments):
        assert awaited.wait(60)
        awaited.clear()
        plain_commit(self, *arguments)

    class Watching(FakeLoader):
        def next_batch(self):
            committed = [
                int(place.name.removeprefix("step-"))
                for place in (tmp_path / "checkpoints").glob("step-*")
                if place.suffix == ""
            ]
            behind.append(self.step + 1 - max(committed, default=0))
            return super().next_batch()

    monkeypatch.setattr(checkpoint.Checkpoints, "finish", finish)
    monkeypatch.setattr(checkpoint.Checkpoints, "_commit", commit)
    loader = Watching()
    train(tmp_path, loader, [], model_config, settings(checkpoint_steps=interval, steps=16), seed=1)
    assert len(behind) == 16
    assert max(behind) == interval


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_stop_saves_and_ends_like_any_other(number, tmp_path, make_loader, model_config, settings):
    def progress(done, total, text):
        if done in (2, 7):
            os.kill(os.getpid(), number)

    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    handler = signal.getsignal(number)
    expected = train(whole, make_loader(), [], model_config, settings(), seed=1)
    for stopped_at in (2, 7):
        with pytest.raises(TrainingStoppedError, match=f"after step {stopped_at} of 12"):
            train(folder, make_loader(), [], model_config, settings(), seed=1, progress=progress)
        assert signal.getsignal(number) is handler
        assert checkpoints(folder)[-1] == checkpoint.name_of(stopped_at)
        assert list(checkpoint.faults(folder / "checkpoints" / checkpoint.name_of(stopped_at))) == []
    found = train(folder, make_loader(), [], model_config, settings(), seed=1)
    assert_same_run(found, expected, folder, whole)


def test_trains_outside_the_main_thread(tmp_path, make_loader, model_config, settings):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train(tmp_path, make_loader(), [], model_config, settings(steps=2), seed=1))
    )
    thread.start()
    thread.join()
    assert results[0].steps == 2


def test_a_finished_run_is_not_repeated(tmp_path, make_loader, model_config, settings):
    first = train(tmp_path, make_loader(), [], model_config, settings(), seed=1)
    before = files_of(tmp_path)
    loader, shown = make_loader(), []
    again = train(tmp_path, loader, [], model_config, settings(), seed=1, progress=lambda *a: shown.append(a))
    assert loader.digests == [] and shown == []
    assert files_of(tmp_path) == before
    assert again.loss == first.loss


def test_a_finished_run_can_be_made_longer(tmp_path, make_loader, model_config, settings):
    train(tmp_path, make_loader(), [], model_config, settings(), seed=1)
    longer = train(tmp_path, make_loader(), [], model_config, settings(steps=17), seed=1)
    assert longer.steps == 17
    assert [line["step"] for line in metrics.read(tmp_path)] == list(range(1, 18))


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "manifest", "partial"])
def test_a_damaged_checkpoint_gives_way_to_the_next_older(
    damage, tmp_path, make_loader, model_config, settings, caplog
):
    whole, folder = tmp_path / "whole", tmp_path / "damaged"
    expected = train(whole, make_loader(), [], model_config, settings(), seed=1)
    with pytest.raises(KilledError):
        train(folder, make_loader(), [], model_config, settings(), seed=1, progress=killer(11))
    place = folder / "checkpoints" / checkpoint.name_of(10)
    assert checkpoints(folder) == [checkpoint.name_of(step) for step in (5, 10)]
    weights = place / "rank-00000.safetensors"
    data = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(data[:-10])
    elif damage == "flipped":
        weights.write_bytes(data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])
    elif damage == "missing":
        (place / "state.json").unlink()
    elif damage == "manifest":
        (place / "manifest.json").write_text("{")
    else:
        place.rename(place.with_name(f"{place.name}.partial"))
    resumed = make_loader()
    with caplog.at_level(logging.WARNING):
        found = train(folder, resumed, [], model_config, settings(), seed=1)
    assert len(resumed.digests) == 7  # from step 5
    assert (checkpoint.name_of(10) in caplog.text) is (damage != "partial")
    assert_same_run(found, expected, folder, whole)


def test_no_whole_checkpoint_starts_again_and_says_so(tmp_path, make_loader, model_config, settings, caplog):
    with pytest.raises(KilledError):
        train(tmp_path, make_loader(), [], model_config, settings(), seed=1, progress=killer(6))
    for place in (tmp_path / "checkpoints").iterdir():
        (place / "manifest.json").unlink()
    loader = make_loader()
    with caplog.at_level(logging.WARNING):
        train(tmp_path, loader, [], model_config, settings(), seed=1)
    assert len(loader.digests) == 12
    assert "starts from the beginning" in caplog.text


@pytest.mark.parametrize("where", ["write", "_sync", "space"])
def test_a_full_disk_leaves_the_older_checkpoints(
    where, tmp_path, make_loader, model_config, settings, monkeypatch
):
    whole, folder = tmp_path / "whole", tmp_path / "full"
    expected = train(whole, make_loader(), [], model_config, settings(), seed=1)
    with pytest.raises(KilledError):
        train(folder, make_loader(), [], model_config, settings(), seed=1, progress=killer(6))

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as fault:
        if where == "space":
            fault.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1, 1, 0))
        else:
            fault.setattr(checkpoint, where, refuse)
        with pytest.raises(MachineError, match=r"disk is full: could not write .*step-00000007 of [\d,]+ bytes"):
            train(folder, make_loader(), [], model_config, settings(), seed=1)
    assert checkpoints(folder) == [checkpoint.name_of(5)]
    found = train(folder, make_loader(), [], model_config, settings(), seed=1)
    assert_same_run(found, expected, folder, whole)


def test_keeps_as_many_checkpoints_as_asked(tmp_path, make_loader, model_config, settings):
    train(tmp_path, make_loader(), [], model_config, settings(checkpoint_steps=2, keep_checkpoints=3), seed=1)
    assert checkpoints(tmp_path) == [checkpoint.name_of(step) for step in (8, 10, 12)]


def test_refuses_to_continue_as_another_run(tmp_path, make_loader, model_config, settings):
    import dataclasses

    train(tmp_path, make_loader(), [], model_config, settings(steps=5), seed=1)
    other = dataclasses.replace(model_config, sliding_window=8)
    with pytest.raises(InputError, match="sliding_window is 8, was 16"):
        train(tmp_path, make_loader(), [], other, settings(), seed=1)
    with pytest.raises(InputError, match="loader state does not fit"):
        train(tmp_path, make_loader(seed=3), [], model_config, settings(), seed=1)
    with pytest.raises(InputError, match="seed is 2, was 1"):
        train(tmp_path, make_loader(), [], model_config, settings(), seed=2)
    with pytest.raises(InputError, match=r"learning_rate is 0.001, was 0.003"):
        train(tmp_path, make_loader(), [], model_config, settings(learning_rate=1e-3), seed=1)
    with pytest.raises(InputError, match=r"at step 5 already, training.steps is 4"):
        train(tmp_path, make_loader(), [], model_config, settings(steps=4), seed=1)


def test_a_batch_without_targets_is_counted_and_harmless(tmp_path, make_loader, model_config, settings, caplog):
    validation = [make_loader(seed=5).batch(0)]
    config = settings(validation_steps=1, steps=6)
    with caplog.at_level(logging.WARNING):
        result = train(tmp_path, make_loader(without_targets=(2,)), validation, model_config, config, seed=1)
    lines = metrics.read(tmp_path)
    assert result.num_skipped == 1
    assert [bool(line["skipped"]) for line in lines] == [False, False, True, False, False, False]
    assert lines[2]["loss"] is None and lines[2]["grad_norm"] is None
    assert lines[2]["validation_loss"] == lines[1]["validation_loss"]
    assert lines[3]["validation_loss"] != lines[2]["validation_loss"]
    assert "step 3 was skipped: no target of the batch counts" in caplog.text


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_step_changes_nothing(where, tmp_path, make_loader, model_config, settings, monkeypatch):
    from starsmith.training import parallel

    plain, calls = parallel.next_token_loss, []

    def faulty(*arguments):
        calls.append(1)
        loss = plain(*arguments)
        if len(calls) == 3:
            loss = loss * math.inf if where == "loss" else loss + (loss - loss.detach()).abs().sqrt()
        return loss

    monkeypatch.setattr(parallel, "next_token_loss", faulty)
    result = train(tmp_path, make_loader(), [], model_config, settings(steps=5, checkpoint_steps=1), seed=1)
    line = metrics.read(tmp_path)[2]
    assert where in line["skipped"]
    assert result.num_skipped == 1
    assert all(bool(torch.isfinite(parameter).all()) for parameter in result.model.parameters())
    assert json.loads((tmp_path / "checkpoints/step-00000005/state.json").read_text())["counters"] == {
        "num_tokens": 5 * 4 * 48, "num_updates": 4, "num_skipped": 1, "skipped_in_a_row": 0,
        "loss": result.loss, "validation_loss": None,
    }  # fmt: skip


def test_ten_bad_steps_in_a_row_end_the_run(tmp_path, make_loader, model_config, settings):
    bad = {*range(1, 10), *range(12, 40)}  # nine in a row are borne, ten are not
    config = settings(steps=40)
    for _ in range(2):  # again on resuming
        with pytest.raises(
            DivergenceError, match=r"10 steps in a row could not be learned from .* step 22, no target"
        ):
            train(tmp_path, make_loader(without_targets=bad), [], model_config, config, seed=1)
        assert len(metrics.read(tmp_path)) == 22


def test_a_skipped_step_is_the_same_when_resumed(tmp_path, make_loader, model_config, settings):
    bad = {1, 5, 6, 7}
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    expected = train(whole, make_loader(without_targets=bad), [], model_config, settings(), seed=1)
    with pytest.raises(KilledError):
        train(folder, make_loader(without_targets=bad), [], model_config, settings(), seed=1, progress=killer(8))
    found = train(folder, make_loader(without_targets=bad), [], model_config, settings(), seed=1)
    assert expected.num_skipped == 4
    assert_same_run(found, expected, folder, whole)


def test_gradients_are_clipped(tmp_path, make_loader, model_config, settings, monkeypatch):
    norms = []
    plain = torch.optim.AdamW.step

    def watched(self, *arguments, **keywords):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))
        return plain(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(tmp_path, make_loader(), [], model_config, settings(steps=3, gradient_clip=0.01), seed=1)
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)
    assert all(line["grad_norm"] > 0.02 for line in metrics.read(tmp_path))


def test_validation_is_weighted_by_targets_and_split_into_batches(tmp_path, make_loader, model_config, settings):
    wide, narrow = make_loader(seed=5, batch_size=10).batch(0), make_loader(seed=6, batch_size=2).batch(0)
    wide.loss_mask[:3] = False
    result = train(tmp_path, make_loader(), [wide, narrow], model_config, settings(steps=2), seed=1)
    total, count = 0.0, 0
    for batch in (wide, narrow):
        with torch.no_grad():
            logits = result.model(
                torch.from_numpy(batch.tokens[:, :-1]), positions_BT=torch.from_numpy(batch.positions),
                documents_BT=torch.from_numpy(batch.documents),
            )  # fmt: skip
        mask = torch.from_numpy(batch.loss_mask)
        targets = torch.from_numpy(batch.tokens[:, 1:])
        total += torch.nn.functional.cross_entropy(logits[mask], targets[mask], reduction="sum").item()
        count += int(mask.sum())
    assert result.validation_loss == pytest.approx(total / count, abs=1e-4)


def test_attention_stays_within_documents(tmp_path, make_loader, model_config, settings):
    """The first document of a row decides nothing of the loss of the second."""
    losses = []
    for first_token in (1, 2):
        batch = make_loader(seed=5).batch(0)
        border = [int((row == 0).sum()) for row in batch.documents]
        for row, cut in enumerate(border):
            batch.tokens[row, : cut - 1] = first_token
            batch.loss_mask[row, :cut] = False
        folder = tmp_path / str(first_token)
        losses.append(
            train(folder, make_loader(), [batch], model_config, settings(steps=1), seed=1).validation_loss
        )
    assert losses[0] == losses[1]


def test_metrics_lost_before_a_checkpoint_are_named(tmp_path, make_loader, model_config, settings, caplog):
    with pytest.raises(KilledError):
        train(tmp_path, make_loader(), [], model_config, settings(), seed=1, progress=killer(6))
    place = tmp_path / metrics.FILE
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(lines[:3]) + lines[3][:20])
    with caplog.at_level(logging.WARNING):
        train(tmp_path, make_loader(), [], model_config, settings(), seed=1)
    assert "holds 3 of the 5 steps" in caplog.text
    assert [line["step"] for line in metrics.read(tmp_path)] == [1, 2, 3, *range(6, 13)]


def test_progress_and_metrics_say_what_happened(tmp_path, make_loader, model_config, settings):
    shown = []
    train(
        tmp_path, make_loader(), [], model_config, settings(steps=3), seed=1,
        progress=lambda *arguments: shown.append(arguments),
    )  # fmt: skip
    assert [(done, total) for done, total, _ in shown] == [(1, 3), (2, 3), (3, 3)]
    assert all("loss" in text and "tokens/s" in text for _, _, text in shown)
    line = metrics.read(tmp_path)[0]
    assert line["learning_rate"] == pytest.approx(1e-3)
    assert line["tokens"] == 4 * 48
    assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 99])
def test_accumulated_gradients_are_those_of_one_pass(
    micro_batch_size, tmp_path, make_loader, model_config, settings
):
    """Rows with different numbers of targets in each micro-batch, the last of which may be smaller."""
    validation = [make_loader(seed=5, batch_size=5).batch(0)]
    results = []
    for name, hardware in (("whole", Hardware()), ("parts", Hardware(micro_batch_size=micro_batch_size))):
        train(
            tmp_path / name, make_loader(uneven=True), validation, model_config, settings(), seed=1,
            hardware=hardware,
        )  # fmt: skip
        results.append(metrics.read(tmp_path / name))
    for whole, parts in zip(*results, strict=True):
        for key in {"loss", "grad_norm", "validation_loss"} & whole.keys():
            assert parts[key] == pytest.approx(whole[key], rel=2e-5)
        assert parts["batch"] == whole["batch"]


def test_a_spike_is_not_learned_from_and_reported(tmp_path, make_loader, model_config, settings, caplog):
    """A batch of another language, after the window has filled; also when resumed in between."""
    config = settings(steps=40, spike_window=16, spike_sigma=6.0)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    with caplog.at_level(logging.WARNING):
        result = train(whole, make_loader(spoilt=(3, 32, 34)), [], model_config, config, seed=1)
    lines = {line["step"]: line for line in metrics.read(whole)}
    assert [step for step, line in lines.items() if line["skipped"]] == [33, 35]
    assert "spike: the loss is" in lines[33]["skipped"]
    assert "above the mean" in lines[33]["skipped"]
    assert "step 33 was skipped: spike" in caplog.text
    assert result.num_skipped == 2
    with pytest.raises(KilledError):
        train(folder, make_loader(spoilt=(3, 32, 34)), [], model_config, config, seed=1, progress=killer(33))
    found = train(folder, make_loader(spoilt=(3, 32, 34)), [], model_config, config, seed=1)
    assert_same_run(found, result, folder, whole)
    careless = tmp_path / "careless"
    config = settings(steps=40, spike_window=16, spike_sigma=0.0)
    assert train(careless, make_loader(spoilt=(3, 32, 34)), [], model_config, config, seed=1).num_skipped == 0


def test_a_run_in_which_everything_is_a_spike_ends(tmp_path, make_loader, model_config, settings):
    config = settings(steps=60, spike_window=16)
    with pytest.raises(DivergenceError, match=r"10 steps in a row .* step 42, spike: the .*starsmith rewind"):
        train(tmp_path, make_loader(spoilt=range(32, 60)), [], model_config, config, seed=1)


def test_memory_errors_say_what_to_lower(tmp_path, make_loader, model_config, settings, monkeypatch):
    def hungry(*arguments):
        torch.empty(1 << 50)

    monkeypatch.setattr("starsmith.training.parallel.next_token_loss", hungry)
    with pytest.raises(MachineError, match=r"Lower hardware\.micro_batch_size \(now 4\)"):
        train(tmp_path, make_loader(), [], model_config, settings(), seed=1)


def test_the_caller_s_random_state_is_left_alone(tmp_path, make_loader, model_config, settings):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    np.random.seed(7)
    train(tmp_path, make_loader(), [], model_config, settings(steps=2), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_killed_while_it_writes_a_checkpoint(tmp_path, make_loader, model_config, settings):
    """SIGKILL before the last checkpoint but one is shown: the one before is used, nothing else is visible."""
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads(1)
from artificial_language import MODEL, FakeLoader
from starsmith.recipe import Training
from starsmith.training import checkpoint, loop
plain = checkpoint._show
def show(aside, place):
    if place.name == "step-00000010":
        os.kill(os.getpid(), signal.SIGKILL)
    plain(aside, place)
checkpoint._show = show
loop.train(Path({str(tmp_path / "killed")!r}), FakeLoader(), [], MODEL,
           Training.model_validate_json({settings().model_dump_json()!r}), seed=1)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert checkpoints(tmp_path / "killed") == ["step-00000005", "step-00000007", "step-00000010.partial"]
    loader = make_loader()
    found = train(tmp_path / "killed", loader, [], model_config, settings(), seed=1)
    assert len(loader.digests) == 5
    expected = train(tmp_path / "whole", make_loader(), [], model_config, settings(), seed=1)
    assert_same_run(found, expected, tmp_path / "killed", tmp_path / "whole")
