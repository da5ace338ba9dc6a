"""The model laid out: recomputation, compilation, sharding over one rank, and weights filled in."""

import dataclasses

import pytest
import torch
from artificial_language import FakeLoader
from torch.utils.flop_counter import FlopCounterMode

from starsmith.errors import InputError
from starsmith.model import lora
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware
from starsmith.training import parallel
from starsmith.training.world import ALONE, join


def learner_of(config, hardware=None, world=ALONE, precision="fp32", adapted=False):
    with torch.device("meta"):
        model = Starcoder2(config)
        if adapted:
            lora.apply(model, rank=2, alpha=4.0, seed=3)
    learner = parallel.lay_out(model, world, hardware or Hardware(), precision)
    with torch.device("meta"):
        plain = Starcoder2(config)
    parallel.fill(model, plain.fresh_weights(1))
    lora.initialise(model, seed=3)
    return learner


def loss_of(learner, batch):
    return learner(
        torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions), batch.documents,
        torch.from_numpy(batch.loss_mask),
    )  # fmt: skip


def gradients(learner, batch):
    """The loss, and gradients by name, whole."""
    loss = loss_of(learner, batch)
    loss.backward()
    found = {}
    for name, parameter in learner.model.named_parameters():
        grad = parameter.grad
        if grad is not None:
            found[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).clone()
    return loss.item(), found


def assert_equal(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        assert torch.equal(found[1][name], grad), name


@pytest.fixture(scope="module")
def batch():
    return FakeLoader(uneven=True).batch(0)


@pytest.mark.parametrize("what", ["selective", "full"])
def test_what_is_computed_again_changes_no_bit(what, batch, model_config):
    expected = gradients(learner_of(model_config), batch)
    assert_equal(gradients(learner_of(model_config, Hardware(activation_checkpointing=what)), batch), expected)


def test_selective_repeats_no_matrix_product(batch, model_config):
    """Products as counted by PyTorch: `full` repeats those of the layers, `selective` none."""
    flops = {}
    for what in ("none", "selective", "full"):
        learner = learner_of(model_config, Hardware(activation_checkpointing=what))
        with FlopCounterMode(display=False) as counter:
            loss_of(learner, batch).backward()
        flops[what] = counter.get_total_flops()
    matrices = dict(learner.model.model.layers.named_parameters())
    # the last product of a layer needs no repeating: nothing in the layer learns from its result
    size = sum(p.numel() for name, p in matrices.items() if p.ndim == 2 and not name.endswith("mlp.c_proj.weight"))
    assert flops["selective"] == flops["none"]
    assert flops["full"] - flops["none"] == 2 * size * batch.loss_mask.size


@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize("what", ["none", "selective"])
def test_layers_are_compiled_once_for_all(what, batch, model_config, monkeypatch):
    from torch._dynamo.testing import CompileCounterWithBackend

    counter, plain = CompileCounterWithBackend("aot_eager"), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: plain(function, backend=counter))
    deep = dataclasses.replace(model_config, num_hidden_layers=10)  # more than the 8 that may differ
    hardware = Hardware(compile=True, activation_checkpointing=what)
    try:
        loss, grads = gradients(learner_of(deep, hardware), batch)
    finally:
        torch._dynamo.reset()
    assert counter.frame_count == 1
    expected_loss, expected = gradients(learner_of(deep), batch)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for name, grad in expected.items():
        assert torch.allclose(grads[name], grad, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("tied", [True, False])
def test_sharded_in_float32_is_the_plain_model(tied, batch, model_config):
    config = dataclasses.replace(model_config, tie_word_embeddings=tied)
    expected = gradients(learner_of(config), batch)
    assert ("lm_head.weight" in expected[1]) is not tied
    with join(Hardware(device="cpu"), "bf16") as world:
        assert world.mesh is not None
        hardware = Hardware(activation_checkpointing="selective")
        assert_equal(gradients(learner_of(config, hardware, world), batch), expected)


def test_bfloat16_computes_in_it_and_keeps_float32(batch, model_config):
    expected_loss, expected = gradients(learner_of(model_config), batch)
    with join(Hardware(device="cpu"), "bf16") as world:
        learner = learner_of(model_config, world=world, precision="bf16")
        seen = []
        learner.model.model.layers[0].mlp.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
        loss, grads = gradients(learner, batch)
        assert seen == [torch.bfloat16]
        assert {parameter.dtype for parameter in learner.parameters()} == {torch.float32}
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
    assert loss != expected_loss
    assert loss == pytest.approx(expected_loss, rel=2e-3)
    for name, grad in expected.items():
        if grad.norm() > 1e-3:  # a bias of keys shifts all scores alike: its gradient is rounding
            assert (grads[name] - grad).norm() < 0.05 * grad.norm(), name


def test_an_adapter_alone_gets_gradients_when_sharded(batch, model_config):
    expected = gradients(learner_of(model_config, adapted=True), batch)
    assert all(lora.is_adapter(name) for name in expected[1])
    with join(Hardware(device="cpu"), "bf16") as world:
        assert_equal(gradients(learner_of(model_config, world=world, adapted=True), batch), expected)


def test_initial_weights_are_those_of_the_model_s_own_rule(model_config):
    expected = Starcoder2(model_config).initialise(1)
    model = learner_of(model_config).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, weight in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), weight), name


def test_refuses_weights_of_another_model(model_config):
    whole = dict(Starcoder2(model_config).fresh_weights(1))
    name = "model.layers.1.mlp.c_fc.bias"
    cases = {
        f"lack {name}": {key: value for key, value in whole.items() if key != name},
        "have extra, which the model has not": {**whole, "extra": whole[name]},
        rf"{name} .* has shape \(3,\), the model's has \(64,\)": {**whole, name: torch.ones(3)},
    }
    for message, weights in cases.items():
        with pytest.raises(InputError, match=message):
            parallel.fill(Starcoder2(model_config), weights.items())
