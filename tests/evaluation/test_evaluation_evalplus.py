from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program_cases import assert_known_worth, judged, labels, real_data, written_rows

from starsmith.evaluation.benchmarks.evalplus_driver import agrees, arguments, close
from starsmith.evaluation.benchmarks.humaneval_plus import HumanEvalPlus
from starsmith.evaluation.benchmarks.mbpp_plus import CONVERSIONS, MbppPlus
from starsmith.evaluation.contract import Candidate, Completion, Problem
from starsmith.evaluation.sandbox.pool import Sandbox

DOUBLE = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x: float) -> float:\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "base_input": [[3], [0]],
    "plus_input": [[-1], [0.1]],
    "atol": 0,
}
SWAP = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nWrite a function that swaps a pair.\nassert swap((1, 2)) == (2, 1)\n"""\n',
    "entry_point": "swap",
    "canonical_solution": "\ndef swap(pair):\n    assert isinstance(pair, tuple)\n    return pair[::-1]\n",
    "base_input": [[[1, 2]]],
    "plus_input": {},
    "atol": 0,
}


@pytest.fixture
def double(tmp_path: Path) -> tuple[HumanEvalPlus, Problem]:
    benchmark = HumanEvalPlus(data=written_rows(tmp_path, "humanevalplus/HumanEvalPlus.jsonl", [DOUBLE]))
    return benchmark, benchmark.load()[0]


def test_references_pass_and_empty_answers_do_not(
    python_sandbox: Sandbox, tmp_path: Path, double: tuple[HumanEvalPlus, Problem]
) -> None:
    assert_known_worth(python_sandbox, double[0], [double[1]])
    mbpp = MbppPlus(data=written_rows(tmp_path, "mbppplus/MbppPlus.jsonl", [SWAP]))
    assert_known_worth(python_sandbox, mbpp, mbpp.load())


@pytest.mark.parametrize(
    ("make", "folder", "number"), [(HumanEvalPlus, "humanevalplus", 164), (MbppPlus, "mbppplus", 378)]
)
def test_real_references(
    python_sandbox: Sandbox, make: Callable[..., HumanEvalPlus | MbppPlus], folder: str, number: int
) -> None:
    benchmark = make(data=real_data(folder))
    problems = benchmark.load()
    assert len(problems) == number
    # Among them problems with a rule of their own and converted arguments.
    special = {"HumanEval/32", "Mbpp/2", "Mbpp/115", "Mbpp/124", "Mbpp/164", "Mbpp/252", "Mbpp/278", "Mbpp/722"}
    chosen = problems[:: number // 8] + [problem for problem in problems if problem.id in special]
    assert_known_worth(python_sandbox, benchmark, chosen)


def test_further_inputs_find_what_the_original_ones_do_not(
    python_sandbox: Sandbox, double: tuple[HumanEvalPlus, Problem]
) -> None:
    benchmark, problem = double
    texts = ["\n    return 2 * x", "\n    return 2 * abs(x)", "\n    return x"]
    answers = [(problem, benchmark.extract(problem, Completion(text=text))) for text in texts]
    scores = judged(python_sandbox, benchmark, answers)
    assert [score.label for score in scores] == ["pass", "wrong", "wrong"]
    assert scores[1].detail == "further tests: AssertionError: input 0: -2 expected, got 2"
    assert scores[2].detail.startswith("original tests: ")
    estimates = [benchmark.aggregate([score], seed=1) for score in scores]
    assert [each["pass@1"].value for each in estimates] == [1, 0, 0]
    assert [each["base/pass@1"].value for each in estimates] == [1, 1, 0]


def test_each_label(python_sandbox: Sandbox, double: tuple[HumanEvalPlus, Problem]) -> None:
    answers = {
        "\n    print('loud', flush=True)\n    return x + x": "pass",
        "def double(x):\n    return x + x": "pass",
        "```python\ndef double(x):\n    return x + x\n```": "pass",
        "\n    return x * 2 + 1e-9": "wrong",
        "\n    return (x": "compile",
        "\n    return '\ud800'": "compile",
        "\n    return y": "runtime",
        "\n    import sys; sys.exit(0)": "runtime",
        "\n    import os; os._exit(0)": "runtime",
        "\n    while True: pass": "timeout",
        "\n    return bytearray(1 << 40)": "oom",
    }
    assert labels(python_sandbox, *double, list(answers)) == list(answers.values())


def test_floats_of_the_reference_bring_a_tolerance_that_stays() -> None:
    assert agrees("f", [], 0.3, 0.1 + 0.2, 0) == (True, 1e-6)
    assert agrees("f", [], 0.31, 0.1 + 0.2, 0) == (False, 1e-6)
    assert agrees("f", [], 1, 2, 0) == (False, 0)
    assert agrees("f", [], [1, 2.0000001], [1, 2.0], 0) == (False, 0)
    assert agrees("f", [], [1, 2.0000001], [1, 2.0], 1e-6) == (True, 1e-6)
    assert agrees("f", [], (1.0,), [1.0], 1e-6) == (False, 1e-6), "another type"
    assert agrees("f", [], 2, 2.0, 0) == (True, 1e-6), "equal is right, whatever the type"


@pytest.mark.parametrize(
    ("got", "expected", "is_close"),
    [
        ([1.0, [2.0]], [1.0, [2.0 + 1e-9]], True),
        ([1.0], [1.0, 1.0], False),
        (float("inf"), float("inf"), True),
        (5.0, float("inf"), False),
        (float("nan"), float("nan"), False),
        (1 + 1e-9j, 1, True),
        (10**400, 10**400 + 1, False),
        ("a", "a", False),
        (None, 1.0, False),
        (1e9, 1e9 + 50, True),
    ],
)
def test_closeness(got: Any, expected: Any, is_close: bool) -> None:
    assert close(got, expected, 1e-6) is is_close


@pytest.mark.parametrize(
    ("entry_point", "inputs", "got", "expected", "right"),
    [
        ("similar_elements", [], (4, 5), (5, 4), True),
        ("similar_elements", [], (4,), (5, 4), False),
        ("check_str", [], True, False, False),
        ("check_str", [], "a match", True, True),
        ("check_str", [], None, False, True),
        ("are_equivalent", [], 3, True, True),
        ("sum_div", [12], 0, 16, True),
        ("sum_div", [12], 15, 16, False),
        ("surface_Area", [3, 4], round(9 + 6 * (1.5**2 + 16) ** 0.5), 33, True),
        ("surface_Area", [3, 4], 34, 33, False),
        ("digit_distance_nums", [12, 3], 2, 9, True),
        ("digit_distance_nums", [12, 3], 3, 9, False),
        ("find_zero", [[1, 2]], -0.50001, 77, True),
        ("find_zero", [[1, 2]], -0.6, -0.5, False),
    ],
)
def test_functions_with_more_than_one_right_answer(
    entry_point: str, inputs: list[Any], got: Any, expected: Any, right: bool
) -> None:
    atol = 1e-4 if entry_point == "find_zero" else 0
    assert agrees(entry_point, inputs, got, expected, atol)[0] is right


@pytest.mark.parametrize(
    ("conversion", "given", "made"),
    [
        ("", [[1], 2], [[1], 2]),
        ("tuples", [[1, 2], [3]], [(1, 2), (3,)]),
        ("lists of tuples", [[[1], [2]]], [[(1,), (2,)]]),
        ("tuples of tuples", [[[1], [2]], [[3]]], [((1,), (2,)), ((3,),)]),
        ("first a list of tuples", [[[1], [2]], 3], [[(1,), (2,)], 3]),
        ("first a tuple", [[1], 2, 3], [(1,), 2, 3]),
        ("second a tuple", [[1], [2]], [[1], (2,)]),
        ("a tuple with tuples", [[1, [2]]], [(1, (2,))]),
        ("all tuples", [[1, [2, [3]]]], [(1, (2, (3,)))]),
        ("a dictionary of tuples", [{"a": [1, 2]}, 3], [{"a": (1, 2)}, 3]),
        ("a list of sets", [[[1, 1], []]], [[{1}, {}]]),
        ("a complex number", ["(1+2j)"], [1 + 2j]),
        ("a number and a complex number", ["1.5", "2j"], [1.5, 2j]),
    ],
)
def test_arguments_from_json(conversion: str, given: list[Any], made: list[Any]) -> None:
    assert arguments(conversion, given) == made
    assert conversion in {"", *CONVERSIONS.values()}


def test_a_candidate_cannot_change_the_inputs_of_the_next_call_or_the_proof(
    python_sandbox: Sandbox, double: tuple[HumanEvalPlus, Problem]
) -> None:
    benchmark, problem = double
    sources = [
        "import os\nos.write = None\ndef double(x):\n    return 2 * x\n",
        "print = None\ndouble = lambda x: 2*x",
    ]
    scores = judged(python_sandbox, benchmark, [(problem, Candidate(text=source)) for source in sources])
    assert [score.label for score in scores] == ["pass", "pass"]
