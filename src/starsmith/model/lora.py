"""Low-rank adaptation ("LoRA: Low-Rank Adaptation of Large Language Models", Hu et al. 2021) of a StarCoder2.

A target computes `W x + b + (alpha / rank) B (A x)`: W and b are frozen, A starts as `nn.Linear` does
(Kaiming-uniform with a = sqrt(5), as in the PEFT library) and B at zero, so an adapted model begins as its base,
bit for bit. What A starts from is keyed by the seed and the module's name. There is no dropout, as in the rest of
the model.

The base keeps its parameters' names, and an adapter's weights are named `<module>.lora_A.weight` and
`<module>.lora_B.weight`: these are PEFT's names but for its prefix, so an adapter's folder is written and read
without that library. Adapters are fp32 whatever the base is in, and are multiplied in the precision of what flows
through the model; merging adds in fp32 and rounds once.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional

from starsmith.errors import InputError, MachineError
from starsmith.model.starcoder2 import Starcoder2

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj")
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_NAME = re.compile(
    r"(?P<module>model\.layers\.\d+\.(?:self_attn|mlp)\.(?P<target>\w+))\.lora_(?P<side>[AB])\.weight"
)


class LowRankLinear(nn.Linear):
    """A linear layer with an adapter; it takes over the parameters of the one that it replaces."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.rank, self.alpha = rank, alpha
        self.lora_A = _side(base.in_features, rank, base.weight.device)
        self.lora_B = _side(rank, base.out_features, base.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        down = functional.linear(x, self.lora_A.weight.to(x.dtype))
        up = functional.linear(down, self.lora_B.weight.to(x.dtype))
        return super().forward(x) + self.alpha / self.rank * up


def _side(num_inputs: int, num_outputs: int, device: torch.device) -> nn.Linear:
    """Without values, which would be drawn from torch's own generator; fp32 whatever the base is in."""
    return nn.Linear(num_inputs, num_outputs, bias=False, device="meta", dtype=torch.float32).to_empty(
        device=device
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """The weights of an adapter, apart from any model."""

    rank: int
    alpha: float
    """The update is scaled by alpha / rank."""
    weights: Mapping[str, Tensor]
    """By name: A is (rank, inputs), B is (outputs, rank)."""

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: a weight is no adapter's, lacks its other side, or has another rank.
        """
        for name, weight in self.weights.items():
            match = _NAME.fullmatch(name)
            if match is None or match["target"] not in TARGETS:
                raise InputError(f"the adapter has {name}; a StarCoder2 is adapted at {', '.join(TARGETS)}")
            if f"{match['module']}.lora_{'B' if match['side'] == 'A' else 'A'}.weight" not in self.weights:
                raise InputError(f"the adapter has {name} without its other side")
            if weight.ndim != 2 or weight.shape[0 if match["side"] == "A" else 1] != self.rank:
                raise InputError(f"{name} has shape {tuple(weight.shape)}; the adapter's rank is {self.rank}")
        if not self.weights:
            raise InputError("the adapter has no weights")

    @property
    def targets(self) -> tuple[str, ...]:
        found = {name.split(".")[-3] for name in self.weights}
        return tuple(target for target in TARGETS if target in found)


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter, not to the base."""
    return _NAME.fullmatch(name) is not None


def apply(
    model: Starcoder2, *, rank: int, alpha: float, targets: Sequence[str] = TARGETS, seed: int
) -> Starcoder2:
    """Freezes the model and gives its targets fresh adapters, in place.

    On the meta device the adapters hold nothing yet; `initialise` fills them once they lie somewhere.

    Raises:
        InputError: an unknown target, a rank below 1, or a model that has adapters already.
    """
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise InputError(f"LoRA targets must be among {', '.join(TARGETS)}, got {', '.join(unknown) or 'none'}")
    if rank < 1:
        raise InputError(f"the rank of LoRA must be at least 1, got {rank}")
    if any(isinstance(module, LowRankLinear) for module in model.modules()):
        raise InputError("the model has an adapter already; merge it before another one is applied")
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for target, child in list(parent.named_children()):
            if target in targets and isinstance(child, nn.Linear):
                setattr(parent, target, LowRankLinear(child, rank, alpha))
    initialise(model, seed=seed)
    return model


@torch.no_grad()
def initialise(model: nn.Module, *, seed: int) -> None:
    """Fresh adapters: the same bits wherever the model lies and however it is sharded."""
    for name, parameter in model.named_parameters():
        match = _NAME.fullmatch(name)
        if match is None or parameter.is_meta:
            continue
        if match["side"] == "B":
            parameter.zero_()
            continue
        key = hashlib.blake2b(f"lora\0{seed}\0{match['module']}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
        bound = parameter.shape[1] ** -0.5
        _fill(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


def _fill(parameter: Tensor, whole: Tensor) -> None:
    """Every rank has the whole value and keeps its own part; nothing is sent."""
    if isinstance(parameter, DTensor):
        whole = whole.to(parameter.to_local().device)
        parts = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(parts.to_local())
    else:
        parameter.copy_(whole)


def extract(model: Starcoder2) -> Adapter:
    """The adapter of a model that `apply` or `attach` was given; its tensors are the model's own."""
    layers = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    if not layers:
        raise InputError("the model has no adapter")
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if is_adapter(name)}
    return Adapter(rank=layers[0].rank, alpha=layers[0].alpha, weights=weights)


def attach(model: Starcoder2, adapter: Adapter) -> Starcoder2:
    """Freezes the model and gives it a copy of the adapter, in place; to go on training it, or to use it unmerged.

    Raises:
        InputError: the adapter is of another shape.
    """
    apply(model, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets, seed=0)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            if is_adapter(name) and name not in adapter.weights:
                parameter.zero_()  # a layer that the adapter leaves alone
        for name, weight in adapter.weights.items():
            if name not in parameters or parameters[name].shape != weight.shape:
                raise InputError(f"the adapter does not fit the model: {name} of shape {tuple(weight.shape)}")
            _fill(parameters[name], weight.float())
    return model


def merged(weights: Iterable[tuple[str, Tensor]], adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """The weights of the base with the adapter's in them, under the base's names, one at a time.

    Args:
        weights: of the base, such as those of a folder; an adapter's own among them are left out.

    Raises:
        InputError: the adapter is for another model.
    """
    scale = adapter.alpha / adapter.rank
    waiting = {name.removesuffix(".lora_A.weight") for name in adapter.weights if name.endswith(".lora_A.weight")}
    for name, weight in weights:
        if is_adapter(name):
            continue
        module = name.removesuffix(".weight")
        if module not in waiting:
            yield name, weight
            continue
        waiting.remove(module)
        sides = [adapter.weights[f"{module}.lora_{side}.weight"].to(weight.device).float() for side in "BA"]
        if (sides[0].shape[0], sides[1].shape[1]) != weight.shape:
            raise InputError(f"the adapter does not fit the model: {name} has shape {tuple(weight.shape)}")
        yield name, (weight.detach().float() + scale * (sides[0] @ sides[1])).to(weight.dtype)
    if waiting:
        raise InputError(f"the adapter does not fit the model: there is no {min(waiting)}")


def write(adapter: Adapter, folder: Path, *, base: str, overwrite: bool = False) -> None:
    """Writes the folder that PEFT's `PeftModel.from_pretrained` reads.

    Args:
        base: the folder or the name of the base model, which PEFT looks up.

    Raises:
        InputError: the folder is in use.
        MachineError: the disk refuses.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise InputError(f"{folder} is in use; choose another folder, or remove it first")
    alpha = int(adapter.alpha) if float(adapter.alpha).is_integer() else adapter.alpha
    described = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": adapter.rank,
        "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": sorted(adapter.targets), "bias": "none",
        "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True, **_PLAIN,
    }  # fmt: skip
    tensors = {_PREFIX + name: weight.detach().cpu().contiguous() for name, weight in adapter.weights.items()}
    aside = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(tensors, aside / WEIGHTS, metadata={"format": "pt"})
        (aside / WEIGHTS).chmod(aside.stat().st_mode & 0o666)  # the library leaves it to its owner alone
        text = json.dumps(described, indent=2, sort_keys=True) + "\n"
        (aside / CONFIG).write_text(text, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except (OSError, SafetensorError) as error:
        raise MachineError(f"could not write the adapter to {folder}: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read(folder: Path) -> Adapter:
    """Reads a LoRA adapter that `write` or PEFT wrote.

    Raises:
        InputError: a file is absent or damaged, or the adapter is of a kind that would be computed wrongly.
    """
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} holds no adapter in PEFT's layout: {error}") from None
    if not isinstance(described, dict) or described.get("peft_type") != "LORA":
        raise InputError(f"{folder / CONFIG} does not describe a LoRA adapter")
    for key, plain in {**_PLAIN, "bias": "none", "fan_in_fan_out": False}.items():
        if described.get(key, plain) not in (plain, None):
            raise InputError(f"{folder / CONFIG} has {key} {described[key]!r}; only {plain!r} is known")
    rank, alpha = described.get("r"), described.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise InputError(f"{folder / CONFIG} lacks r or lora_alpha")
    return Adapter(
        rank=rank,
        alpha=float(alpha),
        weights={name.removeprefix(_PREFIX): weight for name, weight in tensors.items()},
    )


_PLAIN: dict[str, Any] = {
    "use_rslora": False, "use_dora": False, "lora_bias": False, "rank_pattern": {}, "alpha_pattern": {},
    "modules_to_save": None, "layer_replication": None,
}  # fmt: skip
"""Variants of LoRA that PEFT has and this module has not."""
