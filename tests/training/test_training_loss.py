"""The chunked loss against plain cross-entropy."""

import pytest
import torch

from starsmith.training.loss import next_token_loss

SHAPES = [(2, 9, 11, 16), (3, 400, 90, 8), (8, 512, 40, 24)]


def case(rows, length, vocab, hidden, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, length, hidden, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(vocab, hidden, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (rows, length), generator=generator)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    return x, head, targets, mask


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_plain_cross_entropy(shape):
    x, head, targets, mask = case(*shape)
    count = mask.sum()
    expected = torch.nn.functional.cross_entropy((x @ head.T)[mask], targets[mask])
    expected_grads = torch.autograd.grad(expected, (x, head))
    found = next_token_loss(x, head, targets, mask)
    found_grads = torch.autograd.grad(found / count, (x, head))
    assert torch.allclose(found / count, expected, atol=1e-5)
    for found_grad, expected_grad in zip(found_grads, expected_grads, strict=True):
        assert torch.allclose(found_grad, expected_grad, atol=1e-6)
    assert found_grads[0][~mask].abs().max() == 0
    with torch.no_grad():
        assert torch.allclose(next_token_loss(x, head, targets, mask) / count, expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_summed_in_float32(shape):
    """Against double precision on the same numbers: the loss to 1e-5, gradients to a rounding of theirs."""
    x, head, targets, mask = case(*shape, dtype=torch.bfloat16)
    exact_x, exact_head = (value.detach().double().requires_grad_() for value in (x, head))
    exact = torch.nn.functional.cross_entropy((exact_x @ exact_head.T)[mask], targets[mask], reduction="sum")
    exact_grads = torch.autograd.grad(exact, (exact_x, exact_head))
    found = next_token_loss(x, head, targets, mask)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    found_grads = torch.autograd.grad(found, (x, head))
    for found_grad, exact_grad in zip(found_grads, exact_grads, strict=True):
        assert found_grad.dtype == torch.bfloat16
        error = (found_grad.double() - exact_grad).norm() / exact_grad.norm()
        assert error < 4e-3  # half a unit of 8 bits is 2e-3
    assert found_grads[0][~mask].abs().max() == 0
    with torch.no_grad():
        assert next_token_loss(x, head, targets, mask) == found


def test_a_frozen_head_gets_no_gradient():
    x, head, targets, mask = case(2, 9, 11, 16, dtype=torch.bfloat16)
    (alone,) = torch.autograd.grad(next_token_loss(x, head.detach(), targets, mask), (x,))
    (both, _) = torch.autograd.grad(next_token_loss(x, head, targets, mask), (x, head))
    assert torch.equal(alone, both)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_target_is_a_sum_of_zero_with_a_gradient_of_zero(dtype):
    x, head, targets, mask = case(2, 9, 11, 16, dtype=dtype)
    loss = next_token_loss(x, head, targets, torch.zeros_like(mask))
    assert loss == 0
    assert all(not grad.any() for grad in torch.autograd.grad(loss, (x, head)))
