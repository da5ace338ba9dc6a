"""The certificate counts what trying all pairs counts, shows planted errors, and does not depend on the layout."""

import itertools
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.corpus.swhid import content_id
from starsmith.signals import near_duplicate_quality, near_duplicates
from starsmith.signals.near_duplicate_quality import certify, effective_trials, wilson

SEED = 7
CONFIG = recipe.NearDuplicates()


def words(number: int, generator: random.Random) -> list[str]:
    return [f"w{generator.randrange(10_000)}" for _ in range(number)]


def edited(text: list[str], share: float, generator: random.Random) -> list[str]:
    """The text with a share of its words replaced, in one run: of shingles, nearly that share changes."""
    length = round(share * len(text))
    start = generator.randrange(len(text) - length)
    return [*text[:start], *words(length, generator), *text[start + length :]]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Families around 12 texts, three of them longer than what is only glanced at, and texts without a family."""
    generator = random.Random(3)
    found = []
    for family in range(12):
        base = words(1500 if family < 3 else 150, generator)
        found.append(base)
        found += [edited(base, share, generator) for share in (0.03, 0.1, 0.15, 0.2, 0.3, 0.4)]
    found += [words(200, generator) for _ in range(20)]
    repeated = words(30, generator)
    return [" ".join(text) for text in found] + [" ".join(repeated * 40), " ".join(repeated * 3), "?!", "a b"]


def written(texts: list[str], folder: Path, num_parts: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rows = [
        {"content_id": content_id(text.encode()), "blob_id": "0" * 40, "length_bytes": len(text)}
        | {"status": "text", "src_encoding": "utf-8", "text": text}
        for text in texts
    ]
    nothing = {"content_id": "0" * 40, "blob_id": "0" * 40, "length_bytes": 9, "status": "binary"}
    rows.append(nothing | {"src_encoding": None, "text": None})
    rows.sort(key=lambda row: row["content_id"])
    parts = []
    for number in range(num_parts):
        parts.append(folder / f"{number}.parquet")
        pq.write_table(pa.Table.from_pylist(rows[number::num_parts], schema=schema.CONTENTS), parts[-1])
    return parts


@pytest.fixture(scope="module")
def parts(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return written(texts, tmp_path_factory.mktemp("parts"))


def jaccards(texts: list[str]) -> dict[tuple[str, str], float]:
    """All pairs, by Python's sets."""
    sets = {}
    for text in texts:
        found = re.findall(r"\w+", text.lower())
        shingles = {tuple(found[place : place + 5]) for place in range(max(1, len(found) - 4))} if found else set()
        if shingles:
            sets[content_id(text.encode())] = shingles
    return {
        (left, right): len(sets[left] & sets[right]) / len(sets[left] | sets[right])
        for left, right in itertools.combinations(sorted(sets), 2)
    }


def pairs_table(pairs: dict[tuple[str, str], float]) -> pa.Table:
    rows = [
        {"content_a": a, "content_b": b, "jaccard": similarity} for (a, b), similarity in sorted(pairs.items())
    ]
    return pa.Table.from_pylist(rows, schema=schema.NEAR_DUPLICATE_PAIRS)


def row_of(table: pa.Table, lower: float, upper: float) -> dict[str, float]:
    (row,) = [row for row in table.to_pylist() if (row["lower"], row["upper"]) == (lower, upper)]
    return row


def test_counts_are_those_of_trying_all_pairs(texts: list[str], parts: list[Path]) -> None:
    exact = jaccards(texts)
    result = {pair: similarity for pair, similarity in exact.items() if similarity >= 0.7}
    missed = sorted(result)[:3]
    for pair in missed:
        del result[pair]
    table = certify(parts, pairs_table(result), CONFIG, SEED)
    assert table.schema.equals(schema.NEAR_DUPLICATE_QUALITY)
    ranges = [(row["lower"], row["upper"]) for row in table.to_pylist()]
    assert ranges == [
        (0.0, 0.4), (0.4, 0.5), (0.4, 0.7), (0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.7, 1.0), (0.8, 0.9), (0.9, 1.0),
    ]  # fmt: skip
    clusters = _clusters(set(result))
    for row in table.to_pylist():
        last = row["upper"] == 1.0
        inside = [p for p, s in exact.items() if row["lower"] <= s < row["upper"] or (last and s == 1.0)]
        assert row["num_pairs"] == 2 * len(inside), row  # each pair is seen from both sides: all are sampled
        assert row["num_linked"] == 2 * sum(pair in result for pair in inside), row
        assert row["num_joined"] == 2 * sum(clusters.get(a, a) == clusters.get(b, b) for a, b in inside), row
        assert row["num_contents"] == len({content for pair in inside for content in pair}), row
        assert row["interval_low"] <= row["fraction"] <= row["interval_high"]
    assert row_of(table, 0.4, 0.7)["fraction"] == 0
    assert row_of(table, 0.4, 0.7)["num_pairs"] > 40
    above = row_of(table, 0.7, 1.0)
    assert above["num_linked"] < above["num_joined"] < above["num_pairs"]  # a chain joins some of the three
    assert above["fraction"] == above["num_joined"] / above["num_pairs"]


