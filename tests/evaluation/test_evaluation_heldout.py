import random
from pathlib import Path

import pytest
from evaluation_cases import document, source, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.evaluation.benchmarks.bits_per_byte import MAX_FILE_BYTES, BitsPerByte, first_lines
from starsmith.evaluation.benchmarks.fim_exact_match import FimExactMatch, edit_similarity, make_hole
from starsmith.evaluation.contract import Candidate, Completion, Score
from starsmith.evaluation.heldout import HeldoutFile, choose_files


def chosen(parts: list[Path], count: int = 100, seed: int = 42) -> list[HeldoutFile]:
    return choose_files(parts, count=count, seed=seed, purpose="test", suits=lambda file: bool(file.text))


def test_only_validation_files_each_content_once(heldout: list[Path]) -> None:
    files = chosen(heldout)
    assert len(files) == 8
    assert {file.repo_name for file in files} <= {"a/val", "b/val", "c/val"}
    assert [file.released_id for file in files] == sorted({file.released_id for file in files})


def test_the_choice_is_by_key_and_not_by_place(heldout: list[Path], tmp_path: Path) -> None:
    some = chosen(heldout, count=3)
    everything = chosen(heldout)
    assert len(some) == 3 and set(some) <= set(everything)
    assert [file.released_id for file in chosen(heldout[::-1], count=3)] == [file.released_id for file in some]
    assert chosen(heldout, count=3, seed=1) != some or chosen(heldout, count=3, seed=2) != some
    extra = write_documents(
        tmp_path / "part-2.parquet", [document("d/val", "validation", {"/n.py": ("Python", source("new"))})]
    )
    more = {file.released_id for file in chosen([*heldout, extra], count=3)}
    assert len(more & {file.released_id for file in some}) >= 2, "a new file displaces at most one"


def test_no_parts_no_files() -> None:
    assert chosen([]) == []
    assert BitsPerByte(heldout=[]).load() == [] and FimExactMatch(heldout=[]).load() == []
    assert BitsPerByte(heldout=[]).aggregate([], seed=1) == {}
    assert FimExactMatch(heldout=[]).aggregate([], seed=1) == {}


def test_bits_per_byte_is_a_ratio_of_totals(heldout: list[Path]) -> None:
    benchmark = BitsPerByte(heldout=heldout)
    problems = benchmark.load()
    scores = []
    for problem in problems:
        (request,) = benchmark.requests(problem)
        assert request.target == problem.inputs["text"] and request.before == ("<file_sep>",)
        rate = 1.0 if problem.group == "Python" else 3.0
        bits = rate * len(problem.inputs["text"].encode())
        candidate = benchmark.extract(problem, Completion(bits=bits))
        scores.append(benchmark.score(problem, 0, candidate, []))
    estimates = benchmark.aggregate(scores, seed=1)
    assert estimates["bits_per_byte/Python"].value == pytest.approx(1.0)
    assert estimates["bits_per_byte/JavaScript"].value == pytest.approx(3.0)
    total_bytes = sum(len(problem.inputs["text"].encode()) for problem in problems)
    assert estimates["bits_per_byte"].value == pytest.approx(sum(s.value for s in scores) / total_bytes)
    assert estimates["bits_per_byte"].low < estimates["bits_per_byte"].value < estimates["bits_per_byte"].high
    assert estimates["bits_per_byte"].n == 8


def test_a_backend_without_likelihoods_is_a_defect(heldout: list[Path]) -> None:
    benchmark = BitsPerByte(heldout=heldout)
    with pytest.raises(TypeError):
        benchmark.score(benchmark.load()[0], 0, Candidate(text="x"), [])


def test_bytes_are_counted_not_characters(tmp_path: Path) -> None:
    part = write_documents(tmp_path / "p.parquet", [document("a", "validation", {"/x": ("Text", "é😀\n")})])
    benchmark = BitsPerByte(heldout=[part])
    problem = benchmark.load()[0]
    assert benchmark.score(problem, 0, benchmark.extract(problem, Completion(bits=7.0)), []).weight == 7.0


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="aé😀\n", max_size=60), st.integers(4, 40))
def test_first_lines_is_the_longest_fitting_beginning(text: str, max_bytes: int) -> None:
    cut = first_lines(text, max_bytes)
    assert text.startswith(cut) and len(cut.encode()) <= max_bytes
    if cut != text and "\n" in cut:
        assert cut.endswith("\n")
        following = text[len(cut) :].split("\n")[0] + "\n"
        assert len((cut + following).encode()) > max_bytes
    assert cut or not text


