"""Near-duplicates: kernels equal plain Python, estimates are unbiased, pairs equal exact all-pairs Jaccard."""

import errno
import functools
import hashlib
import itertools
import os
import pickle
import random
import re
import sysconfig
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.corpus.components import connected_components
from starsmith.errors import MachineError
from starsmith.recipe import NearDuplicates
from starsmith.signals import (
    minhash_kernels,
    near_duplicate_candidates,
    near_duplicate_packing,
    near_duplicate_signing,
    near_duplicates,
    shingle_kernels,
)
from starsmith.signals.code_points import WORD, lower_case, properties

CONFIG = NearDuplicates()
MASK = (1 << 64) - 1


def contents(texts):
    """Contents in the order of their identifiers."""
    rows = {}
    for text in texts:
        data = text.encode()
        content_id = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        rows[content_id] = {
            "content_id": content_id,
            "blob_id": content_id,
            "length_bytes": len(data),
            "status": "text",
            "src_encoding": "utf-8",
            "text": text,
        }
    return pa.Table.from_pylist([rows[content_id] for content_id in sorted(rows)], schema.CONTENTS)


def write_parts(folder, table, num_parts):
    parts = [folder / f"{number}.parquet" for number in range(num_parts)]
    for number, part in enumerate(parts):
        pq.write_table(table.take(list(range(number, table.num_rows, num_parts))), part)
    return parts


def pairs_of(table):
    return {(row["content_a"], row["content_b"]): row["jaccard"] for row in table.to_pylist()}


def python_words(text, words="runs"):
    if words == "split":
        return re.split(r"\W", text.lower())
    lowered = "".join(character.lower() if character != "\u0130" else character for character in text)
    return re.findall(r"\w+", lowered)


def python_shingles(text, num_words, words="runs", short_is_whole=True):
    found = python_words(text, words)
    if 0 < len(found) < num_words and short_is_whole:
        return [tuple(found)]
    return [tuple(found[at : at + num_words]) for at in range(len(found) - num_words + 1)]


