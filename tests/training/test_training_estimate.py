"""The account of memory: exact where it can be, held to autograd and to a real step's memory where not."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from starsmith.errors import InputError
from starsmith.model import lora
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware, LongContext, Lora, Model, Training
from starsmith.training import estimate as estimates
from starsmith.training.estimate import GIB, Devices, estimate, named

STATES = ("weights", "gradients", "moments")
TINY = Starcoder2Config(
    vocab_size=512, hidden_size=96, intermediate_size=384, num_hidden_layers=2, num_attention_heads=6,
    num_key_value_heads=2, sliding_window=32,
)  # fmt: skip


def published(preset):
    return Starcoder2Config(vocab_size=49_152, **Model(preset=preset).model_dump(exclude={"preset", "start"}))


def ours(config, devices, *, hardware=None, length=4_096, stage=None, **changes):
    training = Training(**({"precision": "bf16", "batch_size": 64, "steps": 100} | changes))
    return estimate(config, training, stage or training, length, hardware or Hardware(), named(devices, "bf16"))


def states_gib(found):
    return sum(found.memory[name] for name in STATES) / GIB


@pytest.mark.parametrize(
    ("preset", "moments", "gib"),
    [("3b", "fp32", 45), ("7b", "fp32", 107), ("7b", "bf16", 80), ("15b", "fp32", 238)],
)
def test_weights_and_optimiser_of_the_published_sizes(preset, moments, gib):
    assert states_gib(ours(published(preset), "H200", moments=moments)) == pytest.approx(gib, abs=0.6)


def test_a_copy_is_divided_among_those_that_share_it():
    config = published("15b")
    whole = states_gib(ours(config, "64xH100"))
    groups = states_gib(ours(config, "64xH100", hardware=Hardware(shard_group=8)))
    assert groups == pytest.approx(8 * whole)
    assert states_gib(ours(config, "H100")) == pytest.approx(64 * whole)


@pytest.mark.parametrize("packed", [False, True])
def test_activations_are_what_autograd_keeps(packed):
    """Of one layer more, so that the rest of the model does not matter."""
    kept = [_kept_bytes(dataclasses.replace(TINY, num_hidden_layers=layers), packed) for layers in (2, 3)]
    per_token = (kept[1] - kept[0]) / (4 * 128)
    counted = [
        estimates._Needs(
            dataclasses.replace(TINY, num_hidden_layers=layers), Training(), Training(), 128, Hardware(),
            named("H100", "fp32"),
        )._activation_bytes_per_token()
        for layers in (2, 3)
    ]  # fmt: skip
    assert counted[1] - counted[0] == pytest.approx(per_token, rel=0.1)


def _kept_bytes(config, packed):
    model = Starcoder2(config).initialise(0)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held, sizes = [], {}

    def keep(tensor):
        held.append(tensor)  # so that no address is used twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    documents_BT = (torch.arange(128) // 50).expand(4, 128).contiguous() if packed else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden_states(torch.zeros(4, 128, dtype=torch.long), documents_BT=documents_BT)
    return sum(sizes.values())


_STEPS = """
import re, psutil, torch
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2
from starsmith.recipe import Hardware, Model, Training
from starsmith.training import optimizer
from starsmith.training.loss import next_token_loss
torch.set_num_threads(1)
before = psutil.Process().memory_info().rss
config = Starcoder2Config(vocab_size=8192, **Model(preset="tiny").model_dump(exclude={"preset", "start"}))
model = Starcoder2(config).initialise(0)
adamw = optimizer.build(model, Training())
for _ in range(2):
    tokens_BT1 = torch.randint(0, 8192, (12, 513))
    documents_BT = (torch.arange(512) // 200).expand(12, 512).contiguous()
    x_BTC = model.hidden_states(tokens_BT1[:, :-1], documents_BT=documents_BT)
    everything_BT = torch.ones(12, 512, dtype=torch.bool)
    next_token_loss(x_BTC, model.lm_head.weight, tokens_BT1[:, 1:], everything_BT).backward()
    adamw.step()
    adamw.zero_grad(set_to_none=True)
# getrusage would also tell of the process that started this one
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(before, int(peak[1]) * 1024)
"""


def test_a_step_of_the_tiny_model_needs_what_was_estimated():
    output = subprocess.run([sys.executable, "-c", _STEPS], capture_output=True, text=True, check=True).stdout
    before, peak = map(int, output.split())
    config = Starcoder2Config(vocab_size=8192, **Model(preset="tiny").model_dump(exclude={"preset", "start"}))
    training = Training(batch_size=12)
    cpu = Devices(name="CPU", kind="cpu", count=1, memory_bytes=16 * GIB, peak_flops=1e11)
    memory = estimate(config, training, training, 512, Hardware(), cpu).memory
    counted = sum(size for name, size in memory.items() if name not in ("reserve", "checkpoint copy"))
    assert 1 / 1.5 < counted / (peak - before) < 1.5
    assert 1 / 1.5 < (counted + memory["reserve"]) / peak < 1.5


def test_checkpointing_and_micro_batches_lower_activations():
    def activations(**hardware):
        return ours(published("3b"), "H200", hardware=Hardware(**hardware)).memory["activations"]

    modes = [activations(activation_checkpointing=mode) for mode in ("none", "selective", "full")]
    assert modes[0] > 1.5 * modes[1] > 1.5 * modes[2]
    assert activations(micro_batch_size=1) * 64 == activations()


def test_what_to_lower_comes_in_order_of_its_price_and_ends_when_it_fits():
    found = ours(published("7b"), "H100")
    assert not found.fits
    changes = [suggestion.partition(":")[0] for suggestion in found.suggestions]
    assert changes == [
        "hardware.micro_batch_size = 1",
        'hardware.activation_checkpointing = "selective"',
        'hardware.activation_checkpointing = "full"',
        'training.moments = "bf16"',
        "and 2 such devices instead of 1, or [training.lora]",
    ]
    found = ours(published("3b"), "H200")
    assert [suggestion.endswith("fits") for suggestion in found.suggestions] == [True]
    assert ours(published("3b"), "H200", hardware=Hardware(micro_batch_size=1)).suggestions == ()


def test_what_is_suggested_does_fit():
    hardware = Hardware(micro_batch_size=2, activation_checkpointing="full", shard_group=2)
    found = ours(published("15b"), "8xH100", hardware=hardware)
    assert not found.fits
    assert found.suggestions[-1].endswith("fits")
    assert any("shard_group" in suggestion for suggestion in found.suggestions)
    assert ours(
        published("15b"), "8xH100", hardware=Hardware(micro_batch_size=1, activation_checkpointing="full")
    ).fits


def test_what_helps_nobody_is_not_suggested():
    found = ours(published("15b"), "L40S", length=10_000_000)
    assert found.suggestions[-1].startswith("no number of such devices")


def test_devices_that_cannot_work_together():
    found = ours(published("3b"), "6xH100", hardware=Hardware(shard_group=4))
    assert "6 devices cannot share a batch of 64" in found.faults[0] and "take 4 devices" in found.faults[0]
    assert "no multiple of hardware.shard_group 4" in found.faults[1]
    assert ours(published("3b"), "8xH100", hardware=Hardware(shard_group=4)).faults == ()


def test_time_is_flops_by_assumed_utilisation():
    found = ours(published("3b"), "8xH200", hardware=Hardware(micro_batch_size=1))
    assert found.tokens == 100 * 64 * 4_096
    assert found.tokens_per_second == pytest.approx(8 * 19_400, rel=0.01)
    assert found.seconds == pytest.approx(found.flops / (8 * 989.5e12 * 0.4))
    assert "assumed MFU of 40 % of 989.5 TFLOP/s (data sheet)" in found.lines()[-1]


def test_without_a_peak_the_time_is_unknown_rather_than_wrong():
    training = Training(precision="fp32")
    found = estimate(TINY, training, training, 512, Hardware(), named("H100", "fp32"))
    assert found.seconds is None
    assert found.lines()[-1].startswith("time: unknown")


def test_an_adapter_has_no_states_for_the_rest():
    whole, adapted = (ours(published("3b"), "H100", lora=lora) for lora in (None, Lora(rank=16)))
    assert adapted.num_trained == 23_838_720
    assert adapted.memory["moments"] < whole.memory["moments"] / 100
    assert adapted.memory["weights"] > whole.memory["weights"]
    assert adapted.flops < 0.72 * whole.flops
    assert "(23,838,720 trained)" in adapted.lines()[0]


@pytest.mark.parametrize("targets", [("q_proj",), ("k_proj", "v_proj"), ("o_proj", "c_fc", "c_proj")])
def test_an_adapter_has_so_many_parameters(targets):
    adapter = Lora(rank=4, targets=targets)
    with torch.device("meta"):
        model = Starcoder2(TINY)
    lora.apply(model, **adapter.model_dump(), seed=0)
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert estimates.lora_parameters(TINY, adapter) == learning


def test_the_second_stage_has_its_own_length_and_batch():
    stage = LongContext(steps=10, batch_size=4)
    found = ours(published("3b"), "H200", stage=stage, length=stage.sequence_length)
    assert found.tokens == 10 * 4 * 16_384


def test_a_cpu_is_here_and_its_peak_is_measured():
    devices = estimates.here(Hardware(device="cpu"), "fp32")
    assert devices.count == 1 and devices.memory_bytes > GIB and devices.peak_is_measured
    training = Training(steps=3)
    found = estimate(TINY, training, training, 64, Hardware(device="cpu"), devices)
    assert found.fits and found.seconds is not None
    assert json.loads(json.dumps(found.to_dict()))["fits"] is True
    assert found.memory["checkpoint copy"] == found.memory["weights"] + found.memory["moments"]


@pytest.mark.parametrize("text", ["", "8xT4", "0xH100", "8 H100", "x", "-1xH100"])
def test_unknown_devices_are_refused(text):
    with pytest.raises(InputError, match="H200"):
        named(text, "bf16")


def test_names_of_devices():
    assert named("8xH200", "bf16").count == 8 and named("h100", "bf16").count == 1
    for short in estimates._NAMED:
        assert named(short, "bf16").peak_flops is not None, "every named device has a sourced peak"
