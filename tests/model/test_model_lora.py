"""Low-rank adaptation: starts as the base, learns in the adapter only, merges, and travels in PEFT's layout."""

import json
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from starsmith.errors import InputError
from starsmith.model import huggingface, lora
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.export import merge_adapter
from starsmith.model.starcoder2 import Starcoder2

TINY = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": 8, "initializer_range": 0.2,
}  # fmt: skip


def tiny(**changes):
    return Starcoder2(Starcoder2Config(**(TINY | changes))).initialise(seed=1)


def learnt(model, seed=5):
    """As if trained: B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1, generator=generator)
    return model


def loss_of(model, tokens_BT):
    logits_BTV = model(tokens_BT[:, :-1])
    return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_starts_as_the_base_bit_for_bit(tied, dtype, make_tokens):
    batch = make_tokens(2, 24)
    model = tiny(tie_word_embeddings=tied).to(dtype)
    with torch.no_grad():
        before = model(batch)
        names = dict(model.named_parameters()).keys()
        lora.apply(model, rank=4, alpha=8.0, seed=3)
        assert torch.equal(model(batch), before)
    assert {name for name, _ in model.named_parameters() if not lora.is_adapter(name)} == names
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied


@pytest.mark.parametrize("tied", [True, False])
def test_only_adapters_learn(tied, make_tokens):
    batch = make_tokens(4, 24)
    model = lora.apply(tiny(tie_word_embeddings=tied), rank=4, alpha=8.0, seed=3)
    base = {name: p.detach().clone() for name, p in model.named_parameters() if not lora.is_adapter(name)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * 2 * len(lora.TARGETS)
    optimizer = torch.optim.AdamW(trainable, lr=0.01)
    losses = []
    for _ in range(30):
        loss = loss_of(model, batch)
        loss.backward()
        assert all((p.grad is not None) is lora.is_adapter(name) for name, p in model.named_parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(value, dict(model.named_parameters())[name]) for name, value in base.items())


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 9),
    st.floats(0.1, 40),
    st.sets(st.sampled_from(lora.TARGETS), min_size=1),
    st.booleans(),
)
def test_merging_computes_the_same(rank, alpha, targets, tied):
    batch = torch.arange(40).view(2, 20)
    model = learnt(lora.apply(tiny(tie_word_embeddings=tied), rank=rank, alpha=alpha, targets=[*targets], seed=3))
    adapter = lora.extract(model)
    assert (adapter.rank, adapter.alpha, set(adapter.targets)) == (rank, alpha, targets)
    plain = Starcoder2(model.config)
    weights = dict(lora.merged(model.named_parameters(), adapter))
    if tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    plain.load_state_dict(weights)
    with torch.no_grad():
        assert not torch.equal(plain(batch), tiny(tie_word_embeddings=tied)(batch))
        assert (plain(batch) - model(batch)).abs().max() < 1e-4 * max(1, alpha / rank)


def test_fresh_adapters_depend_on_seed_and_name_alone():
    first = lora.extract(lora.apply(tiny(), rank=4, alpha=8.0, seed=3)).weights
    torch.manual_seed(99)
    model = tiny()
    state = torch.get_rng_state()
    again = lora.extract(lora.apply(model, rank=4, alpha=1.0, targets=["c_fc", "q_proj"], seed=3)).weights
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, first[name]) for name, value in again.items())
    other = lora.extract(lora.apply(tiny(), rank=4, alpha=8.0, seed=4)).weights
    assert all(torch.equal(value, other[name]) is (".lora_B." in name) for name, value in first.items())
    name = "model.layers.1.mlp.c_proj.lora_A.weight"
    bound = 80**-0.5  # what Kaiming-uniform with a = sqrt(5) comes to
    assert first[name].abs().max() <= bound
    assert first[name].std() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_a_model_without_memory_is_filled_later():
    with torch.device("meta"):
        model = Starcoder2(Starcoder2Config(**TINY))
    lora.apply(model, rank=4, alpha=8.0, seed=3)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    lora.initialise(model, seed=3)
    expected = lora.extract(lora.apply(tiny(), rank=4, alpha=8.0, seed=3)).weights
    found = lora.extract(model).weights
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_adapters_stay_fp32_on_a_bf16_base(make_tokens):
    model = learnt(lora.apply(tiny().to(torch.bfloat16), rank=4, alpha=8.0, seed=3))
    loss = loss_of(model, make_tokens(2, 20))
    loss.backward()
    adapters = [parameter for name, parameter in model.named_parameters() if lora.is_adapter(name)]
    assert {(parameter.dtype, parameter.grad.dtype) for parameter in adapters} == {(torch.float32, torch.float32)}
    merged = dict(lora.merged(model.named_parameters(), lora.extract(model)))
    assert {value.dtype for value in merged.values()} == {torch.bfloat16}


def test_compiles_without_a_break(make_tokens):
    model = learnt(lora.apply(tiny(sliding_window=None), rank=4, alpha=8.0, seed=3))
    mlp = model.model.layers[0].mlp
    x_BTC = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(mlp, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x_BTC), mlp(x_BTC))


def test_goes_round_through_the_layout_of_peft(tmp_path, make_tokens):
    model = learnt(lora.apply(tiny(), rank=4, alpha=6.0, targets=["q_proj", "v_proj", "c_proj"], seed=3))
    adapter = lora.extract(model)
    lora.write(adapter, tmp_path / "adapter", base="bigcode/starcoder2-3b")
    again = lora.read(tmp_path / "adapter")
    assert (again.rank, again.alpha, again.targets) == (4, 6.0, ("q_proj", "v_proj", "c_proj"))
    assert again.weights.keys() == adapter.weights.keys()
    assert all(torch.equal(value, adapter.weights[name]) for name, value in again.weights.items())
    other = lora.attach(tiny(), again)
    with torch.no_grad():
        assert torch.equal(other(make_tokens(2, 20)), model(make_tokens(2, 20)))
    assert all(parameter.requires_grad is lora.is_adapter(name) for name, parameter in other.named_parameters())


def test_the_layout_is_that_of_the_documentation(tmp_path):
    """https://huggingface.co/docs/peft/developer_guides/checkpoint"""
    model = learnt(lora.apply(tiny(), rank=4, alpha=6.0, seed=3))
    lora.write(lora.extract(model), tmp_path / "adapter", base="bigcode/starcoder2-3b")
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 6
    first = "base_model.model.model.layers.0."
    assert tensors[first + "self_attn.k_proj.lora_A.weight"].shape == (4, 48)
    assert tensors[first + "self_attn.k_proj.lora_B.weight"].shape == (16, 4)
    assert tensors[first + "mlp.c_proj.lora_A.weight"].shape == (4, 80)
    described = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "bias": "none",
        "base_model_name_or_path": "bigcode/starcoder2-3b", "fan_in_fan_out": False, "lora_dropout": 0.0,
        "target_modules": ["c_fc", "c_proj", "k_proj", "o_proj", "q_proj", "v_proj"],
    }  # fmt: skip
    assert expected.items() <= described.items()


