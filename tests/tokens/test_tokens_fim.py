"""FIM: text comes back, rates are as asked, and each of the six published defects is excluded by name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_documents import AWKWARD_TEXTS, SOURCES, make_document

from starsmith import recipe
from starsmith.documents.special_tokens import (
    END_OF_TEXT_ID,
    FILE_SEP_ID,
    FIM_MIDDLE_ID,
    FIM_PAD_ID,
    FIM_PREFIX_ID,
    FIM_SUFFIX_ID,
    PLACEHOLDER_TOKENS,
    REPO_NAME_ID,
    SPECIAL_TOKENS,
    STRUCTURE_TOKENS,
)
from starsmith.tokens.fim import Part, infill
from starsmith.tokens.keyed_random import Draws
from starsmith.tokens.loader import Loader
from starsmith.tokens.rendering import RenderedDocument, Rendering
from starsmith.tokens.shards import Document, Shards
from starsmith.tokens.tokenizer import Ids, Tokenizer, train_on_texts

SENTINELS = (FIM_PREFIX_ID, FIM_MIDDLE_ID, FIM_SUFFIX_ID)
Mode = Literal["char", "token"]

pieces = st.one_of(st.text(max_size=10), st.sampled_from([*SPECIAL_TOKENS, "\n", "    ", "def f():", "é🎉"]))
texts = st.lists(pieces, max_size=10).map("".join)


def join(parts: list[Part]) -> Ids:
    return np.concatenate([ids for _, ids in parts]) if parts else np.zeros(0, dtype=np.uint16)


def recover(ids: list[int], tokenizer: Tokenizer) -> bytes:
    """The text of one region, FIM or not, read as a model reads it."""
    if FIM_PREFIX_ID not in ids:
        return tokenizer.decode(ids)
    assert [ids.count(sentinel) for sentinel in SENTINELS] == [1, 1, 1]
    assert ids[0] == FIM_PREFIX_ID
    suffix_at, middle_at = ids.index(FIM_SUFFIX_ID), ids.index(FIM_MIDDLE_ID)
    assert suffix_at < middle_at
    before, suffix, rest = ids[1:suffix_at], ids[suffix_at + 1 : middle_at], ids[middle_at + 1 :]
    return tokenizer.decode(before) + tokenizer.decode(rest) + tokenizer.decode(suffix)


def render(
    document: Document, tokenizer: Tokenizer, *, epoch: int = 0, seed: int = 1, **changes: Any
) -> RenderedDocument:
    settings_ = {
        "seed": seed,
        "metadata_probability": 0.5,
        "fim_repository_rate": 1.0,
        "fim_file_rate": 1.0,
        "fim_spm_rate": 0.5,
        "fim_split": "char",
    }
    return RenderedDocument(document, epoch, Rendering(**(settings_ | changes)), tokenizer)


def tokens_of(rendered: RenderedDocument) -> list[int]:
    return [
        int(number)
        for place in range(rendered.num_pieces)
        for _, ids in rendered.piece(place).parts
        for number in ids
    ]


@pytest.fixture(scope="module")
def open_document(write_folder: Callable[..., Path]) -> Callable[[list[str]], Document]:
    def open_(texts: list[str], repo_name: str = "owner/name") -> Document:
        return Shards(write_folder([make_document(repo_name, texts)])).document("train", 0)

    return open_


@settings(max_examples=50, deadline=None)
@given(
    path=st.sampled_from(["", "/src/a.py\n"]), text=texts, mode=st.sampled_from(["char", "token"]), data=st.data()
)
def test_pieces_give_the_text_back(
    tokenizer: Tokenizer, path: str, text: str, mode: Mode, data: st.DataObject
) -> None:
    spm, seed = data.draw(st.booleans()), data.draw(st.integers(0, 1000))
    path_ids, text_ids = tokenizer.encode([path, text])
    parts = infill(path_ids, text_ids, tokenizer, split=mode, spm=spm, draws=Draws(seed))
    if not path + text:
        assert parts == []
        return
    ids = join(parts).tolist()
    assert recover(ids, tokenizer) == (path + text).encode()
    assert [number for number in ids if number < len(STRUCTURE_TOKENS)] == (
        [FIM_PREFIX_ID, FIM_SUFFIX_ID, FIM_MIDDLE_ID]
    )
    if spm:
        assert ids[1] == FIM_SUFFIX_ID
    if mode == "token":
        assert len(ids) == len(path_ids) + len(text_ids) + 3
        assert sorted(set(ids) - set(SENTINELS)) == sorted({*path_ids.tolist(), *text_ids.tolist()})
    assert b"".join(tokenizer.decode(ids) for kind, ids in sorted_parts(parts, "path")) == path.encode()


def sorted_parts(parts: list[Part], kind: str) -> list[Part]:
    """Parts of one kind in the order of the text (prefix, middle, suffix)."""
    special = [place for place, part in enumerate(parts) if part[0] == "special"]
    if len(special) == 2:  # SPM: sentinels, suffix, sentinel, prefix and middle
        ordered = parts[special[1] + 1 :] + parts[1 : special[1]]
    else:
        ordered = parts[: special[1]] + parts[special[2] :] + parts[special[1] : special[2]]
    return [part for part in ordered if part[0] == kind]


SEED = 6  # cuts "p\\nabcdef" into three pieces with something in each


def test_published_orders() -> None:
    """PSM and SPM variant 2, written out, on a text of single characters."""
    plain = train_on_texts(["a"], vocab_size=300)
    [path, text] = plain.encode(["p\n", "abcdef"])
    draws = Draws(SEED)
    cuts = sorted(draws.integer(9) for _ in range(2))
    whole = b"p\nabcdef"
    prefix, middle, suffix = whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :]
    assert prefix and middle and suffix
    psm = plain.decode(join(infill(path, text, plain, split="char", spm=False, draws=Draws(SEED))))
    spm = plain.decode(join(infill(path, text, plain, split="char", spm=True, draws=Draws(SEED))))
    assert psm == b"<fim_prefix>" + prefix + b"<fim_suffix>" + suffix + b"<fim_middle>" + middle
    assert spm == b"<fim_prefix><fim_suffix>" + suffix + b"<fim_middle>" + prefix + middle


def test_cuts_are_uniform_over_characters(tokenizer: Tokenizer) -> None:
    """Prefix lengths of n characters follow the minimum of two uniform cuts."""
    text = "é" * 9
    _, ids = tokenizer.encode(["", text])
    counts = np.zeros(10)
    for seed in range(1500):
        out = join(infill(ids[:0], ids, tokenizer, split="char", spm=False, draws=Draws("cut", seed))).tolist()
        counts[len(tokenizer.decode(out[1 : out.index(FIM_SUFFIX_ID)]).decode())] += 1
    expected = np.array([1500 * (2 * (10 - length) - 1) / 100 for length in range(10)])
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees, p = 0.001


def within_binomial(successes: int, trials: int, rate: float) -> bool:
    return abs(successes - trials * rate) <= 4 * math.sqrt(trials * rate * (1 - rate)) + 1e-9


def test_rates_are_those_of_the_recipe(tokenizer: Tokenizer, open_document: Callable[..., Document]) -> None:
    document = open_document([f"value_{number} = {number}\n" for number in range(8)])
    config = recipe.Tokens()
    repositories = files = spm = shown = 0
    num_epochs = 500
    for epoch in range(num_epochs):
        rendered = render(
            document,
            tokenizer,
            epoch=epoch,
            fim_repository_rate=config.fim_repository_rate,
            fim_file_rate=config.fim_file_rate,
            fim_split="token",
        )
        repositories += rendered.takes_part_in_fim
        shown += rendered.shows_metadata
        for place in range(1, rendered.num_pieces - 1):
            ids = join(list(rendered.piece(place).parts)).tolist()
            files += FIM_PREFIX_ID in ids
            parts = rendered.piece(place).parts
            spm += len(parts) > 1 and parts[1][0] == "special" and len(parts[1][1]) == 2
    assert within_binomial(repositories, num_epochs, 0.5)
    assert within_binomial(shown, num_epochs, 0.5)
    assert within_binomial(files, repositories * 8, 0.5)
    assert within_binomial(spm, files, 0.5)


@pytest.mark.parametrize("mode", ["char", "token"])
def test_a_quarter_of_the_files_that_are_trained_are_transformed(
    write_folder: Callable[..., Path], mode: Mode
) -> None:
    """The published rates through the loader: half the repositories, and half of the files in these."""
    folder = write_folder([make_document(f"r{number}", [f"value = {number}\n"]) for number in range(40)])
    config = recipe.Tokens(sequence_length=64, streams=8, fim_split=mode)
    loader = Loader(folder, config, seed=1, batch_size=8, metadata_probability=0.5, verify=False)
    files = transformed = 0
    for _ in range(120):
        ids = loader.next_batch().tokens[:, :-1]
        files += int((ids == FILE_SEP_ID).sum())
        transformed += int((ids == FIM_PREFIX_ID).sum())
    assert files > 2500
    assert within_binomial(transformed, files, 0.25)


def test_the_path_is_inside_the_region(tokenizer: Tokenizer, open_document: Callable[..., Document]) -> None:
    document = open_document(["a = 1\n"])
    rendered = render(document, tokenizer, metadata_probability=1.0, fim_spm_rate=0.0)
    parts = rendered.piece(1).parts
    assert [int(number) for _, ids in parts[:2] for number in ids] == [FILE_SEP_ID, FIM_PREFIX_ID]
    assert recover(join(list(parts[1:])).tolist(), tokenizer) == b"/src/file0000.py\na = 1\n"


def test_nothing_is_drawn_when_rates_are_zero_or_one(
    tokenizer: Tokenizer, open_document: Callable[..., Document]
) -> None:
    document = open_document(["a = 1\n", "b = 2\n"])
    for epoch in range(20):
        assert FIM_PREFIX_ID not in tokens_of(render(document, tokenizer, epoch=epoch, fim_repository_rate=0.0))
        assert FIM_PREFIX_ID not in tokens_of(render(document, tokenizer, epoch=epoch, fim_file_rate=0.0))
        assert tokens_of(render(document, tokenizer, epoch=epoch)).count(FIM_PREFIX_ID) == 2


# The six defects of the published implementation.


def test_defect_1_randomness_depends_on_access_order(
    tokenizer: Tokenizer, open_document: Callable[..., Document]
) -> None:
    document = open_document([text for text in AWKWARD_TEXTS for _ in range(2)])
    places = range(len(document.files) + 2)

    def read(order: list[int]) -> list[list[int]]:
        rendered = render(document, tokenizer, epoch=3)
        read_ = {place: join(list(rendered.piece(place).parts)).tolist() for place in order}
        return [read_[place] for place in places]

    forward = read(list(places))
    assert read(list(reversed(places))) == forward
    assert read([5, 5, 1, *places]) == forward
    assert read(list(places)) == forward
    other_epoch = tokens_of(render(document, tokenizer, epoch=4))
    other_seed = tokens_of(render(document, tokenizer, epoch=3, seed=2))
    assert len({tuple(other_epoch), tuple(other_seed), tuple(number for ids in forward for number in ids)}) == 3


@pytest.mark.parametrize("mode", ["char", "token"])
def test_defect_1_a_document_is_transformed_alike_in_every_corpus(
    write_folder: Callable[..., Path], tokenizer: Tokenizer, mode: Mode
) -> None:
    """Its draws belong to its identity: neither its neighbours nor its place among them have a say."""
    document = make_document("owner/name", [SOURCES[1][:3000], *AWKWARD_TEXTS])
    others = [make_document(f"other/{number}", ["x = 1\n"]) for number in range(3)]
    corpora = ([document], [*others, document], [document, *others])
    shown = []
    for corpus in corpora:
        shards = Shards(write_folder(corpus))
        found = shards.document("train", corpus.index(document))
        shown.append([tokens_of(render(found, tokenizer, epoch=epoch, fim_split=mode)) for epoch in range(3)])
    assert shown[0] == shown[1] == shown[2]
    assert len({tuple(ids) for ids in shown[0]}) == 3


@pytest.mark.parametrize("mode", ["char", "token"])
def test_defect_2_fim_after_the_window_was_cut_loses_tokens(
    documents: list[dict[str, Any]], shard_folder: Path, tokenizer: Tokenizer, mode: Mode
) -> None:
    """Sequences far shorter than a file: over rows, every region of an epoch is whole and gives its text back."""
    config = recipe.Tokens(
        sequence_length=16, streams=1, fim_repository_rate=1.0, fim_file_rate=1.0, fim_split=mode
    )
    loader = Loader(shard_folder, config, seed=1, batch_size=1, metadata_probability=0.0)
    stream: list[int] = []
    training = [document for document in documents if document["split"] == "train"]
    while stream.count(END_OF_TEXT_ID) < len(training):
        stream += loader.next_batch().tokens[:, :-1].reshape(-1).tolist()
    ends = [place for place, number in enumerate(stream) if number == END_OF_TEXT_ID]
    found = []
    for start, end in zip([0, *[end + 1 for end in ends]], ends, strict=False):
        regions = split_regions(stream[start:end])
        found.append(sorted(recover(region, tokenizer) for region in regions))
    expected = [sorted(file["text"].encode() for file in document["files"]) for document in training]
    assert sorted(found[: len(training)]) == sorted(expected)


def split_regions(ids: list[int]) -> list[list[int]]:
    regions: list[list[int]] = []
    for number in ids:
        if number == FILE_SEP_ID:
            regions.append([])
        else:
            regions[-1].append(number)
    return regions


def test_defect_3_padding_in_the_loss(shard_folder: Path) -> None:
    config = recipe.Tokens(sequence_length=24, fim_repository_rate=1.0, fim_file_rate=1.0, document_mask=False)
    loader = Loader(shard_folder, config, seed=1, batch_size=8, metadata_probability=0.5)
    for _ in range(30):
        batch = loader.next_batch()
        assert not (batch.tokens == FIM_PAD_ID).any()
        assert batch.loss_mask.all()  # every target is a token of the corpus


def test_defect_4_empty_segments_drop_their_separator(
    tokenizer: Tokenizer, open_document: Callable[..., Document]
) -> None:
    document = open_document(["", "a = 1\n", "", ""])
    for epoch in range(20):
        for shown in (0.0, 1.0):
            ids = tokens_of(render(document, tokenizer, epoch=epoch, metadata_probability=shown))
            assert ids.count(FILE_SEP_ID) == 4
            assert ids[0] == (REPO_NAME_ID if shown else FILE_SEP_ID)
            assert ids[-1] == END_OF_TEXT_ID
            assert ids.count(END_OF_TEXT_ID) == 1
    alone = open_document([""])
    hidden = render(alone, tokenizer, metadata_probability=0.0)
    assert tokens_of(hidden) == [FILE_SEP_ID, END_OF_TEXT_ID]


def test_defect_5_special_tokens_are_cut_or_dropped(
    tokenizer: Tokenizer, open_document: Callable[..., Document]
) -> None:
    text = "".join(f"{token}{token} x" for token in PLACEHOLDER_TOKENS) * 3
    literal = "".join(STRUCTURE_TOKENS)
    document = open_document([text, literal], "own<EMAIL>er")
    placeholders = range(len(STRUCTURE_TOKENS), len(SPECIAL_TOKENS))
    for epoch in range(60):
        rendered = render(document, tokenizer, epoch=epoch, metadata_probability=1.0)
        assert rendered.piece(0).parts[1][1].tolist() == document.name_tokens.tolist()
        whole = tokens_of(rendered)
        assert whole.count(FILE_SEP_ID) == 2
        assert sum(number in placeholders for number in whole) == 24 + 1
        for region in split_regions(whole[whole.index(FILE_SEP_ID) : -1]):
            assert recover(region, tokenizer).split(b"\n", 1)[1].decode() in (text, literal)


def test_defect_6_a_branch_returns_something_else_than_an_array(
    tokenizer: Tokenizer, open_document: Callable[..., Document]
) -> None:
    document = open_document([*AWKWARD_TEXTS, SOURCES[1]])
    for rates in ({}, {"fim_repository_rate": 0.0}, {"fim_file_rate": 0.0}, {"fim_file_rate": 0.5}):
        for mode in ("char", "token"):
            for shown in (0.0, 1.0):
                rendered = render(document, tokenizer, metadata_probability=shown, fim_split=mode, **rates)
                for place in range(rendered.num_pieces):
                    for kind, ids in rendered.piece(place).parts:
                        assert kind in ("code", "path", "repo_name", "special")
                        assert isinstance(ids, np.ndarray)
                        assert (ids.dtype, ids.ndim) == (np.uint16, 1)
                        assert len(ids) > 0
