"""A model as a folder that `transformers` loads: `config.json`, safetensors, `generation_config.json`, tokenizer.

Parameter names and layouts are Hugging Face's already, so nothing is converted; a tied head is stored once, as
`transformers` does. Written without `transformers`, so that its releases cannot change our files. The folder is
built beside its place and renamed: it is there whole or not at all. The same model gives the same bytes.

The published StarCoder2 first shipped with 49152 as begin and end token in `generation_config.json`, which is
outside its vocabulary; the ids written here are the configuration's (0).
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from starsmith.errors import InputError, MachineError
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD_BYTES = 5 * 10**9


def export(
    model: Starcoder2,
    config: Starcoder2Config,
    tokenizer_files: Sequence[Path],
    folder: Path,
    *,
    overwrite: bool = False,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes the folder.

    Args:
        tokenizer_files: copied as they are (`tokenizer.json`, `tokenizer_config.json`, ...).
        folder: must be absent or empty, unless `overwrite`.
        shard_bytes: weights beyond this size are split over several files with an index.

    Raises:
        InputError: the folder is in use, or a tokenizer file is absent or has a reserved name.
        MachineError: the disk refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a model is a folder")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} is not empty; choose another folder, or remove it first")
    for file in tokenizer_files:
        if not file.is_file():
            raise InputError(f"no tokenizer file at {file}")
        if file.name in ("config.json", "generation_config.json", INDEX) or file.suffix == ".safetensors":
            raise InputError(f"{file} cannot be a tokenizer file: the name is the model's own")
    aside = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write_weights(dict(model.named_parameters()), aside, shard_bytes)
        dtype = str(model.lm_head.weight.dtype).removeprefix("torch.")
        _write_json(aside / "config.json", {**config.to_dict(), "dtype": dtype})
        ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
        _write_json(aside / "generation_config.json", ids)
        for file in tokenizer_files:
            shutil.copyfile(file, aside / file.name)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise MachineError(f"could not write the model to {folder}: {error}") from error


def load(folder: Path) -> tuple[Starcoder2, Starcoder2Config]:
    """Reads a folder written by `export` or by `transformers`, in the precision of its files.

    Raises:
        InputError: a file is absent or damaged, or the weights are not those of the configuration.
    """
    config = Starcoder2Config.from_dict(_read_json(folder / "config.json"))
    with torch.device("meta"):
        model = Starcoder2(config)
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    weights = dict(_read_weights(folder))
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)  # some writers store it twice
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    if missing or unknown:
        raise InputError(
            f"the weights in {folder} are not those of its config.json: "
            f"missing {', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}"
        )
    for name, shape in expected.items():
        found = weights[name].shape
        if found != shape:
            raise InputError(
                f"{name} in {folder} has shape {tuple(found)} instead of config.json's {tuple(shape)}"
            )
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.requires_grad_(True), config


def _write_weights(parameters: Mapping[str, Tensor], folder: Path, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, parameter in parameters.items():
        size = parameter.numel() * parameter.element_size()
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = parameter.detach().cpu().contiguous()
        filled += size
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [WEIGHTS]
    else:
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(tensor.numel() * tensor.element_size() for tensor in parameters.values())
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})


def _read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        places = _read_json(folder / INDEX).get("weight_map", {})
        names = sorted({Path(name).name for name in places.values()})  # an index never leads out of its folder
    with ExitStack() as files:
        for name in names:
            try:
                file = files.enter_context(safe_open(folder / name, framework="pt"))
                for tensor in file.keys():  # noqa: SIM118, not a mapping
                    yield tensor, file.get_tensor(tensor)
            except (OSError, SafetensorError) as error:
                raise InputError(f"cannot read the weights {folder / name}: {error}") from None


def _write_json(place: Path, value: Mapping[str, Any]) -> None:
    place.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_json(place: Path) -> dict[str, Any]:
    try:
        value = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {place}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place} holds no JSON object")
    return value
