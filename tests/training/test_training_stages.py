"""What a run may start from: weights to go on with in a longer context, or a base to train an adapter on."""

import dataclasses
import json

import pytest
import torch

from starsmith.errors import InputError
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware, LongContext, Lora, Training
from starsmith.training import metrics
from starsmith.training.loop import train
from starsmith.training.world import join


def test_a_later_stage_has_its_own_length_and_rate_and_shares_the_rest():
    first = Training(steps=100, learning_rate=1e-3, weight_decay=0.2, precision="bf16", checkpoint_steps=7)
    stage = LongContext(steps=10, batch_size=2, learning_rate=1e-4, warmup_steps=1, schedule="wsd", decay_steps=5)
    config = stage.settings(first)
    assert (config.steps, config.batch_size, config.learning_rate) == (10, 2, 1e-4)
    assert (config.warmup_steps, config.schedule, config.decay_steps) == (1, "wsd", 5)
    assert (config.weight_decay, config.precision, config.checkpoint_steps) == (0.2, "bf16", 7)
    assert Training.model_validate(config.model_dump()) == config


def test_a_second_stage_starts_from_weights_under_another_base_of_rope(
    tmp_path, make_loader, model_config, settings
):
    validation = [make_loader(seed=5).batch(0)]
    first = train(tmp_path / "first", make_loader(), validation, model_config, settings(), seed=1)
    longer = dataclasses.replace(model_config, rope_theta=10 * model_config.rope_theta)
    stage = LongContext(steps=6, batch_size=4, learning_rate=1e-4, min_learning_rate=0.0, warmup_steps=1)
    config = stage.settings(settings())
    second = train(
        tmp_path / "second", make_loader(seed=2), validation, longer, config, seed=1, start=first.weights
    )
    assert second.model.config.rope_theta == 10_000.0
    assert json.loads((tmp_path / "second/checkpoints/step-00000006/state.json").read_text())["model"][
        "rope_theta"
    ] == 10_000.0  # fmt: skip
    begun = metrics.read(tmp_path / "second")[0]["loss"]
    assert begun < metrics.read(tmp_path / "first")[0]["loss"] - 0.5  # not from scratch
    # what it began with, under the new base
    model = Starcoder2(longer)
    model.load_state_dict(dict(first.weights()), strict=False)
    batch = make_loader(seed=2).batch(0)
    with torch.no_grad():
        logits = model(
            torch.from_numpy(batch.tokens[:, :-1]), positions_BT=torch.from_numpy(batch.positions),
            documents_BT=torch.from_numpy(batch.documents),
        )  # fmt: skip
    mask, targets = torch.from_numpy(batch.loss_mask), torch.from_numpy(batch.tokens[:, 1:])
    expected = torch.nn.functional.cross_entropy(logits[mask], targets[mask]).item()
    assert begun == pytest.approx(expected, rel=1e-5)

    def forbidden():
        raise AssertionError("a run that goes on needs no start")

    train(tmp_path / "second", make_loader(seed=2), validation, longer, config, seed=1, start=forbidden)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adapter_learns_and_its_base_stays(precision, tmp_path, make_loader, model_config, settings):
    base = Starcoder2(model_config).initialise(7)
    start = base.named_parameters
    config = settings(lora=Lora(rank=4, alpha=16.0), learning_rate=2e-2, precision=precision)

    class KilledError(Exception):
        pass

    def kill(done, total, text):
        if done == 8:
            raise KilledError

    with join(Hardware(device="cpu"), precision) as world:
        options = {"seed": 1, "world": world, "start": start}
        whole = train(tmp_path / "whole", make_loader(), [], model_config, config, **options)
        with pytest.raises(KilledError):
            train(tmp_path / "run", make_loader(), [], model_config, config, progress=kill, **options)
        trained = train(tmp_path / "run", make_loader(), [], model_config, config, **options)
        merged = dict(trained.weights())
        assert trained.loss == whole.loss
    losses = [line["loss"] for line in metrics.read(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.15
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj")
    names = dict(base.named_parameters())
    assert merged.keys() == names.keys()
    for name, weight in names.items():
        is_target = name.endswith(".weight") and name.split(".")[-2] in targets
        assert torch.equal(merged[name], weight) is not is_target, name
    size = sum(file.stat().st_size for file in (tmp_path / "run/checkpoints/step-00000012").glob("*.safetensors"))
    assert size < 3 * 4 * sum(p.numel() for p in base.parameters()) / 2  # the base and its moments are not in it


def test_an_adapter_needs_a_base(tmp_path, make_loader, model_config, settings):
    with pytest.raises(InputError, match=r"training.lora adapts a trained model: name it with model.start"):
        train(tmp_path, make_loader(), [], model_config, settings(lora=Lora()), seed=1)


def test_refuses_a_start_of_another_shape(tmp_path, make_loader, model_config, settings):
    other = Starcoder2(dataclasses.replace(model_config, num_hidden_layers=1)).initialise(1)
    with pytest.raises(InputError, match=r"the weights to start from lack model.layers.1"):
        train(tmp_path, make_loader(), [], model_config, settings(), seed=1, start=other.named_parameters)
