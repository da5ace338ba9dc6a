"""Causal attention with a sliding window and document borders, as one function over a description of what is seen.

A position sees itself and the positions before it, at most `window` of them (itself included, as in
`transformers`' masks), and only within its own document. Positions are compared by their place in the sequence;
rotary positions do not matter here. What is seen is the same in every layer, so `see` works it out once per batch
and `attend` takes it in each. Three back ends, one test suite:

* `reference`: scaled_dot_product_attention with masks, forward and backward on every device in every precision;
  what the others are held to. Queries are cut into blocks and each block gets only the keys that it can reach:
  the cost grows with T * window instead of T * T, and masks are (block, window + block) instead of (T, T).
* `varlen`: PyTorch's flash kernels for sequences of different length, laid end to end; CUDA, bf16 and fp16 only.
  Their window is the number of keys *before* the position: `window - 1`. The table of borders is made on the host
  and padded, so that compiled layers see few shapes (a table that changes length each batch costs a compilation
  each). A table of documents that lie on the GPU costs one synchronisation: leave them on the CPU.
* `flex`: FlexAttention, compiled; its tiles are found from the documents' borders, never from a (T, T) mask. CUDA;
  on the CPU it runs forward only and slowly (PyTorch has no backward there), which is enough to be tested.

Left to itself, `choose` takes `varlen` where it can and `reference` elsewhere.

Shape suffixes: B rows, T queries, S keys, H query heads, K key and value heads, G = H / K, D head size, N borders
of segments, Q and J tiles of queries and of keys.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from starsmith.errors import InputError, MachineError

AttentionBackend = Literal["reference", "varlen", "flex"]

_BLOCK = 64  # queries; half of it is no faster, twice as many take 14 % longer
_TILE = 128  # FlexAttention's own size
_TOKENS_A_SEGMENT = 256  # the table of borders has room for segments of this mean length; it doubles when it must
_VARLEN_PRECISIONS = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Block:
    """Some queries, the range of keys that they may see, and which of these they do see."""

    queries: slice
    keys: slice
    mask: Tensor | None
    """(B or 1, 1, T, S), true where visible, for this block's queries and keys; None when all are."""


@dataclass(frozen=True)
class Blocks:
    """For `reference`: blocks that cover all queries in order; none at all means plainly causal."""

    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Segments:
    """For `varlen`: all rows end to end, cut into documents."""

    bounds: Tensor
    """(N,) int32; where each segment begins, then where the last one ends, repeated up to a fixed length."""
    max_length: int
    """No segment is longer; the length of a row, so that it never changes."""
    window: tuple[int, int]
    """Keys seen before and after the position; -1 for all."""


@dataclass(frozen=True)
class Slots:
    """One query a row over a ring of keys (`cache.py`), for `reference`."""

    mask: Tensor
    """(B, 1, 1, S), true where the row's query sees the slot."""


@dataclass(frozen=True)
class UsedSlots:
    """The same for `varlen`: each row sees the slots at the front of its ring."""

    num_used: Tensor
    """(B,) int32; slots seen."""
    query_bounds: Tensor
    """(B + 1,) int32; where each row's one query begins, rows end to end."""
    key_bounds: Tensor
    """(B + 1,) int32; where each row's ring begins, rings end to end."""


Seen = Blocks | Segments | Slots | UsedSlots | BlockMask


def see(
    num_rows: int,
    num_tokens: int,
    window: int | None,
    documents_BT: Tensor | None,
    *,
    device: torch.device | None = None,
    backend: AttentionBackend = "reference",
) -> Seen:
    """What each of `num_tokens` positions sees of the same positions.

    Args:
        num_tokens: T, of queries and keys alike.
        window: keys seen, the position itself included; None for all.
        documents_BT: document number of each position, in any numbering; positions of one document lie side by
            side. None for one document a row.
        device: of the queries. The documents may lie elsewhere.
        backend: whose description to make; see `choose`.
    """
    if backend == "varlen":
        hidden = window is not None and window < num_tokens
        left = window - 1 if window is not None and hidden else -1
        bounds_N = segment_bounds(num_rows, num_tokens, documents_BT)
        return Segments(bounds_N.to(device, non_blocking=True), num_tokens, (left, 0))
    if documents_BT is not None:
        documents_BT = documents_BT.to(device)
    if backend == "flex":
        return _tiles(num_tokens, window, documents_BT, device)
    if documents_BT is None and (window is None or num_tokens <= window):
        return Blocks()
    index_T = torch.arange(num_tokens, device=device)
    return blocks(index_T, index_T, window, documents_BT)


