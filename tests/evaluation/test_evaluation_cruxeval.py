from pathlib import Path
from typing import Literal

import pytest
from program_cases import assert_known_worth, labels, real_data, written_rows

from starsmith import recipe
from starsmith.evaluation import registry
from starsmith.evaluation.benchmarks.cruxeval import STOPS, CruxEval
from starsmith.evaluation.contract import Completion, MissingDataError, Score
from starsmith.evaluation.sandbox.pool import Sandbox

ROWS = [
    {"id": "sample_0", "code": "def f(s, n):\n    return s * n", "input": "'ab', 2", "output": "'abab'"},
    {"id": "sample_1", "code": "def f(d):\n    return {**d, 'k': 1}", "input": "{}", "output": "{'k': 1}"},
    {"id": "sample_2", "code": "def f(x):\n    return x == 3", "input": "3", "output": "True"},
]
Asks = Literal["input", "output"]


def made(tmp_path: Path, asks: Asks) -> CruxEval:
    return CruxEval(asks=asks, data=written_rows(tmp_path, "cruxeval/cruxeval.jsonl", ROWS))


def test_prompts_show_the_function_and_one_side(tmp_path: Path) -> None:
    for asks, line in (("input", "assert f(??) == {'k': 1}"), ("output", "assert f({}) == ??")):
        benchmark = made(tmp_path, asks)  # type: ignore[arg-type]
        requests = benchmark.requests(benchmark.load()[1])
        assert len(requests) == 10 and len({request.seed for request in requests}) == 10
        assert requests[0].prompt.endswith(f"return {{**d, 'k': 1}}\n{line}\n[/PYTHON]\n[ANSWER]\n")
        assert requests[0].stop == STOPS and requests[0].temperature == 0.2
        assert benchmark.name == f"cruxeval_{asks}"


def test_the_second_measure_asks_the_same_at_another_temperature(tmp_path: Path) -> None:
    config = recipe.Evaluation(data=made(tmp_path, "input").data)
    first, second = (registry.make(name, config, [], 1) for name in ("cruxeval_input", "cruxeval_input_pass5"))
    asked = [benchmark.requests(benchmark.load()[0]) for benchmark in (first, second)]
    assert [{request.temperature for request in requests} for requests in asked] == [{0.2}, {0.8}]
    assert [len(requests) for requests in asked] == [10, 10] and asked[0][0].prompt == asked[1][0].prompt
    assert second.name == "cruxeval_input_pass5"
    scores = [Score(problem="a", sample=n, group="", label="wrong", value=float(n == 0)) for n in range(10)]
    estimates = second.aggregate(scores, seed=1)
    assert (estimates["pass@1"].value, estimates["pass@5"].value) == (pytest.approx(0.1), pytest.approx(0.5))


@pytest.mark.parametrize("asks", ["input", "output"])
def test_references(python_sandbox: Sandbox, tmp_path: Path, asks: Asks) -> None:
    benchmark = made(tmp_path, asks)
    assert_known_worth(python_sandbox, benchmark, benchmark.load())


@pytest.mark.parametrize("asks", ["input", "output"])
def test_real_references(python_sandbox: Sandbox, asks: Asks) -> None:
    benchmark = CruxEval(asks=asks, data=real_data("cruxeval"))
    problems = benchmark.load()
    assert len(problems) == 800
    assert_known_worth(python_sandbox, benchmark, problems[::80])


def test_inputs(python_sandbox: Sandbox, tmp_path: Path) -> None:
    answers = {
        "assert f('ab', 2) == 'abab'\n[/ANSWER]\nand more": "pass",
        "assert f('abab', 1) == 'abab'": "pass",
        "f('ab', 2)": "pass",
        "assert f('ab', 3) == 'abab'": "wrong",
        "'abab'": "wrong",
        "assert f('ab' == 'abab'": "compile",
        "assert f(1) == 'abab'": "runtime",
        "": "wrong",
        "\ud800": "wrong",
        "f(" * 500_000: "compile",
    }
    benchmark = made(tmp_path, "input")
    found = labels(python_sandbox, benchmark, benchmark.load()[0], list(answers))
    assert dict(zip(answers, found, strict=True)) == answers | {"f(" * 500_000: found[-1]}
    assert found[-1] != "pass"


def test_outputs(python_sandbox: Sandbox, tmp_path: Path) -> None:
    answers = {
        "assert f('ab', 2) == 'abab'\n[/ANSWER]": "pass",
        "'abab'": "pass",
        "assert f('ab', 2) == 'ab'": "wrong",
        "assert f('ab', 2) == f('ab', 2)": "wrong",
        "assert f('ab', 2) == 'abab": "compile",
        "assert f('ab', 2) == abab": "runtime",
        "": "wrong",
    }
    benchmark = made(tmp_path, "output")
    assert labels(python_sandbox, benchmark, benchmark.load()[0], list(answers)) == list(answers.values())


def test_extraction_takes_one_side() -> None:
    problem_less = {"problem": None}
    completion = Completion(text="assert f(3) == True == True\n[/ANSWER]")
    assert CruxEval(asks="input").extract(**problem_less, completion=completion).text == "f(3)"  # type: ignore[arg-type]
    assert CruxEval(asks="output").extract(**problem_less, completion=completion).text == "True"  # type: ignore[arg-type]


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="facebookresearch/cruxeval"):
        CruxEval(asks="input", data=tmp_path).load()
