"""The network against `transformers`' implementation, and against itself in other arrangements."""

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

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


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_layer_compiles_whole_once_for_all_layers(make_model, make_tokens):
    """No break in the graph, and no compilation for each layer; gradients are those of the plain layer."""
    model, batch = make_model(sliding_window=8), make_tokens(2, 32)
    documents = torch.tensor([[0] * 10 + [1] * 22, [0] * 32])
    torch.compiler.reset()
    num_graphs = 0

    def count(graph, inputs):
        nonlocal num_graphs
        num_graphs += 1
        return graph.forward

    expected = model(batch, documents_BT=documents)
    expected.square().sum().backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for layer in model.model.layers:
        layer.compile(backend=count, fullgraph=True)
    found = model(batch, documents_BT=documents)
    found.square().sum().backward()
    assert num_graphs == 1
    assert (found - expected).abs().max() < TOLERANCE
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name], rtol=1e-3, atol=1e-3), name


def test_a_layer_can_be_checkpointed(make_model, make_tokens):
    model, batch = make_model(sliding_window=8), make_tokens(2, 32)
    documents = torch.tensor([[0] * 10 + [1] * 22, [0] * 32])
    model(batch, documents_BT=documents).square().sum().backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for number, layer in enumerate(model.model.layers):
        model.model.layers[number] = checkpoint_wrapper(layer)
    model(batch, documents_BT=documents).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, wanted[name.replace("_checkpoint_wrapped_module.", "")]), name


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
