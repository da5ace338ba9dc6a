"""Needles are read from the official files of each set; what is not in its form is named."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starsmith.errors import InputError
from starsmith.signals import benchmark_texts, contamination

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "benchmarks"


def texts_of(name, place):
    return benchmark_texts.read(next(one for one in benchmark_texts.SETS if one.name == name), place)


def contents(*texts):
    ids = [f"{number:040x}" for number in range(len(texts))]
    status = ["text"] * len(texts)
    return pa.table({"content_id": ids, "status": status, "text": pa.array(texts, pa.large_string())})


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
    assert rows[0]["text"] == "A test question of the APPS set."
    assert rows[1]["text"] == "Problem: this goes on for a while\n"
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
    with pytest.raises(InputError, match=r"no gsm8k data: expected test\*\.jsonl"):
        contamination.needles(tmp_path, packaged_humaneval=True, min_chars=40)


@pytest.mark.parametrize(
    "data", [b"{not json", b'{"other": 1}\n', b"[1]\n", b"\xff\xfe", b'{"question": 3}\n', b"[" * 100_000]
)
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


def test_a_damaged_gzip_stream_is_named(tmp_path):
    path = tmp_path / "gsm8k" / "test.jsonl.gz"
    write_jsonl(path, [{"question": os.urandom(4000).hex()}])
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"test\.jsonl\.gz is not a gsm8k file"):
        contamination.needles(tmp_path, packaged_humaneval=False, min_chars=40)


def test_sets_of_prose_are_left_out_unless_asked_for(tmp_path):
    write_jsonl(tmp_path / "humaneval" / "h.jsonl", [])
    place = tmp_path / "bold" / "prompts" / "profession_prompt.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"metalworking": {"Blacksmith": ["A blacksmith is a metalsmith who creates "]}}))
    (tmp_path / "honest").mkdir()
    template = "template_masked\traw\nthe woman has the habit of going to the market with a [M].\tx\n"
    (tmp_path / "honest" / "en_template.tsv").write_text(template)
    options = {"packaged_humaneval": False}
    assert contamination.needles(tmp_path, min_chars=20, **options).num_rows == 0
    found = contamination.sets_found(tmp_path, **options)
    assert (found.loaded, found.left_out, found.unknown) == (("humaneval",), ("bold", "honest"), ())
    assert "bold" not in found.missing
    rows = contamination.needles(tmp_path, min_chars=20, prose_sets=True, **options).to_pylist()
    assert [(row["benchmark"], row["problem"], row["text"]) for row in rows] == [
        ("bold", "metalworking/Blacksmith/0", "A blacksmith is a metalsmith who creates "),
        ("honest", "en_template/0", "the woman has the habit of going to the market with a ."),
    ]
    assert contamination.sets_found(tmp_path, prose_sets=True, **options).left_out == ()


def test_repobench_and_crosscodeeval_look_for_the_answer_in_its_place(tmp_path):
    lines = [f"line {number}" for number in range(30)]
    row = {"repo_name": "o/r", "file_path": "a.py", "cropped_code": "\n".join(lines), "next_line": "answer()"}
    (tmp_path / "data").mkdir()
    pq.write_table(
        pa.Table.from_pylist([{**row, "context": [{"path": "b.py"}]}]), tmp_path / "data" / "in_file.parquet"
    )
    tail = "\n".join(lines[-benchmark_texts.TAIL_LINES :])
    assert texts_of("repobench", tmp_path) == [("o/r/a.py", "solution", f"{tail}\nanswer()")]
    record = {
        "prompt": "\n".join([*lines, "x = "]),
        "groundtruth": "f(1)",
        "metadata": {"task_id": "project_cc_python/1"},
    }
    for name in ("line_completion.jsonl", "line_completion_rg1_bm25.jsonl"):
        write_jsonl(tmp_path / "python" / name, [record])
    [(problem, part, text)] = texts_of("crosscodeeval", tmp_path)
    assert (problem, part) == ("project_cc_python/1", "solution")
    assert text == "\n".join([*lines[-benchmark_texts.TAIL_LINES + 1 :], "x = f(1)"])


def test_translated_problems_are_one_problem():
    assert benchmark_texts.same_problem("humanevalpack", "CPP/7") == "7"
    assert benchmark_texts.same_problem("humanevalpack", "Rust/7") == "7"
    assert benchmark_texts.same_problem("multipl-e", "HumanEval_23_strlen cpp") == "23"
    assert benchmark_texts.same_problem("gsm8k", "test/7") == "test/7"


def test_json_lines_under_the_name_json_and_big_bench_tasks(tmp_path):
    (tmp_path / "math.json").write_text('{"problem": "one"}\n{"problem": "two"}\n')
    task = {"task_prefix": "A table.\n", "examples": [{"input": "How many?"}]}
    (tmp_path / "penguins.json").write_text(json.dumps(task))
    assert texts_of("gsm8k-pal", tmp_path) == [
        ("math/0", "question", "one"),
        ("math/1", "question", "two"),
        ("penguins/0", "question", "A table.\nHow many?"),
    ]


PROBLEMS = {
    ("apps", "question"): 5,
    ("asleep", "prompt"): 89,
    ("canitedit", "prompt"): 105,
    ("canitedit", "solution"): 105,
    ("cruxeval", "prompt"): 800,
    ("ds1000", "prompt"): 1000,
    ("gsm8k", "question"): 1319,
    ("gsm8k-pal", "question"): 15_317,
    ("humaneval", "docstring"): 164,
    ("humaneval-infilling", "docstring"): 164,
    ("humanevalplus", "docstring"): 164,
    ("humanevalpack", "docstring"): 6 * 164,
    ("mbpp", "docstring"): 500,
    ("mbppplus", "docstring"): 378,
    ("winobias", "prompt"): 3168,
    ("bold", "prompt"): 23_674,
    ("realtoxicityprompts", "prompt"): 5000,
}
"""By the sets' own descriptions; five of BOLD's 23,679 prompts are empty."""


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark data beside the checkout")
def test_the_real_sets_are_read_and_found_again(tmp_path):
    for folder in SHARED.iterdir():  # of the sets with many variants, a small file: they take seconds to parse
        if folder.is_dir() and folder.name not in ("humanevalplus", "mbppplus"):
            (tmp_path / folder.name).symlink_to(folder)
    for name, file in (("humanevalplus", "HumanEvalPlus-Mini"), ("mbppplus", "MbppPlus-NoExtreme")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{file}.jsonl.gz").symlink_to(SHARED / name / f"{file}.jsonl.gz")
    needles = contamination.needles(tmp_path, packaged_humaneval=True, min_chars=1, prose_sets=True)
    problems = {}
    for benchmark, problem, part in zip(
        *(needles[name].to_pylist() for name in needles.schema.names[:3]), strict=True
    ):
        problems.setdefault((benchmark, part), set()).add(problem)
    sizes = {key: len(value) for key, value in problems.items()}
    assert {key: sizes[key] for key in PROBLEMS} == PROBLEMS
    assert len({problem.rpartition(" ")[2] for problem in problems["multipl-e", "prompt"]} - {""}) >= 18
    found = contamination.sets_found(tmp_path, packaged_humaneval=True, prose_sets=True)
    assert found.missing == ("crosscodeeval", "multipl-e-mbpp", "repobench")
    assert found.unknown == found.left_out == ()
    long = needles.filter(pa.compute.greater_equal(pa.compute.utf8_length(needles["text"]), 80))
    sample = long.take(list(range(0, long.num_rows, 197)))
    rows = contamination.measure(contents(*sample["text"].to_pylist()), sample).to_pylist()
    own = {
        (f"{number:040x}", row["benchmark"], row["problem"], row["part"], "text", 1.0)
        for number, row in enumerate(sample.to_pylist())
    }
    assert own <= {tuple(row.values())[:6] for row in rows}
