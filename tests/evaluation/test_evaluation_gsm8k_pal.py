from pathlib import Path

import pytest
from program_cases import assert_known_worth, labels, real_data, written_rows

from starsmith.evaluation.benchmarks.gsm8k_pal import STOPS, Gsm8kPal
from starsmith.evaluation.contract import MissingDataError
from starsmith.evaluation.sandbox.pool import Sandbox

ROWS = [
    {"input": "Two bags hold four marbles each. How many marbles?", "target": 8},
    {"input": "Half of five?", "target": 2.5},
    {"input": "Minus one million?", "target": -1000000},
]


@pytest.fixture
def pal(tmp_path: Path) -> Gsm8kPal:
    return Gsm8kPal(data=written_rows(tmp_path, "gsm8k-pal/gsm.jsonl", ROWS))


def test_eight_examples_stand_before_the_question(pal: Gsm8kPal) -> None:
    (request,) = pal.requests(pal.load()[0])
    assert request.prompt.count("# solution in Python:") == 9 and request.prompt.count("def solution():") == 8
    assert request.prompt.startswith("Q: Olivia has $23.")
    assert request.prompt.endswith(
        "\n\n\n\n\n\nQ: Two bags hold four marbles each. How many marbles?\n\n# solution in Python:\n\n\n"
    )
    assert request.stop == STOPS and "<file_sep>" in STOPS and request.temperature == 0


def test_answers_of_known_worth(python_sandbox: Sandbox, pal: Gsm8kPal) -> None:
    assert_known_worth(python_sandbox, pal, pal.load())


@pytest.mark.parametrize("part", ["gsm8k", "gsm_hard"])
def test_real_data(python_sandbox: Sandbox, part: str) -> None:
    pal = Gsm8kPal(data=real_data("gsm8k-pal"), part=part)  # type: ignore[arg-type]
    problems = pal.load()
    assert len(problems) == 1319
    assert_known_worth(python_sandbox, pal, problems[::130])


def test_each_label(python_sandbox: Sandbox, pal: Gsm8kPal) -> None:
    answers = {
        "def solution():\n    return 2 * 4\n\n\n\n\nQ: Next?": "pass",
        "def solution():\n    print(7)\n    return 8.0004": "pass",
        "def solution():\n    return '8'\nQ: Another?": "pass",
        "def solution():\n    return 8.002": "wrong",
        "def solution():\n    return '$8'": "wrong",
        "def solution():\n    return None": "wrong",
        "def solution():\n    return float('nan')": "wrong",
        "def solution(:": "compile",
        "The answer is 8.": "compile",
        "def solution():\n    return marbles": "runtime",
        "print(8); raise SystemExit": "runtime",
        "def solution():\n    while True: pass": "timeout",
        "\ud800": "compile",
        "8" * 2_000_000: "compile",
    }
    assert labels(python_sandbox, pal, pal.load()[0], list(answers)) == list(answers.values())


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"gsmhardv2.*reasoning-machines/pal"):
        Gsm8kPal(data=tmp_path, part="gsm_hard").load()
