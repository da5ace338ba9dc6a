"""A Hugging Face folder as one GGUF file for llama.cpp, through the `gguf` package (extra `starsmith[gguf]`).

Written for llama.cpp's graph `starcoder2`: names of tensors come from the package's own table, weights keep their
layout (RoPE is the half rotation on both sides), a tied head is left out, and what has one dimension stays fp32 in
every precision, as llama.cpp's kernels want. The tokenizer is its `gpt2` model with the pre-tokenizer `starcoder`
(each digit alone, then GPT-2's expression), which any StarCoder2 tokenizer fits, however many tokens it has.
Another pre-tokenizer is refused, since llama.cpp would split text otherwise than the model learnt.

Special tokens are CONTROL: recognised in prompts, never shown. Added tokens that are not special (our tokenizers'
placeholders of redaction) are USER_DEFINED: recognised in any text, and shown. The ids for infilling stand under
llama.cpp's keys; by these it stops at `<file_sep>` and `<repo_name>` too, as our evaluation does.

The price: **llama.cpp's graph has no sliding window.** Up to the window (4,096 tokens) it computes the same model;
beyond, every position sees more than it did in training. The file names the window and describes this limit, and
`warning` is the sentence for people. RoPE's base is stored in fp32: 999,999.4420358813 of the published 3B becomes
999,999.4375.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starsmith.errors import InputError, MachineError
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.huggingface import read_config, read_weights, shapes

PRECISIONS = ("fp32", "fp16", "bf16", "q8_0")
_STORED = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_INFILLING = {
    "fim_pre": "<fim_prefix>", "fim_suf": "<fim_suffix>", "fim_mid": "<fim_middle>", "fim_pad": "<fim_pad>",
    "fim_rep": "<repo_name>", "fim_sep": "<file_sep>",
}  # fmt: skip


def export(folder: Path, file: Path, *, precision: str | None = None, overwrite: bool = False) -> None:
    """Writes the model and the tokenizer of a Hugging Face folder, one tensor in memory at a time.

    The file is built beside its place and renamed. Equal folders of equal names give equal bytes.

    Args:
        precision: of the matrices, one of `PRECISIONS`; None for that of the folder. Rows that 32 does not divide
            have no `q8_0` and become `fp16`.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the folder is no StarCoder2 or lacks its tokenizer, the tokenizer is none that llama.cpp's
            `starcoder` splits alike, a weight is too large for fp16, or the file exists.
        MachineError: the package is not installed, or the disk refuses.
    """
    if precision not in (None, *PRECISIONS):
        raise InputError(f"GGUF precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if file.is_dir() or (file.exists() and not overwrite):
        raise InputError(f"{file} exists; choose another name, or remove it first")
    package = _package()
    config = read_config(folder)
    described = _read_tokenizer(folder / "tokenizer.json")
    if precision is None:
        precision = _stored_precision(folder, config)
    aside = file.with_name(f"{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = package.GGUFWriter(aside, "starcoder2")
        try:
            _add_hyperparameters(package, writer, config, folder.resolve().name, precision)
            _add_tokenizer(package, writer, described, config)
            _write_weights(package, writer, folder, config, precision)
        finally:
            writer.close()
        aside.rename(file)
    except OSError as error:
        raise MachineError(f"could not write {file}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def warning(config: Starcoder2Config) -> str | None:
    """What a user of the file must know; None for a model without a window inside its context."""
    window = config.sliding_window
    if window is None or window >= config.max_position_embeddings:
        return None
    return (
        f"llama.cpp has no sliding window for starcoder2: its outputs are this model's within {window:,} tokens "
        f"(prompt and answer together); run it with a context of at most {window}"
    )


def tensor_names(config: Starcoder2Config) -> dict[str, str]:
    """GGUF's name of each parameter, by Hugging Face's, in the order of the file."""
    package = _package()
    table = package.get_tensor_name_map(package.MODEL_ARCH.STARCODER2, config.num_hidden_layers)
    return {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in shapes(config)}


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise MachineError(
            "exporting GGUF needs the package gguf, which is not installed: pip install 'starsmith[gguf]'"
        ) from None
    return gguf


def _stored_precision(folder: Path, config: Starcoder2Config) -> str:
    _, embeddings = next(read_weights(folder, config))
    if embeddings.dtype not in _STORED:
        raise InputError(f"{folder} has weights of type {embeddings.dtype}; choose one of {', '.join(PRECISIONS)}")
    return _STORED[embeddings.dtype]


def _add_hyperparameters(package: Any, writer: Any, config: Starcoder2Config, name: str, precision: str) -> None:
    types = package.LlamaFileType
    writer.add_type(package.GGUFType.MODEL)
    writer.add_name(name)
    if (limit := warning(config)) is not None:
        writer.add_description(limit)
    writer.add_file_type(
        {"fp32": types.ALL_F32, "fp16": types.MOSTLY_F16, "bf16": types.MOSTLY_BF16, "q8_0": types.MOSTLY_Q8_0}[
            precision
        ]
    )
    writer.add_quantization_version(package.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if config.sliding_window is not None:
        writer.add_sliding_window(config.sliding_window)


def _read_tokenizer(place: Path) -> dict[str, Any]:
    """The content of a tokenizer.json that llama.cpp's `starcoder` agrees with.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    try:
        described = json.loads(place.read_text(encoding="utf-8"))
        model, before = described["model"], described["pre_tokenizer"]
        steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
        kinds = [step["type"] for step in steps]
        plain = (
            model["type"] == "BPE"
            and not described.get("normalizer")
            and not any(model.get(key) for key in _UNKNOWN_TO_LLAMA)
            and kinds == ["Digits", "ByteLevel"]
            and steps[0]["individual_digits"]
            and not steps[1]["add_prefix_space"]
            and steps[1].get("use_regex", True)
        )
    except OSError as error:
        raise InputError(f"cannot read {place}: {error.strerror}; a GGUF file holds the tokenizer too") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place} is not a tokenizer.json: {error!r}") from None
    if not plain:
        raise InputError(
            f"{place} is not StarCoder2's kind of tokenizer (byte-level BPE after single digits, no normalizer), "
            "and llama.cpp would split text otherwise than the model learnt"
        )
    return dict(described)


