import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from starsmith.errors import InputError, MachineError
from starsmith.evaluation.benchmarks.humaneval import STOPS, HumanEval
from starsmith.evaluation.contract import Candidate, Completion, Limits, Problem, Program, RunResult, Sampling
from starsmith.evaluation.execution import Executor, preflight
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox import selftest
from starsmith.evaluation.sandbox.pool import Sandbox
from starsmith.evaluation.verdicts import judge, proved_program

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "benchmarks"
LINE = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x: int) -> int:\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate(-1) == -2\n",
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        level, _ = selftest.choose("auto")
    except MachineError as error:
        pytest.skip(str(error))
    with Sandbox(level, workers=2) as made:
        yield made


def written(folder: Path, *lines: object, packed: bool = False) -> Path:
    (folder / "humaneval").mkdir(parents=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    if packed:
        (folder / "humaneval" / "HumanEval.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "humaneval" / "HumanEval.jsonl").write_text(text)
    return folder


def test_the_package_and_the_original_data_are_the_same() -> None:
    packaged = HumanEval().load()
    assert len(packaged) == 164 and packaged[0].id == "HumanEval/0"
    if not SHARED.is_dir():
        pytest.skip("no benchmark data beside the checkout")
    assert HumanEval(data=SHARED).load() == packaged


@pytest.mark.parametrize("packed", [True, False])
def test_data_of_the_users_own(tmp_path: Path, packed: bool) -> None:
    problems = HumanEval(data=written(tmp_path, LINE, packed=packed)).load()
    assert [problem.inputs["entry_point"] for problem in problems] == ["double"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not a JSON"),
        ({"task_id": "x"}, "line 2: no field 'prompt'"),
        (LINE | {"test": 3}, "test must be"),
    ],
)
def test_bad_data_names_the_line(tmp_path: Path, line: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        HumanEval(data=written(tmp_path, LINE, line)).load()


def test_a_damaged_archive_is_an_input_error(tmp_path: Path) -> None:
    folder = written(tmp_path, LINE, packed=True)
    path = folder / "humaneval" / "HumanEval.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        HumanEval(data=folder).load()


def test_the_request_is_the_harnesses() -> None:
    problem = HumanEval().load()[0]
    first, second = HumanEval(sampling=Sampling(samples=2, temperature=0.2)).requests(problem)
    assert first.prompt == problem.inputs["prompt"].strip()
    assert first.stop == STOPS and "<file_sep>" in first.stop and "\nclass" in first.stop
    assert first.seed != second.seed
    assert first == HumanEval(sampling=Sampling(samples=7, temperature=0.2)).requests(problem)[0]


def test_what_follows_a_stop_is_not_judged() -> None:
    problem = Problem(id="x", inputs=LINE)
    completion = Completion(text="\n    return 2 * x\n\nprint(double(1))<file_sep>import os\n")
    candidate = HumanEval().extract(problem, completion)
    assert candidate.text == LINE["prompt"].strip() + "\n    return 2 * x\n\n"


def test_the_habits_of_chat_cost_nothing() -> None:
    problem = Problem(id="x", inputs=LINE)
    function = "def double(x: int) -> int:\n    return 2 * x"
    for text in (function, f"```python\n{function}\n```\nThis doubles."):
        candidate = HumanEval().extract(problem, Completion(text=text))
        assert candidate.text == f"{LINE['prompt'].strip()}\n{function}\n"


def test_every_reference_passes_and_no_wrong_answer_does(sandbox: Sandbox, tmp_path: Path) -> None:
    problems = HumanEval().load()[::16]
    executor = Executor(sandbox, Journal(tmp_path / "verdicts.jsonl"))
    checked = preflight(HumanEval(), problems, executor)
    assert checked.excluded == {}
    assert (checked.num_references, checked.num_references_passed) == (11, 11)
    assert (checked.num_refutations, checked.num_refutations_failed) == (22, 22)
    assert checked.limits.keys() == {problem.id for problem in problems}


ANSWERS = {
    "pass": "\n    return 2 * x",
    "wrong": "\n    return x",
    "compile": "\n    return (2 * x",
    "runtime": "\n    return y",
    "timeout": "\n    while True: pass",
    "oom": "\n    return bytearray(1 << 40)",
    "limit": "\n    while True: __builtins__.print('x' * 1000)",
}


def test_each_label(sandbox: Sandbox) -> None:
    benchmark, problem = HumanEval(), Problem(id="x", inputs=LINE)
    candidates = [benchmark.extract(problem, Completion(text=text)) for text in ANSWERS.values()]
    programs = [
        Program(files=program.files, proof=program.proof, limits=Limits(cpu_seconds=1.0))
        for candidate in candidates
        for program in benchmark.programs(problem, candidate)
    ]
    results = sandbox.run_programs(programs)
    scores = [
        benchmark.score(problem, 0, candidate, [result])
        for candidate, result in zip(candidates, results, strict=True)
    ]
    assert dict(zip(ANSWERS, [score.label for score in scores], strict=True)) == {name: name for name in ANSWERS}
    assert [score.value for score in scores] == [1.0] + [0.0] * 6


@pytest.mark.parametrize(
    "body",
    [
        "\n    import sys; sys.exit(0)",
        "\n    import os; os._exit(0)",
        "\n    print('passed'); raise SystemExit",
        "\n    import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_leaving_early_is_not_passing(sandbox: Sandbox, body: str) -> None:
    benchmark, problem = HumanEval(), Problem(id="x", inputs=LINE)
    candidate = benchmark.extract(problem, Completion(text=body))
    results = sandbox.run_programs(benchmark.programs(problem, candidate))
    assert benchmark.score(problem, 0, candidate, results).label == "runtime"


def test_output_of_the_candidate_does_not_hide_the_proof(sandbox: Sandbox) -> None:
    program = proved_program("import sys\nprint('before')\nsys.stdout = None\nprint = None")
    (result,) = sandbox.run_programs([program])
    assert judge(program, result) == ("pass", "")


def test_a_syntax_error_at_run_time_is_not_one_of_compilation() -> None:
    program = proved_program("")
    raised = 'Traceback (most recent call last):\n  File "x"\nSyntaxError: invalid syntax\n'
    assert judge(program, RunResult(ended="exit", status=1, stderr=raised))[0] == "runtime"
    assert judge(program, RunResult(ended="exit", status=1, stderr="SyntaxError: bad\n"))[0] == "compile"


def test_addresses_do_not_make_details_differ() -> None:
    result = RunResult(ended="exit", status=1, stderr="ValueError: <object at 0x7f1234567890>")
    assert judge(proved_program(""), result) == ("runtime", "ValueError: <object at 0x...>")


def test_pass_at_k_counts_samples_of_a_problem_together() -> None:
    benchmark = HumanEval()

    def scores(problem: str, num_passed: int) -> list[object]:
        inputs = Problem(id=problem, inputs=LINE)
        proof = benchmark.programs(inputs, Candidate(text=""))[0].proof
        return [
            benchmark.score(
                inputs, n, Candidate(text=""), [RunResult(ended="exit", stdout=proof if n < num_passed else "")]
            )
            for n in range(10)
        ]

    estimates = benchmark.aggregate([*scores("a", 10), *scores("b", 0), *scores("c", 1)], seed=1)  # type: ignore[list-item]
    assert estimates.keys() == {"pass@1", "pass@10"}
    assert estimates["pass@1"].value == pytest.approx(1.1 / 3) and estimates["pass@1"].n == 3
    assert estimates["pass@10"].value == pytest.approx(2 / 3)
