"""Completing prompts, filling holes, and scoring tokens.

Prompts of different length share a batch: they are read side by side, a bounded number of tokens at a time, and
each row goes on from its own end (`cache.py`), so that it gets what it would get alone (up to the last bits of
floating-point sums). Each row draws from randomness keyed by (seed, prompt, sample): neither the batch it falls
into nor the other prompts change its samples.

After the prompts, a step is one token a row and always the same series of operations on the same tensors. On
CUDA it is recorded once as a graph and replayed: launched one by one, the kernels of 30 layers take longer than
reading the weights. Rows that have ended keep their place until half of the batch has; then the batch shrinks to
the rest and the step is recorded anew.

Nucleus sampling follows Holtzman et al., "The Curious Case of Neural Text Degeneration": the smallest set of
most probable tokens whose probability reaches `top_p`, renormalised.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from starsmith.errors import InputError, MachineError
from starsmith.model.cache import KeyValueCache
from starsmith.model.starcoder2 import Starcoder2

FinishReason = Literal["eos", "stop", "length", "context", "prompt_too_long"]
Stop = Callable[[list[int]], bool]
Decoding = Literal["plain", "graph", "compiled"]
"""How steps run: operation by operation, as a CUDA graph, or as a CUDA graph of compiled layers."""

_CHUNK = 512  # positions whose logits are held at once
_PROMPT_TOKENS = 8_192  # of all rows together, read at once


@dataclass(frozen=True)
class Generated:
    """One completion."""

    ids: list[int]
    """Without the end token; with the tokens at which `stop` ended it."""
    finish_reason: FinishReason
    """eos: an end token; stop: `stop` said so; length: max_new_tokens reached; context: the model's
    max_position_embeddings reached; prompt_too_long: the prompt alone fills them, nothing was generated."""


@dataclass
class _Row:
    prompt: list[int]
    budget: int
    uniforms: np.ndarray
    ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, kw_only=True)
class _Sampling:
    temperature: float
    top_p: float
    max_new_tokens: int
    end_ids: frozenset[int]
    stop: Stop | None


@torch.inference_mode()
def generate(
    model: Starcoder2,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    eos_token_id: int | Collection[int] = 0,
    seed: int = 0,
    stop: Stop | None = None,
    num_samples: int = 1,
    batch_size: int = 16,
    decoding: Decoding | None = None,
) -> list[Generated]:
    """Completes every prompt `num_samples` times; a prompt's samples lie side by side in the result.

    Args:
        temperature: 0 takes the most probable token (the lowest id among equals).
        top_p: share of probability sampled from, in (0, 1].
        eos_token_id: ends a completion; or several that do.
        stop: called with a row's generated ids after each of its tokens; True ends the row.
        batch_size: rows in flight; only speed and memory depend on it.
        decoding: None is a graph on CUDA and plain elsewhere. Compiling takes a while and pays for long runs.

    Raises:
        InputError: an empty prompt, or a setting out of its range.
        MachineError: a graph without CUDA.
    """
    _check(prompts, max_new_tokens, temperature, top_p, num_samples, batch_size)
    decoding = _decoding(model, decoding)
    end_ids = frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)
    sampling = _Sampling(
        temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, end_ids=end_ids, stop=stop
    )
    context = model.config.max_position_embeddings
    rows: list[_Row] = []
    for number, prompt in enumerate(prompts):
        for sample in range(num_samples):
            budget = min(max_new_tokens, context - len(prompt))
            uniforms = _uniforms(seed, number, sample, max_new_tokens if temperature > 0 else 0)
            rows.append(_Row(list(prompt), budget, uniforms))
            if budget <= 0:
                rows[-1].finish_reason = "prompt_too_long"
    waiting = sorted((row for row in rows if row.finish_reason is None), key=lambda row: len(row.prompt))
    for start in range(0, len(waiting), batch_size):
        _complete(model, waiting[start : start + batch_size], sampling, decoding)
    return [Generated(row.ids, row.finish_reason or "length") for row in rows]


@dataclass(frozen=True, kw_only=True)
class FimTokens:
    """The special tokens that mark a hole, by number."""

    prefix: int
    middle: int
    suffix: int
    file_separator: int | None = None
    """Ends a middle, as the end token does; None where a vocabulary has none."""


def fim_prompt(
    prefix: Sequence[int], suffix: Sequence[int], tokens: FimTokens, *, order: Literal["psm", "spm"] = "psm"
) -> list[int]:
    """The prompt after which the middle comes.

    psm is prefix, suffix, middle. spm, in the variant that StarCoder2 was trained with, puts the suffix first and
    lets the middle follow its prefix without a mark.
    """
    if order == "psm":
        return [tokens.prefix, *prefix, tokens.suffix, *suffix, tokens.middle]
    return [tokens.prefix, tokens.suffix, *suffix, tokens.middle, *prefix]


def infill(
    model: Starcoder2,
    holes: Sequence[tuple[Sequence[int], Sequence[int]]],
    tokens: FimTokens,
    *,
    max_new_tokens: int,
    order: Literal["psm", "spm"] = "psm",
    temperature: float = 0.0,
    top_p: float = 1.0,
    eos_token_id: int = 0,
    seed: int = 0,
    stop: Stop | None = None,
    num_samples: int = 1,
    batch_size: int = 16,
    decoding: Decoding | None = None,
) -> list[Generated]:
    """What stands between each (prefix, suffix); arguments and order of results as in `generate`.

    A middle ends with the end token or a file separator. Raises as `generate` does.
    """
    separators = [] if tokens.file_separator is None else [tokens.file_separator]
    return generate(
        model, [fim_prompt(prefix, suffix, tokens, order=order) for prefix, suffix in holes],
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
        eos_token_id=[eos_token_id, *separators], seed=seed, stop=stop, num_samples=num_samples,
        batch_size=batch_size, decoding=decoding,
    )  # fmt: skip


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


def _complete(model: Starcoder2, batch: list[_Row], sampling: _Sampling, decoding: Decoding) -> None:
    """Fills in the rows of one batch."""
    lengths = [len(row.prompt) for row in batch]
    budget = max(row.budget for row in batch)
    weight = model.lm_head.weight
    cache = KeyValueCache(
        model.config, len(batch), max(lengths) + budget, prompt_lengths=lengths, device=weight.device,
        dtype=weight.dtype, backend=model.model.attention_backend,
    )  # fmt: skip
    logits_BV = _read_prompts(model, [row.prompt for row in batch], cache)
    step = Step(model, cache, decoding)
    for number in range(budget):
        uniform_B = [row.uniforms[number] for row in batch] if sampling.temperature > 0 else []
        next_B = _choose(logits_BV.float(), sampling.temperature, sampling.top_p, uniform_B)
        for row, token in zip(batch, next_B.tolist(), strict=True):
            _take(row, token, sampling)
        active = [place for place, row in enumerate(batch) if row.finish_reason is None]
        if not active:
            return
        if 2 * len(active) <= len(batch):
            kept = torch.tensor(active, device=weight.device)
            batch, next_B = [batch[place] for place in active], next_B[kept]
            cache.select(kept)
            step = Step(model, cache, decoding)
        logits_BV = step(next_B)


def _read_prompts(model: Starcoder2, prompts: list[list[int]], cache: KeyValueCache) -> Tensor:
    """The logits (B, V) after each prompt."""
    device, num_rows = model.lm_head.weight.device, len(prompts)
    lengths = [len(prompt) for prompt in prompts]
    padded = [prompt + [0] * (max(lengths) - len(prompt)) for prompt in prompts]
    tokens_BT = torch.tensor(padded, device=device)
    last_B = torch.tensor(lengths, device=device) - 1
    row_B = torch.arange(num_rows, device=device)
    found_BC: Tensor | None = None
    start = 0
    for part_BT in torch.split(tokens_BT, max(1, _PROMPT_TOKENS // num_rows), dim=1):
        num_tokens = part_BT.shape[1]
        x_BTC = model.hidden_states(part_BT, cache=cache)
        last_BC = x_BTC[row_B, (last_B - start).clamp(0, num_tokens - 1)]
        found_BC = last_BC if found_BC is None else torch.where(last_B[:, None] >= start, last_BC, found_BC)
        start += num_tokens
    logits_BV: Tensor = model.lm_head(found_BC)
    return logits_BV


class Step:
    """One token a row, from the tokens chosen to the logits of the next, over tensors that keep their place."""

    def __init__(self, model: Starcoder2, cache: KeyValueCache, decoding: Decoding = "plain") -> None:
        self._model, self._cache, self._decoding = model, cache, decoding
        self._tokens_B1 = torch.zeros((cache.num_rows, 1), dtype=torch.int64, device=model.lm_head.weight.device)
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._layers = (
            [_compiled(layer) for layer in model.model.layers] if decoding == "compiled" else model.model.layers
        )

    def __call__(self, tokens_B: Tensor) -> Tensor:
        """Logits (B, V), which the next call may overwrite."""
        self._tokens_B1.copy_(tokens_B[:, None])
        if self._decoding == "plain":
            logits_BV = self._run()
        else:
            width = self._cache.width
            if width not in self._recorded:
                self._recorded[width] = self._record()
            graph, logits_BV = self._recorded[width]
            graph.replay()
        self._cache.close(1)
        return logits_BV

    def _run(self) -> Tensor:
        """May run again before the cache is closed: it writes the same slots once more."""
        decoder, opening = self._model.model, self._cache.open(1)
        x_BTC = decoder.embed_tokens(self._tokens_B1)
        x_BTC = decoder.run(x_BTC, opening.positions, opening.seen, opening.rings, layers=self._layers)
        logits_BV: Tensor = self._model.lm_head(x_BTC[:, 0])
        return logits_BV

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Runs that come before the recording choose kernels, make workspaces and compile."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits_BV = self._run()
        return graph, logits_BV


def _compiled(layer: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(layer))


def _decoding(model: Starcoder2, wanted: Decoding | None) -> Decoding:
    is_cuda = model.lm_head.weight.device.type == "cuda"
    if wanted is None:
        return "graph" if is_cuda else "plain"
    if wanted != "plain" and not is_cuda:
        raise MachineError(f"decoding {wanted!r} needs a model on a CUDA GPU; use 'plain'")
    return wanted


def _take(row: _Row, token: int, sampling: _Sampling) -> None:
    """Gives a row its next token; a row that has ended takes none."""
    if row.finish_reason is not None:
        return
    if token in sampling.end_ids:
        row.finish_reason = "eos"
        return
    row.ids.append(token)
    if sampling.stop is not None and sampling.stop(row.ids):
        row.finish_reason = "stop"
    elif len(row.ids) >= row.budget:
        row.finish_reason = "length" if row.budget == sampling.max_new_tokens else "context"


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
