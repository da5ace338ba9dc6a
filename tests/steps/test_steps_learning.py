"""What causes a training to run again, and what is refused before anything runs."""

import pytest

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.steps import learning

ABOVE = {"schedule": "cosine", "learning_rate": 1e-6, "min_learning_rate": 1e-5}


def stage_of(name: str = "training", **tables: object) -> dict[str, object]:
    raw = {"run": {"name": "small"}, "sources": [{"type": "folder", "path": "code"}], **tables}
    [found] = [step for step in learning.steps(recipe.parse(raw)) if step.name == name]
    return found.identity(dict.fromkeys(found.inputs, "key"))


@pytest.mark.parametrize(
    "changed",
    [
        {"hardware": {"micro_batch_size": 1, "activation_checkpointing": "full", "tensorboard": True}},
        {"hardware": {"device": "cpu", "compile": True, "shard_group": 4, "attention": "reference"}},
        {"training": {"keep_checkpoints": 5, "keep_every": 1_000}},
    ],
)
@pytest.mark.parametrize("name", ["training", "long_context"])
def test_how_machine_and_disk_are_used_trains_nothing_again(name: str, changed: dict[str, object]) -> None:
    """A run that filled the disk goes on from its checkpoints when fewer are kept, as its message promises."""
    assert stage_of(name, long_context={}, **changed) == stage_of(name, long_context={})


def test_what_is_learned_trains_again() -> None:
    for changed in ({"precision": "bf16"}, {"batch_size": 16}, {"spike_sigma": 0.0}, {"moments": "bf16"}):
        assert stage_of(training=changed) != stage_of()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"training": ABOVE}, r"training\.min_learning_rate 1e-05 is above training\.learning_rate"),
        ({"long_context": ABOVE}, r"long_context\.min_learning_rate 1e-05 is above long_context\.learning_rate"),
        ({"training": {"decay_steps": 5}}, r'set training\.schedule = "wsd"'),
        ({"training": {"lora": {}}}, r"training\.lora adapts a trained model: name it with model\.start"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_anything_runs(
    tables: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stage_of(**tables)
