from pathlib import Path

import pytest
from program_cases import assert_known_worth, labels, real_data, written_rows

from starsmith.errors import InputError
from starsmith.evaluation.benchmarks.mbpp import STOPS, Mbpp
from starsmith.evaluation.contract import Completion, MissingDataError, Sampling
from starsmith.evaluation.sandbox.pool import Sandbox

DOUBLE = {
    "task_id": 11,
    "text": "Write a function that doubles.",
    "code": "def double(x):\r\n    return 2 * x",
    "test_setup_code": "",
    "test_list": ["assert double(3) == 6", "assert double(-1) == -2"],
    "challenge_test_list": [],
}
DEPTH = {
    "task_id": 367,
    "text": "Write a function that counts the nodes of a chain.",
    "code": "class Node:\n    next = None\n\ndef length(node):\n    return 1 + length(node.next) if node else 0",
    "test_setup_code": "root = Node()\nroot.next = Node()",
    "test_list": ["assert length(root) == 2"],
}


@pytest.fixture
def mbpp(tmp_path: Path) -> Mbpp:
    rows = [DOUBLE | {"task_id": 10}, DOUBLE, DEPTH, DOUBLE | {"task_id": 511}]
    return Mbpp(data=written_rows(tmp_path, "mbpp/mbpp.jsonl", rows))


def test_the_test_split_is_asked_with_a_docstring_and_one_test(mbpp: Mbpp) -> None:
    problems = mbpp.load()
    assert [problem.id for problem in problems] == ["Mbpp/11", "Mbpp/367"]
    (request,) = mbpp.requests(problems[0])
    assert request.prompt == '"""\nWrite a function that doubles.\nassert double(3) == 6\n"""\n'
    assert request.stop == STOPS and "<file_sep>" in STOPS and request.temperature == 0


def test_references_pass_and_an_empty_answer_does_not(python_sandbox: Sandbox, mbpp: Mbpp) -> None:
    assert_known_worth(python_sandbox, mbpp, mbpp.load())


def test_real_references(python_sandbox: Sandbox) -> None:
    mbpp = Mbpp(data=real_data("mbpp"))
    problems = mbpp.load()
    assert len(problems) == 500
    assert_known_worth(python_sandbox, mbpp, problems[::60])


def test_each_label(python_sandbox: Sandbox, mbpp: Mbpp) -> None:
    answers = {
        "def double(x):\n    return 2 * x\nassert False": "pass",
        "def double(x):\n    return 6": "wrong",
        "def double(x:\n    return 6": "compile",
        "def double(x):\n    return x.y": "runtime",
        "import sys; sys.exit(0)": "runtime",
        "while True: pass": "timeout",
        "```python\ndef double(x):\n    return 2 * x\n```\nDone.": "pass",
        "def double(x):\n    return 2 * x\n<file_sep>import": "pass",
    }
    assert labels(python_sandbox, mbpp, mbpp.load()[0], list(answers)) == list(answers.values())


@pytest.mark.parametrize("text", ["x" * 3_000_000, "\ud800\udfff", "\0", "\n" * 1_000_000, "(" * 100_000])
def test_no_completion_breaks_the_run(python_sandbox: Sandbox, mbpp: Mbpp, text: str) -> None:
    assert labels(python_sandbox, mbpp, mbpp.load()[0], [text])[0] in ("compile", "runtime", "oom", "limit")


def test_a_missing_file_and_one_of_another_version_are_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"mbpp\.jsonl.*google-research"):
        Mbpp(data=tmp_path).load()
    data = written_rows(tmp_path, "mbpp/mbpp.jsonl", [DOUBLE, {"task_id": "11"}])
    with pytest.raises(InputError, match="line 2: no field 'text'"):
        Mbpp(data=data).load()
    written_rows(tmp_path, "mbpp/mbpp.jsonl", [DOUBLE | {"test_list": "assert True"}])
    with pytest.raises(InputError, match="line 1: test_list must be list"):
        Mbpp(data=data).load()


def test_samples_differ_in_their_seeds_only(mbpp: Mbpp) -> None:
    problem = mbpp.load()[0]
    first, second = Mbpp(sampling=Sampling(samples=2, temperature=0.2)).requests(problem)
    assert first.seed != second.seed and first.prompt == second.prompt
    assert mbpp.extract(problem, Completion(text="x\nprint(1)")).text == first.prompt + "x\n"
