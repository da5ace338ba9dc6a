"""GGUF files, read back with the package's reader and run by llama.cpp."""

import dataclasses
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import starsmith.model
from starsmith.documents.special_tokens import PLACEHOLDER_TOKENS, SPECIAL_TOKENS
from starsmith.errors import InputError, MachineError
from starsmith.model import gguf, huggingface
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.export import export_folder
from starsmith.model.starcoder2 import Starcoder2
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts, write_huggingface

reading = pytest.importorskip("gguf")

SOURCES = [path.read_text() for path in sorted(Path(starsmith.model.__file__).parent.glob("*.py"))]
WINDOW = 64
SPARE = 5
"""Rows of the embeddings without a token."""


@pytest.fixture(scope="module")
def tokenizer():
    return train_on_texts(SOURCES, vocab_size=700)


@pytest.fixture(scope="module")
def make_folder(tmp_path_factory, tokenizer):
    """A folder of a small random model; biases and norms are random too."""

    def make(dtype=None, **changes) -> Path:
        config = Starcoder2Config(
            **{
                "vocab_size": tokenizer.vocab_size + SPARE, "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "max_position_embeddings": 256, "sliding_window": WINDOW, "initializer_range": 0.3,
                "rope_theta": 999999.4420358813,
                **changes,
            }
        )  # fmt: skip
        model = Starcoder2(config).initialise(seed=1)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        folder = tmp_path_factory.mktemp("gguf")
        write_huggingface(tokenizer, folder, model_max_length=256)
        files = huggingface.tokenizer_files(folder)
        huggingface.export(model.named_parameters(), config, files, folder / "small", dtype=dtype)
        return folder / "small"

    return make


@pytest.fixture(scope="module")
def folder(make_folder):
    return make_folder()


