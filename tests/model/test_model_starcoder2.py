"""The network against `transformers`' implementation, and against itself in other arrangements."""

import pytest
import torch

from starsmith.model.attention import attend, visibility
from starsmith.model.cache import KeyValueCache
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2

TOLERANCE = 1e-5

VARIANTS = {
    "plain": {},
    "window shorter than the sequence": {"sliding_window": 8},
    "window 1": {"sliding_window": 1},
    "window as long as the sequence": {"sliding_window": 32},
    "window one shorter": {"sliding_window": 31},
    "one key head": {"num_key_value_heads": 1},
    "no grouping": {"num_key_value_heads": 6, "sliding_window": 8},
    "twelve queries a key": {"hidden_size": 48, "num_attention_heads": 12, "num_key_value_heads": 1},
    "untied head": {"tie_word_embeddings": False},
    "no biases": {"use_bias": False},
    "theta of the long stage": {"rope_theta": 999999.4420358813, "sliding_window": 8},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_equal_those_of_transformers(changes, make_model, make_tokens, transformers_model):
    model, batch = make_model(**changes), make_tokens(2, 32)
    with torch.no_grad():
        ours, theirs = model(batch), transformers_model(model)(batch).logits
    assert (ours - theirs).abs().max() < TOLERANCE
    assert ours.std() > 0.5  # logits of nothing would agree too


@pytest.mark.parametrize("num_tokens", [200, 300])
def test_sequences_of_several_blocks(num_tokens, make_model, make_tokens, transformers_model):
    model, batch = make_model(sliding_window=50), make_tokens(1, num_tokens)
    with torch.no_grad():
        assert (model(batch) - transformers_model(model)(batch).logits).abs().max() < TOLERANCE


def test_gradients_equal_those_of_transformers(make_model, make_tokens, transformers_model):
    model, batch = make_model(sliding_window=8), make_tokens(2, 32)
    theirs = transformers_model(model)
    for network in (model, theirs):
        logits = network(batch) if network is model else network(batch).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, reference[name].grad, atol=1e-6), name


@pytest.mark.parametrize("window", [None, 8, 130])
def test_packed_documents_equal_documents_alone(window, make_model, make_tokens, transformers_model):
    lengths = (5, 1, 140, 30)
    model, batch = make_model(sliding_window=window), make_tokens(1, sum(lengths))
    documents = torch.cat([torch.full((n,), number) for number, n in enumerate(lengths)])[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        packed = model(batch, positions_BT=positions, documents_BT=documents)
        theirs = transformers_model(model)
        for part, logits in zip(batch.split(lengths, dim=1), packed.split(lengths, dim=1), strict=True):
            assert (logits - model(part)).abs().max() < TOLERANCE
            assert (logits - theirs(part).logits).abs().max() < TOLERANCE


def test_packed_rows_differ_in_their_borders(make_model, make_tokens):
    model, batch = make_model(sliding_window=8), make_tokens(2, 24)
    documents = torch.tensor([[0] * 10 + [1] * 14, [3] * 20 + [4] * 4])
    positions = torch.tensor([[*range(10), *range(14)], [*range(20), *range(4)]])
    with torch.no_grad():
        packed = model(batch, positions_BT=positions, documents_BT=documents)
        assert (packed[0, 10:] - model(batch[:1, 10:])[0]).abs().max() < TOLERANCE
        assert (packed[1, 20:] - model(batch[1:, 20:])[0]).abs().max() < TOLERANCE
        assert (packed[1, :20] - model(batch[1:, :20])[0]).abs().max() < TOLERANCE


def test_window_counts_the_position_itself(make_model, make_tokens):
    """One layer with window W: a change W - 1 tokens back is seen, a change W tokens back is not."""
    model, batch = make_model(num_hidden_layers=1, sliding_window=8), make_tokens(1, 32)
    with torch.no_grad():
        before = model(batch)[0, 31]
        for distance, is_seen in ((7, True), (8, False)):
            changed = batch.clone()
            changed[0, 31 - distance] = (changed[0, 31 - distance] + 1) % 97
            assert torch.equal(model(changed)[0, 31], before) is not is_seen


@pytest.mark.parametrize("window", [None, 1, 8, 64])
@pytest.mark.parametrize("chunks", [[20, *[1] * 30], [1] * 50, [3, 7, 1, 20, 1, 18], [50]], ids=str)
def test_cache_equals_the_full_forward(window, chunks, make_model, make_tokens):
    model, batch = make_model(sliding_window=window), make_tokens(2, 50)
    cache = KeyValueCache(model.config, num_rows=2, num_tokens=50)
    assert cache.size == min(window or 50, 50)
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in batch.split(chunks, dim=1)]
        assert (torch.cat(parts, dim=1) - model(batch)).abs().max() < TOLERANCE


def test_cache_refuses_more_than_its_room(make_model, make_tokens):
    model = make_model(sliding_window=8)
    cache = KeyValueCache(model.config, num_rows=1, num_tokens=10)
    with torch.no_grad(), pytest.raises(ValueError, match="room for 10 tokens"):
        model(make_tokens(1, 11), cache=cache)


def test_blocks_cover_every_query_once_and_hide_what_the_rule_hides():
    documents = torch.tensor([[0] * 100 + [1] * 250])
    blocks = visibility(350, 60, documents)
    assert [row for block in blocks for row in range(350)[block.queries]] == list(range(350))
    mask = torch.zeros(350, 350, dtype=torch.bool)
    for block in blocks:
        mask[block.queries, block.keys] = block.mask[0, 0]
    query, key = torch.arange(350)[:, None], torch.arange(350)[None]
    expected = (key <= query) & (key > query - 60) & (documents[0][:, None] == documents[0][None])
    assert torch.equal(mask, expected)


def test_blocks_equal_one_masked_call():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 300, 16, generator=generator) for heads in (6, 2, 2))
    index = torch.arange(300)
    mask = (index[:, None] >= index) & (index[:, None] - index < 70)
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert torch.allclose(attend(q, k, v, visibility(300, 70, None)), whole, atol=1e-6)


def test_nothing_to_hide_needs_no_mask():
    assert visibility(32, 32, None) is None
    assert visibility(32, None, None) is None
    assert visibility(33, 32, None) is not None


def test_initial_weights_depend_on_the_seed_only(make_model):
    config = make_model().config
    torch.manual_seed(9)
    first = Starcoder2(config).initialise(seed=5).state_dict()
    torch.randn(10)
    again, other = (Starcoder2(config).initialise(seed=seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    matrix = first["model.layers.0.mlp.c_fc.weight"]
    assert abs(matrix.std() - config.initializer_range) < 0.02
    assert first["model.layers.0.mlp.c_fc.bias"].abs().max() == 0
    assert first["model.norm.weight"].min() == first["model.norm.weight"].max() == 1


def test_tied_heads_are_one_parameter():
    shape = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    tied = Starcoder2(Starcoder2Config(**shape))
    untied = Starcoder2(Starcoder2Config(**shape, tie_word_embeddings=False))
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert "lm_head.weight" not in dict(tied.named_parameters())
    assert "lm_head.weight" in dict(untied.named_parameters())
