"""FLOPs are counted as PyTorch's own counter sees them; visible keys are those of the mask."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Model
from starsmith.training import throughput


def visible(num_tokens, window):
    """Causality and window as a mask, written down plainly."""
    distance_TT = torch.arange(num_tokens)[:, None] - torch.arange(num_tokens)[None, :]
    return (distance_TT >= 0) & (distance_TT < (window or num_tokens))


def published(preset):
    return Starcoder2Config(vocab_size=49_152, **Model(preset=preset).model_dump(exclude={"preset", "start"}))


@pytest.mark.parametrize(("preset", "gigaflops"), [("3b", 20.4), ("7b", 46.7), ("15b", 100.0)])
def test_published_shapes_at_4k(preset, gigaflops):
    mean_keys = throughput.mean_visible_keys(4_096, 4_096)
    assert throughput.flops_per_token(published(preset), mean_keys) == pytest.approx(gigaflops * 1e9, rel=0.01)


@pytest.mark.parametrize("preset", ["3b", "7b", "15b"])
def test_sixteen_thousand_tokens_cost_little_more_in_a_window(preset):
    config = published(preset)
    short, long = (
        throughput.flops_per_token(config, throughput.mean_visible_keys(n, config.sliding_window))
        for n in (4_096, 16_384)
    )
    assert 1.04 < long / short < 1.09


@given(st.integers(1, 40), st.none() | st.integers(1, 50))
def test_mean_visible_keys_are_those_of_the_mask(num_tokens, window):
    mask = visible(num_tokens, window)
    assert throughput.mean_visible_keys(num_tokens, window) == pytest.approx(mask.sum().item() / num_tokens)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=3),
    st.none() | st.integers(1, 14),
)
def test_visible_keys_of_packed_documents(rows, window):
    documents_BT = np.maximum.accumulate(np.array(rows, dtype=np.int32), axis=1)  # packed: numbers only grow
    same_BTT = torch.from_numpy(documents_BT[:, :, None] == documents_BT[:, None, :])
    seen = (visible(12, window) & same_BTT).sum().item() / documents_BT.size
    assert throughput.visible_keys(documents_BT, window) == pytest.approx(seen)


@pytest.mark.parametrize("frozen", [False, True])
def test_matrix_products_are_those_that_pytorch_counts(frozen):
    config = Starcoder2Config(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    model = Starcoder2(config).initialise(0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or "layernorm" in name)
    tokens_BT = torch.zeros(2, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens_BT).sum().backward()
    by_operator = counter.get_flop_counts()["Global"]
    products = sum(count for operator, count in by_operator.items() if str(operator) in ("aten.mm", "aten.addmm"))
    layers, head, _ = throughput.forward_flops(config, 1.0)
    assert products == tokens_BT.numel() * (layers + head) * (2 if frozen else 3)


def test_full_checkpointing_repeats_the_layers_and_not_the_head():
    config = published("3b")
    layers, head, attention = throughput.forward_flops(config, 100.0)
    assert throughput.recomputed_flops_per_token(config, 100.0, "full") == layers + attention
    assert throughput.recomputed_flops_per_token(config, 100.0, "selective") == 0.0
    assert throughput.flops_per_token(config, 100.0) == 3 * (layers + head + attention)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-SXM4-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_peaks_are_dense_ones(name, tera):
    assert throughput.device_peak(name) == tera * 1e12


@pytest.mark.parametrize(
    "name",
    ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "NVIDIA H200 NVL", "Tesla T4", ""],
)
def test_an_unknown_device_has_no_peak_rather_than_a_wrong_one(name):
    assert throughput.device_peak(name) is None


def test_no_two_patterns_of_the_table_claim_the_same_name():
    names = [
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H100 80GB HBM3",
        "NVIDIA L4",
        "NVIDIA L40",
        "NVIDIA L40S",
    ]
    for name in names:
        assert sum(re.fullmatch(pattern, name) is not None for pattern, _ in throughput.PEAKS) == 1


def test_a_cpu_has_a_measured_peak_that_stays():
    first = throughput.peak_flops(torch.device("cpu"), "fp32")
    assert first is not None and first > 1e9
    assert throughput.peak_flops(torch.device("cpu"), "fp32") == first
