"""The optimiser against AdamW written out, and its state through a round trip."""

import math

import pytest
import torch

from starsmith.errors import InputError
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Training
from starsmith.training import optimizer


@pytest.mark.parametrize(("moments", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-3)])
def test_follows_adamw_and_decays_matrices_only(moments, tolerance):
    config = Training(learning_rate=0.1, weight_decay=0.5, beta1=0.9, beta2=0.95, epsilon=1e-8, moments=moments)
    layer = torch.nn.Linear(3, 2)
    made = optimizer.build(layer, config)
    values = {name: parameter.detach().clone().double() for name, parameter in layer.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in values.items()}
    second = {name: torch.zeros_like(value) for name, value in values.items()}
    generator = torch.Generator().manual_seed(0)
    for step, rate in ((1, 0.1), (2, 0.05), (3, 0.025)):
        for parameter in layer.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.set_learning_rate(made, rate)
        made.step()
        for name, parameter in layer.named_parameters():
            grad = parameter.grad.double()
            values[name] *= 1 - rate * (0.5 if name == "weight" else 0.0)
            first[name] = 0.9 * first[name] + 0.1 * grad
            second[name] = 0.95 * second[name] + 0.05 * grad**2
            corrected = second[name].sqrt() / math.sqrt(1 - 0.95**step) + 1e-8
            values[name] -= rate * first[name] / (1 - 0.9**step) / corrected
            assert torch.allclose(parameter.double(), values[name], atol=tolerance), (name, step)
    state = optimizer.moments(made, layer)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32 if moments == "fp32" else torch.bfloat16}


def test_bfloat16_moments_stay_near_those_of_float32_over_many_steps():
    """A step is at most about 4 % too long or short where gradients keep one size; over noise it evens out."""
    generator = torch.Generator().manual_seed(0)
    runs = {}
    grads = [torch.randn(200, 50, generator=generator) * 0.01 + 0.002 for _ in range(200)]
    for moments in ("fp32", "bf16"):
        layer = torch.nn.Linear(50, 200, bias=False)
        torch.nn.init.zeros_(layer.weight)
        made = optimizer.build(layer, Training(learning_rate=1e-3, weight_decay=0.0, moments=moments))
        for grad in grads:
            layer.weight.grad = grad.clone()
            made.step()
        runs[moments] = layer.weight.detach().clone()
    assert (runs["bf16"] - runs["fp32"]).norm() < 0.02 * runs["fp32"].norm()


def test_refuses_betas_that_bfloat16_cannot_follow():
    with pytest.raises(InputError, match=r"moments is bf16 and a beta is 0.999.*up to 0.98"):
        optimizer.build(torch.nn.Linear(2, 2), Training(moments="bf16", beta2=0.999))


def test_what_is_frozen_has_no_state(model_config, settings):
    model = Starcoder2(model_config).initialise(0).requires_grad_(False)
    model.model.norm.requires_grad_(True)
    made = optimizer.build(model, settings())
    names = {"model.norm.weight", "model.norm.bias"}
    assert optimizer.allocate(made, model, 3).keys() == {
        f"{moment}.{name}" for moment in ("exp_avg", "exp_avg_sq") for name in names
    }


@pytest.mark.parametrize("moments", ["fp32", "bf16"])
@pytest.mark.parametrize("num_updates", [0, 3])
def test_state_survives_a_round_trip(num_updates, moments, model_config, settings):
    def grads(model, seed):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)

    model = Starcoder2(model_config).initialise(0)
    made = optimizer.build(model, settings(moments=moments))
    for seed in range(num_updates):
        grads(model, seed)
        made.step()
    again = Starcoder2(model_config)
    again.load_state_dict(model.state_dict())
    remade = optimizer.build(again, settings(moments=moments))
    tensors = optimizer.moments(made, model)
    assert len(tensors) == (2 * len(list(model.parameters())) if num_updates else 0)
    room = optimizer.allocate(remade, again, num_updates)
    assert room.keys() == tensors.keys()
    for name, tensor in room.items():
        tensor.copy_(tensors[name])
    for network, its in ((model, made), (again, remade)):
        grads(network, 99)
        its.step()
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
