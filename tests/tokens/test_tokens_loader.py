"""The loader: the same global batches at any world size and after any interruption, and no token lost."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from token_documents import MIXTURE, SOURCES, make_document, open_loader

from starsmith.documents.special_tokens import END_OF_TEXT_ID, FILE_SEP_ID, FIM_PREFIX_ID, REPO_NAME_ID
from starsmith.errors import InputError
from starsmith.tokens.loader import Batch, Loader, global_digest, merge_states
from starsmith.tokens.shards import Shards
from starsmith.tokens.tokenizer import Tokenizer

NO_FIM = {"fim_repository_rate": 0.0}


def read_stream(loader: Loader, number: int, num_rows: int) -> list[int]:
    """Tokens of one stream with a batch of one row per stream: the inputs of its rows, one after the other."""
    return [int(token) for _ in range(num_rows) for token in loader.next_batch().tokens[number, :-1]]


def test_shapes_and_types(shard_folder: Path) -> None:
    batch = open_loader(shard_folder).next_batch()
    described = {
        name: (getattr(batch, name).dtype, getattr(batch, name).shape)
        for name in ("tokens", "loss_mask", "documents", "positions", "epochs")
    }
    assert described == {
        "tokens": (np.int64, (8, 33)),
        "loss_mask": (np.bool_, (8, 32)),
        "documents": (np.int32, (8, 32)),
        "positions": (np.int32, (8, 32)),
        "epochs": (np.int64, (8,)),
    }
    assert (batch.step, batch.rows) == (0, range(8))


@pytest.mark.parametrize("num_streams", [1, 3, 11])
def test_one_epoch_holds_every_token_once(
    documents: list[dict[str, Any]], shard_folder: Path, tokenizer: Tokenizer, num_streams: int
) -> None:
    """Without FIM, each stream is whole documents with the published separators, and all streams are the epoch."""
    config = NO_FIM | {"streams": num_streams}
    training = {document["repo_name"]: document for document in documents if document["split"] == "train"}
    seen: Counter[str] = Counter()
    for number in range(num_streams):
        loader = open_loader(shard_folder, batch_size=num_streams, metadata_probability=1.0, config=config)
        num_documents = len(range(number, len(training), num_streams))
        stream: list[int] = []
        while stream.count(END_OF_TEXT_ID) < num_documents:
            stream += read_stream(loader, number, 10)
        start = 0
        for _ in range(num_documents):
            end = stream.index(END_OF_TEXT_ID, start)
            name, *files = split_at(stream[start:end], FILE_SEP_ID)
            assert name[0] == REPO_NAME_ID
            document = training[tokenizer.decode(name[1:]).decode()]
            seen[document["repo_name"]] += 1
            shown = sorted(tokenizer.decode(file) for file in files)
            assert shown == sorted(f"{file['path']}\n{file['text']}".encode() for file in document["files"])
            expected = {
                tuple(np.concatenate(tokenizer.encode([file["path"] + "\n", file["text"]])).tolist())
                for file in document["files"]
            }
            assert {tuple(file) for file in files} == expected
            start = end + 1
    assert seen == Counter(dict.fromkeys(training, 1))


def split_at(ids: list[int], separator: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for number in ids:
        if number == separator:
            found.append([])
        else:
            found[-1].append(number)
    return found


def test_rows_of_a_stream_overlap_by_one_token(shard_folder: Path) -> None:
    """The last target of a row is the first input of the stream's next row: every token is a target once."""
    loader = open_loader(shard_folder, batch_size=6)
    before = loader.next_batch()
    for _ in range(20):
        after = loader.next_batch()
        np.testing.assert_array_equal(before.tokens[:, -1], after.tokens[:, 0])
        before = after


def test_rows_come_from_the_stated_streams(shard_folder: Path) -> None:
    """Row r of step t is the next row of stream (t * B + r) mod S, whatever the batch size."""
    config = {"streams": 12}
    by_stream = open_loader(shard_folder, batch_size=6, config=config)
    rows = [row for _ in range(7) for row in by_stream.next_batch().tokens]
    other = open_loader(shard_folder, batch_size=4, config=config)
    np.testing.assert_array_equal(np.concatenate([other.next_batch().tokens for _ in range(10)]), rows[:40])


ARRAYS = ("tokens", "loss_mask", "documents", "positions", "epochs")


