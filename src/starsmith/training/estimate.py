"""Before a run: what it needs on each device, whether that fits, and how long it takes.

Memory is counted, not measured. Weights, gradients and the optimiser's two moments are exact: 16 bytes a parameter
in float32, 12 with moments in bfloat16, divided by the ranks that share a copy. Activations are the tensors that
the backward pass reads, layer by layer (an account of `model.starcoder2`; a test compares it with what autograd
keeps). The rest is an estimate: buffers of FSDP2 (two gathered layers and their gradients), one chunk of logits,
what one layer's backward pass holds, and a reserve for the context, libraries and fragmentation. On a CPU a
training step stays within a factor of 1.5 of it; on GPUs it has not been measured.

Time is FLOPs (`training.throughput`) by peak and an assumed MFU. It leaves out starting, validation and failures.
"""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from starsmith.errors import InputError
from starsmith.model.configuration import Starcoder2Config, num_parameters
from starsmith.recipe import Hardware, Lora, Stage, Training
from starsmith.training.metrics import format_duration
from starsmith.training.throughput import device_peak, flops_per_token, mean_visible_keys, peak_flops

ASSUMED_MFU = 0.40
GIB = 1024**3
_LOGIT_ROWS, _GPU_LOGIT_ROWS = 512, 4_096  # held at once by the loss, in float32 always and on CPUs; on GPUs
_CONTEXT_BYTES = {"cuda": 2 * GIB, "cpu": GIB // 2}  # context, kernels, cuBLAS and NCCL; Python with PyTorch
_FRAGMENTATION = 0.05  # of what comes and goes

_NAMED: dict[str, tuple[str, float]] = {
    "A100-40": ("NVIDIA A100-SXM4-40GB", 39.4), "A100": ("NVIDIA A100-SXM4-80GB", 79.2),
    "H100": ("NVIDIA H100 80GB HBM3", 79.1), "H100-PCIE": ("NVIDIA H100 PCIe", 79.1),
    "H100-NVL": ("NVIDIA H100 NVL", 93.1), "H200": ("NVIDIA H200", 139.8), "B200": ("NVIDIA B200", 178.0),
    "L40S": ("NVIDIA L40S", 44.4), "MI300X": ("AMD Instinct MI300X", 191.5),
}  # fmt: skip
"""Short names for plans on another machine: the device's own name, and the GiB that its driver leaves to us."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Equal devices that train together."""

    name: str
    kind: str
    """`cuda` or `cpu`."""
    count: int
    memory_bytes: int
    """Of one."""
    peak_flops: float | None
    """Of one; None where it is not known."""
    peak_is_measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a stage of training needs."""

    devices: Devices
    num_parameters: int
    num_trained: int
    tokens: int
    flops: float
    tokens_per_step: int
    memory: dict[str, int]
    """Bytes on one device by purpose, largest first."""
    mfu: float
    """Assumed."""
    suggestions: tuple[str, ...] = ()
    """Where it does not fit: what to change, each on top of those before it, and what is needed then."""
    faults: tuple[str, ...] = ()
    """Why so many devices cannot work together, whatever their memory."""

    @property
    def memory_bytes(self) -> int:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.memory_bytes <= self.devices.memory_bytes

    @property
    def tokens_per_second(self) -> float | None:
        """Of all devices."""
        if self.devices.peak_flops is None:
            return None
        return self.devices.peak_flops * self.devices.count * self.mfu * self.tokens / self.flops

    @property
    def seconds(self) -> float | None:
        speed = self.tokens_per_second
        return None if speed is None else self.tokens / speed

    def lines(self) -> list[str]:
        """For people."""
        devices = self.devices
        trained = "" if self.num_trained == self.num_parameters else f" ({self.num_trained:,} trained)"
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in self.memory.items() if size >= GIB / 20)
        verdict = "fits" if self.fits else "DOES NOT FIT"
        return [
            f"{self.num_parameters:,} parameters{trained}; {self.tokens:,} tokens, {self.tokens_per_step:,} a "
            f"step; {self.flops:.2e} FLOPs",
            f"memory: {_gib(self.memory_bytes)} of {_gib(devices.memory_bytes)} on each of {devices.count} x "
            f"{devices.name}: {verdict}",
            f"  {parts}",
            *(f"  {suggestion}" for suggestion in self.suggestions),
            *self.faults,
            self._time_line(),
        ]

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            **dataclasses.asdict(self),
            "memory_bytes": self.memory_bytes,
            "fits": self.fits,
            "tokens_per_second": self.tokens_per_second,
            "seconds": self.seconds,
        }

    def _time_line(self) -> str:
        speed, seconds, peak = self.tokens_per_second, self.seconds, self.devices.peak_flops
        if speed is None or seconds is None or peak is None:
            return f"time: unknown, since no peak speed of {self.devices.name} is known for training.precision"
        source = "measured" if self.devices.peak_is_measured else "data sheet"
        return (
            f"time: {format_duration(seconds)} at {speed:,.0f} tokens/s, with an assumed MFU of "
            f"{100 * self.mfu:.0f} % of {peak / 1e12:,.4g} TFLOP/s ({source})"
        )


def here(hardware: Hardware, precision: str, *, count: int | None = None) -> Devices:
    """The devices of this machine that a run would use: all its GPUs, or its CPU.

    Args:
        hardware: which kind is wanted.
        precision: of training, for the peak.
        count: of processes; by default one a GPU.
    """
    cuda = hardware.device != "cpu" and torch.cuda.is_available()
    if not cuda:
        device = torch.device("cpu")
        return Devices(
            name="CPU",
            kind="cpu",
            count=count or 1,
            memory_bytes=psutil.virtual_memory().total // (count or 1),
            peak_flops=peak_flops(device, precision),
            peak_is_measured=True,
        )
    device = torch.device("cuda", 0)
    properties = torch.cuda.get_device_properties(device)
    return Devices(
        name=properties.name,
        kind="cuda",
        count=count or torch.cuda.device_count(),
        memory_bytes=properties.total_memory,
        peak_flops=peak_flops(device, precision),
    )


def named(text: str, precision: str) -> Devices:
    """Devices that are not here: `8xH200`, or `H200` for one.

    Raises:
        InputError: no such device is known.
    """
    match = re.fullmatch(r"(?:(\d+)\s*x\s*)?(\S+)", text.strip(), re.IGNORECASE)
    known = match and _NAMED.get(match[2].upper())
    count = int(match[1] or 1) if match else 0
    if not known or count < 1:
        raise InputError(
            f"no device {text!r} is known; write a number and a name, as in 8xH200, with a name of "
            f"{', '.join(_NAMED)}"
        )
    name, gib = known
    return Devices(
        name=name,
        kind="cuda",
        count=count,
        memory_bytes=int(gib * GIB),
        peak_flops=device_peak(name) if precision == "bf16" else None,
    )


def estimate(
    config: Starcoder2Config,
    training: Training,
    stage: Stage,
    sequence_length: int,
    hardware: Hardware,
    devices: Devices,
    *,
    mfu: float = ASSUMED_MFU,
) -> Estimate:
    """What a stage needs on the given devices.

    Args:
        config: the model's shape.
        training: what all stages share (precision, moments, LoRA).
        stage: `training` itself, or the second stage.
        sequence_length: of this stage.
        hardware: how the devices are used.
        devices: from `here` or `named`.
        mfu: assumed, for the time.
    """
    needs = _Needs(config, training, stage, sequence_length, hardware, devices)
    mean_keys = mean_visible_keys(sequence_length, config.sliding_window)
    tokens_per_step = stage.batch_size * sequence_length
    tokens = tokens_per_step * stage.steps
    memory = needs.memory()
    fits = sum(memory.values()) <= devices.memory_bytes
    return Estimate(
        devices=devices,
        num_parameters=num_parameters(config),
        num_trained=needs.num_trained,
        tokens=tokens,
        flops=tokens * flops_per_token(config, mean_keys, frozen=training.lora is not None),
        tokens_per_step=tokens_per_step,
        memory=dict(sorted(memory.items(), key=lambda item: -item[1])),
        mfu=mfu,
        suggestions=() if fits else tuple(_suggestions(needs)),
        faults=tuple(_faults(needs)),
    )


def lora_parameters(config: Starcoder2Config, lora: Lora) -> int:
    """Parameters of the two small matrices beside each adapted one."""
    hidden, inner = config.hidden_size, config.intermediate_size
    key_value = config.num_key_value_heads * config.head_dim
    sizes = {
        "q_proj": 2 * hidden, "k_proj": hidden + key_value, "v_proj": hidden + key_value, "o_proj": 2 * hidden,
        "c_fc": hidden + inner, "c_proj": hidden + inner,
    }  # fmt: skip
    return config.num_hidden_layers * lora.rank * sum(sizes[target] for target in lora.targets)


@dataclass(frozen=True)
class _Needs:
    """The account of memory of one device."""

    config: Starcoder2Config
    training: Training
    stage: Stage
    sequence_length: int
    hardware: Hardware
    devices: Devices

    @property
    def num_trained(self) -> int:
        lora = self.training.lora
        return num_parameters(self.config) if lora is None else lora_parameters(self.config, lora)

    @property
    def sharers(self) -> int:
        """Ranks that share one copy of weights and optimiser."""
        return min(self.hardware.shard_group or self.devices.count, self.devices.count)

    @property
    def rows_of_rank(self) -> int:
        return -(-self.stage.batch_size // self.devices.count)

    @property
    def rows(self) -> int:
        """Rows in one pass."""
        return min(self.hardware.micro_batch_size or self.rows_of_rank, self.rows_of_rank)

    @property
    def element_bytes(self) -> int:
        return 2 if self.training.precision == "bf16" else 4

    @property
    def is_sharded(self) -> bool:
        return self.devices.count > 1 or self.training.precision == "bf16"

    def memory(self) -> dict[str, int]:
        moment_bytes = 2 if self.training.moments == "bf16" else 4
        weights, trained = num_parameters(self.config), self.num_trained
        frozen = 0 if self.training.lora is None else weights
        states = {
            "weights": (frozen + trained) * 4 // self.sharers,
            "gradients": trained * 4 // self.sharers,
            "moments": trained * 2 * moment_bytes // self.sharers,
        }
        moving = {
            "activations": self.rows * self.sequence_length * self._activation_bytes_per_token(),
            "one layer's backward": self.rows * self.sequence_length * self._layer_working_bytes(),
            "loss": self._loss_bytes(),
            "gathered layers": self._gathered_bytes() if self.is_sharded else 0,
        }
        if self.devices.kind == "cpu":  # there a checkpoint's copy lies in the same memory
            moving["checkpoint copy"] = states["weights"] + states["moments"]
        reserve = _CONTEXT_BYTES[self.devices.kind] + int(_FRAGMENTATION * sum(moving.values()))
        return {**states, **moving, "reserve": reserve}

    def _activation_bytes_per_token(self) -> int:
        """What the backward pass reads of all layers.

        In units of the hidden size, nothing recomputed: the layer's input, both norms' outputs, queries before and
        after their rotation, attention's output and its copy in order of heads, the sum after attention (8), and
        the feed-forward's two inner tensors (2 x 4); keys twice and values once. Selective: the layer's input, and
        the outputs of the matrices and of attention. Full: the layer's input.
        """
        config = self.config
        hidden, key_value = config.hidden_size, config.num_key_value_heads * config.head_dim
        match self.hardware.activation_checkpointing:
            case "none":
                layer = 8 * hidden + 2 * config.intermediate_size + 3 * key_value
            case "selective":
                layer = 5 * hidden + config.intermediate_size + 2 * key_value
            case "full":
                layer = hidden
        log_sums = 4 * config.num_attention_heads  # of the softmax, in float32
        kept = layer * self.element_bytes + (0 if self.hardware.activation_checkpointing == "full" else log_sums)
        return config.num_hidden_layers * kept + 2 * hidden * self.element_bytes

    def _layer_working_bytes(self) -> int:
        """What the backward pass of one layer holds for itself: gradients, and what it computed again."""
        config = self.config
        gradients = 3 * config.hidden_size + 2 * config.intermediate_size
        again = 0
        if self.hardware.activation_checkpointing != "none":
            again = 8 * config.hidden_size + 2 * config.intermediate_size
        return (gradients + again) * self.element_bytes

    def _loss_bytes(self) -> int:
        """A chunk of logits with its gradient, and the gradients of head and states."""
        config, tokens = self.config, self.rows * self.sequence_length
        head = 0 if self.training.lora is not None else config.vocab_size * config.hidden_size * 4
        states = tokens * config.hidden_size * self.element_bytes
        if self.training.precision == "fp32":
            return min(tokens, _LOGIT_ROWS) * config.vocab_size * 4 * 3 + head + states
        rows = min(tokens, _GPU_LOGIT_ROWS if self.devices.kind == "cuda" else _LOGIT_ROWS)
        return rows * config.vocab_size * (4 + 2) + 2 * (head + states)  # summed, and scaled

    def _gathered_bytes(self) -> int:
        """Two layers and the embeddings in the precision of the arithmetic, with gradients to be reduced."""
        config = self.config
        embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
        layer = (num_parameters(config) - embeddings) // config.num_hidden_layers
        gathered = (embeddings + 2 * layer) * self.element_bytes
        reduced = 0 if self.training.lora is not None else max(embeddings, layer) * (self.element_bytes + 4)
        return gathered + reduced


def _suggestions(needs: _Needs) -> Iterator[str]:
    """Changes in the order of their price, each on top of the ones before, until it fits."""
    before = needs.rows
    while not _fits(needs) and needs.rows > 1:
        fewer = max(rows for rows in range(1, needs.rows) if needs.rows_of_rank % rows == 0)
        hardware = needs.hardware.model_copy(update={"micro_batch_size": fewer})
        needs = dataclasses.replace(needs, hardware=hardware)
    if needs.rows < before:
        yield _told(f"hardware.micro_batch_size = {needs.rows}", needs)
    for mode in ("selective", "full"):
        if _fits(needs) or needs.hardware.activation_checkpointing in (mode, "full"):
            continue
        hardware = needs.hardware.model_copy(update={"activation_checkpointing": mode})
        needs = dataclasses.replace(needs, hardware=hardware)
        yield _told(f'hardware.activation_checkpointing = "{mode}"', needs)
    if not _fits(needs) and needs.sharers < needs.devices.count:
        needs = dataclasses.replace(needs, hardware=needs.hardware.model_copy(update={"shard_group": None}))
        yield _told("leave hardware.shard_group out, so that all devices share one copy", needs)
    if not _fits(needs) and needs.training.moments == "fp32":
        needs = dataclasses.replace(needs, training=needs.training.model_copy(update={"moments": "bf16"}))
        yield _told('training.moments = "bf16"', needs)
    if not _fits(needs):
        count = _enough_devices(needs)
        if count is None:
            yield "no number of such devices is enough: take larger ones, a shorter sequence or [training.lora]"
        else:
            yield f"and {count} such devices instead of {needs.devices.count}, or [training.lora]"


def _faults(needs: _Needs) -> Iterator[str]:
    count, batch_size, group = needs.devices.count, needs.stage.batch_size, needs.hardware.shard_group
    if batch_size % count:
        fitting = max(size for size in range(1, count) if batch_size % size == 0)
        yield (
            f"{count} devices cannot share a batch of {batch_size} sequences equally: make batch_size a multiple "
            f"of {count}, or take {fitting} devices"
        )
    if group is not None and count % group:
        yield f"{count} devices are no multiple of hardware.shard_group {group}: take a divisor, or leave it out"


def _told(change: str, needs: _Needs) -> str:
    size = sum(needs.memory().values())
    return f"{change}: {_gib(size)}{', fits' if _fits(needs) else ''}"


def _fits(needs: _Needs) -> bool:
    return sum(needs.memory().values()) <= needs.devices.memory_bytes


def _enough_devices(needs: _Needs) -> int | None:
    """The least power of two of devices, all sharing one copy, that is enough."""
    if needs.devices.kind == "cpu":
        return None
    count = 2
    while count <= 2**14:
        more = dataclasses.replace(needs.devices, count=count)
        if count > needs.devices.count and _fits(dataclasses.replace(needs, devices=more)):
            return count
        count *= 2
    return None


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
