"""StarCoder2: the network ("StarCoder 2 and The Stack v2", section 6.1).

A pre-norm decoder with rotary positions, grouped-query attention in a sliding window, biases everywhere but in
the head, and LayerNorm. Written for itself instead of taken from `transformers` so that training depends on no
other library's changes; it is held to that implementation by parity tests. Parameter names are Hugging Face's,
and so is RoPE's half rotation, so that export is the identity.

Shape suffixes: B rows, T tokens, C hidden size, H query heads, K key and value heads, D head size, S keys,
V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from starsmith.model.attention import AttentionBackend, Seen, attend, choose, see
from starsmith.model.cache import KeyValueCache, Ring
from starsmith.model.configuration import Starcoder2Config

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles, (B or 1, T, 1, D / 2)."""


class Attention(nn.Module):
    def __init__(self, config: Starcoder2Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query, key_value = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=config.use_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=config.use_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=config.use_bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=config.use_bias)

    def forward(self, x_BTC: Tensor, rotation: Rotation, seen: Seen, ring: Ring | None) -> Tensor:
        q_BTHD = rotate(self._heads(self.q_proj(x_BTC)), rotation)
        k_BTKD = rotate(self._heads(self.k_proj(x_BTC)), rotation)
        v_BTKD = self._heads(self.v_proj(x_BTC))
        if ring is not None:
            k_BTKD, v_BTKD = ring.extend(k_BTKD, v_BTKD)
        out_BTC: Tensor = self.o_proj(attend(q_BTHD, k_BTKD, v_BTKD, seen).flatten(2))
        return out_BTC

    def _heads(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.view(*x_BTC.shape[:2], -1, self.head_dim)


class FeedForward(nn.Module):
    def __init__(self, config: Starcoder2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.use_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.c_proj(functional.gelu(self.c_fc(x_BTC), approximate="tanh"))
        return out_BTC


class Layer(nn.Module):
    """A block of the network: the unit that is compiled, sharded and checkpointed."""

    def __init__(self, config: Starcoder2Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)

    def forward(self, x_BTC: Tensor, rotation: Rotation, seen: Seen, ring: Ring | None = None) -> Tensor:
        x_BTC = x_BTC + self.self_attn(self.input_layernorm(x_BTC), rotation, seen, ring)
        out_BTC: Tensor = x_BTC + self.mlp(self.post_attention_layernorm(x_BTC))
        return out_BTC


class Decoder(nn.Module):
    """Everything below the head; `model.` in parameter names."""

    def __init__(self, config: Starcoder2Config, attention_backend: AttentionBackend | None) -> None:
        super().__init__()
        self.config = config
        self.attention_backend = attention_backend
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None,
        documents_BT: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        num_rows, num_tokens = tokens_BT.shape
        if cache is not None:
            if documents_BT is not None or positions_BT is not None:
                raise ValueError("with a cache, each row is one document and its positions are the cache's")
            opening = cache.open(num_tokens)
            out_BTC = self.run(self.embed_tokens(tokens_BT), opening.positions, opening.seen, opening.rings)
            cache.close(num_tokens)
            return out_BTC
        x_BTC: Tensor = self.embed_tokens(tokens_BT)
        seen = see(
            num_rows, num_tokens, self.config.sliding_window, documents_BT, device=x_BTC.device,
            backend=choose(x_BTC.device, x_BTC.dtype, self.config.head_dim, self.attention_backend),
        )  # fmt: skip
        if positions_BT is None:
            positions_BT = torch.arange(num_tokens, device=x_BTC.device)[None]
        return self.run(x_BTC, positions_BT, seen)

    def run(
        self,
        x_BTC: Tensor,
        positions_BT: Tensor,
        seen: Seen,
        rings: Sequence[Ring] | None = None,
        layers: Iterable[nn.Module] | None = None,
    ) -> Tensor:
        """Embedded tokens through all layers; their keys and values enter the rings, where there are any.

        Args:
            layers: to run in place of the network's own, such as compiled forms of them.
        """
        rotation = rotation_of(positions_BT, self.config.head_dim, self.config.rope_theta, x_BTC.dtype)
        for number, layer in enumerate(self.layers if layers is None else layers):
            x_BTC = layer(x_BTC, rotation, seen, None if rings is None else rings[number])
        out_BTC: Tensor = self.norm(x_BTC)
        return out_BTC


class Starcoder2(nn.Module):
    """The network with its head. Fresh weights are undefined until `initialise` or `load_state_dict`."""

    def __init__(self, config: Starcoder2Config, *, attention_backend: AttentionBackend | None = None) -> None:
        """Makes the network.

        Args:
            attention_backend: see `attention.py`; None takes what suits the device and precision of each pass.
        """
        super().__init__()
        self.config = config
        self.model = Decoder(config, attention_backend)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden_states(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The (B, T, C) states that the head turns into logits; arguments as in `forward`.

        Where not all logits are needed at once (the loss, the last position of a prompt), the head is best
        applied by the caller: (B, T, V) is by far the largest tensor of a model with a small body.
        """
        out_BTC: Tensor = self.model(tokens_BT, positions_BT, documents_BT, cache)
        return out_BTC

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the token after each.

        Args:
            tokens_BT: token ids.
            positions_BT: rotary positions; by default those of one document.
            documents_BT: document numbers; attention stays within equal numbers, which lie side by side. They may
                be on the CPU, and are best there (see `attention.py`). None: one document a row.
            cache: what was read before; it is extended by these tokens, whose positions it knows.

        Raises:
            InputError, MachineError: the attention back end that is asked for cannot be used here.
        """
        logits_BTV: Tensor = self.lm_head(
            self.hidden_states(tokens_BT, positions_BT=positions_BT, documents_BT=documents_BT, cache=cache)
        )
        return logits_BTV

    @torch.no_grad()
    def initialise(self, seed: int) -> "Starcoder2":
        """Takes on `fresh_weights`."""
        parameters = dict(self.named_parameters())
        for name, weight in self.fresh_weights(seed):
            parameters[name].copy_(weight)
        return self

    def fresh_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """The weights to begin with, one by one: normal with `initializer_range`, biases 0, norms 1.

        The same seed gives the same bits: they are drawn on the CPU from a generator of their own, so that neither
        the device nor what was drawn before matters. The model itself may be on the meta device.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            weight = torch.empty(parameter.shape)
            if parameter.ndim >= 2:
                weight.normal_(std=self.config.initializer_range, generator=generator)
            else:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            yield name, weight


def rotation_of(positions_BT: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """RoPE's angles, computed in float32 whatever the model's precision."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device) / head_dim
    angles = positions_BT[:, :, None, None].float() * (1.0 / theta**exponents)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BTHD: Tensor, rotation: Rotation) -> Tensor:
    """Turns the pairs (i, i + D / 2) by their position's angle: the half rotation of Llama and StarCoder2."""
    if torch.compiler.is_compiling():  # which derives and fuses both directions by itself
        return _turn(x_BTHD, *rotation)
    turned_BTHD: Tensor = _Rotate.apply(x_BTHD, *rotation)  # type: ignore[no-untyped-call]
    return turned_BTHD


class _Rotate(torch.autograd.Function):
    """The gradient of a turn is the turn back: half of the work, and nothing kept but the angles."""

    @staticmethod
    def forward(ctx: Any, x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x_BTHD, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradients[0], cos, -sin), None, None


def _turn(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat(
        (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)), dim=-1
    )
