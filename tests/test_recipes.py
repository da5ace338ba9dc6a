"""The recipes of the published models: their numbers, and that the published hardware is enough."""

import tomllib
from pathlib import Path

import pytest

from starsmith import recipe
from starsmith.model.configuration import Starcoder2Config, num_parameters
from starsmith.training.estimate import estimate, named

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
SEQUENCE = {"training": 4_096, "long_context": 16_384}


def shape(loaded: recipe.Recipe) -> Starcoder2Config:
    model = loaded.model.model_dump(exclude={"preset", "start"})
    return Starcoder2Config(vocab_size=loaded.tokenizer.vocab_size, **model)


@pytest.mark.parametrize(
    ("name", "parameters", "terabyte_tokens", "thetas", "languages"),
    [
        ("3b", 3_030_371_328, (3.1, 0.2), (1e5, 1e6), "smol"),
        ("7b", 7_173_923_840, (3.5, 0.2), (1e5, 1e6), "smol"),
        ("15b", 15_957_889_024, (4.2, 0.2), (1e4, 1e5), "full"),
    ],
)
def test_the_published_training(name, parameters, terabyte_tokens, thetas, languages) -> None:
    loaded = recipe.load(RECIPES / f"{name}.toml")
    assert loaded.long_context is not None
    assert num_parameters(shape(loaded)) == parameters
    assert (loaded.model.rope_theta, loaded.long_context.rope_theta) == thetas
    assert loaded.mix.languages == languages
    stages = (loaded.training, loaded.long_context)
    lengths = (loaded.tokens.sequence_length, loaded.long_context.sequence_length)
    assert lengths == (4_096, 16_384)
    for stage, length, expected in zip(stages, lengths, terabyte_tokens, strict=True):
        assert stage.steps * stage.batch_size * length / 1e12 == pytest.approx(expected, abs=0.06)
    assert len({stage.batch_size * length for stage, length in zip(stages, lengths, strict=True)}) == 1
    assert all(stage.min_learning_rate == pytest.approx(stage.learning_rate / 10) for stage in stages)
    assert loaded.training.precision == "bf16"
    assert (loaded.training.beta1, loaded.training.beta2, loaded.training.weight_decay) == (0.9, 0.95, 0.1)


@pytest.mark.parametrize(
    ("name", "stage", "devices"),
    [
        ("3b", "training", "160xA100"),
        ("3b", "long_context", "160xA100"),
        ("7b", "training", "432xH100"),
        ("7b", "long_context", "216xH100"),
        ("15b", "training", "1024xH100"),
        ("15b", "long_context", "256xH100"),
    ],
)
def test_the_published_hardware_is_enough(name, stage, devices) -> None:
    loaded = recipe.load(RECIPES / f"{name}.toml")
    found = estimate(
        shape(loaded),
        loaded.training,
        getattr(loaded, stage),
        SEQUENCE[stage],
        loaded.hardware,
        named(devices, "bf16"),
    )
    assert found.fits and found.faults == (), "\n".join(found.lines())


def test_one_h200_is_enough_for_the_3b_as_its_recipe_says() -> None:
    loaded = recipe.load(RECIPES / "3b.toml")
    hardware = loaded.hardware.model_copy(update={"micro_batch_size": 4, "shard_group": None})
    assert "micro_batch_size = 4" in (RECIPES / "3b.toml").read_text()
    found = estimate(shape(loaded), loaded.training, loaded.training, 4_096, hardware, named("H200", "bf16"))
    assert found.fits


def test_fine_tuning_fits_a_device_of_48_gb() -> None:
    loaded = recipe.load(RECIPES / "finetune.toml")
    assert loaded.model.start is not None and loaded.training.lora is not None and loaded.instructions.files
    assert loaded.tokens.fim_repository_rate > 0
    three = shape(recipe.load(RECIPES / "3b.toml"))
    found = estimate(three, loaded.training, loaded.training, 4_096, loaded.hardware, named("L40S", "bf16"))
    assert found.fits, "\n".join(found.lines())


@pytest.mark.parametrize("name", [place.stem for place in sorted(RECIPES.glob("*.toml"))])
def test_the_resolved_recipe_reads_back_as_itself(name: str) -> None:
    loaded = recipe.load(RECIPES / f"{name}.toml")
    assert recipe.parse(tomllib.loads(recipe.to_toml(loaded))) == loaded
    assert recipe.Recipe.model_validate(loaded.model_dump(mode="json")) == loaded
