"""The exported folder, read by ourselves and by `transformers`."""

import json
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from starsmith.errors import InputError, MachineError
from starsmith.model.huggingface import export, load


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
    export(model, model.config, [tokenizer_file], tmp_path / "out", shard_bytes=shard_bytes)
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
    export(model, model.config, [tokenizer_file], tmp_path / "out", shard_bytes=shard_bytes)
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
def test_reads_what_transformers_writes(tied, tmp_path, make_model, transformers_model):
    model = make_model(tie_word_embeddings=tied, sliding_window=8)
    transformers_model(model).save_pretrained(tmp_path / "theirs")
    again, config = load(tmp_path / "theirs")
    assert differences(model, again) == []
    assert config.sliding_window == 8


def test_a_tied_head_is_stored_once(tmp_path, make_model):
    model = make_model()
    export(model, model.config, [], tmp_path / "out")
    with safe_open(tmp_path / "out/model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == {
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip


def test_equal_models_give_equal_bytes(tmp_path, make_model):
    for name in ("a", "b"):
        model = make_model()
        export(model, model.config, [], tmp_path / name)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_never_replaces_a_folder_unasked(tmp_path, make_model):
    model = make_model()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty"):
        export(model, model.config, [], tmp_path / "mine")
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    export(model, model.config, [], tmp_path / "mine", overwrite=True)
    assert load(tmp_path / "mine")[1] == model.config


def test_nothing_is_visible_after_a_failure(tmp_path, make_model, monkeypatch):
    model = make_model()

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("starsmith.model.huggingface.save_file", full)
    with pytest.raises(MachineError, match="No space left"):
        export(model, model.config, [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_refuses_bad_tokenizer_files(tmp_path, make_model):
    model = make_model()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="the name is the model's own"):
        export(model, model.config, [tmp_path / "config.json"], tmp_path / "out")
    with pytest.raises(InputError, match="no tokenizer file"):
        export(model, model.config, [tmp_path / "tokenizer.json"], tmp_path / "out")


def test_explains_damaged_folders(tmp_path, make_model):
    model = make_model()
    folder = tmp_path / "out"
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        load(folder)
    export(model, model.config, [], folder)
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
    export(model, model.config, [], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    again, _ = load(tmp_path / "out")
    assert differences(model, again) == []
    assert again(make_tokens(1, 20)).dtype == torch.bfloat16
