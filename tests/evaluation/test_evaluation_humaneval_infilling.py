from pathlib import Path

import pytest
from program_cases import assert_known_worth, labels, real_data, written_rows

from starsmith.evaluation.benchmarks.humaneval_infilling import FILES, STOPS, HumanEvalInfilling, Part
from starsmith.evaluation.contract import MissingDataError
from starsmith.evaluation.sandbox.pool import Sandbox

ROW = {
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "entry_point": "double",
    "prompt": "def double(x):\n    y = x\n",
    "suffix": "    return y\n",
    "canonical_solution": "    y *= 2\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n",
}


@pytest.fixture
def infilling(tmp_path: Path) -> HumanEvalInfilling:
    rows = [ROW, ROW | {"task_id": "SingleLineInfilling/HumanEval/0/L1", "canonical_solution": "    y = x + x\n"}]
    return HumanEvalInfilling(
        part="single_line", data=written_rows(tmp_path, f"humaneval-infilling/{FILES['single_line']}", rows)
    )


def test_it_is_asked_as_an_infilling_that_only_special_tokens_end(infilling: HumanEvalInfilling) -> None:
    (request,) = infilling.requests(infilling.load()[0])
    assert (request.prompt, request.suffix) == (ROW["prompt"], ROW["suffix"])
    assert request.stop == STOPS == ("<|endoftext|>", "<|filename|>", "<file_sep>")


def test_references(python_sandbox: Sandbox, infilling: HumanEvalInfilling) -> None:
    assert_known_worth(python_sandbox, infilling, infilling.load())


@pytest.mark.parametrize(
    ("part", "number"),
    [("single_line", 1033), ("multi_line", 5815), ("random_span", 1640), ("random_span_light", 164)],
)
def test_real_references(python_sandbox: Sandbox, part: Part, number: int) -> None:
    infilling = HumanEvalInfilling(part=part, data=real_data("humaneval-infilling"))
    problems = infilling.load()
    assert len(problems) == number and infilling.name == f"humaneval_infilling_{part}"
    chosen = problems[:: number // 5]
    # Here a bracket alone in place of the span makes a right function.
    chosen += [
        each
        for each in problems
        if each.id in ("RandomSpanInfilling/HumanEval/16/6", "RandomSpanInfilling/HumanEval/74/6")
    ]
    assert_known_worth(python_sandbox, infilling, chosen)


def test_tests_decide_and_not_the_text(python_sandbox: Sandbox, infilling: HumanEvalInfilling) -> None:
    answers = {
        "    y = 2 * x\n": "pass",
        "    y += x\n<file_sep>import os": "pass",
        "    y += y  # \n\n\n\ndef other(): pass\n": "compile",
        "    pass\n": "wrong",
        "": "wrong",
        "    y = z\n": "runtime",
        "    import os; os._exit(0)\n": "runtime",
        "    while True: pass\n": "timeout",
        "    y = '\ud800'\n": "compile",
        "#" * 3_000_000 + "\n": "wrong",
    }
    assert labels(python_sandbox, infilling, infilling.load()[0], list(answers)) == list(answers.values())


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"MultiLineInfilling.*openai/human-eval-infilling"):
        HumanEvalInfilling(part="multi_line", data=tmp_path).load()
