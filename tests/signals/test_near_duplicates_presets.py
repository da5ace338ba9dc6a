"""The presets: `stack-v2` equals an implementation written here from the published script's facts alone."""

import hashlib
import random
import re
import sysconfig
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.corpus.components import connected_components
from starsmith.recipe import NearDuplicates
from starsmith.signals import near_duplicate_stack_v2, near_duplicates

STACK_V2 = NearDuplicates(preset="stack-v2")
STACK_V3 = NearDuplicates(preset="stack-v3")
MODULUS = 4294967291
WORD_MASK = 0xFFFFFFFF
PRIMES = (2654435761, 2246822519, 3266489917, 668265263, 374761393)


def rotated(value, by):
    return (value << by | value >> 32 - by) & WORD_MASK


def python_xxh32(data):
    one, two, three, four, five = PRIMES
    lanes = len(data) // 16 * 4
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data) // 4 * 4, 4)]
    if lanes:
        state = [(one + two) & WORD_MASK, two, 0, -one & WORD_MASK]
        for at in range(lanes):
            state[at % 4] = rotated((state[at % 4] + words[at] * two) & WORD_MASK, 13) * one & WORD_MASK
        value = sum(rotated(word, by) for word, by in zip(state, (1, 7, 12, 18), strict=True))
    else:
        value = five
    value = (value + len(data)) & WORD_MASK
    for word in words[lanes:]:
        value = rotated((value + word * three) & WORD_MASK, 17) * four & WORD_MASK
    for byte in data[len(data) // 4 * 4 :]:
        value = rotated((value + byte * five) & WORD_MASK, 11) * one & WORD_MASK
    value = (value ^ value >> 15) * two & WORD_MASK
    value = (value ^ value >> 13) * three & WORD_MASK
    return value ^ value >> 16


def script_shingles(text, size=5, min_length=5):
    tokens = re.split(r"\W", text.lower())
    if len(tokens) < min_length:
        return set()
    joined = {" ".join(tokens[at : at + size]) for at in range(max(1, len(tokens) - size + 1))}
    return {python_xxh32(shingle.encode()) for shingle in joined}


def script_signature(text, num_permutations=250):
    random_ = np.random.RandomState(42)
    factors = random_.randint(1, MODULUS, size=(num_permutations,), dtype=np.uint32).astype(np.uint64)
    addends = random_.randint(0, MODULUS, size=(num_permutations,), dtype=np.uint32).astype(np.uint64)
    hashes = np.array(sorted(script_shingles(text)), np.uint64)
    values = (np.outer(hashes, factors) + addends) % 2**32 % MODULUS  # below 2^64: nothing else wraps
    return np.vstack([values, np.full(num_permutations, 2**32 - 1, np.uint64)]).min(axis=0).tolist()


def contents(texts):
    ids = [hashlib.sha1(text.encode()).hexdigest() for text in texts]
    rows = [
        {"content_id": i, "blob_id": i, "length_bytes": len(t.encode()), "status": "text", "text": t}
        for i, t in sorted(zip(ids, texts, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema.CONTENTS)


def signatures_by_text(texts, config):
    ids = pa.array([str(number) for number in range(len(texts))], pa.string())
    batch = pa.record_batch([ids, pa.array(texts, pa.large_string())], ["content_id", "text"])
    found, rows = near_duplicates.signatures(batch, config, 7)
    return dict(zip(map(int, found.to_pylist()), rows.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0x02CC5D05), ("a", 0x550D7456), ("abc", 0x32D153FF),
        ("Nobody inspects the spammish repetition", 0xE2293B2F),
        ("a b", 459146835), ("b c", 145323813), ("c d", 433422276),
    ],
)  # fmt: skip
def test_xxh32_has_the_published_values(text, expected):
    data = np.frombuffer(text.encode(), np.uint8)
    if text in ("a b", "b c", "c d"):  # the script's own example says which three, not which is which
        expected = python_xxh32(text.encode())
        assert expected in (145323813, 433422276, 459146835)
    assert near_duplicate_stack_v2.xxh32(data, 0, len(data)) == python_xxh32(text.encode()) == expected


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 3))
def test_xxh32_equals_plain_python(data, start):
    start = min(start, len(data))
    found = near_duplicate_stack_v2.xxh32(np.frombuffer(data, np.uint8), start, len(data))
    assert found == python_xxh32(data[start:])


PIECES = [
    "a",
    "Bc",
    "_",
    "1",
    " ",
    "\n",
    "(",
    "é",
    "É",
    "Σ",
    "ΑΣ",
    "ς",
    "\u0130",
    "\u0307",
    "😀",
    "\u212a",
    "\u023a",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, max_size=3))
@example(["ΟΔΟΣ ΟΔΟΣ. Σ Σ\u0301a aΣ\u0301 'Σ' AΣ\u00ad b", "x\u0130y Z\u0130 \u0130 1 2 3"])
@example(["", "a b c d", "a b c d e", "a.b,c d", "....", "\u023a" * 40 + " a b c d e", "\U00010400 b c d e f"])
def test_stack_v2_signatures_equal_the_script(texts):
    assert signatures_by_text(texts, STACK_V2) == {i: script_signature(text) for i, text in enumerate(texts)}


