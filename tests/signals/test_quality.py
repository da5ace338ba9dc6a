"""Comments, parse errors and the classifier: values by hand, hostile nesting, training on signals that differ."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.errors import InputError
from starsmith.signals import quality, quality_classifier, syntax, text_statistics

pytest.importorskip("tree_sitter", reason="the extra starsmith[quality] is not installed")

COMMENTED = {
    "C": "/* 12345 */int x;",
    "C#": "// 12345\nclass A {}",
    "C++": "// 12345\nint x;",
    "CSS": "/* 12345 */ a { color: red }",
    "Go": "package a // 12345\n",
    "HTML": "<!-- 12345 --><p>a</p>",
    "Java": "/* 12345 */ class A {}",
    "JavaScript": "// 12345\nlet x = 1;",
    "Kotlin": "// 12345\nval x = 1\n",
    "Lua": "-- 12345\nlocal x = 1",
    "PHP": "<?php // 12345\n$x = 1;",
    "Python": "x = 1  # 12345\n",
    "Ruby": "# 12345\nx = 1\n",
    "Rust": "// 12345\nfn main() {}",
    "SQL": "-- 12345\nSELECT 1;",
    "Scala": "// 12345\nobject A",
    "Shell": "# 12345\nls\n",
    "Swift": "// 12345\nlet x = 1\n",
    "TSX": "// 12345\nlet x = 1;",
    "TypeScript": "// 12345\nlet x: number = 1;",
}


def fractions(text: str, language: str) -> syntax.Fractions | None:
    return syntax.with_large_stack(lambda: syntax.fractions(text.encode(), language))


@pytest.mark.parametrize("language", sorted(syntax.GRAMMARS))
def test_every_grammar_knows_its_comments_and_its_errors(language: str) -> None:
    if language == "JSON":
        assert fractions('{"a": [1, 2]}', language) == (0.0, 0.0)
    else:
        text = COMMENTED[language]
        solid = "".join(text.split())
        marks = {"C": 4, "CSS": 4, "Java": 4, "HTML": 7, "Lua": 2, "SQL": 2}.get(language, 2)
        marks = 1 if language in ("Python", "Ruby", "Shell") else marks
        found = fractions(text, language)
        assert found is not None
        assert found.comment == pytest.approx((5 + marks) / len(solid))
        assert found.parse_error == 0.0
    opening = "<?php " if language == "PHP" else ""
    broken = fractions(opening + ") ] } <<< @@ %% ((( {{{ [[[ 'unclosed", language)
    assert broken is not None and broken.parse_error > 0.2


def test_what_has_no_values() -> None:
    assert fractions("anything", "Brainfuck") is None
    assert fractions(" \n\t ", "Python") is None
    assert fractions("#" * (syntax.MAX_BYTES + 1), "Python") is None
    assert fractions("#" * syntax.MAX_BYTES, "Python") == (1.0, 0.0)


@pytest.mark.parametrize(("language", "junk"), [("Java", "{[("), ("C", "("), ("Python", "!")])
def test_hostile_nesting_neither_crashes_nor_hangs(language: str, junk: str) -> None:
    """These overflow the usual stack of 8 MB, or take quadratic time in the library's queries."""
    found = fractions((junk * syntax.MAX_BYTES)[: syntax.MAX_BYTES], language)
    assert found is not None and found.parse_error > 0.9


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=80), language=st.sampled_from(sorted(syntax.GRAMMARS)))
def test_fractions_are_fractions(text: str, language: str) -> None:
    found = fractions(text, language)
    if found is not None:
        assert all(0.0 <= value <= 1.0 for value in found)


def contents(texts: list[str]) -> pa.Table:
    rows = [
        {
            "content_id": hashlib.sha1(text.encode()).hexdigest(),
            "blob_id": "0" * 40,
            "length_bytes": len(text),
            "status": "text",
            "src_encoding": "UTF-8",
            "text": text,
        }
        for text in texts
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["content_id"])), schema=schema.CONTENTS)


def test_a_content_has_a_row_for_each_of_its_languages() -> None:
    table = contents(["# 1\n", "x"])
    first, second = table["content_id"].to_pylist()
    languages = pa.table(
        {"content_id": [first, first, first, second, second], "language": ["Python", "C", "C", None, "Nim"]}
    )
    rows = quality.measure(table, languages, text_statistics.measure(table), recipe.Quality()).to_pylist()
    assert [(row["content_id"], row["language"]) for row in rows] == [
        (first, "C"),
        (first, "Python"),
        (second, "Nim"),
    ]
    assert rows[2]["comment_fraction"] is None and rows[2]["parse_error_fraction"] is None
    assert all(row["score"] is None for row in rows)


