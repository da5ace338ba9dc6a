"""Encoding: every id as the library gives it, whatever the text, the caches and the file."""

import concurrent.futures
import copy
import itertools
import json
import multiprocessing
import pickle
import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from starsmith.corpus.buffers import text_buffers
from starsmith.documents.special_tokens import PLACEHOLDER_TOKENS, SPECIAL_TOKENS
from starsmith.tokens import bpe_kernels, encoding
from starsmith.tokens.added_token_kernels import added_tokens
from starsmith.tokens.character_classes import LETTER, NUMBER, OTHER, SPACE, classes_of_code_points
from starsmith.tokens.encoding import KernelEncoder, LibraryEncoder
from starsmith.tokens.pre_token_kernels import SPARE_ENDS, kinds_of_bytes, transitions, word_ends
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts

SPLITTER = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)

WHITE = (
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2009\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
ENDINGS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'r", "'v", "'l", "'lv", "''s", " 's"]
ENDINGS += ["\u2019s", "'\u017f"]
NUMBERS = "09²¼٣९௧一Ⅷ㉑\u3007🄀\U0001d7d8\U00011de0\U00016ff4\U00010d40"
characters = st.one_of(
    st.characters(codec="utf-8"),
    st.sampled_from(WHITE + NUMBERS + "abcstmdrvleSé日ß\u0301\u0903'\u2019\"_.<>(){}\0🎉👩\u200d👩"),
)
hostile = st.lists(
    st.one_of(
        st.text(characters, max_size=12),
        st.sampled_from([*ENDINGS, *SPECIAL_TOKENS, "<NAME", "NAME>", "<<NAME>>", "\r\n", "    ", "return x"]),
        st.tuples(characters, st.integers(1, 90)).map(lambda run: run[0] * run[1]),
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def library(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer in the library, which knows nothing of ours."""
    return library_of(tokenizer.text)


def library_of(text: str) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer.from_str(text)
    inner.encode_special_tokens = True
    return inner


def expected(library: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoded.ids for encoded in library.encode_batch_fast(list(texts), add_special_tokens=False)]


def assert_equal(ours: Any, library: tokenizers.Tokenizer, texts: Sequence[str]) -> None:
    for text, ids, wanted in zip(texts, ours.encode(texts), expected(library, texts), strict=True):
        assert ids.tolist() == wanted, repr(text[:200])


# ---- words


def words(text: str, room: int = 1000) -> list[str]:
    """The words of one text, as the kernel splits it, with room for so many ends at a time."""
    data = np.frombuffer(text.encode() + bytes(8), np.uint8)
    bounds = np.array([0, len(data) - 8], np.uint64)
    ends = np.zeros(room, np.uint64)
    at, segment, found = np.uint64(0), 0, [0]
    while at < bounds[-1]:
        num_words, segment, at = word_ends(
            data,
            bounds,
            np.array([-1]),
            segment,
            np.uint64(at),
            kinds_of_bytes(),
            classes_of_code_points(),
            transitions(),
            ends,
        )
        assert num_words > 0
        found += ends[:num_words].tolist()
    return [bytes(data[a:b]).decode() for a, b in itertools.pairwise(found)]


def words_of_library(text: str) -> list[str]:
    return [text[start:stop] for _, (start, stop) in SPLITTER.pre_tokenize_str(text)]


def test_classes_are_those_of_the_library_for_every_code_point() -> None:
    points = [number for number in range(sys.maxunicode + 1) if not 0xD800 <= number < 0xE000]
    everything = "".join(map(chr, points))

    def outside(expression: str) -> np.ndarray[Any, Any]:
        kept = pre_tokenizers.Split(tokenizers.Regex(expression), "removed").pre_tokenize_str(everything)
        mask = np.zeros(len(points), np.bool_)
        for _, (start, stop) in kept:
            mask[start:stop] = True
        return mask

    numeric = np.zeros(len(points), np.bool_)
    runs = pre_tokenizers.Digits(individual_digits=False).pre_tokenize_str(
        everything
    )  # neither and numeric in turn
    for _, (start, stop) in runs[1::2]:
        numeric[start:stop] = True
    wanted = np.full(len(points), OTHER)
    wanted[~outside(r"\p{L}+")] = LETTER
    wanted[~outside(r"\s+")] = SPACE
    wanted[numeric] = NUMBER
    np.testing.assert_array_equal(classes_of_code_points()[points], wanted)
    assert not (~outside(r"\p{N}+") & ~numeric).any()


def test_every_code_point_encodes_as_in_the_library(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    points = [number for number in range(sys.maxunicode + 1) if not 0xD800 <= number < 0xE000]
    texts = [" \t".join(map(chr, points[start : start + 2_000])) for start in range(0, 0x30000, 2_000)]
    texts += ["".join(map(chr, points[start : start + 2_000])) for start in range(0x30000, len(points), 2_000)]
    assert_equal(tokenizer, library, texts)


@pytest.mark.parametrize("template", ["a{}b", " {}  {}", "'{}", "({}{} x", "{}", "1 {} 2", "\t{}\n{} "])
def test_code_points_of_every_class_in_contexts(template: str) -> None:
    """Characters of one class are alike, so some of each stand for it; every one has its test above."""
    rng = np.random.default_rng(7)
    classes = classes_of_code_points().copy()
    classes[0xD800:0xE000] = 255
    chosen = list(range(0x300)) + [
        int(number)
        for value in (OTHER, LETTER, SPACE, NUMBER)
        for number in rng.permutation(np.flatnonzero(classes == value))[:150]
    ]
    texts = [template.replace("{}", chr(number)) for number in chosen]
    for text in texts:
        assert words(text) == words_of_library(text), repr(text)


@settings(max_examples=300, deadline=None)
@given(text=hostile, room=st.integers(SPARE_ENDS + 1, 12))
def test_words_are_those_of_the_library_in_blocks_of_any_size(text: str, room: int) -> None:
    wanted = words_of_library(text)
    assert words(text) == wanted
    assert words(text, room) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("it's 'S  x", ["it", "'s", " '", "S", " ", " x"]),
        ("a  1", ["a", "  ", "1"]),
        ("x\x85\x85y \u2028\u2028 z", ["x", "\x85", "\x85", "y", " \u2028\u2028", " z"]),
        ("'rx'ly'll've'", ["'", "rx", "'", "ly", "'ll", "'ve", "'"]),
        ("12 ½٣", ["1", "2", " ", "½", "٣"]),
    ],
)
def test_words_by_hand(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted == words_of_library(text)


# ---- ids


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(hostile, max_size=4))
def test_ids_are_those_of_the_library(
    tokenizer: Tokenizer, library: tokenizers.Tokenizer, texts: list[str]
) -> None:
    assert isinstance(tokenizer.encoder, KernelEncoder)
    assert_equal(tokenizer, library, texts)


def test_ids_of_the_standard_library(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    names = sorted(folder.glob("*.py"))[::4] + sorted(folder.glob("encodings/*.py"))[::10]
    texts = [path.read_text(encoding="utf-8") for path in names]
    assert sum(map(len, texts)) > 1_000_000
    assert_equal(tokenizer, library, texts)


def test_ids_of_characters_of_every_category(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    rng = np.random.default_rng(3)
    by_category: dict[str, list[str]] = {}
    for number in range(0, sys.maxunicode + 1, 7):
        by_category.setdefault(unicodedata.category(chr(number)), []).append(chr(number))
    alphabet = [c for name, members in sorted(by_category.items()) if name != "Cs" for c in members[:60]] + list(
        WHITE
    )
    texts = ["".join(rng.choice(alphabet, 60)) for _ in range(400)]
    assert_equal(tokenizer, library, texts)


def test_words_of_every_length(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    """Each way of encoding a word, met twice, the second time from the cache."""
    rng = np.random.default_rng(5)
    lengths = [*range(1, 140), 1000]
    texts = ["x" * n for n in lengths] + [" " * n for n in lengths] + ["é" * n + "\n" for n in lengths]
    texts += ["".join(rng.choice(list("abcdefgh_ent"), n)) for n in lengths for _ in range(4)]
    assert_equal(tokenizer, library, texts)
    assert_equal(tokenizer, library, texts[::-1])
    assert_equal(tokenizer, library, [text[:-1] for text in texts] + ["\n".join(texts)])


def test_results_do_not_depend_on_a_crowded_cache(
    tokenizer: Tokenizer, library: tokenizers.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_SHORT_BUCKET_BITS", 1)
    monkeypatch.setattr(encoding, "_LONG_BUCKET_BITS", 0)
    monkeypatch.setattr(encoding, "_BLOCK_WORDS", SPARE_ENDS + 3)
    monkeypatch.setattr(encoding, "_GROUP_CHARS", 50)
    crowded = Tokenizer(tokenizer.text)
    source = Path(pickle.__file__).read_text(encoding="utf-8")
    texts = [source[:20_000], *source[20_000:40_000].splitlines(keepends=True), "", "x" * 20 + " " + "y" * 20] * 2
    texts += ["\0" * length for length in range(1, 70)]  # entries differ in the length of the word alone
    assert_equal(crowded, library, texts)


@pytest.mark.parametrize("text", ["a" * 1_000_000, "ab" * 500_000, " " * 1_000_000, "é" * 400_000])
def test_a_megabyte_without_a_boundary_takes_no_quadratic_time(tokenizer: Tokenizer, text: str) -> None:
    """Quadratic time would be hours; `test_words_of_every_length` holds the ids to the library's."""
    [ids] = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text.encode()


def test_a_long_random_word(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    rng = np.random.default_rng(11)
    texts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyzABCDEF"), 100_000)), "=-" * 20_000]
    assert_equal(tokenizer, library, texts)


def test_merges_of_equal_results_and_ranks_out_of_order() -> None:
    """A token that several pairs make, a pair whose merge comes too late, and a pair that is named twice."""
    described = json.loads(train_on_texts(["zz zz"], vocab_size=300).text)
    vocabulary = described["model"]["vocab"]
    merges = [
        ["b", "c"],
        ["a", "b"],
        ["a", "bc"],
        ["ab", "c"],
        ["c", "a"],
        ["b", "c"],
        ["abc", "abc"],
        ["ca", "b"],
    ]
    for pair in merges:
        vocabulary.setdefault("".join(pair), max(vocabulary.values()) + 1)
    described["model"]["merges"] = merges
    text = json.dumps(described)
    texts = ["abc", "abcabc", "cabcab", "bcabc" * 20, "aabbcc", "cab", "abcabcabcabcabcabcabc" * 9]
    ours = Tokenizer(text)
    assert isinstance(ours.encoder, KernelEncoder)
    assert_equal(ours, library_of(text), texts)


def test_empty_and_many_texts(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    assert tokenizer.encode([]) == []
    assert [ids.tolist() for ids in tokenizer.encode(["", ""])] == [[], []]
    assert_equal(tokenizer, library, ["", "a", "", "", "b1", "<NAME>", ""] * 3_000)


def test_text_that_is_not_unicode_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode(["x = '\ud800'"])
    with pytest.raises(TypeError):
        tokenizer.encode(["x", None])  # type: ignore[list-item]


# ---- added tokens


@settings(max_examples=100, deadline=None)
@given(
    text=st.text("ab<>", max_size=30),
    tokens=st.lists(st.text("ab<>", min_size=1, max_size=4), min_size=1, max_size=5, unique=True),
    num_special=st.integers(0, 5),
)
def test_added_tokens_are_found_as_the_library_finds_them(
    tokenizer: Tokenizer, text: str, tokens: list[str], num_special: int
) -> None:
    described = json.loads(tokenizer.text)
    for number, token in enumerate(tokens):
        added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        special = number < num_special
        if token not in described["model"]["vocab"]:
            described["model"]["vocab"][token] = len(described["model"]["vocab"])
        content = {"id": described["model"]["vocab"][token], "content": token, "special": special}
        described["added_tokens"].append(content | added)
    library = library_of(json.dumps(described))
    ours = Tokenizer(json.dumps(described))
    assert isinstance(ours.encoder, KernelEncoder)
    assert_equal(ours, library, [text, f"{text}{tokens[0]}{text}"])


def test_more_added_tokens_than_there_is_room_for(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    assert_equal(tokenizer, library, ["<NAME><KEY>" * 50_000, "x <EMAIL>\n" * 3_000])


def test_matches_beyond_the_room_are_counted() -> None:
    offsets, data = text_buffers(pa.array(["<a><a>", "<a"], pa.large_string()))
    token = np.frombuffer(b"<a>", np.uint8)
    found = np.zeros((1, 3), np.int64)
    assert added_tokens(data, offsets, token, np.array([0, 3]), np.array([7]), found) == 2
    assert found.tolist() == [[0, 3, 7]]


def test_placeholders_are_recognised_where_a_file_calls_them_special(tokenizer: Tokenizer) -> None:
    """As published tokenizers do; the file itself stays as it is."""
    described = json.loads(tokenizer.text)
    for token in described["added_tokens"]:
        token["special"] = True
    ours = Tokenizer(json.dumps(described))
    assert ours.text == json.dumps(described)
    texts = ["<NAME> <EMAIL>x<|endoftext|>", *PLACEHOLDER_TOKENS]
    for ids, wanted in zip(ours.encode(texts), tokenizer.encode(texts), strict=True):
        np.testing.assert_array_equal(ids, wanted)


# ---- files of other origin


def alter(tokenizer: Tokenizer, change: Callable[[dict[str, Any]], object]) -> str:
    described = json.loads(tokenizer.text)
    change(described)
    return json.dumps(described)


def as_published(described: dict[str, Any]) -> None:
    """As older versions of the library wrote the same pipeline."""
    described["model"]["merges"] = [" ".join(pair) for pair in described["model"]["merges"]]
    described["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": None}
    described["model"].pop("ignore_merges")
    described["model"].pop("byte_fallback")
    described["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    described["pre_tokenizer"]["pretokenizers"][1] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
    }
    described["added_tokens"].append(
        dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        | {"id": len(described["model"]["vocab"]), "content": "<extra>", "special": False}
    )


def test_files_of_the_same_pipeline_use_the_kernels(tokenizer: Tokenizer) -> None:
    text = alter(tokenizer, as_published)
    ours = Tokenizer(text)
    assert isinstance(ours.encoder, KernelEncoder)
    assert ours.vocab_size == tokenizer.vocab_size + 1
    assert_equal(ours, library_of(text), ["it's <extra> 12<NAME>", "\u212b  x", ENDINGS[0]])


UNKNOWN: dict[str, Callable[[dict[str, Any]], object]] = {
    "a normalizer": lambda file: file.update(normalizer={"type": "NFC"}),
    "truncation": lambda file: file.update(
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    ),
    "a pre-tokenizer other": lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(
        individual_digits=False
    ),
    "a pre-tokenizer other than": lambda file: file["pre_tokenizer"]["pretokenizers"].pop(0),
    "a pre-tokenizer other than single": lambda file: file["pre_tokenizer"]["pretokenizers"][1].update(
        add_prefix_space=True
    ),
    "a pre-tokenizer other than single digits": lambda file: file["pre_tokenizer"]["pretokenizers"][1].update(
        use_regex=False
    ),
    "a pre-tokenizer": lambda file: file.update(pre_tokenizer=None),
    "a model with ignore_merges": lambda file: file["model"].update(ignore_merges=True),
    "a model with end_of_word_suffix": lambda file: file["model"].update(end_of_word_suffix="x"),
    "a vocabulary without": lambda file: file["model"]["vocab"].update({"!-!": file["model"]["vocab"].pop("!")}),
    "added tokens that depend": lambda file: file["added_tokens"][-1].update(lstrip=True),
    "added tokens that are searched": lambda file: file["added_tokens"][-1].update(normalized=True),
}


@pytest.mark.parametrize("part", UNKNOWN)
def test_what_the_kernels_do_not_know_is_the_librarys(tokenizer: Tokenizer, part: str) -> None:
    text = alter(tokenizer, UNKNOWN[part])
    ours = Tokenizer(text)
    assert isinstance(ours.encoder, LibraryEncoder)
    assert ours.encoder.reason.startswith(part)
    assert_equal(
        ours, library_of(text), ["A\u030a 12 it's  <PASSWORD> x<|endoftext|>", "", "def f(x):\n    return 2024\n"]
    )


def test_more_tokens_than_ids_have_bits_for_are_unknown(tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.text)
    assert encoding.unknown_part(described) is None
    described["model"]["vocab"]["zzz"] = 1 << bpe_kernels.ID_BITS
    assert encoding.unknown_part(described) == "a vocabulary of more than a million tokens"


def test_dropout_is_the_librarys(tokenizer: Tokenizer) -> None:
    ours = Tokenizer(alter(tokenizer, lambda file: file["model"].update(dropout=0.5)))
    assert isinstance(ours.encoder, LibraryEncoder)
    [ids] = ours.encode(["def function(argument):"])
    assert ours.decode(ids) == b"def function(argument):"


# ---- threads and processes


def test_threads_share_a_tokenizer(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    source = Path(pickle.__file__).read_text(encoding="utf-8")
    batches = [[source[start : start + 4_000]] * 3 for start in range(0, 40_000, 1_000)]
    wanted = [expected(library, batch) for batch in batches]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for batch, encoded in zip(wanted, pool.map(tokenizer.encode, batches), strict=True):
            assert [ids.tolist() for ids in encoded] == batch


def test_a_pickled_copy_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    tokenizer.encode(["warm"])
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other.digest == tokenizer.digest
        np.testing.assert_array_equal(
            other.encode(["<|endoftext|> x <NAME>"])[0], tokenizer.encode(["<|endoftext|> x <NAME>"])[0]
        )


def test_processes_give_the_same_ids(tokenizer: Tokenizer) -> None:
    texts = [Path(json.__file__).read_text(encoding="utf-8"), "it's 12 <NAME>"]
    here = tokenizer.encode(texts)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for ids, wanted in zip(pool.apply(tokenizer.encode, (texts,)), here, strict=True):
            np.testing.assert_array_equal(ids, wanted)


def test_short_cache_entries_lie_within_a_line() -> None:
    assert bpe_kernels.empty_cache(3, 1).short.ctypes.data % 64 == 0
