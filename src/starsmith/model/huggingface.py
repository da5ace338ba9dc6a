"""A model as a folder that `transformers` loads: `config.json`, safetensors, `generation_config.json`, tokenizer.

Parameter names and layouts are Hugging Face's already, so nothing is converted; a tied head is stored once, as
`transformers` does. Read and written without `transformers`, so that its releases cannot change our files, and a
few tensors at a time: writing holds one shard in memory, reading one model. The folder is built beside its place
and renamed: it is there whole or not at all. The same weights in the same order give the same bytes.

Published checkpoints come whole or in shards with an index, in fp32 or bf16, and with a tied head stored or not;
pickled weights (`pytorch_model.bin`) are refused, since reading them can run code.

The published StarCoder2 first shipped with 49152 as begin and end token in `generation_config.json`, which is
outside its vocabulary; that file is not read, and the ids written are the configuration's (0).
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",
)  # fmt: skip
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
_SHARD_BYTES = 5 * 10**9
_SETTLED_NS = 2 * 10**9


def export(
    weights: Iterable[tuple[str, Tensor]],
    config: Starcoder2Config,
    tokenizer_files: Sequence[Path],
    folder: Path,
    *,
    overwrite: bool = False,
    shard_bytes: int = _SHARD_BYTES,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the folder.

    Args:
        weights: every parameter of the configuration once, by name and in any order, such as
            `model.named_parameters()`. They are taken as they come; a head that is tied may be among them.
        tokenizer_files: copied as they are (`tokenizer.json`, `tokenizer_config.json`, ...).
        folder: must be absent or empty; with `overwrite`, it may be a model's, which is removed with all in it.
        shard_bytes: weights beyond this size are split over several files with an index.
        dtype: to store the weights in; None for their own.

    Raises:
        InputError: the folder is in use, a tokenizer file is absent or has a reserved name, or the weights are
            not those of the configuration.
        MachineError: the disk refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a model is a folder")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(
                f"{folder} is not empty; choose another folder, remove it first, or have it overwritten"
            )
        if not (folder / CONFIG).is_file():
            raise InputError(
                f"{folder} is no model, so it is not overwritten; choose another folder, or remove it"
            )
    folder = folder.resolve()  # `.` has no neighbours by name, and a link's target is what is meant
    for file in tokenizer_files:
        if not file.is_file():
            raise InputError(f"no tokenizer file at {file}")
        if file.name in (CONFIG, GENERATION, INDEX) or file.suffix == ".safetensors":
            raise InputError(f"{file} cannot be a tokenizer file: the name is the model's own")
    aside = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        stored = _write_weights(weights, config, aside, shard_bytes, dtype)
        _write_json(aside / CONFIG, {**config.to_dict(), "dtype": str(stored).removeprefix("torch.")})
        ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
        _write_json(aside / GENERATION, ids)
        for file in tokenizer_files:
            shutil.copyfile(file, aside / file.name)
        replaced = folder.with_name(f"{folder.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            folder.rename(replaced)
        aside.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise MachineError(f"could not write the model to {folder}: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> tuple[Starcoder2, Starcoder2Config]:
    """Reads a folder written by `export` or by `transformers`.

    Args:
        dtype: of the model; None for the precision of the files.
        device: of the model; None for the processor.

    Raises:
        InputError: a file is absent or damaged, or the weights are not those of the configuration.
    """
    config = read_config(folder)
    with torch.device("meta"):
        model = Starcoder2(config)
    copies = {name: tensor.to(device, dtype, copy=True) for name, tensor in read_weights(folder, config)}
    if config.tie_word_embeddings:
        copies[HEAD] = copies[EMBEDDINGS]
    model.load_state_dict(copies, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.requires_grad_(True), config


def read_config(folder: Path) -> Starcoder2Config:
    """
    Raises:
        InputError: there is no configuration of a StarCoder2.
    """
    return Starcoder2Config.from_dict(_read_json(folder / CONFIG))


def read_weights(folder: Path, config: Starcoder2Config) -> Iterator[tuple[str, Tensor]]:
    """Each parameter once, in the order of the network whatever the shards; a tied head is not among them.

    The tensors are views of the mapped files: what is not looked at is not read, and what was is given back
    when memory is short.

    Raises:
        InputError: before the first tensor where a file is absent or damaged, or the weights are not those of
            the configuration.
    """
    expected = shapes(config)
    with ExitStack() as files:
        places: dict[str, Any] = {}
        found: dict[str, tuple[int, ...]] = {}
        for file in _weight_files(folder):
            try:
                opened = files.enter_context(safe_open(file, framework="pt"))
                for name in opened.keys():  # noqa: SIM118, not a mapping
                    places[name] = opened
                    found[name] = tuple(opened.get_slice(name).get_shape())
            except (OSError, SafetensorError) as error:
                raise InputError(f"cannot read the weights {file}: {error}") from None
        _compare(expected, found, config, f"in {folder}")
        for name in expected:
            yield name, places[name].get_tensor(name)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer that the folder has."""
    return [folder / name for name in TOKENIZER if (folder / name).is_file()]


