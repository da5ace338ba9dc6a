"""The shape of a StarCoder2 model, under the key names of Hugging Face's `config.json`.

Source: the published `config.json` of the 3B, 7B and 15B ("StarCoder 2 and The Stack v2", section 6.1) and
`transformers`' Starcoder2Config. What every published StarCoder2 has in common is fixed, not configurable:
gelu (tanh form), LayerNorm with bias, a plain two-matrix MLP, no bias on the head. The published files name
dropout rates of 0.1, which were not used in training; this model has none, reads such files and writes 0.

Keys that a file leaves out mean what `transformers` takes for them (no window, RoPE's base 10,000), not our own
defaults. Begin and end ids outside the vocabulary (49152 and 50256 have both been published) mean `<|endoftext|>`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from starsmith.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Starcoder2Config:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    """Each serves `num_attention_heads / num_key_value_heads` query heads."""
    max_position_embeddings: int = 16_384
    """Positions that generation may use; RoPE itself has no end."""
    sliding_window: int | None = 4_096
    """Keys that a position sees, itself included; None sees all before it."""
    rope_theta: float = 100_000.0
    initializer_range: float = 0.018042
    """Standard deviation of fresh weights."""
    norm_epsilon: float = 1e-5
    use_bias: bool = True
    tie_word_embeddings: bool = True
    """The head is the embedding matrix (3B and 7B; the 15B has its own)."""
    bos_token_id: int = 0
    eos_token_id: int = 0
    """`<|endoftext|>` is the first of StarCoder2's special tokens, and begins and ends a document."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"model {name} must be at least 1, got {value}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise InputError(f"model sliding_window must be at least 1 or none, got {self.sliding_window}")
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise InputError(
                f"model hidden_size {self.hidden_size} must be an even multiple of num_attention_heads "
                f"{self.num_attention_heads}: rotary embeddings turn pairs"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"model num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def with_context(self, *, num_positions: int, rope_theta: float) -> "Starcoder2Config":
        """The same network for longer sequences (section 6.2): only the angles of positions change."""
        return dataclasses.replace(self, max_position_embeddings=num_positions, rope_theta=rope_theta)

    def to_dict(self) -> dict[str, Any]:
        """The content of `config.json`; RoPE's base under both the older and the newer key."""
        return {
            "architectures": ["Starcoder2ForCausalLM"],
            "model_type": "starcoder2",
            **dataclasses.asdict(self),
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            **_FIXED,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
            "residual_dropout": 0.0,
            "use_cache": True,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Starcoder2Config":
        """Reads the content of a `config.json`, written by us or by any version of `transformers`.

        Keys that do not shape the network (dtype, versions, dropout rates) are not looked at.

        Raises:
            InputError: another kind of model, a missing key, a value of the wrong kind, or a StarCoder2 variant
                that is not published (other activation, gated MLP, scaled RoPE, explicit head size).
        """
        if values.get("model_type") != "starcoder2":
            kind = values.get("model_type")
            raise InputError(f"config.json has model_type {kind!r}; only 'starcoder2' is known")
        for name, known in _FIXED.items():
            if values.get(name, known) != known:
                raise InputError(f"config.json has {name} {values[name]!r}; StarCoder2 has {known!r}")
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type != "default":
            raise InputError(f"config.json has rope_type {rope_type!r}; StarCoder2 has 'default'")
        known_keys = {field.name for field in dataclasses.fields(cls)}
        given = _ABSENT | {name: value for name, value in values.items() if name in known_keys}
        if "rope_theta" in rope:
            given["rope_theta"] = rope["rope_theta"]
        if values.get("head_dim") is not None:
            given_head = values["head_dim"] * values.get("num_attention_heads", 0)
            if given_head != values.get("hidden_size"):
                raise InputError("config.json has a head_dim other than hidden_size / num_attention_heads")
        required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in given]
        if missing:
            raise InputError(f"config.json lacks {', '.join(missing)}")
        for name in _IDS:
            given[name] = _first_known(given.get(name), given["vocab_size"])
        for field in dataclasses.fields(cls):
            value = given.get(field.name, field.default)
            if not _fits(value, field.type):
                kind = getattr(field.type, "__name__", field.type)
                raise InputError(f"config.json has {field.name} {value!r}; it must be of type {kind}")
        return cls(**given)


def num_parameters(config: Starcoder2Config) -> int:
    """The exact number of trainable parameters; a tied head counts once."""
    hidden, inner, bias = config.hidden_size, config.intermediate_size, int(config.use_bias)
    key_value = config.num_key_value_heads * config.head_dim
    query_and_output = 2 * hidden * (hidden + bias)
    key_and_value = 2 * key_value * (hidden + bias)
    mlp = inner * (hidden + bias) + hidden * (inner + bias)
    norms = 2 * 2 * hidden
    layers = config.num_hidden_layers * (query_and_output + key_and_value + mlp + norms)
    embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    return embeddings + layers + 2 * hidden


def _first_known(ids: Any, vocab_size: Any) -> int:
    """The first id within the vocabulary; files hold an id, a list of them, or none."""
    listed = ids if isinstance(ids, list) else [ids]
    known = range(vocab_size) if isinstance(vocab_size, int) else ()
    return next((number for number in listed if number in known), 0)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


_COUNTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings",
)  # fmt: skip
_FIXED = {"hidden_act": "gelu_pytorch_tanh", "mlp_type": "default", "norm_type": "layer_norm"}
_IDS = ("bos_token_id", "eos_token_id")
_ABSENT = {"max_position_embeddings": 4_096, "sliding_window": None, "rope_theta": 10_000.0}
