"""How much arithmetic a step is, and which share of the device's peak it reaches (MFU).

The count is the model's, not the implementation's: matrix products, the head's included, two FLOPs a
multiply-add; attention as two products over the keys that a position sees, so causality, the window and the
borders of documents make it smaller; backward twice the forward pass (once for the inputs, once for the weights).
Norms, activations and the softmax are left out, and what is computed again to save memory does not count: MFU
rewards tokens, not work. HFU, the hardware's share, counts that too.

Published MFUs of the same speed differ two- and threefold by such choices: peaks with 2:4 sparsity taken for dense
ones, attention counted in full instead of causally. So the table below holds dense bfloat16 peaks only, each
half of the data sheet's number where that one is printed with sparsity; a device that is not in it has no MFU. A
float32 run on a GPU has none either: its peak depends on whether TF32 is allowed. A CPU's peak is measured, by one
square matrix product.

Shape suffixes: B rows, T positions.
"""

import functools
import re
import time

import numpy as np
import torch
from numpy.typing import NDArray

from starsmith.model.configuration import Starcoder2Config

PEAKS: tuple[tuple[str, float], ...] = (
    (r"NVIDIA A100\b.*|A100-.*", 312.0),  # A100 data sheet
    (r"NVIDIA A30", 165.0),  # A30 data sheet
    (r"NVIDIA H100 NVL", 835.5),  # H100 data sheet: 1,671 with sparsity
    (r"NVIDIA H100 PCIe", 756.5),  # H100 data sheet: 1,513 with sparsity
    (r"NVIDIA H100( 80GB HBM3)?", 989.5),  # H100 data sheet, SXM: 1,979 with sparsity
    (r"NVIDIA H200", 989.5),  # H200 data sheet, SXM: the same processor
    (r"NVIDIA GH200\b.*", 989.5),  # GH200 data sheet: the same processor
    (r"NVIDIA B200", 2250.0),  # HGX B200: 36 PFLOPS of eight with sparsity
    (r"NVIDIA L4", 121.0),  # L4 data sheet: 242 with sparsity
    (r"NVIDIA L40", 181.0),  # L40 data sheet
    (r"NVIDIA L40S", 362.0),  # L40S data sheet
    (r"AMD Instinct MI300X\b.*", 1307.4),  # MI300X data sheet
)
"""Names as `torch.cuda.get_device_name` gives them (the whole name must match), dense bfloat16 TFLOP/s."""

_MIG = re.compile(r"\bMIG\b")  # a slice of a device has a part of its peak, and the name does not say which
_PROBE_SIZE = 1024
_PROBE_REPEATS = 6


def mean_visible_keys(num_tokens: int, window: int | None) -> float:
    """Keys that a position of one document of `num_tokens` sees in the mean, itself included."""
    reach = num_tokens if window is None else min(window, num_tokens)
    return (reach * (reach + 1) / 2 + (num_tokens - reach) * reach) / num_tokens


def visible_keys(documents_BT: NDArray[np.integer], window: int | None) -> float:
    """The same for packed rows: documents are runs of equal numbers, and no position sees another's keys."""
    num_rows, num_tokens = documents_BT.shape
    border_BT = np.ones((num_rows, num_tokens + 1), dtype=np.bool_)
    border_BT[:, 1:-1] = documents_BT[:, 1:] != documents_BT[:, :-1]
    places = np.flatnonzero(border_BT)
    lengths = np.diff(places).astype(np.float64)
    # between the end of a row and the start of the next lies no document
    lengths = lengths[places[:-1] % (num_tokens + 1) != num_tokens]
    reach = lengths if window is None else np.minimum(lengths, window)
    return float((reach * (reach + 1) / 2 + (lengths - reach) * reach).sum() / documents_BT.size)


def forward_flops(config: Starcoder2Config, mean_keys: float) -> tuple[float, float, float]:
    """FLOPs of one token's forward pass: the layers' matrices, the head, attention."""
    hidden, key_value = config.hidden_size, config.num_key_value_heads * config.head_dim
    matrices = 2 * hidden * (hidden + key_value + config.intermediate_size)
    attention = 2 * 2 * hidden * mean_keys
    layers = config.num_hidden_layers
    return 2.0 * layers * matrices, 2.0 * hidden * config.vocab_size, layers * attention


def flops_per_token(config: Starcoder2Config, mean_keys: float, *, frozen: bool = False) -> float:
    """FLOPs of one token's forward and backward pass.

    Args:
        config: the shape.
        mean_keys: from `mean_visible_keys` or `visible_keys`.
        frozen: the matrices have no gradient of their own (LoRA; the adapters' own products, about a hundredth,
            are not counted).
    """
    layers, head, attention = forward_flops(config, mean_keys)
    return (layers + head) * (2 if frozen else 3) + attention * 3


def recomputed_flops_per_token(config: Starcoder2Config, mean_keys: float, checkpointing: str) -> float:
    """What activation checkpointing adds, for HFU: `selective` repeats no matrix product and no attention."""
    layers, _, attention = forward_flops(config, mean_keys)
    return layers + attention if checkpointing == "full" else 0.0


def device_peak(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by its name, or None where the table does not have it."""
    if _MIG.search(name):
        return None
    return next((tera * 1e12 for pattern, tera in PEAKS if re.fullmatch(pattern, name)), None)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s that MFU is a share of, or None where there is no honest number.

    Args:
        device: one device; a CPU's peak is that of this process's threads, measured once.
        precision: `fp32` or `bf16`, of the arithmetic.
    """
    if device.type == "cpu":
        return _measured_peak(precision, torch.get_num_threads())
    if device.type != "cuda" or precision != "bf16":
        return None
    return device_peak(torch.cuda.get_device_name(device))


@functools.cache
def _measured_peak(precision: str, num_threads: int) -> float:
    """The best of a few matrix products; a fifth of a second on two cores."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.ones(_PROBE_SIZE, _PROBE_SIZE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = []
    for _ in range(_PROBE_REPEATS):
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(time.perf_counter() - started)
    return 2.0 * _PROBE_SIZE**3 / min(seconds)
