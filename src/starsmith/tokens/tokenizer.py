"""Byte-level BPE as StarCoder2 has it (section 4.6), trained and described by the `tokenizers` library.

Texts are encoded by kernels of our own with the library's ids (`encoding.py`).

The 38 special tokens come first, with the ids of section 4.5; then the 256 bytes; then the merges. Before BPE
every digit stands alone and the rest is split by GPT-2's expression. Pairs seen once are not merged, so a small
corpus has fewer tokens than were asked for: `vocab_size` is what there is.

The structure tokens are never recognised inside text: a file that contains the characters `<|endoftext|>` is
encoded as ordinary text, and only the renderer writes the id. The four placeholders of redaction are recognised,
because redaction puts them into the text (see `documents.special_tokens`).

The training sample is drawn by a keyed hash of the released content, and counts of words do not depend on order;
so the same documents give the same bytes whatever their order and the number of threads.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from starsmith import recipe
from starsmith.documents.special_tokens import END_OF_TEXT, PLACEHOLDER_TOKENS, SPECIAL_TOKENS, STRUCTURE_TOKENS
from starsmith.errors import InputError
from starsmith.tokens.encoding import Encoder, KernelEncoder, LibraryEncoder, byte_alphabet, unknown_part
from starsmith.tokens.encoding import Ids as Ids

PLACEHOLDERS = re.compile("|".join(map(re.escape, PLACEHOLDER_TOKENS)))

_MIN_FREQUENCY = 2
_ROWS_PER_READ = 16


class Tokenizer:
    """A trained tokenizer; equal files give equal `digest`."""

    def __init__(self, text: str) -> None:
        """`text` is the content of a tokenizer.json.

        Raises:
            InputError: it is not a tokenizer, or its first 38 ids are not the special tokens.
        """
        self._inner = _inner(text)
        self._inner.encode_special_tokens = True  # structure tokens in text are text; not saved in the file
        for number, token in enumerate(SPECIAL_TOKENS):
            if self._inner.id_to_token(number) != token:
                raise InputError(
                    f"tokenizer: id {number} is {self._inner.id_to_token(number)!r}, must be {token!r}. "
                    "Train one with `starsmith run`; tokenizers of other models do not fit these shards."
                )
        self.text = text
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        """SHA-256 of tokenizer.json."""
        self.vocab_size: int = self._inner.get_vocab_size(with_added_tokens=True)
        self.dtype: np.dtype[Any] = np.dtype(np.uint16 if self.vocab_size <= 65_536 else np.uint32)
        self._bytes = _token_bytes(self._inner, self.vocab_size)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        try:
            return cls(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"no tokenizer at {path}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path} is not a tokenizer.json: it is not UTF-8") from None

    def save(self, path: Path) -> None:
        path.write_text(self.text, encoding="utf-8")

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[str]]:
        return Tokenizer, (self.text,)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Compiled kernels, or the library where the file asks for what they do not know."""
        described = json.loads(self._inner.to_str())
        reason = unknown_part(described)
        if reason is not None:
            return LibraryEncoder(self._inner, self.dtype, reason)
        return KernelEncoder(self._inner, described, self.dtype)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text; structure tokens in the text are encoded as text."""
        return self.encoder.encode(texts)

    def decode(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of the ids; a special token stands for its own characters."""
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return b"".join(map(self._bytes.__getitem__, numbers))


def train(parts: Sequence[Path], config: recipe.Tokenizer, *, seed: int) -> Tokenizer:
    """Trains BPE on a sample of the training documents.

    Args:
        parts: Parquet parts of `schema.DOCUMENTS`, in any order.
        config: the size of the vocabulary and of the sample.
        seed: keys the sample.

    Raises:
        InputError: there is no training text.
    """
    chosen = _sample(parts, config.sample_bytes, seed)
    if not chosen:
        raise InputError(
            "no text to train a tokenizer on: the training split is empty. "
            "Widen the sources or the filters, or lower documents.validation_fraction."
        )
    return train_on_texts(_chosen_texts(parts, chosen), vocab_size=config.vocab_size)