def python_mix(value):
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def python_word_hash(word, key):
    data = word.encode()
    first, second, *others = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)] + [
        0,
        0,
    ]
    hashed = (first + key) * (key | 1) & MASK
    hashed = (hashed ^ hashed >> 32) * 0xBF58476D1CE4E5B9 & MASK
    hashed = (hashed + second) * 0x94D049BB133111EB & MASK
    hashed ^= hashed >> 32
    for piece in others[: max(0, (len(data) - 9) // 8)]:
        hashed = python_mix(hashed + piece & MASK)
    return hashed


def python_shingle_hash(shingle, key):
    polynomial = 0
    for word in shingle:
        polynomial = (polynomial * 0xD1342543DE82EF95 + python_word_hash(word, key)) & MASK
    return (polynomial ^ polynomial >> 32) * 0xBF58476D1CE4E5B9 & MASK


def python_key(seed):
    return int.from_bytes(hashlib.shake_256(f"starsmith near-duplicates {seed}".encode()).digest(8), "little")


def python_fast_similarity(hashes, num_values):
    """The definition, value by value: the smallest that falls there, or else that of a function of its own."""
    signature = []
    for value in range(num_values):
        here = [h & 0xFFFFFFFF for h in hashes if (h >> 32) * num_values >> 32 == value]
        key = python_mix((value + 1) * 0x9E3779B97F4A7C15 & MASK)
        others = [((h >> 32) * (key >> 32 | 1) + key) & 0xFFFFFFFF for h in hashes]
        signature.append(min(here or others))
    return signature


def exact_pairs(table, config):
    """All pairs of contents at the threshold, by sets of tuples of words."""
    sets = [set(python_shingles(text, config.shingle_words)) for text in table["text"].to_pylist()]
    ids = table["content_id"].to_pylist()
    pairs = {}
    for (a, set_a), (b, set_b) in itertools.combinations(zip(ids, sets, strict=True), 2):
        if set_a and set_b and min(len(set_a), len(set_b)) >= config.threshold * max(len(set_a), len(set_b)) - 1:
            shared = len(set_a & set_b)
            if shared / (len(set_a) + len(set_b) - shared) >= config.threshold:
                pairs[a, b] = shared / (len(set_a) + len(set_b) - shared)
    return pairs


PIECES = ["a", "b", "Ab", "_", "1", " ", "\n", "(", "é", "É", "漢", "Σ", "ς", "\u0130", "\u0301", "😀", "İi", "x1"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(TEXTS, max_size=4),
    st.integers(1, 6),
    st.integers(0, 2**70),
    st.sampled_from(["runs", "split"]),
    st.sampled_from(["whole", "alone"]),
)
@example([""], 5, 1, "split", "whole")
@example(["", "a", "é", " ", "\U0001f600"], 1, 1, "split", "whole")
@example(["a", "a b c d e", "a b c d e f"], 5, 1, "runs", "alone")
def test_shingles_equal_plain_python(texts, num_words, seed, words, short_texts):
    config = NearDuplicates(shingle_words=num_words, words=words, short_texts=short_texts)
    found = near_duplicate_signing.shingles(pa.array(texts, pa.string()), config, seed)
    expected = [python_shingles(text, num_words, words, short_texts == "whole") for text in texts]
    key = python_key(seed)
    assert np.diff(found.starts).tolist() == [len(own) for own in expected]
    assert found.hashes.tolist() == [python_shingle_hash(shingle, key) for own in expected for shingle in own]


NUMBERS = st.integers(0, 12) | st.integers(0, MASK) | st.sampled_from([MASK, MASK - 1, 1 << 63])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(NUMBERS, max_size=40), min_size=1, max_size=5), st.sampled_from([0.0, 0.7]))
@example([set(), {0}, {MASK}, {0, MASK}, set(range(400))], 0.0)
def test_jaccards(sets, threshold):
    """However uneven: all pairs, among them those of a set with itself and with none."""
    offsets = np.cumsum([0, *map(len, sets)])
    numbers = np.array([number for own in sets for number in sorted(own)], np.uint64)
    pairs = list(itertools.product(range(len(sets)), repeat=2))
    left, right = np.array(pairs).T.copy()
    found = shingle_kernels.jaccards(numbers, offsets, left, right, threshold)
    for (a, b), similarity in zip(pairs, found, strict=True):
        union = sets[a] | sets[b]
        expected = len(sets[a] & sets[b]) / len(union) if union else 1.0
        sizes = sorted([len(sets[a]), len(sets[b])])
        assert similarity == expected or (similarity == 0 and sizes[0] < threshold * sizes[1])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40),
    st.lists(st.integers(0, 30), min_size=10, max_size=10),
)
def test_blocks_of_pairs_are_within_their_limit_and_as_long_as_they_can_be(pairs, sizes):
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    starts = minhash_kernels.pair_blocks(left, right, np.array(sizes), 50).tolist()

    def needed(block):
        return sum(sizes[thing] for thing in set(itertools.chain(*block)))

    assert starts[0] == 0 and starts[-1] == len(pairs)
    for first, last in itertools.pairwise(starts):
        assert last - first == 1 or (first < last and needed(pairs[first:last]) <= 50)
        assert last == len(pairs) or needed(pairs[first : last + 1]) > 50


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(NUMBERS, max_size=60), max_size=5), st.integers(0, 9))
@example([[0], [], [0, 0, MASK, 0], [7, MASK, 7] * 50], 0)
@example([[number * 0x9E3779B97F4A7C15 & MASK for number in range(20_000)] * 2], 3)
def test_words_are_unpacked_as_they_were_packed(texts, num_before):
    """Wherever their records stand, and in a room that holds something else."""
    starts = np.cumsum([0, *map(len, texts)])
    words = np.array([word for text in texts for word in text], np.uint64)
    records = np.full(near_duplicate_packing.room(len(words), len(texts)), MASK, np.uint64)
    sizes = near_duplicate_packing.pack(words, starts, records)
    assert sizes.sum() <= len(records)
    again = np.full_like(records, num_before)
    assert near_duplicate_packing.pack(words, starts, again).tolist() == sizes.tolist()
    assert again[: sizes.sum()].tolist() == records[: sizes.sum()].tolist()
    out = np.full(len(words) + num_before, num_before, np.uint64)
    found = near_duplicate_packing.unpack(records[: sizes.sum()], sizes, np.diff(starts), out)
    assert found.tolist() == starts.tolist()
    assert (out[: len(words)] == words).all()


def test_repeated_words_take_two_bytes():
    words = np.tile(np.arange(1, 101, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), 1_000)
    records = np.zeros(near_duplicate_packing.room(len(words), 1), np.uint64)
    (size,) = near_duplicate_packing.pack(words, np.array([0, len(words)]), records)
    assert 8 * size < 2.2 * len(words)


