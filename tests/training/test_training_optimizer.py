"""The optimiser against AdamW written out, and its state through a round trip."""

import math

import pytest
import torch

from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Training
from starsmith.training import optimizer


def test_follows_adamw_and_decays_matrices_only():
    config = Training(learning_rate=0.1, weight_decay=0.5, beta1=0.9, beta2=0.95, epsilon=1e-8)
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
            assert torch.allclose(parameter.double(), values[name], atol=1e-5), (name, step)


@pytest.mark.parametrize("num_updates", [0, 3])
def test_state_survives_a_round_trip(num_updates, model_config, settings):
    def grads(model, seed):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)

    model = Starcoder2(model_config).initialise(0)
    made = optimizer.build(model, settings())
    for seed in range(num_updates):
        grads(model, seed)
        made.step()
    again = Starcoder2(model_config)
    again.load_state_dict(model.state_dict())
    remade = optimizer.build(again, settings())
    tensors = {name: tensor.clone() for name, tensor in optimizer.moments(made, model).items()}
    assert len(tensors) == (2 * len(list(model.parameters())) if num_updates else 0)
    optimizer.restore(remade, again, tensors, num_updates)
    for network, its in ((model, made), (again, remade)):
        grads(network, 99)
        its.step()
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
