"""The model, laid out over the ranks and made ready to learn.

Each layer is made, in this order,

1. to forget its activations and compute them again in the backward pass (`none`, `selective`, `full`),
2. compiled, where asked for, with what it recomputes in view,
3. sharded: FSDP2 gathers its weights just before they are needed, in bfloat16 if that is the precision, and leaves
   each rank its part of the gradients, summed in float32. What is left (embedding, last norm, head) is one more
   group, held by a module whose forward pass ends with the loss, since weights are whole only inside of it.

Layers keep their class and parameters their names: only `forward` of a layer is replaced.

`selective` keeps the results of matrix products and attention, which are nearly all of the time, and computes
norms, activations and rotations again, which are most of the memory that can be had cheaply.

The model is laid out on the meta device and gets its weights one whole tensor at a time, of which each rank keeps
its rows; so a model may be larger than a device, and starts the same at every number of ranks. One process in
float32 is the plain module.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from starsmith.errors import InputError
from starsmith.model.lora import is_adapter
from starsmith.model.starcoder2 import Layer, Starcoder2
from starsmith.recipe import Hardware
from starsmith.training.loss import next_token_loss
from starsmith.training.world import World

_KEPT = [
    *(torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default),
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.torch_attn._varlen_attn.default,
    torch.ops.higher_order.flex_attention,
]


class Learner(nn.Module):
    """The model with its loss."""

    def __init__(self, model: Starcoder2) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens_BT1: Tensor,
        positions_BT: Tensor,
        documents_BT: NDArray[np.int32] | None,
        loss_mask_BT: Tensor,
    ) -> Tensor:
        """The sum of the loss over all targets that count, float32; see `next_token_loss`.

        Documents are an array of the host's because FSDP moves all tensors to its device, and attention plans its
        work on the host.
        """
        x_BTC = self.model.hidden_states(
            tokens_BT1[:, :-1],
            positions_BT=positions_BT,
            documents_BT=None if documents_BT is None else torch.from_numpy(documents_BT),
        )
        return next_token_loss(x_BTC, self.model.lm_head.weight, tokens_BT1[:, 1:], loss_mask_BT)


def lay_out(model: Starcoder2, world: World, hardware: Hardware, precision: str) -> Learner:
    """Makes a model on the meta device ready to learn on these ranks; its weights are still to be filled in.

    Args:
        model: on the meta device; what must not learn requires no gradient already.
        world: the ranks.
        hardware: recomputation and compilation.
        precision: `fp32` or `bf16`.
    """
    learner = Learner(model)
    for layer in model.model.layers:
        assert isinstance(layer, Layer)
        recompute(layer, hardware.activation_checkpointing)
        if hardware.compile:
            layer.forward = torch.compile(layer.forward)  # type: ignore[method-assign]
    if world.mesh is not None:
        dtype = torch.bfloat16 if precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        for layer in model.model.layers:
            fully_shard(layer, mesh=world.mesh, mp_policy=policy)
        fully_shard(learner, mesh=world.mesh, mp_policy=policy)
    learner.to_empty(device=world.device)
    if model.config.tie_word_embeddings:  # moving from meta replaces both
        model.lm_head.weight = model.model.embed_tokens.weight
    return learner


@torch.no_grad()
def fill(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Gives each parameter, but those of an adapter, its whole tensor, of which every rank keeps its part.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    parameters = {name: each for name, each in model.named_parameters() if not is_adapter(name)}
    missing = set(parameters)
    for name, whole in weights:
        if name not in parameters:
            raise InputError(f"the weights to start from have {name}, which the model has not")
        parameter = parameters[name]
        if whole.shape != parameter.shape:
            raise InputError(
                f"{name} of the weights to start from has shape {tuple(whole.shape)}, the model's has "
                f"{tuple(parameter.shape)}"
            )
        if isinstance(parameter, DTensor):
            whole = whole.to(parameter.device)
            whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.copy_(whole)
        missing.discard(name)
    if missing:
        raise InputError(f"the weights to start from lack {', '.join(sorted(missing))}")


def recompute(layer: Layer, what: str) -> None:
    """Lets a layer compute `selective` or `full` again in the backward pass; `none` leaves it as it is."""
    if what == "none":
        return
    plain: Callable[..., Tensor] = layer.forward
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)

    def forward(*arguments: Any) -> Tensor:
        out: Tensor = checkpoint(plain, *arguments, **options)
        return out

    layer.forward = forward  # type: ignore[method-assign, assignment]


def sums_over_copies(learner: nn.Module, whether: bool) -> None:
    """With HSDP, whether the next backward pass sums the gradients over the copies of the weights: the last of a
    step must, and the others would move the same bytes again."""
    if isinstance(learner, FSDPModule):
        learner.set_requires_all_reduce(whether)


def free_gathered(learner: nn.Module) -> None:
    """Leaves each rank its own part after forward passes without a backward pass."""
    if isinstance(learner, FSDPModule):
        learner.reshard()


def _policy(_: Any, operator: Any, *arguments: Any, **keywords: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
