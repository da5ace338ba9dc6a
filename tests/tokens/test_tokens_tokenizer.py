"""The tokenizer: ids, bytes, determinism, and text that looks like structure."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_documents import SOURCES, make_document, table_of

from starsmith import recipe
from starsmith.documents.special_tokens import PLACEHOLDER_TOKENS, SPECIAL_TOKENS, STRUCTURE_TOKENS
from starsmith.errors import InputError
from starsmith.tokens import tokenizer as tokenizer_module
from starsmith.tokens.tokenizer import Tokenizer, train, train_on_texts, write_huggingface

pieces = st.one_of(
    st.text(max_size=20), st.sampled_from([*SPECIAL_TOKENS, "\n", "    ", "x = 1", "it's", "\r\n", "日本"])
)
texts = st.lists(pieces, max_size=12).map("".join)


def test_special_tokens_and_bytes_come_first(tokenizer: Tokenizer) -> None:
    vocabulary = json.loads(tokenizer.text)["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == list(range(38))
    single = [tokenizer.decode([number]) for number in range(38, 38 + 256)]
    assert sorted(single) == [bytes([number]) for number in range(256)]
    assert tokenizer.vocab_size == 1024
    assert tokenizer.dtype == np.uint16


def test_a_small_corpus_has_the_vocabulary_it_has() -> None:
    small = train_on_texts(["ab ab"], vocab_size=5_000)
    assert 38 + 256 < small.vocab_size < 310
    assert small.decode(small.encode(["abba"])[0]) == b"abba"


@settings(max_examples=50, deadline=None)
@given(samples=st.lists(texts, max_size=5))
def test_decode_gives_the_bytes_back(tokenizer: Tokenizer, samples: list[str]) -> None:
    encoded = tokenizer.encode(samples)
    assert [tokenizer.decode(ids) for ids in encoded] == [text.encode() for text in samples]
    assert all(ids.dtype == np.uint16 for ids in encoded)


@settings(max_examples=50, deadline=None)
@given(text=texts)
def test_no_text_encodes_to_structure(tokenizer: Tokenizer, text: str) -> None:
    [ids] = tokenizer.encode([text])
    assert not (ids < len(STRUCTURE_TOKENS)).any()
    count = sum(text.count(token) for token in PLACEHOLDER_TOKENS)
    assert ((ids >= len(STRUCTURE_TOKENS)) & (ids < 38)).sum() == count


def test_literal_structure_is_text_and_placeholders_are_tokens(tokenizer: Tokenizer) -> None:
    for token in STRUCTURE_TOKENS:
        [ids] = tokenizer.encode([token])
        assert len(ids) > 1
        assert tokenizer.decode(ids) == token.encode()
    for number, token in enumerate(PLACEHOLDER_TOKENS, start=len(STRUCTURE_TOKENS)):
        assert tokenizer.encode([token])[0].tolist() == [number]


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    [ids] = tokenizer.encode(["x = 2024"])
    assert [tokenizer.decode([number]) for number in ids[-4:]] == [b"2", b"0", b"2", b"4"]


DOCUMENTS = [
    make_document(
        f"repo-{number}", [SOURCES[0][start : start + 4_000] for start in range(number * 100, 40_000, 9_000)]
    )
    for number in range(6)
]

TRAIN = """
import sys
from pathlib import Path
from starsmith import recipe
from starsmith.tokens.tokenizer import train
parts = [Path(name) for name in sys.argv[1:]]
print(train(parts, recipe.Tokenizer(vocab_size=700, sample_bytes=60_000), seed=3).digest)
"""


def write_parts(folder: Path, documents: Sequence[dict[str, Any]], sizes: Sequence[int]) -> list[Path]:
    parts, start = [], 0
    for number, size in enumerate(sizes):
        parts.append(folder / f"part-{len(sizes)}-{number}.parquet")
        pq.write_table(table_of(list(documents[start : start + size])), parts[-1])
        start += size
    return parts


def test_same_bytes_for_any_order_partition_and_number_of_threads(tmp_path: Path) -> None:
    layouts = [
        (write_parts(tmp_path, DOCUMENTS, [6]), {"RAYON_NUM_THREADS": "1"}),
        (write_parts(tmp_path, DOCUMENTS[::-1], [1, 2, 3])[::-1], {"RAYON_NUM_THREADS": "4"}),
        (write_parts(tmp_path, DOCUMENTS[3:] + DOCUMENTS[:3], [2, 4]), {"TOKENIZERS_PARALLELISM": "false"}),
    ]
    digests = set()
    for parts, environment in layouts:
        command = [sys.executable, "-c", TRAIN, *map(str, parts)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_sample_is_keyed_bounded_and_of_the_training_split(tmp_path: Path) -> None:
    held_out = make_document("held-out", ["zzqzzq " * 2_000], split="validation")
    parts = write_parts(tmp_path, [*DOCUMENTS, held_out], [7])
    seen = {seed: tokenizer_module._sample(parts, 20_000, seed) for seed in (1, 2)}
    sizes = {f["released_id"]: len(f["text"]) for d in DOCUMENTS for f in d["files"]}
    for chosen in seen.values():
        assert 16_000 <= sum(sizes[identifier] for identifier in chosen) <= 20_000
    assert seen[1] != seen[2]
    trained = train(parts, recipe.Tokenizer(vocab_size=2_000), seed=1)
    assert "zzq" not in json.loads(trained.text)["model"]["vocab"]


def test_no_training_text_is_an_error(tmp_path: Path) -> None:
    parts = write_parts(
        tmp_path, [make_document("r", ["text"], split="validation"), make_document("s", [""])], [2]
    )
    with pytest.raises(InputError, match="no text to train a tokenizer on"):
        train(parts, recipe.Tokenizer(vocab_size=300), seed=1)


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.digest == tokenizer.digest
    assert (tmp_path / "tokenizer.json").read_text() == tokenizer.text


def test_foreign_or_damaged_files_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "absent.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        Tokenizer.load(tmp_path / "bytes.json")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        Tokenizer(tokenizer.text[:1000])
    swapped = tokenizer.text.replace("<fim_prefix>", "<fim_swapped>")
    with pytest.raises(InputError, match=r"id 1 is '<fim_swapped>', must be '<fim_prefix>'"):
        Tokenizer(swapped)


def test_ids_with_gaps_and_tokens_that_are_no_bytes_are_refused(tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.text)
    described["model"]["vocab"]["zzz"] = 5_000
    with pytest.raises(InputError, match="no token has id 1024; the ids of 1025 tokens must have no gaps"):
        Tokenizer(json.dumps(described))
    described["model"]["vocab"].pop("zzz")
    described["model"]["vocab"]["日本"] = 1024
    with pytest.raises(InputError, match=r"token 1024 \('日本'\) is not byte-level"):
        Tokenizer(json.dumps(described))


def test_autotokenizer_agrees(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_huggingface(tokenizer, tmp_path, model_max_length=512)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = SOURCES[1] + "naïve = '日本語 🎉' <EMAIL> 12345\t\r\n"
    assert loaded(text)["input_ids"] == tokenizer.encode([text])[0].tolist()
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    assert loaded.bos_token_id == loaded.eos_token_id == loaded.unk_token_id == 0
    assert loaded("<fim_prefix>x<fim_suffix>y<fim_middle>")["input_ids"][0] == 1
    assert (len(loaded), loaded.model_max_length) == (tokenizer.vocab_size, 512)
