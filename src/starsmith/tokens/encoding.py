"""Texts to token ids: compiled kernels for the pipeline we know, the `tokenizers` library for any other.

The pipeline we know is StarCoder2's: added tokens taken out as they stand, each digit alone, GPT-2's expression,
byte-level BPE. For it `KernelEncoder` gives the library's ids, many times faster: the texts of a call become one
run of UTF-8, are split into words (`pre_token_kernels.py`) a block at a time, and the words become ids
(`bpe_kernels.py`). What a published tokenizer.json may hold beyond that (a normalizer, another expression,
dropout, added tokens that take white space with them, ...) is the library's to encode: `unknown_part` names it,
and `LibraryEncoder` keeps the name.

Structure tokens in a text are text for both (see `tokenizer.py`).

Caches belong to a thread, so threads that share an encoder share nothing that changes; what is cached never shows
in a result. Memory: 4 MB a thread, and for a call some five bytes for each byte of four megabytes of text, or of
the longest text.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from starsmith.corpus.buffers import text_buffers
from starsmith.tokens.added_token_kernels import added_tokens
from starsmith.tokens.bpe_kernels import (
    ID_BITS,
    SHORT_IDS,
    SPARE_BYTES,
    Cache,
    Merges,
    empty_cache,
    encode_words,
    merge_table,
)
from starsmith.tokens.character_classes import classes_of_code_points
from starsmith.tokens.pre_token_kernels import kinds_of_bytes, transitions, word_ends

Ids = NDArray[np.unsignedinteger[Any]]
"""Token ids, uint16 for a vocabulary of at most 65,536 and uint32 beyond."""

_MAX_TOKENS = (1 << ID_BITS) - 1
_MAX_MERGES = 1 << 22
_SHORT_BUCKET_BITS = 15
_LONG_BUCKET_BITS = 12
_BLOCK_WORDS = 1 << 15
_GROUP_CHARS = 4 * 1024 * 1024
_LIBRARY_GROUP_CHARS = 1024 * 1024
"""The library makes objects of many times the size of the text."""
_ROOM_FOR_MATCHES = 1024


class Encoder(Protocol):
    """What turns texts into ids."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, in the order of the texts."""


def unknown_part(described: Mapping[str, Any]) -> str | None:
    """What a tokenizer.json holds that the kernels do not know, in words; None if they know all of it.

    Args:
        described: the parsed file, of which the library has accepted every part.
    """
    model = described["model"]
    for part in ("truncation", "padding", "normalizer"):
        if described.get(part) is not None:
            return f"a {part}" if part == "normalizer" else part
    post_processor = described.get("post_processor")
    if post_processor is not None and post_processor["type"] != "ByteLevel":  # which moves offsets only
        return f"the post-processor {post_processor['type']}"
    if not _splits_digits_then_bytes(described.get("pre_tokenizer")):
        return "a pre-tokenizer other than single digits followed by byte level"
    if model["type"] != "BPE":
        return f"the model {model['type']}"
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(option):
            return f"a model with {option}"
    vocabulary = model["vocab"]
    if any(character not in vocabulary for character in byte_alphabet()):
        return "a vocabulary without a token for every byte"
    if max(vocabulary.values()) >= _MAX_TOKENS or len(model["merges"]) >= _MAX_MERGES:
        return "a vocabulary of more than a million tokens"
    added = described.get("added_tokens", [])
    if any(token["single_word"] or token["lstrip"] or token["rstrip"] for token in added):
        return "added tokens that depend on what stands beside them"
    if len({token["normalized"] for token in added}) > 1:
        return "added tokens that are searched for in turn"
    if len({token["content"] for token in added} - {""}) < len(added):
        return "added tokens that are equal or empty"
    return None


