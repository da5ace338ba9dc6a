"""Instruction data: the published template, what is learned of it, and lines that are no conversation."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_documents import make_document

from starsmith import recipe
from starsmith.documents.special_tokens import END_OF_TEXT_ID, FIM_PREFIX_ID, SPECIAL_TOKENS, STRUCTURE_TOKENS
from starsmith.errors import InputError
from starsmith.tokens.instructions import PUBLISHED_SYSTEM, encode
from starsmith.tokens.loader import Loader
from starsmith.tokens.shards import Shards
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts

END = "<|endoftext|>"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_(*records: Any, name: str = "data.jsonl") -> Path:
        lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
        return tmp_path / name

    return write_


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "shards"
    place.mkdir()
    return place


def pair(instruction: str, response: str) -> dict[str, str]:
    return {"instruction": instruction, "response": response}


def conversation(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(texts)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


def open_shards(folder: Path) -> Shards:
    return Shards(folder, holding="starsmith-instructions")


def turns(folder: Path, number: int, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    files = open_shards(folder).document("train", number).files
    return [
        (tokenizer.decode(file.path_tokens).decode(), tokenizer.decode(file.text_tokens).decode())
        for file in files
    ]


def test_the_published_template(write: Callable[..., Path], folder: Path, tokenizer: Tokenizer) -> None:
    path = write(pair("Add two numbers.", "a + b"), conversation("Hi", "Hello", "Bye", "See you"))
    facts = encode([path], tokenizer, folder, system=PUBLISHED_SYSTEM)
    opening = (
        f"{END}You are an exceptionally intelligent coding assistant that consistently delivers accurate and "
        "reliable responses to user instructions.\n\n### Instruction\n"
    )
    assert turns(folder, 0, tokenizer) == [(f"{opening}Add two numbers.\n\n### Response\n", f"a + b{END}")]
    assert turns(folder, 1, tokenizer) == [
        (f"{opening}Hi\n\n### Response\n", f"Hello{END}"),
        ("\n\n### Instruction\nBye\n\n### Response\n", f"See you{END}"),
    ]
    document = open_shards(folder).document("train", 1)
    assert document.files[0].path_tokens[0] == document.files[0].text_tokens[-1] == END_OF_TEXT_ID
    assert (facts["num_examples"], facts["num_turns"]) == (2, 3)
    files = [file for number in (0, 1) for file in open_shards(folder).document("train", number).files]
    assert facts["num_trained_tokens"] == sum(len(file.text_tokens) for file in files)
    assert facts["num_tokens"] == facts["num_trained_tokens"] + sum(len(file.path_tokens) for file in files)
    assert open_shards(folder).manifest["splits"]["train"]["num_tokens"] == facts["num_tokens"]


def test_without_a_system_text_the_instruction_opens(
    write: Callable[..., Path], folder: Path, tokenizer: Tokenizer
) -> None:
    encode([write(pair("x", "y"))], tokenizer, folder)
    assert turns(folder, 0, tokenizer) == [(f"{END}### Instruction\nx\n\n### Response\n", f"y{END}")]


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from([*SPECIAL_TOKENS, "x", "\n", " é🎉"]), min_size=1).map("".join),
        min_size=2,
        max_size=2,
    )
)
def test_text_stays_text(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """The characters of a structure token never become one; every text comes back byte for byte."""
    folder = tmp_path_factory.mktemp("instructions")
    instruction, response = (f"a{text}" for text in texts)
    (folder / "data.jsonl").write_text(json.dumps(pair(instruction, response)))
    encode([folder / "data.jsonl"], tokenizer, folder)
    [file] = open_shards(folder).document("train", 0).files
    assert (file.path_tokens[1:] >= len(STRUCTURE_TOKENS)).all()
    assert (file.text_tokens[:-1] >= len(STRUCTURE_TOKENS)).all()
    assert turns(folder, 0, tokenizer) == [
        (f"{END}### Instruction\n{instruction}\n\n### Response\n", response + END)
    ]


def test_examples_have_an_identity_and_no_licence(
    write: Callable[..., Path], folder: Path, tokenizer: Tokenizer
) -> None:
    one, two = (
        write(pair("a", "b"), b"", pair("c", "d"), name="one.jsonl"),
        write(pair("e", "f"), name="two.jsonl"),
    )
    encode([one, two], tokenizer, folder)
    opened = open_shards(folder)
    documents = [opened.document("train", number) for number in range(3)]
    assert [document.repo_name for document in documents] == [
        "instructions/one.jsonl", "instructions/one.jsonl", "instructions/two.jsonl",
    ]  # fmt: skip
    assert [document.files[0].path for document in documents] == ["line 1", "line 3", "line 1"]
    assert {document.files[0].license_type for document in documents} == {"unknown"}
    assert len({document.document_id for document in documents}) == 3
    other = folder.parent / "other"
    other.mkdir()
    encode([write(conversation("c", "d"), name="moved.jsonl")], tokenizer, other, system="Be brief.")
    assert open_shards(other).document("train", 0).document_id == documents[1].document_id


def test_repeated_examples_are_taken_once_and_counted(
    write: Callable[..., Path], folder: Path, tokenizer: Tokenizer
) -> None:
    one = write(pair("a", "b"), conversation("a", "b"), pair("a", "c"), name="one.jsonl")
    facts = encode([one, write(pair("a", "b"), name="two.jsonl")], tokenizer, folder)
    assert facts["num_examples"] == open_shards(folder).num_documents("train") == 2
    assert [(file["num_examples"], file["num_repeated"]) for file in facts["files"]] == [(2, 1), (0, 1)]


BAD_LINES = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"instruction": "\xff", "response": "x"}', "not UTF-8"),
    ([1], "not a JSON object"),
    ({"text": "x"}, 'needs either "messages" or "instruction" and "response"'),
    (pair("a", "b") | conversation("a", "b"), 'needs either "messages" or "instruction" and "response"'),
    ({"instruction": "x"}, '"response" must be a text'),
    ({"response": "x"}, '"instruction" must be a text'),
    (pair("x", " \n"), '"response" is empty'),
    ({"instruction": ["x"], "response": "y"}, '"instruction" must be a text'),
    (pair("\ud800", "x"), '"instruction" holds half a surrogate pair'),
    ({"messages": []}, "roles must be user and assistant in turn"),
    ({"messages": "x"}, '"messages" must be a list of objects'),
    ({"messages": [1, 2]}, '"messages" must be a list of objects'),
    (conversation("a", "b", "c"), "roles must be user and assistant in turn"),
    (
        {"messages": [{"role": "system", "content": "x"}, *conversation("a", "b")["messages"]]},
        "roles must be user",
    ),
    ({"messages": conversation("a", "b")["messages"][::-1]}, "roles must be user and assistant in turn"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]},
        '"content" must be',
    ),
    ({"messages": [{"role": "user"}, {"role": "assistant", "content": "y"}]}, '"content" must be a text'),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_is_counted_and_explained(
    write: Callable[..., Path], folder: Path, tokenizer: Tokenizer, line: Any, reason: str
) -> None:
    facts = encode([write(pair("a", "b"), line, pair("c", "d"), line)], tokenizer, folder)
    [file] = facts["files"]
    assert (file["num_examples"], file["num_bad"]) == (2, 2)
    [(found, where)] = file["bad"].items()
    assert reason in found
    assert where == {"count": 2, "lines": [2, 4]}


def test_a_file_without_a_conversation_is_refused(
    write: Callable[..., Path], folder: Path, tokenizer: Tokenizer
) -> None:
    bad = write(b"{", b"{", {"text": "x"}, name="bad.jsonl")
    with pytest.raises(
        InputError, match=r"bad\.jsonl has no conversation .*2 lines \(the first: 1\) not JSON; 1 line"
    ):
        encode([write(pair("a", "b")), bad], tokenizer, folder)
    with pytest.raises(InputError, match="it is empty"):
        encode([write(b"", b"  ", name="empty.jsonl")], tokenizer, folder)
    with pytest.raises(InputError, match="no file of instruction data at"):
        encode([bad.with_name("absent.jsonl")], tokenizer, folder)
    with pytest.raises(InputError, match=r"set instructions\.files"):
        encode([], tokenizer, folder)


def test_many_examples_fill_many_shards(
    write: Callable[..., Path], folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starsmith.tokens.instructions._EXAMPLES_PER_SHARD", 3)
    monkeypatch.setattr("starsmith.tokens.instructions._EXAMPLES_PER_ENCODING", 2)
    path = write(*[pair(f"question {number}", f"answer {number}") for number in range(10)])
    encode([path], tokenizer, folder)
    assert [shard["splits"]["train"]["num_documents"] for shard in open_shards(folder).manifest["shards"]] == [
        3,
        3,
        3,
        1,
    ]
    assert [turns(folder, number, tokenizer)[0][1] for number in range(10)] == [
        f"answer {number}{END}" for number in range(10)
    ]


def open_loader(shard_folder: Path, example_folder: Path, **config: Any) -> Loader:
    settings_ = {"sequence_length": 48, "streams": 8, "fim_repository_rate": 1.0, "fim_file_rate": 1.0} | config
    return Loader(
        shard_folder, recipe.Tokens(**settings_), seed=1, batch_size=8, metadata_probability=0.5,
        instructions=example_folder, instructions_share=0.5, verify=False,
    )  # fmt: skip


@pytest.mark.parametrize("document_mask", [True, False])
def test_only_responses_in_sight_of_their_prompt_are_learned_and_fim_stays_out(
    shard_folder: Path, example_folder: Path, document_mask: bool
) -> None:
    loader = open_loader(shard_folder, example_folder, document_mask=document_mask)
    openings = (f"{END}### Instruction\n".encode(), b"\n\n### Instruction\n")
    kinds, learned, unlearned = set(), 0, 0
    for _ in range(30):
        batch = loader.next_batch()
        by_end = {(span["row"], span["end"]): span for span in batch.spans.to_pylist()}
        for span in batch.spans.to_pylist():
            start, end = max(span["start"] - 1, 0), span["end"] - 1  # as targets
            mask = batch.loss_mask[span["row"], start:end]
            kinds.add(span["kind"])
            if span["kind"] == "prompt":
                assert not mask.any()
            elif span["kind"] == "response":
                tokens = batch.tokens[span["row"], span["start"] : span["end"]]
                assert FIM_PREFIX_ID not in tokens
                assert END_OF_TEXT_ID not in tokens[:-1]
                before = by_end.get((span["row"], span["start"]))
                prompt = batch.tokens[span["row"], before["start"] : before["end"]] if before else []
                in_sight = loader.shards.tokenizer.decode(prompt).startswith(openings)
                assert mask.all() if in_sight else not mask.any()
                learned += in_sight
                unlearned += not in_sight
            if span["kind"] in ("prompt", "response"):
                assert span["repo_name"] == "instructions/data.jsonl"
                assert (span["content_id"], span["released_id"]) == (None, None)
                assert (span["license_type"], span["detected_licenses"]) == ("unknown", [])
                assert span["path"].startswith("line ")
    assert {"prompt", "response", "code", "special"} <= kinds
    assert learned and unlearned


@pytest.mark.parametrize("document_mask", [True, False])
@pytest.mark.parametrize("length", [139, 140, 300])
def test_every_response_is_learned_once_an_epoch_and_padding_never(
    shard_folder: Path, example_folder: Path, length: int, document_mask: bool
) -> None:
    """Where rows can hold every conversation, nothing of a response is left out or learned twice."""
    config = recipe.Tokens(sequence_length=length, streams=3, document_mask=document_mask)
    loader = Loader(
        shard_folder, config, seed=1, batch_size=3, metadata_probability=0.5, instructions=example_folder,
        instructions_share=1.0, verify=False,
    )  # fmt: skip
    assert loader.examples is not None
    examples = [
        loader.examples.document("train", number) for number in range(loader.examples.num_documents("train"))
    ]
    expected = {one.document_id: sum(len(turn.text_tokens) for turn in one.files) for one in examples}
    assert max(one.num_tokens for one in examples) == 140
    learned: Counter[tuple[int, str]] = Counter()
    padding = 0
    while not learned or min(epoch for epoch, _ in list(learned)[-3:]) < 6:
        batch = loader.next_batch()
        for span in batch.spans.to_pylist():
            row = span["row"]
            mask = batch.loss_mask[row, max(span["start"] - 1, 0) : span["end"] - 1]
            learned[span["epoch"], span["document_id"]] += int(mask.sum())
            if span["kind"] == "padding":
                padding += 1
                assert not mask.any()
                assert span["end"] == length + 1
                assert (span["path"], span["license_type"]) == ("", "")
                assert set(batch.tokens[row, span["start"] :].tolist()) == {END_OF_TEXT_ID}
    assert padding
    for epoch in range(4):
        assert {name: learned[epoch, name] for name in expected} == expected


def test_folders_are_not_taken_for_one_another(
    shard_folder: Path,
    example_folder: Path,
    write: Callable[..., Path],
    write_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(
        InputError, match="describes starsmith-tokens, wanted is a folder of starsmith-instructions"
    ):
        open_loader(shard_folder, shard_folder)
    with pytest.raises(InputError, match="describes starsmith-instructions"):
        open_loader(example_folder, example_folder)
    other = tmp_path / "other"
    other.mkdir()
    encode([write(pair("a", "b"))], train_on_texts(["other text other text"], vocab_size=400), other)
    with pytest.raises(InputError, match="another tokenizer than the documents"):
        open_loader(shard_folder, other)
    with pytest.raises(InputError, match="its share belong together"):
        Loader(
            shard_folder,
            recipe.Tokens(),
            seed=1,
            batch_size=8,
            metadata_probability=0.5,
            instructions=example_folder,
        )
    state = open_loader(shard_folder, example_folder).state()
    plain = Loader(
        write_folder([make_document("r", ["x\n"])]),
        recipe.Tokens(),
        seed=1,
        batch_size=8,
        metadata_probability=0.5,
    )
    with pytest.raises(InputError, match="instructions is None"):
        plain.load_state(state)


def test_every_batch_has_its_share_of_instructions(shard_folder: Path, example_folder: Path) -> None:
    loader = open_loader(shard_folder, example_folder)
    for _ in range(10):
        spans = loader.next_batch().spans.to_pylist()
        assert len({span["row"] for span in spans if span["repo_name"].startswith("instructions/")}) == 4
    assert [(part.name, part.share, part.num_streams) for part in loader.parts] == [
        ("instructions", 0.5, 4), ("rest", 0.5, 4),
    ]  # fmt: skip


def test_instructions_alone(write_folder: Callable[..., Path], example_folder: Path) -> None:
    folder = write_folder([make_document("r", ["x\n"], split="validation")])
    config = recipe.Tokens(sequence_length=48, streams=4)
    loader = Loader(
        folder, config, seed=1, batch_size=4, metadata_probability=0.5, instructions=example_folder,
        instructions_share=1.0,
    )  # fmt: skip
    for _ in range(5):
        assert set(loader.next_batch().spans["repo_name"].to_pylist()) == {"instructions/data.jsonl"}
    assert len(loader.sequences("validation", 1).tokens) == 1