@pytest.mark.parametrize("short_texts", ["whole", "alone"])
@pytest.mark.parametrize("words", ["runs", "split"])
def test_shingles_are_those_of_packed_words(words, short_texts):
    texts = ["", "a", "a b c d e f a b c d e f", "--", None, "x " * 3_000, "one two three four five"]
    config = NearDuplicates(words=words, short_texts=short_texts)
    column, room = pa.array(texts, pa.large_string()), near_duplicate_signing.Room()
    expected = near_duplicate_signing.shingles(column, config, 1)
    found = near_duplicate_signing.unpacked(near_duplicate_signing.packed(column, config, 1, room), config)
    assert found.starts.tolist() == expected.starts.tolist()
    assert found.hashes.tolist() == expected.hashes.tolist()


LENGTHS = [1, 4095, 4096, 4097, *range(8183, 8195), 12_289, 16_383, 16_384, 40_001]


@pytest.mark.parametrize("words", ["runs", "split"])
def test_windows_cut_no_word(words):
    """Words and what parts them across the ends of the windows in which a text is read."""
    texts = []
    for length in LENGTHS:
        texts += ["a" * length, "-" * length, "ab-" * (length // 3) + "\u00e9", "b " + "a" * length + " c"]
        texts += ["\u00c9" * (length // 2) + "x-y", "\U0001f600" * (length // 4) + "x", "a" * length + "-"]
    config = NearDuplicates(shingle_words=2, words=words)
    found = near_duplicate_signing.shingles(pa.array(texts, pa.string()), config, 3)
    expected = [python_shingles(text, 2, words) for text in texts]
    assert np.diff(found.starts).tolist() == [len(own) for own in expected]
    hash_of = functools.cache(functools.partial(python_shingle_hash, key=python_key(3)))
    assert found.hashes.tolist() == [hash_of(shingle) for own in expected for shingle in own]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60))
def test_distinct(numbers):
    assert near_duplicate_signing.distinct(np.array(numbers, np.uint64)).tolist() == sorted(set(numbers))


def test_lower_case_keeps_words_words():
    assert (properties()[lower_case()] & WORD == properties() & WORD).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(TEXTS, max_size=4),
    st.integers(1, 6),
    st.integers(0, 2**70),
    st.sampled_from(["fast-similarity", "multiply-shift"]),
)
@example(["a", "a b c", "one two three four five six seven eight"], 1, 42, "fast-similarity")
def test_signatures_equal_plain_python(texts, num_words, seed, hashing):
    config = NearDuplicates(shingle_words=num_words, num_permutations=12, bands=3, rows=4, hashing=hashing)
    ids = pa.array([str(number) for number in range(len(texts))], pa.string())
    batch = pa.record_batch([ids, pa.array(texts, pa.large_string())], ["content_id", "text"])
    found_ids, rows = near_duplicates.signatures(batch, config, seed)

    stream = hashlib.shake_256(f"starsmith near-duplicates {seed}".encode()).digest(8 * 25)
    key, *numbers = (int.from_bytes(stream[at : at + 8], "little") for at in range(0, len(stream), 8))
    expected = {}
    for number, text in enumerate(texts):
        hashes = [python_shingle_hash(s, key) for s in python_shingles(text, num_words)]
        if hashes and hashing == "fast-similarity":
            expected[str(number)] = python_fast_similarity(hashes, 12)
        elif hashes:
            expected[str(number)] = [
                min((a * (x >> 32) + b + 2**63 & MASK) >> 32 for x in hashes)
                for a, b in zip(numbers[:12], numbers[12:], strict=True)
            ]
    assert dict(zip(found_ids.to_pylist(), rows.tolist(), strict=True)) == expected


def sign_one(text, config, seed=1):
    batch = pa.record_batch([pa.array(["x"]), pa.array([text], pa.large_string())], ["content_id", "text"])
    return near_duplicates.signatures(batch, config, seed)[1][0]


def test_signatures_of_texts_longer_than_a_block():
    config = NearDuplicates(preset="stack-v3")
    text = " ".join(2 * [f"w{number}" for number in range(5_000)])
    hashes = np.unique(near_duplicate_signing.shingles(pa.array([text]), config, 1).hashes)
    assert len(hashes) == 5_000
    hashing = near_duplicate_signing._hashing(1, config.num_permutations)
    products = (hashes >> np.uint64(32))[:, None] * hashing.multipliers.view(np.uint64)
    values = products + hashing.addends.view(np.uint64) + np.uint64(2**63)
    assert (sign_one(text, config) == (values >> np.uint64(32)).min(axis=0)).all()


@pytest.mark.parametrize("num_words", [1, 10, 300, 5_000, 20_000])
@pytest.mark.parametrize("hashing", ["fast-similarity", "multiply-shift", "stack-v2"])
def test_repetition_does_not_change_a_signature(num_words, hashing):
    config = NearDuplicates(shingle_words=1, hashing=hashing)
    words = [f"w{number}" for number in range(num_words)]
    once, again = " ".join(words), " ".join(words * (1 + 60_000 // num_words))
    assert (sign_one(once, config) == sign_one(again, config)).all()


def test_a_long_text_of_one_word_takes_no_longer_than_others():
    """Rounds over millions of equal shingles would take minutes."""
    start = time.process_time()
    sign_one("same " * 4_000_000, CONFIG)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(("num_shared", "num_own"), [(1, 4), (5, 5), (10, 5), (40, 10), (300, 150), (30, 300)])
@pytest.mark.parametrize("hashing", ["fast-similarity", "multiply-shift"])
def test_the_estimate_of_jaccard_is_unbiased(num_shared, num_own, hashing):
    """Over many seeds the mean lies within four standard errors of the truth."""
    shared = [f"shared{number}" for number in range(num_shared)]
    sides = [" ".join(shared + [f"{side}{number}" for number in range(num_own)]) for side in "ab"]
    truth = num_shared / (num_shared + 2 * num_own)
    config = NearDuplicates(shingle_words=1, hashing=hashing)
    batch = pa.record_batch([pa.array(["a", "b"]), pa.array(sides, pa.large_string())], ["content_id", "text"])
    estimates = []
    for seed in range(100):
        _, rows = near_duplicates.signatures(batch, config, seed)
        estimates.append(np.mean(rows[0] == rows[1]))
    standard_error = np.std(estimates, ddof=1) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - truth) < 4 * standard_error
    assert standard_error < 1.5 * (truth * (1 - truth) / config.num_permutations / len(estimates)) ** 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_bands_agree_exactly_when_their_rows_do(num_texts, bands, rows, seed):
    values = np.random.default_rng(seed).integers(0, 2, (num_texts, bands * rows + 1)).astype(np.uint32)
    hashes = minhash_kernels.band_hashes(values, bands, rows).T
    assert hashes.shape == (num_texts, bands)
    for band, (i, j) in itertools.product(range(bands), itertools.combinations(range(num_texts), 2)):
        same = (values[i, band * rows : (band + 1) * rows] == values[j, band * rows : (band + 1) * rows]).all()
        assert (hashes[i, band] == hashes[j, band]) == same


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=60), st.integers(2, 8), st.integers(1, 2), st.integers(1, 4))
def test_bucket_pairs(buckets, full, num_first, num_previous):
    order = sorted(range(len(buckets)), key=lambda member: (buckets[member], member % 3, member))
    members = np.array(order, np.int64)
    hashes = np.array([buckets[member] for member in order], np.uint64)
    expected = set()
    for bucket in set(buckets):
        group = sorted(member for member in order if buckets[member] == bucket)
        for place, member in enumerate(group):
            start = 0 if len(group) <= full else max(0, place - num_previous)
            others = group[start:place]
            if len(group) > full:
                others += group[: min(place, num_first)]
            expected |= {(other, member) for other in others}
    pairs = minhash_kernels.bucket_pairs(hashes, members, full, num_first, num_previous).tolist()
    assert {divmod(pair, 2**32) for pair in pairs} == expected
    assert len(pairs) == len(expected) <= len(buckets) * max(full / 2, num_first + num_previous)


