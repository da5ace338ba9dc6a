from dataclasses import replace
from pathlib import Path

import pytest
from program_cases import assert_known_worth, judged, labels, real_data, written_rows

from starsmith import recipe
from starsmith.evaluation import runner, toolchains
from starsmith.evaluation.benchmarks.canitedit import ENVIRONMENT, STOPS, CanItEdit
from starsmith.evaluation.benchmarks.canitedit_driver import excess, statements
from starsmith.evaluation.contract import Candidate, MissingDataError
from starsmith.evaluation.sandbox.pool import Sandbox

ROW = {
    "full_name": "1_double",
    "before": "def double(x):\n    return x",
    "after": 'def double(x):\n    """Twice x."""\n    return 2 * x',
    "tests": "### START TESTS ###\nif True:  # pragma: no cover\n    assert double(3) == 6\n",
    "instruction_descriptive": "Let `double` return twice its argument.",
    "instruction_lazy": "Fix it.",
}


@pytest.fixture
def canitedit(tmp_path: Path) -> CanItEdit:
    return CanItEdit(data=written_rows(tmp_path, "canitedit/canitedit.jsonl", [ROW]))


def test_each_edit_is_asked_for_in_two_ways(canitedit: CanItEdit) -> None:
    problems = canitedit.load()
    assert [(problem.id, problem.group) for problem in problems] == [
        ("1_double/descriptive", "descriptive"),
        ("1_double/lazy", "lazy"),
    ]
    requests = canitedit.requests(problems[1])
    assert requests[0].prompt == f"## Code Before:\n{ROW['before']}\n## Instruction:\nFix it.\n## Code After:\n"
    assert len(requests) == 20 and requests[0].stop == STOPS and "<file_sep>" in STOPS


def test_the_edit_passes_and_the_code_before_does_not(python_sandbox: Sandbox, canitedit: CanItEdit) -> None:
    assert_known_worth(python_sandbox, canitedit, canitedit.load())


def test_real_references(python_sandbox: Sandbox) -> None:
    canitedit = CanItEdit(data=real_data("canitedit"))
    problems = canitedit.load()
    assert len(problems) == 210
    names = ("1_", "2_", "3_", "4_", "6_", "7_")
    assert_known_worth(python_sandbox, canitedit, [each for each in problems[::2] if each.id.startswith(names)])


def test_each_label(python_sandbox: Sandbox, canitedit: CanItEdit) -> None:
    answers = {
        "def double(x):\n    return x + x\n## Explanation:\n...": "pass",
        "Here it is:\n```python\ndef double(x):\n    return x + x\n```\n```\nother\n```": "pass",
        "```\ndef double(x):\n    return x + x": "pass",
        "def double(x):\n    return x": "wrong",
        "def double(x):": "compile",
        "Use 2 * x.": "compile",
        "": "runtime",
        "raise SystemExit(0)": "runtime",
        "\ud800": "compile",
        "#" * 2_000_000: "runtime",
    }
    found = labels(python_sandbox, canitedit, canitedit.load()[0], list(answers))
    assert found == list(answers.values())


def test_excess_is_what_no_test_runs(python_sandbox: Sandbox, canitedit: CanItEdit) -> None:
    problem = canitedit.load()[0]
    lean, fat = (
        "def double(x):\n    return 2 * x",
        "def double(x):\n    return 2 * x\n\ndef triple(x):\n    return 3 * x",
    )
    scores = judged(python_sandbox, canitedit, [(problem, Candidate(text=text)) for text in (lean, fat, "")])
    assert [score.label for score in scores] == ["pass", "pass", "runtime"]
    assert scores[0].detail == "ExcessCode 0.0000"
    assert 0 < float(scores[1].detail.removeprefix("ExcessCode ")) <= 100 / 6
    estimates = canitedit.aggregate(scores[1:2], seed=1)
    assert estimates["excess_code"] == estimates["excess_code/descriptive"]
    assert estimates["excess_code"].value == float(scores[1].detail.split()[1]) and estimates["pass@1"].value == 1
    assert canitedit.aggregate(scores[2:], seed=1)["excess_code"].n == 0


NUMPY = ROW | {"full_name": "2_sum", "tests": "import numpy as np\nassert np.sum([double(3)]) == 6\n"}
SERVED = ROW | {
    "full_name": "3_serve",
    "before": "from vllm import LLM, SamplingParams\n\ndef answer(text):\n    return LLM('m')",
    "after": "from vllm import LLM, SamplingParams\n\ndef answer(text):\n"
    "    return LLM('m').generate(text, SamplingParams(n=1))",
    "tests": "class LLM:\n    def __init__(self, name): pass\n"
    "    def generate(self, text, params): return text\n\nassert answer('a') == 'a'\n",
}


def test_edits_that_use_libraries_need_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path / "none"))
    data = written_rows(tmp_path, "canitedit/canitedit.jsonl", [NUMPY, ROW, SERVED])
    [loaded], _ = runner.load(recipe.Evaluation(benchmarks=("canitedit",), data=data), [], 1)
    assert [problem.id for problem in loaded.problems] == ["1_double/descriptive", "1_double/lazy"]
    assert loaded.num_skipped == 4 and loaded.skipped.keys() == {ENVIRONMENT}
    assert "python3" in loaded.skipped[ENVIRONMENT] and "z3-solver==" in loaded.skipped[ENVIRONMENT]


def test_twenty_two_real_edits_use_libraries() -> None:
    canitedit = CanItEdit(data=real_data("canitedit"))
    used = [canitedit.programs(each, Candidate(text=""))[0].language for each in canitedit.load()[::2]]
    assert (used.count(ENVIRONMENT), used.count("python")) == (22, 83)


def test_references_with_libraries(python_sandbox: Sandbox, tmp_path: Path) -> None:
    chain = toolchains.find(ENVIRONMENT)
    if chain.version() is None:
        pytest.skip(chain.install)
    canitedit = CanItEdit(data=written_rows(tmp_path, "canitedit/canitedit.jsonl", [NUMPY, SERVED]))
    assert_known_worth(python_sandbox, canitedit, canitedit.load())


def test_empty_classes_stand_in_for_a_server_that_tests_replace(python_sandbox: Sandbox, tmp_path: Path) -> None:
    canitedit = CanItEdit(data=written_rows(tmp_path, "canitedit/canitedit.jsonl", [SERVED]))
    problem = canitedit.load()[0]
    for check in canitedit.checks(problem):
        programs = [replace(each, language="python") for each in canitedit.programs(problem, check.candidate)]
        score = canitedit.score(problem, 0, check.candidate, python_sandbox.run_programs(programs))
        assert (score.label == "pass") == check.passes


def test_statements_are_what_has_code() -> None:
    source = (
        'import os\n\n@f\n@g\ndef h(a,\n      b):\n    """Doc."""\n    c: int\n'
        "    if a:\n        return (a +\n                b)\n"
    )
    assert statements(source) == [range(1, 2), range(3, 7), range(9, 10), range(10, 12)]
    assert excess("a = 1", "a = 1\nb = 2", {1}) == 1 / 2
    assert excess("a = 1", "a = 1\nb = 2", {1, 2}) == 0


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nuprl/CanItEdit"):
        CanItEdit(data=tmp_path).load()
