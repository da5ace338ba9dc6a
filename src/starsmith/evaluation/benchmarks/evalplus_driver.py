"""The program that judges an EvalPlus candidate, run inside the sandbox beside `problem.json`.

It knows nothing but the standard library, because nothing else is there. It runs the reference solution on
every input for the expected outputs, then the candidate, and compares as EvalPlus does:

* equal, or else close (|got - expected| <= atol + 1e-7 |expected|, element by element, of the same type and
  length) where the problem has a tolerance or its expected output is of floats; a tolerance that floats brought
  in stays for the inputs after it, as there;
* by rules of their own for the few functions that have more than one right answer (`_allowed`).

EvalPlus compares with NumPy, which would also take nested lists of unequal shape where they broadcast; here they
are unequal. What the candidate prints is thrown away.
"""

import cmath
import contextlib
import copy
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

RELATIVE_TOLERANCE = 1e-7
FLOAT_TOLERANCE = 1e-6
COMPARED_AS_SETS = {
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
}
COMPARED_AS_FOUND = {"check_str", "text_match_three", "text_starta_endb"}
"""Whether there is an output at all (a match) is compared, not the output."""
_SHOWN_CHARS = 100


def arguments(conversion: str, given: Any) -> list[Any]:
    """A call's arguments from their JSON, which has neither tuples nor sets nor complex numbers."""
    match conversion:
        case "tuples":
            return [tuple(each) for each in given]
        case "lists of tuples":
            return [[tuple(item) for item in each] for each in given]
        case "tuples of tuples":
            return [tuple(tuple(item) for item in each) for each in given]
        case "first a list of tuples":
            return [[tuple(item) for item in given[0]], *given[1:]]
        case "first a tuple":
            return [tuple(given[0]), *given[1:]]
        case "second a tuple":
            return [given[0], tuple(given[1])]
        case "a tuple with tuples":
            return [tuple(tuple(item) if isinstance(item, list) else item for item in given[0])]
        case "a list of sets":
            return [[set(item) if isinstance(item, list) and item else {} for item in given[0]]]
        case "a dictionary of tuples":
            return [{key: tuple(value) for key, value in given[0].items()}, *given[1:]]
        case "all tuples":
            return list(_all_tuples(given))
        case "a complex number":
            return [complex(given[0])]
        case "a number and a complex number":
            return [float(given[0]), complex(given[1])]
    return list(given)


def close(got: Any, expected: Any, atol: float) -> bool:
    """Whether numbers, or sequences of them of one shape, differ by no more than the tolerance."""
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(close, got, expected, [atol] * len(got)))
    if not (isinstance(got, int | float | complex) and isinstance(expected, int | float | complex)):
        return False
    try:
        if not (cmath.isfinite(got) and cmath.isfinite(expected)):
            return got == expected
        return abs(got - expected) <= atol + RELATIVE_TOLERANCE * abs(expected)
    except OverflowError:
        return False


def agrees(entry_point: str, inputs: list[Any], got: Any, expected: Any, atol: float) -> tuple[bool, float]:
    """Whether an output is right, and the tolerance for the inputs to come."""
    if entry_point == "find_zero":
        coefficients = inputs[0]
        return bool(abs(sum(c * math.pow(got, i) for i, c in enumerate(coefficients))) <= atol), atol
    right = _allowed(entry_point, inputs, got, expected, atol)
    if atol == 0 and _is_floats(expected):
        atol = FLOAT_TOLERANCE
    if not right and atol != 0:
        right = type(got) is type(expected) and close(got, expected, atol)
    return right, atol


def _allowed(entry_point: str, inputs: list[Any], got: Any, expected: Any, atol: float) -> bool:
    if entry_point in COMPARED_AS_SETS:
        return set(got) == set(expected)
    if entry_point in COMPARED_AS_FOUND:
        return bool((got if isinstance(got, bool) else got is not None) == expected)
    if got == expected:
        return True
    match entry_point:
        case "are_equivalent":  # the problem is ill-posed: any output is let pass
            return True
        case "sum_div":
            return bool(got == 0)
        case "surface_Area":  # the height may be meant as that of the pyramid, or of its side
            base_edge, height = inputs
            slant_height = math.sqrt((base_edge / 2) ** 2 + height**2)
            return bool(abs(got - round(base_edge**2 + 2 * base_edge * slant_height)) <= atol)
        case "digit_distance_nums":  # digit by digit, the shorter number filled with zeros
            first, second = map(str, inputs)
            width = max(len(first), len(second))
            pairs = zip(first.zfill(width), second.zfill(width), strict=True)
            return bool(got == sum(abs(int(left) - int(right)) for left, right in pairs))
    return False


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, float) for each in value)
    return isinstance(value, float)


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


def _function(source: str, entry_point: str, name: str) -> Any:
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec"), namespace)  # noqa: S102 - this is the sandbox
    return namespace[entry_point]


def _main() -> None:
    problem = json.loads((Path(__file__).parent / "problem.json").read_text(encoding="utf-8"))
    write = os.write  # before the candidate can change it
    with Path(os.devnull).open("w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink):
        _judge(problem)
    write(1, f"\n{problem['proof']}\n".encode())


def _judge(problem: dict[str, Any]) -> None:
    entry_point, atol = problem["entry_point"], problem["atol"]
    calls = [arguments(problem["conversion"], given) for given in problem["inputs"]]
    reference = _function(problem["reference"], entry_point, "reference")
    outputs = [reference(*copy.deepcopy(call)) for call in calls]
    if entry_point in COMPARED_AS_FOUND:
        outputs = [output is not None for output in outputs]
    try:
        compile(problem["candidate"], "candidate.py", "exec")
    except (SyntaxError, ValueError) as error:
        sys.exit(f"SyntaxError: {error}".encode("ascii", "backslashreplace").decode())
    candidate = _function(problem["candidate"], entry_point, "candidate")
    for number, (call, expected) in enumerate(zip(calls, outputs, strict=True)):
        got = candidate(*copy.deepcopy(call))
        try:
            right, atol = agrees(entry_point, call, got, expected, atol)
        except Exception as error:
            raise AssertionError(f"input {number}: the output cannot be compared: {error!r}") from None
        if not right:
            shown = f"{expected!r:.{_SHOWN_CHARS}} expected, got {got!r:.{_SHOWN_CHARS}}"
            raise AssertionError(f"input {number}: {shown}")


if __name__ == "__main__":
    _main()