def mutated(text, rate, rng):
    """Words replaced, removed and repeated at a rate: an edit touches up to five shingles."""
    pieces = re.split(r"(\w+)", text)
    for at in range(1, len(pieces), 2):
        if rng.random() < rate:
            pieces[at] = rng.choice([f"edit{rng.randrange(10**6)}", "", f"{pieces[at]} {pieces[at]}"])
    return "".join(pieces)


@pytest.fixture(scope="module")
def edited_sources():
    rng = random.Random(7)
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = []
    for path in rng.sample(paths, 50):
        text = path.read_bytes()[:12_000].decode("utf-8", "ignore")
        texts += [
            text,
            text.replace("    ", "\t"),
            *(mutated(text, rate, rng) for rate in (0.01, 0.02, 0.04, 0.06, 0.1)),
        ]
    return contents([*texts, "", " \n", "one two", "One, two", "one two three"])


def test_pairs_equal_exact_jaccard(edited_sources, tmp_path, capsys):
    expected = exact_pairs(edited_sources, CONFIG)
    found = pairs_of(near_duplicates.verified_pairs(write_parts(tmp_path, edited_sources, 3), CONFIG, 42))
    recall = len(found) / len(expected)
    bands = {
        low: [pair in found for pair, j in expected.items() if low <= j < low + 0.1] for low in (0.7, 0.8, 0.9)
    }
    with capsys.disabled():
        print(f"\n{len(expected)} pairs, recall {recall:.4f},", {k: f"{np.mean(v):.3f}" for k, v in bands.items()})
    assert len(expected) > 300
    assert all(len(hits) > 30 for hits in bands.values())
    assert found.items() <= expected.items()  # none that is not, and every similarity exact
    assert recall >= 0.99
    assert np.mean(bands[0.7]) >= 0.97


