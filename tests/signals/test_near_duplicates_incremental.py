"""What is known from an earlier run saves work and changes nothing; large and hostile buckets stay bounded."""

import hashlib
import random
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.corpus.components import connected_components
from starsmith.recipe import NearDuplicates
from starsmith.signals import near_duplicate_signing, near_duplicate_verification, near_duplicates
from starsmith.signals import shingle_kernels as kernels

CONFIG = NearDuplicates()


def contents(texts):
    rows = {}
    for text in texts:
        content_id = hashlib.sha1(("binary" if text is None else text).encode()).hexdigest()
        length = len((text or "").encode())
        rows[content_id] = {"content_id": content_id, "blob_id": content_id, "length_bytes": length, "text": text}
    ordered = [rows[i] | {"status": "text"} for i in sorted(rows)]
    return pa.Table.from_pylist(ordered, schema.CONTENTS)


def write(folder, table, num_parts=2, group_rows=5):
    """Parts by the first digit of the identifier, as contents are partitioned."""
    folder.mkdir()
    digits = np.array([int(i[0], 16) for i in table["content_id"].to_pylist()], np.int64) % num_parts
    parts = [folder / f"{number}.parquet" for number in range(num_parts)]
    for number, part in enumerate(parts):
        pq.write_table(table.filter(pa.array(digits == number)), part, row_group_size=group_rows)
    return parts


def run(folder, parts, config, known=None, *, with_shingles=True):
    """The signature tables and the pairs of a run; `known` is what another returned."""
    tables, files = [], []
    for part in parts:
        tables.append(folder / f"signatures-{part.name}")
        files.append(folder / f"shingles-{part.stem}")
        rows = near_duplicates.signatures_of(
            part, config, 1, known=known[0] if known else (), shingle_file=files[-1] if with_shingles else None
        )
        pq.write_table(rows, tables[-1])
    pairs = near_duplicates.pairs_from(
        tables,
        parts,
        config,
        1,
        shingle_files=files if with_shingles and config.verification == "exact" else (),
        known_pairs=known[1] if known else (),
    )
    place = folder / "pairs.parquet"
    pq.write_table(pairs, place)
    return tables, [place]


def family(number, edits):
    words = [f"w{number}x{place}" for place in range(80)]
    for place in edits:
        words[place % 80] = "edit"
    return " ".join(words)


TEXTS = st.lists(
    st.builds(family, st.integers(0, 3), st.lists(st.integers(0, 79), max_size=3))
    | st.sampled_from(["", "a", None]),
    max_size=14,
)


@settings(max_examples=10, deadline=None)
@given(
    TEXTS,
    TEXTS,
    st.lists(st.booleans(), min_size=14, max_size=14),
    st.booleans(),
    st.sampled_from(["starsmith", "stack-v2", "stack-v3"]),
)
def test_adding_and_deleting_equals_a_fresh_run(tmp_path_factory, before, added, kept, with_shingles, preset):
    config = NearDuplicates(preset=preset)
    folder = tmp_path_factory.mktemp("runs")
    old = run(folder, write(folder / "old", contents(before)), config)
    after = [text for text, stays in zip(before, kept, strict=False) if stays] + added
    parts = write(folder / "new", contents(after))
    fresh_folder, updated_folder = folder / "fresh", folder / "updated"
    fresh_folder.mkdir()
    updated_folder.mkdir()
    fresh = run(fresh_folder, parts, config, with_shingles=with_shingles)
    updated = run(updated_folder, parts, config, old, with_shingles=with_shingles)
    for one, other in zip((*fresh[0], *fresh[1]), (*updated[0], *updated[1]), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_known_texts_are_neither_read_nor_signed_nor_compared_again(tmp_path, monkeypatch):
    texts = [family(number, [edit]) for number in range(10) for edit in range(4)] + ["", None, "()"]
    parts = write(tmp_path / "contents", contents(texts))
    old = run(tmp_path, parts, CONFIG)

    def refuse(*_, **__):
        raise AssertionError("computed again")

    (tmp_path / "again").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "word_hashes", refuse)
        assert run(tmp_path / "again", parts, CONFIG, old)[1][0].read_bytes() == old[1][0].read_bytes()

    new = write(tmp_path / "new", contents([*texts, family(3, [9]), "something else altogether in five words"]))
    seen, compared = [], []
    word_hashes, jaccards = kernels.word_hashes, kernels.jaccards
    monkeypatch.setattr(
        near_duplicate_signing.shingle_kernels,
        "word_hashes",
        lambda offsets, *rest: seen.append(len(offsets) - 1) or word_hashes(offsets, *rest),
    )
    monkeypatch.setattr(
        near_duplicate_verification.shingle_kernels,
        "jaccards",
        lambda sets, offsets, left, *rest: compared.append(len(left)) or jaccards(sets, offsets, left, *rest),
    )
    folder = tmp_path / "updated"
    folder.mkdir()
    tables, files = [], []
    for part in new:
        files.append(folder / f"shingles-{part.stem}")
        tables.append(folder / part.name)
        pq.write_table(
            near_duplicates.signatures_of(part, CONFIG, 1, known=old[0], shingle_file=files[-1]), tables[-1]
        )
    assert sum(seen) == 2  # the two new texts
    near_duplicates.pairs_from(tables, new, CONFIG, 1, shingle_files=files, known_pairs=old[1])
    assert sum(compared) == 4  # the new member of the family of four
    assert sum(seen) <= 2 + 5  # what it is compared with was not signed in this run, so it is read


