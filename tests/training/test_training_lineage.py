"""From steps to files and back."""

import pyarrow.parquet as pq
import pytest

from starsmith.errors import InputError
from starsmith.training.lineage import SCHEMA, lineage, steps_of
from starsmith.training.loop import train


@pytest.fixture
def run(tmp_path, make_loader, model_config, settings):
    train(tmp_path, make_loader(without_targets={6}), [], model_config, settings(), seed=1)
    return tmp_path


def test_parts_end_at_checkpoints_and_keep_the_schema(run):
    parts = sorted((run / "lineage").iterdir())
    assert [part.stem for part in parts] == ["00000001-00000005", "00000006-00000010", "00000011-00000012"]
    assert all(pq.read_schema(part).equals(SCHEMA) for part in parts)


def test_every_token_of_a_step_has_an_origin(run, make_loader):
    for step in (1, 6, 12):
        table = lineage(run, step)
        assert sum(table["num_tokens"].to_pylist()) == 4 * 49
        batch = make_loader().batch(step - 1)
        assert set(table["content_id"].to_pylist()) == set(batch.spans["content_id"].to_pylist())


def test_spans_of_a_file_are_one_row(run):
    shared = [row for row in lineage(run, 3).to_pylist() if row["path"] == "/f0.py"]
    assert len(shared) == 1  # in all four rows of the batch
    assert shared[0]["rows"] == [0, 1, 2, 3]
    assert shared[0]["detected_licenses"] == ["MIT"]
    assert shared[0]["license_type"] == "permissive"
    assert shared[0]["repo_name"] == "repo99"


def test_a_skipped_step_says_that_nothing_was_learned(run):
    assert set(lineage(run, 7)["trained"].to_pylist()) == {False}
    assert set(lineage(run, 8)["trained"].to_pylist()) == {True}


def test_steps_of_a_content_before_and_after_redaction(run):
    number = 4 * 7 + 2  # row 2 of the eighth batch
    for identifier in (f"{number:040x}", f"swh:1:cnt:{number:040x}", f"{number + 10**6:040x}"):
        assert steps_of(run, identifier)["step"].to_pylist() == [8]
    everywhere = steps_of(run, f"{0:040x}").to_pylist()
    assert [row["step"] for row in everywhere] == list(range(1, 13))
    assert [row["trained"] for row in everywhere] == [step != 7 for step in range(1, 13)]
    assert steps_of(run, f"{99:039x}d").num_rows == 12
    assert steps_of(run, "f" * 40).num_rows == 0


def test_refuses_what_was_not_recorded(run, tmp_path_factory):
    for step in (0, 13):
        with pytest.raises(InputError, match=f"no lineage of step {step} .*steps 1 to 12 are recorded"):
            lineage(run, step)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match="nothing was trained there"):
        lineage(empty, 1)
    with pytest.raises(InputError, match="nothing was trained there"):
        steps_of(empty, "0" * 40)
    with pytest.raises(InputError, match="no content SWHID"):
        steps_of(run, "swh:1:rev:" + "0" * 40)
    with pytest.raises(InputError, match="no content SWHID"):
        steps_of(run, "' OR 1=1 --")
