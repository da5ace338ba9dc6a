"""From steps to files and back."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.tokens import instructions, shards
from starsmith.tokens.loader import Loader, merge_states
from starsmith.tokens.packing import SPANS
from starsmith.tokens.tokenizer import train_on_texts
from starsmith.training.lineage import SCHEMA, LineageLog, lineage, steps_of


@pytest.fixture
def run(tmp_path, make_loader):
    """Twelve steps, a part every five; the seventh learned nothing."""
    loader, log = make_loader(), LineageLog(tmp_path)
    for step in range(1, 13):
        log.append(step, loader.next_batch().spans, trained=step != 7)
        if step % 5 == 0 or step == 12:
            log.flush(step)
    return tmp_path


def test_parts_end_at_checkpoints_and_keep_the_schema(run):
    parts = sorted((run / "lineage").iterdir())
    assert [part.stem for part in parts] == ["00000001-00000005", "00000006-00000010", "00000011-00000012"]
    assert all(pq.read_schema(part).equals(SCHEMA) for part in parts)


def test_every_token_of_a_step_has_an_origin(run, make_loader):
    for step in (1, 6, 12):
        table = lineage(run, step)
        assert sum(table["num_tokens"].to_pylist()) == 4 * 49
        batch = make_loader().batch(step - 1)
        assert set(table["content_id"].to_pylist()) == set(batch.spans["content_id"].to_pylist())


def test_spans_of_a_file_are_one_row(run):
    shared = [row for row in lineage(run, 3).to_pylist() if row["path"] == "/f0.py"]
    assert len(shared) == 1  # in all four rows of the batch
    assert shared[0]["rows"] == [0, 1, 2, 3]
    assert shared[0]["detected_licenses"] == ["MIT"]
    assert shared[0]["license_type"] == "permissive"
    assert shared[0]["repo_name"] == "repo99"


def test_a_skipped_step_says_that_nothing_was_learned(run):
    assert set(lineage(run, 7)["trained"].to_pylist()) == {False}
    assert set(lineage(run, 8)["trained"].to_pylist()) == {True}


def test_steps_of_a_content_before_and_after_redaction(run):
    number = 4 * 7 + 2  # row 2 of the eighth batch
    for identifier in (f"{number:040x}", f"swh:1:cnt:{number:040x}", f"{number + 10**6:040x}"):
        assert steps_of(run, identifier)["step"].to_pylist() == [8]
    everywhere = steps_of(run, f"{0:040x}").to_pylist()
    assert [row["step"] for row in everywhere] == list(range(1, 13))
    assert [row["trained"] for row in everywhere] == [step != 7 for step in range(1, 13)]
    assert steps_of(run, f"{99:039x}d").num_rows == 12
    assert steps_of(run, "f" * 40).num_rows == 0


def test_refuses_what_was_not_recorded(run, tmp_path_factory):
    for step in (0, 13):
        with pytest.raises(InputError, match=f"no lineage of step {step} .*steps 1 to 12 are recorded"):
            lineage(run, step)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match="nothing was trained there"):
        lineage(empty, 1)
    with pytest.raises(InputError, match="nothing was trained there"):
        steps_of(empty, "0" * 40)
    with pytest.raises(InputError, match="no content SWHID"):
        steps_of(run, "swh:1:rev:" + "0" * 40)
    with pytest.raises(InputError, match="no content SWHID"):
        steps_of(run, "' OR 1=1 --")


class Ranks:
    """Threads that gather as processes do."""

    def __init__(self, size):
        self.size, self._slots, self._barrier = size, [None] * size, threading.Barrier(size, timeout=30)

    def gather(self, rank):
        def gather(pieces):
            self._slots[rank] = pieces
            self._barrier.wait()
            gathered = list(self._slots)
            self._barrier.wait()
            return gathered

        return gather

    def run(self, work):
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, range(self.size)))


@pytest.fixture(scope="module")
def shard_folders(tmp_path_factory):
    """Shards of documents and of instructions."""
    folder, examples = (tmp_path_factory.mktemp(name) for name in ("documents", "instructions"))
    texts = [f"def f{number}(x):\n    return x + {number}\n" * 3 for number in range(12)]
    tokenizer = train_on_texts(texts, vocab_size=400)
    documents = [
        {
            "document_id": f"{number:040x}", "repo_name": f"owner/r{number}", "directory_id": "d",
            "split": "train",
            "files": [
                {
                    "file_id": f"{number}", "content_id": f"{number + 100:040x}",
                    "released_id": f"{number + 200:040x}",
                    "path": f"/f{number}.py", "language": "Python", "license_type": "permissive",
                    "detected_licenses": ["MIT"], "num_redactions": 0, "text": text,
                }
            ],
        }
        for number, text in enumerate(texts)
    ]  # fmt: skip
    shards.write_shards([pa.Table.from_pylist(documents)], tokenizer, folder)
    records = [{"instruction": f"Add {number}.", "response": f"x + {number}"} for number in range(9)]
    (examples / "ask.jsonl").write_text("\n".join(map(json.dumps, records)))
    instructions.encode([examples / "ask.jsonl"], tokenizer, examples)
    return folder, examples


def log_run(folder, shard_folders, *, world_size, stop=0, num_steps=6):
    """A run of the loader and the log alone, parts of two steps; stopped and resumed after step `stop`."""
    documents, examples = shard_folders
    saved = None
    for first, last in ((0, stop), (stop, num_steps)):
        ranks = Ranks(world_size)

        def work(rank, ranks=ranks, first=first, last=last, saved=saved):
            loader = Loader(
                documents, recipe.Tokens(sequence_length=40, streams=8), seed=1, batch_size=8,
                metadata_probability=0.5, instructions=examples, instructions_share=0.5,
                rank=rank, world_size=world_size, verify=False,
            )  # fmt: skip
            log = LineageLog(folder, gather=ranks.gather(rank), is_first=rank == 0)
            if saved is not None:
                loader.load_state(saved[0])
            log.rewind(first, saved[1] if saved else SCHEMA.empty_table())
            for step in range(first + 1, last + 1):
                log.append(step, loader.next_batch().spans, trained=step != 2)
                if step % 2 == 0:
                    log.flush(step)
            return loader.state(), log.pending()

        results = ranks.run(work)
        assert all(pending.equals(results[0][1]) for _, pending in results)
        saved = merge_states([state for state, _ in results]), results[0][1]
    return folder


@pytest.mark.parametrize("stop", [0, 3, 4])
@pytest.mark.parametrize("world_size", [2, 4])
def test_parts_have_the_same_bytes_at_every_world_size(tmp_path, shard_folders, world_size, stop):
    alone = log_run(tmp_path / "alone", shard_folders, world_size=1)
    shared = log_run(tmp_path / "shared", shard_folders, world_size=world_size, stop=stop)
    parts = sorted((alone / "lineage").iterdir())
    assert [part.stem for part in parts] == ["00000001-00000002", "00000003-00000004", "00000005-00000006"]
    for part in parts:
        assert (shared / "lineage" / part.name).read_bytes() == part.read_bytes()


def test_a_run_may_go_on_with_another_number_of_ranks(tmp_path, shard_folders):
    """Pending rows of four ranks are taken up by two: no row is lost or told twice."""
    ranks = Ranks(4)
    spans = [table_of_rows(range(rank, rank + 1)) for rank in range(4)]

    def stopped(rank):
        log = LineageLog(tmp_path, gather=ranks.gather(rank), is_first=rank == 0)
        log.append(1, spans[rank], trained=True)
        return log.pending()

    pending = ranks.run(stopped)[0]
    assert pending["row"].to_pylist() == [0, 1, 2, 3]
    fewer = Ranks(2)

    def resumed(rank):
        log = LineageLog(tmp_path, gather=fewer.gather(rank), is_first=rank == 0)
        log.rewind(1, pending)
        log.append(2, table_of_rows(range(2 * rank, 2 * rank + 2)), trained=False)
        log.flush(2)

    fewer.run(resumed)
    written = pq.read_table(tmp_path / "lineage" / "00000001-00000002.parquet")
    assert written.schema.equals(SCHEMA)
    assert written["step"].to_pylist() == [1] * 4 + [2] * 4
    assert written["row"].to_pylist() == [0, 1, 2, 3] * 2


def table_of_rows(rows):
    described = {
        "start": 0, "end": 4, "kind": "code", "epoch": 0, "document_id": "d", "repo_name": "r", "path": "/f",
        "license_type": "permissive", "detected_licenses": ["MIT"],
    }  # fmt: skip
    return pa.Table.from_pylist([{"row": row, **described} for row in rows], schema=SPANS)


def test_instructions_are_found_both_ways(tmp_path, shard_folders):
    run = log_run(tmp_path, shard_folders, world_size=2)
    everything = pq.read_table(run / "lineage")
    examples = {}
    for step in range(1, 7):
        table = lineage(run, step).to_pylist()
        step_spans = everything.filter(pc.equal(everything["step"], step))
        lengths = pc.subtract(step_spans["end"], step_spans["start"])
        padding = pc.sum(lengths.filter(pc.equal(step_spans["kind"], "padding"))).as_py() or 0
        assert sum(row["num_tokens"] for row in table) == 8 * 41 - padding
        asked = [row for row in table if row["repo_name"] == "instructions/ask.jsonl"]
        assert asked
        for row in asked:
            assert (row["license_type"], row["detected_licenses"], row["content_id"]) == ("unknown", [], None)
            assert row["path"].startswith("line ")
            examples.setdefault(row["document_id"], []).append((step, row["num_tokens"], row["trained"]))
    for document_id, seen in examples.items():
        found = steps_of(run, document_id).to_pylist()
        assert [(row["step"], row["num_tokens"], row["trained"]) for row in found] == seen
    assert len(examples) == 9
    kinds = everything.filter(pc.equal(everything["license_type"], "unknown"))["kind"].unique().to_pylist()
    assert sorted(kinds) == ["prompt", "response"]
    assert "padding" in everything["kind"].to_pylist()