def test_stack_v2_signatures_of_a_text_longer_than_a_block():
    text = " ".join(f"word{number} (" for number in range(1_500))
    assert signatures_by_text([text], STACK_V2)[0] == script_signature(text)


def test_lower_casing_twice_changes_nothing():
    """Texts with special letters are lower-cased by Python and then again by the kernel's table."""
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    assert text.lower().lower() == text.lower()


@pytest.fixture(scope="module")
def sources():
    rng = random.Random(3)
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [f"{number}" + "-x" * (number % 3) for number in range(90)] + ["", "Σ", "(", "a\u0130b c d e"]
    for path in rng.sample(paths, 30):
        text = path.read_bytes()[:3_000].decode("utf-8", "ignore")
        pieces = re.split(r"(\w+)", text)
        texts.append(text)
        for rate in (0.01, 0.03, 0.06):
            edited = [f"e{rng.randrange(99)}" if rng.random() < rate else piece for piece in pieces]
            texts.append("".join(edited))
    return contents(dict.fromkeys(texts))


def script_clusters(table):
    """The members of each component of what shares a band, by the script's star edges."""
    parents = {}

    def root(node):
        while parents.setdefault(node, node) != node:
            node = parents[node]
        return node

    buckets = defaultdict(list)
    for row in table.to_pylist():
        signature = script_signature(row["text"])
        for band in range(25):
            buckets[band, tuple(signature[10 * band : 10 * band + 10])].append(row["content_id"])
    for members in buckets.values():
        for member in members:
            parents[root(member)] = root(members[0])
    clusters = defaultdict(set)
    for node in list(parents):
        clusters[root(node)].add(node)
    return {frozenset(members) for members in clusters.values() if len(members) > 1}


def clusters_of(pairs):
    clusters = defaultdict(set)
    for row in connected_components(pairs["content_a"], pairs["content_b"]).to_pylist():
        clusters[row["component"]].add(row["id"])
    return {frozenset(members) for members in clusters.values()}


def test_stack_v2_clusters_equal_the_script(sources, tmp_path):
    part = tmp_path / "part.parquet"
    pq.write_table(sources, part)
    pairs = near_duplicates.verified_pairs([part], STACK_V2, 1)
    expected = script_clusters(sources)
    assert clusters_of(pairs) == expected
    assert len(expected) > 10
    assert max(map(len, expected)) > near_duplicates.FULL_BUCKET  # the texts of fewer than 5 words are one cluster
    texts = dict(zip(sources["content_id"].to_pylist(), sources["text"].to_pylist(), strict=True))
    for row in pairs.to_pylist()[::40]:
        a, b = (script_signature(texts[row[side]]) for side in ("content_a", "content_b"))
        assert row["jaccard"] == sum(x == y for x, y in zip(a, b, strict=True)) / 250
    assert near_duplicates.verified_pairs([part], STACK_V2, 2) == pairs  # the script's seed is its own


def test_stack_v3_verifies_by_the_estimate_and_leaves_short_texts_alone(sources, tmp_path):
    part = tmp_path / "part.parquet"
    pq.write_table(sources, part)
    found = near_duplicates.verified_pairs([part], STACK_V3, 1)
    ids = sources["content_id"].to_pylist()
    rows = {ids[i]: row for i, row in signatures_by_text(sources["text"].to_pylist(), STACK_V3).items()}
    short = {row["content_id"] for row in sources.to_pylist() if len(re.findall(r"\w+", row["text"])) < 5}
    assert len(short) > 90
    assert not short & rows.keys()
    table = near_duplicates.signatures_of(part, STACK_V3, 1)
    signed = {row["content_id"]: row["signature"] for row in table.to_pylist()}
    estimates = {}
    values = {i: np.frombuffer(s, "<u4") for i, s in signed.items() if s is not None}
    assert values.keys() == rows.keys()
    for a in sorted(values):
        for b in sorted(values):
            same = values[a] == values[b]
            if a < b and same.mean() >= 0.7 and same[:250].reshape(25, 10).all(axis=1).any():
                estimates[a, b] = same.mean()
    assert {(row["content_a"], row["content_b"]): row["jaccard"] for row in found.to_pylist()} == estimates
    assert len(estimates) > 15


@pytest.mark.parametrize(
    "changes",
    [{"hashing": "fast-similarity"}, {"words": "runs"}, {"verification": "exact"}, {"verification": "estimated"}],
)
def test_keys_can_be_mixed_with_a_preset(changes, sources, tmp_path):
    """Texts without any shingle share their signature, and are equal also where sets are compared exactly."""
    part = tmp_path / "part.parquet"
    pq.write_table(sources, part)
    pairs = near_duplicates.verified_pairs([part], NearDuplicates(preset="stack-v2", **changes), 1)
    ids = {row["content_id"] for row in sources.to_pylist() if len(re.split(r"\W", row["text"].lower())) < 5}
    assert any(ids <= cluster for cluster in clusters_of(pairs))
    assert all(
        row["jaccard"] == 1 for row in pairs.to_pylist() if row["content_a"] in ids and row["content_b"] in ids
    )
