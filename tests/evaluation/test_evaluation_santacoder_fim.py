from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program_cases import real_data

from starsmith.errors import InputError
from starsmith.evaluation.benchmarks.santacoder_fim import DATA, STOPS, SantaCoderFim
from starsmith.evaluation.contract import Completion, MissingDataError

ROWS = [
    {"name": "b-L1", "language": "py", "prompt": "x = 1\n", "suffix": "z = 3\n", "canonical_solution": "y = 2"},
    {"name": "a-L2", "language": "js", "prompt": "f(\n", "suffix": ");\n", "canonical_solution": "    1"},
    {"name": "a-L1", "language": "js", "prompt": "", "suffix": "2);\n", "canonical_solution": "f(1,"},
]


def written(folder: Path, rows: list[dict[str, str]]) -> SantaCoderFim:
    (folder / DATA.folder).mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / DATA.folder / DATA.files[0])
    return SantaCoderFim(data=folder)


def test_lines_are_asked_for_in_order_of_language_and_name(tmp_path: Path) -> None:
    benchmark = written(tmp_path, ROWS)
    problems = benchmark.load()
    assert [problem.id for problem in problems] == ["js/a-L1", "js/a-L2", "py/b-L1"]
    (request,) = benchmark.requests(problems[2])
    assert (request.prompt, request.suffix, request.stop) == ("x = 1\n", "z = 3\n", STOPS)
    assert "<file_sep>" in STOPS and request.temperature == 0.2


def test_white_space_at_the_ends_is_all_that_may_differ(tmp_path: Path) -> None:
    benchmark = written(tmp_path, ROWS)
    problem = benchmark.load()[2]
    texts = ["y = 2", "  y = 2 \n", "y = 2<file_sep>more", "y  = 2", "y = 2\nz = 3", "", "\ud800", "y" * 2_000_000]
    candidates = [benchmark.extract(problem, Completion(text=text)) for text in texts]
    scores = [benchmark.score(problem, 0, candidate, []) for candidate in candidates]
    assert [score.label for score in scores] == ["pass"] * 3 + ["wrong"] * 5


def test_languages_are_shown_apart(tmp_path: Path) -> None:
    benchmark = written(tmp_path, ROWS)
    scores = [
        benchmark.score(problem, 0, benchmark.extract(problem, Completion(text="f(1,")), [])
        for problem in benchmark.load()
    ]
    estimates = benchmark.aggregate(scores, seed=1)
    assert {name: (each.value, each.n) for name, each in estimates.items()} == {
        "exact_match": (pytest.approx(1 / 3), 3),
        "exact_match/js": (0.5, 2),
        "exact_match/py": (0.0, 1),
    }


def test_every_real_reference_matches() -> None:
    benchmark = SantaCoderFim(data=real_data("santacoder-fim"))
    problems = benchmark.load()
    assert len(problems) == 4792 == len({problem.id for problem in problems})
    for problem in problems:
        candidate = benchmark.extract(problem, Completion(text=problem.inputs["canonical_solution"]))
        assert benchmark.score(problem, 0, candidate, []).label == "pass"
        for check in benchmark.checks(problem):
            assert (benchmark.score(problem, 0, check.candidate, []).label == "pass") == check.passes


def test_bad_data_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="bigcode/santacoder-fim-task"):
        SantaCoderFim(data=tmp_path).load()
    with pytest.raises(InputError, match="no column suffix"):
        written(tmp_path, [{k: v for k, v in ROWS[0].items() if k != "suffix"}]).load()
    (tmp_path / DATA.folder / DATA.files[0]).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        SantaCoderFim(data=tmp_path).load()
