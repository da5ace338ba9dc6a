"""Spans, scores and the published rules of the model's back end, and a real encoder with random weights."""

import itertools
import json
import re
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.errors import InputError, MachineError
from starsmith.signals import pii, pii_model
from starsmith.steps import pii_model as runner

LABELS = (
    "O",
    "B-NAME",
    "I-NAME",
    "B-EMAIL",
    "I-EMAIL",
    "B-KEY",
    "I-KEY",
    "B-IP_ADDRESS",
    "B-USERNAME",
    "B-PASSWORD",
)


def chunk(text, entities, *, confidence=0.9, piece_chars=3, start=0, stop=None):
    """What a perfect model would say of `text[start:stop]`, cut into pieces of some characters."""
    stop = len(text) if stop is None else stop
    offsets, rows = [(0, 0)], [np.full(len(LABELS), 1 / len(LABELS))]  # a special token says nothing
    words = [match.span() for match in re.finditer(r"[\w+.\-]+|\S", text) if start <= match.start() < stop]
    for at, end in [(at, min(at + piece_chars, e)) for s, e in words for at in range(s, e, piece_chars)]:
        label = 0
        for kind, first, last in entities:
            if at < last and end > first:
                label = LABELS.index(f"B-{kind}" if at <= first or f"I-{kind}" not in LABELS else f"I-{kind}")
        row = np.full(len(LABELS), (1 - confidence) / (len(LABELS) - 1))
        row[label] = confidence
        offsets.append((at, end))
        rows.append(row)
    return pii_model.Chunk(np.array(offsets), np.array(rows))


def spans(text, *chunks, min_score=0.5):
    data = text.encode()
    return [(f.kind, data[f.start : f.end].decode()) for f in pii_model.findings(text, LABELS, chunks, min_score)]


def entity(kind, text, value):
    start = text.index(value)
    return kind, start, start + len(value)


def test_pieces_become_words_become_entities():
    text = "# by Ädä Løvelace 🎉, ada@company.com; Xq9 Kd0sLq3vB7wZ"
    entities = [entity("NAME", text, "Ädä Løvelace"), entity("EMAIL", text, "ada@company.com")]
    for piece_chars in (1, 2, 5):
        assert spans(text, chunk(text, entities, piece_chars=piece_chars))[:2] == [
            ("NAME", "Ädä Løvelace"),
            ("EMAIL", "ada@company.com"),
        ]


def test_chunks_that_overlap_are_averaged():
    text = "see Ada Lovelace here and Alan Turing there"
    entities = [entity("NAME", text, "Ada Lovelace"), entity("NAME", text, "Alan Turing")]
    halves = [chunk(text, entities, stop=30, piece_chars=1), chunk(text, entities, start=10, piece_chars=1)]
    assert spans(text, *halves) == [("NAME", "Ada Lovelace"), ("NAME", "Alan Turing")]
    sure, blind = chunk(text, entities, piece_chars=1), chunk(text, [], piece_chars=1)
    assert spans(text, sure, blind, blind) == []
    (first, _) = pii_model.findings(
        text, LABELS, [sure, chunk(text, entities, confidence=0.7, piece_chars=1)], 0.5
    )
    assert first.score == pytest.approx(0.8 + 0.2 / 9 * 1, abs=0.03)


def test_two_entities_side_by_side_begin_anew():
    text = "Ada Lovelace Alan Turing"
    entities = [("NAME", 0, 12), ("NAME", 13, 24)]
    assert spans(text, chunk(text, entities, piece_chars=1)) == [("NAME", "Ada Lovelace"), ("NAME", "Alan Turing")]


def test_scores_below_the_threshold_are_left():
    text = "Ada Lovelace"
    said = chunk(text, [("NAME", 0, 12)], confidence=0.6, piece_chars=1)
    assert spans(text, said) == [("NAME", text)]
    assert spans(text, said, min_score=0.9) == []
    with pytest.raises(ValueError, match="labels"):
        pii_model.findings(text, LABELS[:3], [said], 0.5)


@pytest.mark.parametrize(
    ("value", "kind", "passes"),
    [
        ("abc", "PASSWORD", False), ("abcd", "PASSWORD", True), ("Madonna", "NAME", False),
        ("Ada Lovelace", "NAME", True),
        ("Xq9Kd0sLq3vB7wZ", "KEY", True), ("Xq9Kd0sL", "KEY", False), ("organization_name", "KEY", False),
        ("93.184.216.34", "IP_ADDRESS", True), ("10.0.0.1", "IP_ADDRESS", False), ("8.8.8.8", "IP_ADDRESS", False),
        ("999.1.2.3", "IP_ADDRESS", False), ("a@b.co", "EMAIL", True),
    ],
)  # fmt: skip
def test_the_published_rules(value, kind, passes):
    assert pii_model.is_entity(value, kind) is passes


