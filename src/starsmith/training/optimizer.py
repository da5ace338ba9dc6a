"""AdamW with decoupled weight decay on matrices, and its state as named tensors.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization"; betas, epsilon and decay are the paper's
(section 6.2). Biases and norms are not decayed: they have one dimension, and shrinking them has no purpose.
The state is kept by parameter name instead of torch's numbering, so that a checkpoint is plain safetensors and
reading it runs no code.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from starsmith.recipe import Training

_MOMENTS = ("exp_avg", "exp_avg_sq")


def build(model: nn.Module, config: Training) -> torch.optim.AdamW:
    """The optimiser over all parameters, in two groups: decayed (two and more dimensions) and not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
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


def restore(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], num_updates: int
) -> None:
    """Puts back what `moments` gave; `num_updates` is the number of steps taken, for the bias correction."""
    optimizer.state.clear()
    if not num_updates:
        return
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(num_updates), device=parameter.device),
            **{moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS},
        }