def train_on_texts(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Trains on every text given; the order of the texts does not matter."""
    inner: Any = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator((PLACEHOLDERS.split(text) for text in texts), trainer)
    described = json.loads(inner.to_str())
    for token in described["added_tokens"]:
        token["special"] = token["content"] in STRUCTURE_TOKENS
    return Tokenizer(json.dumps(described, ensure_ascii=False, indent=1) + "\n")


def write_huggingface(tokenizer: Tokenizer, folder: Path, *, model_max_length: int) -> None:
    """Writes the three files from which `transformers.AutoTokenizer` loads the tokenizer.

    The class named is the general fast tokenizer, which takes tokenizer.json as it is, with the splitting of
    digits that the GPT-2 class does not know of. There structure tokens are recognised in text, as prompts need.
    """
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    structure = {"additional_special_tokens": list(STRUCTURE_TOKENS)}
    settings = {
        "add_prefix_space": False,
        **structure,
        **names,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "vocab_size": tokenizer.vocab_size,
    }
    tokenizer.save(folder / "tokenizer.json")
    for name, content in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", structure | names),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _inner(text: str) -> Any:
    """The library's tokenizer; placeholders are recognised in text even where the file calls them special.

    Raises:
        InputError: the text is not a tokenizer.
    """
    try:
        inner: Any = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"not a tokenizer.json: {error}") from None
    added = inner.get_added_tokens_decoder().values()
    if any(token.special and token.content in PLACEHOLDER_TOKENS for token in added):
        described = json.loads(text)
        for token in described["added_tokens"]:
            token["special"] = token["special"] and token["content"] not in PLACEHOLDER_TOKENS
        inner = tokenizers.Tokenizer.from_str(json.dumps(described))
    return inner


def _token_bytes(inner: Any, vocab_size: int) -> list[bytes]:
    """The bytes each id stands for.

    Raises:
        InputError: the ids have gaps, or a token is not made of GPT-2's characters for bytes.
    """
    byte_of = {char: number for number, char in enumerate(byte_alphabet())}
    added = {number: token.content for number, token in inner.get_added_tokens_decoder().items()}
    table = []
    for number in range(vocab_size):
        token = inner.id_to_token(number)
        if token is None:
            raise InputError(
                f"tokenizer: no token has id {number}; the ids of {vocab_size} tokens must have no gaps"
            )
        try:
            table.append(token.encode() if number in added else bytes(byte_of[char] for char in token))
        except KeyError:
            raise InputError(f"tokenizer: token {number} ({token!r}) is not byte-level") from None
    return table


def _sample(parts: Sequence[Path], sample_bytes: int, seed: int) -> set[str]:
    """The released contents with the smallest keyed hashes that fit in `sample_bytes`; at least one."""
    sizes: dict[str, int] = {}
    for files in _training_files(parts):
        lengths = pc.binary_length(pc.struct_field(files, "text")).to_pylist()
        sizes.update(zip(pc.struct_field(files, "released_id").to_pylist(), lengths, strict=True))
    chosen: set[str] = set()
    total = 0
    for released_id in sorted((name for name in sizes if sizes[name]), key=lambda name: _rank(name, seed)):
        total += sizes[released_id]
        if chosen and total > sample_bytes:
            break
        chosen.add(released_id)
    return chosen


def _rank(released_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"tokenizer\0{seed}\0{released_id}".encode(), digest_size=16).digest()


def _chosen_texts(parts: Sequence[Path], chosen: set[str]) -> Iterator[str]:
    """Each chosen content once, in the order met."""
    waiting = set(chosen)
    for files in _training_files(parts):
        names = pc.struct_field(files, "released_id").to_pylist()
        texts = pc.struct_field(files, "text")
        for number, name in enumerate(names):
            if name in waiting:
                waiting.remove(name)
                yield texts[number].as_py()


def _training_files(parts: Sequence[Path]) -> Iterator[Any]:
    """The files (struct arrays) of the training documents, batch by batch."""
    for part in parts:
        with pq.ParquetFile(part) as reader:
            for batch in reader.iter_batches(_ROWS_PER_READ, columns=["split", "files"]):
                training = pa.Table.from_batches([batch]).filter(pc.equal(batch.column("split"), "train"))
                for chunk in training.column("files").chunks:
                    yield chunk.flatten()
