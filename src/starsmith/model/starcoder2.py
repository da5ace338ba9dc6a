"""StarCoder2: the network ("StarCoder 2 and The Stack v2", section 6.1).

A pre-norm decoder with rotary positions, grouped-query attention in a sliding window, biases everywhere but in
the head, and LayerNorm. Written for itself instead of taken from `transformers` so that training depends on no
other library's changes; it is held to that implementation by parity tests. Parameter names are Hugging Face's,
and so is RoPE's half rotation, so that export is the identity.

Shape suffixes: B rows, T tokens, C hidden size, H query heads, K key and value heads, D head size, S keys,
V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from starsmith.model.attention import Visibility, attend, visibility
from starsmith.model.cache import KeyValueCache
from starsmith.model.configuration import Starcoder2Config

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles, (B, 1, T, D / 2)."""


class Attention(nn.Module):
    def __init__(self, config: Starcoder2Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        query, key_value = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=config.use_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=config.use_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=config.use_bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=config.use_bias)

    def forward(self, x_BTC: Tensor, rotation: Rotation, seen: Visibility, cache: KeyValueCache | None) -> Tensor:
        q_BHTD = rotate(self._heads(self.q_proj(x_BTC)), rotation)
        k_BKSD = rotate(self._heads(self.k_proj(x_BTC)), rotation)
        v_BKSD = self._heads(self.v_proj(x_BTC))
        if cache is not None:
            k_BKSD, v_BKSD = cache.extend(self.layer, k_BKSD, v_BKSD)
        out_BHTD = attend(q_BHTD, k_BKSD, v_BKSD, seen)
        out_BTC: Tensor = self.o_proj(out_BHTD.transpose(1, 2).flatten(2))
        return out_BTC

    def _heads(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.view(*x_BTC.shape[:2], -1, self.head_dim).transpose(1, 2)


class FeedForward(nn.Module):
    def __init__(self, config: Starcoder2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.use_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.c_proj(functional.gelu(self.c_fc(x_BTC), approximate="tanh"))
        return out_BTC


class Layer(nn.Module):
    def __init__(self, config: Starcoder2Config, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)

    def forward(self, x_BTC: Tensor, rotation: Rotation, seen: Visibility, cache: KeyValueCache | None) -> Tensor:
        x_BTC = x_BTC + self.self_attn(self.input_layernorm(x_BTC), rotation, seen, cache)
        out_BTC: Tensor = x_BTC + self.mlp(self.post_attention_layernorm(x_BTC))
        return out_BTC


class Decoder(nn.Module):
    """Everything below the head; `model.` in parameter names."""

    def __init__(self, config: Starcoder2Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None,
        documents_BT: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        num_tokens, device = tokens_BT.shape[1], tokens_BT.device
        if cache is None:
            seen, start = visibility(num_tokens, self.config.sliding_window, documents_BT, device), 0
        else:
            seen, start = cache.open(num_tokens, documents_BT), cache.length
        if positions_BT is None:
            positions_BT = torch.arange(start, start + num_tokens, device=device)[None]
        x_BTC: Tensor = self.embed_tokens(tokens_BT)
        rotation = rotation_of(positions_BT, self.config.head_dim, self.config.rope_theta, x_BTC.dtype)
        for layer in self.layers:
            x_BTC = layer(x_BTC, rotation, seen, cache)
        if cache is not None:
            cache.close(num_tokens)
        out_BTC: Tensor = self.norm(x_BTC)
        return out_BTC


class Starcoder2(nn.Module):
    """The network with its head. Fresh weights are undefined until `initialise` or `load_state_dict`."""

    def __init__(self, config: Starcoder2Config) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
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
            positions_BT: rotary positions; by default those of one document (continued from the cache).
            documents_BT: document numbers; attention stays within equal numbers. None: one document a row.
            cache: what was read before; it is extended by these tokens.
        """
        logits_BTV: Tensor = self.lm_head(
            self.hidden_states(tokens_BT, positions_BT=positions_BT, documents_BT=documents_BT, cache=cache)
        )
        return logits_BTV

    @torch.no_grad()
    def initialise(self, seed: int) -> "Starcoder2":
        """Fresh weights: normal with `initializer_range`, biases 0, norms 1. The same seed gives the same bits.

        Drawn on the CPU from a generator of its own, so that neither the device nor what was drawn before
        matters.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                drawn = torch.empty(parameter.shape).normal_(
                    std=self.config.initializer_range, generator=generator
                )
                parameter.copy_(drawn)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        return self


def rotation_of(positions_BT: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """RoPE's angles, computed in float32 whatever the model's precision."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device) / head_dim
    angles = positions_BT[:, None, :, None].float() * (1.0 / theta**exponents)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BHTD: Tensor, rotation: Rotation) -> Tensor:
    """Turns the pairs (i, i + D / 2) by their position's angle: the half rotation of Llama and StarCoder2."""
    cos, sin = rotation
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
