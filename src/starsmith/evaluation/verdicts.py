"""From what happened to a Python program to a label.

A run passes when it ended by itself with status 0 and its output ends with the program's proof, which is
written after the last test and depends on the whole program. So neither `sys.exit(0)` nor a printed word can
stand in for passed tests.

The proof lies in the program's own source, where code that knows this harness could read it: what runs in the
process that reports cannot be kept from reporting. This holds off what models write, not what is written against
us.
"""

import re
from typing import Final

from starsmith.evaluation.contract import Label, Problem, Program, RunResult, Score, content_key

_ADDRESS: Final = re.compile(r"0x[0-9a-f]{6,}")
_EXCEPTION: Final = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)")
_MAX_DETAIL_CHARS: Final = 300


def proved_program(source: str) -> Program:
    """A one-file program that writes its proof when it reaches its end.

    The proof goes straight to the descriptor, so that a candidate that replaced `print` or `sys.stdout` for
    its own use still passes.
    """
    proof = content_key(source)
    ending = f'\n\n__import__("os").write(1, b"\\n{proof}\\n")\n'
    # What was printed before may still lie in a buffer, and would follow the proof.
    flush = '\n\n__import__("sys").__stdout__.flush()'
    return Program(files=(("main.py", source + flush + ending),), proof=proof)


def scored(problem: Problem, sample: int, label: Label, detail: str = "") -> Score:
    """The score of what passes or does not."""
    return Score(
        problem=problem.id,
        sample=sample,
        group=problem.group,
        label=label,
        value=float(label == "pass"),
        detail=detail,
    )


def judge(program: Program, result: RunResult) -> tuple[Label, str]:
    """The label of a run and one line that says why; "" for a pass."""
    match result.ended:
        case "compile":
            return result.ended, result.detail
        case "timeout" | "oom" | "sandbox_error":
            return result.ended, result.detail
        case "output" | "disk" | "processes":
            return "limit", result.detail
    if result.status == 0:
        if result.stdout.rstrip().endswith(program.proof):
            return "pass", ""
        return "runtime", "ended before its tests did"
    lines = result.stderr.rstrip().splitlines()
    last = _ADDRESS.sub("0x...", lines[-1] if lines else "")[:_MAX_DETAIL_CHARS]
    if result.status < 0:
        return "runtime", f"killed by signal {-result.status}"
    found = _EXCEPTION.match(last)
    name = found[1] if found else ""
    if name == "MemoryError":
        return "oom", last
    if name == "AssertionError":
        return "wrong", last
    if name in ("SyntaxError", "IndentationError", "TabError") and not _raised(result.stderr):
        return "compile", last
    return "runtime", last or f"ended with status {result.status}"


def _raised(stderr: str) -> bool:
    """Whether the program was already running: a fault of compilation is shown without a traceback."""
    return "Traceback (most recent call last):" in stderr
