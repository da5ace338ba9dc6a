"""The program that judges an answer to a DS-1000 problem, run in its environment beside `problem.json`.

It runs the authors' test code, which builds inputs, puts the answer into a program of its own, runs that and
compares; some problems also look for words in the answer (`test_string`). The proof is written when all of it
has returned, so an answer that ends the process passes nothing.

What stands in the environment is the candidate's to import: this file needs the standard library alone.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

_TESTS = ("test_execution", "test_string")


def is_of_answer(error: SyntaxError) -> bool:
    """Whether the answer itself is no valid code: the test that compiles it is then the last of the frames. An
    answer that compiles something invalid stands above it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_name == "test_execution"


def _main() -> None:
    problem = json.loads((Path(__file__).parent / "problem.json").read_text(encoding="utf-8"))
    write, shown = os.write, sys.excepthook  # before the answer can change them
    namespace: dict[str, Any] = {}
    exec(compile(problem["tests"], "tests.py", "exec"), namespace)  # noqa: S102 - this is the sandbox
    try:
        for name in _TESTS:
            if name in namespace:
                namespace[name](problem["answer"])
    except SyntaxError as error:
        if not is_of_answer(error):
            raise
        shown(type(error), error.with_traceback(None), None)
        sys.exit(1)
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()
    write(1, f"\n{problem['proof']}\n".encode())


if __name__ == "__main__":
    _main()