def test_partitions_their_order_and_the_type_of_the_seed_change_nothing(edited_sources, tmp_path):
    few = edited_sources.slice(0, 150)
    whole = near_duplicates.verified_pairs(write_parts(tmp_path, few, 1), CONFIG, 42)
    assert whole.num_rows > 20
    assert whole.schema == schema.NEAR_DUPLICATE_PAIRS
    order = [(row["content_a"], row["content_b"]) for row in whole.to_pylist()]
    assert order == sorted(set(order))
    assert all(a < b for a, b in order)

    parts = write_parts(tmp_path, few, 4)
    tables = []
    for part in reversed(parts):
        tables.append(part.with_name(f"signatures-{part.name}"))
        pq.write_table(near_duplicates.signatures_of(part, CONFIG, np.int64(42)), tables[-1], row_group_size=7)
    shuffled = [parts[number] for number in (2, 0, 3, 1)]
    seen = []
    split = near_duplicates.pairs_from(
        tables, shuffled, CONFIG, 42, lambda done, total: seen.append((done, total)), scratch=tmp_path
    )
    assert split == whole
    assert seen == [(step, len(seen)) for step in range(1, len(seen) + 1)]
    assert not list(tmp_path.glob("near-duplicates-*"))


def test_another_seed_changes_the_signatures_and_not_the_pairs(edited_sources, tmp_path):
    parts = write_parts(tmp_path, edited_sources.slice(0, 100), 1)
    config = NearDuplicates(threshold=0.85)
    assert near_duplicates.signatures_of(parts[0], config, 1) != near_duplicates.signatures_of(parts[0], config, 2)
    one, two = (near_duplicates.verified_pairs(parts, config, seed) for seed in (1, 2))
    assert one == two
    assert one.num_rows