def test_long_files_are_measured_in_part(tmp_path: Path) -> None:
    text = "line of text\n" * 5_000
    part = write_documents(tmp_path / "p.parquet", [document("a", "validation", {"/x": ("Text", text)})])
    measured = BitsPerByte(heldout=[part]).load()[0].inputs["text"]
    assert MAX_FILE_BYTES - 13 <= len(measured) <= MAX_FILE_BYTES


def held(text: str) -> HeldoutFile:
    identifier = f"{random.Random(text).getrandbits(160):040x}"
    return HeldoutFile(released_id=identifier, repo_name="r", path="/p", language="Python", text=text)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet="ab_( \t=é😀", max_size=60), min_size=1, max_size=12), st.integers(0, 5))
def test_a_hole_puts_together_to_its_file(lines: list[str], seed: int) -> None:
    text = "\n".join(lines)
    hole = make_hole(held(text), seed)
    if hole is None:
        assert len(lines) < 3 or not any(
            6 <= len(line.strip()) <= 120 and any(map(str.isalpha, line)) for line in lines[1:-1]
        )
        return
    assert hole.prefix + hole.middle + hole.suffix == text
    assert hole.middle.strip() and "\n" not in hole.middle
    assert "\n" in hole.prefix and "\n" in hole.suffix
    if hole.kind == "line":
        assert hole.prefix.endswith("\n") and hole.suffix.startswith("\n")
    else:
        assert len(hole.middle) <= 40
        line = hole.prefix.rsplit("\n", 1)[1] + hole.middle + hole.suffix.split("\n", 1)[0]
        assert hole.middle.strip() != line.strip()


def test_both_kinds_occur_and_the_seed_moves_them() -> None:
    files = [held(source(f"name{n}")) for n in range(40)]
    holes = [make_hole(file, 1) for file in files]
    assert {hole.kind for hole in holes if hole} == {"line", "span"}
    assert holes == [make_hole(file, 1) for file in files] != [make_hole(file, 2) for file in files]


def test_fim_scores(heldout: list[Path]) -> None:
    benchmark = FimExactMatch(heldout=heldout)
    problems = benchmark.load()
    assert len(problems) == 8
    scores: list[Score] = []
    for number, problem in enumerate(problems):
        (request,) = benchmark.requests(problem)
        assert request.prompt + problem.inputs["middle"] + str(request.suffix) in (
            problem.inputs["prefix"] + problem.inputs["middle"] + problem.inputs["suffix"]
        )
        assert "<file_sep>" in request.stop and "<|endoftext|>" in request.stop
        text = f"  {problem.inputs['middle'].strip()} \n<file_sep>more" if number < 2 else "zzz"
        candidate = benchmark.extract(problem, Completion(text=text))
        scores.append(benchmark.score(problem, 0, candidate, []))
    assert [score.label for score in scores] == ["pass"] * 2 + ["wrong"] * 6
    estimates = benchmark.aggregate(scores, seed=1)
    assert estimates["exact_match"].value == 0.25 and estimates["exact_match"].n == 8
    assert estimates["exact_match"].low > 0
    assert (
        sum(estimates[f"exact_match/{kind}"].n for kind in ("line", "span") if f"exact_match/{kind}" in estimates)
        == 8
    )
    assert 0.25 <= estimates["edit_similarity"].value < 0.5


def levenshtein(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1, levenshtein(a[1:], b[1:]) + (a[0] != b[0]))


@settings(max_examples=50, deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edit_similarity_is_one_minus_the_normalised_distance(a: str, b: str) -> None:
    expected = 1.0 if not a and not b else 1 - levenshtein(a, b) / max(len(a), len(b))
    assert edit_similarity(a, b) == pytest.approx(expected)
