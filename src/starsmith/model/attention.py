"""Causal attention with a sliding window and document borders, as one function.

A position sees itself and the positions before it, at most `window` of them (itself included, as in
`transformers`' masks; flash-style kernels call the same thing `window - 1`), and only within its own document.
Positions are compared by their place in the sequence; rotary positions do not matter here.

What is visible is the same in every layer, so `visibility` works it out once per batch. Queries are cut into
blocks and each block gets only the keys that it can reach: the cost grows with T * window instead of T * T, and
the masks are (block, window + block) instead of (T, T). On one core, with T = 512 and window 192, forward and
backward take 58 % of the time of one masked call. Where nothing but causality hides a key, the kernel's own
causal path is used and there is no mask at all.

Everything goes through PyTorch's scaled_dot_product_attention, which has a backward pass on every device.

Shape suffixes: B rows, T queries, S keys, H query heads, K key and value heads, D head size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_BLOCK = 128  # queries; between 64 and 192 the time differs little, and smaller blocks cost calls


@dataclass(frozen=True)
class Block:
    """Some queries, the range of keys that they may see, and which of these they do see."""

    queries: slice
    keys: slice
    mask: Tensor | None
    """(B or 1, 1, T, S), true where visible, for this block's queries and keys; None when all are."""


Visibility = tuple[Block, ...] | None
"""Blocks that cover all queries in order, or None: plainly causal."""


def visibility(
    num_tokens: int, window: int | None, documents_BT: Tensor | None, device: torch.device | None = None
) -> Visibility:
    """What each of `num_tokens` positions sees of the same positions.

    Args:
        num_tokens: T, of queries and keys alike.
        window: keys seen, the position itself included; None for all.
        documents_BT: document number of each position, in any numbering; None for one document a row.
        device: of the masks.
    """
    if documents_BT is None and (window is None or num_tokens <= window):
        return None
    index_T = torch.arange(num_tokens, device=device)
    blocks = []
    for start in range(0, num_tokens, _BLOCK):
        queries = slice(start, min(start + _BLOCK, num_tokens))
        keys = slice(0 if window is None else max(0, start - window + 1), queries.stop)
        mask_1TS = visible(index_T[None, queries], index_T[None, keys], window)
        if documents_BT is not None:
            mask_1TS = mask_1TS & (documents_BT[:, queries, None] == documents_BT[:, None, keys])
        blocks.append(Block(queries, keys, mask_1TS[:, None]))
    return tuple(blocks)


def visible(query_BT: Tensor, key_BS: Tensor, window: int | None) -> Tensor:
    """Causality and window as a (B, T, S) mask, from the places of queries and keys in the sequence."""
    distance_BTS = query_BT[:, :, None] - key_BS[:, None, :]
    mask_BTS = distance_BTS >= 0
    return mask_BTS if window is None else mask_BTS & (distance_BTS < window)


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, seen: Visibility) -> Tensor:
    """Grouped-query attention with scale 1 / sqrt(D); returns (B, H, T, D).

    Query head h reads key head `h // (H / K)`. Every query must see at least one key.
    """
    grouped = q_BHTD.shape[1] != k_BKSD.shape[1]
    if seen is None:
        return scaled_dot_product_attention(q_BHTD, k_BKSD, v_BKSD, is_causal=True, enable_gqa=grouped)
    outputs = [
        scaled_dot_product_attention(
            q_BHTD[:, :, block.queries],
            k_BKSD[:, :, block.keys],
            v_BKSD[:, :, block.keys],
            attn_mask=block.mask,
            enable_gqa=grouped,
        )
        for block in seen
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