def test_known_signatures_of_another_length_are_refused(tmp_path):
    parts = write(tmp_path / "contents", contents(["some words that make a text"]), 1)
    old = run(tmp_path, parts, CONFIG)
    with pytest.raises(ValueError, match="fixed_size_binary"):
        near_duplicates.signatures_of(parts[0], NearDuplicates(num_permutations=300), 1, known=old[0])


def test_a_known_similarity_is_taken_as_it_is(tmp_path):
    parts = write(tmp_path / "contents", contents([family(1, []), family(1, [3]), family(2, [])]))
    _, (place,) = run(tmp_path, parts, CONFIG)
    pairs = pq.read_table(place)
    assert pairs.num_rows == 1
    changed = pairs.set_column(2, schema.NEAR_DUPLICATE_PAIRS.field("jaccard"), pa.array([0.75]))
    pq.write_table(changed, place)
    (tmp_path / "again").mkdir()
    _, (again,) = run(tmp_path / "again", parts, CONFIG, ([], [place]))
    assert pq.read_table(again)["jaccard"].to_pylist() == [0.75]


def components(pairs):
    return connected_components(pairs["content_a"], pairs["content_b"])


def test_ten_thousand_variants_of_a_template_are_one_component(tmp_path):
    template = [f"line{number}" for number in range(60)]
    texts = [" ".join([*template[:30], f"name{number}", *template[30:]]) for number in range(10_000)]
    table = contents(texts)
    parts = write(tmp_path / "contents", table, group_rows=2_000)
    start = time.process_time()
    pairs = near_duplicates.verified_pairs(parts, CONFIG, 1)
    seconds = time.process_time() - start
    assert len(set(components(pairs)["component"].to_pylist())) == 1
    assert components(pairs).num_rows == 10_000
    assert pairs.num_rows <= 10_000 * CONFIG.bands * (near_duplicates.FIRST + near_duplicates.PREVIOUS)
    assert seconds < 20


def test_a_chain_is_one_component(tmp_path):
    """Each text is like the next alone: no bucket holds them all, and no pair may be missed."""
    texts = [" ".join(f"w{place}" for place in range(start, start + 400)) for start in range(0, 8_000, 20)]
    parts = write(tmp_path / "contents", contents(texts))
    pairs = near_duplicates.verified_pairs(parts, CONFIG, 1)
    assert components(pairs).num_rows == len(texts)
    assert len(set(components(pairs)["component"].to_pylist())) == 1


def test_texts_that_share_bands_but_little_else_cost_a_bounded_number_of_comparisons(tmp_path, monkeypatch):
    """3,000 texts that are half a common header: about half of their pairs share a band, and none is one; hidden
    among them are 100 true pairs."""
    header = [f"header{number}" for number in range(200)]
    rng = random.Random(1)
    texts = [" ".join([*header, *(f"own{member}x{place}" for place in range(200))]) for member in range(3_000)]
    texts += [f"{text} end" for text in rng.sample(texts, 100)]
    parts = write(tmp_path / "contents", contents(texts), group_rows=500)
    compared = []
    jaccards = kernels.jaccards
    monkeypatch.setattr(
        kernels, "jaccards", lambda s, o, left, *rest: compared.append(len(left)) or jaccards(s, o, left, *rest)
    )
    start = time.process_time()
    pairs = near_duplicates.verified_pairs(parts, CONFIG, 1)
    assert pairs.num_rows >= 99
    assert sum(compared) < 5_000  # the estimate leaves out the others
    assert time.process_time() - start < 20
