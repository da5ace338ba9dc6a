"""`evaluate --references`: known solutions and known wrong answers of every set at hand, and their table."""

import io
import json
from pathlib import Path

import pytest
from program_cases import written_rows
from rich.console import Console
from typer.testing import CliRunner

from starsmith import recipe
from starsmith.cli import app
from starsmith.errors import MachineError
from starsmith.evaluation import references, summary, toolchains
from starsmith.evaluation.contract import Program, RunResult
from starsmith.evaluation.sandbox import pool, selftest

EDIT = {
    "full_name": "1_double",
    "before": "def double(x):\n    return x",
    "after": "def double(x):\n    return 2 * x",
    "tests": "assert double(3) == 6\n",
    "instruction_descriptive": "Let `double` return twice its argument.",
    "instruction_lazy": "Fix it.",
}
WITH_NUMPY = EDIT | {"full_name": "2_sum", "tests": "import numpy\nassert double(3) == 6\n"}
FUNCTION = {
    "id": "sample_0",
    "code": "def f(s, n):\n    return s * n",
    "input": "'ab', 2",
    "output": "'abab'",
}
CONFIG = ("canitedit", "cruxeval_output", "humaneval_infilling_random_span_light", "mbpp")
INFILLING = {
    "task_id": "RandomSpanInfillingLight/HumanEval/0",
    "entry_point": "double",
    "prompt": "def double(x):\n    return ",
    "suffix": " * x\n",
    "canonical_solution": "2",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n",
}
SENTENCE = {
    "task_id": 11,
    "text": "Write a function that doubles.",
    "code": "def double(x):\n    return 2 * x",
    "test_setup_code": "",
    "test_list": ["assert double(3) == 6"],
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four sets of one or two problems; the environment for one of them is absent."""
    try:
        selftest.choose("auto")
    except MachineError as error:
        pytest.skip(str(error))
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path / "none"))
    folder = tmp_path / "data"
    written_rows(folder, "canitedit/canitedit.jsonl", [EDIT, WITH_NUMPY])
    written_rows(folder, "cruxeval/cruxeval.jsonl", [FUNCTION])
    written_rows(folder, "humaneval-infilling/HumanEval-RandomSpanInfillingLight.jsonl", [INFILLING])
    return written_rows(folder, "mbpp/mbpp.jsonl", [SENTENCE])


def checked(data: Path, folder: Path, workers: int = 1) -> references.References:
    config = recipe.Evaluation(benchmarks=CONFIG, data=data)
    return references.check(config, heldout=[], folder=folder, workers=workers)


def test_every_set_has_a_row_and_what_cannot_run_is_named(data: Path, tmp_path: Path) -> None:
    found = checked(data, tmp_path / "out")
    rows = {
        (row.benchmark, row.group): (row.num_references_passed, row.num_wrong_answers_failed) for row in found.rows
    }
    assert rows == {
        ("canitedit", "descriptive"): (1, 1),
        ("canitedit", "lazy"): (1, 1),
        ("cruxeval_output", ""): (1, 3),
        ("humaneval_infilling_random_span_light", ""): (1, 1),
        ("mbpp", ""): (1, 2),
    }
    assert found.good and found.num_skipped == {"canitedit": 2}
    console = Console(file=io.StringIO(), width=80)
    for part in summary.references(found):
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "skipped: 2 problems of canitedit" in shown and "numpy==" in shown
    assert "…" not in shown, "names are whole on a narrow screen"


def test_a_killed_check_goes_on_and_writes_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pool._Worker.run
    ran: list[Program] = []

    def killed(self: pool._Worker, program: Program) -> RunResult:
        if len(ran) == 9:
            raise KeyboardInterrupt
        ran.append(program)
        return run(self, program)

    monkeypatch.setattr(pool._Worker, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        checked(data, tmp_path / "killed")
    assert not (tmp_path / "killed" / "references.json").exists()
    ran.clear()
    monkeypatch.setattr(pool._Worker, "run", lambda self, program: ran.append(program) or run(self, program))
    checked(data, tmp_path / "killed")
    num_again = len(ran)
    ran.clear()
    checked(data, tmp_path / "whole", workers=2)
    assert 0 < num_again < len(ran)
    assert (tmp_path / "killed" / "references.json").read_bytes() == (
        tmp_path / "whole" / "references.json"
    ).read_bytes()


def test_a_reference_that_fails_ends_the_command_with_1(data: Path, tmp_path: Path) -> None:
    written_rows(data, "mbpp/mbpp.jsonl", [SENTENCE | {"code": "def double(x):\n    return x"}])
    command = [
        "evaluate",
        "--references",
        "--benchmarks",
        "mbpp",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "mbpp: Mbpp/11: the reference does not pass: wrong AssertionError" in done.output
    [row] = json.loads((tmp_path / "out" / "references.json").read_text())["rows"]
    assert (row["num_references"], row["num_references_passed"]) == (1, 0)
