"""The exported folder, read by ourselves and by `transformers`."""

import json
import os
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from starsmith.errors import InputError, MachineError
from starsmith.model.huggingface import digest, export, load, read_weights, tokenizer_files
from starsmith.tokens.tokenizer import train_on_texts, write_huggingface


@pytest.fixture
def tokenizer_file(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def differences(first, second):
    mine, theirs = first.state_dict(), second.state_dict()
    return [name for name in mine.keys() | theirs.keys() if not torch.equal(mine[name], theirs[name])]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_round_trip_is_bit_equal(tied, shard_bytes, tmp_path, make_model, tokenizer_file):
    model = make_model(tie_word_embeddings=tied, sliding_window=8)
    export(model.named_parameters(), model.config, [tokenizer_file], tmp_path / "out", shard_bytes=shard_bytes)
    again, config = load(tmp_path / "out")
    assert config == model.config
    assert differences(model, again) == []
    assert (again.lm_head.weight is again.model.embed_tokens.weight) is tied
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == (1 if shard_bytes == 10**9 else 13 + (not tied))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_transformers_loads_it(tied, shard_bytes, tmp_path, make_model, make_tokens, tokenizer_file):
    transformers = pytest.importorskip("transformers")
    model, batch = make_model(tie_word_embeddings=tied, sliding_window=8), make_tokens(2, 32)
    export(model.named_parameters(), model.config, [tokenizer_file], tmp_path / "out", shard_bytes=shard_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        generation = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert (generation.bos_token_id, generation.eos_token_id) == (0, 0)
    assert theirs.config.sliding_window == 8
    assert theirs.config.rope_parameters["rope_theta"] == model.config.rope_theta
    with torch.no_grad():
        assert (theirs(batch).logits - model(batch)).abs().max() < 1e-5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_what_transformers_wrote_comes_back_bit_equal(
    tied, dtype, shard, tmp_path, make_model, transformers_model
):
    model = make_model(tie_word_embeddings=tied, sliding_window=8)
    theirs = transformers_model(model).to(dtype)
    theirs.generation_config.bos_token_id = theirs.generation_config.eos_token_id = 49152
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    assert "49152" in (tmp_path / "theirs/generation_config.json").read_text()
    assert (len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1) is (shard == "20KB")

    again, config = load(tmp_path / "theirs")
    assert differences(model.to(dtype), again) == []
    assert config.sliding_window == 8
    export(again.named_parameters(), config, [], tmp_path / "ours")
    assert stored(tmp_path / "ours") == stored(tmp_path / "theirs")
    ids = json.loads((tmp_path / "ours/generation_config.json").read_text())
    assert ids == {"bos_token_id": 0, "eos_token_id": 0}


def stored(folder):
    """Every tensor in the folder's files by name, with its precision and bits."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return {name: (value.dtype, value.float().numpy().tobytes()) for name, value in tensors.items()}


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_a_tied_head_that_was_stored_is_read(shard_bytes, tmp_path, make_model):
    model = make_model()
    untied = make_model(tie_word_embeddings=False)
    weights = {**dict(untied.named_parameters()), "lm_head.weight": model.lm_head.weight.clone()}
    weights |= dict(model.named_parameters())
    export(weights.items(), untied.config, [], tmp_path / "twice", shard_bytes=shard_bytes)
    described = json.loads((tmp_path / "twice/config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "twice/config.json").write_text(json.dumps(described))
    again, config = load(tmp_path / "twice")
    assert differences(model, again) == []
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert [name for name, _ in read_weights(tmp_path / "twice", config)] == list(dict(model.named_parameters()))


def test_model_tokenizer_and_generation_go_round(tmp_path, make_model):
    transformers = pytest.importorskip("transformers")
    text = "def area(width, height):\n    return width * height * 1234\n"
    tokenizer = train_on_texts([text * 3, "class Box:\n    size = 17\n" * 3], vocab_size=320)
    (tmp_path / "made").mkdir()
    write_huggingface(tokenizer, tmp_path / "made", model_max_length=512)
    model = make_model(vocab_size=tokenizer.vocab_size, sliding_window=8)
    export(model.named_parameters(), model.config, tokenizer_files(tmp_path / "made"), tmp_path / "first")
    again, config = load(tmp_path / "first")
    export(again.named_parameters(), config, tokenizer_files(tmp_path / "first"), tmp_path / "second")
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "second").iterdir())
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "second")
    ids = reader(text)["input_ids"]
    assert ids == tokenizer.encode([text])[0].tolist()
    assert reader.eos_token_id == theirs.generation_config.eos_token_id == 0
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits
        assert (logits - model(torch.tensor([ids]))).abs().max() < 1e-5


def test_writing_holds_one_shard(tmp_path, make_model):
    """Weights that exist only while they are needed: a shard and the tensor that no longer fits."""
    model = make_model()
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    peak = 0

    def stream():
        nonlocal peak
        for name, parameter in model.named_parameters():
            made = parameter.detach().clone()
            alive.add(made)
            yield name, made
            peak = max(peak, sum(tensor.nbytes for tensor in alive))
            del made

    largest = max(parameter.nbytes for parameter in model.parameters())
    export(stream(), model.config, [], tmp_path / "out", shard_bytes=20_000)
    assert peak <= 20_000 + 2 * largest < sum(parameter.nbytes for parameter in model.parameters()) / 3
    assert differences(model, load(tmp_path / "out")[0]) == []


def test_converts_precision_where_asked(tmp_path, make_model):
    model = make_model()
    export(model.named_parameters(), model.config, [], tmp_path / "out", dtype=torch.bfloat16)
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    half, _ = load(tmp_path / "out")
    assert differences(make_model().to(torch.bfloat16), half) == []
    master, _ = load(tmp_path / "out", dtype=torch.float32)
    assert differences(make_model().to(torch.bfloat16).float(), master) == []


def test_a_loaded_model_is_not_the_file(tmp_path, make_model):
    model = make_model()
    export(model.named_parameters(), model.config, [], tmp_path / "out")
    again, _ = load(tmp_path / "out")
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert differences(model, load(tmp_path / "out")[0]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("model.norm.bias"), r"missing model\.norm\.bias; unknown none"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown extra"),
        (
            lambda weights: weights.update({"model.norm.bias": torch.zeros(5)}),
            r"model\.norm\.bias given has shape",
        ),
        (lambda weights: weights.clear(), "and 43 more"),
    ],
)
def test_refuses_weights_of_another_model(change, message, tmp_path, make_model):
    model = make_model()
    weights = dict(model.named_parameters())
    change(weights)
    with pytest.raises(InputError, match=message):
        export(weights.items(), model.config, [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_what_was_there(tmp_path, make_model):
    model = make_model()
    export(model.named_parameters(), model.config, [], tmp_path / "out")

    def breaks_off():
        yield from list(model.named_parameters())[:3]
        raise OSError(5, "Input/output error")

    with pytest.raises(MachineError, match="Input/output error"):
        export(breaks_off(), model.config, [], tmp_path / "out", overwrite=True, shard_bytes=100)
    assert differences(model, load(tmp_path / "out")[0]) == []
    export(model.named_parameters(), model.config, [], tmp_path / "out", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_current_folder_can_be_the_destination(tmp_path, make_model, monkeypatch):
    model = make_model()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(model.named_parameters(), model.config, [], Path())
    assert differences(model, load(tmp_path / "here")[0]) == []


def test_explains_damaged_shards(tmp_path, make_model):
    model = make_model()
    folder = tmp_path / "out"
    export(model.named_parameters(), model.config, [], folder, shard_bytes=20_000)
    shard = sorted(folder.glob("*.safetensors"))[3]
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(InputError, match=f"cannot read the weights .*{shard.name}"):
        load(folder)
    shard.unlink()
    with pytest.raises(InputError, match=f"cannot read the weights .*{shard.name}"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="has no weight_map"):
        load(folder)
    (folder / "model.safetensors.index.json").rename(folder / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(InputError, match="pickled weights only"):
        load(folder)


def test_the_digest_is_of_what_a_model_starts_from(tmp_path, make_model, tokenizer_file):
    model = make_model()
    folder, cache = tmp_path / "out", tmp_path / "cache"
    export(model.named_parameters(), model.config, [tokenizer_file], folder, shard_bytes=20_000)
    settle(folder)
    first = digest(folder, cache)
    assert digest(folder, cache) == digest(folder, tmp_path / "other") == first
    copy = tmp_path / "copy"
    export(model.named_parameters(), model.config, [tokenizer_file], copy, shard_bytes=20_000)
    assert digest(copy, cache) == first
    (folder / "README.md").write_text("a card is no part of it")
    assert digest(folder, cache) == first

    seen = {first}
    no_part = ("README.md", "generation_config.json", "model.safetensors.index.json")
    changed = [file.name for file in folder.iterdir() if file.name not in no_part]
    assert len(changed) == 15  # configuration, tokenizer, 13 shards
    for name in changed:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + (b" " if name.endswith("json") else b"!"))
        assert digest(folder, cache) not in seen, name
        seen.add(digest(folder, cache))
        (folder / name).write_bytes(content)
        assert digest(folder, cache) == first


def settle(folder):
    """As if written an hour ago: what has just been written is not remembered."""
    for file in folder.iterdir():
        os.utime(file, ns=(0, file.stat().st_mtime_ns - 3600 * 10**9))


def test_the_digest_of_an_unchanged_file_is_remembered(tmp_path, make_model):
    model = make_model()
    folder, cache = tmp_path / "out", tmp_path / "cache"
    export(model.named_parameters(), model.config, [], folder)
    digest(folder, cache)
    assert not cache.exists()  # too fresh
    settle(folder)
    first = digest(folder, cache)
    assert len(list(cache.iterdir())) == 2
    weights = folder / "model.safetensors"
    times, content = weights.stat(), weights.read_bytes()
    weights.write_bytes(content[:-1] + b"!")
    assert digest(folder, cache) != first
    os.utime(weights, ns=(0, times.st_mtime_ns))  # path, size and time as they were: not read again
    assert digest(folder, cache) == first


def test_a_tied_head_is_stored_once(tmp_path, make_model):
    model = make_model()
    export(model.named_parameters(), model.config, [], tmp_path / "out")
    with safe_open(tmp_path / "out/model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == {
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip


def test_equal_models_give_equal_bytes(tmp_path, make_model):
    for name in ("a", "b"):
        model = make_model()
        export(model.named_parameters(), model.config, [], tmp_path / name)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_never_replaces_a_folder_unasked_nor_one_that_is_no_model(tmp_path, make_model):
    model = make_model()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty"):
        export(model.named_parameters(), model.config, [], tmp_path / "mine")
    with pytest.raises(InputError, match="mine is no model, so it is not overwritten"):
        export(model.named_parameters(), model.config, [], tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    export(model.named_parameters(), model.config, [], tmp_path / "model")
    with pytest.raises(InputError, match="not empty"):
        export(model.named_parameters(), model.config, [], tmp_path / "model")
    export(model.named_parameters(), model.config, [], tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model")[1] == model.config


def test_nothing_is_visible_after_a_failure(tmp_path, make_model, monkeypatch):
    model = make_model()

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("starsmith.model.huggingface.save_file", full)
    with pytest.raises(MachineError, match="No space left"):
        export(model.named_parameters(), model.config, [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_refuses_bad_tokenizer_files(tmp_path, make_model):
    model = make_model()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="the name is the model's own"):
        export(model.named_parameters(), model.config, [tmp_path / "config.json"], tmp_path / "out")
    with pytest.raises(InputError, match="no tokenizer file"):
        export(model.named_parameters(), model.config, [tmp_path / "tokenizer.json"], tmp_path / "out")


def test_explains_damaged_folders(tmp_path, make_model):
    model = make_model()
    folder = tmp_path / "out"
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        load(folder)
    export(model.named_parameters(), model.config, [], folder)
    weights = load_file(folder / "model.safetensors")

    fewer = {name: value for name, value in weights.items() if name != "model.norm.bias"}
    save_file(fewer, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"missing .*model\.norm\.bias"):
        load(folder)
    save_file(weights | {"extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="unknown extra"):
        load(folder)
    save_file(weights | {"model.norm.bias": torch.zeros(5)}, folder / "model.safetensors")
    with pytest.raises(
        InputError, match=r"model\.norm\.bias .* has shape \(5,\) instead of config\.json's \(48,\)"
    ):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot read the weights"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot read the weights"):
        load(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="no JSON object"):
        load(folder)


def test_keeps_the_precision_of_the_weights(tmp_path, make_model, make_tokens):
    model = make_model(sliding_window=8).to(torch.bfloat16)
    export(model.named_parameters(), model.config, [], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    again, _ = load(tmp_path / "out")
    assert differences(model, again) == []
    assert again(make_tokens(1, 20)).dtype == torch.bfloat16