def equal(one: Batch, two: Batch) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ARRAYS)
    return arrays and one.spans.equals(two.spans) and (one.step, one.digest) == (two.step, two.digest)


def check_ranks(batches: list[Batch], whole: Batch) -> None:
    """The ranks' rows are the global batch, each row on one rank."""
    assert [row for batch in batches for row in batch.rows] == list(whole.rows)
    assert global_digest([digest for batch in batches for digest in batch.row_digests]) == whole.digest
    for name in ARRAYS:
        np.testing.assert_array_equal(
            np.concatenate([getattr(batch, name) for batch in batches]), getattr(whole, name)
        )
    assert pa.concat_tables([batch.spans for batch in batches]).combine_chunks().equals(whole.spans)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), split=st.sampled_from(["char", "token"]))
def test_world_size_and_interruptions_change_nothing(shard_folder: Path, data: st.DataObject, split: str) -> None:
    config = {"fim_split": split, "fim_repository_rate": 0.8}
    num_steps = 12
    reference = open_loader(shard_folder, config=config)
    expected = [reference.next_batch() for _ in range(num_steps)]
    state = None
    step = 0
    while step < num_steps:
        world_size = data.draw(st.sampled_from([1, 2, 4]))
        stop = data.draw(st.integers(step + 1, num_steps))
        ranks = [
            open_loader(shard_folder, config=config, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for loader in ranks:
            if state is not None:
                loader.load_state(json.loads(state))
        for number in range(step, stop):
            check_ranks([loader.next_batch() for loader in ranks], expected[number])
        states = [json.loads(json.dumps(loader.state())) for loader in ranks]
        state = json.dumps(merge_states(data.draw(st.permutations(states))))
        step = stop
    assert len({batch.digest for batch in expected}) == num_steps


def test_resuming_reads_only_where_the_streams_stand(
    write_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream deep inside a repository of many files renders the file it stands in, and none before it."""
    folder = write_folder([make_document("large", [f"x_{number} = {number}\n" * 3 for number in range(300)])])
    config = {"streams": 1, "fim_repository_rate": 1.0, "fim_file_rate": 1.0}
    loader = open_loader(folder, batch_size=1, config=config)
    for _ in range(150):
        loader.next_batch()
    state = loader.state()
    expected = loader.next_batch()
    resumed = open_loader(folder, batch_size=1, config=config)
    resumed.load_state(state)
    encoded = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: encoded.append(1) or encode(self, texts))
    assert equal(resumed.next_batch(), expected)
    assert len(encoded) <= 4


NUM_STEPS = 20


@settings(max_examples=12, deadline=None)
@given(
    num_documents=st.integers(6, 20),
    batch_size=st.sampled_from([4, 8, 12]),
    streams=st.integers(1, 30),
    worlds=st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=3),
    stops=st.lists(st.integers(1, NUM_STEPS), max_size=2),
)
@example(num_documents=9, batch_size=8, streams=16, worlds=[1, 2, 4, 1], stops=[7, 12, 15])
def test_the_same_run_interrupted_and_resharded_sees_the_same_tokens(
    write_folder: Callable[..., Path],
    example_folder: Path,
    num_documents: int,
    batch_size: int,
    streams: int,
    worlds: list[int],
    stops: list[int],
) -> None:
    """With a mixture and instructions: one digest a step, however the run was cut and shared out."""
    sizes = [3 + 7 * number % 11 for number in range(num_documents)]
    lines = SOURCES[1].splitlines(keepends=True)
    folder = write_folder([make_document(f"r{n}", ["".join(lines[n : n + size])]) for n, size in enumerate(sizes)])
    options = {
        "batch_size": batch_size,
        "config": {"streams": max(streams, 10), "sequence_length": 24, "mixture": MIXTURE},
        "instructions": example_folder,
        "instructions_share": 0.3,
    }
    whole = open_loader(folder, **options)
    expected = [whole.next_batch() for _ in range(NUM_STEPS)]
    state: str | None = None
    step = 0
    for world_size, stop in zip([*worlds, *[1] * len(stops)], [*sorted(stops), NUM_STEPS], strict=False):
        ranks = [open_loader(folder, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
        for loader in ranks:
            if state is not None:
                loader.load_state(json.loads(state))
        for number in range(step, stop):
            batches = [loader.next_batch() for loader in ranks]
            assert (
                global_digest([one for batch in batches for one in batch.row_digests]) == expected[number].digest
            )
            assert pa.concat_tables([batch.spans for batch in batches]).equals(expected[number].spans)
        state = json.dumps(merge_states([loader.state() for loader in ranks]))
        step = stop
    assert step == NUM_STEPS
    assert state == json.dumps(whole.state())


def test_skipping_is_reading_without_the_batches(shard_folder: Path, example_folder: Path) -> None:
    options = {"instructions": example_folder, "instructions_share": 0.5}
    read, skipped = (open_loader(shard_folder, **options) for _ in range(2))
    for _ in range(11):
        read.next_batch()
    skipped.next_batch()
    skipped.skip(10)
    assert skipped.state() == read.state()
    assert equal(skipped.next_batch(), read.next_batch())


@pytest.mark.parametrize("num_steps", [5, 400])
def test_resuming_does_not_depend_on_how_far_the_run_is(
    shard_folder: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    """Documents opened by a new loader for its first batch: those of the batch, and those the streams end in."""
    loader = open_loader(shard_folder)
    loader.skip(num_steps)
    state = loader.state()
    opened: list[int] = []
    document = Shards.document
    monkeypatch.setattr(
        Shards, "document", lambda self, split, number: opened.append(number) or document(self, split, number)
    )
    resumed = open_loader(shard_folder)
    resumed.load_state(state)
    assert not opened
    spans = resumed.next_batch().spans
    shown = spans.group_by(["row", "epoch", "document_id"]).aggregate([])
    assert len(opened) == len(shown)


def test_state_is_a_handful_of_integers_per_stream(shard_folder: Path) -> None:
    loader = open_loader(shard_folder)
    for _ in range(25):
        loader.next_batch()
    state = json.loads(json.dumps(loader.state()))
    assert state["step"] == loader.step == 25
    assert [number for number, *_ in state["streams"]] == list(range(8))
    assert all(
        len(cursor) == 4 and all(isinstance(number, int) for number in cursor) for cursor in state["streams"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2}, "seed is 2, the state has 1"),
        ({"batch_size": 4}, "batch_size is 4, the state has 8"),
        ({"metadata_probability": 0.25}, r"metadata_probability is 0\.25, the state has 0\.5"),
        ({"split": "validation"}, "split is 'validation'"),
        ({"config": {"sequence_length": 64}}, "sequence_length is 64, the state has 32"),
        ({"config": {"fim_split": "token"}}, "fim_split is 'token', the state has 'char'"),
    ],
)
def test_a_state_of_other_settings_is_refused(shard_folder: Path, options: dict[str, Any], message: str) -> None:
    state = open_loader(shard_folder).state()
    with pytest.raises(InputError, match=message):
        open_loader(shard_folder, **options).load_state(state)


def test_a_state_of_other_shards_is_refused(shard_folder: Path, write_folder: Callable[..., Path]) -> None:
    other = write_folder([make_document(f"r{number}", ["text\n"]) for number in range(11)])
    with pytest.raises(InputError, match="shards is"):
        open_loader(other).load_state(open_loader(shard_folder).state())


@pytest.mark.parametrize(
    "damage",
    [
        {"streams": [[0, 0, 0, 0]]},
        {"streams": [[number, 0, 0, 0] for number in range(7)]},
        {"streams": [[number, 0, 0] for number in range(7)] + [[7, "x", 0, 0]]},
        {"streams": [[number, 1, 0, 0] for number in range(7)] + [[7, -1, 0, 0]]},
        {"streams": [[number, 1, 0, 0] for number in range(7)] + [[7]]},
        {"streams": None},
        {"step": -1},
        {"step": None},
        {"fingerprint": "0" * 32},
        {"version": 99},
        {"settings": None, "fingerprint": None},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(shard_folder: Path, damage: dict[str, Any]) -> None:
    loader = open_loader(shard_folder)
    loader.next_batch()
    state = loader.state()
    with pytest.raises(InputError, match="loader state"):
        loader.load_state(state | damage)
    assert loader.state() == state


@pytest.mark.parametrize("cursor", [[0, 99, 0], [0, 1, 10**6]])
def test_a_place_that_no_document_has_is_refused_when_it_is_read(shard_folder: Path, cursor: list[int]) -> None:
    loader = open_loader(shard_folder)
    state = loader.state()
    loader.load_state(state | {"streams": [[number, *cursor] for number in range(8)]})
    with pytest.raises(InputError, match="the loader state is damaged"):
        loader.next_batch()


@pytest.mark.parametrize("document_mask", [True, False])
def test_spans_tile_each_row_and_name_their_source(
    documents: list[dict[str, Any]], shard_folder: Path, tokenizer: Tokenizer, document_mask: bool
) -> None:
    by_id = {document["document_id"]: document for document in documents}
    loader = open_loader(shard_folder, config={"fim_repository_rate": 0.7, "document_mask": document_mask})
    for _ in range(20):
        batch = loader.next_batch()
        for row in range(8):
            spans = [span for span in batch.spans.to_pylist() if span["row"] == row]
            assert [span["start"] for span in spans] == [0, *[span["end"] for span in spans[:-1]]]
            assert spans[-1]["end"] == 33
            assert spans[0]["epoch"] == batch.epochs[row]
            for span in spans:
                ids = batch.tokens[row, span["start"] : span["end"]]
                document = by_id[span["document_id"]]
                assert span["repo_name"] == document["repo_name"]
                assert (span["kind"] == "special") == bool((ids < 34).any()) == bool((ids < 34).all())
                assert END_OF_TEXT_ID not in ids[:-1]  # what follows an end is another document's
                piece = tokenizer.decode(ids)
                if span["kind"] in ("special", "repo_name"):
                    assert (span["content_id"], span["released_id"], span["path"]) == (None, None, "")
                    assert (span["license_type"], span["detected_licenses"]) == ("", [])
                    assert span["kind"] == "special" or piece in document["repo_name"].encode()
                    continue
                [file] = [file for file in document["files"] if file["path"] == span["path"]]
                for key in ("content_id", "released_id", "license_type", "detected_licenses"):
                    assert span[key] == file[key]
                source = file["text"] if span["kind"] == "code" else file["path"] + "\n"
                assert piece in (source + source).encode()  # SPM joins prefix and middle, in order


def test_document_mask_numbers_documents_and_masks_crossings(shard_folder: Path) -> None:
    loader = open_loader(shard_folder)
    crossings = 0
    for _ in range(120):
        batch = loader.next_batch()
        for row in range(8):
            ends = np.flatnonzero(batch.tokens[row] == END_OF_TEXT_ID)
            documents, positions, expected_loss = [], [], []
            number = position = 0
            for place in range(32):
                documents.append(number)
                positions.append(position)
                expected_loss.append(place not in ends)
                position += 1
                if place in ends:
                    number, position = number + 1, 0
            assert batch.documents[row].tolist() == documents
            assert batch.positions[row].tolist() == positions
            assert batch.loss_mask[row].tolist() == expected_loss
            crossings += number
    assert crossings > 20


def test_without_document_mask_a_row_is_one_document(shard_folder: Path) -> None:
    batch = open_loader(shard_folder, config={"document_mask": False}).next_batch()
    assert not batch.documents.any()
    assert (batch.positions == np.arange(32)).all()
    assert batch.loss_mask.all()


def test_epochs_follow_and_differ(shard_folder: Path) -> None:
    """One stream: each epoch holds the same documents, in another order and with other draws."""
    loader = open_loader(shard_folder, batch_size=1, config={"streams": 1})
    epochs: dict[int, list[str]] = {}
    tokens: dict[int, list[int]] = {}
    while len(epochs) < 4:
        batch = loader.next_batch()
        for span in batch.spans.to_pylist():
            epochs.setdefault(span["epoch"], [])
            if span["document_id"] not in epochs[span["epoch"]][-1:]:
                epochs[span["epoch"]].append(span["document_id"])
            shown = batch.tokens[0, span["start"] : min(span["end"], 32)]
            tokens.setdefault(span["epoch"], []).extend(shown.tolist())
    orders = [epochs[epoch] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(orders[0]) and len(order) == 11 for order in orders)
    assert len({tuple(tokens[epoch]) for epoch in range(3)}) == 3


@pytest.mark.parametrize("num_documents", [1, 2, 5])
def test_more_streams_than_documents(write_folder: Callable[..., Path], num_documents: int) -> None:
    """Streams then stand in different epochs of the same documents, and every epoch is shown once."""
    folder = write_folder([make_document(f"r{number}", ["x = 1\n" * 20]) for number in range(num_documents)])
    loader = open_loader(folder, batch_size=3, metadata_probability=0.0, config=NO_FIM | {"streams": 10})
    assert loader.num_streams == 12
    starts: Counter[tuple[str, int]] = Counter()
    for _ in range(40):
        batch = loader.next_batch()
        for span in batch.spans.to_pylist():
            if batch.tokens[span["row"], span["start"]] == FILE_SEP_ID and span["start"]:
                starts[span["document_id"], span["epoch"]] += 1
    assert set(starts.values()) == {1}
    assert len(starts) > 12


def test_shares_of_tokens_follow_the_corpus_and_not_the_streams(write_folder: Callable[..., Path]) -> None:
    """Short documents share streams with long ones in turn, so they are not repeated out of proportion."""
    lines = SOURCES[0].splitlines(keepends=True)
    sizes = [1, 2, 4, 150]
    folder = write_folder([make_document(f"r{size}", ["".join(lines[:size])]) for size in sizes])
    loader = open_loader(folder, batch_size=4, config=NO_FIM | {"streams": 4}, metadata_probability=0.0)
    seen: Counter[str] = Counter()
    for _ in range(1500):
        spans = loader.next_batch().spans
        lengths = pc.subtract(spans["end"], spans["start"]).to_pylist()
        for name, length in zip(spans["repo_name"].to_pylist(), lengths, strict=True):
            seen[name] += length
    in_corpus = {
        document.repo_name: 2 + sum(len(file.text_tokens) for file in document.files)
        for document in (loader.shards.document("train", number) for number in range(4))
    }
    for name, count in in_corpus.items():
        share = count / sum(in_corpus.values())
        assert seen[name] / seen.total() == pytest.approx(share, rel=0.35)


def test_ranks_that_cannot_share_a_batch_are_refused(shard_folder: Path) -> None:
    for options in ({"world_size": 3}, {"rank": 2, "world_size": 2}, {"batch_size": 0}, {"rank": -1}):
        with pytest.raises(InputError, match="cannot be shared"):
            open_loader(shard_folder, **options)


def test_an_empty_split_is_an_error_when_a_batch_is_asked_for(write_folder: Callable[..., Path]) -> None:
    folder = write_folder([make_document("r", ["x\n"], split="validation")])
    loader = open_loader(folder)
    with pytest.raises(InputError, match="train split has no documents"):
        loader.next_batch()
    assert len(loader.sequences("validation", 2).tokens) == 1
    assert loader.sequences("train", 2).tokens.shape == (0, 33)
    assert len(loader.sequences("train", 2).spans) == 0


def test_validation_sequences_are_fixed_plain_and_measured_once(
    documents: list[dict[str, Any]], shard_folder: Path
) -> None:
    loader = open_loader(shard_folder, config={"fim_repository_rate": 1.0, "fim_file_rate": 1.0})
    first = loader.sequences("validation", 3)
    loader.next_batch()
    state = loader.state()
    assert equal(open_loader(shard_folder, rank=1, world_size=2).sequences("validation", 3), first)
    assert equal(loader.sequences("validation", 3), first)
    assert loader.state() == state
    held_out = {document["document_id"] for document in documents if document["split"] == "validation"}
    assert set(first.spans["document_id"].to_pylist()) == held_out  # rows start in different documents
    assert not (first.tokens == FIM_PREFIX_ID).any()
    everything = loader.sequences("validation", 10_000)
    assert 30 < len(everything.tokens) < 10_000
    num_tokens = sum(loader.shards.manifest["splits"]["validation"][key] for key in ("num_tokens", "num_files"))
    assert everything.loss_mask.sum() <= num_tokens + 3
    # Every token of the epoch is measured but the first of each document (and the paths, where they are hidden).
    measured = Counter(everything.tokens[:, 1:][everything.loss_mask].tolist())
    assert measured[FILE_SEP_ID] + measured[REPO_NAME_ID] <= 6
    assert measured[END_OF_TEXT_ID] == 3


def test_different_seeds_give_different_batches(shard_folder: Path) -> None:
    digests = {open_loader(shard_folder, seed=seed).next_batch().digest for seed in range(5)}
    assert len(digests) == 5
