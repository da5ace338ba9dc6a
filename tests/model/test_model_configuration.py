"""The configuration against the published models and `transformers`' files."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.model.configuration import Starcoder2Config, num_parameters
from starsmith.model.starcoder2 import Starcoder2

SIZES = {"3b": 3_030_371_328, "7b": 7_173_923_840, "15b": 15_957_889_024}


def published(name: str) -> Starcoder2Config:
    """The recipe's preset with the published vocabulary."""
    return Starcoder2Config(vocab_size=49_152, **recipe.Model(preset=name).model_dump(exclude={"preset", "start"}))


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    config = published(name)
    with torch.device("meta"):
        model = Starcoder2(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[name]
    assert num_parameters(config) == SIZES[name]
    assert config.head_dim == 128


@pytest.mark.parametrize("name", SIZES)
def test_published_shapes_have_the_names_and_shapes_of_transformers(name):
    transformers = pytest.importorskip("transformers")
    config = published(name)
    values = {key: value for key, value in config.to_dict().items() if key not in ("architectures", "model_type")}
    with torch.device("meta"):
        ours, theirs = (
            Starcoder2(config),
            transformers.Starcoder2ForCausalLM(transformers.Starcoder2Config(**values)),
        )
    mine, reference = (
        {key: tuple(value.shape) for key, value in model.named_parameters()} for model in (ours, theirs)
    )
    assert mine == reference
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) is config.tie_word_embeddings


def test_the_long_stage_changes_positions_only():
    config = published("3b")
    longer = config.with_context(num_positions=16_384, rope_theta=999_999.4420358813)
    assert num_parameters(longer) == num_parameters(config)
    assert (
        dataclasses.replace(
            longer, rope_theta=config.rope_theta, max_position_embeddings=config.max_position_embeddings
        )
        == config
    )
    assert (longer.rope_theta, longer.max_position_embeddings, longer.sliding_window) == (
        999_999.4420358813, 16_384, 4_096,
    )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.sampled_from([2, 4, 8]), st.integers(1, 3), st.integers(1, 40),
    st.integers(1, 90), st.booleans(), st.booleans(),
)  # fmt: skip
def test_count_equals_the_network(groups, key_heads, head_dim, layers, inner, vocab, tied, bias):
    config = Starcoder2Config(
        vocab_size=vocab, hidden_size=groups * key_heads * head_dim, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=groups * key_heads, num_key_value_heads=key_heads,
        tie_word_embeddings=tied, use_bias=bias,
    )  # fmt: skip
    with torch.device("meta"):
        model = Starcoder2(config)
    assert num_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("window", [None, 77])
def test_dictionary_round_trip(window, make_model):
    config = dataclasses.replace(make_model().config, sliding_window=window, rope_theta=12345.5)
    assert Starcoder2Config.from_dict(config.to_dict()) == config


def test_reads_the_files_of_transformers(make_model):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Starcoder2Config(
        vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, sliding_window=16, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, initializer_range=0.2,
    )  # fmt: skip
    expected = dataclasses.replace(make_model().config, sliding_window=16, rope_theta=5000.0)
    assert Starcoder2Config.from_dict(theirs.to_dict()) == expected


def test_reads_the_older_form_with_dropout_rates(make_model):
    values = make_model().config.to_dict()
    del values["rope_parameters"]
    values |= {"rope_theta": 999999.4420358813, "attention_dropout": 0.1, "torch_dtype": "bfloat16"}
    assert Starcoder2Config.from_dict(values).rope_theta == 999999.4420358813


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"hidden_act": "silu"}, "hidden_act 'silu'"),
        ({"mlp_type": "gated"}, "mlp_type 'gated'"),
        ({"norm_type": "rms_norm"}, "norm_type 'rms_norm'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope_type 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ({"head_dim": 7}, "head_dim"),
        ({"hidden_size": "48"}, "hidden_size '48'; it must be of type int"),
        ({"num_key_value_heads": None}, "num_key_value_heads None"),
        ({"sliding_window": 8.5}, r"sliding_window 8.5; it must be of type int \| None"),
        ({"use_bias": 1}, "use_bias 1; it must be of type bool"),
    ],
)
def test_refuses_what_it_would_compute_wrongly(change, message, make_model):
    with pytest.raises(InputError, match=message):
        Starcoder2Config.from_dict(make_model().config.to_dict() | change)


def test_absent_keys_mean_what_they_mean_to_transformers(make_model):
    transformers = pytest.importorskip("transformers")
    values = make_model().config.to_dict()
    absent = ("sliding_window", "rope_theta", "rope_parameters", "max_position_embeddings", "use_bias",
              "tie_word_embeddings", "norm_epsilon", "initializer_range")  # fmt: skip
    values = {name: value for name, value in values.items() if name not in absent}
    theirs = transformers.Starcoder2Config(**{k: v for k, v in values.items() if k not in ("architectures",)})
    ours = Starcoder2Config.from_dict(values)
    assert ours == Starcoder2Config.from_dict(theirs.to_dict())
    assert (ours.sliding_window, ours.rope_theta) == (None, 10_000.0)


@pytest.mark.parametrize(
    ("given", "read"), [(49152, 0), (50256, 0), (None, 0), ([96, 97], 96), ([97, 5], 5), (3, 3)]
)
def test_end_ids_lie_in_the_vocabulary(given, read, make_model):
    values = make_model().config.to_dict() | {"bos_token_id": given, "eos_token_id": given}
    config = Starcoder2Config.from_dict(values)
    assert (config.bos_token_id, config.eos_token_id) == (read, read)


def test_names_missing_keys(make_model):
    values = make_model().config.to_dict()
    del values["hidden_size"], values["vocab_size"]
    with pytest.raises(InputError, match="lacks vocab_size, hidden_size"):
        Starcoder2Config.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 4}, "multiple of num_key_value_heads 4"),
        ({"num_attention_heads": 7}, "even multiple"),
        ({"num_attention_heads": 16}, "even multiple"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
    ],
)
def test_refuses_impossible_shapes(change, message, make_model):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(make_model().config, **change)
