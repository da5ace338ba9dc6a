"""What causes a training to run again, and what is refused before anything runs."""

from pathlib import Path

import pytest

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.model import huggingface
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
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


def test_a_model_to_start_from_without_a_tokenizer_is_refused_by_its_own_name(tmp_path: Path) -> None:
    model = Starcoder2(Starcoder2Config(vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=16, max_position_embeddings=32))  # fmt: skip
    huggingface.export(model.named_parameters(), model.config, [], tmp_path / "base")
    with pytest.raises(InputError, match=r"base has no tokenizer\.json; put the model's tokenizer there"):
        stage_of(model={"start": str(tmp_path / "base")}, run={"name": "small", "cache": str(tmp_path / "cache")})