def test_kinds_that_redaction_ignores_are_not_found():
    text = "by jane_doe_1980 today"
    assert spans(text, chunk(text, [entity("USERNAME", text, "jane_doe_1980")], piece_chars=1)) == []


def test_punctuation_is_cut_but_behind_keys():
    text = "(Ada Lovelace), Xq9Kd0sLq3vB7wZ=="
    entities = [("NAME", 0, 15), entity("KEY", text, "Xq9Kd0sLq3vB7wZ==")]
    assert spans(text, chunk(text, entities, piece_chars=1)) == [
        ("NAME", "Ada Lovelace"),
        ("KEY", "Xq9Kd0sLq3vB7wZ=="),
    ]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80), st.integers(1, 5), st.integers(0, 2**32))
def test_spans_fit_any_text(text, piece_chars, seed):
    rng = np.random.default_rng(seed)
    places = np.array([(at, min(at + piece_chars, len(text))) for at in range(0, len(text), piece_chars)]).reshape(
        -1, 2
    )
    shares = rng.dirichlet(np.full(len(LABELS), 0.1), len(places)).reshape(-1, len(LABELS))
    said = pii_model.Chunk(places, shares)
    found = pii_model.findings(text, LABELS, [said], 0.0)
    data = text.encode()
    for finding in found:
        value = data[finding.start : finding.end].decode()  # no character is cut
        assert len(value) >= pii_model.MIN_CHARS
        assert value in text
    assert [f.start for f in found] == sorted(f.start for f in found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny encoder with random, fixed weights and a byte-level tokenizer trained on a few lines."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import ByteLevelBPETokenizer

    path = tmp_path_factory.mktemp("model")
    pieces = ByteLevelBPETokenizer()
    lines = ["Copyright (c) Ada Lovelace <ada@company.com>"] * 50
    pieces.train_from_iterator(lines, vocab_size=320, show_progress=False)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=32)
    fast.save_pretrained(path)
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
        initializer_range=2.0,
    )  # fmt: skip
    transformers.BertForTokenClassification(config).save_pretrained(path, safe_serialization=True)
    return path


LINE = "Ünïcode naïve 🎉 {0} jane{0}@company.com, key Xq9Kd0sLq3v{0}B7wZ = 93.184.216.{0}\n"
TEXT = "".join(LINE.format(n) for n in range(20, 60))


def contents(*texts):
    ids = [f"{number:040x}" for number in range(len(texts))]
    return pa.table({"content_id": ids, "text": pa.array(texts, pa.large_string())})


def test_a_long_text_is_covered_by_chunks(folder):
    classifier = runner.load(folder)
    assert classifier.chunk_pieces == 32
    chunks = classifier.chunks(TEXT)
    assert len(chunks) > 20
    covered = np.zeros(len(TEXT), int)
    for offsets, probabilities in chunks:
        assert probabilities.shape == (len(offsets), len(LABELS))
        assert np.allclose(probabilities.sum(axis=1), 1)
        for start, end in offsets:
            covered[start:end] += 1
    assert covered.min() >= 1
    assert covered.max() >= 2  # they overlap


def test_findings_of_the_model_join_those_of_the_rules(folder):
    config = recipe.Pii(model=folder, min_score=0.0)
    table = contents(TEXT, "", None, "nothing at all", "short jane@company.com")
    result = runner.measure(table, config)
    assert result.schema == schema.PII
    rows = result.to_pylist()
    data = TEXT.encode()
    ours = [row for row in rows if row["content_id"] == "0" * 40]
    for first, second in itertools.pairwise(ours):
        assert first["end"] <= second["start"]
    for row in ours:
        data[row["start"] : row["end"]].decode()
    assert {row["detector"] for row in rows} >= {"model", "email"}
    assert all(0 <= row["score"] <= 1 for row in rows)
    covered = {at for row in ours for at in range(row["start"], row["end"])}
    for finding in pii.find(data):  # nothing that a rule found is lost
        assert covered >= set(range(finding.start, finding.end))
    for number in range(5):  # a content's findings do not depend on its neighbours
        alone = runner.measure(table.slice(number, 1), config).to_pylist()
        assert alone == [row for row in rows if row["content_id"] == f"{number:040x}"]


def test_without_a_model_the_rules_speak(folder):
    table = contents(TEXT)
    assert runner.measure(table, recipe.Pii()).equals(pii.measure(table))
    strict = runner.measure(table, recipe.Pii(model=folder, min_score=1.0))
    assert strict.equals(pii.measure(table))


def test_the_fingerprint_follows_the_folder(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert runner.fingerprint(copy) == runner.fingerprint(folder)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.5}))
    assert runner.fingerprint(copy) != runner.fingerprint(folder)


def test_faults_are_explained(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no config\.json"):
        runner.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="does not load"):
        runner.load(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    runner.load.cache_clear()
    with pytest.raises(MachineError, match=r"starsmith\[pii-model\]"):
        runner.load(folder)