def digest(folder: Path, cache: Path) -> str:
    """SHA-256 over what a model starts from: configuration, weights and tokenizer.

    Args:
        cache: a folder in which the digest of each file is remembered by its path, size and time of change, so
            that tens of gigabytes are not read at every call.

    Raises:
        InputError: the configuration or the weights are absent.
    """
    files = [folder / CONFIG, *_weight_files(folder), *tokenizer_files(folder)]
    whole = hashlib.sha256()
    for file in sorted(files):
        try:
            whole.update(f"{file.name}\0{_file_digest(file, cache)}\n".encode())
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
    return whole.hexdigest()


def shapes(config: Starcoder2Config) -> dict[str, tuple[int, ...]]:
    """Of every parameter by name, in the order of the network; a tied head has none of its own."""
    with torch.device("meta"):
        model = Starcoder2(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _compare(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    config: Starcoder2Config,
    where: str,
) -> None:
    known = {*expected, HEAD} if config.tie_word_embeddings else {*expected}  # some writers store it twice
    missing, unknown = sorted(expected.keys() - found), sorted(found.keys() - known)
    if missing or unknown:
        raise InputError(
            f"the weights {where} are not those of its config.json: "
            f"missing {_listed(missing)}; unknown {_listed(unknown)}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(f"{name} {where} has shape {found[name]} instead of config.json's {shape}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _write_weights(
    weights: Iterable[tuple[str, Tensor]],
    config: Starcoder2Config,
    folder: Path,
    shard_bytes: int,
    dtype: torch.dtype | None,
) -> torch.dtype:
    """Writes the shards under numbers and names them at the end, when it is known how many there are."""
    found: dict[str, tuple[int, ...]] = {}
    parts: list[list[str]] = []
    total_bytes, stored = 0, torch.float32
    for number, shard in enumerate(_shards(weights, config, shard_bytes, dtype)):
        file = folder / f"{number}.safetensors"
        save_file(shard, file, metadata={"format": "pt"})
        file.chmod(folder.stat().st_mode & 0o666)  # the library leaves it to its owner alone
        parts.append(list(shard))
        found |= {name: tuple(tensor.shape) for name, tensor in shard.items()}
        total_bytes += sum(tensor.nbytes for tensor in shard.values())
        if EMBEDDINGS in shard:
            stored = shard[EMBEDDINGS].dtype
    _compare(shapes(config), found, config, "given")
    if len(parts) == 1:
        names = [WEIGHTS]
    else:
        names = [f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
        places = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        _write_json(folder / INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": places})
    for number, name in enumerate(names):
        (folder / f"{number}.safetensors").rename(folder / name)
    return stored


def _shards(
    weights: Iterable[tuple[str, Tensor]], config: Starcoder2Config, shard_bytes: int, dtype: torch.dtype | None
) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    filled = 0
    for name, tensor in weights:
        if name == HEAD and config.tie_word_embeddings:
            continue
        ready = tensor.detach().to("cpu", dtype).contiguous()
        if shard and filled + ready.nbytes > shard_bytes:
            yield shard
            shard, filled = {}, 0
        shard[name] = ready
        filled += ready.nbytes
    yield shard


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        places = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise InputError(f"{folder / INDEX} has no weight_map")
        # an index never leads out of its folder
        return [folder / name for name in sorted({Path(str(name)).name for name in places.values()})]
    if any(folder.glob("pytorch_model*.bin")):
        raise InputError(
            f"{folder} has pickled weights only, and reading those can run code; convert them to safetensors "
            "first, with `save_pretrained` of transformers"
        )
    raise InputError(f"cannot read the weights {folder / WEIGHTS}: there is no such file, nor {INDEX}")


def _file_digest(file: Path, cache: Path) -> str:
    """A file changed within the last two seconds is not remembered: a second change could bear the same time."""
    status = file.stat()
    facts = {"path": str(file.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    place = cache / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.json"
    if place.is_file():
        remembered = _read_json(place)
        if remembered.get("file") == facts and isinstance(remembered.get("sha256"), str):
            return str(remembered["sha256"])
    with file.open("rb") as opened:
        computed = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
        cache.mkdir(parents=True, exist_ok=True)
        aside = place.with_suffix(f".{os.getpid()}")
        _write_json(aside, {"file": facts, "sha256": computed})
        aside.rename(place)
    return computed


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