def _splits_digits_then_bytes(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    if pre_tokenizer is None or pre_tokenizer["type"] != "Sequence" or len(pre_tokenizer["pretokenizers"]) != 2:
        return False
    digits, byte_level = pre_tokenizer["pretokenizers"]
    return bool(
        digits["type"] == "Digits"
        and digits["individual_digits"]
        and byte_level["type"] == "ByteLevel"
        and not byte_level["add_prefix_space"]
        and byte_level.get("use_regex", True)
    )


class LibraryEncoder:
    """Encodes with `tokenizers`."""

    def __init__(self, inner: Any, dtype: np.dtype[Any], reason: str) -> None:
        """`inner` is a tokenizer of the library; `reason` says why the kernels do not do."""
        self.reason = reason
        self._inner = inner
        self._dtype = dtype

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        return [
            np.asarray(encoding.ids, dtype=self._dtype)
            for group in _groups(texts, _LIBRARY_GROUP_CHARS)
            for encoding in self._inner.encode_batch_fast(group, add_special_tokens=False)
        ]


class KernelEncoder:
    """Encodes with compiled kernels; fit for several threads at once, and for processes that are forked."""

    def __init__(self, inner: Any, described: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
        """`described` is the parsed tokenizer.json of `inner`, and has no unknown part."""
        self._dtype = dtype
        self._merges = _merges(described["model"])
        self._added = _added(inner, described.get("added_tokens", []))
        self._of_thread = threading.local()

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        return [ids for group in _groups(texts, _GROUP_CHARS) for ids in self._encode_group(group)]

    def _encode_group(self, texts: Sequence[str]) -> Iterator[Ids]:
        offsets, data = text_buffers(pa.array(texts, pa.large_string()))
        bounds, segment_ids = self._segments(data, offsets)
        ids, counts = self._encode_segments(data, bounds, segment_ids)
        ends = counts[np.searchsorted(bounds, offsets)]
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            yield ids[start:end]

    def _segments(
        self, data: NDArray[np.uint8], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Texts cut at added tokens: the distinct bounds, and for each segment between them its id or -1."""
        matches = self._added.find(data, offsets)
        bounds = np.unique(np.concatenate([offsets, matches[:, 0], matches[:, 1]]))
        segment_ids = np.full(len(bounds) - 1, -1, np.int64)
        segment_ids[np.searchsorted(bounds, matches[:, 0])] = matches[:, 2]
        return bounds, segment_ids

    def _encode_segments(
        self, data: NDArray[np.uint8], bounds: NDArray[np.int64], segment_ids: NDArray[np.int64]
    ) -> tuple[Ids, NDArray[np.int64]]:
        """The ids of all segments, and how many of them lie before each bound."""
        padded = np.zeros(len(data) + SPARE_BYTES, np.uint8)
        padded[: len(data)] = data
        limits = bounds.astype(np.uint64)
        cache, word_ends_of_block = self._room()
        out = np.empty(len(data) + SHORT_IDS, np.uint32)  # the system gives memory for what is written only
        counts = np.zeros(len(bounds), np.int64)
        at, num_ids = limits[0], np.uint64(0)
        reading = writing = 0
        while at < limits[-1]:
            begin = at
            num_words, reading, at = word_ends(
                padded,
                limits,
                segment_ids,
                reading,
                np.uint64(at),
                kinds_of_bytes(),
                classes_of_code_points(),
                transitions(),
                word_ends_of_block,
            )
            num_ids, writing = encode_words(
                padded,
                word_ends_of_block[:num_words],
                np.uint64(begin),
                limits,
                segment_ids,
                writing,
                counts,
                self._merges,
                cache,
                out,
                np.uint64(num_ids),
            )
        return out[: int(num_ids)].astype(self._dtype), counts

    def _room(self) -> tuple[Cache, NDArray[np.uint64]]:
        """This thread's cache, and room for the words of a block."""
        if not hasattr(self._of_thread, "room"):
            self._of_thread.room = (
                empty_cache(_SHORT_BUCKET_BITS, _LONG_BUCKET_BITS),
                np.zeros(_BLOCK_WORDS, np.uint64),
            )
        room: tuple[Cache, NDArray[np.uint64]] = self._of_thread.room
        return room


class _AddedTokens(NamedTuple):
    """The added tokens, longer ones first."""

    tokens: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    """Negative where the token stays text."""

    def find(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """(matches, 3): start, end and id of each."""
        found = np.zeros((_ROOM_FOR_MATCHES, 3), np.int64)
        num_found = added_tokens(data, offsets, *self, found)
        if num_found > len(found):
            found = np.zeros((num_found, 3), np.int64)
            added_tokens(data, offsets, *self, found)
        return found[:num_found]


def _merges(model: Mapping[str, Any]) -> Merges:
    vocabulary = model["vocab"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    num_slots = 1 << (2 * len(pairs) + 1).bit_length()
    return Merges(
        table=merge_table(
            np.array([vocabulary[left] for left, _ in pairs], np.uint64),
            np.array([vocabulary[right] for _, right in pairs], np.uint64),
            num_slots,
        ),
        merged=np.array([vocabulary[left + right] for left, right in pairs], np.uint64),
        byte_ids=np.array([vocabulary[character] for character in byte_alphabet()], np.uint64),
    )


def _added(inner: Any, described: Sequence[Mapping[str, Any]]) -> _AddedTokens:
    """The tokens that are recognised, and those that are text but may cover part of one that is recognised."""
    ids = {token["content"].encode(): inner.token_to_id(token["content"]) for token in described}
    special = {token["content"].encode() for token in described if token["special"]}
    if not any(_may_overlap(text, token) for text in special for token in ids.keys() - special):
        ids = {token: number for token, number in ids.items() if token not in special}
    tokens = sorted(ids, key=lambda token: (-len(token), token))
    return _AddedTokens(
        tokens=np.frombuffer(b"".join(tokens), np.uint8),
        offsets=np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        ids=np.array([-1 if token in special else ids[token] for token in tokens], np.int64),
    )


def _may_overlap(text: bytes, token: bytes) -> bool:
    """Whether `token` can begin inside an occurrence of `text`."""
    return any(token.startswith(text[start:]) or text[start:].startswith(token) for start in range(len(text)))


def _groups(texts: Sequence[str], num_chars: int) -> Iterator[list[str]]:
    """The texts in order, in groups of about so many characters."""
    group: list[str] = []
    held = 0
    for text in texts:
        group.append(text)
        held += len(text)
        if held >= num_chars:
            yield group
            group, held = [], 0
    if group:
        yield group


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte: itself where printable, else the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    alphabet, moved = [], 0
    for number in range(256):
        alphabet.append(chr(number) if number in printable else chr(0x100 + moved))
        moved += number not in printable
    return alphabet
