"""One entry to the formats that a model leaves in: a Hugging Face folder, or a GGUF file for llama.cpp.

Both are made from a Hugging Face folder, ours or a published one, without holding the model in memory. An adapter
is merged into its base the same way, and the result exported like any model.
"""

from pathlib import Path

import torch

from starsmith.errors import InputError
from starsmith.model import gguf, huggingface, lora

FORMATS = ("huggingface", "gguf")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Of a Hugging Face folder; GGUF has `gguf.PRECISIONS`."""


def export_folder(
    source: Path,
    destination: Path,
    *,
    format: str = "huggingface",
    precision: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Exports a model with its tokenizer.

    Args:
        source: a Hugging Face folder of a StarCoder2.
        destination: the folder, or the GGUF file.
        format: one of `FORMATS`.
        precision: of the weights; None leaves them as they are.
        overwrite: whether an existing destination may be replaced.

    Returns:
        What the user must be told.

    Raises:
        InputError: a wrong argument, a source that is no StarCoder2, or a destination in use.
        MachineError: the disk refuses, or the package for the format is not installed.
    """
    if format not in FORMATS:
        raise InputError(f"a model is exported as {' or '.join(FORMATS)}, not as {format!r}")
    if destination.resolve() == source.resolve():
        raise InputError(f"{destination} is the model itself; choose another place")
    config = huggingface.read_config(source)
    if format == "gguf":
        gguf.export(source, destination, precision=precision, overwrite=overwrite)
        limit = gguf.warning(config)
        return [limit] if limit is not None else []
    if precision not in (None, *PRECISIONS):
        raise InputError(f"the precision of a folder is one of {', '.join(PRECISIONS)}, got {precision!r}")
    huggingface.export(
        huggingface.read_weights(source, config),
        config,
        huggingface.tokenizer_files(source),
        destination,
        overwrite=overwrite,
        dtype=PRECISIONS[precision] if precision is not None else None,
    )
    return []


def merge_adapter(source: Path, adapter: Path, destination: Path, *, overwrite: bool = False) -> None:
    """Writes the base model with a LoRA adapter (PEFT's layout) in its weights, as a Hugging Face folder.

    Raises:
        InputError: either folder is not what it should be, they do not fit, or the destination is in use.
        MachineError: the disk refuses.
    """
    if destination.resolve() == source.resolve():
        raise InputError(f"{destination} is the model itself; choose another place")
    config = huggingface.read_config(source)
    weights = lora.merged(huggingface.read_weights(source, config), lora.read(adapter))
    files = huggingface.tokenizer_files(source)
    huggingface.export(weights, config, files, destination, overwrite=overwrite)