def corpus() -> tuple[pa.Table, pa.Table, list[int]]:
    """Forty commented programs, forty heaps of numbers."""
    good = [f"# Adds {n}.\ndef add_{n}(x):\n    # The sum.\n    return x + {n}\n" for n in range(40)]
    bad = ["[" + ", ".join(str(n * k % 97) for k in range(30 + n)) + "]\n" for n in range(40)]
    table = contents(good + bad)
    labels = [int("def" in text) for text in table["text"].to_pylist()]
    languages = pa.table({"content_id": table["content_id"], "language": ["Python"] * len(table)})
    return table, languages, labels


def test_a_classifier_learns_from_signals_and_travels_as_json(tmp_path: Path) -> None:
    table, languages, labels = corpus()
    statistics = text_statistics.measure(table)
    measured = quality.measure(table, languages, statistics, recipe.Quality())
    joined = statistics.append_column("comment_fraction", measured["comment_fraction"]).append_column(
        "parse_error_fraction", measured["parse_error_fraction"]
    )
    trained = quality_classifier.train(quality_classifier.features(joined), labels)
    assert trained.auc > 0.95 and trained.num_positive == 40
    place = tmp_path / "classifier.json"
    place.write_text(quality_classifier.to_json(trained))
    assert quality_classifier.load(place) == trained
    scored = quality.measure(table, languages, statistics, recipe.Quality(classifier=place, min_score=0.5))
    accuracy = np.mean((scored["score"].to_numpy() > 0.5) == np.array(labels))
    assert accuracy > 0.95
    alone = [
        quality.measure(table.slice(row, 1), languages, statistics, recipe.Quality(classifier=place))
        for row in range(0, 80, 13)
    ]
    assert pa.concat_tables(alone).to_pylist() == scored.take(list(range(0, 80, 13))).to_pylist()


def test_labels_are_read_and_their_faults_counted(tmp_path: Path) -> None:
    table, languages, labels = corpus()
    statistics = text_statistics.measure(table)
    tables = {}
    for name, rows in {
        "text_statistics": statistics,
        "quality": quality.measure(table, languages, statistics, recipe.Quality()),
    }.items():
        tables[name] = [tmp_path / f"{name}.parquet"]
        pq.write_table(rows, tables[name][0])
    place = tmp_path / "labels.csv"
    ids = table["content_id"].to_pylist()
    lines = [f"swh:1:cnt:{key},{label}" for key, label in zip(ids, labels, strict=True)]
    place.write_text("\n".join(["content_id,label", *lines[::-1]]))
    values, found = quality_classifier.labelled(tables, place)
    assert found == labels and values.shape == (80, len(quality_classifier.FEATURES))
    assert not np.isnan(values).any()
    bare, _ = quality_classifier.labelled({**tables, "quality": []}, place)
    assert np.isnan(bare[:, 6:]).all() and not np.isnan(bare[:, :6]).any()
    place.write_text("\n".join(["content_id,label", lines[0], lines[0], f"{ids[1]},7", "0" * 40 + ",1"]))
    with pytest.raises(
        InputError, match=r"1 labels that are neither.*1 contents labelled more.*1 contents without"
    ):
        quality_classifier.labelled(tables, place)
    place.write_text("id,good\n1,1\n")
    with pytest.raises(InputError, match="expected is a CSV file with the columns content_id and label"):
        quality_classifier.labelled(tables, place)


def test_wrong_classifiers_and_recipes_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "classifier.json"
    for text in ("", "[]", "{}", '{"format": "another"}'):
        place.write_text(text)
        with pytest.raises(InputError, match="cannot read the classifier"):
            quality_classifier.load(place)
    with pytest.raises(InputError, match=r"needs quality\.classifier"):
        quality.is_wanted(recipe.Quality(min_score=0.5))
    with pytest.raises(InputError, match="at least 20 files of each label"):
        quality_classifier.train(np.zeros((30, len(quality_classifier.FEATURES))), [1] * 15 + [0] * 15)
    assert quality.parameters(recipe.Quality()) == {}
    assert set(quality.parameters(recipe.Quality(max_parse_error_fraction=0.5))) == {"grammars", "classifier"}


def test_missing_values_are_told_apart_from_means() -> None:
    values = np.tile(np.arange(8.0), (60, 1)) + np.arange(60)[:, None] * 0.01
    values[::2, 6] = np.nan
    labels = list(itertools.islice(itertools.cycle([1, 0]), 60))
    trained = quality_classifier.train(values, labels)
    assert trained.auc > 0.95  # absence alone decides