def test_an_adapter_of_some_layers_leaves_the_others(tmp_path, make_tokens):
    model = learnt(lora.apply(tiny(), rank=4, alpha=8.0, seed=3))
    whole = lora.extract(model)
    part = {name: value for name, value in whole.weights.items() if ".layers.1." in name}
    adapter = lora.Adapter(rank=4, alpha=8.0, weights=part)
    attached = lora.attach(tiny(), adapter)
    merged = Starcoder2(attached.config)
    weights = dict(lora.merged(tiny().named_parameters(), adapter))
    merged.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    with torch.no_grad():
        batch = make_tokens(2, 20)
        assert (merged(batch) - attached(batch)).abs().max() < 1e-4


def test_a_folder_and_an_adapter_make_a_folder(tmp_path, make_tokens):
    base, model = tiny(), learnt(lora.apply(tiny(), rank=4, alpha=8.0, seed=3))
    huggingface.export(base.named_parameters(), base.config, [], tmp_path / "base")
    lora.write(lora.extract(model), tmp_path / "adapter", base=str(tmp_path / "base"))
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    merged, config = huggingface.load(tmp_path / "merged")
    assert config == base.config
    with torch.no_grad():
        assert (merged(make_tokens(2, 20)) - model(make_tokens(2, 20))).abs().max() < 1e-4
    with pytest.raises(InputError, match="is the model itself"):
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "base", overwrite=True)