def read(file):
    """Keys and values, and tensors with their types, as llama.cpp's own package reads them."""
    reader = reading.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: (tensor.tensor_type.name, reading.dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    return fields, tensors


LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def llama_name(name):
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    _, _, layer, inside = module.split(".", 3)
    return f"blk.{layer}.{LAYER[inside]}.{kind}"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", gguf.PRECISIONS)
def test_every_tensor_reads_back(precision, tied, make_folder, tmp_path):
    folder = make_folder(tie_word_embeddings=tied)
    gguf.export(folder, tmp_path / "out.gguf", precision=precision)
    _, tensors = read(tmp_path / "out.gguf")
    model, _ = huggingface.load(folder)
    expected = {llama_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    assert tensors.keys() == expected.keys()
    assert ("output.weight" in tensors) is not tied
    for name, value in expected.items():
        kind, values = tensors[name]
        if value.ndim == 1 or precision == "fp32":
            assert kind == "F32"
            assert np.array_equal(values, value.numpy())
        elif precision == "q8_0":
            assert kind == "Q8_0"
            blocks = value.reshape(-1, 32)
            difference = (torch.from_numpy(values).reshape(-1, 32) - blocks).abs()
            assert (difference <= blocks.abs().amax(dim=1, keepdim=True) / 127 * 0.57).all()
        else:
            dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
            assert kind == {"fp16": "F16", "bf16": "BF16"}[precision]
            assert np.array_equal(values, value.to(dtype).float().numpy())


def test_every_key_reads_back(folder, tmp_path, tokenizer):
    gguf.export(folder, tmp_path / "out.gguf", precision="bf16")
    fields, _ = read(tmp_path / "out.gguf")
    described = json.loads((folder / "tokenizer.json").read_text())
    tokens = fields.pop("tokenizer.ggml.tokens")
    assert tokens[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)
    assert {token: number for number, token in enumerate(tokens[:-SPARE])} == described["model"]["vocab"]
    assert tokens[-SPARE:] == [f"[PAD{number}]" for number in range(tokenizer.vocab_size, len(tokens))]
    types = fields.pop("tokenizer.ggml.token_type")
    control, user_defined, normal, unused = 3, 4, 1, 5
    num_normal = tokenizer.vocab_size - len(SPECIAL_TOKENS)
    assert types == [control] * 34 + [user_defined] * 4 + [normal] * num_normal + [unused] * SPARE
    assert fields.pop("tokenizer.ggml.merges") == [" ".join(pair) for pair in described["model"]["merges"]]
    assert "within 64 tokens" in fields.pop("general.description")
    assert fields.pop("starcoder2.rope.freq_base") == 999999.4375
    assert fields.pop("starcoder2.attention.layer_norm_epsilon") == pytest.approx(1e-5)
    assert fields == {
        "GGUF.version": 3, "GGUF.tensor_count": 35, "GGUF.kv_count": 33,
        "general.architecture": "starcoder2", "general.type": "model", "general.name": "small",
        "general.file_type": 32, "general.quantization_version": 2,
        "starcoder2.context_length": 256, "starcoder2.embedding_length": 64,
        "starcoder2.feed_forward_length": 96, "starcoder2.block_count": 2,
        "starcoder2.attention.head_count": 4, "starcoder2.attention.head_count_kv": 2,
        "starcoder2.rope.dimension_count": 16, "starcoder2.vocab_size": tokenizer.vocab_size + SPARE,
        "starcoder2.attention.sliding_window": WINDOW,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "starcoder",
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.fim_pre_token_id": 1, "tokenizer.ggml.fim_suf_token_id": 3,
        "tokenizer.ggml.fim_mid_token_id": 2, "tokenizer.ggml.fim_pad_token_id": 4,
        "tokenizer.ggml.fim_rep_token_id": 5, "tokenizer.ggml.fim_sep_token_id": 6,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }  # fmt: skip


def test_reads_a_tokenizer_in_the_published_form(folder, tmp_path):
    """All 38 tokens special, and merges as strings, as the published files have them."""
    gguf.export(folder, tmp_path / "ours.gguf")
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["merges"] = [" ".join(pair) for pair in described["model"]["merges"]]
    for token in described["added_tokens"]:
        token["special"] = True
    published = copy(folder, tmp_path / "small", described)
    gguf.export(published, tmp_path / "published.gguf")
    (ours, _), (theirs, _) = read(tmp_path / "ours.gguf"), read(tmp_path / "published.gguf")
    assert theirs.pop("tokenizer.ggml.token_type")[:38] == [3] * 38
    assert ours.pop("tokenizer.ggml.token_type")[34:38] == [4] * 4
    assert ours == theirs


def copy(folder, place, tokenizer=None, **changes):
    """The folder with another tokenizer.json, or with other values in its config.json."""
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    if tokenizer is not None:
        (place / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changes))
    return place


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_keeps_the_precision_of_the_folder(dtype, make_folder, tmp_path):
    gguf.export(make_folder(dtype=dtype), tmp_path / "out.gguf")
    _, tensors = read(tmp_path / "out.gguf")
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    assert tensors["token_embd.weight"][0] == names[dtype]
    assert tensors["output_norm.weight"][0] == "F32"


def test_rows_that_have_no_blocks_become_fp16(make_folder, tmp_path):
    gguf.export(make_folder(hidden_size=80), tmp_path / "out.gguf", precision="q8_0")
    _, tensors = read(tmp_path / "out.gguf")
    assert (tensors["blk.0.ffn_up.weight"][0], tensors["blk.0.ffn_down.weight"][0]) == ("F16", "Q8_0")


def test_equal_folders_give_equal_bytes(folder, tmp_path):
    same = copy(folder, tmp_path / "small")
    gguf.export(folder, tmp_path / "a.gguf", precision="q8_0")
    gguf.export(same, tmp_path / "b.gguf", precision="q8_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def digits_together(tokenizer):
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False


def no_digits(tokenizer):
    tokenizer["pre_tokenizer"] = tokenizer["pre_tokenizer"]["pretokenizers"][1]


def space_in_front(tokenizer):
    tokenizer["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def lower_case(tokenizer):
    tokenizer["normalizer"] = {"type": "Lowercase"}


def word_pieces(tokenizer):
    tokenizer["model"]["type"] = "WordPiece"


@pytest.mark.parametrize("change", [digits_together, no_digits, space_in_front, lower_case, word_pieces])
def test_refuses_tokenizers_that_llama_cpp_would_split_otherwise(change, folder, tmp_path):
    described = json.loads((folder / "tokenizer.json").read_text())
    change(described)
    with pytest.raises(InputError, match="not StarCoder2's kind of tokenizer"):
        gguf.export(copy(folder, tmp_path / "small", described), tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_explains_what_is_wrong(folder, tmp_path, make_folder, monkeypatch):
    out = tmp_path / "out.gguf"
    with pytest.raises(InputError, match="must be one of fp32, fp16, bf16, q8_0, got 'int4'"):
        gguf.export(folder, out, precision="int4")
    without = copy(folder, tmp_path / "without")
    (without / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"cannot read .*tokenizer\.json.*holds the tokenizer too"):
        gguf.export(without, out)
    (without / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        gguf.export(without, out)
    with pytest.raises(InputError, match="ids up to 699, the model a vocabulary of 650"):
        gguf.export(make_folder(vocab_size=650), out)
    with pytest.raises(InputError, match="fp16 cannot hold"):
        gguf.export(make_folder(initializer_range=1e5), out, precision="fp16")
    out.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        gguf.export(folder, out)
    assert out.read_text() == "mine"
    gguf.export(folder, out, overwrite=True)
    assert read(out)[0]["general.architecture"] == "starcoder2"
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MachineError, match=r"pip install 'starsmith\[gguf\]'"):
        gguf.export(folder, tmp_path / "other.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "without"]


def test_one_entry_for_all_formats(folder, tmp_path):
    (told,) = export_folder(folder, tmp_path / "out.gguf", format="gguf", precision="q8_0")
    assert "within 64 tokens" in told
    assert export_folder(folder, tmp_path / "half", precision="bf16") == []
    half, config = huggingface.load(tmp_path / "half")
    assert half.lm_head.weight.dtype == torch.bfloat16
    assert config == huggingface.read_config(folder)
    same = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert all((tmp_path / "half" / name).read_bytes() == (folder / name).read_bytes() for name in same)
    assert export_folder(folder, tmp_path / "same") == []
    for file in folder.iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(InputError, match="huggingface or gguf, not as 'onnx'"):
        export_folder(folder, tmp_path / "x", format="onnx")
    with pytest.raises(InputError, match="one of fp32, fp16, bf16, got 'q8_0'"):
        export_folder(folder, tmp_path / "x", precision="q8_0")
    with pytest.raises(InputError, match="is the model itself"):
        export_folder(folder, folder, overwrite=True)


@pytest.mark.parametrize(("window", "limited"), [(None, False), (64, True), (256, False), (300, False)])
def test_warns_only_where_the_window_hides_something(window, limited, folder):
    config = dataclasses.replace(huggingface.read_config(folder), sliding_window=window)
    assert (gguf.warning(config) is not None) is limited


# What llama.cpp makes of the file.


def llama(file, requests, num_tokens=256):
    pytest.importorskip("xllamacpp")
    asked = {"model": str(file), "context": num_tokens, "requests": requests}
    script = Path(__file__).with_name("llama_cpp.py")
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(asked), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def completion(prompt, **changes):
    body = {"prompt": prompt, "temperature": 0.0, "return_tokens": True, "cache_prompt": False, "n_predict": 20}
    return ["/completion", body | changes]


def greedy(model, prompt, num_tokens):
    """Stops where llama.cpp does: at the end of the text, of the file and of the repository, and at padding."""
    answer: list[int] = []
    while len(answer) < num_tokens and (not answer or answer[-1] not in (0, 4, 5, 6)):
        with torch.no_grad():
            answer.append(int(model(torch.tensor([prompt + answer]))[0, -1].argmax()))
    return answer


def prompts(vocab_size, lengths, seed=4):
    random_ids = random.Random(seed)
    return [[random_ids.randrange(len(SPECIAL_TOKENS), vocab_size) for _ in range(n)] for n in lengths]


@pytest.mark.parametrize("tied", [True, False])
def test_llama_cpp_answers_as_ours_within_the_window(tied, make_folder, tmp_path, tokenizer):
    folder = make_folder(tie_word_embeddings=tied)
    gguf.export(folder, tmp_path / "out.gguf", precision="fp32")
    model, _ = huggingface.load(folder)
    asked = prompts(tokenizer.vocab_size, [1, 2, 7, 20, 33, 44])
    answers = llama(tmp_path / "out.gguf", [completion(prompt) for prompt in asked])
    for prompt, answer in zip(asked, answers, strict=True):
        assert answer["tokens"] == greedy(model, prompt, 20)
        assert len(prompt) + len(answer["tokens"]) <= WINDOW


def distribution(answer):
    """The logarithms of all probabilities of the first token, where llama.cpp shows them (not for bytes that are
    no whole character)."""
    if not answer.get("completion_probabilities"):
        return None
    listed = answer["completion_probabilities"][0]["top_logprobs"]
    return {each["id"]: each["logprob"] for each in listed}


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 0.01), ("fp16", 0.06), ("bf16", 0.4), ("q8_0", 1.2)]
)
def test_llama_cpp_gives_the_same_probabilities(precision, tolerance, folder, tmp_path, tokenizer):
    gguf.export(folder, tmp_path / "out.gguf", precision=precision)
    model, config = huggingface.load(folder)  # in fp32: llama.cpp's gelu is a table in fp16, worth 0.004 here
    asked = prompts(tokenizer.vocab_size, [64] * 12)
    requests = [completion(prompt, n_predict=1, n_probs=config.vocab_size) for prompt in asked]
    compared = 0
    for prompt, answer in zip(asked, llama(tmp_path / "out.gguf", requests), strict=True):
        theirs = distribution(answer)
        if theirs is not None:
            with torch.no_grad():
                ours = model(torch.tensor([prompt]))[0, -1].log_softmax(-1)
            assert max(abs(theirs[number] - float(ours[number])) for number in theirs) < tolerance
            assert math.fsum(math.exp(value) for value in theirs.values()) == pytest.approx(1, abs=1e-3)
            compared += 1
    assert compared >= 4


def test_beyond_the_window_llama_cpp_is_another_model(folder, tmp_path, tokenizer):
    """What `warning` says, and why: it is this model without its window."""
    gguf.export(folder, tmp_path / "out.gguf", precision="fp32")
    model, config = huggingface.load(folder)
    whole = Starcoder2(dataclasses.replace(config, sliding_window=None))
    whole.load_state_dict(model.state_dict())
    asked = prompts(tokenizer.vocab_size, [120] * 4)
    answers = llama(tmp_path / "out.gguf", [completion(prompt) for prompt in asked])
    assert [answer["tokens"] for answer in answers] == [greedy(whole, prompt, 20) for prompt in asked]
    assert [answer["tokens"] for answer in answers] != [greedy(model, prompt, 20) for prompt in asked]


TEXTS = [
    "def area(width, height):  # 1234 x 5678\n\treturn width*height\r\n\r\n   \n",
    "a  1  23 x\u00b2\u0663 \u2167 na\u00efve \u65e5\u672c\u8a9e \U0001f600\u200d 's 'S don't I'll   ",
    "mail <EMAIL>, key <KEY> of <NAME>: <PASSWORD>\n",
    "<repo_name>owner/tool<file_sep><fim_prefix>a.py\nimport os\n<fim_suffix>x\n<fim_middle>y<|endoftext|>",
    " ", "\n\n\n\n", "    " * 9 + "pass", "0x1F + 1_000e-3",
    *SOURCES,
]  # fmt: skip


def test_llama_cpp_tokenizes_as_ours(folder, tmp_path):
    import tokenizers

    gguf.export(folder, tmp_path / "out.gguf", precision="q8_0")
    requests = [["/tokenize", {"content": t, "add_special": True, "parse_special": True}] for t in TEXTS]
    plain = [["/tokenize", {"content": t, "add_special": True, "parse_special": False}] for t in TEXTS]
    answers = [answer["tokens"] for answer in llama(tmp_path / "out.gguf", requests + plain)]
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert answers[: len(TEXTS)] == [reference.encode(text).ids for text in TEXTS]
    ours = Tokenizer.load(folder / "tokenizer.json")  # structure tokens inside text are text; placeholders are not
    assert answers[len(TEXTS) :] == [ids.tolist() for ids in ours.encode(TEXTS)]
    assert {IDS_OF[token] for token in PLACEHOLDER_TOKENS} <= set(answers[len(TEXTS) + 2])


IDS_OF = {token: number for number, token in enumerate(SPECIAL_TOKENS)}


def test_llama_cpp_fills_in_the_middle(folder, tmp_path, tokenizer):
    gguf.export(folder, tmp_path / "out.gguf", precision="fp32")
    model, _ = huggingface.load(folder)
    before, after = "def total(values):\n    ", "\n    return result\n"
    body = completion(None, input_prefix=before, input_suffix=after, n_predict=10)[1]
    (answer,) = llama(tmp_path / "out.gguf", [["/infill", {k: v for k, v in body.items() if k != "prompt"}]])
    prefix, suffix = (ids.tolist() for ids in tokenizer.encode([before, after]))
    assert answer["tokens"] == greedy(model, [1, *prefix, 3, *suffix, 2], 10)