def test_short_texts_compare_by_all_their_words(tmp_path):
    texts = ["", "()", "{}", "a", "A;", "b", "a b", "a, b", "b a", "a b c d", "A B C-D", "a b c d e"]
    table = contents(texts)
    found = pairs_of(near_duplicates.verified_pairs(write_parts(tmp_path, table, 2), CONFIG, 42))
    names = dict(zip(table["content_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    assert {frozenset(names[side] for side in pair) for pair in found} == {
        frozenset(pair) for pair in (("a", "A;"), ("a b", "a, b"), ("a b c d", "A B C-D"))
    }
    assert set(found.values()) == {1.0}


def test_contents_without_text_are_left_out(tmp_path):
    table = pa.concat_tables([contents(["same words in both of them"]), contents(["same words in both of them!"])])
    other = pa.table({name: table[name] for name in table.column_names if name != "text"})
    other = other.append_column(schema.CONTENTS.field("text"), pa.nulls(2, pa.large_string()))
    part = tmp_path / "part.parquet"
    pq.write_table(other, part)
    assert near_duplicates.signatures_of(part, CONFIG, 1)["signature"].null_count == 2
    assert near_duplicates.verified_pairs([part], CONFIG, 1) == schema.NEAR_DUPLICATE_PAIRS.empty_table()
    assert near_duplicates.verified_pairs([], CONFIG, 1) == schema.NEAR_DUPLICATE_PAIRS.empty_table()


def test_a_thousand_copies_cost_a_bounded_number_of_pairs_and_stay_one_component(tmp_path):
    num_copies = 1_500
    table = contents([f"the same six words in all{'!' * number}" for number in range(num_copies)])
    pairs = near_duplicates.verified_pairs(write_parts(tmp_path, table, 2), CONFIG, 42)
    assert pairs.num_rows <= num_copies * (near_duplicates.FIRST + near_duplicates.PREVIOUS)
    dropped = set(table["content_id"].to_pylist()[: near_duplicates.FIRST])
    left = [pair for pair in pairs_of(pairs) if not dropped & set(pair)]
    columns = (pa.chunked_array([[pair[side] for pair in left]]) for side in (0, 1))
    assert len(set(connected_components(*columns)["component"].to_pylist())) == 1


def test_large_buckets_hide_no_pair(tmp_path, monkeypatch):
    """Texts that share 7 of 10 words share many buckets; each has one true near-duplicate among 400."""
    for limit, value in (("FULL_BUCKET", 4), ("FIRST", 1), ("PREVIOUS", 1)):
        monkeypatch.setattr(near_duplicate_candidates, limit, value)
    common = [f"licence{number}" for number in range(300)]
    texts = []
    for family in range(200):
        words = common + [f"own{family}x{number}" for number in range(60)]
        texts += [" ".join(words), " ".join([*words, "end"])]
    table = contents(texts)
    config = NearDuplicates(shingle_words=1, bands=10, rows=6, threshold=0.9)
    forward, backward = tmp_path / "forward.parquet", tmp_path / "backward.parquet"
    pq.write_table(table, forward)
    pq.write_table(table.take(list(range(table.num_rows - 1, -1, -1))), backward)
    found = near_duplicates.verified_pairs([forward], config, 5)
    assert found.num_rows >= 0.99 * 200
    assert near_duplicates.verified_pairs([backward], config, 5) == found


def test_large_buckets_do_not_depend_on_the_order_of_rows(tmp_path, monkeypatch):
    for limit, value in (("FULL_BUCKET", 2), ("FIRST", 1), ("PREVIOUS", 1)):
        monkeypatch.setattr(near_duplicate_candidates, limit, value)
    common = " ".join(f"w{number}" for number in range(60))
    table = contents([f"{common} own{number % 20} {'!' * number}" for number in range(80)])
    parts = write_parts(tmp_path, table, 3)
    config = NearDuplicates(bands=1, rows=3)
    found = near_duplicates.verified_pairs(parts, config, 5)
    assert 0 < found.num_rows < 80 * 79 // 2
    assert near_duplicates.verified_pairs(parts[::-1], config, 5) == found


def test_a_pair_exactly_at_the_threshold_is_kept(tmp_path):
    words = [f"w{number}" for number in range(10)]
    table = contents([" ".join(words), " ".join(words[:7])])
    config = NearDuplicates(shingle_words=1, threshold=0.7)
    assert list(pairs_of(near_duplicates.verified_pairs(write_parts(tmp_path, table, 1), config, 3)).values()) == [
        0.7
    ]
    above = NearDuplicates(shingle_words=1, threshold=0.7001)
    assert near_duplicates.verified_pairs(write_parts(tmp_path, table, 1), above, 3).num_rows == 0


def test_tables_that_do_not_belong_together_are_refused(tmp_path):
    table = contents(["one two three four five six", "one two three four five six!", "another one"])
    part, *_ = write_parts(tmp_path, table, 1)
    signed = tmp_path / "signed.parquet"
    pq.write_table(near_duplicates.signatures_of(part, CONFIG, 1), signed)
    with pytest.raises(ValueError, match="signed twice"):
        near_duplicates.pairs_from([signed, signed], [part], CONFIG, 1)
    with pytest.raises(ValueError, match="no text for"):
        near_duplicates.pairs_from([signed], [], CONFIG, 1)
    with pytest.raises(ValueError, match="not of 300 permutations"):
        near_duplicates.pairs_from([signed], [part], NearDuplicates(num_permutations=300), 1)


def test_a_full_disk_is_told_before_anything_is_mapped(tmp_path, monkeypatch):
    part, *_ = write_parts(tmp_path, contents(["one two", "one, two"]), 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MachineError, match="disk is full"):
        near_duplicates.verified_pairs([part], CONFIG, 1, scratch=tmp_path)
    assert not list(tmp_path.glob("near-duplicates-*"))


def test_signing_can_be_sent_to_a_worker():
    job = functools.partial(near_duplicates.signatures_of, config=CONFIG, seed=1)
    assert pickle.loads(pickle.dumps(job)).func is near_duplicates.signatures_of