def test_explains_what_is_wrong(tmp_path):
    model = tiny()
    with pytest.raises(InputError, match="among q_proj, k_proj, v_proj, o_proj, c_fc, c_proj, got lm_head"):
        lora.apply(model, rank=4, alpha=8.0, targets=["q_proj", "lm_head"], seed=3)
    with pytest.raises(InputError, match="got none"):
        lora.apply(model, rank=4, alpha=8.0, targets=[], seed=3)
    with pytest.raises(InputError, match="at least 1, got 0"):
        lora.apply(model, rank=0, alpha=8.0, seed=3)
    with pytest.raises(InputError, match="has no adapter"):
        lora.extract(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    lora.apply(model, rank=4, alpha=8.0, seed=3)
    with pytest.raises(InputError, match="has an adapter already"):
        lora.apply(model, rank=4, alpha=8.0, seed=3)
    adapter = lora.extract(model)
    with pytest.raises(InputError, match="does not fit the model"):
        lora.attach(tiny(hidden_size=60), adapter)
    with pytest.raises(InputError, match="does not fit the model"):
        dict(lora.merged(tiny(hidden_size=60).named_parameters(), adapter))
    with pytest.raises(InputError, match=r"there is no model\.layers\.1"):
        dict(lora.merged(tiny(num_hidden_layers=1).named_parameters(), adapter))
    lora.write(adapter, tmp_path / "adapter", base="x")
    with pytest.raises(InputError, match="is in use"):
        lora.write(adapter, tmp_path / "adapter", base="x")
    lora.write(adapter, tmp_path / "adapter", base="x", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def without_its_other_side(described, tensors):
    tensors.popitem()


def at_the_head(described, tensors):
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda described, tensors: described.update(peft_type="IA3"), "does not describe a LoRA adapter"),
        (lambda described, tensors: described.update(use_dora=True), "use_dora True; only False"),
        (lambda described, tensors: described.update(use_rslora=True), "use_rslora True; only False"),
        (lambda described, tensors: described.update(bias="all"), "bias 'all'; only 'none'"),
        (lambda described, tensors: described.update(rank_pattern={"c_fc": 2}), "rank_pattern"),
        (lambda described, tensors: described.update(modules_to_save=["lm_head"]), "modules_to_save"),
        (lambda described, tensors: described.pop("r"), "lacks r or lora_alpha"),
        (lambda described, tensors: described.update(r=8), "the adapter's rank is 8"),
        (lambda described, tensors: tensors.clear(), "no weights"),
        (without_its_other_side, "without its other side"),
        (at_the_head, r"has lm_head\.lora_A\.weight; a StarCoder2 is adapted at q_proj"),
    ],
)
def test_refuses_adapters_that_it_would_compute_wrongly(change, message, tmp_path):
    model = lora.apply(tiny(), rank=4, alpha=8.0, seed=3)
    lora.write(lora.extract(model), tmp_path / "adapter", base="x")
    described = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    change(described, tensors)
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(described))
    save_file(tensors, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(InputError, match=message):
        lora.read(tmp_path / "adapter")
    (tmp_path / "adapter/adapter_config.json").unlink()
    with pytest.raises(InputError, match="no adapter in PEFT's layout"):
        lora.read(tmp_path / "adapter")


def gradients(model, rows):
    loss_of(model, rows).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


BATCH = torch.arange(80).view(4, 20) * 7 % 97


def on_two_ranks(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    model = lora.apply(tiny(), rank=4, alpha=8.0, seed=0)
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    lora.initialise(model, seed=3)
    fresh = {n: p.full_tensor() for n, p in model.named_parameters() if p.requires_grad}
    found = gradients(model, BATCH[rank * 2 : rank * 2 + 2])
    whole = {name: gradient.full_tensor() for name, gradient in found.items()}
    if rank == 0:
        torch.save({"fresh": fresh, "gradients": whole}, f"{folder}/result")
    distributed.barrier()  # a rank that leaves early closes its connections under the other
    distributed.destroy_process_group()


def test_is_sharded_like_any_model():
    """Two ranks, each with half of the rows, give the adapters and the gradients of one."""
    alone = lora.apply(tiny(), rank=4, alpha=8.0, seed=3)
    expected = gradients(alone, BATCH)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(on_two_ranks, args=(folder,), nprocs=2)
        found = torch.load(f"{folder}/result", weights_only=True)
    assert found["gradients"].keys() == found["fresh"].keys() == expected.keys()
    for name, parameter in alone.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(found["fresh"][name], parameter)
            assert torch.allclose(found["gradients"][name], expected[name], atol=1e-6)
