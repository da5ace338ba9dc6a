"""Known wrong answers that are made of right ones."""

from typing import Any

import pytest

from starsmith.evaluation.benchmarks.python_programs import changed_results


def function(source: str, name: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return namespace[name]


@pytest.mark.parametrize(
    "result",
    [True, 0, -1, 2.5, -1.0, 1e300, 1j, "", "a", [], [1], (), (1, 2), {1}, {}, {"changed": 1}, None, float("inf")],
)
def test_every_result_is_another_of_the_same_type(result: Any) -> None:
    source = "def right(value):\n    return value\n"
    wrong = function(changed_results(source, "right"), "right")(result)
    assert wrong != result and (result is None or type(wrong) is type(result))


def test_a_function_that_calls_itself_gets_what_it_must() -> None:
    source = "def total(n):\n    return n and n + total(n - 1)\n"
    wrong = function(changed_results(source, "total"), "total")
    assert [wrong(3), wrong(3)] == [13, 13], "6 + 1 + 6, each time"


def test_what_is_raised_goes_through_and_leaves_it_wrong() -> None:
    source = "def invert(n):\n    return 1 // n\n"
    wrong = function(changed_results(source, "invert"), "invert")
    with pytest.raises(ZeroDivisionError):
        wrong(0)
    assert wrong(1) == 3
