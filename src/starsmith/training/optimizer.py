"""AdamW with decoupled weight decay on matrices, and its state as named tensors.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization"; betas, epsilon and decay are the paper's
(section 6.2). Biases and norms are not decayed: they have one dimension, and shrinking them has no purpose.
The state is kept by parameter name instead of torch's numbering, so that a checkpoint is plain safetensors and
reading it runs no code.

With float32 moments it is PyTorch's fused AdamW. With bfloat16 moments (`AdamW16`), which that one refuses beside
float32 weights, a weight and its state take 8 bytes instead of 12. Moments are rounded to the nearest of 8 bits: a
change below a 256th is lost. A new square moves its mean by a twentieth of their difference (beta2 = 0.95), so a
mean stands still where squares keep within 8 % of it, and a step is at most 4 % too long or short. Betas near 1
would let everything stand still; they are refused.

Parameters that are sharded are updated where they lie: every operation is elementwise.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from starsmith.errors import InputError
from starsmith.recipe import Training

_MOMENTS = ("exp_avg", "exp_avg_sq")
_MAX_BETA_BF16 = 0.98  # squares then move their mean when they differ from it by a fifth


class AdamW16(torch.optim.Optimizer):
    """AdamW with moments in bfloat16; computes in float32."""

    def __init__(self, groups: Any, *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in _MOMENTS:
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        updates = float(state["step"])
        beta1, beta2 = group["betas"]
        weight, grad = _local(parameter), _local(gradient)
        moments = [_local(state[name]) for name in _MOMENTS]
        mean = moments[0].float().lerp_(grad, 1.0 - beta1)
        square = moments[1].float().mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        for moment, value in zip(moments, (mean, square), strict=True):
            moment.copy_(value)
        deviation = square.sqrt_().div_((1.0 - beta2**updates) ** 0.5).add_(group["eps"])
        weight.mul_(1.0 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(mean, deviation, value=-group["lr"] / (1.0 - beta1**updates))


def build(model: nn.Module, config: Training) -> torch.optim.Optimizer:
    """The optimiser over all parameters that learn, in two groups: decayed (two and more dimensions) and not.

    Raises:
        InputError: the settings contradict each other.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (config.beta1, config.beta2)
    if config.moments == "bf16":
        if max(betas) > _MAX_BETA_BF16:
            raise InputError(
                f"training.moments is bf16 and a beta is {max(betas):g}: bfloat16 cannot hold means over so many "
                f'steps; use betas up to {_MAX_BETA_BF16:g}, or training.moments = "fp32"'
            )
        return AdamW16(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon)
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=betas,
        eps=config.epsilon,
        fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The running moments as `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`; empty before the first update."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in _MOMENTS
        if parameter in optimizer.state
    }


def allocate(optimizer: torch.optim.Optimizer, model: nn.Module, num_updates: int) -> Mapping[str, Tensor]:
    """Makes room for the moments after so many updates (for the bias correction), to be filled in place."""
    optimizer.state.clear()
    if num_updates:
        dtype = torch.bfloat16 if isinstance(optimizer, AdamW16) else None
        for parameter in model.parameters():
            if parameter.requires_grad:
                device = "cpu" if isinstance(optimizer, AdamW16) else parameter.device
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(num_updates), device=device),
                    **{moment: torch.zeros_like(parameter, dtype=dtype) for moment in _MOMENTS},
                }
    return moments(optimizer, model)


def _local(tensor: Tensor) -> Tensor:
    """This rank's part, sharing memory with the whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
