"""The chunked loss against plain cross-entropy."""

import pytest
import torch

from starsmith.training.loss import next_token_loss


@pytest.mark.parametrize(
    ("rows", "length", "vocab", "hidden"), [(2, 9, 11, 16), (3, 400, 90, 8), (8, 512, 40, 24)]
)
def test_equals_plain_cross_entropy(rows, length, vocab, hidden):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, length, hidden, generator=generator, requires_grad=True)
    head = torch.randn(vocab, hidden, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocab, (rows, length), generator=generator)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    logits = (x @ head.T)[mask]
    expected = torch.nn.functional.cross_entropy(logits, targets[mask])
    expected_grads = torch.autograd.grad(expected, (x, head))
    found = next_token_loss(x, head, targets, mask)
    found_grads = torch.autograd.grad(found, (x, head))
    assert torch.allclose(found, expected, atol=1e-5)
    for found_grad, expected_grad in zip(found_grads, expected_grads, strict=True):
        assert torch.allclose(found_grad, expected_grad, atol=1e-6)
    assert found_grads[0][~mask].abs().max() == 0
    with torch.no_grad():
        assert torch.allclose(next_token_loss(x, head, targets, mask), expected, atol=1e-5)


def test_no_target_is_not_a_loss_of_zero():
    x, head, targets = torch.ones(1, 4, 3), torch.ones(5, 3), torch.zeros(1, 4, dtype=torch.int64)
    assert torch.isnan(next_token_loss(x, head, targets, torch.zeros(1, 4, dtype=torch.bool)))