_UNKNOWN_TO_LLAMA = (
    "dropout",
    "byte_fallback",
    "ignore_merges",
    "continuing_subword_prefix",
    "end_of_word_suffix",
)


def _add_tokenizer(package: Any, writer: Any, described: dict[str, Any], config: Starcoder2Config) -> None:
    kinds = package.TokenType
    token_of = {number: token for token, number in described["model"]["vocab"].items()}
    type_of = dict.fromkeys(token_of, kinds.NORMAL)
    for added in described["added_tokens"]:
        token_of[added["id"]] = added["content"]
        type_of[added["id"]] = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
    if max(token_of) >= config.vocab_size:
        raise InputError(
            f"the tokenizer has ids up to {max(token_of)}, the model a vocabulary of {config.vocab_size}: "
            "they do not belong together"
        )
    ids = range(config.vocab_size)  # embeddings may have rows to spare
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("starcoder")
    writer.add_token_list([token_of.get(number, f"[PAD{number}]") for number in ids])
    writer.add_token_types([type_of.get(number, kinds.UNUSED) for number in ids])
    pairs = described["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in pairs])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    id_of = {token: number for number, token in token_of.items()}
    for key, token in _INFILLING.items():
        if token in id_of:
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", id_of[token])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _write_weights(package: Any, writer: Any, folder: Path, config: Starcoder2Config, precision: str) -> None:
    names = tensor_names(config)
    types = {name: _type(package, shape, precision) for name, shape in shapes(config).items()}
    for name, shape in shapes(config).items():
        block, block_bytes = package.GGML_QUANT_SIZES[types[name]]
        num_bytes = int(np.prod(shape)) // block * block_bytes
        writer.add_tensor_info(names[name], shape, np.dtype(np.float32), num_bytes, raw_dtype=types[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in read_weights(folder, config):
        writer.write_tensor_data(_converted(package, name, tensor, types[name]))


def _type(package: Any, shape: tuple[int, ...], precision: str) -> Any:
    types = package.GGMLQuantizationType
    if len(shape) == 1 or precision == "fp32":
        return types.F32
    if precision == "q8_0":
        return types.F16 if shape[-1] % package.GGML_QUANT_SIZES[types.Q8_0][0] else types.Q8_0
    return types.BF16 if precision == "bf16" else types.F16


def _converted(package: Any, name: str, tensor: Tensor, kind: Any) -> NDArray[Any]:
    types = package.GGMLQuantizationType
    if kind == types.F16:
        half = tensor.to(torch.float16)
        if not half.isfinite().all():
            raise InputError(f"{name} has values that fp16 cannot hold; choose bf16 or fp32")
        return half.numpy()
    if kind == types.BF16:
        return tensor.to(torch.bfloat16).view(torch.uint16).numpy()
    values = tensor.to(torch.float32).numpy()
    quantised: NDArray[Any] = package.quants.quantize(values, kind)
    return quantised
