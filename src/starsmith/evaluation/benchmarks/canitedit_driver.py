"""The program that measures how much of an edit is excess, run inside the sandbox beside `problem.json`.

It runs the edited code and its tests while it notes which lines of the code run, and prints

    statements that no test runs / lines of the comparison of the code before with the code after

The second number is that of the authors' code: all lines that `difflib.Differ` lists, the common ones among
them. What counts as a statement is the compiler's word: docstrings and bare annotations have no code.
"""

import ast
import difflib
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_NAME = "edited.py"


def statements(source: str) -> list[range]:
    """The lines of each statement that has code; of a compound one, its head."""
    with_code = set(_lines_with_code(compile(source, _NAME, "exec")))
    heads = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
            body = getattr(node, "body", None)
            cases = getattr(node, "cases", None)
            inner = body[0].lineno if body else cases[0].pattern.lineno if cases else None
            end = max(node.lineno + 1, inner) if inner else (node.end_lineno or node.lineno) + 1
            heads.append(range(first, end))
    return [head for head in heads if with_code & set(head)]


def excess(before: str, after: str, executed: set[int]) -> float:
    num_lines = sum(1 for _ in difflib.Differ().compare(before.splitlines(), after.splitlines()))
    return sum(not executed & set(head) for head in statements(after)) / max(num_lines, 1)


def _lines_with_code(code: CodeType) -> Iterator[int]:
    yield from (line for _, _, line in code.co_lines() if line)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines_with_code(constant)


def _main() -> None:
    problem = json.loads((Path(__file__).parent / "problem.json").read_text(encoding="utf-8"))
    write = os.write
    executed: set[int] = set()

    def note(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != _NAME:
            return None
        if event == "line":
            executed.add(frame.f_lineno)
        return note

    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(problem["setup"], {})  # noqa: S102 - this is the sandbox
    edited = compile(problem["after"], _NAME, "exec")
    threading.settrace(note)
    sys.settrace(note)
    exec(edited, namespace)  # noqa: S102
    exec(compile(problem["tests"], "tests.py", "exec"), namespace)  # noqa: S102
    sys.settrace(None)
    value = excess(problem["before"], problem["after"], executed)
    write(1, f"\n{value:.6f}\n{problem['proof']}\n".encode())


if __name__ == "__main__":
    _main()
