"""Completing prompts and scoring tokens.

Prompts of different length share a batch by padding on the left; the padding is another document, so a row
gets what it would get alone (up to the last bits of floating-point sums). Each row draws from randomness keyed
by (seed, prompt, sample): neither the batch it falls into nor the other prompts change its samples.

Nucleus sampling follows Holtzman et al., "The Curious Case of Neural Text Degeneration": the smallest set of
most probable tokens whose probability reaches `top_p`, renormalised.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from starsmith.errors import InputError
from starsmith.model.cache import KeyValueCache
from starsmith.model.starcoder2 import Starcoder2

FinishReason = Literal["eos", "stop", "length", "context", "prompt_too_long"]
Stop = Callable[[list[int]], bool]
_PADDING, _TEXT = -1, 0  # document numbers
_CHUNK = 512  # positions whose logits are held at once


@dataclass(frozen=True)
class Generated:
    """One completion."""

    ids: list[int]
    """Without the end token; with the tokens at which `stop` ended it."""
    finish_reason: FinishReason
    """eos: the end token; stop: `stop` said so; length: max_new_tokens reached; context: the model's
    max_position_embeddings reached; prompt_too_long: the prompt alone fills them, nothing was generated."""


@dataclass
class _Row:
    place: int
    prompt: list[int]
    budget: int
    uniforms: np.ndarray
    ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@torch.inference_mode()
def generate(
    model: Starcoder2,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    eos_token_id: int = 0,
    seed: int = 0,
    stop: Stop | None = None,
    num_samples: int = 1,
    batch_size: int = 16,
) -> list[Generated]:
    """Completes every prompt `num_samples` times; a prompt's samples lie side by side in the result.

    Args:
        temperature: 0 takes the most probable token (the lowest id among equals).
        top_p: share of probability sampled from, in (0, 1].
        eos_token_id: ends a completion.
        stop: called with a row's generated ids after each of its tokens; True ends the row.
        batch_size: rows in flight; only speed and memory depend on it.

    Raises:
        InputError: an empty prompt, or a setting out of its range.
    """
    _check(prompts, max_new_tokens, temperature, top_p, num_samples, batch_size)
    context = model.config.max_position_embeddings
    rows: list[_Row] = []
    for number, prompt in enumerate(prompts):
        for sample in range(num_samples):
            budget = min(max_new_tokens, context - len(prompt))
            uniforms = _uniforms(seed, number, sample, max_new_tokens if temperature > 0 else 0)
            rows.append(_Row(len(rows), list(prompt), budget, uniforms))
            if budget <= 0:
                rows[-1].finish_reason = "prompt_too_long"
    waiting = sorted((row for row in rows if row.finish_reason is None), key=lambda row: len(row.prompt))
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        _complete(model, batch, max_new_tokens, temperature, top_p, eos_token_id, stop)
    return [Generated(row.ids, row.finish_reason or "length") for row in rows]


@torch.inference_mode()
def token_log_probs(model: Starcoder2, tokens_BT: Tensor) -> Tensor:
    """Natural-log probability of each token given those before it: (B, T - 1) float32, from the second on."""
    x_BTC = model.hidden_states(tokens_BT[:, :-1])
    x_NC, targets_N = x_BTC.flatten(0, 1), tokens_BT[:, 1:].flatten()
    parts = []
    for x_nC, targets_n in zip(torch.split(x_NC, _CHUNK), torch.split(targets_N, _CHUNK), strict=True):
        logits_nV = model.lm_head(x_nC).float()
        chosen_n = logits_nV.gather(1, targets_n[:, None]).squeeze(1)
        parts.append(chosen_n - logits_nV.logsumexp(dim=1))
    return torch.cat(parts).view(tokens_BT.shape[0], -1)


def _complete(
    model: Starcoder2,
    batch: list[_Row],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    eos_token_id: int,
    stop: Stop | None,
) -> None:
    """Fills in the rows of one batch."""
    device = model.lm_head.weight.device
    width = max(len(row.prompt) for row in batch)
    lengths = [len(row.prompt) for row in batch]
    cache = KeyValueCache(
        model.config, len(batch), width + max_new_tokens, device=device, dtype=model.lm_head.weight.dtype
    )
    padded = [[0] * (width - len(row.prompt)) + row.prompt for row in batch]
    tokens_BT = torch.tensor(padded, device=device)
    length_B = torch.tensor(lengths, device=device)
    index_BT = torch.arange(width, device=device)[None] - (width - length_B[:, None])
    documents_BT = torch.where(index_BT < 0, _PADDING, _TEXT) if min(lengths) < width else None
    positions_BT = index_BT.clamp(min=0)
    for step in range(max_new_tokens):
        x_BTC = model.hidden_states(tokens_BT, positions_BT=positions_BT, documents_BT=documents_BT, cache=cache)
        logits_BV = model.lm_head(x_BTC[:, -1]).float()
        uniform_B = [row.uniforms[step] for row in batch] if temperature > 0 else []
        next_B = _choose(logits_BV, temperature, top_p, uniform_B)
        for row, token in zip(batch, next_B.tolist(), strict=True):
            _take(row, token, eos_token_id, stop, max_new_tokens)
        active = [number for number, row in enumerate(batch) if row.finish_reason is None]
        if not active:
            return
        positions_BT, documents_BT = positions_BT[:, -1:] + 1, None
        tokens_BT = next_B[:, None]
        if len(active) < len(batch):
            kept = torch.tensor(active, device=device)
            batch = [batch[number] for number in active]
            tokens_BT, positions_BT = tokens_BT[kept], positions_BT[kept]
            cache.select(kept)


def _take(row: _Row, token: int, eos_token_id: int, stop: Stop | None, max_new_tokens: int) -> None:
    if token == eos_token_id:
        row.finish_reason = "eos"
        return
    row.ids.append(token)
    if stop is not None and stop(row.ids):
        row.finish_reason = "stop"
    elif len(row.ids) >= row.budget:
        row.finish_reason = "length" if row.budget == max_new_tokens else "context"


def _choose(logits_BV: Tensor, temperature: float, top_p: float, uniform_B: list[float]) -> Tensor:
    """The next token of each row: the best one, or the one on which the row's uniform number falls."""
    if temperature == 0:
        return logits_BV.argmax(dim=1)
    probs_BV = torch.softmax(logits_BV.double() / temperature, dim=1)
    sorted_BV, ids_BV = probs_BV.sort(dim=1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(dim=1) - sorted_BV
    kept_BV = torch.where(before_BV < top_p, sorted_BV, 0.0)
    sums_BV = kept_BV.cumsum(dim=1)
    drawn_B1 = torch.tensor(uniform_B, dtype=torch.float64, device=logits_BV.device)[:, None] * sums_BV[:, -1:]
    place_B1 = torch.searchsorted(sums_BV, drawn_B1, right=True)
    last_B1 = (kept_BV > 0).sum(dim=1, keepdim=True) - 1  # rounding may carry a draw past the end
    return ids_BV.gather(1, torch.minimum(place_B1, last_B1)).squeeze(1)


def _uniforms(seed: int, prompt: int, sample: int, count: int) -> np.ndarray:
    key = hashlib.sha256(f"{seed}/{prompt}/{sample}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random(count)


def _check(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    num_samples: int,
    batch_size: int,
) -> None:
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {number} is empty; begin with the end-of-text token to generate freely")
    for name, value in (
        ("max_new_tokens", max_new_tokens), ("num_samples", num_samples), ("batch_size", batch_size)
    ):  # fmt: skip
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if temperature < 0:
        raise InputError(f"temperature must be 0 (greedy) or more, got {temperature}")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p must be above 0 and at most 1, got {top_p}")