def _clusters(pairs: set[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for a, b in pairs:
        old, new = labels.get(b, b), labels.get(a, a)
        labels |= {a: new, b: new}
        labels = {content: new if label == old else label for content, label in labels.items()}
    return labels


def test_missed_pairs_and_false_merges_show(texts: list[str], parts: list[Path]) -> None:
    exact = jaccards(texts)
    above = {pair for pair, similarity in exact.items() if similarity >= 0.7}
    below = sorted(pair for pair, similarity in exact.items() if 0.5 <= similarity < 0.6)
    nothing = certify(parts, schema.NEAR_DUPLICATE_PAIRS.empty_table(), CONFIG, SEED)
    assert row_of(nothing, 0.7, 1.0)["fraction"] == 0
    assert row_of(nothing, 0.7, 1.0)["num_pairs"] == 2 * len(above)
    # what says of itself that it is above the threshold, and is not
    wrong = certify(parts, pairs_table(dict.fromkeys(below[:2], 0.8)), CONFIG, SEED)
    assert row_of(wrong, 0.5, 0.6)["num_linked"] == 4
    assert row_of(wrong, 0.4, 0.7)["fraction"] == pytest.approx(4 / row_of(wrong, 0.4, 0.7)["num_pairs"])
    # a pair below the threshold counts where nothing is verified, and only there
    unverified = CONFIG.model_copy(update={"verification": "none"})
    weak = pairs_table(dict.fromkeys(below[:2], 0.1))
    assert row_of(certify(parts, weak, unverified, SEED), 0.5, 0.6)["num_joined"] == 4
    assert row_of(certify(parts, weak, CONFIG, SEED), 0.5, 0.6)["num_joined"] == 0


def test_the_unverified_preset_merges_falsely_and_the_default_does_not(tmp_path: Path) -> None:
    generator = random.Random(5)
    texts = []
    for _ in range(60):
        base = words(200, generator)
        texts += [" ".join(base), " ".join(edited(base, 0.2, generator))]  # a Jaccard similarity of some 0.65
    parts = written(texts, tmp_path)
    shares = {}
    for preset in ("starsmith", "stack-v2"):
        config = recipe.NearDuplicates.model_validate({"preset": preset})
        table = certify(parts, near_duplicates.verified_pairs(parts, config, SEED), config, SEED)
        assert row_of(table, 0.4, 0.7)["num_pairs"] > 100
        shares[preset] = row_of(table, 0.4, 0.7)["fraction"]
    assert shares["starsmith"] == 0
    assert shares["stack-v2"] > 0.05


def test_layout_and_shingle_files_change_nothing(texts: list[str], parts: list[Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"quality_sample": 25})
    pairs = near_duplicates.verified_pairs(parts, config, SEED)
    expected = certify(parts, pairs, config, SEED)
    assert row_of(expected, 0.0, 0.4)["num_contents"] <= 25
    assert certify(written(texts, tmp_path / "other", 2)[::-1], pairs, config, SEED).equals(expected)
    files = []
    for number, part in enumerate(parts[:2]):
        files.append(tmp_path / str(number))
        near_duplicates.signatures_of(part, config, SEED, shingle_file=files[-1])
    calls: list[tuple[int, int]] = []
    found = certify(parts, pairs, config, SEED, lambda *at: calls.append(at), shingle_files=files)
    assert found.equals(expected)
    assert calls == [(number, 5) for number in range(1, 6)]
    assert not certify(parts, pairs, config, SEED + 1).equals(expected)


def test_the_sample_is_cut_where_counting_would_be_dear(
    parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = near_duplicates.verified_pairs(parts, CONFIG, SEED)
    whole = row_of(certify(parts, pairs, CONFIG, SEED), 0.0, 0.4)["num_contents"]
    monkeypatch.setattr(near_duplicate_quality, "COUNTS_PER_CONTENT", 200)
    fewer = row_of(certify(parts, pairs, CONFIG, SEED), 0.0, 0.4)["num_contents"]
    monkeypatch.setattr(near_duplicate_quality, "MAX_SAMPLE_SHINGLES", 1)
    assert row_of(certify(parts, pairs, CONFIG, SEED), 0.0, 0.4)["num_contents"] == 1
    assert 1 < fewer < whole


def test_nothing_to_sample(tmp_path: Path) -> None:
    none = schema.NEAR_DUPLICATE_PAIRS.empty_table()
    for parts in ([], written([], tmp_path, 1), written(["?", "!!"], tmp_path, 1)):
        table = certify(parts, none, CONFIG, SEED)
        assert set(table["num_pairs"].to_pylist()) <= {0}
        assert set(table["fraction"].to_pylist()) == {None}
        assert set(table["interval_high"].to_pylist()) == {1.0}
    off = certify([tmp_path / "absent"], none, CONFIG.model_copy(update={"quality_sample": 0}), SEED)
    assert off.num_rows == 0


def test_wilson_intervals() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)  # tabulated
    assert wilson(81 / 263, 263) == pytest.approx((0.25528, 0.36621), abs=1e-4)  # Newcombe 1998, table I


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_effective_trials_lie_between_one_and_the_trials(rows: list[tuple[int, int]]) -> None:
    trials = np.array([max(row) for row in rows])
    found = effective_trials(np.array([min(row) for row in rows]), trials)
    assert (found == 0) == (trials.sum() == 0)
    assert 0 <= found <= trials.sum()


def test_clusters_of_one_fate_count_once_each_and_single_trials_fully() -> None:
    assert effective_trials(np.array([100, 100]), np.array([100, 100])) == 2
    ones = np.array([1, 0] * 50)
    assert effective_trials(ones, np.ones(100, np.int64)) == pytest.approx(99)
    together = effective_trials(np.array([50, 0] * 10), np.full(20, 50))
    assert together == pytest.approx(19)