def blocks(query_T: Tensor, key_S: Tensor, window: int | None, documents_BT: Tensor | None = None) -> Blocks:
    """Blocks for queries and keys at the given places in the sequence.

    The last T keys are those of the queries themselves; before them may stand keys of earlier tokens in any order,
    and a negative place marks an empty slot.
    """
    num_tokens, num_before = len(query_T), len(key_S) - len(query_T)
    found = []
    for start in range(0, num_tokens, _BLOCK):
        queries = slice(start, min(start + _BLOCK, num_tokens))
        is_before_seen = window is None or start < window - 1
        first = 0 if is_before_seen or window is None else num_before + start - window + 1
        keys = slice(first, num_before + queries.stop)
        distance_TS = query_T[queries, None] - key_S[None, keys]
        mask_1TS = ((distance_TS >= 0) & (key_S[keys] >= 0))[None]
        if window is not None:
            mask_1TS = mask_1TS & (distance_TS < window)
        if documents_BT is not None:
            mask_1TS = mask_1TS & (documents_BT[:, queries, None] == documents_BT[:, None, keys])
        found.append(Block(queries, keys, mask_1TS[:, None]))
    return Blocks(tuple(found))


def segment_bounds(num_rows: int, num_tokens: int, documents_BT: Tensor | None) -> Tensor:
    """Borders of the documents of all rows laid end to end, as `Segments.bounds`, on the CPU.

    Empty segments at the end fill the table up to a power of two, at least one segment for 256 tokens.
    """
    is_first_BT = torch.zeros((num_rows, num_tokens), dtype=torch.bool)
    is_first_BT[:, 0] = True
    if documents_BT is not None:
        on_host_BT = documents_BT.cpu()
        is_first_BT[:, 1:] = on_host_BT[:, 1:] != on_host_BT[:, :-1]
    total = num_rows * num_tokens
    starts_N = is_first_BT.flatten().nonzero().flatten()
    room = max(len(starts_N), num_rows, total // _TOKENS_A_SEGMENT)
    bounds_N = torch.full((1 + (1 << (room - 1).bit_length()),), total, dtype=torch.int32)
    bounds_N[: len(starts_N)] = starts_N
    return bounds_N


def attend(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, seen: Seen) -> Tensor:
    """Grouped-query attention with scale 1 / sqrt(D); returns (B, T, H, D).

    Query head h reads key head `h // G`. Every query must see at least one key.
    """
    if isinstance(seen, Blocks):
        return _attend_blocks(q_BTHD, k_BSKD, v_BSKD, seen)
    if isinstance(seen, Segments):
        return _attend_segments(q_BTHD, k_BSKD, v_BSKD, seen)
    if isinstance(seen, Slots):
        return _attend_slots(q_BTHD, k_BSKD, v_BSKD, seen)
    if isinstance(seen, UsedSlots):
        return _attend_used_slots(q_BTHD, k_BSKD, v_BSKD, seen)
    function = flex_attention if q_BTHD.device.type == "cpu" else _compiled_flex_attention()
    out_BHTD: Tensor = function(
        *(x.transpose(1, 2) for x in (q_BTHD, k_BSKD, v_BSKD)),
        block_mask=seen,
        enable_gqa=q_BTHD.shape[2] != k_BSKD.shape[2],
    )
    return out_BHTD.transpose(1, 2)


def choose(
    device: torch.device, dtype: torch.dtype, head_dim: int, wanted: AttentionBackend | None = None
) -> AttentionBackend:
    """The back end for these queries: the one that is wanted, else the fastest that can be used.

    Raises:
        InputError, MachineError: the one that is wanted cannot be used here; the message says why.
    """
    if wanted is None:
        return "reference" if _varlen_fault(device, dtype, head_dim) else "varlen"
    fault = {
        "reference": None,
        "varlen": _varlen_fault(device, dtype, head_dim),
        "flex": _flex_fault(device, head_dim),
    }[wanted]
    if fault is not None:
        raise fault
    return wanted


def _attend_blocks(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, seen: Blocks) -> Tensor:
    grouped = q_BTHD.shape[2] != k_BSKD.shape[2]
    q_BHTD, k_BKSD, v_BKSD = (x.transpose(1, 2) for x in (q_BTHD, k_BSKD, v_BSKD))
    if not seen.blocks:
        out_BHTD = scaled_dot_product_attention(q_BHTD, k_BKSD, v_BKSD, is_causal=True, enable_gqa=grouped)
        return out_BHTD.transpose(1, 2)
    # The gradient of a split is one concatenation; that of slices would be as many sums over the whole.
    lengths = [block.queries.stop - block.queries.start for block in seen.blocks]
    parts = torch.split(q_BHTD, lengths, dim=2)
    outputs = [
        scaled_dot_product_attention(
            part_BHTD, k_BKSD[:, :, block.keys], v_BKSD[:, :, block.keys], attn_mask=block.mask, enable_gqa=grouped
        ).transpose(1, 2)
        for part_BHTD, block in zip(parts, seen.blocks, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _attend_segments(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, seen: Segments) -> Tensor:
    out = varlen_attn(
        q_BTHD.flatten(0, 1), k_BSKD.flatten(0, 1), v_BSKD.flatten(0, 1),
        seen.bounds, seen.bounds, seen.max_length, seen.max_length,
        window_size=seen.window, enable_gqa=q_BTHD.shape[2] != k_BSKD.shape[2],
    )  # fmt: skip
    assert isinstance(out, Tensor)  # a pair only where more was asked for
    return out.view(q_BTHD.shape)


def _attend_slots(q_B1HD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, seen: Slots) -> Tensor:
    """The query heads of one group become queries of one head: keys are read once a group, and never repeated."""
    num_rows, _, num_heads, head_dim = q_B1HD.shape
    num_groups = k_BSKD.shape[2]
    q_BKGD = q_B1HD.reshape(num_rows, num_groups, num_heads // num_groups, head_dim)
    out_BKGD = scaled_dot_product_attention(
        q_BKGD, k_BSKD.transpose(1, 2), v_BSKD.transpose(1, 2), attn_mask=seen.mask
    )
    return out_BKGD.reshape(q_B1HD.shape)


def _attend_used_slots(q_B1HD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, seen: UsedSlots) -> Tensor:
    """Without causality and window, the kernel groups query heads itself and splits long rings over the GPU."""
    out = varlen_attn(
        q_B1HD.flatten(0, 1), k_BSKD.flatten(0, 1), v_BSKD.flatten(0, 1),
        seen.query_bounds, seen.key_bounds, 1, k_BSKD.shape[1],
        enable_gqa=q_B1HD.shape[2] != k_BSKD.shape[2], seqused_k=seen.num_used,
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out.view(q_B1HD.shape)


def _tiles(
    num_tokens: int, window: int | None, documents_BT: Tensor | None, device: torch.device | None
) -> BlockMask:
    """FlexAttention's mask: which tiles hold anything that is seen, and which of these are seen whole.

    A tile is left out where causality, window or documents alone hide it; the few that only their combination
    would hide stay in and cost time, not correctness.
    """
    num_tiles = -(-num_tokens // _TILE)
    first_Q = torch.arange(num_tiles, device=device) * _TILE
    last_Q = (first_Q + _TILE - 1).clamp(max=num_tokens - 1)
    is_cut_Q = first_Q + _TILE > num_tokens  # FlexAttention takes a whole tile at its word, past the end too
    some_QJ, all_QJ = first_Q[None] <= last_Q[:, None], last_Q[None] <= first_Q[:, None]
    all_QJ = all_QJ & ~is_cut_Q[:, None]
    if window is not None:
        some_QJ = some_QJ & (first_Q[:, None] - last_Q[None] < window)
        all_QJ = all_QJ & (last_Q[:, None] - first_Q[None] < window)
    some_BQJ, all_BQJ = some_QJ[None], all_QJ[None]
    run_BT = None
    if documents_BT is not None:
        run_BT = torch.nn.functional.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0)).cumsum(1)
        low_BQ, high_BQ = run_BT[:, first_Q], run_BT[:, last_Q]
        is_one_BQ = low_BQ == high_BQ
        meet_BQJ = (low_BQ[:, None] <= high_BQ[:, :, None]) & (high_BQ[:, None] >= low_BQ[:, :, None])
        some_BQJ = some_BQJ & meet_BQJ
        all_BQJ = all_BQJ & meet_BQJ & is_one_BQ[:, None] & is_one_BQ[:, :, None]
    some_BQJ = some_BQJ & ~all_BQJ
    return BlockMask.from_kv_blocks(
        *_ordered(some_BQJ[:, None]),
        *_ordered(all_BQJ[:, None]),
        BLOCK_SIZE=_TILE,
        mask_mod=_rule(window, run_BT),
        seq_lengths=(num_tokens, num_tokens),
    )


def _ordered(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """For each tile of queries: how many tiles of keys are chosen, and their numbers in front of the others'."""
    order = chosen.int().argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.int()


def _rule(window: int | None, run_BT: Tensor | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def is_seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = query >= key
        if window is not None:
            seen = seen & (query - key < window)
        if run_BT is not None:
            seen = seen & (run_BT[row, query] == run_BT[row, key])
        return seen

    return is_seen


@functools.cache
def _compiled_flex_attention() -> Any:
    return torch.compile(flex_attention)


def _varlen_fault(device: torch.device, dtype: torch.dtype, head_dim: int) -> InputError | MachineError | None:
    if device.type != "cuda":
        return MachineError(f"attention back end 'varlen' needs a CUDA GPU, not {device.type}; use 'reference'")
    if torch.cuda.get_device_capability(device) < (8, 0):
        return MachineError("attention back end 'varlen' needs a GPU of the Ampere generation or later")
    if dtype not in _VARLEN_PRECISIONS:
        return InputError(f"attention back end 'varlen' computes in bf16 or fp16, not {dtype}; use 'reference'")
    if head_dim % 8 or head_dim > 256:
        return InputError(
            f"attention back end 'varlen' needs a head size that is a multiple of 8 up to 256, got {head_dim}"
        )
    return None


def _flex_fault(device: torch.device, head_dim: int) -> InputError | MachineError | None:
    if device.type == "cpu":
        if torch.is_grad_enabled():
            return MachineError(
                "attention back end 'flex' has no backward pass on the CPU; use 'reference', or torch.no_grad()"
            )
        return None
    if device.type != "cuda":
        return MachineError(f"attention back end 'flex' needs a CUDA GPU, not {device.type}; use 'reference'")
    if head_dim < 16:
        return InputError(f"attention back end 'flex' needs a head size of 16 or more on a GPU, got {head_dim}")
    return None
