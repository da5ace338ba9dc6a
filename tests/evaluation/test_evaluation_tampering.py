"""Completions that want a verdict without passing the tests.

What is held off here is what models write: early exits, printed words, streams that are replaced or closed,
exceptions that are swallowed. Code written against this harness, which reads its own file for the proof, is not:
see `verdicts`.
"""

from dataclasses import replace

import pytest

from starsmith.evaluation.contract import Limits
from starsmith.evaluation.sandbox.pool import Sandbox
from starsmith.evaluation.verdicts import judge, proved_program

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=5.0)
TESTS = "\n\nassert times(2) == 4\nassert times(3) == 6\n"
WRONG = "def times(n):\n    return n\n"
RIGHT = "def times(n):\n    return 2 * n\n"

TAMPERING = {
    "leaves": "import sys\nsys.exit(0)\n",
    "leaves at once": "import os\nos._exit(0)\n",
    "leaves when called": "import os\ndef times(n):\n    os._exit(0)\n",
    "leaves by exception": "raise SystemExit\n",
    "leaves as another": "import os\nif os.fork():\n    os._exit(0)\n" + WRONG,
    "becomes another program": "import os\nos.execv('/bin/true', ['true'])\n",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "prints a word": "print('passed')\nprint('OK', flush=True)\nimport os\nos._exit(0)\n",
    "prints a proof of its own": "import os\nprint('0' * 40, flush=True)\nos._exit(0)\n",
    "prints when it ends": "import atexit\natexit.register(print, '0' * 40)\n" + WRONG,
    "hides its exception": "import sys\nsys.excepthook = lambda *a: None\n" + WRONG,
    "leaves in its exception": "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n" + WRONG,
    "closes its output": "import os\nos.close(1)\nos.close(2)\n" + WRONG,
    "takes write away": "import os\nos.write = lambda *a: 0\n" + WRONG,
    "takes import away": "import builtins\nbuiltins.__import__ = lambda *a: None\n" + WRONG,
    "renames the exception": "import builtins\nbuiltins.AssertionError = KeyError\n" + WRONG,
    "ends its source": WRONG + "\n\x1a\x00\n",
    "opens a string": '"""' + RIGHT,
    "continues its last line": WRONG + "if times(2) == 4: \\",
}
HONEST = {
    "prints": "print('passed')\n" + RIGHT,
    "prints without a line's end": "print('passed', end='')\n" + RIGHT,
    "replaces print": "print = None\n" + RIGHT,
    "replaces its output": "import io, sys\nsys.stdout = io.StringIO()\n" + RIGHT,
    "names things like ours": "__name__ = 'x'\nos = proof = None\n" + RIGHT,
}
HARD = {
    "brackets": "x = " + "(" * 100_000 + ")" * 100_000,
    "unary operators": "x = " + "-" * 100_000 + "1",
    "attributes": "x = a" + ".b" * 200_000,
    "a zero": "x = 1\0\n",
    "a lone surrogate": "x = '\ud800'\n",
    "a power": "x = 9 ** 9 ** 9 ** 9\n",
    "a large constant": "x = 'a' * (1 << 40)\n",
}


def labels(sandbox: Sandbox, sources: list[str]) -> list[str]:
    programs = [replace(proved_program(source + TESTS), limits=LIMITS) for source in sources]
    return [judge(*pair)[0] for pair in zip(programs, sandbox.run_programs(programs), strict=True)]


def test_nothing_but_passed_tests_passes(python_sandbox: Sandbox) -> None:
    found = dict(zip(TAMPERING, labels(python_sandbox, list(TAMPERING.values())), strict=True))
    assert {name: label for name, label in found.items() if label in ("pass", "sandbox_error")} == {}


def test_what_is_odd_but_right_passes(python_sandbox: Sandbox) -> None:
    found = dict(zip(HONEST, labels(python_sandbox, list(HONEST.values())), strict=True))
    assert found == dict.fromkeys(HONEST, "pass")


@pytest.mark.parametrize("name", HARD)
def test_a_source_that_is_hard_to_compile_costs_its_own_verdict_only(python_sandbox: Sandbox, name: str) -> None:
    found, after = labels(python_sandbox, [HARD[name], RIGHT])
    assert found in ("compile", "runtime", "oom", "timeout") and after == "pass"


def test_a_completion_of_megabytes_is_run(python_sandbox: Sandbox) -> None:
    assert labels(python_sandbox, ["x = '" + "a" * 4_000_000 + "'\n" + RIGHT]) == ["pass"]
