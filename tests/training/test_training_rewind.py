"""Rewinding: back to a checkpoint, past some batches, written down, and the same whenever it is carried out."""

import logging

import pytest

from starsmith.errors import InputError, MachineError
from starsmith.training import interventions, metrics
from starsmith.training.interventions import rewind
from starsmith.training.lineage import lineage
from starsmith.training.loop import train


@pytest.fixture
def go_on(tmp_path, make_loader, model_config, settings):
    def train_to(steps, folder=tmp_path / "run", **options):
        loader = make_loader()
        config = settings(steps=steps, checkpoint_steps=5, keep_checkpoints=9)
        trained = train(folder, loader, [], model_config, config, seed=1, **options)
        return trained, loader.digests

    return train_to


def batches(folder):
    return [line["batch"] for line in metrics.read(folder)]


def test_goes_on_from_the_checkpoint_without_the_batches_after_it(tmp_path, go_on, make_loader, caplog):
    _, seen = go_on(20)
    assert rewind(tmp_path / "run", 13, 3) == interventions.Rewind(from_step=20, to_step=10, skip_batches=3)
    assert len(metrics.read(tmp_path / "run")) == 20  # nothing happens before the run is started
    with caplog.at_level(logging.WARNING):
        trained, after = go_on(20)
    assert "rewound from step 20 to step 10; 3 batches after it are left out" in caplog.text
    assert batches(tmp_path / "run") == seen[:10] + after
    assert after[:7] == seen[13:]
    assert trained.steps == 20
    lines = metrics.read(tmp_path / "run")
    assert [line["step"] for line in lines if "intervention" in line] == [11]
    assert lines[10]["intervention"].startswith("rewound from step 20 to step 10")
    # lineage is that of the batches that were seen: the file of row 0 of batch 13 at step 11
    assert f"/f{13 * 4}.py" in lineage(tmp_path / "run", 11)["path"].to_pylist()
    assert (trained.num_tokens, trained.num_skipped) == (20 * 4 * 48, 0)


def test_is_carried_out_once_and_the_same_after_any_interruption(tmp_path, go_on):
    class KilledError(Exception):
        pass

    def killer(at_step):
        def progress(done, total, text):
            if done == at_step:
                raise KilledError

        return progress

    results = []
    for killed_at in (None, 12, 16):
        folder = tmp_path / str(killed_at)
        go_on(20, folder)
        rewind(folder, 10, 2)
        if killed_at is not None:
            with pytest.raises(KilledError):
                go_on(25, folder, progress=killer(killed_at))
        trained, _ = go_on(25, folder)
        results.append(
            (trained.loss, batches(folder), [line.get("intervention") for line in metrics.read(folder)])
        )
    assert results[0] == results[1] == results[2]


def test_later_rewinds_replace_and_follow_earlier_ones(tmp_path, go_on, make_loader):
    folder = tmp_path / "run"
    _, seen = go_on(20)
    rewind(folder, 15, 1)
    rewind(folder, 10, 2)  # before the first was carried out
    with pytest.raises(InputError, match=r"cannot rewind .* to step 15: it is at step 10"):
        rewind(folder, 15, 1)
    _, after = go_on(20)
    assert after[0] == seen[12]
    rewind(folder, 5, 4)  # to before that intervention
    _, again = go_on(20)
    assert again[0] == seen[9]
    assert batches(folder) == seen[:5] + again
    assert [line.to_step for line in interventions.read(folder)] == [15, 10, 5]
    assert go_on(20)[1] == []  # nothing is left to do


def test_refuses_what_cannot_be(tmp_path, go_on, make_loader, model_config, settings):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"nothing to rewind .* no whole checkpoint"):
        rewind(folder, 5, 1)
    config = settings(steps=20, checkpoint_steps=5, keep_checkpoints=2)
    train(folder, make_loader(), [], model_config, config, seed=1)
    with pytest.raises(InputError, match=r"to step 10: no whole checkpoint is that early.*keep_every"):
        rewind(folder, 10, 1)
    with pytest.raises(InputError, match="to step 30: it is at step 20"):
        rewind(folder, 30, 1)
    with pytest.raises(InputError, match="skip at least 1"):
        rewind(folder, 15, 0)
    assert interventions.read(folder) == []


def test_a_damaged_record_is_not_guessed_at(tmp_path, go_on):
    go_on(5)
    (tmp_path / "run" / interventions.FILE).write_text('{"to_step": 5}\n')
    with pytest.raises(MachineError, match=r"interventions.jsonl is damaged"):
        go_on(10)
